//! Choices and limits that decide what machines do. The configuration names them; machines know nothing of the configuration.

use std::time::Duration;

/// Treatment of JMAPACCESS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JmapAccess {
    /// It is taken out of what the server offers.
    Strip,
    /// It stays.
    Pass,
}

/// Owner of the tokens of an account whose own server can push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Native {
    /// That server: a second push from here would be a duplicate.
    Passthrough,
    /// deltapush.
    Takeover,
}

/// Messages that wake a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Messages {
    /// The messages that the account's apps fetch, learned from their commands; all until that is known.
    Auto,
    /// All that are not ruled out for another reason.
    #[default]
    All,
    /// Of these, only what an app fetches that accepts encrypted mail only.
    Encrypted,
    /// Of these, only what Delta Chat shows as a chat message.
    Chat,
}

/// The way in which deltapush learns of new mail of an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum NewsSource {
    /// A watch: a session of deltapush's own in IDLE.
    #[default]
    Idle,
    /// The mail server's news. No session is opened, and no credentials are stored.
    Server,
    /// Both: the mail server's news, and a watch that finds what it left out.
    Both,
}

impl NewsSource {
    /// Reports if the mail server's news is accepted.
    #[must_use]
    pub const fn has_server(self) -> bool {
        !matches!(self, Self::Idle)
    }

    /// Reports if the account is watched.
    #[must_use]
    pub const fn has_watch(self) -> bool {
        !matches!(self, Self::Server)
    }
}

/// Security of a connection to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// `imaps://`: TLS from the first byte.
    Tls,
    /// `imap://`: STARTTLS, and no login without it.
    StartTls,
    /// `imap+plain://`: none at all.
    Plain,
}

impl Security {
    /// The port that the scheme stands for.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Tls => 993,
            Self::StartTls | Self::Plain => 143,
        }
    }

    /// The scheme in the file.
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Tls => "imaps",
            Self::StartTls => "imap",
            Self::Plain => "imap+plain",
        }
    }
}

/// So many logins may fail at each of several nodes, unless the limit is lower.
const LEAST_SHARE: usize = 2;

/// Limits on failed logins: delays, and beyond a number refusals for a while.
///
/// The upstream sees one address for all clients, ours. The defaults stay below what bans it where nobody has changed
/// anything: fail2ban (5 in 10 minutes), Stalwart (100 in a day).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedLogins {
    /// For how long a failed login counts, except in `per_upstream_day`.
    pub within: Duration,
    /// Delay of the answer to the first failure; it doubles with each further one.
    pub delay: Duration,
    /// The longest delay.
    pub longest_delay: Duration,
    /// From one client address, over all accounts.
    pub per_address: usize,
    /// For one account, from all addresses.
    pub per_account: usize,
    /// At one upstream, for all accounts from all addresses: at its name, and at the address that this and others lead to.
    pub per_upstream: usize,
    /// The same in 24 hours.
    pub per_upstream_day: usize,
}

impl FailedLogins {
    /// The part of one of so many nodes, rounded up: each counts for itself. At least two logins may fail there, for a person who
    /// mistypes a password once gets in with the right one.
    #[must_use]
    pub fn shared_by(&self, nodes: usize) -> Self {
        let share = |limit: usize| limit.div_ceil(nodes.max(1)).max(LEAST_SHARE.min(limit));
        Self {
            per_address: share(self.per_address),
            per_account: share(self.per_account),
            per_upstream: share(self.per_upstream),
            per_upstream_day: share(self.per_upstream_day),
            ..*self
        }
    }
}

impl Default for FailedLogins {
    fn default() -> Self {
        Self {
            within: Duration::from_secs(600),
            delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(16),
            per_address: 10,
            per_account: 3,
            per_upstream: 4,
            per_upstream_day: 90,
        }
    }
}
