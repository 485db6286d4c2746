//! Inputs and actions of the session machine. The driver of a client's session is [`relay`](crate::proxy::relay).

use std::time::Instant;

use super::{ObservedEvent, Session};
use crate::machine::{Actions, Machine};
use crate::push::registry::AccountsFull;
use crate::push::server_news::OpenedMailbox;
use crate::secret::DeviceToken;
use crate::store::FetchLesson;
use crate::trace::TraceEvent;

/// An input. Without `Debug`: it may hold a token.
pub enum SessionInput<'a> {
    /// Bytes from the client, of which at most `pieces` pieces (lines, or parts of literals) are handled now:
    /// [`SessionAction::Used`] says how much that was. The rest has to be given again, once
    /// [`takes_client_input`](Session::takes_client_input) allows it.
    Client {
        /// The bytes.
        bytes: &'a [u8],
        /// The limit.
        pieces: usize,
    },
    /// The same from the upstream. All of it is used within the limit, and what follows deltapush's own BYE in any case.
    Upstream {
        /// The bytes.
        bytes: &'a [u8],
        /// The limit.
        pieces: usize,
    },
    /// The outcome of the oldest [`Request`].
    Outcome(RequestOutcome),
    /// The account's tokens at this moment: the answer to [`AccountQuestion::Tokens`].
    Tokens(&'a [DeviceToken]),
    /// The push status of the account in one line for its owner: the answer to [`AccountQuestion::PushStatus`].
    PushStatus(&'a str),
    /// The trace of the session has a follower, or none: without one no [`SessionAction::Trace`] is made.
    Traced(bool),
    /// FETCH responses are worth a copy for the observer of new mail, or not. To be given before the upstream's bytes, where
    /// sessions are kept.
    CopiesFetches(bool),
    /// Changed queues of the driver.
    Backlog(Backlog),
    /// Time has passed: perhaps the [`deadline`](Machine::deadline) has come.
    Time,
    /// The client has heard nothing for [`keepalive`](Session::keepalive).
    KeepAlive,
    /// The upstream closed the connection, or it broke.
    UpstreamClosed,
    /// deltapush ends the session with this BYE: at once, or with the end of the response that is under way
    /// ([`is_over`](Session::is_over)).
    Close(&'a str),
    /// The client is gone, and the session is drained: to be given at once, and again after the upstream's bytes.
    Drain,
}

/// Work for the driver, to be done in the order of the actions. Without `Debug`: it may hold a token.
#[derive(Clone, Copy)]
pub enum SessionAction<'a> {
    /// Send these bytes to the client. There may be none.
    ToClient(&'a [u8]),
    /// Send these bytes to the upstream. There may be none.
    ToUpstream(&'a [u8]),
    /// Note how much of the input was used.
    Used(UsedInput),
    /// From here on, both ways, all is compressed between client and deltapush (RFC 4978): what goes to the client, and what of
    /// the client's bytes was not used. The session takes and gives it as plain as before.
    Compress,
    /// Do something that takes time.
    Request(&'a Request),
    /// Answer a question. The client's next bytes wait for the answer.
    Ask(AccountQuestion),
    /// Note that the client idles in this mailbox.
    IdlesIn(&'a str),
    /// Note that the client, having heard of new mail, asks for messages.
    Fetches,
    /// Note that the client's app has fetched unencrypted messages, or has left some on the server. Only after
    /// [`AddToken`](Request::AddToken).
    Learned(&'a FetchLesson),
    /// Note that the client is an app that has come for a background fetch.
    BackgroundFetch,
    /// Compare this mailbox, which the client has opened, with its stored position. Only in a session that
    /// [reads positions](Session::reading_positions).
    Opened(&'a OpenedMailbox),
    /// Show this to the observer of new mail. Only where sessions are kept.
    Observed(ObservedEvent<'a>),
    /// Show this to those who follow the trace. Secrets are masked already.
    Trace(TraceEvent<'a>),
    /// Note how far the session is drained.
    Drained(DrainStep),
    /// End the session once all is sent: the client hears why.
    End(SessionEnd),
}

/// The part of an input that was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsedInput {
    /// Bytes.
    pub bytes: usize,
    /// Pieces of the limit that are left.
    pub pieces_left: usize,
}

/// Bytes that wait in the driver, as far as they put off what a peer is waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The client has not taken all that was sent: perhaps a long answer to an earlier command.
    pub client: bool,
    /// Bytes of the client wait, because the session, the upstream or the client could not take more.
    pub commands: bool,
}

/// Something that a session wants to be done and that takes time. Requests are answered in their order, by
/// [`SessionInput::Outcome`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Keep this token for the session's account.
    AddToken(DeviceToken),
    /// Forget all tokens of the session's account.
    RemoveTokens,
}

/// The outcome of a [`Request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// It was done.
    Done,
    /// The state could not be written.
    Failed,
    /// It was a token of a new account, and there are too many accounts.
    Refused(AccountsFull),
}

impl From<bool> for RequestOutcome {
    fn from(done: bool) -> Self {
        if done { Self::Done } else { Self::Failed }
    }
}

/// A question about the session's account that the driver answers at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountQuestion {
    /// Its tokens, for [`SessionInput::Tokens`].
    Tokens,
    /// Its push status, for [`SessionInput::PushStatus`].
    PushStatus,
}

/// The progress of draining a session whose client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainStep {
    /// The upstream has to say more.
    Waiting,
    /// Nothing is under way: the next bytes may be a command.
    Settled,
    /// It cannot go on, for this reason.
    Lost(&'static str),
}

/// The machine's reason to end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client began a command that deltapush holds, and did not end it in time.
    SlowCommand,
    /// The upstream did not say in time what the client's next bytes are.
    Unanswered,
}

impl Machine for Session {
    type Input<'a> = SessionInput<'a>;
    type Action<'a> = SessionAction<'a>;

    #[expect(
        clippy::inline_always,
        reason = "drivers know which input they give: without the choice a NOOP costs 2 % less"
    )]
    #[inline(always)]
    fn handle(&mut self, input: SessionInput<'_>, now: Instant, out: &mut impl Actions<Self>) {
        match input {
            SessionInput::Client { bytes, pieces } => {
                let used = self.take_client(bytes, pieces, out);
                out.push(SessionAction::Used(used));
            }
            SessionInput::Upstream { bytes, pieces } => {
                let used = self.take_upstream(bytes, pieces, out);
                out.push(SessionAction::Used(used));
            }
            SessionInput::Outcome(outcome) => self.request_done(outcome, out),
            SessionInput::Tokens(tokens) => self.tokens_are(tokens, out),
            SessionInput::PushStatus(status) => self.push_status_is(status, out),
            SessionInput::Traced(traced) => self.traced = traced,
            SessionInput::CopiesFetches(copies) => self.copy_fetches(copies),
            SessionInput::Backlog(backlog) => self.backlog = backlog,
            SessionInput::Time => self.time_passed(now, out),
            SessionInput::KeepAlive => self.keep_alive(out),
            SessionInput::UpstreamClosed => self.upstream_closed(out),
            SessionInput::Close(bye) => self.close(bye, out),
            SessionInput::Drain => {
                let step = self.drain(out);
                out.push(SessionAction::Drained(step));
            }
        }
        self.note_wait(now);
    }

    fn deadline(&self) -> Option<Instant> {
        self.wait.map(|wait| wait.until)
    }
}
