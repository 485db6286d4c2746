//! The status as data, from which the table, `--json` and the web page are made. It contains no secret: tokens are
//! named by a short hash.
//! Times are RFC 3339 in JSON. Values marked *since the start* are in memory only and absent after a restart.

use std::cmp::Reverse;
use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::cluster_report::ClusterReport;
use super::format::{ago, counted, tame};

/// The status of the running server and its accounts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The version of the process that answers.
    pub version: String,
    /// The time of the report.
    pub at: Timestamp,
    /// When the process started.
    pub started: Timestamp,
    /// Clients that are connected now.
    pub connections: u64,
    /// Mail servers at which logins of unknown accounts are refused now, because of failed logins there.
    pub limited: Vec<LimitedServer>,
    /// Problems of the certificates that clients see, in words.
    #[serde(default)]
    pub certificates: Vec<String>,
    /// The accounts, counted; all of them, also where `accounts` has only some.
    pub counts: AccountCounts,
    /// New accounts that were refused since the start: `limits.accounts`, `limits.new_accounts_per_address`.
    #[serde(default)]
    pub refused_accounts: u64,
    /// The notification server.
    pub notifications: Notifications,
    /// The accounts, those with a problem first, then by name.
    pub accounts: Vec<AccountReport>,
    /// Accounts without a device to which clients logged in within the last day, those with a connected client first.
    #[serde(default)]
    pub tokenless: Vec<TokenlessReport>,
    /// Accounts that deltapush erased without a command in the last 30 days, the latest first.
    pub erased: Vec<ErasedReport>,
    /// The nodes, where several share the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterReport>,
    /// The reason why the accounts cannot be read from the database at the moment, where nodes share the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// There may be more accounts than the search has found: it was stopped, or found too many.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_cut: bool,
}

/// A problem of several accounts at one mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerProblem<'a> {
    /// The mail server.
    pub server: &'a str,
    /// The problem.
    pub problem: &'a AccountProblem,
    /// The number of these accounts.
    pub accounts: usize,
}

/// An account to which a client logged in without handing over a push token: no push will come for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenlessReport {
    /// Its login name.
    pub name: String,
    /// Its mail server.
    pub server: String,
    /// Its clients that are connected now.
    pub clients: usize,
    /// The time of the last login.
    pub last_login: Timestamp,
}

/// An account that deltapush erased without a command.
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
    /// Keeps only the accounts whose name or server contains one of `names`, case-insensitively; all if there are no
    /// names. The counts stay those of all accounts.
    #[must_use]
    pub fn narrowed(mut self, names: &[String]) -> Self {
        let names: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
        let is_meant =
            |text: &str| names.iter().any(|name| text.to_lowercase().contains(name.as_str()));
        let is_wanted =
            |name: &str, server: &str| names.is_empty() || is_meant(name) || is_meant(server);
        self.accounts.retain(|account| is_wanted(&account.name, &account.server));
        self.tokenless.retain(|account| is_wanted(&account.name, &account.server));
        self
    }

    /// Problems that several accounts of one mail server have, those of most accounts first: their cause is the server.
    #[must_use]
    pub fn server_problems(&self) -> Vec<ServerProblem<'_>> {
        let mut found: HashMap<(&str, &str), ServerProblem<'_>> = HashMap::new();
        for account in &self.accounts {
            let Some(problem) = &account.problem else { continue };
            let entry = found.entry((&account.server, &problem.words)).or_insert(ServerProblem {
                server: &account.server,
                problem,
                accounts: 0,
            });
            entry.accounts += 1;
        }
        let mut found: Vec<_> =
            found.into_values().filter(|problem| problem.accounts > 1).collect();
        found.sort_by_key(|problem| (Reverse(problem.accounts), problem.server));
        found
    }
}

/// A mail server at which logins of unknown accounts are refused, because of failed logins there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitedServer {
    /// Its name.
    pub server: String,
    /// Failed logins within the time.
    pub failed: usize,
    /// The limit of failed logins.
    pub limit: usize,
    /// The time over which they are counted.
    pub within_seconds: u64,
    /// The end of the refusal.
    pub until: Timestamp,
}

/// Accounts and devices, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountCounts {
    /// Accounts with a device.
    pub accounts: usize,
    /// Accounts whose mailbox is watched now.
    pub watched: usize,
    /// Those of them that belong to other nodes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub elsewhere: usize,
    /// Accounts without a watch, of whose new mail the mail server tells.
    #[serde(default)]
    pub told: usize,
    /// Accounts with a [`AccountProblem`].
    pub problems: usize,
    /// Accounts that wait for their phone to log in, because the password is not known.
    pub waiting: usize,
    /// Accounts that cannot be watched because of how their clients log in.
    pub unusable: usize,
    /// Devices; one that has several accounts counts in each.
    pub devices: usize,
    /// Devices with a push that is not accepted yet.
    pub pending: usize,
    /// Devices in quarantine: the notification server rejected their token as gone.
    pub quarantined: usize,
}

