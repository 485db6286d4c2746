//! A client before its login (RFC 9051 section 3.1: not authenticated state), as a machine: deltapush greets by itself and
//! answers alone, because only the login says whose server to ask.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

#[cfg(test)]
mod tests;
mod transcript;
mod types;

use std::time::Instant;

use super::own_lines::{self, untagged};
use super::own_refusals::OwnRefusal;
use super::sasl::{self, Exchange, SaslStep};
use crate::credentials::Credentials;
use crate::machine::{Actions, Machine};
use crate::parser::command::{self, Verb};
use crate::parser::framer::{Fragment, Framer, LineEnd};
use crate::parser::id::{self, Field};
pub use transcript::ShownCommand;
pub use types::{Allowance, PreauthAction, PreauthEvent, PreauthInput, PreauthTurn, Protection};

/// The machine. Holds at most one command.
pub struct NotAuthenticated {
    framer: Framer,
    /// The command under way, which may have a password.
    held: Vec<u8>,
    /// Set while a SASL exchange waits for the client's response: the tag of its command, and what the response is.
    sasl: Option<(Vec<u8>, Exchange)>,
    protection: Protection,
    offers_scram: bool,
    allowance: Allowance,
    commands: u32,
    bad: u32,
    logins: u32,
    /// The client's ID.
    client_id: Option<Vec<Field>>,
    /// By when the login has to be done.
    deadline: Instant,
    /// The command that has begun and not ended, and its beginning.
    under_way: Option<(u32, Instant)>,
}

/// The longest command before the login, in bytes. It holds the largest access tokens; mail servers take 8 to 16 KiB.
const MAX_COMMAND: usize = 16 * 1024;

/// Room for a LOGIN command of usual length, so that the buffer does not grow: growing leaves copies behind.
const USUAL_COMMAND: usize = 512;

impl Machine for NotAuthenticated {
    type Input<'a> = PreauthInput<'a>;
    type Action<'a> = PreauthAction<'a>;

    fn handle(&mut self, input: PreauthInput<'_>, now: Instant, actions: &mut impl Actions<Self>) {
        match input {
            PreauthInput::Start => actions.push(PreauthAction::Send(&self.greeting())),
            PreauthInput::Received(bytes) => self.received(bytes, now, actions),
            PreauthInput::Tick => self.tick(now, actions),
            PreauthInput::Challenge => {
                self.sasl = Some((Vec::new(), Exchange::Relayed));
                // The time that the server took for its challenge does not count against the client.
                self.under_way = None;
            }
            PreauthInput::Refused(answer) => self.refused(answer, actions),
        }
    }

    /// The end of the time for the login; a command that has begun has a time of its own.
    fn deadline(&self) -> Option<Instant> {
        let command =
            self.under_way.and_then(|(_, began)| began.checked_add(self.allowance.command_time));
        Some(command.map_or(self.deadline, |end| end.min(self.deadline)))
    }
}

impl NotAuthenticated {
    /// A machine that takes what is allowed until `deadline`.
    #[must_use]
    pub fn new(protection: Protection, allowance: Allowance, deadline: Instant) -> Self {
        Self {
            framer: Framer::new(),
            held: Vec::with_capacity(USUAL_COMMAND),
            sasl: None,
            protection,
            offers_scram: false,
            allowance: Allowance { command: allowance.command.min(MAX_COMMAND), ..allowance },
            commands: 0,
            bad: 0,
            logins: 0,
            client_id: None,
            deadline,
            under_way: None,
        }
    }

    /// The same machine, which lists SCRAM among what it offers or does not. It takes SCRAM in any case.
    #[must_use]
    pub fn offering_scram(mut self, offers_scram: bool) -> Self {
        self.offers_scram = offers_scram;
        self
    }

    fn greeting(&self) -> Vec<u8> {
        format!("* OK [CAPABILITY {}] deltapush ready\r\n", self.capabilities()).into_bytes()
    }

    /// deltapush's capabilities before a login.
    fn capabilities(&self) -> String {
        let mut list = "IMAP4rev1 LITERAL+ SASL-IR ID".to_owned();
        list.push_str(match self.protection {
            Protection::StartTls => " STARTTLS LOGINDISABLED",
            Protection::Tls | Protection::None => {
                " AUTH=PLAIN AUTH=LOGIN AUTH=XOAUTH2 AUTH=OAUTHBEARER"
            }
        });
        if self.offers_scram && self.protection != Protection::StartTls {
            list.push_str(" AUTH=SCRAM-SHA-1 AUTH=SCRAM-SHA-256");
        }
        list
    }

