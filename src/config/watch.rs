//! Watching of mailboxes: pacing per mail server, and settings per account.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::names::is_dns_name;
use super::units;
use crate::mailbox_name::MailboxName;

/// Pacing of watch sessions at a server without [`ServerSettings`] of its own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PacingLimits {
    /// Watching sessions at one server.
    #[serde(deserialize_with = "units::count")]
    pub sessions: usize,
    /// Concurrent logins of watch sessions at one server.
    #[serde(deserialize_with = "units::count")]
    pub at_once: usize,
    /// The rate of new sessions at one server.
    pub new_sessions: Rate,
}

impl Default for PacingLimits {
    fn default() -> Self {
        Self {
            sessions: 20_000,
            at_once: 16,
            new_sessions: Rate { count: 50, per: Duration::from_secs(1) },
        }
    }
}

/// A rate, written as `10/s`, `30/min` or `100/h`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    per: Duration,
}

impl Rate {
    /// So many a second.
    pub(super) const fn per_second(count: u32) -> Self {
        Self { count, per: Duration::from_secs(1) }
    }

    /// The time from one to the next.
    #[must_use]
    pub fn interval(self) -> Duration {
        self.per.checked_div(self.count).unwrap_or(self.per)
    }
}

const PERIODS: [(&str, u64); 3] = [("s", 1), ("min", 60), ("h", 3600)];

impl FromStr for Rate {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (count, period) = text.split_once('/').ok_or(())?;
        let count = count.trim().parse().ok().filter(|count| *count > 0).ok_or(())?;
        let (_, seconds) = PERIODS.iter().find(|(name, _)| *name == period.trim()).ok_or(())?;
        Ok(Self { count, per: Duration::from_secs(*seconds) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = PERIODS.iter().find(|(_, seconds)| Duration::from_secs(*seconds) == self.per);
        write!(f, "{}/{}", self.count, period.map_or("?", |(name, _)| name))
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|()| {
            D::Error::custom(format!(
                "{text:?} is not a rate: write it as `10/s`, `30/min` or `100/h`"
            ))
        })
    }
}

/// Settings of one mail server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// Its host name, or `*.` and a domain for all hosts below it.
    #[serde(deserialize_with = "host_pattern")]
    pub host: String,
    /// Watching sessions there.
    #[serde(default)]
    pub sessions: Option<usize>,
    /// Concurrent logins.
    #[serde(default)]
    pub at_once: Option<usize>,
    /// New sessions in a time.
    #[serde(default)]
    pub new_sessions: Option<Rate>,
    /// Duration of one IDLE there.
    #[serde(default, deserialize_with = "super::push::some_idle_renewal")]
    pub idle_renewal: Option<Duration>,
}

fn host_pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?.to_ascii_lowercase();
    if is_dns_name(text.strip_prefix("*.").unwrap_or(&text))
        || text.parse::<std::net::IpAddr>().is_ok()
    {
        return Ok(text);
    }
    Err(D::Error::custom(format!(
        "{text:?} is not a host: write it as `imap.example.org` or `*.example.org`"
    )))
}

impl ServerSettings {
    /// Reports if this entry is about `host` (in lower case).
    #[must_use]
    pub fn is_about(&self, host: &str) -> bool {
        match self.host.strip_prefix('*') {
            Some(suffix) => host.ends_with(suffix),
            None => self.host == host,
        }
    }
}

/// Known limits of some large providers: host, logins of watches at once, and new sessions a minute. From public issue
/// threads and client settings; none was tried live.
const KNOWN: [(&str, usize, u32); 9] = [
    // Many reconnections are throttled.
    ("imap.gmail.com", 2, 60),
    ("*.office365.com", 4, 120),
    ("*.outlook.com", 4, 120),
    ("*.yahoo.com", 2, 60),
    // They lock accounts and addresses.
    ("*.gmx.net", 2, 60),
    ("*.gmx.com", 2, 60),
    ("*.web.de", 2, 60),
    // Limits logins per time, for all clients of an account.
    ("*.mailbox.org", 2, 60),
    // Ends sessions at random after 6 to 45 minutes, so that there are many new ones.
    ("*.yandex.com", 4, 120),
];

/// Known settings of large providers.
#[must_use]
pub fn known_servers() -> Vec<ServerSettings> {
    let server = |(host, at_once, a_minute): (&str, usize, u32)| ServerSettings {
        host: host.to_owned(),
        sessions: None,
        at_once: Some(at_once),
        new_sessions: Some(Rate { count: a_minute, per: Duration::from_secs(60) }),
        idle_renewal: None,
    };
    KNOWN.into_iter().map(server).collect()
}

/// Settings of one account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountSettings {
    /// Further addresses of the account besides the login name: mail from them causes no push.
    pub addresses: Vec<String>,
    /// Mailboxes that are watched besides the one that its clients wait in, as they stand in IMAP (modified UTF-7).
    #[serde(deserialize_with = "mailboxes")]
    pub mailboxes: Vec<MailboxName>,
}

fn mailboxes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MailboxName>, D::Error> {
    Ok(Vec::<String>::deserialize(deserializer)?.into_iter().map(MailboxName::from).collect())
}

/// Accounts by login name.
pub type AccountSettingsByName = BTreeMap<String, AccountSettings>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written() {
        for (text, interval) in [("10/s", 100), ("30/min", 2000), ("7200 / h", 500)] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.interval(), Duration::from_millis(interval), "{text}");
        }
        assert_eq!("30/min".parse::<Rate>().unwrap().to_string(), "30/min");
        for text in ["10", "0/s", "10/day", "-1/s", "/s", "1.5/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn servers_are_told_by_name_or_domain() {
        let known = known_servers();
        let about = |host: &str| known.iter().filter(|server| server.is_about(host)).count();
        assert_eq!(
            (about("imap.gmail.com"), about("imap.gmx.net"), about("gmx.net"), about("notgmx.net")),
            (1, 1, 0, 0)
        );
    }
}
