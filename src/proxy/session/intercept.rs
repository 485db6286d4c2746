//! Commands that deltapush answers itself, alone or together with the upstream: METADATA (RFC 5464), and commands that
//! must not cross a relay.

use std::borrow::Cow;

use super::{
    ClientState, CompressionState, Output, Request, RequestOutcome, Session, UpstreamState,
};
use crate::parser::command::{self, Disclosure, Verb, compress_mechanism};
use crate::parser::metadata::{self, Get, Pair, SetMetadataCommand, Values, is_inbox, is_within};
use crate::parser::quote::{is_quotable, push_quoted};
use crate::parser::response::{self, Condition};
use crate::policy::JmapAccess;
use crate::proxy::own_lines;
use crate::push::registry::AccountsFull;
use crate::secret::{DeviceToken, TokenError};
use crate::trace::{Mark, Piece, Speaker, show_metadata};

/// The entry that a client sets to its device token, on its INBOX.
const DEVICE_TOKEN: &[u8] = b"/private/devicetoken";

/// The server's comment, which a client shows to its owner.
const COMMENT: &[u8] = b"/shared/comment";

/// Between a comment and how push is.
const AND: &[u8] = b" | ";

/// A command that went upstream and of whose answer deltapush has a part.
pub(super) enum Pending {
    /// A `GETMETADATA`: values are filled in where the upstream has none.
    /// `unknown` is what was asked for and deltapush does not know.
    Get { tag: Vec<u8>, wanted: Vec<RequestedEntry>, mailbox: Vec<u8>, unknown: Vec<Vec<u8>> },
    /// The rest of a `SETMETADATA` that had a token among its entries. The token is kept when the rest was accepted.
    Set { tag: Vec<u8>, request: Request },
    /// A command that is replayed, with nothing else to it.
    Replay { tag: Vec<u8> },
}

/// An entry that was asked for and that deltapush knows.
pub(super) struct RequestedEntry {
    entry: Vec<u8>,
    value: Vec<u8>,
    /// What is said behind the upstream's own value, if it has one.
    addition: Option<Vec<u8>>,
    /// The upstream has answered for it, or deltapush has.
    answered: bool,
}

impl Pending {
    pub(super) fn tag(&self) -> &[u8] {
        match self {
            Self::Get { tag, .. } | Self::Set { tag, .. } | Self::Replay { tag } => tag,
        }
    }

    pub(super) fn is_get(&self) -> bool {
        matches!(self, Self::Get { .. })
    }
}

/// What the client hears once a request was done.
pub(super) struct PendingReply {
    tag: Vec<u8>,
    /// The upstream's own `OK`, where it had a part.
    success: Option<Vec<u8>>,
}

/// Whether a command with this verb is refused as soon as that is known: logins, which are done, what cannot cross a relay, and
/// what is no command, of which each server may make another one.
pub(super) fn refuses(verb: Verb) -> bool {
    use Verb::{Authenticate, Login, Malformed, Referral, StartTls, Unauthenticate};
    matches!(verb, Authenticate | Login | Malformed | Referral | StartTls | Unauthenticate)
}

impl Session {
    /// Whether deltapush answers `verb`, rather than the upstream alone.
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
    pub(super) fn answer(&mut self, command: &[u8], cuts: &[usize], out: &mut impl Output) {
        show_command(command, out);
        match self.client.verb {
            Verb::GetMetadata => self.answer_get(command, cuts, out),
            Verb::SetMetadata => self.answer_set(command, cuts, out),
            Verb::Compress => self.answer_compress(command, out),
            Verb::GetJmapAccess => self.reply(own_lines::NO_JMAP, out),
            Verb::Id => self.answer_id(command, cuts, out),
            Verb::Logout if !command::has_no_arguments(command) => {
                self.reply(own_lines::LOGOUT_SYNTAX, out)
            }
            Verb::Logout => self.answer_logout(out),
            _ => self.refuse(out),
        }
    }

