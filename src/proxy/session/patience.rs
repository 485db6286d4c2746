//! Waits for a peer that end: for the upstream, while its answer decides what the client's next bytes are, and for the rest of a
//! command that deltapush holds.

use std::time::{Duration, Instant};

use super::{ClientState, MAX_PENDING, Session, SessionAction, SessionEnd};
use crate::machine::Actions;
use crate::proxy::own_lines;
use crate::trace::TraceEvent;

/// Time that a client that asked for IDLE waits for the upstream's `+` before its next line is read. Some servers send something
/// else instead, or nothing.
const IDLE_PATIENCE: Duration = Duration::from_secs(5);

/// Time for the upstream to accept or refuse a literal, or to answer the oldest of many commands. Some open the mailbox first, and
/// wait for its lock.
const ANSWER_TIME: Duration = Duration::from_secs(300);

/// Time that LOGOUT waits for the ends of the commands before it, where deltapush answers it.
const LOGOUT_PATIENCE: Duration = Duration::from_secs(15);

/// A wait for a peer's word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    whom: Awaited,
    /// The client's command during which it began: one wait for a peer differs from the next by it.
    command: u32,
    pub(super) until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// The client, for the rest of a command that deltapush holds.
    Client,
    /// The upstream, for what decides what the client's next bytes are.
    Upstream,
}

impl Session {
    /// Begins or ends a wait, as it is after an input.
    #[inline]
    pub(super) fn note_wait(&mut self, now: Instant) {
        // Nearly always a command is at its beginning, or streams through.
        let may_wait = match self.client.state {
            ClientState::Head => !self.client.held.is_empty(),
            ClientState::Relaying => false,
            _ => true,
        };
        if may_wait
            || self.wait.is_some()
            || self.pending.len() >= MAX_PENDING
            || self.waits_for_logout()
        {
            self.renew_wait(now);
        }
    }

    #[inline(never)]
    fn renew_wait(&mut self, now: Instant) {
        let Some((whom, patience)) = self.awaited() else {
            self.wait = None;
            return;
        };
        let command = self.client.begun;
        if self.wait.is_none_or(|wait| (wait.whom, wait.command) != (whom, command)) {
            let until = now.checked_add(patience).unwrap_or(now);
            self.wait = Some(Wait { whom, command, until });
        }
    }

    /// The peer that is waited for, and the longest time.
    fn awaited(&self) -> Option<(Awaited, Duration)> {
        if self.closed {
            return None;
        }
        if let Some(patience) = self.patience() {
            return (!self.backlog.client).then_some((Awaited::Upstream, patience));
        }
        // Not while the client is to hear something first: its `+` may be the end of that.
        let is_clients_turn = !self.backlog.client && !self.backlog.commands;
        (is_clients_turn && self.holds_command())
            .then_some((Awaited::Client, self.settings.command_time))
    }

    /// The time that the client's next bytes may wait for the upstream, if they do.
    fn patience(&self) -> Option<Duration> {
        match self.client.state {
            ClientState::AwaitingContinuation => Some(IDLE_PATIENCE),
            ClientState::AwaitingAgreement(_)
            | ClientState::AwaitingLiteral(_)
            | ClientState::Replaying => Some(ANSWER_TIME),
            _ if self.waits_for_logout() => Some(LOGOUT_PATIENCE),
            _ if self.pending.len() >= MAX_PENDING => Some(ANSWER_TIME),
            _ => None,
        }
    }

    /// Returns true if deltapush holds the beginning of a command, and the rest is for the client to send.
    fn holds_command(&self) -> bool {
        let under_way = match self.client.state {
            ClientState::Head => !self.client.held.is_empty(),
            ClientState::Gathering | ClientState::Discarding => true,
            _ => false,
        };
        // Its `+` may wait for the end of a response, which is for the upstream to send.
        under_way && self.own.is_empty() && self.takes_client_input()
    }

    /// Ends a wait whose time is over, and the session with it where nothing else can be done.
    pub(super) fn time_passed(&mut self, now: Instant, out: &mut impl Actions<Self>) {
        let Some(wait) = self.wait.take_if(|wait| wait.until <= now) else { return };
        if wait.whom == Awaited::Client {
            return self.give_up(SessionEnd::SlowCommand, own_lines::SLOW_COMMAND, out);
        }
        if self.client.state == ClientState::AwaitingContinuation {
            self.client.state = ClientState::Continuing;
        } else if self.waits_for_logout() {
            self.answer_due_logout(out);
        } else {
            return self.give_up(SessionEnd::Unanswered, own_lines::UPSTREAM_SILENT, out);
        }
        if self.traced {
            out.push(SessionAction::Trace(TraceEvent::Note(
                "the mail server has not answered: deltapush reads the client's next commands nevertheless",
            )));
        }
    }

    fn give_up(&mut self, end: SessionEnd, bye: &str, out: &mut impl Actions<Self>) {
        self.close(bye, out);
        out.push(SessionAction::End(end));
    }
}