    /// Takes bytes until something has to be done.
    fn received(&mut self, bytes: &[u8], now: Instant, actions: &mut impl Actions<Self>) {
        let mut input = bytes;
        let mut out = Vec::new();
        let mut event = None;
        while event.is_none()
            && let Some((fragment, rest)) = self.framer.next(input)
        {
            input = rest;
            let is_too_long =
                self.held.len().saturating_add(fragment.bytes().len()) > self.allowance.command;
            if !is_too_long {
                self.held.extend_from_slice(fragment.bytes());
            }
            event = match fragment {
                _ if is_too_long => Some(too_long(&mut out)),
                Fragment::Line { end: Some(end), .. } => self.line_end(end, &mut out, actions),
                Fragment::Line { end: None, .. } | Fragment::Literal { .. } => continue,
            };
            if !out.is_empty() {
                actions.push(PreauthAction::Send(&out));
                out.clear();
            }
        }
        actions.push(PreauthAction::Used(bytes.len().saturating_sub(input.len())));
        self.note_under_way(now);
        if let Some(event) = event {
            actions.push(PreauthAction::Event(event));
        }
    }

    /// A command's time begins with its first byte; with its last, if a SASL exchange follows.
    fn note_under_way(&mut self, now: Instant) {
        let is_under_way = !self.held.is_empty() || self.sasl.is_some();
        let known = self.under_way.filter(|(number, _)| *number == self.commands);
        self.under_way = is_under_way.then(|| known.unwrap_or((self.commands, now)));
    }

