//! `parser::command`, `parser::quote`: a head that is known stays what it is, and what is written can be read again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltapush::parser::command::{self, SaslLine};
use deltapush::parser::quote::{is_quotable, push_quoted, push_server_string};
use deltapush::secret::Credentials;

use super::events;

pub(crate) fn check(data: &[u8]) {
    let (settings, line) = events::settings(data);
    a_head_stays_what_it_is(line);
    whatever_is_read(line);
    let (user, password) = line.split_at(line.len() * usize::from(settings) / 256);
    a_login_can_be_read_again(user, password);
    a_sasl_message_can_be_read_again(user, password);
}

fn a_head_stays_what_it_is(line: &[u8]) {
    let line = line.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut known = None;
    for end in (0..=line.len()).filter(|end| *end < 64 || end % 61 == 0 || *end > line.len() - 4) {
        let head = command::head(&line[..end]);
        assert!(known.is_none() || head == known, "at {end}: {head:?} was {known:?}");
        if let Some(head) = head {
            assert!(head.len <= end);
        }
        known = head;
    }
    assert!(known.is_some() || !line.ends_with(b"\n") && line.len() < command::HEAD_LIMIT);
}

/// Nothing panics, and nothing is read that was not written.
fn whatever_is_read(line: &[u8]) {
    let _ = command::has_no_arguments(line);
    if let Some(credentials) = command::login(line) {
        assert!(credentials.user.len() + credentials.password.expose().len() < line.len());
    }
    if let Some(name) = command::mailbox(line) {
        assert!(is_quotable(name.as_bytes()));
    }
    if let Some((mechanism, response)) = command::authenticate(line) {
        assert!(!mechanism.is_empty() && response.is_none_or(|response| !response.is_empty()));
    }
    if let SaslLine::Response(message) = command::sasl_line(line) {
        let _ = command::plain_message(&message);
    }
    let _ = command::plain_message(line);
}

fn a_login_can_be_read_again(user: &[u8], password: &[u8]) {
    let mut command = b"a1 LOGIN ".to_vec();
    for (index, string) in [user, password].into_iter().enumerate() {
        if index > 0 {
            command.push(b' ');
        }
        let start = command.len();
        push_server_string(&mut command, string);
        assert!(!is_quotable(string) || !command[start..].contains(&b'\n') && command[start] == b'"');
    }
    command.extend_from_slice(b"\r\n");
    let read = command::login(&command);
    match std::str::from_utf8(user) {
        Ok(user) => assert_eq!(read.expect("a login"), Credentials::new(user, password)),
        Err(_) => assert!(read.is_none(), "a user name that is not UTF-8"),
    }
    if is_quotable(user) {
        let mut command = b"a1 SELECT ".to_vec();
        push_quoted(&mut command, user);
        command.extend_from_slice(b"\r\n");
        assert_eq!(command.iter().filter(|byte| **byte == b'\n').count(), 1);
        if let Some(name) = command::mailbox(&command) {
            assert_eq!(name.as_bytes(), user);
        }
    }
}

fn a_sasl_message_can_be_read_again(user: &[u8], password: &[u8]) {
    let Ok(user) = std::str::from_utf8(user) else { return };
    if user.is_empty() || password.is_empty() || user.contains('\0') || password.contains(&0) {
        return;
    }
    let credentials = Credentials::new(user, password);
    let line = [STANDARD.encode(&**credentials.plain_message()).as_bytes(), b"\r\n"].concat();
    let SaslLine::Response(message) = command::sasl_line(&line) else { panic!("it was base64") };
    assert!(command::plain_message(&message).expect("a message") == credentials);
}
