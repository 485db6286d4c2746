//! Telemetry events.

use std::time::{Duration, Instant};

use crate::account::AccountId;
use crate::secret::DeviceToken;

/// Something that happened just now.
#[derive(Debug, Clone, Copy)]
pub enum TelemetryEvent<'a> {
    /// A client's connection has found a place.
    Connected,
    /// A connection was turned away: there is no place for it, or its address may not connect.
    TurnedAway,
    /// A connection that had a place has ended, with or without a login.
    Disconnected,
    /// A login was tried.
    Login {
        /// The client's connection.
        session: u64,
        /// Whose login; `None` if it does not get as far as a route.
        account: Option<&'a AccountId>,
        /// What came of it.
        result: LoginResult,
    },
    /// A client that was logged in is gone.
    LoggedOut {
        /// Its connection.
        session: u64,
        /// Whose.
        account: &'a AccountId,
    },
    /// A client has handed over its token, a new one or one that is known.
    Registered {
        /// Its connection.
        session: u64,
        /// Whose.
        account: &'a AccountId,
        /// The token.
        token: &'a DeviceToken,
    },
    /// A client, having heard of news, asks for messages.
    Fetched {
        /// Its connection.
        session: u64,
        /// Whose.
        account: &'a AccountId,
        /// The token that its device has handed over in this connection.
        token: Option<&'a DeviceToken>,
    },
    /// A client that hands over no token has come for a background fetch.
    BackgroundFetch {
        /// Its connection.
        session: u64,
        /// Whose.
        account: &'a AccountId,
    },
    /// An account's watch does something else from now on.
    Watch {
        /// Whose watch.
        account: &'a AccountId,
        /// What it does.
        state: WatchEvent<'a>,
    },
    /// A watch has judged a message.
    Judged {
        /// Whose message.
        account: &'a AccountId,
        /// Where it lies.
        mailbox: &'a str,
        /// Its UID there.
        uid: u64,
        /// Why it wakes nobody, in words; `None` if it deserves a push.
        skipped: Option<&'static str>,
    },
    /// A watch has looked through a mailbox, and what it found is on disk. A POST of that may have begun by now.
    Noticed {
        /// Whose.
        account: &'a AccountId,
        /// Which mailbox.
        mailbox: &'a str,
        /// Some device is to be woken.
        announce: bool,
        /// When the server told of the news, if it did: without, it was found by looking.
        since: Option<Instant>,
    },
    /// The POST of a token has ended.
    Posted {
        /// The accounts that have the token.
        accounts: &'a [AccountId],
        /// The token.
        token: &'a DeviceToken,
        /// What came of it.
        result: PostResult,
        /// From its beginning to its end.
        took: Duration,
    },
    /// An announcement is not tried any more.
    GaveUp {
        /// The accounts that have the token.
        accounts: &'a [AccountId],
        /// The token.
        token: &'a DeviceToken,
        /// Why, in words.
        reason: &'a str,
    },
    /// The push of a token waits for its time.
    Waits {
        /// The accounts that have the token.
        accounts: &'a [AccountId],
        /// The token.
        token: &'a DeviceToken,
        /// Why.
        pause: Pause,
        /// For how long, if nothing brings it forward.
        next: Duration,
    },
    /// An operator asked for a push of this token: a POST follows that has nothing to do with any message.
    PushTest {
        /// Whose device.
        account: &'a AccountId,
        /// The token.
        token: &'a DeviceToken,
    },
    /// The notification server counts as down from now on, or as back.
    Outage {
        /// It is down.
        down: bool,
    },
    /// An account has no device any more: all that was kept of it is erased.
    Forgotten {
        /// Which account.
        account: &'a AccountId,
    },
}

/// Why a push waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pause {
    /// The device was woken a moment ago: one more push at the end of the coalescing window tells it all.
    Coalescing,
    /// The last POST has failed.
    Failed,
    /// The notification server is down: it is tried with one push at a time.
    Outage,
}

/// What came of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoginResult {
    /// The account's own server has accepted it.
    Accepted,
    /// That server refuses the user name or the password.
    Refused,
    /// Too many have failed: the server was not asked.
    Limited,
    /// The configuration has no route for it, or does not allow it.
    NotAllowed,
    /// The server cannot be reached, is overloaded, or has too many sessions.
    Unavailable,
    /// The client's mechanism leads nowhere, or the client broke it off.
    NoMechanism,
}

/// In which direction bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the account's server, or from deltapush, to the client.
    ToClient,
    /// From the client, or from deltapush, to the account's server.
    ToUpstream,
}

/// What an account's watch does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchEvent<'a> {
    /// It waits for its turn at the server, or is logging in.
    Connecting,
    /// The mailbox is watched.
    Watching,
    /// It was interrupted and tries again.
    Interrupted {
        /// What happened, in words.
        reason: &'a str,
        /// In which time it tries again.
        next: Duration,
    },
    /// It ended until a client logs in.
    AwaitingLogin {
        /// What happened, in words.
        reason: &'a str,
        /// What helps, in words.
        cure: &'static str,
    },
    /// There is no watch any more.
    Ended,
}

/// How a POST ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PostResult {
    /// The notification server took it (2xx).
    Accepted,
    /// It says that the token is gone (410).
    Gone,
    /// It refuses what was sent (other 4xx), with this status.
    Refused(u16),
    /// It answered with this status, which may heal.
    Failed(u16),
    /// It did not answer in time.
    TimedOut,
    /// There was no connection, or one that broke.
    Unreachable,
}
