//! `proxy::preauth`: what a stranger may send before the login.

use std::time::{Duration, Instant};

use deltapush::credentials::CredentialKind;
use deltapush::parser::framer::{Fragment, Framer};
use deltapush::parser::id::Field;
use deltapush::proxy::preauth::{
    Allowance, NotAuthenticated, PreauthEvent, PreauthInput, PreauthTurn, Protection,
};

use super::events::{self, Shown};

/// Short, so that inputs go over it.
const ALLOWANCE: Allowance = Allowance {
    command: 200,
    commands: 9,
    wrong: 6,
    logins: 3,
    login_name: 320,
    command_time: Duration::from_secs(60),
};

/// More events than any connection may have: each but a login and the answers to two challenges ends it.
const MAX_EVENTS: usize = 3 * ALLOWANCE.logins as usize + 2;

/// The outcome of a connection. Bytes after its end are thrown away.
#[derive(Debug, PartialEq)]
struct Outcome {
    said: Vec<u8>,
    events: Vec<PreauthEvent>,
    id: Option<Vec<Field>>,
}

pub(crate) fn check(data: &[u8]) {
    let (settings, stream) = events::settings(data);
    let protection = match settings & 3 {
        0 | 3 => Protection::Tls,
        1 => Protection::StartTls,
        _ => Protection::None,
    };
    let whole = run(protection, stream.chunks(stream.len().max(1)), None);
    let mut shown = Shown::default();
    assert_eq!(run(protection, stream.chunks(1), Some(&mut shown)), whole, "byte by byte");
    assert_eq!(run(protection, stream.chunks(usize::from(settings).max(2)), None), whole);
    answers_are_lines(&whole.said);
    for event in &whole.events {
        match event {
            PreauthEvent::StartTls => assert_eq!(protection, Protection::StartTls),
            PreauthEvent::Login { tag, .. } => {
                assert_ne!(protection, Protection::StartTls, "no password is taken before TLS");
                assert!(
                    !tag.is_empty() && !tag.iter().any(|byte| matches!(byte, b' ' | b'\r' | b'\n'))
                );
            }
            PreauthEvent::Close | PreauthEvent::Response(_) => {}
            PreauthEvent::TimedOut => unreachable!("no time passes"),
        }
    }
}

fn run<'a>(
    protection: Protection,
    chunks: impl Iterator<Item = &'a [u8]>,
    mut shown: Option<&mut Shown>,
) -> Outcome {
    let now = Instant::now();
    let mut machine = NotAuthenticated::new(protection, ALLOWANCE, now + Duration::from_secs(60))
        .offering_scram(true);
    let greeting = PreauthTurn::of(&mut machine, PreauthInput::Start, now, None);
    let mut outcome = Outcome { said: greeting.answer, events: vec![], id: None };
    let mut challenges = 0;
    let mut is_over = false;
    for mut chunk in chunks {
        while !is_over && !chunk.is_empty() {
            let transcript =
                shown.as_deref_mut().map(|shown| shown as &mut dyn deltapush::trace::Transcript);
            let input = PreauthInput::Received(chunk);
            let PreauthTurn { used, answer, event } =
                PreauthTurn::of(&mut machine, input, now, transcript);
            chunk = &chunk[used..];
            outcome.said.extend(answer);
            let Some(event) = event else {
                assert!(chunk.is_empty());
                break;
            };
            // Every login is refused here, SCRAM after two challenges: with the others it ends sooner.
            let is_refused = match &event {
                PreauthEvent::Login { credentials, .. }
                    if matches!(credentials.kind, CredentialKind::Exchange(_)) =>
                {
                    challenges = 2;
                    false
                }
                PreauthEvent::Login { .. } => true,
                PreauthEvent::Response(_) => challenges == 0,
                PreauthEvent::StartTls | PreauthEvent::Close | PreauthEvent::TimedOut => {
                    is_over = true;
                    false
                }
            };
            if is_refused {
                let input = PreauthInput::Refused(b"");
                let turn = PreauthTurn::of(&mut machine, input, now, None);
                outcome.said.extend(turn.answer);
                is_over = turn.event.is_some();
            }
            if challenges > 0 {
                challenges -= 1;
                PreauthTurn::of(&mut machine, PreauthInput::Challenge, now, None);
                outcome.said.extend_from_slice(b"+ \r\n");
            }
            outcome.events.push(event);
            assert!(outcome.events.len() < MAX_EVENTS);
        }
    }
    outcome.id = machine.client_id().map(<[Field]>::to_vec);
    outcome
}

/// A client makes of them what they are: one line each, none with a line of the client's in it.
fn answers_are_lines(said: &[u8]) {
    let mut framer = Framer::new();
    let mut rest = said;
    while let Some((fragment, after)) = framer.next(rest) {
        rest = after;
        let Fragment::Line { bytes, end } = fragment else {
            unreachable!("no literal is announced")
        };
        assert!(end.is_some() && bytes.ends_with(b"\r\n"), "{}", bytes.escape_ascii());
        assert!(!bytes[..bytes.len() - 2].iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
}
