//! The end of a relay: a peer that closes, deltapush that closes, and the time in which the last words are sent.

use std::io;
use std::task::Context;
use std::time::Duration;

use super::{Relay, SessionServices};
use crate::proxy::compress::InflateError;
use crate::proxy::peer::Closing;
use crate::proxy::session::SessionInput;

/// Time that a session goes on after one peer has closed its side, or after deltapush ended it.
const LINGER: Duration = Duration::from_secs(30);

/// The reason why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum RelayEnd {
    /// The client closed, or its connection broke.
    #[error("the client disconnected{}", .0.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Client(Option<io::Error>),
    /// The client said LOGOUT, and was answered.
    #[error("the client logged out")]
    LoggedOut,
    /// The upstream closed, or its connection broke.
    #[error(
        "the mail server closed the connection{}", .0.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
    )]
    Upstream(Option<io::Error>),
    /// The client's bytes after COMPRESS are not compressed as they should be.
    #[error(transparent)]
    Malformed(InflateError),
    /// Neither peer said anything for too long.
    #[error("neither side sent anything for too long")]
    Idle,
    /// The client began a command that deltapush holds, and did not end it.
    #[error("a command took too long to arrive")]
    SlowCommand,
    /// The upstream did not say what the client's next bytes had to wait for.
    #[error("the mail server did not answer in time")]
    Unanswered,
    /// deltapush is shutting down.
    #[error("deltapush shuts down")]
    Shutdown,
}

impl<A: SessionServices> Relay<A> {
    /// Hands on that a peer has closed, or deltapush itself, once all that was said before is handed on.
    pub(super) fn hand_on_ends(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        if self.session.is_over() && self.client.closing == Closing::No {
            self.client.close();
            if !self.session.may_be_kept() {
                self.upstream.close();
            } else if self.end.is_none() {
                self.end = Some(RelayEnd::LoggedOut);
                self.linger();
            }
            progress = true;
        }
        // Requests of the client are done and answered first.
        if self.performing.is_some() || !self.requests.is_empty() {
            return progress;
        }
        if self.client.eof && self.waiting.is_empty() {
            if !self.session.may_be_kept() && self.upstream.closing == Closing::No {
                self.upstream.close();
                progress = true;
            } else if self.session.may_be_kept()
                && self.client.closing == Closing::No
                && !self.session.owes_answers()
            {
                self.client.close();
                self.end.get_or_insert(RelayEnd::Client(None));
                self.linger();
                progress = true;
            }
        }
        if self.upstream.eof && self.unread.is_empty() && self.client.closing == Closing::No {
            self.drive(SessionInput::UpstreamClosed, cx);
            self.client.close();
            progress = true;
        }
        progress
    }

    /// Ends the session on deltapush's own account, with the response that is under way; what is queued still goes out.
    pub(super) fn finish(&mut self, end: RelayEnd, bye: &str, cx: &mut Context<'_>) {
        self.drive(SessionInput::Close(bye), cx);
        self.end = Some(end);
        self.linger();
    }

    pub(super) fn linger(&mut self) {
        self.timer.as_mut().reset(self.now.checked_add(LINGER).unwrap_or(self.now));
    }

    /// Returns how the relay ends, once nothing is left to do. After a LOGOUT it does not matter who closes first.
    pub(super) fn poll_end(&mut self) -> Option<RelayEnd> {
        let end = self.poll_closed()?;
        Some(if self.session.has_logged_out() { RelayEnd::LoggedOut } else { end })
    }

    fn poll_closed(&mut self) -> Option<RelayEnd> {
        if self.client.is_broken() {
            return Some(RelayEnd::Client(self.client.error.take()));
        }
        if self.client.closing == Closing::Done {
            return Some(
                self.end.take().unwrap_or_else(|| RelayEnd::Upstream(self.upstream.error.take())),
            );
        }
        if self.client.eof && self.upstream.is_broken() {
            return Some(RelayEnd::Client(None));
        }
        if (self.client.eof || self.client.closing == Closing::Wanted) && self.end.is_none() {
            self.end = Some(if self.client.eof {
                RelayEnd::Client(None)
            } else {
                RelayEnd::Upstream(self.upstream.error.take())
            });
            self.linger();
        }
        None
    }
}
