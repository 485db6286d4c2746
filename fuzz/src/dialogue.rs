//! `upstream::login_machine`: what a server may say while deltapush logs in to it.

use std::cell::RefCell;
use std::time::Instant;

use deltapush::config::Security;
use deltapush::credentials::Mechanism;
use deltapush::credentials::{CredentialKind, Credentials};
use deltapush::machine::Machine;
use deltapush::parser::command::{self, Verb};
use deltapush::parser::id::{self, MAX_NAME};
use deltapush::parser::reader::ResponseReader;
use deltapush::parser::response;
use deltapush::parser::sasl::{self, SaslLine};
use deltapush::secret::Secret;
use deltapush::upstream::id::Introduction;
use deltapush::upstream::login_machine::{
    LoggedIn, LoginAction, LoginError, LoginInput, LoginMachine, OutgoingLine, Purpose,
};

use super::events;

/// A password that stands in no protocol text.
const SECRET: &str = "sesame%öffne%dich";

/// The same where only ASCII has place.
const ASCII_SECRET: &str = "sesame%oeffne%dich";

/// Lines kept for the client, and their limit.
const MAX_FOR_CLIENT: usize = 32;

/// A client's answer to a challenge.
const RESPONSE: &[u8] = b"c=biws,r=abc,p=def";

pub(crate) fn check(data: &[u8]) {
    let (settings, script) = events::settings(data);
    let mut events = events::events(script);
    let secret = settings & 1 == 0;
    // The first event names who logs in, with what, for whom, and what the client has said of itself.
    let (_, who) = events.next().unwrap_or_default();
    let Some((credentials, client)) = credentials(settings, secret, who) else { return };
    let security = if settings & 2 == 0 { Security::Tls } else { Security::StartTls };
    let purpose = match settings >> 2 & 3 {
        0 => Purpose::Watch,
        probe => Purpose::Client { probe: probe & 1 == 1 },
    };
    // No client gets through with a longer name of a field.
    let name = &client[..client.len().min(MAX_NAME)];
    let introduction = Introduction {
        client: (settings & 64 != 0)
            .then(|| vec![(b"name".to_vec(), Some(client.to_vec())), (name.to_vec(), None)]),
        extra: if settings & 128 == 0 {
            vec![]
        } else {
            vec![(b"x-originating-ip".to_vec(), Some(b"::1".to_vec()))]
        },
    };
    let machine =
        LoginMachine::new(credentials.clone(), security, purpose).introducing(introduction);
    let run = Run { credentials: &credentials, secret, security, sent: RefCell::default() };
    run.play(machine, events.map(|(_, said)| said).collect::<Vec<_>>().concat().as_slice());
}

/// As one of the mechanisms gives them, and what else the event has.
fn credentials(settings: u8, secret: bool, who: &[u8]) -> Option<(Credentials, &[u8])> {
    let mut parts = who.splitn(4, |byte| *byte == b'|');
    let mut part = || parts.next().unwrap_or_default();
    let (user, password, authorization, client) = (part(), part(), part(), part());
    let user = sasl::user_name(user)?;
    let ascii = if secret { ASCII_SECRET.as_bytes() } else { password };
    let credentials = match settings >> 4 & 3 {
        0 if secret => Credentials::new(user, SECRET),
        0 => Credentials::new(user, Some(password).filter(|password| sasl::is_password(password))?),
        1 => {
            let message =
                [b"user=", user.as_bytes(), b"\x01auth=Bearer ", ascii, b"\x01\x01"].concat();
            sasl::xoauth2_message(&message)?
        }
        number => {
            let mechanism = if number == 2 { Mechanism::ScramSha1 } else { Mechanism::ScramSha256 };
            let message = [b"n,,n=", sasl::encoded_name(&user).as_bytes(), b",r=", ascii].concat();
            sasl::scram_first(mechanism, &message).ok()?
        }
    };
    let authorization =
        sasl::user_name(authorization).filter(|_| credentials.kind == CredentialKind::Password);
    Some((credentials.on_behalf_of(authorization.unwrap_or_default()), client))
}

