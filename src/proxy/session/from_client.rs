//! Client to upstream: relay or gather, command by command.

use super::intercept::refuses;
use super::run::ByteRun;
use super::shown::show_in;
use super::{ClientState, MAX_SAID, Session, SessionAction, UsedInput};
use crate::machine::Actions;
use crate::parser::command::{self, Disclosure, Literals, Verb};
use crate::parser::framer::{Fragment, LineEnd};
use crate::trace::{Mark, Piece, Speaker, Transcript};

impl Session {
    /// Takes bytes from the client.
    #[inline(never)]
    pub(super) fn take_client(
        &mut self,
        input: &[u8],
        pieces: usize,
        out: &mut impl Actions<Self>,
    ) -> UsedInput {
        let mut run = ByteRun::new(input);
        let mut rest = input;
        if !std::mem::take(&mut self.is_resumed) {
            self.said = 0;
        }
        let compression = self.compression;
        let mut left = pieces;
        // Small questions have large answers: a few lines at a time, so that the client's pace is felt.
        while left > 0
            && !rest.is_empty()
            && self.takes_client_input()
            && self.said < MAX_SAID
            && self.compression == compression
        {
            let Some((fragment, after)) = self.client.framer.next(rest) else { break };
            rest = after;
            left = left.saturating_sub(1);
            match self.client.state {
                ClientState::Head => self.take_head(fragment, &mut run, out),
                ClientState::Relaying => self.take_relayed(fragment, &mut run, out),
                ClientState::Continuing => self.take_continuation(fragment, &mut run, out),
                ClientState::Gathering => self.take_gathered(fragment, &mut run, out),
                ClientState::Discarding => self.take_discarded(fragment, &mut run, out),
                // Not reached: `takes_client_input` is false in these.
                ClientState::AwaitingAccount
                | ClientState::AwaitingAgreement(_)
                | ClientState::AwaitingContinuation
                | ClientState::AwaitingLiteral(_)
                | ClientState::Replaying => break,
            }
        }
        out.push(SessionAction::ToUpstream(run.take()));
        self.end_logout(out);
        UsedInput { bytes: run.consumed(), pieces_left: left }
    }

