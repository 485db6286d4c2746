//! Client to upstream: relay or gather, command by command.

use super::run::Run;
use super::{ClientState, MAX_SAID, Output, Session, show};
use crate::parser::command::{self, Verb};
use crate::parser::framer::{Fragment, LineEnd};
use crate::trace::{Mark, Piece, Speaker};

impl Session {
    /// Takes bytes from the client. Returns how many were used: the rest has to be given again, once
    /// [`takes_client_input`](Self::takes_client_input) says so.
    pub fn from_client(&mut self, input: &[u8], out: &mut impl Output) -> usize {
        let mut all = usize::MAX;
        self.some_from_client(input, &mut all, out)
    }

    /// The same for at most `pieces` pieces of the input (lines, or parts of literals), which are counted down.
    pub fn some_from_client(&mut self, input: &[u8], pieces: &mut usize, out: &mut impl Output) -> usize {
        let mut run = Run::new(input);
        let mut rest = input;
        self.said = 0;
        let compression = self.compression;
        // Small questions have large answers: a few lines at a time, so that the client's pace is felt.
        while *pieces > 0 && self.takes_client_input() && self.said < MAX_SAID && self.compression == compression {
            let Some((fragment, after)) = self.client.framer.next(rest) else { break };
            rest = after;
            *pieces = pieces.saturating_sub(1);
            match self.client.state {
                ClientState::Head => self.take_head(fragment, &mut run, out),
                ClientState::Relaying => self.take_relayed(fragment, &mut run, out),
                ClientState::Continuing => self.take_continuation(fragment, &mut run, out),
                ClientState::Gathering => self.take_gathered(fragment, &mut run, out),
                ClientState::Discarding => self.take_discarded(fragment, &mut run, out),
                // Not reached: `takes_client_input` is false in these.
                ClientState::AwaitingContinuation | ClientState::AwaitingLiteral(_) | ClientState::Replaying => break,
            }
        }
        out.to_upstream(run.take());
        self.end_logout(out);
        run.consumed()
    }

