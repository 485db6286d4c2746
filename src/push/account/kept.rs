//! The kept sessions of an account, and what is known of its devices where sessions are kept. Without I/O.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::shown::ByDevice;
use crate::push::observer::ShownPosition;
use crate::push::watcher::session_pool::ResumeTicket;
use crate::secret::DeviceToken;
use crate::tls::stream::Stream;

/// Asks a session for its connection.
pub(in crate::push) type SessionRequest = oneshot::Sender<oneshot::Sender<Stream>>;

/// The kept part of an account: one word where sessions are not kept.
#[derive(Default)]
pub(in crate::push) struct Kept(Mutex<Option<Box<KeptState>>>);

#[derive(Default)]
struct KeptState {
    /// The newest last: more than one only until that one watches.
    sessions: Vec<KeptSession>,
    /// Room for the account's sessions.
    place: Option<OwnedSemaphorePermit>,
    /// The mail that its devices were shown through deltapush.
    shown: ByDevice,
    /// When its devices are to be woken, if they are.
    wake_at: Option<Instant>,
}

/// A kept session, as the account knows it.
pub(in crate::push) struct KeptSession {
    /// A later one has a higher number.
    pub(in crate::push) number: u64,
    /// Cancelled, it logs out.
    pub(in crate::push) leave: CancellationToken,
    /// The ticket for which it is given back, and the channel for the request.
    pub(in crate::push) back: Option<(Arc<ResumeTicket>, SessionRequest)>,
}

impl KeptState {
    /// The sessions that are not about to log out: those look no more.
    fn lasting(&mut self) -> impl DoubleEndedIterator<Item = &mut KeptSession> {
        self.sessions.iter_mut().filter(|session| !session.leave.is_cancelled())
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Option<Box<KeptState>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut KeptState) -> T) -> T {
        change(self.lock().get_or_insert_default())
    }

    /// Reports if there is no session.
    pub(in crate::push) fn is_empty(&self) -> bool {
        self.lock().as_ref().is_none_or(|kept| kept.sessions.is_empty())
    }

    /// Reports if a session watches.
    pub(in crate::push) fn is_watching(&self) -> bool {
        self.change(|kept| kept.lasting().next().is_some())
    }

    /// Adds a session, unless `is_erased` says that its account is gone, or there is no room among `places` for another account.
    pub(in crate::push) fn begin(
        &self,
        session: KeptSession,
        places: &Arc<Semaphore>,
        is_erased: impl FnOnce() -> bool,
    ) -> bool {
        self.change(|kept| {
            if kept.place.is_none() {
                kept.place = Arc::clone(places).try_acquire_owned().ok();
            }
            let has_room = kept.place.is_some() && !is_erased();
            if has_room {
                kept.sessions.push(session);
            }
            has_room
        })
    }

    /// A session has ended.
    pub(in crate::push) fn ended(&self, number: u64) {
        self.change(|kept| {
            kept.sessions.retain(|session| session.number != number);
            if kept.sessions.is_empty() {
                kept.place = None;
            }
        });
    }

    /// All sessions log out.
    pub(in crate::push) fn end_all(&self) {
        self.end_older(u64::MAX);
    }

    /// The sessions before that one log out.
    pub(in crate::push) fn end_older(&self, number: u64) {
        if let Some(kept) = &*self.lock() {
            let older = kept.sessions.iter().filter(|session| session.number < number);
            older.for_each(|session| session.leave.cancel());
        }
    }

    /// The ticket for which the newest session would be handed back.
    pub(in crate::push) fn ticket(&self) -> Option<Arc<ResumeTicket>> {
        self.change(|kept| {
            kept.lasting().next_back()?.back.as_ref().map(|(ticket, _)| Arc::clone(ticket))
        })
    }

    /// Takes the way to ask for the session that this ticket is for: once.
    pub(in crate::push) fn take_back(&self, ticket: &Arc<ResumeTicket>) -> Option<SessionRequest> {
        let is_its = |session: &&mut KeptSession| {
            session.back.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, ticket))
        };
        self.change(|kept| Some(kept.lasting().find(is_its)?.back.take()?.1))
    }

    /// No session is handed back any more.
    pub(in crate::push) fn revoke(&self) {
        if let Some(kept) = &mut *self.lock() {
            kept.sessions.iter_mut().for_each(|session| session.back = None);
        }
    }

    /// The device with this token has been shown that in a session of its own.
    pub(in crate::push) fn device_knows(&self, token: &DeviceToken, shown: ShownPosition) {
        self.change(|kept| kept.shown.note(token, shown));
    }

    /// The tokens of the devices that have been shown all of `news`.
    pub(in crate::push) fn who_knows(&self, news: &ShownPosition) -> Vec<DeviceToken> {
        self.change(|kept| kept.shown.know(news))
    }

    /// The devices are to be woken at `at`. Returns whether that is earlier than known.
    pub(in crate::push) fn wake_at(&self, at: Instant) -> bool {
        self.change(|kept| {
            let is_earlier = kept.wake_at.is_none_or(|before| at < before);
            if is_earlier {
                kept.wake_at = Some(at);
            }
            is_earlier
        })
    }

    /// Returns whether the devices were to be woken at `at`, and not before: from now on they are not.
    pub(in crate::push) fn is_due(&self, at: Instant) -> bool {
        self.change(|kept| kept.wake_at.take_if(|wake_at| *wake_at == at).is_some())
    }
}