    /// The first bytes of a command, or more of them.
    #[expect(
        clippy::inline_always,
        reason = "a rare second caller would keep it out of the loop: 5 % of a NOOP"
    )]
    #[inline(always)]
    fn take_head<'a>(
        &mut self,
        fragment: Fragment<'a>,
        run: &mut ByteRun<'a>,
        out: &mut impl Actions<Session>,
    ) {
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
            return out.push(SessionAction::ToUpstream(run.skip(bytes.len())));
        };
        self.client.verb = head.verb;
        self.client.tag.clear();
        self.client.tag.extend_from_slice(head.tag);
        let head_len = head.len;
        // In nearly all cases the line is at hand, and has no literal.
        let literals =
            if end == Some(LineEnd::Plain) { Literals::Data } else { head.literals(start) };
        let is_answered = self.answers(head.verb);
        let is_refused = refuses(head.verb) || literals == Literals::Misplaced && end.is_some();
        if literals != Literals::Data && end.is_none() && !is_answered && !is_refused {
            return self.hold_line(bytes, split, run, out);
        }
        self.client.shows_arguments = self.transcript(out).is_some_and(|mut transcript| {
            show_command(start, &head, is_refused, is_answered, &mut transcript)
        });
        if is_refused {
            return self.refuse_head(fragment, run, out);
        }
        if is_answered {
            out.push(SessionAction::ToUpstream(run.skip(bytes.len())));
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
                out.push(SessionAction::BackgroundFetch);
            }
            out.push(SessionAction::Fetches);
        }
        if let (Literals::Doubtful, Some(LineEnd::Literal(announced))) = (literals, end)
            && !announced.synchronizing
        {
            let line = synchronizing(start);
            self.client.held = Vec::new();
            out.push(SessionAction::ToUpstream(run.skip(bytes.len())));
            out.push(SessionAction::ToUpstream(&line));
            self.client.state = ClientState::AwaitingAgreement(announced.size);
            return;
        }
        if split {
            out.push(SessionAction::ToUpstream(run.skip(bytes.len())));
            out.push(SessionAction::ToUpstream(&std::mem::take(&mut self.client.held)));
        } else {
            run.extend(bytes.len());
        }
        self.relayed_line_end(end, out);
    }

    /// Holds a line until its end: with a literal there it is not relayed as it is.
    #[cold]
    fn hold_line<'a>(
        &mut self,
        bytes: &'a [u8],
        split: bool,
        run: &mut ByteRun<'a>,
        out: &mut impl Actions<Session>,
    ) {
        out.push(SessionAction::ToUpstream(run.skip(bytes.len())));
        if !split {
            self.client.held.extend_from_slice(bytes);
        }
        if self.client.held.len() > self.settings.max_command {
            self.client.held = Vec::new();
            self.client.state = ClientState::Discarding;
        }
    }

    /// Begins to discard a command of which nothing is gathered or relayed, and for the literal of which nobody is asked.
    #[cold]
    fn refuse_head<'a>(
        &mut self,
        fragment: Fragment<'a>,
        run: &mut ByteRun<'a>,
        out: &mut impl Actions<Session>,
    ) {
        let (bytes, end) = line_of(fragment);
        out.push(SessionAction::ToUpstream(run.skip(bytes.len())));
        self.client.held = Vec::new();
        self.client.state = ClientState::Discarding;
        if let Some(end) = end {
            self.discard_from(end, out);
        }
    }

    /// More of a command that is relayed.
    fn take_relayed<'a>(
        &mut self,
        fragment: Fragment<'a>,
        run: &mut ByteRun<'a>,
        out: &mut impl Actions<Session>,
    ) {
        run.extend(fragment.bytes().len());
        self.selection.go_on(fragment.bytes());
        match fragment {
            Fragment::Line { bytes, end } => {
                if let Some(keeping) = &mut self.keeping {
                    keeping.extend(bytes);
                }
                if let Some(observer) = &mut self.prefetches {
                    observer.more(bytes);
                }
                self.show(out, Speaker::Client, Mark::Relayed, bytes, !self.client.shows_arguments);
                self.relayed_line_end(end, out);
            }
            Fragment::Literal { bytes, .. } => self.show_literal(out, bytes),
        }
    }

    /// Follows the end of a relayed line: it decides the meaning of the next bytes.
    fn relayed_line_end(&mut self, end: Option<LineEnd>, out: &mut impl Actions<Session>) {
        self.client.state = match end {
            None => ClientState::Relaying,
            Some(LineEnd::Literal(announced)) if announced.synchronizing => {
                ClientState::AwaitingLiteral(announced.size)
            }
            Some(LineEnd::Literal(announced)) => {
                self.client.framer.begin_literal(announced.size);
                ClientState::Relaying
            }
            Some(LineEnd::Plain) if self.client.verb == Verb::Idle => {
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
    }

    /// A line within IDLE, which DONE ends. Servers differ in what they make of another line: it is taken for a command, with a
    /// DONE before it, so that none reaches the upstream unread.
    fn take_continuation<'a>(
        &mut self,
        fragment: Fragment<'a>,
        run: &mut ByteRun<'a>,
        out: &mut impl Actions<Session>,
    ) {
        let (bytes, end) = line_of(fragment);
        let split = !self.client.held.is_empty();
        let line = [&self.client.held, bytes].concat();
        if end.is_none() && is_beginning_of_done(&line) {
            out.push(SessionAction::ToUpstream(run.skip(bytes.len())));
            self.client.held = line;
            return;
        }
        self.client.state = ClientState::Head;
        if !line.trim_ascii_end().eq_ignore_ascii_case(DONE) {
            return self.end_idle_and_take(fragment, run, out);
        }
        self.show(out, Speaker::Client, Mark::Relayed, &line, false);
        if split {
            out.push(SessionAction::ToUpstream(run.skip(bytes.len())));
            out.push(SessionAction::ToUpstream(&std::mem::take(&mut self.client.held)));
            out.push(SessionAction::ToUpstream(bytes));
        } else {
            run.extend(bytes.len());
        }
    }

    /// A command where DONE should be.
    #[cold]
    fn end_idle_and_take<'a>(
        &mut self,
        fragment: Fragment<'a>,
        run: &mut ByteRun<'a>,
        out: &mut impl Actions<Session>,
    ) {
        out.push(SessionAction::ToUpstream(run.take()));
        self.show(out, Speaker::ToUpstream, Mark::Own, b"DONE\r\n", false);
        out.push(SessionAction::ToUpstream(b"DONE\r\n"));
        self.take_head(fragment, run, out);
    }

    /// More of a command that deltapush answers.
    fn take_gathered<'a>(
        &mut self,
        fragment: Fragment<'a>,
        run: &mut ByteRun<'a>,
        out: &mut impl Actions<Session>,
    ) {
        let bytes = fragment.bytes();
        out.push(SessionAction::ToUpstream(run.skip(bytes.len())));
        self.client.held.extend_from_slice(bytes);
        let end = if let Fragment::Line { end, .. } = fragment { end } else { None };
        self.gathered_more(end, out);
    }

    /// More of a command was gathered, perhaps up to a line's end: is it complete, or too long?
    fn gathered_more(&mut self, end: Option<LineEnd>, out: &mut impl Actions<Session>) {
        if self.client.held.len() <= self.settings.max_command {
            return self.gathered_line_end(end, out);
        }
        self.client.held = Vec::new();
        self.client.state = ClientState::Discarding;
        if let Some(end) = end {
            self.discard_from(end, out);
        }
    }

    fn gathered_line_end(&mut self, end: Option<LineEnd>, out: &mut impl Actions<Session>) {
        match end {
            None => {}
            Some(LineEnd::Plain) => {
                self.client.state = ClientState::Head;
                let command = std::mem::take(&mut self.client.held);
                let cuts = std::mem::take(&mut self.client.cuts);
                self.answer(command, cuts, out);
            }
            Some(LineEnd::Literal(announced)) => {
                let room = self.settings.max_command.saturating_sub(self.client.held.len());
                if announced.size > room as u64 {
                    self.client.held = Vec::new();
                    return self.discard_from(LineEnd::Literal(announced), out);
                }
                if announced.synchronizing {
                    self.client.cuts.push(self.client.held.len());
                    self.send_own(out, b"+ OK\r\n");
                }
                self.client.framer.begin_literal(announced.size);
            }
        }
    }

    /// More of a command that went over its limit.
    fn take_discarded<'a>(
        &mut self,
        fragment: Fragment<'a>,
        run: &mut ByteRun<'a>,
        out: &mut impl Actions<Session>,
    ) {
        out.push(SessionAction::ToUpstream(run.skip(fragment.bytes().len())));
        if let Fragment::Line { end: Some(end), .. } = fragment {
            self.discard_from(end, out);
        }
    }

    /// Goes on after the end of a line of a command that is too long: past a literal that is on its way in any case, or to
    /// the answer.
    fn discard_from(&mut self, end: LineEnd, out: &mut impl Actions<Session>) {
        match end {
            LineEnd::Literal(announced) if !announced.synchronizing => {
                self.client.framer.begin_literal(announced.size);
                self.client.state = ClientState::Discarding;
            }
            LineEnd::Literal(_) | LineEnd::Plain => {
                self.client.cuts = Vec::new();
                self.client.state = ClientState::Head;
                if !std::mem::take(&mut self.client.is_answered) {
                    self.refuse(out);
                }
            }
        }
    }

    /// Shows part of a literal: only of a message that is uploaded more than its size, if at all. In a command that deltapush
    /// does not know, such as a mistyped LOGIN, it may be a password.
    fn show_literal(&self, out: &mut impl Actions<Self>, bytes: &[u8]) {
        let Some(mut transcript) = self.transcript(out) else { return };
        let piece = if self.client.verb == Verb::Append {
            Piece::Literal(bytes)
        } else {
            Piece::Masked(bytes.len())
        };
        transcript.piece(Speaker::Client, Mark::Relayed, piece);
    }
}