    fn tick(&self, now: Instant, actions: &mut impl Actions<Self>) {
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            let goodbye = untagged(&OwnRefusal::TookTooLong.to_string());
            actions.push(PreauthAction::Send(goodbye.as_bytes()));
            actions.push(PreauthAction::Event(PreauthEvent::TimedOut));
        }
    }

    fn line_end(
        &mut self,
        end: LineEnd,
        out: &mut Vec<u8>,
        actions: &mut impl Actions<Self>,
    ) -> Option<PreauthEvent> {
        let mut refused = false;
        if let (LineEnd::Literal(announced), None) = (end, &self.sasl) {
            let room = self.allowance.command.saturating_sub(self.held.len()) as u64;
            refused = announced.size > room;
            match (refused, announced.synchronizing) {
                (true, false) => return Some(too_long(out)),
                (true, true) => {}
                (false, synchronizing) => {
                    self.framer.begin_literal(announced.size);
                    if synchronizing {
                        out.extend_from_slice(b"+ OK\r\n");
                    }
                    return None;
                }
            }
        }
        let command = std::mem::replace(&mut self.held, Vec::with_capacity(USUAL_COMMAND));
        actions.push(PreauthAction::Show(ShownCommand {
            command: &command,
            is_sasl: self.sasl.is_some(),
        }));
        match self.sasl.take() {
            Some((tag, exchange)) => self.exchange(tag, exchange.line(&command), out),
            None => self.command(&command, refused, out),
        }
    }

    fn command(
        &mut self,
        command: &[u8],
        refused: bool,
        out: &mut Vec<u8>,
    ) -> Option<PreauthEvent> {
        self.commands = self.commands.saturating_add(1);
        let head = command::head(command).filter(|head| !head.tag.is_empty());
        let (tag, verb) = head.map_or((&b"*"[..], Verb::Other), |head| (head.tag, head.verb));
        if refused {
            self.refuse(tag, own_lines::LITERAL_TOO_LONG, out);
        } else {
            match verb {
                Verb::Login | Verb::Authenticate if self.protection == Protection::StartTls => {
                    self.refuse(tag, &OwnRefusal::NotEncrypted.to_string(), out);
                }
                Verb::Login => match command::login(command) {
                    Some(credentials) => return self.login(tag, credentials, out),
                    None => self.refuse(tag, own_lines::LOGIN_SYNTAX, out),
                },
                Verb::Authenticate => match command::authenticate(command) {
                    Some((mechanism, initial)) => {
                        return self.exchange(tag.to_vec(), sasl::begin(mechanism, initial), out);
                    }
                    None => self.refuse(tag, own_lines::AUTHENTICATE_SYNTAX, out),
                },
                Verb::StartTls if self.protection == Protection::StartTls => {
                    answer(out, tag, "OK begin TLS now");
                    return Some(PreauthEvent::StartTls);
                }
                Verb::Logout => {
                    out.extend_from_slice(untagged(own_lines::LOGOUT).as_bytes());
                    answer(out, tag, "OK LOGOUT completed");
                    return Some(PreauthEvent::Close);
                }
                Verb::Id => self.answer_id(tag, command, out),
                _ => self.answer_simply(tag, verb, out),
            }
        }
        self.close_if_too_many(out)
    }

    /// The commands that want nothing but an answer.
    fn answer_simply(&mut self, tag: &[u8], verb: Verb, out: &mut Vec<u8>) {
        match verb {
            Verb::Capability => {
                out.extend_from_slice(
                    format!("* CAPABILITY {}\r\n", self.capabilities()).as_bytes(),
                );
                answer(out, tag, "OK CAPABILITY completed");
            }
            Verb::Noop => answer(out, tag, "OK NOOP completed"),
            Verb::StartTls => self.refuse(tag, own_lines::NO_STARTTLS, out),
            _ => self.refuse(tag, own_lines::UNKNOWN_COMMAND, out),
        }
    }

    fn answer_id(&mut self, tag: &[u8], command: &[u8], out: &mut Vec<u8>) {
        let Some(fields) = id::fields(command) else {
            return self.refuse(tag, own_lines::ID_SYNTAX, out);
        };
        self.client_id = Some(fields);
        out.extend_from_slice(b"* ID (\"name\" \"deltapush\")\r\n");
        answer(out, tag, "OK ID completed");
    }

    /// The client's ID (RFC 2971), for its server; `None` if it has sent none.
    #[must_use]
    pub fn client_id(&self) -> Option<&[Field]> {
        self.client_id.as_deref()
    }

    /// The result of AUTHENTICATE, or of a line that belongs to it.
    fn exchange(
        &mut self,
        tag: Vec<u8>,
        said: SaslStep,
        out: &mut Vec<u8>,
    ) -> Option<PreauthEvent> {
        match said {
            SaslStep::Ask(challenge, exchange) => {
                out.extend_from_slice(format!("+ {challenge}\r\n").as_bytes());
                self.sasl = Some((tag, exchange));
                None
            }
            SaslStep::LogIn(credentials) => self.login(&tag, credentials, out),
            SaslStep::Relay(line) => Some(PreauthEvent::Response(line)),
            SaslStep::Refuse(text) => {
                self.refuse(&tag, text, out);
                self.close_if_too_many(out)
            }
        }
    }

    /// Takes credentials from any mechanism. A name may be stored, compared and sent on: it has a bound of its own.
    fn login(
        &mut self,
        tag: &[u8],
        credentials: Credentials,
        out: &mut Vec<u8>,
    ) -> Option<PreauthEvent> {
        let names = [Some(credentials.user.as_str()), credentials.authorization.as_deref()];
        if names.into_iter().flatten().any(|name| name.len() > self.allowance.login_name) {
            self.refuse(tag, &OwnRefusal::LongName(self.allowance.login_name).to_string(), out);
            return self.close_if_too_many(out);
        }
        self.logins = self.logins.saturating_add(1);
        Some(PreauthEvent::Login { tag: tag.to_vec(), credentials })
    }

    /// The upstream refused the last login: that may have been one too many.
    fn refused(&self, answer: &[u8], actions: &mut impl Actions<Self>) {
        if self.logins < self.allowance.logins {
            return actions.push(PreauthAction::Send(answer));
        }
        let goodbye = untagged(&OwnRefusal::TooManyTries.to_string());
        actions.push(PreauthAction::Send(&[answer, goodbye.as_bytes()].concat()));
        actions.push(PreauthAction::Event(PreauthEvent::Close));
    }

    fn refuse(&mut self, tag: &[u8], text: &str, out: &mut Vec<u8>) {
        self.bad = self.bad.saturating_add(1);
        answer(out, tag, text);
    }

    fn close_if_too_many(&self, out: &mut Vec<u8>) -> Option<PreauthEvent> {
        if self.bad < self.allowance.wrong && self.commands < self.allowance.commands {
            return None;
        }
        out.extend_from_slice(untagged(own_lines::TOO_MANY_COMMANDS).as_bytes());
        Some(PreauthEvent::Close)
    }
}

/// A command over the limit, without a synchronizing literal, ends the connection: reading on, to find the next command,
/// would cost more than a stranger is worth.
fn too_long(out: &mut Vec<u8>) -> PreauthEvent {
    out.extend_from_slice(untagged(own_lines::COMMAND_TOO_LONG_BYE).as_bytes());
    PreauthEvent::Close
}

fn answer(out: &mut Vec<u8>, tag: &[u8], text: &str) {
    out.extend_from_slice(tag);
    out.push(b' ');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}
