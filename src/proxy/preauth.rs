//! A client before its login (RFC 9051 section 3.1: not authenticated state), as a machine: deltapush greets by itself and
//! answers alone, because only the login says whose server to ask.

use zeroize::Zeroizing;

use super::own_lines::{self, untagged};
use super::own_refusals::OwnRefusal;
use super::sasl::{self, Exchange, SaslStep};
use crate::credentials::Credentials;
use crate::parser::command::{self, Disclosure, Verb};
use crate::parser::framer::{Fragment, Framer, LineEnd};
use crate::parser::id::{self, Field};
use crate::parser::sasl::SaslLine;
use crate::trace::{Mark, Piece, Speaker, Transcript};

/// What a client may do before its login.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// The longest command, in bytes.
    pub command: usize,
    /// Commands in all.
    pub commands: u32,
    /// Commands among them that may be wrong.
    pub wrong: u32,
    /// Logins: each costs a connection to the upstream, and guesses a password there.
    pub logins: u32,
    /// The longest login name, in bytes.
    pub login_name: usize,
}

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// TLS is on.
    Tls,
    /// TLS is offered, and required before the login.
    StartTls,
    /// There is none, and the configuration wants it so.
    None,
}

/// What the driver has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum PreauthEvent {
    /// After what is in `out` was sent: a TLS handshake, and a new machine on top of it. What the client sent in plaintext
    /// is to be thrown away.
    StartTls,
    /// Find out whether the upstream accepts these; the answer goes under this tag.
    Login {
        /// The command's tag.
        tag: Vec<u8>,
        /// What the client gave.
        credentials: Credentials,
    },
    /// The client's answer to a challenge of the upstream's.
    Response(SaslLine),
    /// After what is in `out` was sent: close.
    Close,
}

/// The machine. Holds at most one command.
pub struct NotAuthenticated {
    framer: Framer,
    /// The command under way; wiped, for it may have a password.
    held: Zeroizing<Vec<u8>>,
    /// Set while a SASL exchange waits for the client's response: the tag of its command, and what the response is.
    sasl: Option<(Vec<u8>, Exchange)>,
    protection: Protection,
    offers_scram: bool,
    allowance: Allowance,
    commands: u32,
    bad: u32,
    logins: u32,
    /// What the client has said of itself.
    client_id: Option<Vec<Field>>,
}

/// The longest command before the login, in bytes. It holds the largest access tokens; mail servers take 8 to 16 KiB.
const MAX_COMMAND: usize = 16 * 1024;

/// Room for a LOGIN command of usual length, so that the buffer does not grow: growing leaves copies behind.
const USUAL_COMMAND: usize = 512;

impl NotAuthenticated {
    /// A machine that takes what is allowed.
    #[must_use]
    pub fn new(protection: Protection, allowance: Allowance) -> Self {
        Self {
            framer: Framer::new(),
            held: Zeroizing::new(Vec::with_capacity(USUAL_COMMAND)),
            sasl: None,
            protection,
            offers_scram: false,
            allowance: Allowance { command: allowance.command.min(MAX_COMMAND), ..allowance },
            commands: 0,
            bad: 0,
            logins: 0,
            client_id: None,
        }
    }

    /// The same machine, which lists SCRAM among what it offers or does not. It takes SCRAM in any case.
    #[must_use]
    pub fn offering_scram(mut self, offers_scram: bool) -> Self {
        self.offers_scram = offers_scram;
        self
    }

    /// Which command has begun and not ended, if one has: a number that grows from each to the next.
    #[must_use]
    pub fn under_way(&self) -> Option<u32> {
        (!self.held.is_empty() || self.sasl.is_some()).then_some(self.commands)
    }

    /// The greeting.
    #[must_use]
    pub fn greeting(&self) -> Vec<u8> {
        format!("* OK [CAPABILITY {}] deltapush ready\r\n", self.capabilities()).into_bytes()
    }

    /// What deltapush can do before a login.
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

