//! Facts about a login attempt that outlive the future of one connection: a time limit may drop that at any moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::login_machine::LoginMachine;
use super::mechanism::LoginMethod;

/// The facts.
#[derive(Debug, Default)]
pub(super) struct LoginProgress {
    has_committed: AtomicBool,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    complaint: Option<String>,
    refused: Option<Vec<LoginMethod>>,
}

impl LoginProgress {
    /// Records that something was sent that must not be sent to another server as well.
    pub(super) fn commit(&self) {
        self.has_committed.store(true, Ordering::Relaxed);
    }

    /// Reports if that has happened.
    pub(super) fn has_committed(&self) -> bool {
        self.has_committed.load(Ordering::Relaxed)
    }

    /// Records what `machine` knows after a response.
    pub(super) fn record(&self, machine: &LoginMachine) {
        let mut notes = self.notes();
        notes.complaint = machine.complaint().map(str::to_owned);
        notes.refused = machine.refused_methods();
    }

    /// The server's last untagged NO, BAD or alert.
    pub(super) fn complaint(&self) -> Option<String> {
        self.notes().complaint.clone()
    }

    /// The methods to leave out in a new connection ([`LoginMachine::refused_methods`]), if one is worth it. Taken once.
    pub(super) fn take_refused(&self) -> Option<Vec<LoginMethod>> {
        self.notes().refused.take()
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
