//! Upstream to client: relays data as it comes, and holds a response until its end where deltapush has a part in it.

use super::pending::Pending;
use super::run::ByteRun;
use super::{
    ClientState, CompressionState, Held, Session, SessionAction, Shape, UpstreamState, UsedInput,
};
use crate::machine::Actions;
use crate::parser::data;
use crate::parser::framer::{Fragment, LineEnd};
use crate::parser::response::{self, CodeKind, Condition, ResponseHead};
use crate::proxy::own_lines::{self, untagged};
use crate::trace::{Mark, Piece, Speaker, Transcript};

/// The path of a response, known from its head.
#[derive(Debug, Clone, Copy)]
enum ResponsePath {
    Pass(Shape),
    Hold(Shape, Held),
    Drop,
}

const STATUS: Shape = Shape { literals: false, secret: false };
const DATA: Shape = Shape { literals: true, secret: false };
const SECRET_DATA: Shape = Shape { literals: true, secret: true };

impl Session {
    /// Takes bytes from the upstream.
    #[inline(never)]
    pub(super) fn take_upstream(
        &mut self,
        input: &[u8],
        pieces: usize,
        out: &mut impl Actions<Self>,
    ) -> UsedInput {
        let mut run = ByteRun::new(input);
        let mut rest = input;
        let mut left = pieces;
        while left > 0 && !rest.is_empty() && !self.is_over() {
            let Some((fragment, after)) = self.server.framer.next(rest) else { break };
            rest = after;
            left = left.saturating_sub(1);
            match self.server.state {
                UpstreamState::Head => self.begin_response(fragment, &mut run, out),
                UpstreamState::Passing(shape) => self.pass(fragment, shape, &mut run, out),
                UpstreamState::Holding(shape, why) => {
                    self.hold(fragment, shape, why, &mut run, out)
                }
                UpstreamState::Dropping => self.drop_more(fragment, &mut run, out),
            }
        }
        out.push(SessionAction::ToClient(run.take()));
        if self.is_over() {
            self.keep_unread(rest);
            rest = &[];
        }
        let bytes = input.len().saturating_sub(rest.len());
        UsedInput { bytes, pieces_left: left }
    }

    /// The upstream closed the connection, or it broke. The client hears of it, unless a BYE went by or half a response did.
    pub(super) fn upstream_closed(&mut self, out: &mut impl Actions<Session>) {
        if !self.server.said_bye && !self.is_within_response() {
            self.server.said_bye = true;
            self.send_own_now(out, untagged(own_lines::UPSTREAM_CLOSED).as_bytes());
        }
    }

    /// Ends the session toward the client with a BYE of deltapush's own.
    pub(super) fn close(&mut self, bye: &str, out: &mut impl Actions<Session>) {
        // Behind the OK of a COMPRESS it would have to be compressed.
        if !self.server.said_bye && self.compression != CompressionState::Accepted {
            self.server.said_bye = true;
            self.send_own(out, untagged(bye).as_bytes());
        }
        self.closed = true;
    }

