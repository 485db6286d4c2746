//! News of the mail server: the ways in which it reaches deltapush, and who is heard.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::error::ConfigProblem;
use super::located::Located;
use super::{AllowedLogin, Config};
use crate::secret::Secret;

/// Random bytes in a token.
const TOKEN_LEN: usize = 32;

/// The name of the hash in its text.
const ALGORITHM: &str = "sha256:";

/// The ways in which the mail server's news reaches deltapush. Default: only the command, of root and the user of deltapush.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewsSettings {
    /// The Unix socket for `deltapush news`, open to every user of the machine. Default: none.
    pub socket: Option<PathBuf>,
    /// IP address and port of the hook. Default: none.
    #[serde(deserialize_with = "address")]
    pub listen: Option<Located<SocketAddr>>,
    /// True for TLS, with the certificate that clients see. Default: everywhere but on loopback.
    pub tls: Option<bool>,
    /// Permits operation without TLS on other addresses than loopback.
    pub insecure: bool,
    /// Path of the socket that speaks Dovecot's dict protocol. Default: none.
    pub dict: Option<PathBuf>,
    /// The tokens that the hook accepts. Without any, it accepts all requests.
    pub tokens: Vec<NewsToken>,
}

/// A token of the hook, by its hash.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewsToken {
    /// The hash of the token.
    pub hash: Located<TokenHash>,
    /// The logins of which its holder may tell. Default: all.
    #[serde(default)]
    pub logins: Option<Located<Vec<AllowedLogin>>>,
}

/// The SHA-256 of a token. A token is random, so that its hash can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; SHA256_OUTPUT_LEN]);

impl NewsSettings {
    /// Reports if only this machine can reach the hook.
    #[must_use]
    pub fn is_on_loopback(&self) -> bool {
        self.listen.as_ref().is_none_or(|address| address.ip().to_canonical().is_loopback())
    }

    /// Reports if the hook uses TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.tls.unwrap_or(!self.is_on_loopback())
    }

    /// The URL of the hook, if there is one.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let scheme = if self.has_tls() { "https" } else { "http" };
        self.listen.as_ref().map(|address| format!("{scheme}://{}/v1/news", **address))
    }
}

impl NewsToken {
    /// Makes a random token. Returns it with the text of its hash for the configuration.
    ///
    /// # Errors
    /// If the operating system has no random numbers.
    pub fn make() -> io::Result<(Secret, String)> {
        let mut random = Zeroizing::new([0; TOKEN_LEN]);
        aws_lc_rs::rand::fill(&mut *random)
            .map_err(|_| io::Error::other("the operating system has no random numbers"))?;
        let token = Secret::new(BASE64_URL_SAFE_NO_PAD.encode(random.as_slice()).into_bytes());
        let hash = TokenHash::of(token.expose()).to_text();
        Ok((token, hash))
    }
}

