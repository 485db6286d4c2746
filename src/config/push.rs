//! Pushes: notification server, coalescing, message filter.

pub use crate::policy::{Messages, Native};
use std::fmt;
use std::time::Duration;

use reqwest::Url;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::names::is_loopback;
use super::routes::Trust;
use super::units;

/// The section `push`; the meaning of its keys: [`PushDelivery`](super::PushDelivery), [`PushRules`](super::PushRules).
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Push {
    #[serde(deserialize_with = "notify_url")]
    pub(super) notify_url: Url,
    pub(super) ca: Option<Trust>,
    #[serde(deserialize_with = "contact")]
    pub(super) contact: Option<Contact>,
    #[serde(with = "NativeName")]
    pub(super) native: Native,
    #[serde(deserialize_with = "units::duration")]
    pub(super) coalesce: Duration,
    #[serde(with = "MessagesName")]
    pub(super) messages: Messages,
    #[serde(deserialize_with = "units::duration_or_none")]
    pub(super) grace: Duration,
    #[serde(deserialize_with = "idle_renewal")]
    pub(super) idle_renewal: Duration,
    #[serde(deserialize_with = "units::count")]
    pub(super) max_in_flight: usize,
    #[serde(deserialize_with = "units::count")]
    pub(super) max_per_second: u32,
}

impl Default for Push {
    fn default() -> Self {
        Self {
            notify_url: default_notify_url(),
            ca: None,
            contact: None,
            native: Native::Passthrough,
            coalesce: Duration::from_secs(10),
            messages: Messages::Auto,
            grace: Duration::ZERO,
            idle_renewal: Duration::from_secs(9 * 60),
            max_in_flight: 16,
            max_per_second: 50,
        }
    }
}

/// A URL or mail address at which an operator can be reached. Its characters can stand in a comment of an HTTP header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact(String);

impl Contact {
    /// The longest one, in bytes.
    const MAX: usize = 200;

    /// Reads `https://…`, `http://…`, `mailto:you@example.org` or `you@example.org`.
    ///
    /// # Errors
    /// The problem of the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        // The characters of a comment without quoting (RFC 9110 section 5.6.5), and no space.
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'(' | b')' | b'\\'))
        {
            return Err(format!(
                "{text:?} contains characters that are not allowed in a contact: spaces, ( ) \\, non-ASCII"
            ));
        }
        if text.len() > Self::MAX {
            return Err(format!("is too long: {} characters at most", Self::MAX));
        }
        let is_web = Url::parse(text)
            .is_ok_and(|url| matches!(url.scheme(), "https" | "http") && url.has_host());
        if is_web {
            return Ok(Self(text.into()));
        }
        let address = text.strip_prefix("mailto:").unwrap_or(text);
        let is_address = address.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty()
                && !domain.is_empty()
                && !local.contains([':', '/'])
                && !domain.contains(['@', ':', '/'])
        });
        if is_address {
            return Ok(Self(format!("mailto:{address}")));
        }
        Err(format!(
            "{text:?} is not a contact: write `https://example.org/contact` or `you@example.org`"
        ))
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[expect(clippy::expect_used, reason = "a constant that every test run parses")]
fn default_notify_url() -> Url {
    Url::parse("https://notifications.delta.chat/notify").expect("a valid URL")
}

fn contact<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Contact>, D::Error> {
    Contact::parse(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

fn notify_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    let url = Url::parse(&text).map_err(|error| {
        D::Error::custom(format!(
            "{text:?} is not a URL ({error}): write it as `https://host/path`"
        ))
    })?;
    let host = url.host_str().unwrap_or_default();
    match url.scheme() {
        "https" if !host.is_empty() => Ok(url),
        "http" if is_loopback(host) => Ok(url),
        "http" => Err(D::Error::custom(
            "a token must not cross the network in clear: use `https://` (`http://` is for this machine only)",
        )),
        scheme => Err(D::Error::custom(format!(
            "{scheme:?} is not a scheme for the notification server: use `https://`"
        ))),
    }
}

/// The same for a value that may be absent.
pub(super) fn some_idle_renewal<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    idle_renewal(deserializer).map(Some)
}

fn idle_renewal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let renewal = units::duration(deserializer)?;
    let problem = if renewal < Duration::from_secs(30) {
        "is too short for servers and networks: 30s at least"
    } else if renewal >= Duration::from_secs(29 * 60) {
        "is too long, servers may log an idle client out after 30m (RFC 2177): less than 29m"
    } else {
        return Ok(renewal);
    };
    Err(D::Error::custom(format!("{} {problem}", humantime::format_duration(renewal))))
}

/// The names of [`Messages`] in the file.
#[derive(Deserialize)]
#[serde(remote = "Messages", rename_all = "lowercase")]
enum MessagesName {
    Auto,
    All,
    Encrypted,
    Chat,
}

/// The names of [`Native`] in the file.
#[derive(Deserialize)]
#[serde(remote = "Native", rename_all = "lowercase")]
enum NativeName {
    Passthrough,
    Takeover,
}