/// The last known condition of the notification server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notifications {
    /// Start of the outage, if there is one: pushes wait meanwhile.
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
    /// The messages that wake them, as text.
    pub messages: String,
    /// When a device last connected for a background fetch, since the start. It does not tell which one it is.
    pub background_fetch: Option<Timestamp>,
    /// The checked mailboxes, by name.
    pub mailboxes: Vec<MailboxReport>,
    /// The mail server's news of it, if its route takes any or took any since the start.
    #[serde(default)]
    pub news: Option<NewsReport>,
    /// The last new mail, since the start.
    pub last_message: Option<Timestamp>,
    /// The last POST for one of its devices that was answered, since the start.
    pub last_push: Option<PushReport>,
    /// The problem and its remedy, if there is one.
    pub problem: Option<AccountProblem>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Nodes without companions say nothing of other nodes.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The state of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchKind {
    /// The mailbox is watched.
    Watching,
    /// A client of the account waits for mail itself; the observer of its session wakes the other devices.
    WithClient,
    /// There is no watch: the mail server tells of new mail.
    ServerTells,
    /// It waits for a permit of the pacing, or is logging in.
    Connecting,
    /// It was interrupted and tries again.
    Interrupted,
    /// It ended until a client logs in, or the configuration is changed.
    Ended,
    /// The password is not known: it waits for the phone to log in.
    WaitingForLogin,
    /// No session is left to watch in: one of the account's devices must connect.
    WaitingForDevice,
    /// It is impossible: the client's login leaves no credentials.
    Unusable,
    /// It has not been started yet.
    NotStarted,
    /// Another node that shares the state watches the account.
    AtAnotherNode,
    /// No node watches the account at the moment.
    WithoutNode,
}

impl WatchReport {
    /// A short label of the state, with the node where that is all that is known.
    #[must_use]
    pub fn label(&self) -> String {
        match (&self.node, self.state) {
            (Some(node), WatchKind::AtAnotherNode) => format!("at {}", tame(node)),
            (_, state) => state.as_str().to_owned(),
        }
    }
}

impl WatchKind {
    /// A short label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Watching => "watching",
            Self::WithClient => "its client waits",
            Self::ServerTells => "mail server tells",
            Self::Connecting => "connecting",
            Self::Interrupted => "interrupted",
            Self::Ended => "ended",
            Self::WaitingForLogin => "waits for its phone",
            Self::WaitingForDevice => "waits for a device",
            Self::Unusable => "cannot be watched",
            Self::NotStarted => "not started yet",
            Self::AtAnotherNode => "at another node",
            Self::WithoutNode => "no node watches it",
        }
    }
}

/// The mail server's news of an account, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewsReport {
    /// When the mail server last told of a message.
    pub last: Option<Timestamp>,
    /// Messages that it did not tell of: a watch or a client's session found them.
    pub missed: u64,
    /// When such a message was last found.
    pub missed_at: Option<Timestamp>,
}

impl NewsReport {
    /// The problem where no watch finds what the mail server leaves out.
    pub const SILENT: &str = "the mail server does not tell of new mail any more";
    /// The remedy for it.
    pub const REMEDY: &str = "look into the log of the mail server for deltapush, and try `deltapush news ADDRESS </dev/null` on it; \
                              messages that programs copy into the mailbox are never told of";

    /// Reports if the mail server has told of nothing since a message was found that it left out.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.missed_at.is_some_and(|missed| self.last.is_none_or(|last| last < missed))
    }

    /// The mail server's last news and the messages that it left out, as text.
    #[must_use]
    pub fn words(&self, now: Timestamp) -> String {
        let told = match self.last {
            Some(last) => format!("the mail server last told of a message {}", ago(last, now)),
            None => "the mail server has told of no message since the start".to_owned(),
        };
        let Some(missed) = self.missed_at else { return told };
        let messages = counted(self.missed, "message");
        format!("{told}; it did not tell of {messages}, the last found {}", ago(missed, now))
    }
}

/// A watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchReport {
    /// Its state.
    pub state: WatchKind,
    /// Since when.
    pub since: Option<Timestamp>,
    /// The time of the mail server's last sign of life.
    pub last_activity: Option<Timestamp>,
    /// The longest delay of new mail, in seconds, if the connection died silently just after the last sign of life.
    pub max_detection_delay_seconds: Option<u64>,
    /// The next step, as text.
    pub next_step: String,
    /// The time of the next step, if known.
    pub next: Option<Timestamp>,
    /// Limits of the watch, a sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Sessions that were lost without a word while they waited for new mail, since the start.
    #[serde(default)]
    pub lost: Option<LostReport>,
    /// The node that watches the account, if that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Watch sessions that something between deltapush and the mail server may have dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostReport {
    /// Their number.
    pub count: u32,
    /// When the last one was found to be lost.
    pub at: Timestamp,
    /// The server's silence before that, in seconds.
    pub quiet_seconds: u64,
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
    /// The kind of messages that its app fetches, with the evidence, as text; empty while unknown.
    pub fetches: String,
    /// It has a push that is not accepted yet.
    pub pending: bool,
    /// When a push of it was last accepted.
    pub accepted: Option<Timestamp>,
    /// Its last push was given up, and none was accepted since.
    pub given_up: Option<GivenUpReport>,
    /// The notification server rejected its token as gone.
    pub quarantine: Option<QuarantineReport>,
}

/// Quarantine of a device: the notification server rejected its token as gone (410).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineReport {
    /// The number of such answers.
    pub answers: u32,
    /// Since when.
    pub since: Timestamp,
    /// The earliest time of the next attempt, which new mail causes.
    pub until: Timestamp,
}

/// A push that was given up.
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
    /// Messages below this UID were checked.
    pub uid_next: u64,
}

/// A POST that was answered, or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushReport {
    /// When it ended.
    pub at: Timestamp,
    /// The short hash of the token.
    pub token: String,
    /// The notification server accepted it.
    pub accepted: bool,
    /// The answer, in words.
    pub answer: String,
    /// Time from the mail server's announcement of the new mail to the answer, in milliseconds; unknown for messages
    /// found by catch-up.
    pub delay_milliseconds: Option<u64>,
}

/// A problem that prevents pushes for an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountProblem {
    /// The problem.
    pub words: String,
    /// The remedy.
    pub cure: String,
}
