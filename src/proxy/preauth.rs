//! A client before its login (RFC 9051 section 3.1: not authenticated state), as a machine: deltapush greets by itself and
//! answers alone, because only the login says whose server to ask.

use zeroize::Zeroizing;

use crate::config::Limits;
use crate::parser::command::{self, SaslLine, Verb};
use crate::parser::framer::{Fragment, Framer, LineEnd};
use crate::secret::Credentials;
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
}

impl From<&Limits> for Allowance {
    fn from(limits: &Limits) -> Self {
        Self {
            command: limits.command.bytes(),
            commands: limits.commands_before_login,
            wrong: limits.wrong_commands,
            logins: limits.logins,
        }
    }
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
pub enum Event {
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
    /// After what is in `out` was sent: close.
    Close,
}

/// The machine. Holds at most one command.
pub struct NotAuthenticated {
    framer: Framer,
    /// The command under way; wiped, for it may have a password.
    held: Zeroizing<Vec<u8>>,
    /// Set while a SASL exchange waits for the client's response: the tag of its command.
    sasl: Option<Vec<u8>>,
    protection: Protection,
    allowance: Allowance,
    commands: u32,
    bad: u32,
    logins: u32,
}

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
            allowance,
            commands: 0,
            bad: 0,
            logins: 0,
        }
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
    fn capabilities(&self) -> &'static str {
        match self.protection {
            Protection::Tls | Protection::None => "IMAP4rev1 LITERAL+ SASL-IR ID AUTH=PLAIN",
            Protection::StartTls => "IMAP4rev1 LITERAL+ SASL-IR ID STARTTLS LOGINDISABLED",
        }
    }

    /// Takes bytes from the client until something has to be done; `input` moves on to what is left. Answers are appended
    /// to `out`.
    pub fn take(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        mut transcript: Option<&mut dyn Transcript>,
    ) -> Option<Event> {
        while let Some((fragment, rest)) = self.framer.next(input) {
            *input = rest;
            let before = out.len();
            self.held.extend_from_slice(fragment.bytes());
            let event = match fragment {
                _ if self.held.len() > self.allowance.command => Some(too_long(out)),
                Fragment::Line { end: Some(end), .. } => self.line_end(end, out, &mut transcript),
                Fragment::Line { end: None, .. } | Fragment::Literal { .. } => continue,
            };
            if let Some(transcript) = transcript.as_deref_mut() {
                transcript.lines(Speaker::ToClient, Mark::Own, out.get(before..).unwrap_or_default());
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
    ) -> Option<Event> {
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
        let command = std::mem::replace(&mut self.held, Zeroizing::new(Vec::with_capacity(USUAL_COMMAND)));
        if let Some(transcript) = transcript {
            show(*transcript, &command, self.sasl.is_some());
        }
        match self.sasl.take() {
            Some(tag) => self.sasl_response(tag, &command, out),
            None => self.command(&command, refused, out),
        }
    }

    fn command(&mut self, command: &[u8], refused: bool, out: &mut Vec<u8>) -> Option<Event> {
        self.commands = self.commands.saturating_add(1);
        let head = command::head(command).filter(|head| !head.tag.is_empty());
        let (tag, verb) = head.map_or((&b"*"[..], Verb::Other), |head| (head.tag, head.verb));
        if refused {
            self.refuse(tag, "NO [TOOBIG] the literal is too long", out);
        } else {
            match verb {
                Verb::Login | Verb::Authenticate if self.protection == Protection::StartTls => {
                    self.refuse(tag, "NO [PRIVACYREQUIRED] STARTTLS comes before the login", out);
                }
                Verb::Login => match command::login(command) {
                    Some(credentials) => return Some(self.login(tag.to_vec(), credentials)),
                    None => self.refuse(tag, "BAD LOGIN takes a user name and a password", out),
                },
                Verb::Authenticate => {
                    if let Some(event) = self.authenticate(tag, command, out) {
                        return Some(event);
                    }
                }
                Verb::StartTls if self.protection == Protection::StartTls => {
                    answer(out, tag, "OK begin TLS now");
                    return Some(Event::StartTls);
                }
                Verb::Logout => {
                    out.extend_from_slice(b"* BYE logging out\r\n");
                    answer(out, tag, "OK LOGOUT completed");
                    return Some(Event::Close);
                }
                _ => self.answer_simply(tag, verb, out),
            }
        }
        self.close_if_too_many(out)
    }

    /// The commands that want nothing but an answer.
    fn answer_simply(&mut self, tag: &[u8], verb: Verb, out: &mut Vec<u8>) {
        match verb {
            Verb::Capability => {
                out.extend_from_slice(format!("* CAPABILITY {}\r\n", self.capabilities()).as_bytes());
                answer(out, tag, "OK CAPABILITY completed");
            }
            Verb::Noop => answer(out, tag, "OK NOOP completed"),
            Verb::Id => {
                out.extend_from_slice(b"* ID (\"name\" \"deltapush\")\r\n");
                answer(out, tag, "OK ID completed");
            }
            Verb::StartTls => self.refuse(tag, "BAD STARTTLS is not available here", out),
            _ => self.refuse(tag, "BAD unknown command, or one that comes after the login", out),
        }
    }

    fn authenticate(&mut self, tag: &[u8], command: &[u8], out: &mut Vec<u8>) -> Option<Event> {
        match command::authenticate(command) {
            Some((mechanism, _)) if !mechanism.eq_ignore_ascii_case(b"PLAIN") => {
                self.refuse(tag, "NO [CANNOT] this mechanism is not supported, PLAIN is", out);
                None
            }
            Some((_, Some(initial))) => self.sasl_response(tag.to_vec(), initial, out),
            Some((_, None)) => {
                out.extend_from_slice(b"+ \r\n");
                self.sasl = Some(tag.to_vec());
                None
            }
            None => {
                self.refuse(tag, "BAD AUTHENTICATE takes a mechanism", out);
                None
            }
        }
    }

    fn sasl_response(&mut self, tag: Vec<u8>, line: &[u8], out: &mut Vec<u8>) -> Option<Event> {
        match command::sasl_line(line) {
            SaslLine::Cancelled => self.refuse(&tag, "BAD cancelled", out),
            SaslLine::Malformed => self.refuse(&tag, "BAD this is not base64", out),
            SaslLine::Response(message) => match command::plain_message(&message) {
                Some(credentials) => return Some(self.login(tag, credentials)),
                None => self.refuse(&tag, "BAD the message is not one of SASL PLAIN (RFC 4616)", out),
            },
        }
        self.close_if_too_many(out)
    }

    fn login(&mut self, tag: Vec<u8>, credentials: Credentials) -> Event {
        self.logins = self.logins.saturating_add(1);
        Event::Login { tag, credentials }
    }

    /// The upstream refused the last login, and the client was told: whether that was one too many.
    pub fn login_refused(&mut self, out: &mut Vec<u8>) -> bool {
        let is_last = self.logins >= self.allowance.logins;
        if is_last {
            out.extend_from_slice(b"* BYE too many logins that failed\r\n");
        }
        is_last
    }

    fn refuse(&mut self, tag: &[u8], text: &str, out: &mut Vec<u8>) {
        self.bad = self.bad.saturating_add(1);
        answer(out, tag, text);
    }

    fn close_if_too_many(&self, out: &mut Vec<u8>) -> Option<Event> {
        if self.bad < self.allowance.wrong && self.commands < self.allowance.commands {
            return None;
        }
        out.extend_from_slice(b"* BYE too many commands without a login\r\n");
        Some(Event::Close)
    }
}

/// What goes over the limit unasked ends the connection: reading on, to find where the next command begins, would cost more
/// than a stranger is worth.
fn too_long(out: &mut Vec<u8>) -> Event {
    out.extend_from_slice(b"* BYE [TOOBIG] the command is too long\r\n");
    Event::Close
}

fn answer(out: &mut Vec<u8>, tag: &[u8], text: &str) {
    out.extend_from_slice(tag);
    out.push(b' ');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Shows a command: of LOGIN and AUTHENTICATE nothing but that, of a SASL exchange nothing at all.
fn show(transcript: &mut dyn Transcript, command: &[u8], is_sasl: bool) {
    let mut piece = |piece| transcript.piece(Speaker::Client, Mark::Kept, piece);
    let text = command.trim_ascii_end();
    let head = command::head(command).filter(|_| !is_sasl);
    let shown = match head {
        // What is no known command may be a password in the wrong place, or a mistyped LOGIN.
        None => 0,
        Some(head) if head.verb.has_secret_arguments() || head.verb == Verb::Other => head.len,
        Some(_) => text.len(),
    };
    let (plain, secret) = text.split_at_checked(shown).unwrap_or((text, &[]));
    piece(Piece::Text(plain));
    piece(Piece::Masked(secret.len()));
    piece(Piece::Text(b"\r\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Allowance = Allowance { command: 2000, commands: 100, wrong: 10, logins: 5 };

    /// What came of `input`, in one piece and byte by byte: the answers, and the event with its credentials.
    fn take(protection: Protection, input: &str) -> (String, Option<Event>) {
        let run = |chunks: Vec<&[u8]>| {
            let mut machine = NotAuthenticated::new(protection, ALLOWED);
            let mut out = vec![];
            for mut chunk in chunks {
                if let Some(event) = machine.take(&mut chunk, &mut out, None) {
                    return (String::from_utf8(out).unwrap(), Some(event));
                }
            }
            (String::from_utf8(out).unwrap(), None)
        };
        let whole = run(vec![input.as_bytes()]);
        assert_eq!(run(input.as_bytes().chunks(1).collect()), whole);
        whole
    }

    fn login(tag: &str, user: &str, password: &str) -> Option<Event> {
        Some(Event::Login { tag: tag.into(), credentials: Credentials::new(user, password) })
    }

    #[test]
    fn login_in_all_forms() {
        assert_eq!(take(Protection::Tls, "a LOGIN u p\r\n"), (String::new(), login("a", "u", "p")));
        assert_eq!(
            take(Protection::Tls, "a1 LOGIN {1}\r\nu {6}\r\np\r\nw\"x\r\n"),
            ("+ OK\r\n+ OK\r\n".into(), login("a1", "u", "p\r\nw\"x"))
        );
        assert_eq!(take(Protection::None, "a LOGIN \"u\" {2+}\r\np}\r\n"), (String::new(), login("a", "u", "p}")));
        assert_eq!(take(Protection::Tls, "a AUTHENTICATE PLAIN AHUAcA==\r\n"), (String::new(), login("a", "u", "p")));
        assert_eq!(
            take(Protection::Tls, "a authenticate plain\r\nAHUAcA==\r\n"),
            ("+ \r\n".into(), login("a", "u", "p"))
        );
    }

    #[test]
    fn an_exchange_can_be_cancelled_and_gone_on_after() {
        let (out, event) = take(Protection::Tls, "a AUTHENTICATE PLAIN\r\n*\r\nb NOOP\r\nc LOGIN u p\r\n");
        assert_eq!(out, "+ \r\na BAD cancelled\r\nb OK NOOP completed\r\n");
        assert_eq!(event, login("c", "u", "p"));
    }

    #[test]
    fn before_tls_no_password_is_taken() {
        let (out, event) =
            take(Protection::StartTls, "a LOGIN u p\r\nb AUTHENTICATE PLAIN AHUAcA==\r\nc STARTTLS\r\nd NOOP\r\n");
        let refused = "NO [PRIVACYREQUIRED] STARTTLS comes before the login";
        assert_eq!(out, format!("a {refused}\r\nb {refused}\r\nc OK begin TLS now\r\n"));
        assert_eq!(event, Some(Event::StartTls));
        assert!(
            String::from_utf8(NotAuthenticated::new(Protection::StartTls, ALLOWED).greeting())
                .unwrap()
                .contains("LOGINDISABLED")
        );
    }

    #[test]
    fn what_can_be_done_before_login() {
        let (out, event) =
            take(Protection::Tls, "a CAPABILITY\r\nb ID NIL\r\nc STARTTLS\r\nd SELECT x\r\ne LOGOUT\r\nf NOOP\r\n");
        assert_eq!(
            out,
            "* CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID AUTH=PLAIN\r\na OK CAPABILITY completed\r\n\
             * ID (\"name\" \"deltapush\")\r\nb OK ID completed\r\nc BAD STARTTLS is not available here\r\n\
             d BAD unknown command, or one that comes after the login\r\n* BYE logging out\r\ne OK LOGOUT completed\r\n"
        );
        assert_eq!(event, Some(Event::Close));
    }

    #[test]
    fn bad_input_has_an_answer_and_an_end() {
        let (out, _) = take(Protection::Tls, "\r\n\0\r\na LOGIN u\r\nb AUTHENTICATE X\r\nc AUTHENTICATE PLAIN %\r\n");
        assert_eq!(out.lines().filter(|line| line.contains("BAD") || line.contains("NO ")).count(), 5, "{out}");
        let (out, event) = take(Protection::Tls, &"x\r\n".repeat(50));
        assert_eq!((out.lines().count(), event), (ALLOWED.wrong as usize + 1, Some(Event::Close)));
        assert!(out.ends_with("* BYE too many commands without a login\r\n"));
        let (out, event) = take(Protection::Tls, &"x NOOP\r\n".repeat(500));
        assert_eq!((out.lines().count(), event), (ALLOWED.commands as usize + 1, Some(Event::Close)));
    }

    #[test]
    fn what_is_too_long_is_refused_and_not_held() {
        let (out, event) = take(Protection::Tls, "b LOGIN {5000}\r\nc LOGIN u {1900}\r\nd NOOP\r\n");
        assert_eq!((out.as_str(), event), ("b NO [TOOBIG] the literal is too long\r\n+ OK\r\n", None));
        let long = "x".repeat(5000);
        for input in [long.as_str(), &format!("a {long}\r\n"), "c LOGIN {5000+}\r\n", "c LOGIN {4294967295+}\r\n"] {
            let (out, event) = take(Protection::Tls, input);
            assert_eq!(
                (out.as_str(), event),
                ("* BYE [TOOBIG] the command is too long\r\n", Some(Event::Close)),
                "{input}"
            );
        }
    }

    #[test]
    fn a_command_is_under_way_from_its_first_byte_to_its_last() {
        let mut machine = NotAuthenticated::new(Protection::Tls, ALLOWED);
        let mut take = |mut input: &[u8]| {
            machine.take(&mut input, &mut vec![], None);
            machine.under_way()
        };
        let seen = [
            take(b""),
            take(b"a"),
            take(b" NOOP\r\n"),
            take(b"b LOGIN {3}\r\n"),
            take(b"x"),
            take(b"yz p\r\n"),
            take(b"c AUTHENTICATE PLAIN\r\n"),
            take(b"*\r\n"),
        ];
        assert_eq!(seen, [None, Some(0), None, Some(1), Some(1), None, Some(3), None]);
    }

    #[test]
    fn the_transcript_has_no_password() {
        let shown = crate::trace::testing::Shown::default();
        let mut printer = crate::trace::Printer::new("#1".into(), shown.sink());
        for input in [
            "a LOGIN sesame sesame\r\n",
            "b LOGIN {6+}\r\nsesame {6+}\r\nsesame\r\n",
            "c AUTHENTICATE PLAIN sesame==\r\n",
            "d AUTHENTICATE PLAIN\r\nsesame\r\n",
            "sesame\r\n",
            "e LOGIM sesame sesame\r\n",
        ] {
            let mut machine = NotAuthenticated::new(Protection::Tls, ALLOWED);
            machine.take(&mut input.as_bytes(), &mut vec![], Some(&mut printer));
        }
        drop(printer);
        let shown = shown.text();
        assert!(shown.contains("C: a LOGIN<") && !shown.contains("sesame"), "{shown}");
    }
}
