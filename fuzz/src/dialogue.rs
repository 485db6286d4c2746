//! `upstream::dialogue`: what a server may say while deltapush logs in to it.

use std::cell::RefCell;

use deltapush::config::Security;
use deltapush::parser::command::{self, SaslLine};
use deltapush::parser::reader::ResponseReader;
use deltapush::parser::response;
use deltapush::secret::Credentials;
use deltapush::upstream::dialogue::{Dialogue, LoggedIn, LoginError, Purpose, Step};

use super::events;

/// A password that stands in no protocol text.
const SECRET: &str = "sesame%öffne%dich";

/// Lines kept for the client, and their limit.
const MAX_FOR_CLIENT: usize = 32;

pub(crate) fn check(data: &[u8]) {
    let (settings, script) = events::settings(data);
    let mut events = events::events(script);
    let secret = settings & 1 == 0;
    // The first event names who logs in, and with what.
    let (_, who) = events.next().unwrap_or_default();
    let mut parts = who.splitn(3, |byte| *byte == b'|');
    let mut part = || parts.next().unwrap_or_default();
    let (user, password, authorization) = (part(), part(), part());
    let Ok(user) = std::str::from_utf8(user) else { return };
    let mut credentials = Credentials::new(user, if secret { SECRET.as_bytes() } else { password });
    credentials.authorization = String::from_utf8(authorization.to_vec()).ok().filter(|other| !other.is_empty());
    let security = if settings & 2 == 0 { Security::Tls } else { Security::StartTls };
    let purpose = match settings >> 2 & 3 {
        0 => Purpose::Watch,
        probe => Purpose::Client { probe: probe & 1 == 1 },
    };
    let run = Run { credentials: &credentials, secret, security, sent: RefCell::default() };
    run.play(purpose, events.map(|(_, said)| said).collect::<Vec<_>>().concat().as_slice());
}

struct Run<'a> {
    credentials: &'a Credentials,
    secret: bool,
    security: Security,
    /// What was sent since the last command began.
    sent: RefCell<Vec<u8>>,
}

impl Run<'_> {
    fn play(&self, purpose: Purpose, mut script: &[u8]) {
        let mut dialogue = Dialogue::new(self.credentials.clone(), self.security, purpose);
        let mut reader = ResponseReader::new(1000);
        let mut has_tls = self.security == Security::Tls;
        while let Ok(Some(line)) = reader.next(&mut script) {
            let mut step = match dialogue.response(&line) {
                Ok(Some(step)) => step,
                Ok(None) => continue,
                Err(error) => return self.failed(&error),
            };
            if matches!(step, Step::StartTls) {
                assert!(!has_tls, "TLS within TLS");
                has_tls = true;
                step = dialogue.secured();
            }
            match step {
                Step::Send { bytes, secret_from } => self.sends(&bytes, secret_from, has_tls),
                Step::LoggedIn(logged_in) => {
                    assert!(has_tls, "authenticated before TLS");
                    return self.logged_in(&logged_in);
                }
                Step::StartTls => unreachable!("it was dealt with"),
            }
        }
    }

    /// Whatever the server says and whoever logs in, what is sent is one command, or a part of it that was asked for.
    fn sends(&self, bytes: &[u8], secret_from: usize, has_tls: bool) {
        if bytes == b"\r\n" {
            // To a challenge after everything was said.
            assert!(secret_from == 0 && self.sent.borrow().ends_with(b"\r\n"));
            return;
        }
        let (plain, secret) = bytes.split_at(secret_from);
        assert!(!self.secret || !has_secret(plain), "the transcript would show it");
        let mut sent = self.sent.borrow_mut();
        if plain.starts_with(b"dp") {
            sent.clear();
        }
        sent.extend_from_slice(bytes);
        let Some(head) = command::head(&sent) else { panic!("what is {}?", sent.escape_ascii()) };
        match head.verb {
            command::Verb::Login => {
                assert!(has_tls && (plain.is_empty() || plain.ends_with(b" LOGIN ")) || secret.is_empty());
                if let Some(read) = command::login(&sent) {
                    assert_eq!((&read.user, read.password.expose()), (&self.credentials.user, self.password()));
                } else {
                    // Half of it: it goes on after a literal's announcement.
                    assert!(bytes.ends_with(b"}\r\n"), "{}", sent.escape_ascii());
                }
            }
            command::Verb::Authenticate => self.authenticates(&sent, has_tls),
            _ => assert_eq!(sent.iter().filter(|byte| **byte == b'\n').count(), 1, "{}", sent.escape_ascii()),
        }
    }

    fn authenticates(&self, sent: &[u8], has_tls: bool) {
        assert!(has_tls);
        let mut lines = sent.split_inclusive(|byte| *byte == b'\n');
        let command = lines.next().unwrap_or_default();
        let Some((b"PLAIN", initial)) = command::authenticate(command) else { panic!("{}", command.escape_ascii()) };
        let Some(message) = initial.or_else(|| lines.next()) else { return };
        let SaslLine::Response(message) = command::sasl_line(message) else { panic!("this is base64") };
        assert!(message == self.credentials.plain_message());
        assert!(lines.next().is_none(), "nothing is said after it");
    }

    fn password(&self) -> &[u8] {
        self.credentials.password.expose()
    }

    fn failed(&self, error: &LoginError) {
        if let LoginError::Refused { answer, untagged } = error {
            self.is_for_the_client(answer, untagged);
        }
    }

    fn logged_in(&self, logged_in: &LoggedIn) {
        self.is_for_the_client(&logged_in.answer, &logged_in.untagged);
    }

    /// What the client gets is an answer of one line and whole responses, without the password that the server may repeat.
    fn is_for_the_client(&self, answer: &[u8], untagged: &[u8]) {
        let line = [b"a1 ", answer, b"\r\n"].concat();
        assert!(response::status(&line).is_some_and(|status| status.tag == Some(b"a1")), "{}", line.escape_ascii());
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert!(!self.secret || !has_secret(untagged));
        let mut rest = untagged;
        let mut reader = ResponseReader::new(1000);
        let mut count = 0;
        while let Ok(Some(_)) = reader.next(&mut rest) {
            count += 1;
        }
        assert!(count <= MAX_FOR_CLIENT && rest.is_empty());
    }
}

fn has_secret(bytes: &[u8]) -> bool {
    events::contains(bytes, SECRET.as_bytes())
}
