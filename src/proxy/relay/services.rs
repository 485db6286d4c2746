//! Interface of a relay to its surroundings: services for the session's account, and the handover of a session without a
//! client.

use std::future::Future;
use std::pin::Pin;

use crate::proxy::session::{ObservedEvent, Request, RequestOutcome, Session};
use crate::push::server_news::OpenedMailbox;
use crate::secret::DeviceToken;
use crate::store::FetchLesson;
use crate::telemetry::Direction;
use crate::tls::stream::Stream;
use crate::trace::Recorder;

/// A future that performs a [`Request`] and says what came of it.
pub type Performed = Pin<Box<dyn Future<Output = RequestOutcome> + Send>>;

/// Services for a session's account.
pub trait SessionServices: Send {
    /// The tokens that it has.
    fn tokens(&self) -> Vec<DeviceToken>;
    /// Its push status at this moment, in one line for its owner.
    fn push_status(&self) -> String;
    /// A client of it idles in this mailbox.
    fn idles_in(&self, mailbox: &str);
    /// A client of it asks for messages.
    fn fetches(&self);
    /// The app of a client that has handed over a token has fetched unencrypted messages, or has left some.
    fn learns(&self, _lesson: FetchLesson) {}
    /// A client of it has come for a background fetch.
    fn background_fetch(&self) {}
    /// So many bytes go that way.
    fn relayed(&self, way: Direction, bytes: usize);
    /// Does what a session asked for.
    fn perform(&self, request: Request) -> Performed;
    /// A client of it has opened this mailbox. Only where no watch looks for new mail.
    fn opened(&self, _opened: &OpenedMailbox) {}
    /// Handles an event of new mail in the session. Only where sessions are kept.
    fn on_observed(&self, _event: ObservedEvent<'_>) {}
    /// Returns true if FETCH responses are worth a copy for the observer of new mail.
    fn wants_fetches(&self) -> bool {
        false
    }
    /// Takes the session of a client that is gone. Only where sessions are kept.
    fn on_client_gone(self, _left: OrphanedSession)
    where
        Self: Sized,
    {
    }
}

/// A session that may go on without its client.
pub struct OrphanedSession {
    /// The connection to the mail server.
    pub stream: Stream,
    /// Bytes that it has not taken yet.
    pub unsent: Vec<u8>,
    /// The machine, with the commands in flight.
    pub session: Session,
    /// The recorder of its trace.
    pub trace: Recorder,
}
