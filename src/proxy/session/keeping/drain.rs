//! The end of a session that may be kept: LOGOUT, which deltapush answers, and draining once the client is gone.

use super::MAX_LINE;
use crate::machine::Actions;
use crate::parser::framer::Framer;
use crate::proxy::own_lines::{self, untagged};
use crate::proxy::session::{ClientState, DrainStep, Session, SessionAction};

impl Session {
    /// `LOGOUT`: the client goes, the session stays.
    pub(in crate::proxy::session) fn answer_logout(&mut self, out: &mut impl Actions<Session>) {
        let tag = self.client.tag.clone();
        if let Some(keeping) = &mut self.keeping {
            keeping.logout = Some(tag);
        }
        self.end_logout(out);
    }

    /// Answers a LOGOUT, once all is answered that came before it.
    #[inline]
    pub(in crate::proxy::session) fn end_logout(&mut self, out: &mut impl Actions<Session>) {
        if self.is_logout_due() {
            self.answer_due_logout(out);
        }
    }

    #[inline(never)]
    pub(in crate::proxy::session) fn answer_due_logout(&mut self, out: &mut impl Actions<Session>) {
        let Some(tag) = self.keeping.as_mut().and_then(|keeping| keeping.logout.take()) else {
            return;
        };
        self.server.said_bye = true;
        let bye = untagged(own_lines::LOGOUT);
        self.send_own(out, &[bye.as_bytes(), tag.as_slice(), b" OK LOGOUT completed\r\n"].concat());
        self.closed = true;
    }

    /// Returns true if a LOGOUT waits, and nothing else does.
    #[inline]
    pub(in crate::proxy::session) fn is_logout_due(&self) -> bool {
        let waits = self
            .keeping
            .as_ref()
            .is_some_and(|keeping| keeping.logout.is_some() && keeping.commands.in_flight() == 0);
        waits && self.is_between_answers()
    }

    #[inline(never)]
    fn is_between_answers(&self) -> bool {
        !self.is_within_response()
            && self.pending.is_empty()
            && self.requests.is_empty()
            && !self.closed
    }

    /// Drains a session whose client is gone: sends what ends IDLE, or a command that does no harm, and returns whether the
    /// upstream still has to answer.
    pub(in crate::proxy::session) fn drain(
        &mut self,
        out: &mut impl Actions<Session>,
    ) -> DrainStep {
        let said_bye = self.server.said_bye;
        let Some(keeping) = &mut self.keeping else {
            return DrainStep::Lost("its configuration keeps no sessions");
        };
        if !std::mem::replace(&mut keeping.drains, true) {
            // deltapush's own goodbye to the client is no word of the upstream's.
            self.server.said_bye &= !self.closed;
            self.closed = false;
            keeping.logout = None;
            let unread = std::mem::take(&mut keeping.unread);
            self.take_upstream(&unread, usize::MAX, out);
            return self.drain(out);
        } else if said_bye {
            return DrainStep::Lost("the mail server is closing the session");
        }
        if keeping.commands.lost_track() {
            return DrainStep::Lost("too many commands were in flight");
        }
        match self.client.state {
            // Nothing of it went upstream.
            ClientState::AwaitingAccount
            | ClientState::Head
            | ClientState::Gathering
            | ClientState::Discarding => {
                self.client.held = Vec::new();
                self.client.cuts = Vec::new();
                self.client.state = ClientState::Head;
            }
            ClientState::Continuing => {
                out.push(SessionAction::ToUpstream(b"DONE\r\n"));
                self.client.held = Vec::new();
                self.client.state = ClientState::Head;
            }
            ClientState::Relaying => match self.end_command(out) {
                Ok(()) => {}
                Err(reason) => return DrainStep::Lost(reason),
            },
            ClientState::AwaitingAgreement(_)
            | ClientState::AwaitingLiteral(_)
            | ClientState::AwaitingContinuation
            | ClientState::Replaying => {}
        }
        let is_answered =
            self.keeping.as_ref().is_none_or(|keeping| keeping.commands.in_flight() == 0);
        let is_idle =
            self.client.state == ClientState::Head && is_answered && self.pending.is_empty();
        if is_idle && !self.is_within_response() { DrainStep::Settled } else { DrainStep::Waiting }
    }

    /// Ends a command of which a part went upstream, if that can do no harm: half a message is never appended, and half a set
    /// of numbers is another one.
    fn end_command(&mut self, out: &mut impl Actions<Session>) -> Result<(), &'static str> {
        let left = usize::try_from(self.client.framer.left_of_literal()).unwrap_or(usize::MAX);
        let tag = self.client.tag.clone();
        let Some(keeping) = self
            .keeping
            .as_mut()
            .filter(|keeping| keeping.commands.is_harmless() && left <= MAX_LINE)
        else {
            return Err("the client disconnected in the middle of a command");
        };
        out.push(SessionAction::ToUpstream(&[vec![b'x'; left], b"\r\n".to_vec()].concat()));
        self.client.framer = Framer::new();
        self.client.state = ClientState::Head;
        keeping.end(&tag);
        Ok(())
    }
}
