//! Records of the state, as its callers see them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::habit::FetchHabit;
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::credentials::Mechanism;
use crate::mailbox_name::MailboxName;
use crate::secret::{DeviceToken, Secret};

/// Most tokens of an account. With one more, the one not seen for longest is removed.
pub const MAX_TOKENS: usize = 32;

/// Most erased accounts that are remembered. With one more, the one erased longest ago is removed.
pub const MAX_ERASED: usize = 100;

/// Most mailboxes that are remembered in which an account's clients idle. With one more, the one idled in longest ago is
/// removed.
pub const MAX_IDLED: usize = 4;

/// Seconds since 1970 in UTC, from the wall clock: for what is compared across restarts only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(pub i64);

impl UnixTime {
    /// The wall clock's time.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    /// That much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(seconds(duration)))
    }

    /// That much earlier.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(seconds(duration)))
    }

    /// Time from this moment to `now`; zero if it lies ahead of `now`, because the clock was set back meanwhile.
    #[must_use]
    pub fn age(self, now: Self) -> Duration {
        Duration::from_secs(u64::try_from(now.0.saturating_sub(self.0)).unwrap_or_default())
    }
}

/// Seconds for which deltapush has served with this state, over all its runs, counted by a monotonic clock. It measures how
/// long something was not seen: neither a stepped wall clock nor a long outage makes it older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Uptime(pub i64);

impl Uptime {
    /// That much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(seconds(duration)))
    }

    /// That much earlier, which may be before the beginning.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(seconds(duration)))
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Now, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DualTime {
    /// The time shown to people.
    pub wall: UnixTime,
    /// The time by which ages are measured.
    pub served: Uptime,
}

/// Numbers the moments at which something became worth announcing, upwards over all accounts: whatever a token had to
/// announce up to a generation is announced by one POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u64);

/// The tokens of an account that have something to announce.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Announce {
    /// None.
    #[default]
    Nothing,
    /// All.
    All,
    /// All but these, whose devices have the message already.
    AllBut(Vec<DeviceToken>),
}

impl From<bool> for Announce {
    fn from(announce: bool) -> Self {
        if announce { Self::All } else { Self::Nothing }
    }
}

impl Announce {
    /// Reports if `token` is one of them.
    #[must_use]
    pub fn includes(&self, token: &DeviceToken) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::AllBut(others) => !others.contains(token),
        }
    }
}

/// Up to where a mailbox has been looked through (RFC 9051 section 2.3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// `UIDVALIDITY`: with another value, UIDs noted before mean nothing.
    pub uid_validity: u64,
    /// The lowest UID that has not been looked at yet.
    pub uid_next: u64,
}

impl Position {
    /// Messages by which a position may be ahead of a mailbox that is being opened: the mail server told of them meanwhile.
    const LEAD: u64 = 100;

    /// Reports if it lies beyond all messages of a mailbox whose next UID is `uid_next`: then it is wrong. UIDVALIDITY is the same.
    #[must_use]
    pub fn is_beyond(&self, uid_next: u64) -> bool {
        self.uid_next > uid_next.saturating_add(Self::LEAD)
    }
}

/// The outcome of a look into a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Up to where it has been looked through.
    pub position: Position,
    /// One above the highest UID of a message that deserves a push; `position.uid_next` if that is not known. Once all messages
    /// below it were announced, there is nothing left to announce.
    pub news_next: u64,
}

impl From<Position> for Look {
    fn from(position: Position) -> Self {
        Self { position, news_next: position.uid_next }
    }
}

impl Look {
    /// The position behind the messages that deserve a push.
    #[must_use]
    pub const fn news(self) -> Position {
        Position { uid_next: self.news_next, ..self.position }
    }
}

/// A token of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredToken {
    /// The token itself.
    pub token: DeviceToken,
    /// When the account's client last handed it over.
    pub last_seen: UnixTime,
    /// The evidence of what the device's app fetches of the account.
    pub habit: FetchHabit,
}

/// The conclusions from the notification server's answers about a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenRecord {
    /// True if a POST of it was ever accepted.
    pub accepted: bool,
    /// Its quarantine, if it is in one.
    pub quarantine: Option<QuarantineRecord>,
}

/// Quarantine of a token: the notification server says that it is gone (410).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantineRecord {
    /// Number of these answers.
    pub answers: u32,
    /// When it said so first.
    pub since: UnixTime,
    /// No POST before this time.
    pub until: UnixTime,
}

/// An account that was erased by deltapush itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erased {
    /// The account.
    pub account: AccountId,
    /// The time.
    pub at: UnixTime,
    /// Why, in words.
    pub reason: String,
}

/// A mailbox that an account's clients wait for mail in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idled {
    /// Its name, as it stood on the wire.
    pub name: MailboxName,
    /// When a client was last noted to idle there.
    pub last: Uptime,
}

/// An account as it was found at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRecord {
    /// The account.
    pub account: AccountId,
    /// The credentials of its watcher, or of its client if they are good for nothing else. None if they are not on disk
    /// or could not be unsealed: then its client must log in once.
    pub credentials: Option<Arc<Credentials>>,
    /// Its tokens, at least one.
    pub tokens: Vec<StoredToken>,
    /// The mailboxes that its clients idled in, the latest first.
    pub idled: Vec<Idled>,
    /// When its devices were last called back ([`change::call`](super::change::call)).
    pub called: Option<UnixTime>,
    /// It is watched: it needs credentials, or a kept session.
    pub is_watched: bool,
}

