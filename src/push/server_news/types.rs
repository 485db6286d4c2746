//! News of the mail server, its scope, and what comes of it.

use std::fmt;

use crate::config::AllowedLogin;
use crate::store::StoreError;

/// The mail server's news: an account has a new message.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ServerNews {
    /// The name by which the mail server knows the account: its user, or one of its addresses.
    pub name: String,
    /// The mailbox of the message, in UTF-8; empty for INBOX.
    pub mailbox: String,
    /// The UID of the message. Without it, the message is recognized by its Message-ID only.
    pub uid: Option<u64>,
    /// UIDVALIDITY of the mailbox. Without it, the UID counts in the mailbox as it was last seen.
    pub uid_validity: Option<u64>,
    /// The Message-ID, where `headers` do not contain it; empty if it is not known.
    pub message_id: String,
    /// The flags of the message, as in IMAP.
    pub flags: Vec<String>,
    /// The part of the message that the push filter judges by.
    pub headers: NewsHeaders,
}

/// The part of a message that the mail server's news contains.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum NewsHeaders {
    /// Nothing: the message is pushed.
    #[default]
    Unknown,
    /// The address in its From field: only the account's own messages are not pushed.
    From(String),
    /// The whole header, raw.
    All(Vec<u8>),
}

/// Masks names and headers: they are no business of a log.
impl fmt::Debug for ServerNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerNews")
            .field("mailbox", &self.mailbox)
            .field("uid", &self.uid)
            .field("uid_validity", &self.uid_validity)
            .finish_non_exhaustive()
    }
}

/// The accounts of which a sender of news may tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NewsScope {
    /// All whose route takes news of the mail server.
    #[default]
    All,
    /// Of these, those with such a login name or domain.
    Logins(Vec<AllowedLogin>),
}

/// The effect of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewsOutcome {
    /// The account's devices are woken: this is on disk.
    Announced,
    /// The push filter decided against it, for this reason.
    Skipped(&'static str),
    /// The message was known already.
    Known,
    /// No device waits for mail in this mailbox.
    OtherMailbox,
    /// The account has no device here.
    NoDevice,
}

impl NewsOutcome {
    /// The value of its label in metrics: one of [`NEWS_OUTCOMES`](crate::telemetry::metrics::NEWS_OUTCOMES).
    #[must_use]
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::OtherMailbox => "other_mailbox",
            Self::NoDevice => "no_device",
            other => other.as_str(),
        }
    }

    /// The outcome for two accounts of one name: an announcement first.
    #[must_use]
    pub(super) fn or(self, other: Self) -> Self {
        let rank = |outcome: Self| match outcome {
            Self::Announced => 0,
            Self::Skipped(_) => 1,
            Self::Known => 2,
            Self::OtherMailbox => 3,
            Self::NoDevice => 4,
        };
        if rank(self) <= rank(other) { self } else { other }
    }

    /// Its name in answers, the trace and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Skipped(_) => "skipped",
            Self::Known => "known",
            Self::OtherMailbox => "other-mailbox",
            Self::NoDevice => "no-device",
        }
    }
}

/// The reason for which news is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum NewsError {
    /// Its content makes no sense, for this reason.
    #[error("{0}")]
    Invalid(&'static str),
    /// The route of the account does not take it.
    #[error(
        "the account's route takes no news of the mail server: set `news: both` or `news: server` in it"
    )]
    NotConfigured,
    /// The name matches accounts of several domains.
    #[error("the name matches several accounts: it needs its domain")]
    Ambiguous,
    /// The sender may not tell of this account.
    #[error("the token is not for this account")]
    OutOfScope,
    /// Too much news of one account. What is left out is announced with the account's next message.
    #[error("too much news of this account; try again in a second")]
    TooMany,
    /// The state cannot be written. The message may be pushed all the same.
    #[error("the state cannot be written: {0}")]
    Store(#[from] StoreError),
}
