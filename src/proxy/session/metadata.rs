//! METADATA (RFC 5464): tokens that the client hands over, and the entries that deltapush knows.

use std::borrow::Cow;

use super::pending::{Pending, PendingReply, RequestedEntry};
use super::{AccountQuestion, ClientState, Request, Session, SessionAction};
use crate::machine::Actions;
use crate::mailbox_name::MailboxName;
use crate::parser::command::Verb;
use crate::parser::metadata::{self, Get, Pair, SetMetadataCommand, Values, is_within};
use crate::parser::outgoing_command::{OutgoingCommand, PairName};
use crate::proxy::own_lines;
use crate::secret::{DeviceToken, TokenError};

/// The entry that a client sets to its device token, on its INBOX.
const DEVICE_TOKEN: &[u8] = b"/private/devicetoken";

/// The server's comment, which a client shows to its owner.
const COMMENT: &[u8] = b"/shared/comment";

/// Between a comment and how push is.
const AND: &[u8] = b" | ";

/// The driver's answer to a question about the account.
#[derive(Clone, Copy)]
enum AccountAnswer<'a> {
    /// Nothing was asked.
    None,
    Tokens(&'a [&'a str]),
    PushStatus(&'a str),
}

impl Session {
    /// Answers `GETMETADATA`, or first asks the driver about the account.
    pub(super) fn answer_get(
        &mut self,
        command: Vec<u8>,
        cuts: Vec<usize>,
        out: &mut impl Actions<Self>,
    ) {
        self.visit.metadata();
        let Some(get) = metadata::get(&command) else {
            return self.leave_to_upstream(&command, &cuts, out);
        };
        let Some(question) = self.question(&get) else {
            return self.answer_known(&get, AccountAnswer::None, &command, &cuts, out);
        };
        self.client.held = command;
        self.client.cuts = cuts;
        self.client.state = ClientState::AwaitingAccount;
        out.push(SessionAction::Ask(question));
    }

    /// The question for the driver without whose answer the command cannot be answered.
    fn question(&self, get: &Get<'_>) -> Option<AccountQuestion> {
        let asks =
            |entry: &[u8]| get.entries.iter().any(|asked| is_within(entry, asked, get.depth));
        if get.mailbox.is_empty() {
            return (self.settings.push_status && asks(COMMENT))
                .then_some(AccountQuestion::PushStatus);
        }
        (MailboxName::is_inbox(&get.mailbox) && asks(DEVICE_TOKEN))
            .then_some(AccountQuestion::Tokens)
    }

    /// Takes the answer to [`AccountQuestion::Tokens`].
    pub(super) fn tokens_are(&mut self, tokens: &[DeviceToken], out: &mut impl Actions<Self>) {
        let tokens: Vec<&str> = tokens.iter().map(DeviceToken::expose).collect();
        self.account_is(AccountAnswer::Tokens(&tokens), out);
    }

    /// Takes the answer to [`AccountQuestion::PushStatus`].
    pub(super) fn push_status_is(&mut self, status: &str, out: &mut impl Actions<Self>) {
        self.account_is(AccountAnswer::PushStatus(status), out);
    }

    fn account_is(&mut self, answer: AccountAnswer<'_>, out: &mut impl Actions<Self>) {
        if self.client.state != ClientState::AwaitingAccount {
            return;
        }
        self.client.state = ClientState::Head;
        self.is_resumed = true;
        let command = std::mem::take(&mut self.client.held);
        let cuts = std::mem::take(&mut self.client.cuts);
        if let Some(get) = metadata::get(&command) {
            self.answer_known(&get, answer, &command, &cuts, out);
        }
    }