impl TokenHash {
    /// The hash of `token`.
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest(&SHA256, token).as_ref());
        Self(hash)
    }

    /// Compares in the same time for all hashes.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }

    /// The form in the configuration: `sha256:` and hexadecimal digits.
    #[must_use]
    pub fn to_text(self) -> String {
        self.0.iter().fold(ALGORITHM.to_owned(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl FromStr for TokenHash {
    type Err = &'static str;

    /// The error does not repeat the text: people may have written the token itself.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let wrong = "this is not the hash of a token: write `sha256:` and 64 hexadecimal digits, as `deltapush news \
                     --make-token` prints them";
        let digits = text.strip_prefix(ALGORITHM).ok_or(wrong)?.as_bytes();
        let mut hash = [0; SHA256_OUTPUT_LEN];
        if digits.len() != hash.len() * 2 {
            return Err(wrong);
        }
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return Err(wrong) };
            *byte = digit(high).ok_or(wrong)? << 4 | digit(low).ok_or(wrong)?;
        }
        Ok(Self(hash))
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The conflicts of the hook with other keys, and unsafe combinations.
pub(super) fn problems(config: &Config) -> impl Iterator<Item = ConfigProblem> {
    let news = &config.startup.news;
    let hook = news.listen.as_ref().and_then(|address| {
        Some(ConfigProblem::new(address.place(), problem_of_address(config, **address)?))
    });
    hook.into_iter().chain(problems_of_tokens(&news.tokens))
}

fn problem_of_address(config: &Config, address: SocketAddr) -> Option<String> {
    let news = &config.startup.news;
    let admin = config.startup.admin.address.as_deref().copied();
    let is_taken = config.live.public_addresses().chain(admin).any(|other| other == address);
    if is_taken {
        Some(format!(
            "a listener, `admin`, or `http` of `certificate.acme` has the address {address}: give `news` another port"
        ))
    } else if news.is_on_loopback() {
        None
    } else if news.tokens.is_empty() {
        Some(format!(
            "without a token, strangers could wake all devices through {address}: add `tokens` (`deltapush news \
             --make-token` makes one), or use an address on loopback"
        ))
    } else if !news.has_tls() && !news.insecure {
        Some(format!(
            "without TLS the token would cross the network in clear at {address}: remove `tls: false`, use an address on \
             loopback, or add `insecure: true`"
        ))
    } else {
        None
    }
}

fn problems_of_tokens(tokens: &[NewsToken]) -> impl Iterator<Item = ConfigProblem> {
    tokens.iter().enumerate().flat_map(|(index, token)| {
        let is_twice = tokens.iter().take(index).any(|other| *other.hash == *token.hash);
        let twice = is_twice.then(|| {
            let text = "two tokens have this hash: remove one of them, or make a token for each mail server";
            ConfigProblem::new(token.hash.place(), text)
        });
        let logins = token.logins.as_ref().filter(|logins| logins.is_empty());
        let empty = logins.map(|logins| {
            let text = "`logins` is an empty list: add a domain or a login, or remove the key for all";
            ConfigProblem::new(logins.place(), text)
        });
        twice.into_iter().chain(empty)
    })
}

fn address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Located<SocketAddr>>, D::Error> {
    super::listeners::address::<1981, D>(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{complaint, parse};
    use super::*;

    const HASH: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn token_is_random_and_known_by_its_hash_alone() {
        let (one, hash) = NewsToken::make().unwrap();
        let (other, _) = NewsToken::make().unwrap();
        assert!(one != other && one.expose().len() == 43);
        let hash: TokenHash = hash.parse().unwrap();
        assert!(hash.is(&TokenHash::of(one.expose())) && !hash.is(&TokenHash::of(other.expose())));
        // FIPS 180-2, example B.1.
        assert_eq!(TokenHash::of(b"abc").to_text(), HASH);
        assert_eq!(
            HASH.to_uppercase().replace("SHA256", "sha256").parse(),
            HASH.parse::<TokenHash>()
        );
    }

    #[test]
    fn text_that_is_no_hash_is_refused_and_not_repeated() {
        for text in [
            "sesame",
            "sha256:sesame",
            "sha256:",
            "md5:00",
            &HASH.replace('b', "ä"),
            HASH.trim_start_matches('s'),
        ] {
            let said = complaint(&format!("news:\n  tokens:\n    - hash: \"{text}\"\n"));
            assert!(said.starts_with("config.yaml:3:13: `hash`: this is not the hash"), "{said}");
            assert!(!said.contains("sesame"), "{said}");
        }
    }

    #[test]
    fn hook_is_off_by_default_and_open_on_loopback_only() {
        assert_eq!(parse("{}").unwrap().startup.news, NewsSettings::default());
        let news = parse("news:\n  listen: 127.0.0.1:1981\n").unwrap().startup.news;
        assert_eq!(news.url().unwrap(), "http://127.0.0.1:1981/v1/news");
        let public = |more: &str| format!("news:\n  listen: \"[::]:1981\"\n{more}");
        let token = format!("  tokens: [{{hash: \"{HASH}\", logins: [example.org]}}]\n");
        let said = complaint(&public(""));
        assert!(said.starts_with("config.yaml:2:11: without a token, strangers"), "{said}");
        let said = complaint(&public(&format!("{token}  tls: false\n")));
        assert!(said.starts_with("config.yaml:2:11: without TLS the token"), "{said}");
        parse(&public(&format!("{token}  tls: false\n  insecure: true\n"))).unwrap();
        let news = parse(&public(&token)).unwrap().startup.news;
        assert_eq!(news.url().unwrap(), "https://[::]:1981/v1/news");
    }

    #[test]
    fn address_token_and_list_of_logins_must_make_sense() {
        let taken = "hostname: a.example\ncertificate:\n  acme: {terms_agreed: true, http: \"127.0.0.1:80\"}\n";
        for address in ["127.0.0.1:1993", "127.0.0.1:1980", "127.0.0.1:80"] {
            let said = complaint(&format!("{taken}news:\n  listen: {address}\n"));
            assert!(said.starts_with("config.yaml:5:11: a listener, `admin`, or"), "{said}");
        }
        for (text, expected) in [
            (
                "  listen: localhost:1981\n",
                "config.yaml:2:11: `listen`: \"localhost:1981\" is not an IP address",
            ),
            ("  tokens: [{logins: [a.example]}]\n", "`hash` is missing here"),
            (
                &format!("  tokens: [{{hash: \"{HASH}\", logins: []}}]\n"),
                "`logins` is an empty list",
            ),
            (
                &format!("  tokens: [{{hash: \"{HASH}\"}}, {{hash: \"{HASH}\"}}]\n"),
                "two tokens have this hash",
            ),
        ] {
            let said = complaint(&format!("news:\n{text}"));
            assert!(said.contains(expected), "{said}");
        }
    }
}