    /// The first bytes of a response, or more of them.
    fn begin_response<'a>(
        &mut self,
        fragment: Fragment<'a>,
        run: &mut ByteRun<'a>,
        out: &mut impl Actions<Session>,
    ) {
        let Fragment::Line { bytes, end } = fragment else { return };
        let split = !self.server.held.is_empty();
        if split {
            self.server.held.extend_from_slice(bytes);
        }
        let held = std::mem::take(&mut self.server.held);
        let start = if split { held.as_slice() } else { bytes };
        let Some(head) = response::head(start) else {
            self.server.held = if split { held } else { bytes.to_vec() };
            return out.push(SessionAction::ToClient(run.skip(bytes.len())));
        };
        match self.way(head, out) {
            ResponsePath::Pass(shape) => {
                self.server.has_news |= shape == DATA && data::is_exists(start);
                self.show(out, Speaker::ToClient, Mark::Relayed, start, shape.secret);
                self.begin_observed(start);
                self.extend_observed(start, || ends_response(end, shape), out);
                if let Some(observer) = &mut self.prefetches {
                    observer.begin_response(start);
                    observer.more_of_response(start, || ends_response(end, shape));
                }
                if split {
                    out.push(SessionAction::ToClient(run.skip(bytes.len())));
                    out.push(SessionAction::ToClient(&held));
                } else {
                    run.extend(bytes.len());
                }
                self.server.state = UpstreamState::Passing(shape);
                self.passed_line_end(end, shape, run, out);
            }
            ResponsePath::Hold(shape, why) => {
                out.push(SessionAction::ToClient(run.skip(bytes.len())));
                self.server.held = if split { held } else { bytes.to_vec() };
                self.server.state = UpstreamState::Holding(shape, why);
                self.held_more(end, shape, why, out);
            }
            ResponsePath::Drop => {
                self.server.state = UpstreamState::Dropping;
                self.drop_more(fragment, run, out);
            }
        }
    }

    /// More of a line that the client does not get.
    fn drop_more<'a>(
        &mut self,
        fragment: Fragment<'a>,
        run: &mut ByteRun<'a>,
        out: &mut impl Actions<Session>,
    ) {
        out.push(SessionAction::ToClient(run.skip(fragment.bytes().len())));
        self.show(out, Speaker::Upstream, Mark::Kept, fragment.bytes(), true);
        if matches!(fragment, Fragment::Line { end: Some(_), .. }) {
            self.server.state = UpstreamState::Head;
            self.send_waiting(out);
            self.end_logout(out);
        }
    }

    /// More of a response that is handed on.
    fn pass<'a>(
        &mut self,
        fragment: Fragment<'a>,
        shape: Shape,
        run: &mut ByteRun<'a>,
        out: &mut impl Actions<Session>,
    ) {
        run.extend(fragment.bytes().len());
        match fragment {
            Fragment::Line { bytes, end } => {
                self.show(out, Speaker::ToClient, Mark::Relayed, bytes, shape.secret);
                self.extend_observed(bytes, || ends_response(end, shape), out);
                if let Some(observer) = &mut self.prefetches {
                    observer.more_of_response(bytes, || ends_response(end, shape));
                }
                self.passed_line_end(end, shape, run, out);
            }
            Fragment::Literal { bytes, .. } => {
                self.extend_observed(bytes, || false, out);
                if let Some(observer) = &mut self.prefetches {
                    observer.more_of_response(bytes, || false);
                }
                if let Some(mut transcript) = self.transcript(out) {
                    let piece = if shape.secret {
                        Piece::Masked(bytes.len())
                    } else {
                        Piece::Literal(bytes)
                    };
                    transcript.piece(Speaker::ToClient, Mark::Relayed, piece);
                }
            }
        }
    }

    fn passed_line_end(
        &mut self,
        end: Option<LineEnd>,
        shape: Shape,
        run: &mut ByteRun<'_>,
        out: &mut impl Actions<Session>,
    ) {
        match end {
            None => {}
            Some(LineEnd::Literal(announced)) if shape.literals => {
                self.server.framer.begin_literal(announced.size)
            }
            Some(_) => {
                self.server.state = UpstreamState::Head;
                if !self.own.is_empty() || self.is_logout_due() {
                    out.push(SessionAction::ToClient(run.take()));
                    self.send_waiting(out);
                    self.end_logout(out);
                }
            }
        }
    }

    /// More of a response that is held.
    fn hold<'a>(
        &mut self,
        fragment: Fragment<'a>,
        shape: Shape,
        why: Held,
        run: &mut ByteRun<'a>,
        out: &mut impl Actions<Session>,
    ) {
        let bytes = fragment.bytes();
        out.push(SessionAction::ToClient(run.skip(bytes.len())));
        self.server.held.extend_from_slice(bytes);
        let end = if let Fragment::Line { end, .. } = fragment { end } else { None };
        self.held_more(end, shape, why, out);
    }

    /// More of a response was held: is it complete, or too long?
    fn held_more(
        &mut self,
        end: Option<LineEnd>,
        shape: Shape,
        why: Held,
        out: &mut impl Actions<Session>,
    ) {
        if self.server.held.len() <= self.settings.max_response {
            return self.held_line_end(end, shape, why, out);
        }
        // Longer than anything that deltapush would change: it goes on as it is.
        let held = std::mem::take(&mut self.server.held);
        if why == Held::End {
            self.forget_pending(&held);
        }
        self.show(out, Speaker::ToClient, Mark::Relayed, &held, true);
        out.push(SessionAction::ToClient(&held));
        self.server.state = UpstreamState::Passing(Shape { secret: true, ..shape });
        self.passed_line_end(end, shape, &mut ByteRun::new(&[]), out);
    }

    fn held_line_end(
        &mut self,
        end: Option<LineEnd>,
        shape: Shape,
        why: Held,
        out: &mut impl Actions<Session>,
    ) {
        match end {
            None => {}
            Some(LineEnd::Literal(announced)) if shape.literals => {
                self.server.framer.begin_literal(announced.size)
            }
            Some(_) => {
                let held = std::mem::take(&mut self.server.held);
                self.server.state = UpstreamState::Head;
                self.release(&held, why, out);
                self.send_waiting(out);
                self.end_logout(out);
            }
        }
    }

    /// A held response is complete.
    fn release(&mut self, held: &[u8], why: Held, out: &mut impl Actions<Session>) {
        match why {
            Held::Capabilities => {
                if let Some(names) = response::capabilities(held) {
                    self.upstream.learn(names);
                }
                match self.rewrite(held) {
                    Some(changed) => self.hand_on_changed(held, &changed, out),
                    None => self.hand_on_unchanged(held, out),
                }
            }
            Held::Referral => self.hand_on(held, out),
            Held::MailboxCode => self.release_mailbox_code(held, out),
            Held::Ok => self.release_ok(held, out),
            Held::Metadata => match self.fill_in(held) {
                Some(changed) => self.hand_on_changed(held, &changed, out),
                None => {
                    self.show(out, Speaker::ToClient, Mark::Relayed, held, true);
                    out.push(SessionAction::ToClient(held));
                }
            },
            Held::End => self.end_pending(held, out),
        }
    }

    pub(super) fn hand_on_unchanged(&mut self, line: &[u8], out: &mut impl Actions<Session>) {
        self.show(out, Speaker::ToClient, Mark::Relayed, line, false);
        out.push(SessionAction::ToClient(line));
    }

    pub(super) fn hand_on_changed(
        &mut self,
        was: &[u8],
        changed: &[u8],
        out: &mut impl Actions<Session>,
    ) {
        if let Some(mut transcript) = self.transcript(out) {
            transcript.response(Speaker::Upstream, Mark::Replaced, was);
            transcript.response(Speaker::ToClient, Mark::Changed, changed);
        }
        out.push(SessionAction::ToClient(changed));
    }

    /// The path of a response that begins so; updates the meaning of the client's next bytes.
    fn way(&mut self, head: ResponseHead<'_>, out: &mut impl Actions<Session>) -> ResponsePath {
        match head {
            ResponseHead::Continuation => self.continuation(out),
            ResponseHead::TaggedContinuation { tag } if tag == self.client.tag => {
                self.continuation(out)
            }
            ResponseHead::TaggedContinuation { .. } => ResponsePath::Pass(STATUS),
            ResponseHead::Tagged { tag, condition, code } => {
                let is_pending = self.pending.iter().any(|pending| pending.tag() == tag);
                self.ended(tag);
                let opening = self.selection.answered(tag, condition == Condition::Ok);
                self.keeping_ended(tag, condition, opening, out);
                if let Some(observer) = &mut self.prefetches {
                    observer.ended(tag, condition);
                }
                if opening == Some(true) {
                    self.mailbox_opened(out);
                }
                match (is_pending, code) {
                    (true, _) => ResponsePath::Hold(STATUS, Held::End),
                    (false, CodeKind::Capability) => ResponsePath::Hold(STATUS, Held::Capabilities),
                    (false, CodeKind::Referral) => ResponsePath::Hold(STATUS, Held::Referral),
                    (false, CodeKind::Other) => ResponsePath::Pass(STATUS),
                }
            }
            ResponseHead::Status { condition, code } => {
                self.server.said_bye |= condition == Condition::Bye;
                match code {
                    CodeKind::Capability => ResponsePath::Hold(STATUS, Held::Capabilities),
                    CodeKind::Referral => ResponsePath::Hold(STATUS, Held::Referral),
                    CodeKind::Other if condition == Condition::Ok && self.absorbs_keepalives() => {
                        ResponsePath::Hold(STATUS, Held::Ok)
                    }
                    CodeKind::Other
                        if condition == Condition::Ok && self.selection.wants_codes() =>
                    {
                        ResponsePath::Hold(STATUS, Held::MailboxCode)
                    }
                    CodeKind::Other => ResponsePath::Pass(STATUS),
                }
            }
            ResponseHead::Capability => ResponsePath::Hold(STATUS, Held::Capabilities),
            ResponseHead::Metadata if self.pending.iter().any(Pending::is_get) => {
                ResponsePath::Hold(DATA, Held::Metadata)
            }
            // Values of a mailbox's entries may be tokens, and who asked for them is not known here.
            ResponseHead::Metadata => ResponsePath::Pass(SECRET_DATA),
            ResponseHead::Data => ResponsePath::Pass(DATA),
        }
    }

    /// An untagged OK in the answer to a client that opens a mailbox.
    #[cold]
    fn release_mailbox_code(&mut self, held: &[u8], out: &mut impl Actions<Session>) {
        self.selection.read_code(held);
        self.hand_on_unchanged(held, out);
    }

    /// The client has opened a mailbox: once in a session, mostly.
    #[cold]
    fn mailbox_opened(&mut self, out: &mut impl Actions<Session>) {
        if let Some(opened) = self.selection.opened() {
            out.push(SessionAction::Opened(&opened));
        }
        if self.visit.opened() {
            out.push(SessionAction::BackgroundFetch);
        }
    }

    /// `+`: more of the command may come.
    fn continuation(&mut self, out: &mut impl Actions<Session>) -> ResponsePath {
        match self.client.state {
            ClientState::AwaitingLiteral(size) => {
                self.client.framer.begin_literal(size);
                self.client.state = ClientState::Relaying;
            }
            // Perhaps late: after the client's patience.
            ClientState::AwaitingContinuation | ClientState::Continuing => {
                self.client.state = ClientState::Continuing;
                if let Some(mailbox) = self.selection.mailbox() {
                    out.push(SessionAction::IdlesIn(mailbox));
                }
            }
            ClientState::AwaitingAgreement(size) => {
                self.client.framer.begin_literal(size);
                self.client.state = ClientState::Relaying;
                return ResponsePath::Drop;
            }
            ClientState::Replaying => {
                self.replay_next(out);
                return ResponsePath::Drop;
            }
            _ => {}
        }
        ResponsePath::Pass(STATUS)
    }

    /// The command with this tag has ended: if the client's next bytes depended on it, they are a new command.
    fn ended(&mut self, tag: &[u8]) {
        use ClientState::{
            AwaitingAgreement, AwaitingContinuation, AwaitingLiteral, Continuing, Head, Replaying,
        };
        match self.client.state {
            AwaitingLiteral(_) | AwaitingContinuation | Replaying if self.client.tag == tag => {
                self.client.state = Head;
                self.client.held = Vec::new();
                self.client.cuts = Vec::new();
            }
            AwaitingAgreement(size) if self.client.tag == tag => {
                self.client.framer.begin_literal(size);
                self.client.state = ClientState::Discarding;
                self.client.is_answered = true;
            }
            // The held bytes are the beginning of the client's next line.
            Continuing if self.client.tag == tag => self.client.state = Head,
            _ => {}
        }
    }
}

/// Reports if a line that ends like this ends its response.
fn ends_response(end: Option<LineEnd>, shape: Shape) -> bool {
    match end {
        None => false,
        Some(LineEnd::Literal(_)) => !shape.literals,
        Some(LineEnd::Plain) => true,
    }
}
