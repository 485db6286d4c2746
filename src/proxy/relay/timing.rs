//! Times of a relay: silence, keepalives, the session's deadline, and the size of an idle compressed connection, in one timer.

use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::{FOLD_TIME, Relay, RelayEnd, SessionServices};
use crate::machine::Machine;
use crate::proxy::own_lines;
use crate::proxy::peer::Closing;
use crate::proxy::session::SessionInput;

impl<A: SessionServices> Relay<A> {
    /// Notes that the events of this turn happened at its beginning.
    pub(super) fn note_time(&mut self, progress: bool) {
        if progress {
            self.last_activity = self.now;
        }
        if std::mem::take(&mut self.hears) {
            self.heard = self.now;
        }
    }

    /// Does what is due, and returns how the relay ends once its last words had their time.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        loop {
            let due = [self.deadline(), self.keepalive_due(), self.fold_due()]
                .into_iter()
                .flatten()
                .min();
            if let Some(due) = due.filter(|due| *due < self.timer.deadline()) {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
            if let Some(end) = self.end.take() {
                return Poll::Ready(end);
            }
            self.now = Instant::now();
            if self.deadline().is_some_and(|due| due <= self.now) {
                self.drive(SessionInput::Time, cx);
                self.note_time(false);
                // Polled again: what it said goes out, and the client's next bytes may be taken.
                cx.waker().wake_by_ref();
            }
            let idle_until = self.idle_until();
            if self.end.is_none() && idle_until <= self.now {
                self.finish(RelayEnd::Idle, own_lines::IDLE, cx);
                cx.waker().wake_by_ref();
            }
            if self.end.is_some() {
                return Poll::Pending;
            }
            if self.fold_due().is_some_and(|due| due <= self.now) {
                self.client.fold();
            }
            if self.keepalive_due().is_some_and(|due| due <= self.now) {
                self.drive(SessionInput::KeepAlive, cx);
                self.note_time(false);
                // Polled again, so that it goes out, or what broke is seen.
                cx.waker().wake_by_ref();
            }
            // Once for all that was said meanwhile: that a peer speaks costs no change of the timer.
            let deadline = self.deadline();
            self.timer.as_mut().reset(deadline.map_or(idle_until, |due| due.min(idle_until)));
        }
    }

    /// The time at which the session wants to be called although no peer says anything.
    fn deadline(&self) -> Option<Instant> {
        self.session.deadline().map(Instant::from_std).filter(|_| self.end.is_none())
    }

    fn idle_until(&self) -> Instant {
        self.last_activity.checked_add(self.idle_time).unwrap_or(self.last_activity)
    }

    /// The time at which the client has to hear something, if it waits for that and takes what it is sent.
    fn keepalive_due(&self) -> Option<Instant> {
        let takes =
            self.end.is_none() && self.client.closing == Closing::No && self.client.waiting() == 0;
        self.heard.checked_add(self.session.keepalive().filter(|_| takes)?)
    }

    /// The time at which the state of the client's compression is made smaller, if it can be.
    fn fold_due(&self) -> Option<Instant> {
        self.last_activity.checked_add(FOLD_TIME).filter(|_| self.client.can_fold())
    }
}
