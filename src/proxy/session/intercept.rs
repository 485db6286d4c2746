//! Commands that deltapush answers itself, alone or together with the upstream, and commands that must not cross a relay.

use super::pending::{Pending, PendingReply, RequestedEntry};
use super::{ClientState, CompressionState, RequestOutcome, Session, SessionAction, UpstreamState};
use crate::machine::Actions;
use crate::parser::command::{self, Disclosure, Verb, compress_mechanism};
use crate::parser::metadata;
use crate::parser::response::{self, Condition};
use crate::policy::JmapAccess;
use crate::proxy::own_lines;
use crate::push::registry::AccountsFull;
use crate::trace::{Mark, Piece, Speaker, Transcript, show_metadata};

/// Reports if a command with this verb is refused as soon as that is known: logins after the login, commands that cannot
/// cross a relay, and lines that are no commands, which servers read differently.
pub(super) fn refuses(verb: Verb) -> bool {
    use Verb::{Authenticate, Login, Malformed, Referral, StartTls, Unauthenticate};
    matches!(verb, Authenticate | Login | Malformed | Referral | StartTls | Unauthenticate)
}

impl Session {
    /// Reports if deltapush answers `verb`, rather than the upstream alone.
    pub(super) fn answers(&self, verb: Verb) -> bool {
        match verb {
            Verb::GetMetadata | Verb::SetMetadata => self.has_tokens(),
            Verb::Compress | Verb::Id => true,
            Verb::GetJmapAccess => self.settings.jmapaccess == JmapAccess::Strip,
            Verb::Logout => self.keeping.is_some(),
            _ => false,
        }
    }

    /// Answers a whole command. `cuts` are the ends of its synchronizing literals' announcements.
    pub(super) fn answer(
        &mut self,
        command: Vec<u8>,
        cuts: Vec<usize>,
        out: &mut impl Actions<Session>,
    ) {
        self.show_gathered(&command, out);
        match self.client.verb {
            Verb::GetMetadata => self.answer_get(command, cuts, out),
            Verb::SetMetadata => self.answer_set(&command, &cuts, out),
            Verb::Compress => self.answer_compress(&command, out),
            Verb::GetJmapAccess => self.reply(own_lines::NO_JMAP, out),
            Verb::Id => self.answer_id(&command, &cuts, out),
            Verb::Logout if !command::has_no_arguments(&command) => {
                self.reply(own_lines::LOGOUT_SYNTAX, out)
            }
            Verb::Logout => self.answer_logout(out),
            _ => self.refuse(out),
        }
    }

    /// Refuses a command that was discarded.
    pub(super) fn refuse(&mut self, out: &mut impl Actions<Session>) {
        match self.client.verb {
            Verb::Malformed => self.reply(own_lines::NOT_A_COMMAND, out),
            Verb::Authenticate | Verb::Login => self.reply(own_lines::LOGGED_IN, out),
            Verb::StartTls => self.reply(own_lines::LATE_STARTTLS, out),
            // With a literal, of which the size is of no importance.
            Verb::Noop
            | Verb::Capability
            | Verb::Close
            | Verb::Idle
            | Verb::Logout
            | Verb::Other
            | Verb::Unselect => {
                self.reply(own_lines::NO_LITERAL, out);
            }
            Verb::Referral | Verb::Unauthenticate => self.reply(own_lines::NOT_AVAILABLE, out),
            Verb::SetMetadata => self.reply(own_lines::VALUE_TOO_LONG, out),
            _ => self.reply(own_lines::COMMAND_TOO_LONG, out),
        }
    }

    /// Ends the client's current command with `text`: condition, code and words.
    pub(super) fn reply(&mut self, text: &str, out: &mut impl Actions<Session>) {
        let tag = if self.client.tag.is_empty() { b"*" } else { self.client.tag.as_slice() };
        let line = [tag, b" ".as_slice(), text.as_bytes(), b"\r\n"].concat();
        self.send_own(out, &line);
    }

    /// `COMPRESS` (RFC 4978 section 3). It ends here: the upstream never hears of it.
    fn answer_compress(&mut self, command: &[u8], out: &mut impl Actions<Session>) {
        match compress_mechanism(command) {
            None => self.reply(own_lines::COMPRESS_SYNTAX, out),
            Some(name) if !name.eq_ignore_ascii_case(b"DEFLATE") => {
                self.reply(own_lines::ONLY_DEFLATE, out);
            }
            Some(_) if self.compression != CompressionState::Off => {
                self.reply(own_lines::COMPRESSED, out);
            }
            Some(_) => {
                self.reply("OK compression begins now", out);
                self.compression = CompressionState::Accepted;
                if self.own.is_empty() {
                    self.compress(out);
                }
            }
        }
    }

    /// Everything after the OK is compressed.
    pub(super) fn compress(&mut self, out: &mut impl Actions<Session>) {
        self.compression = CompressionState::On;
        out.push(SessionAction::Compress);
    }

    /// Sends a gathered command upstream. It is cut where the upstream has to agree before a literal follows.
    pub(super) fn replay(
        &mut self,
        command: &[u8],
        cuts: &[usize],
        out: &mut impl Actions<Session>,
    ) {
        if cuts.is_empty() {
            self.keeping_replayed();
            return self.send_upstream(command, out);
        }
        self.client.held = command.to_vec();
        self.client.cuts = cuts.to_vec();
        self.client.state = ClientState::Replaying;
        if !self.pending.iter().any(|pending| pending.tag() == self.client.tag) {
            self.pending.push_back(Pending::Replay { tag: self.client.tag.clone() });
        }
        self.replay_next(out);
    }

