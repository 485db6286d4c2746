//! The tracer that all sessions share: it knows which reader follows which sessions. While there is none, a session
//! only reads a number.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::follow::{Followed, LineSender};
use super::outputs::Outputs;
use super::record::{ConnectionSide, Record, SessionId, TraceEntry};
use super::recorder::Recorder;
use crate::account::AccountId;

/// Who may follow at once: the outputs of the configuration, and an operator with a few terminals.
const MAX_FOLLOWERS: usize = 10;

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

/// What somebody wants to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSelection {
    /// Which sessions.
    pub audience: Audience,
    /// One side of them alone.
    pub side: Option<ConnectionSide>,
    /// What stands in literals too.
    pub literals: bool,
}

/// What is known of who uses a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownSession<'a> {
    pub(super) session: SessionId,
    /// The account that is logged in, or tried to last.
    pub(super) account: Option<&'a AccountId>,
    pub(super) logged_in: bool,
}

/// Whether somebody wants a session's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    No,
    /// That depends on whose it turns out to be.
    Perhaps,
    Yes,
}

/// Hands the lines of all sessions to whoever follows them. Clones are of the same one.
#[derive(Clone, Default)]
pub struct Tracer(Arc<Hub>);

#[derive(Default)]
pub(super) struct Hub {
    /// Changes whenever somebody begins or ends to follow; odd while somebody does.
    state: AtomicU64,
    followers: RwLock<Vec<Follower>>,
    /// Watching sessions that were begun.
    watches: AtomicU64,
    /// What the configuration wants.
    outputs: Mutex<Outputs>,
    /// Lines that some reader did not get, since the start.
    missed: Arc<AtomicU64>,
}

struct Follower {
    wanted: TraceSelection,
    sender: LineSender,
}

impl Tracer {
    /// How many lines were dropped since the start, because a reader or a disk was too slow for them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.missed.load(Ordering::Relaxed)
    }

    /// A recorder for a client's session with this number.
    #[must_use]
    pub fn client(&self, number: u64) -> Recorder {
        Recorder::new(self.clone(), SessionId::Client(number), None)
    }

    /// A recorder for a watching session of `account`.
    #[must_use]
    pub fn watch(&self, account: &AccountId) -> Recorder {
        let number = self.0.watches.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        Recorder::new(self.clone(), SessionId::Watch(number), Some(account.clone()))
    }

    /// Follows from now on, also sessions that are there already; `None` if too many do.
    #[must_use]
    pub fn follow(&self, wanted: TraceSelection) -> Option<Followed> {
        let mut followers = self.0.followers.write().unwrap_or_else(PoisonError::into_inner);
        if followers.len() >= MAX_FOLLOWERS {
            return None;
        }
        let (sender, followed) = Followed::new(&wanted, Arc::downgrade(&self.0));
        followers.push(Follower { wanted, sender });
        self.0.changed(&followers);
        Some(followed)
    }

    /// The number that tells whether anything has changed.
    pub(super) fn state(&self) -> u64 {
        self.0.state.load(Ordering::Acquire)
    }

    /// How much a session is wanted, and whether with its literals.
    pub(super) fn interest(&self, known: KnownSession<'_>) -> (Interest, bool) {
        let followers = self.0.followers.read().unwrap_or_else(PoisonError::into_inner);
        let mut most = (Interest::No, false);
        for follower in &*followers {
            match follower.wanted.audience.interest(known) {
                Interest::No => {}
                Interest::Perhaps if most.0 == Interest::Yes => most.1 |= follower.wanted.literals,
                interest => most = (interest, most.1 | follower.wanted.literals),
            }
        }
        most
    }

    /// Hands a line to all who want it. Whether somebody may want it later.
    pub(super) fn send(&self, record: &Arc<Record>, known: KnownSession<'_>) -> bool {
        let followers = self.0.followers.read().unwrap_or_else(PoisonError::into_inner);
        let mut held = false;
        for follower in &*followers {
            match follower.wanted.audience.interest(known) {
                Interest::No => {}
                Interest::Perhaps => held = true,
                Interest::Yes => follower.send(record),
            }
        }
        held
    }

    /// Hands a line that was held to those who want it now and could not know `before`.
    pub(super) fn send_held(
        &self,
        record: &Arc<Record>,
        before: KnownSession<'_>,
        now: KnownSession<'_>,
    ) {
        let followers = self.0.followers.read().unwrap_or_else(PoisonError::into_inner);
        for follower in &*followers {
            let audience = &follower.wanted.audience;
            if audience.interest(before) == Interest::Perhaps
                && audience.interest(now) == Interest::Yes
            {
                follower.send(record);
            }
        }
    }

    /// Hands a line of a session that never logged in to those who wait for logins.
    pub(super) fn send_lost(&self, record: &Arc<Record>) {
        let followers = self.0.followers.read().unwrap_or_else(PoisonError::into_inner);
        let all = |follower: &&Follower| matches!(&follower.wanted.audience, Audience::LoggedIn(names) if names.is_empty());
        followers.iter().filter(all).for_each(|follower| follower.send(record));
    }

    /// Ends following of whoever has this number.
    pub(super) fn unfollow(&self, number: u64) {
        self.0.end(number);
    }

    pub(super) fn outputs(&self) -> &Mutex<Outputs> {
        &self.0.outputs
    }
}

impl Hub {
    /// Ends following: who reads still gets what is queued.
    pub(super) fn end(&self, number: u64) {
        let mut followers = self.followers.write().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|follower| follower.sender.number() != number);
        self.changed(&followers);
    }

    /// A number that no follower has.
    pub(super) fn next_number(&self) -> u64 {
        self.state()
    }

    /// Where lines are counted that a reader did not get.
    pub(super) fn missed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.missed)
    }

    fn state(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    fn changed(&self, followers: &[Follower]) {
        let next = (self.state() | 1).wrapping_add(if followers.is_empty() { 1 } else { 2 });
        self.state.store(next, Ordering::Release);
    }
}

impl Follower {
    fn send(&self, record: &Arc<Record>) {
        let is_shown = match (self.wanted.side, &record.entry) {
            (Some(side), TraceEntry::Said { speaker, mark, .. }) => {
                side.speaker(*speaker, *mark).is_some()
            }
            _ => true,
        };
        if is_shown {
            self.sender.send(record);
        }
    }
}

impl Audience {
    fn interest(&self, known: KnownSession<'_>) -> Interest {
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

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("state", &self.state()).finish_non_exhaustive()
    }
}
