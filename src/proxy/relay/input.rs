//! Input of the session: the bytes of both peers, as many as a turn may handle, and the outcomes of requests.

use std::task::{Context, Poll};

use super::{Relay, RelayEnd, SessionServices};
use crate::proxy::own_lines;
use crate::proxy::session::{Backlog, SessionInput};
use crate::proxy::turn::consume;

impl<A: SessionServices> Relay<A> {
    /// Gives the session the bytes that it could not take before.
    pub(super) fn take_waiting(&mut self, cx: &mut Context<'_>) -> bool {
        if self.began_to_compress {
            // Bytes that were read after the COMPRESS are compressed.
            self.began_to_compress = false;
            self.client.receive_compressed(&std::mem::take(&mut self.waiting));
            return true;
        }
        let may_go_on =
            self.session.takes_client_input() && !self.is_backed_up() && !self.turn.is_over();
        if self.waiting.is_empty() || !may_go_on {
            return false;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        let used = self.give_client(&waiting, cx);
        consume(&mut waiting, used);
        self.waiting = waiting;
        used > 0
    }

    /// Gives the session what the client said, as much of it as this turn may handle, and returns how much that was.
    fn give_client(&mut self, input: &[u8], cx: &mut Context<'_>) -> usize {
        let mut used: usize = 0;
        loop {
            let bytes = input.get(used..).unwrap_or_default();
            let pieces = self.turn.pieces;
            let driven = self.drive(SessionInput::Client { bytes, pieces }, cx);
            self.turn.pieces = driven.used.pieces_left;
            used += driven.used.bytes;
            // A question that is answered at once holds up nothing that the client has sent behind it.
            if !driven.was_answered {
                return used;
            }
        }
    }

    /// The queues here that put off the wait for a peer.
    pub(super) fn backlog(&self) -> Backlog {
        let commands = !self.waiting.is_empty() || self.is_backed_up();
        Backlog { client: self.client.waiting() > 0, commands }
    }

    /// Returns true if the client's commands have to wait: the upstream does not take them, or the client not their answers.
    fn is_backed_up(&self) -> bool {
        self.upstream.waiting().max(self.client.waiting()) >= self.limit
    }

    pub(super) fn read_client(&mut self, buffer: &mut [u8], cx: &mut Context<'_>) -> bool {
        // After a COMPRESS, what waits is handed over first: what is read now would join it, inflated.
        let must_wait = !self.waiting.is_empty()
            || self.began_to_compress
            || self.is_backed_up()
            || self.turn.is_over();
        if self.client.eof || must_wait || self.end.is_some() {
            return false;
        }
        let read = match self.client.poll_read(buffer, cx) {
            None => return false,
            Some(Ok(input)) => {
                self.turn.count(input.len(), self.client.is_compressed());
                let used = self.give_client(input, cx);
                self.waiting.extend_from_slice(input.get(used..).unwrap_or_default());
                input.len()
            }
            Some(Err(malformed)) => {
                self.finish(RelayEnd::Malformed(malformed), own_lines::NOT_DEFLATE, cx);
                0
            }
        };
        // It may have been a token, and the thread's buffer lives on. To inflate, what was said before is put there too, even
        // if nothing comes of it.
        let dirty = if self.client.is_compressed() { buffer.len() } else { read };
        buffer.get_mut(..dirty).unwrap_or_default().fill(0);
        true
    }

    pub(super) fn read_upstream(&mut self, buffer: &mut [u8], cx: &mut Context<'_>) -> bool {
        // Bytes after the end belong to the kept session.
        let is_over = self.session.may_be_kept() && self.session.is_over();
        if self.client.waiting() >= self.limit || is_over || self.turn.is_over() {
            return false;
        }
        if !self.unread.is_empty() {
            let mut unread = std::mem::take(&mut self.unread);
            let used = self.take_upstream(&unread, cx);
            consume(&mut unread, used);
            self.unread = unread;
            return true;
        }
        if self.upstream.eof {
            return false;
        }
        let Some(Ok(input)) = self.upstream.poll_read(buffer, cx) else { return false };
        let read = input.len();
        self.turn.count(read, self.client.is_compressed());
        let used = self.take_upstream(input, cx);
        self.unread = input.get(used..).unwrap_or_default().to_vec();
        buffer.get_mut(..read).unwrap_or_default().fill(0);
        true
    }

    /// Gives the session what the upstream said, as much of it as this turn may handle, and returns how much that was.
    fn take_upstream(&mut self, input: &[u8], cx: &mut Context<'_>) -> usize {
        if self.session.may_be_kept() {
            let copies = self.account.wants_fetches();
            self.drive(SessionInput::CopiesFetches(copies), cx);
        }
        let pieces = self.turn.pieces;
        let used = self.drive(SessionInput::Upstream { bytes: input, pieces }, cx).used;
        self.turn.pieces = used.pieces_left;
        used.bytes
    }

    pub(super) fn poll_requests(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(performing) = &mut self.performing else {
            let Some(request) = self.requests.pop_front() else { return false };
            self.performing = Some(self.account.perform(request));
            return true;
        };
        let Poll::Ready(outcome) = performing.as_mut().poll(cx) else { return false };
        self.performing = None;
        self.drive(SessionInput::Outcome(outcome), cx);
        true
    }
}
