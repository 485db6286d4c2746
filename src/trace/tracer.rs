//! The tracer that all sessions share. While nobody follows them, a session only reads a number.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::follow::Followed;
use super::hub::Hub;
use super::outputs::Outputs;
use super::record::SessionId;
use super::recorder::Recorder;
use super::selection::TraceSelection;
use crate::account::AccountId;
use crate::config::TraceSettings;

/// Hands the lines of all sessions to their followers. Clones are of the same one.
#[derive(Clone, Default)]
pub struct Tracer {
    hub: Arc<Hub>,
    /// Those of the configuration.
    outputs: Arc<Mutex<Outputs>>,
}

impl Tracer {
    /// The lines that were dropped since the start, because a reader or a disk was too slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.hub.missed()
    }

    /// A recorder for a client's session with this number.
    #[must_use]
    pub fn client(&self, number: u64) -> Recorder {
        Recorder::new(Arc::clone(&self.hub), SessionId::Client(number), None)
    }

    /// A recorder for a watching session of `account`.
    #[must_use]
    pub fn watch(&self, account: &AccountId) -> Recorder {
        let session = SessionId::Watch(self.hub.next_watch());
        Recorder::new(Arc::clone(&self.hub), session, Some(account.clone()))
    }

    /// Reports if this session is there now.
    #[must_use]
    pub fn has(&self, session: SessionId) -> bool {
        self.hub.has(session)
    }

    /// Follows from now on, also sessions that are there already; `None` if too many do.
    #[must_use]
    pub fn follow(&self, wanted: TraceSelection) -> Option<Followed> {
        Followed::new(&self.hub, wanted)
    }

    /// Lets the outputs be those of `wanted` from now on.
    ///
    /// # Errors
    /// If the folder for files cannot be made, or there is no thread; then all is as before.
    pub fn apply(&self, wanted: &TraceSettings) -> io::Result<()> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner).apply(&self.hub, wanted)
    }

    /// Ends the outputs, once what is queued is written or a short time is over.
    pub fn finish(&self) {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner).finish(&self.hub);
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("state", &self.hub.state()).finish_non_exhaustive()
    }
}
