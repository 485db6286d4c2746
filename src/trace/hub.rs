//! The hub between sessions and the readers of the trace: it knows who follows which sessions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use dashmap::DashSet;

use super::queue::{self, LineReceiver, LineSender};
use super::record::{Record, SessionId, TraceEntry};
use super::selection::{Audience, Interest, KnownSession, TraceSelection};

/// Most followers at once: the outputs of the configuration, and an operator with a few terminals.
const MAX_FOLLOWERS: usize = 10;

#[derive(Default)]
pub(super) struct Hub {
    /// Changes whenever somebody begins or ends to follow; odd while somebody does.
    state: AtomicU64,
    followers: RwLock<Vec<Follower>>,
    /// The sessions that have a recorder.
    sessions: DashSet<SessionId>,
    /// Watching sessions that were begun.
    watches: AtomicU64,
    /// Lines that some reader did not get, since the start.
    missed: Arc<AtomicU64>,
}

struct Follower {
    number: u64,
    wanted: TraceSelection,
    sender: LineSender,
}

impl Hub {
    /// Ends following: who reads still gets what is queued.
    pub(super) fn end(&self, number: u64) {
        let mut followers = self.followers.write().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|follower| follower.number != number);
        self.changed(&followers);
    }

    /// A session begins.
    pub(super) fn begin(&self, session: SessionId) {
        self.sessions.insert(session);
    }

    /// Reports if the session has begun and not ended.
    pub(super) fn has(&self, session: SessionId) -> bool {
        self.sessions.contains(&session)
    }

    /// A session is over: readers that follow it alone get the lines that are queued, and then the end.
    pub(super) fn over(&self, session: SessionId) {
        self.sessions.remove(&session);
        let follows = |follower: &Follower| follower.wanted.audience == Audience::Session(session);
        let is_followed = self.state() & 1 == 1 && self.read().iter().any(follows);
        if is_followed {
            let mut followers = self.followers.write().unwrap_or_else(PoisonError::into_inner);
            followers.retain(|follower| !follows(follower));
            self.changed(&followers);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Follower>> {
        self.followers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number that tells whether anything has changed.
    pub(super) fn state(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    /// Lines that some reader did not get, since the start.
    pub(super) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// The number of the next watch session.
    pub(super) fn next_watch(&self) -> u64 {
        self.watches.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// A queue of what is wanted, with its number; `None` if too many follow.
    pub(super) fn follow(&self, wanted: TraceSelection) -> Option<(u64, LineReceiver)> {
        let mut followers = self.followers.write().unwrap_or_else(PoisonError::into_inner);
        if followers.len() >= MAX_FOLLOWERS {
            return None;
        }
        // Changes with each reader that begins or ends.
        let number = self.state();
        let (sender, lines) = queue::channel(&wanted, Arc::clone(&self.missed));
        followers.push(Follower { number, wanted, sender });
        self.changed(&followers);
        Some((number, lines))
    }

    fn changed(&self, followers: &[Follower]) {
        let next = (self.state() | 1).wrapping_add(if followers.is_empty() { 1 } else { 2 });
        self.state.store(next, Ordering::Release);
    }

    /// The interest in a session, and in its literals.
    pub(super) fn interest(&self, known: KnownSession<'_>) -> (Interest, bool) {
        let followers = self.read();
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

    /// Hands a line to all who want it. Returns true if a follower may want it later.
    pub(super) fn send(&self, record: &Arc<Record>, known: KnownSession<'_>) -> bool {
        let followers = self.read();
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
        let followers = self.read();
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
        let followers = self.read();
        let all = |follower: &&Follower| matches!(&follower.wanted.audience, Audience::LoggedIn(names) if names.is_empty());
        followers.iter().filter(all).for_each(|follower| follower.send(record));
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
