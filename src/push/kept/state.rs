//! The kept part of an account in memory: its sessions, the positions that its devices were shown, and the time to wake them.
//! Without I/O.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::observer::ShownPosition;
use super::resume_ticket::ResumeTicket;
use super::shown::ShownByDevice;
use crate::secret::DeviceToken;
use crate::tls::stream::Stream;

/// Sends the one request to return a session's connection.
pub(super) type ReturnSender = oneshot::Sender<oneshot::Sender<Stream>>;

/// The kept part of an account: one word where sessions are not kept.
#[derive(Default)]
pub(in crate::push) struct KeptState(Mutex<Option<Box<KeptParts>>>);

#[derive(Default)]
struct KeptParts {
    /// The newest last: more than one only until that one watches.
    sessions: Vec<SessionEntry>,
    /// Room for the account's sessions.
    room: Option<OwnedSemaphorePermit>,
    /// The mail that its devices were shown through deltapush.
    shown: ShownByDevice,
    /// When its devices are to be woken, if they are.
    wake_at: Option<Instant>,
}

/// A kept session, as the account knows it.
pub(super) struct SessionEntry {
    /// A later one has a higher number.
    pub(super) number: u64,
    /// Cancelled, it logs out.
    pub(super) logout: CancellationToken,
    /// The ticket for which it is resumed, and the channel for the request.
    pub(super) resumable: Option<(Arc<ResumeTicket>, ReturnSender)>,
}

impl KeptParts {
    /// The sessions that are not about to log out: those find no new mail any more.
    fn lasting(&mut self) -> impl DoubleEndedIterator<Item = &mut SessionEntry> {
        self.sessions.iter_mut().filter(|session| !session.logout.is_cancelled())
    }
}

impl KeptState {
    fn lock(&self) -> MutexGuard<'_, Option<Box<KeptParts>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut KeptParts) -> T) -> T {
        change(self.lock().get_or_insert_default())
    }

    /// Reports if there is no session.
    pub(in crate::push) fn is_empty(&self) -> bool {
        self.lock().as_ref().is_none_or(|kept| kept.sessions.is_empty())
    }

    /// Reports if a session watches.
    pub(super) fn is_watching(&self) -> bool {
        self.change(|kept| kept.lasting().next().is_some())
    }

    /// Adds a session. Returns false if its account `is_erased`, or there is no `room` for another account.
    pub(super) fn add(
        &self,
        session: SessionEntry,
        room: &Arc<Semaphore>,
        is_erased: impl FnOnce() -> bool,
    ) -> bool {
        self.change(|kept| {
            if kept.room.is_none() {
                kept.room = Arc::clone(room).try_acquire_owned().ok();
            }
            let has_room = kept.room.is_some() && !is_erased();
            if has_room {
                kept.sessions.push(session);
            }
            has_room
        })
    }

    /// Removes a session that has ended.
    pub(super) fn remove(&self, number: u64) {
        self.change(|kept| {
            kept.sessions.retain(|session| session.number != number);
            if kept.sessions.is_empty() {
                kept.room = None;
            }
        });
    }

    /// Makes all sessions log out.
    pub(in crate::push) fn close_all(&self) {
        self.close_older(u64::MAX);
    }

    /// Makes the sessions before that one log out.
    pub(super) fn close_older(&self, number: u64) {
        if let Some(kept) = &*self.lock() {
            let older = kept.sessions.iter().filter(|session| session.number < number);
            older.for_each(|session| session.logout.cancel());
        }
    }

    /// The ticket of the newest session.
    pub(super) fn ticket(&self) -> Option<Arc<ResumeTicket>> {
        self.change(|kept| {
            kept.lasting().next_back()?.resumable.as_ref().map(|(ticket, _)| Arc::clone(ticket))
        })
    }

    /// Takes the channel for the request to return the session that this ticket is for: once.
    pub(super) fn take_return_sender(&self, ticket: &Arc<ResumeTicket>) -> Option<ReturnSender> {
        let is_its = |session: &&mut SessionEntry| {
            session.resumable.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, ticket))
        };
        self.change(|kept| Some(kept.lasting().find(is_its)?.resumable.take()?.1))
    }

    /// Withdraws the tickets of all sessions.
    pub(super) fn revoke(&self) {
        if let Some(kept) = &mut *self.lock() {
            kept.sessions.iter_mut().for_each(|session| session.resumable = None);
        }
    }

    /// Records the position that the device with this token was shown in a session of its own.
    pub(super) fn record_shown(&self, token: &DeviceToken, shown: ShownPosition) {
        self.change(|kept| kept.shown.record(token, shown));
    }

    /// The tokens of the devices that were shown all of `news`.
    pub(super) fn devices_shown(&self, news: &ShownPosition) -> Vec<DeviceToken> {
        self.change(|kept| kept.shown.devices(news))
    }

    /// Sets the time to wake the devices, unless they are to be woken before. Returns true if it was set.
    pub(super) fn wake_at(&self, at: Instant) -> bool {
        self.change(|kept| {
            let is_earlier = kept.wake_at.is_none_or(|before| at < before);
            if is_earlier {
                kept.wake_at = Some(at);
            }
            is_earlier
        })
    }

    /// Takes the time to wake the devices, if it is `at`. Returns true if it was.
    pub(super) fn take_due(&self, at: Instant) -> bool {
        self.change(|kept| kept.wake_at.take_if(|wake_at| *wake_at == at).is_some())
    }
}
