//! The session's actions: bytes are written as they come, the rest goes to the account's services or is noted for the loop.

use std::collections::VecDeque;
use std::task::Context;

use super::{Relay, RelayEnd, SessionServices};
use crate::machine::{Actions, Machine};
use crate::proxy::peer::Peer;
use crate::proxy::session::{
    AccountQuestion, Request, Session, SessionAction, SessionEnd, SessionInput, UsedInput,
};
use crate::telemetry::Direction;
use crate::trace::Recorder;

/// The result of an input, apart from the bytes that were sent.
#[derive(Default)]
pub(super) struct Driven {
    pub(super) used: UsedInput,
    /// The session has asked something, and has been answered.
    pub(super) was_answered: bool,
}

impl<A: SessionServices> Relay<A> {
    /// Gives the session an input, does what it asks for, and answers what it asks.
    pub(super) fn drive(&mut self, input: SessionInput<'_>, cx: &mut Context<'_>) -> Driven {
        let now = self.now.into_std();
        let mut actions = RelayActions {
            client: &mut self.client,
            upstream: &mut self.upstream,
            account: &self.account,
            requests: &mut self.requests,
            began_to_compress: &mut self.began_to_compress,
            trace: &mut self.trace,
            hears: &mut self.hears,
            used: UsedInput::default(),
            question: None,
            end: None,
            cx,
        };
        self.session.handle(input, now, &mut actions);
        let RelayActions { used, question, end, .. } = actions;
        if let Some(end) = end {
            self.end = Some(match end {
                SessionEnd::SlowCommand => RelayEnd::SlowCommand,
                SessionEnd::Unanswered => RelayEnd::Unanswered,
            });
            self.linger();
        }
        match question {
            None => {}
            Some(AccountQuestion::Tokens) => {
                let tokens = self.account.tokens();
                self.drive(SessionInput::Tokens(&tokens), cx);
            }
            Some(AccountQuestion::PushStatus) => {
                let status = self.account.push_status();
                self.drive(SessionInput::PushStatus(&status), cx);
            }
        }
        Driven { used, was_answered: question.is_some() }
    }
}

/// Does what one input makes necessary.
struct RelayActions<'a, 'b, A> {
    client: &'a mut Peer,
    upstream: &'a mut Peer,
    account: &'a A,
    requests: &'a mut VecDeque<Request>,
    began_to_compress: &'a mut bool,
    trace: &'a mut Recorder,
    hears: &'a mut bool,
    used: UsedInput,
    question: Option<AccountQuestion>,
    end: Option<SessionEnd>,
    cx: &'a mut Context<'b>,
}

impl<A: SessionServices> Actions<Session> for RelayActions<'_, '_, A> {
    #[inline]
    fn push(&mut self, action: SessionAction<'_>) {
        match action {
            SessionAction::ToClient(bytes) => self.send_client(bytes),
            SessionAction::ToUpstream(bytes) => {
                self.account.relayed(Direction::ToUpstream, bytes.len());
                self.upstream.send(bytes, self.cx);
            }
            SessionAction::Used(used) => self.used = used,
            SessionAction::Compress => self.compress(),
            // Bounded by the session, which takes no more commands while many are unanswered.
            SessionAction::Request(request) => self.requests.push_back(request.clone()),
            SessionAction::Ask(question) => self.question = Some(question),
            SessionAction::IdlesIn(mailbox) => self.account.idles_in(mailbox),
            SessionAction::Fetches => self.account.fetches(),
            SessionAction::Learned(lesson) => self.account.learns(lesson.clone()),
            SessionAction::BackgroundFetch => self.account.background_fetch(),
            SessionAction::Opened(opened) => self.account.opened(opened),
            SessionAction::Observed(event) => self.account.on_observed(event),
            SessionAction::Trace(event) => event.show(self.trace),
            // Only an answer to what this driver does not give.
            SessionAction::Drained(_) => {}
            SessionAction::End(end) => self.end = Some(end),
        }
    }
}

impl<A: SessionServices> RelayActions<'_, '_, A> {
    fn send_client(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.account.relayed(Direction::ToClient, bytes.len());
            self.client.send(bytes, self.cx);
            *self.hears = true;
        }
    }

    fn compress(&mut self) {
        self.client.compress();
        *self.began_to_compress = true;
        self.trace.note(|| {
            "from here on, client and deltapush compress what they send; the trace shows it uncompressed".to_owned()
        });
    }
}
