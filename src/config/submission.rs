//! The SMTP server of an account: passed on to users and their programs, never used by deltapush itself.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::Security;
use super::names::{DOMAIN_PLACEHOLDER, is_host, split_port};

/// A submission server (RFC 6409) as the file gives it. Passwords go there, so there is no way without TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Submission {
    /// The TLS mode; never [`Security::Plain`].
    pub security: Security,
    /// A DNS name or an IP address without brackets, in lower case; `{domain}` may stand in it for the address's domain.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Submission {
    /// A server with this name.
    #[must_use]
    pub fn new(security: Security, host: impl Into<String>, port: u16) -> Self {
        Self { security, host: host.into(), port }
    }

    /// The default port (RFC 8314 section 7.3, RFC 6409 section 3.1).
    #[must_use]
    pub const fn usual_port(security: Security) -> u16 {
        match security {
            Security::Tls => 465,
            Security::StartTls | Security::Plain => 587,
        }
    }

    /// The server for an address of `domain`.
    #[must_use]
    pub fn of(&self, domain: &str) -> Self {
        Self { host: self.host.replace(DOMAIN_PLACEHOLDER, domain), ..self.clone() }
    }
}

impl FromStr for Submission {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let cure = "write it as `smtps://smtp.example.org` (TLS, port 465) or `smtp://smtp.example.org` (STARTTLS, port 587)";
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| format!("{text:?} has no scheme: {cure}"))?;
        let security = match scheme {
            "smtps" => Security::Tls,
            "smtp" => Security::StartTls,
            _ => return Err(format!("{scheme:?} is not a scheme for an SMTP server: {cure}")),
        };
        let (host, port) = split_port(rest)
            .filter(|(host, _)| is_host(host))
            .ok_or_else(|| format!("{rest:?} is not a server: {cure}"))?;
        Ok(Self { security, host, port: port.map_or(Self::usual_port(security), NonZeroU16::get) })
    }
}

impl fmt::Display for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.security == Security::Tls { "smtps" } else { "smtp" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

impl<'de> Deserialize<'de> for Submission {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submission_servers_are_read_and_written() {
        for (text, meaning) in [
            ("smtps://SMTP.example.org", "smtps://smtp.example.org:465"),
            ("smtp://mail.example.org", "smtp://mail.example.org:587"),
            ("smtps://[::1]:2465", "smtps://[::1]:2465"),
            ("smtps://smtp.{domain}", "smtps://smtp.{domain}:465"),
        ] {
            assert_eq!(text.parse::<Submission>().unwrap().to_string(), meaning);
        }
        let pattern: Submission = "smtps://smtp.{domain}".parse().unwrap();
        assert_eq!(pattern.of("example.org").to_string(), "smtps://smtp.example.org:465");
        for text in [
            "smtp.example.org",
            "smtp+plain://a.example",
            "smtps://a b",
            "smtps://bob@a.example",
            "smtps://a:0",
            "",
        ] {
            assert!(
                text.parse::<Submission>().unwrap_err().contains("smtps://smtp.example.org"),
                "{text}"
            );
        }
    }
}
