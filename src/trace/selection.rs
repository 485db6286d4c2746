//! Selection of the sessions that a reader of the trace follows.

use super::record::{ConnectionSide, SessionId};
use crate::account::AccountId;

/// The sessions that somebody wants to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// All.
    Everyone,
    /// Those of the accounts with this login name, with what they said before the login.
    Account(String),
    /// One.
    Session(SessionId),
    /// Those that have logged in, of the accounts with these login names, or of all if there is none; with what they said before
    /// the login. In the end also what those said that never came so far.
    LoggedIn(Vec<String>),
}

/// A follower's selection of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSelection {
    /// The sessions.
    pub audience: Audience,
    /// One side of them alone.
    pub side: Option<ConnectionSide>,
    /// True to include literals.
    pub literals: bool,
}

/// The known facts about the user of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownSession<'a> {
    pub(super) session: SessionId,
    /// The account that is logged in, or tried to last.
    pub(super) account: Option<&'a AccountId>,
    pub(super) logged_in: bool,
}

/// The interest of followers in a session's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    No,
    /// That depends on whose it turns out to be.
    Perhaps,
    Yes,
}

impl Audience {
    pub(super) fn interest(&self, known: KnownSession<'_>) -> Interest {
        let is = |name: &String, account: &AccountId| account.user.eq_ignore_ascii_case(name);
        match (self, known.account) {
            (Self::Everyone, _) => Interest::Yes,
            (Self::Session(session), _) if *session == known.session => Interest::Yes,
            (Self::Session(_), _) => Interest::No,
            (Self::Account(name), Some(account)) if is(name, account) => Interest::Yes,
            (Self::LoggedIn(names), Some(account)) if known.logged_in => {
                let wanted = names.is_empty() || names.iter().any(|name| is(name, account));
                if wanted { Interest::Yes } else { Interest::No }
            }
            _ if known.logged_in => Interest::No,
            _ => Interest::Perhaps,
        }
    }
}