    /// Takes bytes from the client until something has to be done; `input` moves on to what is left. Answers are appended
    /// to `out`.
    pub fn take(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        mut transcript: Option<&mut dyn Transcript>,
    ) -> Option<PreauthEvent> {
        while let Some((fragment, rest)) = self.framer.next(input) {
            *input = rest;
            let before = out.len();
            let is_too_long =
                self.held.len().saturating_add(fragment.bytes().len()) > self.allowance.command;
            if !is_too_long {
                self.held.extend_from_slice(fragment.bytes());
            }
            let event = match fragment {
                _ if is_too_long => Some(too_long(out)),
                Fragment::Line { end: Some(end), .. } => self.line_end(end, out, &mut transcript),
                Fragment::Line { end: None, .. } | Fragment::Literal { .. } => continue,
            };
            if let Some(transcript) = transcript.as_deref_mut() {
                transcript.lines(
                    Speaker::ToClient,
                    Mark::Own,
                    out.get(before..).unwrap_or_default(),
                );
            }
            if event.is_some() {
                return event;
            }
        }
        None
    }

    fn line_end(
        &mut self,
        end: LineEnd,
        out: &mut Vec<u8>,
        transcript: &mut Option<&mut dyn Transcript>,
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
        let command =
            std::mem::replace(&mut self.held, Zeroizing::new(Vec::with_capacity(USUAL_COMMAND)));
        if let Some(transcript) = transcript {
            show(*transcript, &command, self.sasl.is_some());
        }
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

    /// What the client has said of itself (RFC 2971), for its server to know; `None` if it has said nothing.
    #[must_use]
    pub fn client_id(&self) -> Option<&[Field]> {
        self.client_id.as_deref()
    }

    /// What came of AUTHENTICATE, or of a line that belongs to it.
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

    /// The client is being sent a challenge of the upstream's: its next line is the answer, an [`PreauthEvent::Response`].
    pub fn expect_response(&mut self) {
        self.sasl = Some((Vec::new(), Exchange::Relayed));
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

    /// The upstream refused the last login, and the client was told: whether that was one too many.
    pub fn login_refused(&mut self, out: &mut Vec<u8>) -> bool {
        let is_last = self.logins >= self.allowance.logins;
        if is_last {
            out.extend_from_slice(untagged(&OwnRefusal::TooManyTries.to_string()).as_bytes());
        }
        is_last
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

/// What goes over the limit unasked ends the connection: reading on, to find where the next command begins, would cost more
/// than a stranger is worth.
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

/// Shows a command: tag and verb of those that have a place before the login, and the arguments of ID. A line of a SASL exchange,
/// and whatever else, may be a password.
fn show(transcript: &mut dyn Transcript, command: &[u8], is_sasl: bool) {
    use Verb::{Authenticate, Id, Login};
    let text = command.trim_ascii_end();
    let head = command::head(command).filter(|_| !is_sasl);
    let disclosure = head.map_or(Disclosure::Nothing, |head| match head.verb {
        Id => Disclosure::All,
        _ => head.disclosure(command).min(Disclosure::Head),
    });
    let shown = match disclosure {
        Disclosure::Nothing => 0,
        Disclosure::Head => head.map_or(0, |head| head.len),
        Disclosure::All => text.len(),
    };
    if let Some(head) = head {
        // The server's answer to a login is looked through for the password before it is shown.
        let is_login = matches!(head.verb, Login | Authenticate);
        transcript.command(head.tag, if is_login { Disclosure::All } else { disclosure });
    }
    let mut piece = |piece| transcript.piece(Speaker::Client, Mark::Kept, piece);
    let (plain, secret) = text.split_at_checked(shown).unwrap_or((text, &[]));
    piece(Piece::Text(plain));
    piece(Piece::Masked(secret.len()));
    piece(Piece::Text(b"\r\n"));
}

#[cfg(test)]
#[path = "preauth_tests.rs"]
mod tests;