/// A line that ends with the announcement of a literal that does not wait, as one that does (RFC 7888).
fn synchronizing(line: &[u8]) -> Vec<u8> {
    let announced = line.trim_ascii_end().strip_suffix(b"+}").unwrap_or(line);
    [announced, b"}\r\n"].concat()
}

/// Reports if a command that begins with `start` asks for messages. In doubt it does not.
fn is_fetch(verb: Verb, start: &[u8], head_len: usize) -> bool {
    let begins_with_fetch = || {
        start
            .get(head_len..)
            .and_then(|rest| rest.get(..7))
            .is_some_and(|word| word.eq_ignore_ascii_case(b" FETCH "))
    };
    verb == Verb::Fetch || verb == Verb::Uid && begins_with_fetch()
}

/// The line that ends IDLE (RFC 2177).
const DONE: &[u8] = b"DONE";

/// Spaces and a carriage return that may follow it before the line's end.
const MAX_AFTER_DONE: usize = 12;

/// Reports if a line that begins so may become DONE.
fn is_beginning_of_done(line: &[u8]) -> bool {
    let (word, after) = line.split_at_checked(DONE.len()).unwrap_or((line, &[]));
    let is_word = DONE.get(..word.len()).is_some_and(|done| done.eq_ignore_ascii_case(word));
    is_word && after.len() <= MAX_AFTER_DONE && after.trim_ascii().is_empty()
}

/// Shows the beginning of a command, as far as it may be shown. Returns whether the rest of it may be. One that is gathered is
/// shown when it is complete.
#[cold]
fn show_command(
    start: &[u8],
    head: &command::CommandHead<'_>,
    is_refused: bool,
    is_answered: bool,
    transcript: &mut dyn Transcript,
) -> bool {
    let disclosure = head.disclosure(start);
    transcript.command(head.tag, disclosure);
    let shown = if disclosure == Disclosure::Nothing { 0 } else { head.len };
    let (shown, arguments) = start.split_at_checked(shown).unwrap_or((&[], start));
    match (is_refused, is_answered) {
        (true, _) => {
            transcript.piece(Speaker::Client, Mark::Kept, Piece::Text(shown));
            transcript.piece(
                Speaker::Client,
                Mark::Kept,
                Piece::Masked(arguments.trim_ascii_end().len()),
            );
            transcript.piece(Speaker::Client, Mark::Kept, Piece::Text(b"\r\n"));
        }
        (false, false) => {
            transcript.piece(Speaker::Client, Mark::Relayed, Piece::Text(shown));
            show_in(
                transcript,
                Speaker::Client,
                Mark::Relayed,
                arguments,
                disclosure != Disclosure::All,
            );
        }
        (false, true) => {}
    }
    disclosure == Disclosure::All
}

fn line_of(fragment: Fragment<'_>) -> (&[u8], Option<LineEnd>) {
    match fragment {
        Fragment::Line { bytes, end } => (bytes, end),
        // A literal begins only when `begin_literal` was called, which no state that takes lines alone does.
        Fragment::Literal { bytes, .. } => (bytes, None),
    }
}