impl AccountRecord {
    /// Reports if it is to be watched, and waits for a client that brings credentials.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.is_watched && self.credentials.is_none()
    }
}

/// Pending announcements of a token at the end of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unannounced {
    /// The token to be posted.
    pub token: DeviceToken,
    /// Up to which generation that POST announces.
    pub generation: Generation,
    /// When the newest of it was noticed.
    pub since: UnixTime,
}

/// All that was found at the start, except for mailbox positions (`Store::positions`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The accounts.
    pub accounts: Vec<AccountRecord>,
    /// The tokens to be posted: first those with a push to send, the longest waiting first, then those of accounts
    /// without credentials, so that their devices come back and log in.
    pub unannounced: Vec<Unannounced>,
    /// Tokens of which the notification server's answers say something.
    pub tokens: Vec<(DeviceToken, TokenRecord)>,
    /// When tokens of these slots were last posted, of those that were posted within the last hours. Only where several nodes
    /// share the state.
    pub accepted: Vec<(DeviceToken, UnixTime)>,
    /// For how long this state has been served with.
    pub served: Uptime,
    /// The known logins, the one not used for longest first.
    pub known_logins: Vec<KnownLogin>,
    /// The key of the hashes in it.
    pub login_key: Option<Secret>,
}

/// A login name, a network or a mail server that was part of an accepted login: as a keyed hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownLogin {
    /// The hash.
    pub key: [u8; 16],
    /// It is a network of clients.
    pub is_place: bool,
    /// The network of the client whose login it was, hashed.
    pub network: i64,
    /// The mail server, hashed.
    pub upstream: i64,
    /// The login itself has named the mail server.
    pub is_open: bool,
    /// When it was last part of an accepted login.
    pub seen: UnixTime,
}

/// A committed change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The account's tokens are now these. With none left it has been erased.
    Tokens {
        /// The account of the tokens.
        account: AccountId,
        /// The credentials that came with the change.
        credentials: Option<Arc<Credentials>>,
        /// All its tokens.
        tokens: Vec<StoredToken>,
    },
    /// The account is logged in to with these from now on.
    Credentials {
        /// The account of the credentials.
        account: AccountId,
        /// The new ones.
        credentials: Arc<Credentials>,
    },
    /// The account is watched from now on, or is not and has no credentials any more.
    Watched {
        /// The account.
        account: AccountId,
        /// It is watched.
        is_watched: bool,
    },
    /// These tokens have something to announce.
    Pending {
        /// The tokens of the account that has news.
        tokens: Vec<DeviceToken>,
        /// Up to which generation.
        generation: Generation,
    },
    /// The mailboxes that the account's clients idled in are now these, the latest first.
    Idled {
        /// The account of the clients.
        account: AccountId,
        /// The mailboxes.
        mailboxes: Vec<Idled>,
    },
    /// The conclusions from the notification server's answers about a token.
    Token {
        /// The token.
        token: DeviceToken,
        /// The new record.
        record: TokenRecord,
    },
    /// No account has this token any more.
    Gone {
        /// The token.
        token: DeviceToken,
    },
}

impl Change {
    /// The account that it changes, if it is about one.
    #[must_use]
    pub fn account(&self) -> Option<&AccountId> {
        match self {
            Self::Tokens { account, .. }
            | Self::Credentials { account, .. }
            | Self::Watched { account, .. }
            | Self::Idled { account, .. } => Some(account),
            Self::Pending { .. } | Self::Token { .. } | Self::Gone { .. } => None,
        }
    }
}

/// An account as a person is shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountStatus {
    /// The account.
    pub account: AccountId,
    /// Its tokens, the first one registered first.
    pub tokens: Vec<TokenStatus>,
    /// The positions noted for its mailboxes, by name.
    pub mailboxes: Vec<(MailboxName, Position)>,
    /// True if a watcher could log in. If not, the account waits for a device to do so.
    pub has_credentials: bool,
    /// The mechanism of its client, if it leaves no credentials: the account cannot be watched.
    pub unusable: Option<Mechanism>,
    /// True if the server refused those credentials: the account waits for a device to log in with others.
    pub refused: bool,
}

/// A token as a person is shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenStatus {
    /// Its name in logs ([`DeviceToken::fingerprint`]).
    pub fingerprint: String,
    /// When it was first handed over.
    pub first_seen: UnixTime,
    /// When it was last handed over; with an hour's tolerance.
    pub last_seen: UnixTime,
    /// The evidence of what the device's app fetches of the account.
    pub habit: FetchHabit,
    /// True if it has something to announce.
    pub pending: bool,
    /// When a POST of it was last accepted.
    pub accepted: Option<UnixTime>,
    /// When and why its last announcement was given up, if none was accepted since.
    pub given_up: Option<(UnixTime, String)>,
    /// Its quarantine, if it is in one.
    pub quarantine: Option<QuarantineRecord>,
}