    /// Sends the next piece of a command that is replayed.
    pub(super) fn replay_next(&mut self, out: &mut impl Actions<Session>) {
        if self.client.cuts.is_empty() {
            self.client.state = ClientState::Head;
            let rest = std::mem::take(&mut self.client.held);
            self.keeping_replayed();
            return self.send_upstream(&rest, out);
        }
        let cut = self.client.cuts.remove(0).min(self.client.held.len());
        let rest = self.client.held.split_off(cut);
        let piece = std::mem::replace(&mut self.client.held, rest);
        for cut_after in &mut self.client.cuts {
            *cut_after = cut_after.saturating_sub(cut);
        }
        self.send_upstream(&piece, out);
    }

    fn send_upstream(&mut self, bytes: &[u8], out: &mut impl Actions<Self>) {
        if let Some(mut transcript) = self.transcript(out) {
            match self.client.verb {
                Verb::Id => transcript.lines(Speaker::ToUpstream, Mark::Changed, bytes),
                Verb::GetMetadata if self.client.state != ClientState::Replaying => {
                    transcript.lines(Speaker::ToUpstream, Mark::Own, bytes);
                }
                _ => {
                    let len = bytes.trim_ascii_end().len();
                    transcript.piece(Speaker::ToUpstream, Mark::Own, Piece::Masked(len));
                    transcript.piece(Speaker::ToUpstream, Mark::Own, Piece::Text(b"\r\n"));
                }
            }
        }
        out.push(SessionAction::ToUpstream(bytes));
    }

    /// The upstream ended a command in which deltapush has a part.
    pub(super) fn end_pending(&mut self, line: &[u8], out: &mut impl Actions<Session>) {
        let status = response::status(line);
        let tag = status.and_then(|status| status.tag).unwrap_or_default();
        let index = self.pending.iter().position(|pending| pending.tag() == tag);
        let succeeded = status.is_some_and(|status| status.condition == Condition::Ok);
        match index.and_then(|index| self.pending.remove(index)) {
            Some(Pending::Get { tag, wanted, mailbox, unknown }) => {
                if !succeeded {
                    // Delta Chat starts its connection over if this command fails: deltapush answers alone.
                    self.send_values(&mailbox, &unknown, &wanted, out);
                    return self.send_own(
                        out,
                        &[&tag, b" OK GETMETADATA completed\r\n".as_slice()].concat(),
                    );
                }
                let missing: Vec<RequestedEntry> =
                    wanted.into_iter().filter(|wanted| !wanted.answered).collect();
                if !missing.is_empty() {
                    self.send_values(&mailbox, &[], &missing, out);
                }
                self.pass_on(line, out);
            }
            Some(Pending::Set { tag, request }) if succeeded => {
                self.requests.push_back(PendingReply { tag, success: Some(line.to_vec()) });
                out.push(SessionAction::Request(&request));
            }
            _ => self.pass_on(line, out),
        }
    }

    /// The upstream ends a command with a line that is too long to be looked at.
    pub(super) fn forget_pending(&mut self, start: &[u8]) {
        if let Some(response::ResponseHead::Tagged { tag, .. }) = response::head(start) {
            self.pending.retain(|pending| pending.tag() != tag);
        }
    }

    fn pass_on(&mut self, line: &[u8], out: &mut impl Actions<Session>) {
        debug_assert_eq!(self.server.state, UpstreamState::Head, "a tagged line is complete");
        self.hand_on(line, out);
    }

    /// The oldest request was done, or not, and the client may hear so.
    pub(super) fn request_done(&mut self, outcome: RequestOutcome, out: &mut impl Actions<Self>) {
        let Some(PendingReply { tag, success }) = self.requests.pop_front() else { return };
        let own = match outcome {
            RequestOutcome::Done => "OK SETMETADATA completed",
            RequestOutcome::Refused(AccountsFull::InAll) => own_lines::NO_MORE_ACCOUNTS,
            RequestOutcome::Refused(AccountsFull::Address) => own_lines::TOO_MANY_NEW_ACCOUNTS,
            RequestOutcome::Refused(AccountsFull::Upstream) => own_lines::NO_MORE_AT_UPSTREAM,
            RequestOutcome::Failed => own_lines::NOT_STORED,
        };
        match success.filter(|_| own.starts_with("OK")) {
            Some(line) => self.send_own(out, &line),
            None => self.send_own(out, &[&tag, format!(" {own}\r\n").as_bytes()].concat()),
        }
        self.end_logout(out);
    }

    /// Shows a command that is kept from the upstream, as far as it may be shown.
    fn show_gathered(&self, command: &[u8], out: &mut impl Actions<Self>) {
        let Some(mut transcript) = self.transcript(out) else { return };
        let Some(head) = command::head(command) else { return };
        let disclosure = head.disclosure(command);
        let (shown, arguments) = command.split_at_checked(head.len).unwrap_or((&[], command));
        transcript.piece(Speaker::Client, Mark::Kept, Piece::Text(shown));
        let text = arguments.trim_ascii_end();
        if disclosure == Disclosure::All {
            transcript.piece(Speaker::Client, Mark::Kept, Piece::Text(text));
        } else if let Some(set) = metadata::set(command) {
            show_metadata(&mut transcript, Speaker::Client, Mark::Kept, &set.mailbox, &set.entries);
        } else {
            transcript.piece(Speaker::Client, Mark::Kept, Piece::Masked(text.len()));
        }
        transcript.piece(Speaker::Client, Mark::Kept, Piece::Text(b"\r\n"));
    }
}