    /// The first bytes of a command, or more of them.
    fn take_head<'a>(&mut self, fragment: Fragment<'a>, run: &mut Run<'a>, out: &mut impl Output) {
        let (bytes, end) = line_of(fragment);
        let split = !self.client.held.is_empty();
        if split {
            self.client.held.extend_from_slice(bytes);
        } else {
            self.client.begun = self.client.begun.wrapping_add(1);
        }
        let start = if split { self.client.held.as_slice() } else { bytes };
        let Some(head) = command::head(start) else {
            if !split {
                self.client.held.extend_from_slice(bytes);
            }
            return out.to_upstream(run.skip(bytes.len()));
        };
        self.client.verb = head.verb;
        self.client.tag.clear();
        self.client.tag.extend_from_slice(head.tag);
        let head_len = head.len;
        if self.answers(self.client.verb) {
            out.to_upstream(run.skip(bytes.len()));
            if !split {
                self.client.held.extend_from_slice(bytes);
            }
            self.client.state = ClientState::Gathering;
            return self.gathered_more(end, out);
        }
        self.selection.begin(self.client.verb, start);
        if let Some(keeping) = &mut self.keeping {
            keeping.begin(self.client.verb, start, out);
        }
        if let Some(observer) = &mut self.prefetches {
            observer.begin(self.client.verb, start);
        }
        if self.server.has_news && is_fetch(self.client.verb, start, head_len) {
            self.server.has_news = false;
            if self.visit.fetches(start) {
                out.background_fetch();
            }
            out.fetches();
        }
        show_command(start, head_len, self.client.verb, out);
        if split {
            out.to_upstream(run.skip(bytes.len()));
            out.to_upstream(&std::mem::take(&mut self.client.held));
        } else {
            run.extend(bytes.len());
        }
        self.relayed_line_end(end, run, out);
    }

    /// More of a command that is relayed.
    fn take_relayed<'a>(&mut self, fragment: Fragment<'a>, run: &mut Run<'a>, out: &mut impl Output) {
        run.extend(fragment.bytes().len());
        self.selection.go_on(fragment.bytes());
        match fragment {
            Fragment::Line { bytes, end } => {
                if let Some(keeping) = &mut self.keeping {
                    keeping.go_on(bytes);
                }
                if let Some(observer) = &mut self.prefetches {
                    observer.more(bytes);
                }
                show(out, Speaker::Client, Mark::Relayed, bytes, self.client.verb.has_secret_arguments());
                self.relayed_line_end(end, run, out);
            }
            Fragment::Literal { bytes, .. } => show_literal(out, self.client.verb, bytes),
        }
    }

    /// What the end of a relayed line means for what comes next.
    fn relayed_line_end(&mut self, end: Option<LineEnd>, run: &mut Run<'_>, out: &mut impl Output) {
        self.client.state = match end {
            None => ClientState::Relaying,
            Some(LineEnd::Literal(announced)) if announced.synchronizing => {
                ClientState::AwaitingLiteral(announced.size)
            }
            Some(LineEnd::Literal(announced)) => {
                self.client.framer.begin_literal(announced.size);
                ClientState::Relaying
            }
            Some(LineEnd::Plain) if matches!(self.client.verb, Verb::Idle | Verb::Authenticate) => {
                self.keeping_complete();
                self.prefetch_end(out);
                ClientState::AwaitingContinuation
            }
            Some(LineEnd::Plain) => {
                self.selection.end(&self.client.tag);
                self.keeping_complete();
                self.prefetch_end(out);
                ClientState::Head
            }
        };
        if !self.takes_client_input() {
            out.to_upstream(run.take());
        }
    }

    /// A line within IDLE or AUTHENTICATE: no command.
    fn take_continuation<'a>(&mut self, fragment: Fragment<'a>, run: &mut Run<'a>, out: &mut impl Output) {
        let (bytes, end) = line_of(fragment);
        run.extend(bytes.len());
        show(out, Speaker::Client, Mark::Relayed, bytes, self.client.verb != Verb::Idle);
        if let Some(keeping) = &mut self.keeping {
            keeping.is_continuing = end.is_none();
        }
        if end.is_some() && self.client.verb == Verb::Idle {
            self.client.state = ClientState::Head;
        }
    }

    /// More of a command that deltapush answers.
    fn take_gathered<'a>(&mut self, fragment: Fragment<'a>, run: &mut Run<'a>, out: &mut impl Output) {
        let bytes = fragment.bytes();
        out.to_upstream(run.skip(bytes.len()));
        self.client.held.extend_from_slice(bytes);
        let end = if let Fragment::Line { end, .. } = fragment { end } else { None };
        self.gathered_more(end, out);
    }

    /// More of a command was gathered, perhaps up to a line's end: is it complete, or too long?
    fn gathered_more(&mut self, end: Option<LineEnd>, out: &mut impl Output) {
        if self.client.held.len() <= self.settings.max_command {
            return self.gathered_line_end(end, out);
        }
        self.client.held = Vec::new();
        self.client.state = ClientState::Discarding;
        if let Some(end) = end {
            self.discard_from(end, out);
        }
    }

    fn gathered_line_end(&mut self, end: Option<LineEnd>, out: &mut impl Output) {
        match end {
            None => {}
            Some(LineEnd::Plain) => {
                self.client.state = ClientState::Head;
                let command = std::mem::take(&mut self.client.held);
                let cuts = std::mem::take(&mut self.client.cuts);
                self.answer(&command, &cuts, out);
            }
            Some(LineEnd::Literal(announced)) => {
                let room = self.settings.max_command.saturating_sub(self.client.held.len());
                if announced.size > room as u64 {
                    self.client.held = Vec::new();
                    return self.discard_from(LineEnd::Literal(announced), out);
                }
                if announced.synchronizing {
                    self.client.cuts.push(self.client.held.len());
                    self.say(out, b"+ OK\r\n");
                }
                self.client.framer.begin_literal(announced.size);
            }
        }
    }

    /// More of a command that went over its limit.
    fn take_discarded<'a>(&mut self, fragment: Fragment<'a>, run: &mut Run<'a>, out: &mut impl Output) {
        out.to_upstream(run.skip(fragment.bytes().len()));
        if let Fragment::Line { end: Some(end), .. } = fragment {
            self.discard_from(end, out);
        }
    }

    /// Goes on after the end of a line of a command that is too long: past a literal that is on its way in any case, or to
    /// the answer.
    fn discard_from(&mut self, end: LineEnd, out: &mut impl Output) {
        match end {
            LineEnd::Literal(announced) if !announced.synchronizing => {
                self.client.framer.begin_literal(announced.size);
                self.client.state = ClientState::Discarding;
            }
            LineEnd::Literal(_) | LineEnd::Plain => {
                self.client.cuts = Vec::new();
                self.client.state = ClientState::Head;
                self.refuse_too_long(out);
            }
        }
    }
}

/// Whether a command that begins with `start` asks for messages. In doubt it does not.
fn is_fetch(verb: Verb, start: &[u8], head_len: usize) -> bool {
    let begins_with_fetch = || {
        start.get(head_len..).and_then(|rest| rest.get(..7)).is_some_and(|word| word.eq_ignore_ascii_case(b" FETCH "))
    };
    verb == Verb::Fetch || verb == Verb::Uid && begins_with_fetch()
}

/// Shows the beginning of a relayed command: tag and verb always, the rest unless it is secret.
fn show_command(start: &[u8], head_len: usize, verb: Verb, out: &mut impl Output) {
    let Some(transcript) = out.transcript() else { return };
    let (head, arguments) = start.split_at_checked(head_len).unwrap_or((start, &[]));
    transcript.piece(Speaker::Client, Mark::Relayed, Piece::Text(head));
    show(out, Speaker::Client, Mark::Relayed, arguments, verb.has_secret_arguments());
}

fn line_of(fragment: Fragment<'_>) -> (&[u8], Option<LineEnd>) {
    match fragment {
        Fragment::Line { bytes, end } => (bytes, end),
        // A literal begins only when `begin_literal` was called, which no state that takes lines alone does.
        Fragment::Literal { bytes, .. } => (bytes, None),
    }
}

/// Shows part of a literal: only of a message that is uploaded more than its size, if at all. In a command that deltapush does
/// not know, such as a mistyped LOGIN, it may be a password.
fn show_literal(out: &mut impl Output, verb: Verb, bytes: &[u8]) {
    let Some(transcript) = out.transcript() else { return };
    let piece = if verb == Verb::Append { Piece::Literal(bytes) } else { Piece::Masked(bytes.len()) };
    transcript.piece(Speaker::Client, Mark::Relayed, piece);
}
