//! Telemetry events.

use std::time::{Duration, Instant};

use super::AccountTelemetry;
use crate::secret::DeviceToken;

/// An event of this moment.
#[derive(Debug, Clone, Copy)]
pub enum TelemetryEvent<'a> {
    /// A client connection got a connection slot.
    Connected,
    /// A connection was refused: no connection slot was free, or its address may not connect.
    TurnedAway,
    /// A connection with a slot ended, with or without a login.
    Disconnected,
    /// A login was tried.
    Login {
        /// The client's connection.
        session: u64,
        /// The account; `None` if it does not get as far as a route, or the account has no device.
        account: Option<&'a AccountTelemetry>,
        /// The result.
        result: LoginResult,
    },
    /// A client that was logged in disconnected.
    LoggedOut {
        /// The client's connection.
        session: u64,
        /// The account's; `None` if it has no device.
        account: Option<&'a AccountTelemetry>,
    },
    /// News of a mail server was not taken.
    NewsRefused(NewsRefusal),
    /// A client handed over its token, new or known.
    Registered {
        /// The client's connection.
        session: u64,
        /// The account's; `None` if it was erased meanwhile.
        account: Option<&'a AccountTelemetry>,
        /// The device's token.
        token: &'a DeviceToken,
    },
    /// A client fetches messages after it was notified of new mail.
    Fetched {
        /// The client's connection.
        session: u64,
        /// The account.
        account: &'a AccountTelemetry,
        /// The token that the client handed over in this connection.
        token: Option<&'a DeviceToken>,
    },
    /// A client without a token connected for a background fetch.
    BackgroundFetch {
        /// The client's connection.
        session: u64,
        /// The account.
        account: &'a AccountTelemetry,
    },
    /// The watch of an account changed its state.
    Watch {
        /// The account.
        account: &'a AccountTelemetry,
        /// The new state.
        state: WatchEvent<'a>,
    },
    /// The push filter decided on a message.
    Judged {
        /// The account.
        account: &'a AccountTelemetry,
        /// The mailbox.
        mailbox: &'a str,
        /// The UID of the message; zero if it is not known.
        uid: u64,
        /// The reason for no push, as text; `None` if the message is pushed.
        skipped: Option<&'static str>,
    },
    /// New mail of a mailbox is stored on disk. Its POST may have begun before.
    Noticed {
        /// The account.
        account: &'a AccountTelemetry,
        /// The mailbox.
        mailbox: &'a str,
        /// At least one device will be woken.
        announce: bool,
        /// Arrival of the mail server's notification; `None` if catch-up found the mail.
        since: Option<Instant>,
    },
    /// The POST of a token ended.
    Posted {
        /// The accounts that have the token.
        accounts: &'a [&'a AccountTelemetry],
        /// The device's token.
        token: &'a DeviceToken,
        /// The result.
        result: PostResult,
        /// Duration of the POST.
        took: Duration,
    },
    /// A push was given up.
    GaveUp {
        /// The accounts that have the token.
        accounts: &'a [&'a AccountTelemetry],
        /// The device's token.
        token: &'a DeviceToken,
        /// The reason, as text.
        reason: &'a str,
    },
    /// The push of a token waits.
    Waits {
        /// The accounts that have the token.
        accounts: &'a [&'a AccountTelemetry],
        /// The device's token.
        token: &'a DeviceToken,
        /// The reason.
        pause: Pause,
        /// Time until the POST, unless an event brings it forward.
        next: Duration,
    },
    /// An operator asked for a test push of this token: the next POST is not caused by a message.
    PushTest {
        /// The account.
        account: &'a AccountTelemetry,
        /// The device's token.
        token: &'a DeviceToken,
    },
    /// An outage of the notification server began or ended.
    Outage {
        /// The outage began.
        down: bool,
    },
}

/// The reason why a push waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pause {
    /// The device was woken a moment ago: one push at the end of the coalescing window covers all further messages.
    Coalescing,
    /// The last POST failed.
    Failed,
    /// The notification server is down: one push at a time probes it.
    Outage,
}

/// The result of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoginResult {
    /// The mail server accepted it.
    Accepted,
    /// The mail server refused the login name or the password.
    Refused,
    /// Too many logins failed: the mail server was not asked.
    Limited,
    /// No route matches, or the configuration does not allow it.
    NotAllowed,
    /// The mail server cannot be reached, is overloaded, or has too many sessions.
    Unavailable,
    /// The client's mechanism cannot be used, or the client aborted it.
    NoMechanism,
}

impl LoginResult {
    pub(super) const LABELS: [&'static str; 6] =
        ["accepted", "refused", "limited", "not_allowed", "unavailable", "no_mechanism"];

    /// The value of the label `result`: one of [`Self::LABELS`].
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Limited => "limited",
            Self::NotAllowed => "not_allowed",
            Self::Unavailable => "unavailable",
            Self::NoMechanism => "no_mechanism",
        }
    }
}

/// The reason for which news of a mail server was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NewsRefusal {
    /// No token, or a wrong one.
    Token,
    /// The request makes no sense.
    Body,
    /// Its route takes no news, it is not the sender's, or its name is not clear.
    Account,
    /// Too much at once.
    Rate,
    /// The state cannot be written, or not in time.
    State,
}

impl NewsRefusal {
    pub(super) const LABELS: [&'static str; 5] = ["token", "body", "account", "rate", "state"];

    /// The value of the label `reason`: one of [`Self::LABELS`].
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Body => "body",
            Self::Account => "account",
            Self::Rate => "rate",
            Self::State => "state",
        }
    }
}

/// The direction of relayed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the mail server, or deltapush, to the client.
    ToClient,
    /// From the client, or deltapush, to the mail server.
    ToUpstream,
}

/// The state of an account's watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchEvent<'a> {
    /// Waits for a permit of the pacing, or is logging in.
    Connecting,
    /// The mailbox is watched.
    Watching,
    /// Interrupted; retries.
    Interrupted {
        /// The cause, as text.
        reason: &'a str,
        /// Time until the next attempt.
        next: Duration,
    },
    /// Ended until a client logs in.
    AwaitingLogin {
        /// The cause, as text.
        reason: &'a str,
        /// The remedy, as text.
        cure: &'static str,
    },
    /// The watch no longer exists.
    Ended,
}

/// The result of a POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PostResult {
    /// Accepted (2xx).
    Accepted,
    /// The token is gone (410).
    Gone,
    /// The request was refused with this status (other 4xx).
    Refused(u16),
    /// A status that may be temporary.
    Failed(u16),
    /// No answer in time.
    TimedOut,
    /// No connection, or a broken one.
    Unreachable,
}

impl PostResult {
    pub(super) const LABELS: [&'static str; 6] =
        ["accepted", "gone", "refused", "failed", "timed_out", "unreachable"];

    /// The value of the label `answer`, without the status: one of [`Self::LABELS`].
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Gone => "gone",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
        }
    }
}
