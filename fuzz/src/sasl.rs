//! `parser::sasl` and the exchange before the login: the name in a message, in any mechanism, is read as the same, and no
//! other is read.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltapush::credentials::Mechanism;
use deltapush::credentials::{CredentialKind, Credentials};
use deltapush::parser::sasl::{self, SaslLine};
use deltapush::proxy::preauth::{
    Allowance, NotAuthenticated, PreauthEvent, PreauthInput, PreauthTurn, Protection,
};

use super::events::{self, Shown};

const ALLOWANCE: Allowance = Allowance {
    command: 2000,
    commands: 5,
    wrong: 5,
    logins: 5,
    login_name: 320,
    command_time: Duration::from_secs(60),
};

/// As much of a message as nobody says by chance.
const FRAGMENT: usize = 12;

pub(crate) fn check(data: &[u8]) {
    let (settings, message) = events::settings(data);
    let (mechanism, name) = Mechanism::ALL[usize::from(settings) % Mechanism::ALL.len()];
    assert_eq!(
        (Mechanism::from_name(name.to_ascii_lowercase().as_bytes()), mechanism.name()),
        (Some(mechanism), name)
    );
    a_line_is_read(message);
    let read = read(mechanism, message);
    if let Some(credentials) = &read {
        can_be_handed_on(credentials);
    }
    what_is_written_is_read(message);
    if mechanism != Mechanism::Login {
        the_exchange_reads_the_same(name, message, settings & 128 != 0, read.as_ref());
    } else {
        let (user, password) = message.split_at(message.len() * usize::from(settings) / 256);
        login_asks_twice(user, password);
    }
}

fn a_line_is_read(line: &[u8]) {
    match sasl::sasl_line(line) {
        SaslLine::Cancelled => assert_eq!(line.trim_ascii_end(), b"*"),
        SaslLine::Malformed => assert!(!line.is_empty()),
        SaslLine::Response(message) => assert!(message.expose().len() <= line.len() / 4 * 3),
    }
}

fn read(mechanism: Mechanism, message: &[u8]) -> Option<Credentials> {
    match mechanism {
        Mechanism::Plain => sasl::plain_message(message),
        Mechanism::XOAuth2 => sasl::xoauth2_message(message),
        Mechanism::OAuthBearer => sasl::oauthbearer_message(message),
        Mechanism::ScramSha1 | Mechanism::ScramSha256 => sasl::scram_first(mechanism, message).ok(),
        Mechanism::Login => None,
    }
}

/// Names end no line, nor a message of PLAIN; and so does no password.
fn can_be_handed_on(credentials: &Credentials) {
    let names = credentials.authorization.iter().chain([&credentials.user]);
    names.for_each(|name| assert!(!name.is_empty() && !name.contains(['\0', '\r', '\n'])));
    assert_ne!(credentials.authorization.as_ref(), Some(&credentials.user));
    let password = credentials.password.expose();
    assert!(!password.is_empty() && !password.contains(&0));
    match credentials.kind {
        CredentialKind::Password => {
            assert!(
                sasl::plain_message(&credentials.plain_message()).as_ref() == Some(credentials)
            );
        }
        CredentialKind::Token => assert!(password.iter().all(u8::is_ascii_graphic)),
        CredentialKind::Exchange(_) => {
            assert!(!password.iter().any(|byte| matches!(byte, b'\r' | b'\n')))
        }
    }
    assert_eq!(
        credentials.to_keep().password.expose().is_empty(),
        matches!(credentials.kind, CredentialKind::Exchange(_))
    );
}

/// Any name that is written by the rules is read as the same.
fn what_is_written_is_read(bytes: &[u8]) {
    let (name, token) = bytes.split_at(bytes.len() / 2);
    let Some(user) = sasl::user_name(name).filter(|user| !user.is_empty()) else { return };
    let encoded = sasl::encoded_name(&user);
    assert!(!encoded.contains(','));
    let scram = format!("y,a=x,n={encoded},r=abc");
    let credentials =
        sasl::scram_first(Mechanism::ScramSha256, scram.as_bytes()).expect("well-formed");
    assert_eq!(credentials.user, user);
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return;
    }
    let expected = Credentials::bearer(user.as_str(), token);
    let oauth =
        [format!("n,a={encoded},\u{1}host=x\u{1}auth=bearer ").as_bytes(), token, b"\x01\x01"]
            .concat();
    // A separator within the name ends a field, and there is none of that name.
    if !user.contains('\u{1}') {
        assert!(sasl::oauthbearer_message(&oauth).as_ref() == Some(&expected));
        let google =
            [format!("user={user}\u{1}auth=Bearer ").as_bytes(), token, b"\x01\x01"].concat();
        assert!(sasl::xoauth2_message(&google).as_ref() == Some(&expected));
    }
}

/// With and without initial response.
fn the_exchange_reads_the_same(
    name: &str,
    message: &[u8],
    initial: bool,
    expected: Option<&Credentials>,
) {
    let encoded = if message.is_empty() && initial { "=".into() } else { STANDARD.encode(message) };
    let command = if initial {
        format!("a AUTHENTICATE {name} {encoded}\r\n")
    } else {
        format!("a AUTHENTICATE {name}\r\n")
    };
    let mut shown = Shown::default();
    let mut machine = not_authenticated(Protection::Tls);
    let (mut said, mut event) = send(&mut machine, &command, &mut shown);
    if !initial {
        assert_eq!((said.as_slice(), &event), (&b"+ \r\n"[..], &None));
        (said, event) = send(&mut machine, &format!("{encoded}\r\n"), &mut shown);
    }
    match event {
        Some(PreauthEvent::Login { tag, credentials }) => {
            assert!(tag == b"a" && expected == Some(&credentials) && said.is_empty());
        }
        _ => assert!(
            expected.is_none() && (said.starts_with(b"a BAD ") || said.starts_with(b"a NO ")),
            "{event:?}"
        ),
    }
    for fragment in encoded.as_bytes().chunks_exact(FRAGMENT) {
        assert!(!events::contains(&shown.0, fragment), "{}", shown.0.escape_ascii());
    }
}

fn login_asks_twice(user: &[u8], password: &[u8]) {
    let mut shown = Shown::default();
    let mut machine = not_authenticated(Protection::None);
    assert!(send(&mut machine, "a AUTHENTICATE login\r\n", &mut shown).0.starts_with(b"+ "));
    let line = |bytes: &[u8]| format!("{}\r\n", STANDARD.encode(bytes));
    let (asked, _) = send(&mut machine, &line(user), &mut shown);
    let Some(user) = sasl::user_name(user).filter(|user| !user.is_empty()) else {
        return assert!(asked.starts_with(b"a BAD "));
    };
    assert!(asked.starts_with(b"+ "));
    let (answer, event) = send(&mut machine, &line(password), &mut shown);
    match event {
        Some(PreauthEvent::Login { credentials, .. }) => {
            assert!(credentials == Credentials::new(user, password))
        }
        _ => assert!(!sasl::is_password(password) && answer.starts_with(b"a BAD ")),
    }
}

fn send(
    machine: &mut NotAuthenticated,
    line: &str,
    shown: &mut Shown,
) -> (Vec<u8>, Option<PreauthEvent>) {
    let input = PreauthInput::Received(line.as_bytes());
    let turn = PreauthTurn::of(machine, input, Instant::now(), Some(shown));
    assert_eq!(turn.used, line.len());
    (turn.answer, turn.event)
}

fn not_authenticated(protection: Protection) -> NotAuthenticated {
    NotAuthenticated::new(protection, ALLOWANCE, Instant::now() + Duration::from_secs(60))
}