fn handle(machine: &mut LoginMachine, input: LoginInput<'_>) -> Option<LoginAction> {
    let mut actions = vec![];
    machine.handle(input, Instant::now(), &mut actions);
    assert!(actions.len() <= 1, "an input leads to one action at most");
    actions.pop()
}

struct Run<'a> {
    credentials: &'a Credentials,
    secret: bool,
    security: Security,
    /// Bytes sent since the last command began.
    sent: RefCell<Vec<u8>>,
}

impl Run<'_> {
    fn play(&self, mut machine: LoginMachine, mut script: &[u8]) {
        let mut reader = ResponseReader::new(1000);
        let mut has_tls = self.security == Security::Tls;
        while let Ok(Some(line)) = reader.next(&mut script) {
            let mut action = handle(&mut machine, LoginInput::Response(&line));
            if matches!(action, Some(LoginAction::StartTls)) {
                assert!(!has_tls, "TLS within TLS");
                has_tls = true;
                action = handle(&mut machine, LoginInput::Secured);
            }
            match action {
                None => {}
                Some(LoginAction::Send(said)) => self.sends(&said, has_tls),
                Some(LoginAction::Challenge(challenge)) => {
                    self.is_challenged(&challenge);
                    let response = Secret::new(RESPONSE.to_vec());
                    match handle(&mut machine, LoginInput::ClientResponse(&response)) {
                        Some(LoginAction::Send(said)) => self.relays(&said),
                        _ => panic!("the client's response is not sent"),
                    }
                }
                Some(LoginAction::LoggedIn(logged_in)) => {
                    assert!(has_tls, "authenticated before TLS");
                    return self.logged_in(&logged_in);
                }
                Some(LoginAction::Failed(error)) => return self.failed(&error),
                Some(LoginAction::StartTls) => unreachable!("it was dealt with"),
            }
        }
    }

    /// For any server and any login, the output is one command, or a part of it that was asked for.
    fn sends(&self, said: &OutgoingLine, has_tls: bool) {
        let bytes = said.bytes.as_slice();
        let (plain, secret) = bytes.split_at(said.secret_from);
        assert!(!self.secret || !has_secret(plain), "the transcript would show it");
        let mut sent = self.sent.borrow_mut();
        if plain.starts_with(b"dp") {
            sent.clear();
        } else if is_acknowledgement(bytes) && self.has_said_all(&sent) {
            // To a challenge after everything was said.
            return assert_eq!(said.secret_from, 0);
        }
        sent.extend_from_slice(bytes);
        let Some(head) = command::head(&sent) else { panic!("what is {}?", sent.escape_ascii()) };
        match head.verb {
            Verb::Login => {
                assert!(
                    self.credentials.kind == CredentialKind::Password
                        && self.credentials.authorization.is_none()
                );
                assert!(
                    has_tls && (plain.is_empty() || plain.ends_with(b" LOGIN "))
                        || secret.is_empty()
                );
                if let Some(read) = command::login(&sent) {
                    assert_eq!(
                        (&read.user, read.password.expose()),
                        (&self.credentials.user, self.password())
                    );
                } else {
                    // Half of it: it goes on after a literal's announcement.
                    assert!(bytes.ends_with(b"}\r\n"), "{}", sent.escape_ascii());
                }
            }
            Verb::Authenticate => self.authenticates(&sent, has_tls),
            verb => {
                assert_eq!(
                    sent.iter().filter(|byte| **byte == b'\n').count(),
                    1,
                    "{}",
                    sent.escape_ascii()
                );
                if verb == Verb::Id {
                    assert!(has_tls && id::fields(&sent).is_some(), "{}", sent.escape_ascii());
                }
            }
        }
    }

    /// The messages come one after the other, and are read as the credentials that they are made of.
    fn authenticates(&self, sent: &[u8], has_tls: bool) {
        assert!(has_tls);
        let (mechanism, messages) = messages(sent);
        let credentials = self.credentials;
        assert!(messages.len() <= expected(mechanism), "nothing is said after it");
        if mechanism == Mechanism::Login {
            let all = [credentials.user.as_bytes(), self.password()];
            assert!(
                messages.iter().zip(all).all(|(message, expected)| message.expose() == expected)
            );
            return assert!(credentials.authorization.is_none());
        }
        let Some(message) = messages.first() else { return };
        let read = match mechanism {
            Mechanism::Plain => {
                return assert!(message.expose() == credentials.plain_message().as_slice());
            }
            Mechanism::XOAuth2 => sasl::xoauth2_message(message.expose()),
            Mechanism::OAuthBearer => sasl::oauthbearer_message(message.expose()),
            Mechanism::ScramSha1 | Mechanism::ScramSha256 => {
                sasl::scram_first(mechanism, message.expose()).ok()
            }
            Mechanism::Login => unreachable!("it was dealt with"),
        };
        assert!(
            read.as_ref() == Some(credentials),
            "{mechanism:?}: {}",
            message.expose().escape_ascii()
        );
    }

    fn has_said_all(&self, sent: &[u8]) -> bool {
        let is_authenticate =
            command::head(sent).is_some_and(|head| head.verb == Verb::Authenticate);
        is_authenticate && {
            let (mechanism, messages) = messages(sent);
            messages.len() == expected(mechanism)
        }
    }

    /// A client gets one line, and only after everything was said for it.
    fn is_challenged(&self, challenge: &[u8]) {
        assert!(self.has_said_all(&self.sent.borrow()));
        assert!(!challenge.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
    }

    fn relays(&self, said: &OutgoingLine) {
        let is_exchange = matches!(self.credentials.kind, CredentialKind::Exchange(_));
        assert_eq!(said.secret_from, 0);
        match sasl::sasl_line(&said.bytes) {
            SaslLine::Response(response) if is_exchange => assert!(response.expose() == RESPONSE),
            _ => assert!(!is_exchange && is_acknowledgement(&said.bytes)),
        }
    }

    fn password(&self) -> &[u8] {
        self.credentials.password.expose()
    }

    fn failed(&self, error: &LoginError) {
        if let LoginError::Refused { answer, untagged } = error {
            assert!(!self.secret || !has_secret(answer));
            self.is_for_the_client(answer, untagged);
        }
    }

    fn logged_in(&self, logged_in: &LoggedIn) {
        self.is_for_the_client(&logged_in.answer, &logged_in.untagged);
    }

    /// The client gets an answer of one line and whole responses, without the password that the server may repeat.
    fn is_for_the_client(&self, answer: &[u8], untagged: &[u8]) {
        let line = [b"a1 ", answer, b"\r\n"].concat();
        assert!(
            response::status(&line).is_some_and(|status| status.tag == Some(b"a1")),
            "{}",
            line.escape_ascii()
        );
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

/// The mechanism of an AUTHENTICATE, and what was said in it so far.
fn messages(sent: &[u8]) -> (Mechanism, Vec<Secret>) {
    let mut lines = sent.split_inclusive(|byte| *byte == b'\n');
    let command = lines.next().unwrap_or_default();
    let Some((name, initial)) = command::authenticate(command) else {
        panic!("{}", command.escape_ascii())
    };
    let decoded = |line: &[u8]| match sasl::sasl_line(line) {
        SaslLine::Response(message) => message,
        other => panic!("{other:?}"),
    };
    (
        Mechanism::from_name(name).expect("a known one"),
        initial.into_iter().chain(lines).map(decoded).collect(),
    )
}

/// The number of messages that deltapush says by itself.
fn expected(mechanism: Mechanism) -> usize {
    if mechanism == Mechanism::Login { 2 } else { 1 }
}

fn is_acknowledgement(line: &[u8]) -> bool {
    line == b"\r\n" || line == b"AQ==\r\n"
}

fn has_secret(bytes: &[u8]) -> bool {
    [SECRET, ASCII_SECRET].iter().any(|secret| events::contains(bytes, secret.as_bytes()))
}