    /// Answers a `GETMETADATA`, alone or together with the upstream.
    fn answer_known(
        &mut self,
        get: &Get<'_>,
        answer: AccountAnswer<'_>,
        command: &[u8],
        cuts: &[usize],
        out: &mut impl Actions<Self>,
    ) {
        let known = self.known(get, answer);
        let is_known =
            |asked: &[u8]| known.iter().any(|wanted| is_within(&wanted.entry, asked, get.depth));
        let unknown = get
            .entries
            .iter()
            .filter(|asked| !is_known(asked))
            .map(|asked| asked.to_vec())
            .collect();
        let is_concerned = !known.is_empty();
        let (wanted, longest) = within_size(get, known);
        if self.upstream.metadata {
            if is_concerned {
                let (tag, mailbox) = (self.client.tag.clone(), get.mailbox.to_vec());
                self.pending.push_back(Pending::Get { tag, wanted, mailbox, unknown });
            }
            return self.replay(command, cuts, out);
        }
        self.send_values(&get.mailbox, &unknown, &wanted, out);
        match longest {
            Some(longest) => {
                self.reply(&format!("OK [METADATA LONGENTRIES {longest}] completed"), out);
            }
            None => self.reply("OK GETMETADATA completed", out),
        }
    }

    /// The entries among those that `get` asks for that deltapush knows, with their values.
    fn known(&self, get: &Get<'_>, answer: AccountAnswer<'_>) -> Vec<RequestedEntry> {
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
            if let AccountAnswer::PushStatus(status) = answer {
                comment(&mut known, get, status.into());
            }
            return known;
        }
        match answer {
            AccountAnswer::Tokens(tokens) if !tokens.is_empty() => {
                vec![wanted(DEVICE_TOKEN, tokens.join(" ").as_bytes())]
            }
            _ => vec![],
        }
    }

    /// Says the values in `wanted`, and NIL for what is `unknown`.
    pub(super) fn send_values(
        &mut self,
        mailbox: &[u8],
        unknown: &[Vec<u8>],
        wanted: &[RequestedEntry],
        out: &mut impl Actions<Session>,
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
        self.send_own(out, &values.to_bytes());
    }

    pub(super) fn answer_set(
        &mut self,
        command: &[u8],
        cuts: &[usize],
        out: &mut impl Actions<Session>,
    ) {
        self.visit.metadata();
        let Some(set) = metadata::set(command) else {
            return self.leave_to_upstream(command, cuts, out);
        };
        let is_token = |pair: &&Pair<'_>| {
            MailboxName::is_inbox(&set.mailbox) && pair.0.eq_ignore_ascii_case(DEVICE_TOKEN)
        };
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
            return out.push(SessionAction::Request(&request));
        }
        if !self.upstream.metadata {
            return self.reply(own_lines::ONLY_TOKEN, out);
        }
        let (command, cuts) = set_others(&self.client.tag, &set, &others);
        self.pending.push_back(Pending::Set { tag: self.client.tag.clone(), request });
        self.replay(&command, &cuts, out);
    }

    fn refuse_token(&mut self, error: TokenError, out: &mut impl Actions<Session>) {
        let line = match error {
            TokenError::TooLong => own_lines::TOKEN_TOO_LONG,
            TokenError::NotPrintable => own_lines::NOT_A_TOKEN,
        };
        self.reply(line, out);
    }

    /// A metadata command in which deltapush has no part: the upstream's, if it knows the extension.
    fn leave_to_upstream(
        &mut self,
        command: &[u8],
        cuts: &[usize],
        out: &mut impl Actions<Session>,
    ) {
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
            Pending::Get { mailbox, wanted, .. } if MailboxName::are_same(mailbox, of) => {
                Some(wanted)
            }
            _ => None,
        });
        gets.flatten()
    }
}

/// Says how push is behind the configured comment, if there is one, and behind the upstream's. A comment that the client
/// wants no longer than so is not made longer.
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
    let pairs = others.iter().map(|(entry, value)| (PairName::Atom(entry), value.as_deref()));
    OutgoingCommand::new(tag, b"SETMETADATA").string(&set.mailbox).pairs(pairs).end()
}
