//! `parser::command`, `parser::quote`: a head that is known stays what it is, and what is written can be read again.

use deltapush::credentials::Credentials;
use deltapush::parser::command;
use deltapush::parser::quote::{is_quotable, push_quoted, push_server_string};
use deltapush::parser::sasl::{is_password, user_name};

use super::events;

pub(crate) fn check(data: &[u8]) {
    let (settings, line) = events::settings(data);
    a_head_stays_what_it_is(line);
    whatever_is_read(line);
    let (user, password) = line.split_at(line.len() * usize::from(settings) / 256);
    a_login_can_be_read_again(user, password);
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
    if let Some(mechanism) = command::compress_mechanism(line) {
        assert!(!mechanism.is_empty());
    }
}

fn a_login_can_be_read_again(user: &[u8], password: &[u8]) {
    let mut command = b"a1 LOGIN ".to_vec();
    for (index, string) in [user, password].into_iter().enumerate() {
        if index > 0 {
            command.push(b' ');
        }
        let start = command.len();
        push_server_string(&mut command, string);
        assert!(
            !is_quotable(string) || !command[start..].contains(&b'\n') && command[start] == b'"'
        );
    }
    command.extend_from_slice(b"\r\n");
    let read = command::login(&command);
    match user_name(user).filter(|_| is_password(password)) {
        Some(user) => assert_eq!(read.expect("a login"), Credentials::new(user, password)),
        None => assert!(read.is_none(), "what cannot be handed on"),
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
