//! `parser::id`, `upstream::id` and the session's part: what clients say of themselves goes on within the RFC's bounds, with
//! deltapush's name, and never as the word of a proxy.

use std::sync::{Arc, LazyLock};

use deltapush::parser::id::{self, Field, MAX_FIELDS, MAX_NAME, MAX_VALUE};
use deltapush::parser::quote::is_quotable;
use deltapush::proxy::session::{Session, SessionSettings, UpstreamTraits};
use deltapush::proxy::session_log::{self, LoggedSession};
use deltapush::upstream::id::{Introduction, command, own, with_own_name};

use super::events;

/// Fields that only a proxy may send.
const OF_PROXIES: [&str; 5] =
    ["x-originating-", "x-connected-", "x-proxy-", "x-session-", "x-forward-"];

pub(crate) fn check(data: &[u8]) {
    let (settings, arguments) = events::settings(data);
    let command = [b"a ID ", arguments, b"\r\n"].concat();
    // Fields that a client may have sent, and those that it did send.
    let said = id::fields(&command);
    if let Some(fields) = &said {
        is_within_bounds(fields);
        goes_on(fields);
        before_the_login(fields, usize::from(settings) % 8);
        is_read_again(fields);
    }
    through_a_session(&command, said.as_deref(), settings);
    let pairs = arguments.split(|byte| *byte == b',').take(MAX_FIELDS);
    let made: Vec<Field> = pairs
        .map(|pair| {
            let (name, value) = pair.split_at(pair.len().min(usize::from(settings & 31)));
            (name.to_vec(), Some(value.to_vec()).filter(|value| !value.is_empty()))
        })
        .collect();
    goes_on(&made);
    before_the_login(&made, usize::from(settings >> 5));
    is_read_again(&made);
}

fn is_within_bounds(fields: &[Field]) {
    assert!(fields.len() <= MAX_FIELDS);
    let is_value =
        |value: &Option<Vec<u8>>| value.as_ref().is_none_or(|value| value.len() <= MAX_VALUE);
    assert!(fields.iter().all(|(name, value)| name.len() <= MAX_NAME && is_value(value)));
}

fn goes_on(client: &[Field]) {
    let fields = with_own_name(client);
    is_bounded_and_honest(&fields);
    if fields != own() {
        let (via, rest) = fields.split_last().expect("never an empty list");
        assert!(
            via.0 == b"x-via"
                && via.1.as_ref().is_some_and(|value| events::contains(value, b"deltapush "))
        );
        assert!(rest.iter().all(|field| client.contains(field)), "nothing is made up");
    }
    if client.len() <= MAX_FIELDS
        && client
            .iter()
            .all(|(name, value)| is_plain(name) && value.as_deref().is_none_or(is_plain))
    {
        is_within_bounds(&fields);
    }
}

fn is_plain(bytes: &[u8]) -> bool {
    bytes.len() <= MAX_NAME
}

fn is_bounded_and_honest(fields: &[Field]) {
    assert!(!fields.is_empty() && fields.len() <= MAX_FIELDS);
    for (name, _) in fields {
        let name = name.to_ascii_lowercase();
        assert!(!OF_PROXIES.iter().any(|start| name.starts_with(start.as_bytes())));
        assert!(name == b"x-via" || fields.len() > 1);
    }
    let vias = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"x-via"));
    assert!(vias.count() <= 1, "a field stands there once");
}

fn before_the_login(client: &[Field], extra: usize) {
    let extra: Vec<Field> =
        (0..extra).map(|_| (b"x-originating-ip".to_vec(), Some(b"::1".to_vec()))).collect();
    let introduction = Introduction { client: Some(client.to_vec()), extra: extra.clone() };
    let fields = introduction.before_login().expect("there is something to say");
    assert!(fields.len() <= MAX_FIELDS && fields.ends_with(&extra));
    is_bounded_and_honest(&fields[..fields.len() - extra.len()]);
    is_bounded_and_honest(&introduction.after_login());
}

/// One line; of the fields, those that can be quoted.
fn is_read_again(fields: &[Field]) {
    let line = command(fields);
    assert_eq!(line.bytes().filter(|byte| *byte == b'\n').count(), 1);
    let is_quoted =
        |(name, value): &&Field| is_quotable(name) && value.as_deref().is_none_or(is_quotable);
    let quoted: Vec<Field> = fields.iter().filter(is_quoted).cloned().collect();
    if quoted.iter().all(|(name, value)| {
        name.len() <= MAX_NAME && value.as_ref().is_none_or(|value| value.len() <= MAX_VALUE)
    }) {
        assert_eq!(id::fields(format!("a {line}").as_bytes()), Some(quoted), "{line:?}");
    }
}

static SETTINGS: LazyLock<Arc<SessionSettings>> = LazyLock::new(|| {
    Arc::new(SessionSettings {
        push_status: true,
        max_command: 4000,
        max_response: 4000,
        ..session_log::settings()
    })
});

/// A server that knows ID gets the client's fields and deltapush's name, in a command whose literals it is asked for; one that
/// does not hears nothing.
fn through_a_session(command: &[u8], said: Option<&[Field]>, settings: u8) {
    let Some(said) = said else { return };
    let has_id = settings & 1 == 0;
    let upstream = UpstreamTraits { id: has_id, ..UpstreamTraits::default() };
    let mut it = LoggedSession::new(Session::new(SETTINGS.clone(), upstream));
    assert_eq!(it.give_client(command), command.len());
    if !has_id {
        assert!(it.log.upstream.is_empty() && it.log.client.ends_with(b"a OK ID completed\r\n"));
        return;
    }
    let mut asked = 0;
    while id::fields(&it.log.upstream).is_none() {
        assert!(
            it.log.upstream.ends_with(b"}\r\n") && asked <= 2 * MAX_FIELDS,
            "{}",
            it.log.upstream.escape_ascii()
        );
        asked += 1;
        it.upstream_says(b"+ go on\r\n");
    }
    assert_eq!(id::fields(&it.log.upstream), Some(with_own_name(said)));
    it.log.client.clear();
    it.upstream_says(b"* ID NIL\r\na OK done\r\n");
    assert_eq!(it.log.client, b"* ID NIL\r\na OK done\r\n");
    assert!(it.session.takes_client_input() && it.session.held() == 0);
}