    /// Refuses a command that was discarded.
    pub(super) fn refuse(&mut self, out: &mut impl Output) {
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
    pub(super) fn reply(&mut self, text: &str, out: &mut impl Output) {
        let tag = if self.client.tag.is_empty() { b"*" } else { self.client.tag.as_slice() };
        let line = [tag, b" ".as_slice(), text.as_bytes(), b"\r\n"].concat();
        self.say(out, &line);
    }

    /// `COMPRESS` (RFC 4978 section 3). It ends here: the upstream never hears of it.
    fn answer_compress(&mut self, command: &[u8], out: &mut impl Output) {
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

    /// What follows the OK is compressed.
    pub(super) fn compress(&mut self, out: &mut impl Output) {
        self.compression = CompressionState::On;
        out.compress();
    }

    fn answer_get(&mut self, command: &[u8], cuts: &[usize], out: &mut impl Output) {
        self.visit.metadata();
        let Some(get) = metadata::get(command) else {
            return self.leave_to_upstream(command, cuts, out);
        };
        let known = self.known(&get, out);
        let is_known =
            |asked: &[u8]| known.iter().any(|wanted| is_within(&wanted.entry, asked, get.depth));
        let unknown = get
            .entries
            .iter()
            .filter(|asked| !is_known(asked))
            .map(|asked| asked.to_vec())
            .collect();
        let is_concerned = !known.is_empty();
        let (wanted, longest) = within_size(&get, known);
        if self.upstream.metadata {
            if is_concerned {
                let (tag, mailbox) = (self.client.tag.clone(), get.mailbox.to_vec());
                self.pending.push_back(Pending::Get { tag, wanted, mailbox, unknown });
            }
            return self.replay(command, cuts, out);
        }
        self.say_values(&get.mailbox, &unknown, &wanted, out);
        match longest {
            Some(longest) => {
                self.reply(&format!("OK [METADATA LONGENTRIES {longest}] completed"), out);
            }
            None => self.reply("OK GETMETADATA completed", out),
        }
    }

    /// The entries among those that `get` asks for that deltapush knows, with their values.
    fn known(&self, get: &Get<'_>, out: &impl Output) -> Vec<RequestedEntry> {
        let asked =
            |entry: &[u8]| get.entries.iter().any(|asked| is_within(entry, asked, get.depth));
        let wanted = |entry: &[u8], value: &[u8]| RequestedEntry {
            entry: entry.to_vec(),
            value: value.to_vec(),
            addition: None,
            answered: false,
        };
        if get.mailbox.is_empty() {
            let entries = self.settings.entries.iter().filter(|(entry, _)| asked(entry.as_bytes()));
            let mut known: Vec<RequestedEntry> =
                entries.map(|(entry, value)| wanted(entry.as_bytes(), value.as_bytes())).collect();
            if self.settings.push_status && asked(COMMENT) {
                comment(&mut known, get, out.push_status().into_bytes());
            }
            return known;
        }
        if !is_inbox(&get.mailbox) || !asked(DEVICE_TOKEN) {
            return vec![];
        }
        let tokens = out.tokens();
        let tokens: Vec<&str> = tokens.iter().map(DeviceToken::expose).collect();
        if tokens.is_empty() {
            vec![]
        } else {
            vec![wanted(DEVICE_TOKEN, tokens.join(" ").as_bytes())]
        }
    }

    /// Says the values in `wanted`, and NIL for what is `unknown`.
    fn say_values(
        &mut self,
        mailbox: &[u8],
        unknown: &[Vec<u8>],
        wanted: &[RequestedEntry],
        out: &mut impl Output,
    ) {
        if wanted.is_empty() && unknown.is_empty() {
            return;
        }
        let unknown = unknown.iter().map(|entry| (entry.into(), None));
        let known = wanted
            .iter()
            .map(|wanted| (wanted.entry.as_slice().into(), Some(wanted.value.as_slice().into())));
        let entries: Vec<Pair<'_>> = known.chain(unknown).collect();
        let values = Values { mailbox: mailbox.into(), entries };
        self.say(out, &values.to_bytes());
    }

    fn answer_set(&mut self, command: &[u8], cuts: &[usize], out: &mut impl Output) {
        self.visit.metadata();
        let Some(set) = metadata::set(command) else {
            return self.leave_to_upstream(command, cuts, out);
        };
        let is_token =
            |pair: &&Pair<'_>| is_inbox(&set.mailbox) && pair.0.eq_ignore_ascii_case(DEVICE_TOKEN);
        let Some((_, token)) = set.entries.iter().rfind(is_token) else {
            return self.leave_to_upstream(command, cuts, out);
        };
        let request = match token.as_deref().map(DeviceToken::new) {
            None => Request::RemoveTokens,
            Some(Ok(token)) => {
                self.observe_prefetches();
                Request::AddToken(token)
            }
            Some(Err(error)) => return self.refuse_token(error, out),
        };
        let others: Vec<&Pair<'_>> = set.entries.iter().filter(|pair| !is_token(pair)).collect();
        if others.is_empty() {
            self.requests.push_back(PendingReply { tag: self.client.tag.clone(), success: None });
            return out.request(request);
        }
        if !self.upstream.metadata {
            return self.reply(own_lines::ONLY_TOKEN, out);
        }
        let (command, cuts) = set_others(&self.client.tag, &set, &others);
        self.pending.push_back(Pending::Set { tag: self.client.tag.clone(), request });
        self.replay(&command, &cuts, out);
    }

    fn refuse_token(&mut self, error: TokenError, out: &mut impl Output) {
        let line = match error {
            TokenError::TooLong => own_lines::TOKEN_TOO_LONG,
            TokenError::NotPrintable => own_lines::NOT_A_TOKEN,
        };
        self.reply(line, out);
    }

    /// A metadata command in which deltapush has no part: the upstream's, if it knows the extension.
    fn leave_to_upstream(&mut self, command: &[u8], cuts: &[usize], out: &mut impl Output) {
        if self.upstream.metadata {
            return self.replay(command, cuts, out);
        }
        match self.client.verb {
            Verb::SetMetadata if metadata::set(command).is_some() => {
                self.reply(own_lines::ONLY_TOKEN, out);
            }
            _ => self.reply(own_lines::METADATA_SYNTAX, out),
        }
    }

    /// Sends a gathered command upstream. It is cut where the upstream has to agree before a literal follows.
    pub(super) fn replay(&mut self, command: &[u8], cuts: &[usize], out: &mut impl Output) {
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
    pub(super) fn replay_next(&mut self, out: &mut impl Output) {
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

    fn send_upstream(&mut self, bytes: &[u8], out: &mut impl Output) {
        if self.client.verb == Verb::Id {
            if let Some(transcript) = out.transcript() {
                transcript.lines(Speaker::ToUpstream, Mark::Changed, bytes);
            }
        } else if let Some(transcript) = out.transcript()
            && self.client.verb == Verb::GetMetadata
            && self.client.state != ClientState::Replaying
        {
            transcript.lines(Speaker::ToUpstream, Mark::Own, bytes);
        } else if let Some(transcript) = out.transcript() {
            let len = bytes.trim_ascii_end().len();
            transcript.piece(Speaker::ToUpstream, Mark::Own, Piece::Masked(len));
            transcript.piece(Speaker::ToUpstream, Mark::Own, Piece::Text(b"\r\n"));
        }
        out.to_upstream(bytes);
    }

    /// Fills the values that deltapush knows into a `* METADATA` response of the upstream; `None` if it stays as it is.
    pub(super) fn fill_in(&mut self, response: &[u8]) -> Option<Vec<u8>> {
        let values = metadata::values(response)?;
        let mut changed = false;
        let mut filled = Values { mailbox: values.mailbox.clone(), entries: vec![] };
        for (entry, theirs) in &values.entries {
            let mut value = None;
            for wanted in self
                .wanted(&values.mailbox)
                .filter(|wanted| wanted.entry.eq_ignore_ascii_case(entry))
            {
                wanted.answered = true;
                // Of two commands under way this answers one, and which is not known: it gets one value.
                value = value.or_else(|| match (theirs, &wanted.addition) {
                    (None, _) => Some(wanted.value.clone()),
                    (Some(theirs), Some(addition)) => Some([theirs, AND, addition].concat()),
                    (Some(_), None) => None,
                });
            }
            changed |= value.is_some();
            filled.entries.push((entry.clone(), value.map(Cow::Owned).or_else(|| theirs.clone())));
        }
        changed.then(|| filled.to_bytes())
    }

    fn wanted(&mut self, of: &[u8]) -> impl Iterator<Item = &mut RequestedEntry> {
        let gets = self.pending.iter_mut().filter_map(move |pending| match pending {
            Pending::Get { mailbox, wanted, .. }
                if mailbox == of || is_inbox(mailbox) && is_inbox(of) =>
            {
                Some(wanted)
            }
            _ => None,
        });
        gets.flatten()
    }

    /// The upstream ended a command in which deltapush has a part.
    pub(super) fn end_pending(&mut self, line: &[u8], out: &mut impl Output) {
        let status = response::status(line);
        let tag = status.and_then(|status| status.tag).unwrap_or_default();
        let index = self.pending.iter().position(|pending| pending.tag() == tag);
        let succeeded = status.is_some_and(|status| status.condition == Condition::Ok);
        match index.and_then(|index| self.pending.remove(index)) {
            Some(Pending::Get { tag, wanted, mailbox, unknown }) => {
                if !succeeded {
                    // Delta Chat starts its connection over if this command fails: deltapush answers alone.
                    self.say_values(&mailbox, &unknown, &wanted, out);
                    return self
                        .say(out, &[&tag, b" OK GETMETADATA completed\r\n".as_slice()].concat());
                }
                let missing: Vec<RequestedEntry> =
                    wanted.into_iter().filter(|wanted| !wanted.answered).collect();
                if !missing.is_empty() {
                    self.say_values(&mailbox, &[], &missing, out);
                }
                self.pass_on(line, out);
            }
            Some(Pending::Set { tag, request }) if succeeded => {
                self.requests.push_back(PendingReply { tag, success: Some(line.to_vec()) });
                out.request(request);
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

    fn pass_on(&mut self, line: &[u8], out: &mut impl Output) {
        debug_assert_eq!(self.server.state, UpstreamState::Head, "a tagged line is complete");
        self.hand_on(line, out);
    }

    /// The oldest request was done, or not, and the client may hear so.
    pub fn answered(&mut self, answer: impl Into<RequestOutcome>, out: &mut impl Output) {
        let Some(PendingReply { tag, success }) = self.requests.pop_front() else { return };
        let own = match answer.into() {
            RequestOutcome::Done => "OK SETMETADATA completed",
            RequestOutcome::Refused(AccountsFull::InAll) => own_lines::NO_MORE_ACCOUNTS,
            RequestOutcome::Refused(AccountsFull::Address) => own_lines::TOO_MANY_NEW_ACCOUNTS,
            RequestOutcome::Refused(AccountsFull::Upstream) => own_lines::NO_MORE_AT_UPSTREAM,
            RequestOutcome::Failed => own_lines::NOT_STORED,
        };
        match success.filter(|_| own.starts_with("OK")) {
            Some(line) => self.say(out, &line),
            None => self.say(out, &[&tag, format!(" {own}\r\n").as_bytes()].concat()),
        }
        self.end_logout(out);
    }
}

/// Says how push is behind the configured comment, if there is one, and behind the upstream's. What a client wants no longer than
/// so is not made longer.
fn comment(known: &mut Vec<RequestedEntry>, get: &Get<'_>, status: Vec<u8>) {
    let addition = get.max_size.is_none().then(|| status.clone());
    match known.iter_mut().find(|wanted| wanted.entry.eq_ignore_ascii_case(COMMENT)) {
        Some(configured) => {
            configured.value = [&configured.value, AND, &status].concat();
            configured.addition = addition;
        }
        None => known.insert(
            0,
            RequestedEntry { entry: COMMENT.to_vec(), value: status, addition, answered: false },
        ),
    }
}

/// Leaves out what is longer than the client wants, and says how long the longest of that is (RFC 5464 section 4.2.1).
fn within_size(get: &Get<'_>, known: Vec<RequestedEntry>) -> (Vec<RequestedEntry>, Option<usize>) {
    let Some(max) = get.max_size else { return (known, None) };
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let (short, long): (Vec<_>, Vec<_>) =
        known.into_iter().partition(|wanted| wanted.value.len() <= max);
    (short, long.iter().map(|wanted| wanted.value.len()).max())
}

/// The command with all entries but the token, and where its literals have to wait.
fn set_others(
    tag: &[u8],
    set: &SetMetadataCommand<'_>,
    others: &[&Pair<'_>],
) -> (Vec<u8>, Vec<usize>) {
    let mut command = [tag, b" SETMETADATA "].concat();
    let mut cuts = vec![];
    push_client_string(&mut command, &mut cuts, &set.mailbox);
    command.extend_from_slice(b" (");
    for (index, (entry, value)) in others.iter().enumerate() {
        if index > 0 {
            command.push(b' ');
        }
        command.extend_from_slice(entry);
        command.push(b' ');
        match value {
            Some(value) => push_client_string(&mut command, &mut cuts, value),
            None => command.extend_from_slice(b"NIL"),
        }
    }
    command.extend_from_slice(b")\r\n");
    (command, cuts)
}

/// Appends `value` as any server takes it from a client: quoted, or as a synchronizing literal.
pub(super) fn push_client_string(command: &mut Vec<u8>, cuts: &mut Vec<usize>, value: &[u8]) {
    if is_quotable(value) {
        return push_quoted(command, value);
    }
    command.extend_from_slice(format!("{{{}}}\r\n", value.len()).as_bytes());
    cuts.push(command.len());
    command.extend_from_slice(value);
}

/// Shows a command that is kept from the upstream, as far as it may be shown.
fn show_command(command: &[u8], out: &mut impl Output) {
    let Some(transcript) = out.transcript() else { return };
    let Some(head) = command::head(command) else { return };
    let disclosure = head.disclosure(command);
    let (shown, arguments) = command.split_at_checked(head.len).unwrap_or((&[], command));
    transcript.piece(Speaker::Client, Mark::Kept, Piece::Text(shown));
    let text = arguments.trim_ascii_end();
    if disclosure == Disclosure::All {
        transcript.piece(Speaker::Client, Mark::Kept, Piece::Text(text));
    } else if let Some(set) = metadata::set(command) {
        show_metadata(transcript, Speaker::Client, Mark::Kept, &set.mailbox, &set.entries);
    } else {
        transcript.piece(Speaker::Client, Mark::Kept, Piece::Masked(text.len()));
    }
    transcript.piece(Speaker::Client, Mark::Kept, Piece::Text(b"\r\n"));
}
