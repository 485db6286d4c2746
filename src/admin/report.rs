//! The status as data, from which the table, `--json` and the web page are made. It contains no secret: tokens are
//! named by a short hash.
//! Times are RFC 3339 in JSON. Values marked *since the start* are in memory only and absent after a restart.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How a running deltapush and its accounts are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The version of the process that answers.
    pub version: String,
    /// When this was put together.
    pub at: Timestamp,
    /// When the process started.
    pub started: Timestamp,
    /// Clients that are connected now.
    pub connections: u64,
    /// Mail servers at which logins that are not known are refused now, because others failed there.
    pub limited: Vec<LimitedServer>,
    /// The accounts, counted; all of them, also where `accounts` has only some.
    pub counts: AccountCounts,
    /// New accounts that were refused since the start: `limits.accounts`, `limits.new_accounts_per_address`.
    #[serde(default)]
    pub refused_accounts: u64,
    /// The notification server.
    pub notifications: Notifications,
    /// The accounts, those with a problem first, then by name.
    pub accounts: Vec<AccountReport>,
    /// Accounts that deltapush erased by itself in the last 30 days, the latest first.
    pub erased: Vec<ErasedReport>,
}

/// An account that deltapush erased by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasedReport {
    /// Its login name.
    pub name: String,
    /// Its mail server.
    pub server: String,
    /// When it was erased.
    pub at: Timestamp,
    /// Why, in words.
    pub reason: String,
}

impl StatusReport {
    /// Only the accounts in whose name or server one of `names` stands, whatever its case; all, if there are no names. The counts
    /// stay those of all.
    #[must_use]
    pub fn narrowed(mut self, names: &[String]) -> Self {
        let names: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
        let is_meant = |text: &str| names.iter().any(|name| text.to_lowercase().contains(name.as_str()));
        self.accounts.retain(|account| names.is_empty() || is_meant(&account.name) || is_meant(&account.server));
        self
    }
}

/// A mail server at which so many logins failed that those which are not known are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitedServer {
    /// Its name.
    pub server: String,
    /// Failed logins that count.
    pub failed: usize,
    /// How many may fail.
    pub limit: usize,
    /// In this time.
    pub within_seconds: u64,
    /// When logins that are not known are tried again.
    pub until: Timestamp,
}

/// Accounts and devices, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountCounts {
    /// Accounts with a device.
    pub accounts: usize,
    /// Accounts whose mailbox is watched now.
    pub watched: usize,
    /// Accounts with a [`AccountProblem`].
    pub problems: usize,
    /// Accounts that wait for their phone to log in, because the password is not known.
    pub waiting: usize,
    /// Accounts that cannot be watched because of how their clients log in.
    pub unusable: usize,
    /// Devices; one that has several accounts counts in each.
    pub devices: usize,
    /// Devices that have something to be told that was not accepted yet.
    pub pending: usize,
    /// Devices in quarantine: the notification server says that their token is gone.
    pub quarantined: usize,
}

/// The notification server, as it was last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notifications {
    /// Since when it counts as down, if it does: pushes wait meanwhile.
    pub down_since: Option<Timestamp>,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountReport {
    /// Its login name.
    pub name: String,
    /// Its mail server, as `host:port` or whatever its route goes by.
    pub server: String,
    /// Its watch.
    pub watch: WatchReport,
    /// Its devices, the one registered first first.
    pub devices: Vec<DeviceReport>,
    /// Which messages wake them, in words.
    pub messages: String,
    /// When a device last connected for a background fetch, since the start. It does not tell which one it is.
    pub background_fetch: Option<Timestamp>,
    /// The mailboxes that were looked through, by name.
    pub mailboxes: Vec<MailboxReport>,
    /// When a message was last noticed, since the start.
    pub last_message: Option<Timestamp>,
    /// The last POST for one of its devices that was answered, since the start.
    pub last_push: Option<PushReport>,
    /// What is wrong and what helps, if something is.
    pub problem: Option<AccountProblem>,
}

/// What a watch is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchKind {
    /// The mailbox is watched.
    Watching,
    /// A client of the account waits for mail itself, and what it hears wakes the others.
    WithClient,
    /// It waits for its turn at the server, or is logging in.
    Connecting,
    /// It was interrupted and tries again.
    Interrupted,
    /// It ended until a client logs in, or the configuration is changed.
    Ended,
    /// The password is not known: it waits for the phone to log in.
    WaitingForLogin,
    /// No session is left to watch in: one of the account's devices has to come.
    WaitingForDevice,
    /// It is impossible: what the client logs in with cannot be used again.
    Unusable,
    /// It has not been started yet.
    NotStarted,
}

impl WatchKind {
    /// In a word or two.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Watching => "watching",
            Self::WithClient => "its client waits",
            Self::Connecting => "connecting",
            Self::Interrupted => "interrupted",
            Self::Ended => "ended",
            Self::WaitingForLogin => "waits for its phone",
            Self::WaitingForDevice => "waits for a device",
            Self::Unusable => "cannot be watched",
            Self::NotStarted => "not started yet",
        }
    }
}

/// A watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchReport {
    /// What it is doing.
    pub state: WatchKind,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When the mail server last said something to it.
    pub last_proof: Option<Timestamp>,
    /// News may be so late, in seconds, if the connection has died in silence just after the last proof of life.
    pub blindness_seconds: Option<u64>,
    /// What comes next, in words.
    pub next_step: String,
    /// When that is, if it has a time of its own.
    pub next: Option<Timestamp>,
    /// Limits of the watch, a sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A device of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// The short hash that names its token.
    pub token: String,
    /// When the token was first handed over.
    pub first_seen: Timestamp,
    /// When it was last handed over; with an hour's tolerance.
    pub last_seen: Timestamp,
    /// When it last connected, since the start.
    pub connected: Option<Timestamp>,
    /// It is connected now.
    pub online: bool,
    /// What its app fetches, with the evidence, in words; empty until that is known.
    pub fetches: String,
    /// It has something to be told that was not accepted yet.
    pub pending: bool,
    /// When a push of it was last accepted.
    pub accepted: Option<Timestamp>,
    /// Its last push was given up, and none was accepted since.
    pub given_up: Option<GivenUpReport>,
    /// The notification server says that its token is gone.
    pub quarantine: Option<QuarantineReport>,
}

/// Quarantine of a device: the notification server says that its token is gone (410).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineReport {
    /// How often it said so.
    pub answers: u32,
    /// Since when.
    pub since: Timestamp,
    /// Not before this time it is tried again, with news.
    pub until: Timestamp,
}

/// A push that is not tried any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUpReport {
    /// When it was given up.
    pub at: Timestamp,
    /// Why, in words.
    pub reason: String,
}

/// A mailbox that is watched, or was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxReport {
    /// Its name, as it stands on the wire (modified UTF-7).
    pub name: String,
    /// It was looked through below this UID.
    pub uid_next: u64,
}

/// A POST that was answered, or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushReport {
    /// When it ended.
    pub at: Timestamp,
    /// Whose token it was, by its short hash.
    pub token: String,
    /// The notification server took it.
    pub accepted: bool,
    /// The answer, in words.
    pub answer: String,
    /// From the moment at which the mail server told of the news to the answer, in milliseconds; unknown where the message was
    /// found by looking, after an interruption.
    pub delay_milliseconds: Option<u64>,
}

/// Something that keeps pushes from an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountProblem {
    /// What happened.
    pub words: String,
    /// What helps.
    pub cure: String,
}
