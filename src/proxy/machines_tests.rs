//! A recorded session through the machines, without any I/O: what its client and its mail server sent goes in, and what the trace says
//! was sent has to come out. From the client's first line over the login and the relay to the watch session that finds the mail.
//!
//! Masked pieces are filled with this file's login and token; literals that were not shown are as many `x`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::login_answer;
use super::preauth::{
    Allowance, NotAuthenticated, PreauthEvent, PreauthInput, PreauthTurn, Protection,
};
use super::session::{Request, Session, SessionSettings, UpstreamTraits};
use super::session_log::{self, LoggedSession};
use crate::credentials::Credentials;
use crate::machine::Machine;
use crate::parser::quote::push_quoted;
use crate::parser::reader::ResponseReader;
use crate::policy::{Messages, Security};
use crate::push::filter::PushFilter;
use crate::push::idle::{IdleAction, IdleInput, IdleMachine, WatchTerms, WatchedMailbox};
use crate::secret::DeviceToken;
use crate::trace::{ConnectionSide, LinePart, Mark, Record, SessionId, Speaker, TraceEntry};
use crate::upstream::login_machine::{LoggedIn, LoginAction, LoginInput, LoginMachine, Purpose};

/// An exported trace of a session with Dovecot (docs/trace.md).
const TRACE: &str = include_str!("../../tests/integration/data/traces/dovecot.jsonl");

/// The version of deltapush that was recorded.
const RECORDED_VERSION: &str = "0.1.0";

const USER: &str = "user1@host1.example";
const PASSWORD: &str = "sesame";
const TOKEN: &str = "openpgp:replayed";

/// A line of the trace.
struct Line {
    at: Duration,
    session: SessionId,
    speaker: Speaker,
    mark: Mark,
    parts: Vec<LinePart>,
}

impl Line {
    /// Its bytes, with `masked` for what is masked.
    fn bytes(&self, masked: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in &self.parts {
            match part {
                LinePart::Text(text) => bytes.extend_from_slice(text),
                LinePart::Masked(_) => bytes.extend_from_slice(masked),
                LinePart::Literal { size, .. } => {
                    bytes.resize(bytes.len() + usize::try_from(*size).unwrap(), b'x');
                }
                LinePart::Cut(_) => panic!("a line that was cut cannot be played"),
            }
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

fn lines() -> Vec<Line> {
    let text = TRACE.replace(RECORDED_VERSION, env!("CARGO_PKG_VERSION"));
    let records = text.lines().map(|line| Record::from_json(line).unwrap());
    let mut began: Option<Timestamp> = None;
    let line = |record: Record| {
        let began = *began.get_or_insert(record.time);
        let TraceEntry::Said { speaker, mark, parts } = record.entry else { return None };
        let at = Duration::try_from(record.time.duration_since(began)).unwrap();
        Some(Line { at, session: record.session?, speaker, mark, parts })
    };
    records.filter_map(line).collect()
}

/// Bytes that were sent to one peer and not looked at yet.
#[derive(Default)]
struct Sent(Vec<u8>);

impl Sent {
    /// The next line is this one; what is masked in it may be anything.
    fn expect(&mut self, line: &Line) {
        let end = self.0.windows(2).position(|pair| pair == b"\r\n").map(|end| end + 2);
        let literal = line.parts.iter().map(|part| match part {
            LinePart::Literal { size, .. } => usize::try_from(*size).unwrap(),
            _ => 0,
        });
        let wanted = line.bytes(b"*");
        let taken = match literal.sum::<usize>() {
            0 => end.unwrap_or(self.0.len()),
            _ => wanted.len().min(self.0.len()),
        };
        let mut got: Vec<u8> = self.0.drain(..taken).collect();
        if let Some(masked) = line.parts.iter().position(|part| matches!(part, LinePart::Masked(_)))
        {
            let length = |parts: &[LinePart]| {
                let text = |part: &LinePart| match part {
                    LinePart::Text(text) => text.len(),
                    _ => 0,
                };
                parts.iter().map(text).sum::<usize>()
            };
            let (before, after) =
                (length(&line.parts[..masked]), length(&line.parts[masked..]) + 2);
            assert!(got.len() > before + after, "nothing is secret in {}", got.escape_ascii());
            got.splice(before..got.len() - after, *b"*");
        }
        assert!(
            got == wanted,
            "sent {}, the trace has {}",
            got.escape_ascii(),
            wanted.escape_ascii()
        );
    }
}

/// A login at the mail server, between the bytes that come and those that go.
struct Login {
    machine: LoginMachine,
    reader: ResponseReader,
}

impl Login {
    fn new(credentials: Credentials, purpose: Purpose) -> Self {
        let machine = LoginMachine::new(credentials, Security::Tls, purpose);
        Self { machine, reader: ResponseReader::new(64 * 1024) }
    }

    fn receive(&mut self, mut bytes: &[u8], now: Instant, sent: &mut Sent) -> Option<LoggedIn> {
        let mut end = None;
        while let Some(response) = self.reader.next(&mut bytes).unwrap() {
            let mut actions = Vec::new();
            self.machine.handle(LoginInput::Response(&response), now, &mut actions);
            for action in actions {
                match action {
                    LoginAction::Send(line) => sent.0.extend_from_slice(&line.bytes),
                    LoginAction::LoggedIn(logged_in) => end = Some(logged_in),
                    LoginAction::Failed(error) => panic!("{error}"),
                    LoginAction::StartTls | LoginAction::Challenge(_) => {
                        panic!("not in this trace")
                    }
                }
            }
        }
        end
    }
}

/// A client's connection, from its first line to its last.
struct ClientConnection {
    preauth: NotAuthenticated,
    login: Option<(Vec<u8>, Login)>,
    session: Option<LoggedSession>,
    client: Sent,
    upstream: Sent,
}

impl ClientConnection {
    fn new(now: Instant) -> Self {
        let allowance = Allowance {
            command: 8192,
            commands: 100,
            wrong: 10,
            logins: 5,
            login_name: 320,
            command_time: Duration::from_secs(60),
        };
        let end = now + Duration::from_secs(60);
        let mut preauth = NotAuthenticated::new(Protection::Tls, allowance, end);
        let client = Sent(PreauthTurn::of(&mut preauth, PreauthInput::Start, now, None).answer);
        Self { preauth, login: None, session: None, client, upstream: Sent::default() }
    }

    fn client_says(&mut self, bytes: &[u8], now: Instant) {
        if let Some(session) = &mut self.session {
            session.waiting.extend(bytes);
            return self.feed();
        }
        let turn = PreauthTurn::of(&mut self.preauth, PreauthInput::Received(bytes), now, None);
        assert_eq!(turn.used, bytes.len());
        self.client.0.extend(turn.answer);
        if let Some(PreauthEvent::Login { tag, credentials }) = turn.event {
            self.login = Some((tag, Login::new(credentials, Purpose::Client { probe: true })));
        }
    }

    fn upstream_says(&mut self, bytes: &[u8], now: Instant) {
        if let Some(session) = &mut self.session {
            session.upstream_says(bytes);
            return self.feed();
        }
        let (tag, login) = self.login.as_mut().unwrap();
        if let Some(logged_in) = login.receive(bytes, now, &mut self.upstream) {
            let mut known =
                UpstreamTraits { pushes: logged_in.pushes, ..UpstreamTraits::default() };
            known.learn(logged_in.capabilities.iter().map(str::as_bytes));
            let settings = SessionSettings { max_response: 64 * 1024, ..session_log::settings() };
            let session = Session::new(Arc::new(settings), known);
            let answer = login_answer::lines(tag, &logged_in, |line| session.rewrite(line));
            self.client.0.extend(answer);
            self.session = Some(LoggedSession::new(session));
        }
    }

    /// Lets the session take what waits, and does what it asks for.
    fn feed(&mut self) {
        let Some(session) = &mut self.session else { return };
        loop {
            let used = session.feed();
            let requests = std::mem::take(&mut session.log.requests);
            for request in &requests {
                match request {
                    Request::AddToken(token) => session.tokens.push(token.clone()),
                    Request::RemoveTokens => session.tokens.clear(),
                }
                session.request_done(true);
            }
            if used == 0 && requests.is_empty() {
                break;
            }
        }
        self.client.0.append(&mut session.log.client);
        self.upstream.0.append(&mut session.log.upstream);
    }
}

/// A watch session, from its login on.
struct WatchConnection {
    login: Option<Login>,
    watch: Option<IdleMachine>,
    reader: ResponseReader,
    sent: Sent,
    did: Vec<IdleAction>,
}

impl WatchConnection {
    fn new() -> Self {
        let credentials = Credentials::new(USER, PASSWORD);
        Self {
            login: Some(Login::new(credentials, Purpose::Watch)),
            watch: None,
            reader: ResponseReader::new(64 * 1024),
            sent: Sent::default(),
            did: vec![],
        }
    }

    fn upstream_says(&mut self, mut bytes: &[u8], now: Instant) {
        if let Some(login) = &mut self.login {
            if let Some(logged_in) = login.receive(bytes, now, &mut self.sent) {
                self.login = None;
                let terms = terms(logged_in.capabilities.has("NOTIFY"));
                self.watch = Some(IdleMachine::new(terms, now));
                self.handle(IdleInput::Start, now);
            }
            return;
        }
        while let Some(response) = self.reader.next(&mut bytes).unwrap() {
            self.handle(IdleInput::Response(&response), now);
        }
    }

    fn handle(&mut self, input: IdleInput<'_>, now: Instant) {
        let mut actions = Vec::new();
        self.watch.as_mut().unwrap().handle(input, now, &mut actions);
        for action in actions {
            match action {
                IdleAction::Send(bytes) => self.sent.0.extend(bytes),
                other => self.did.push(other),
            }
        }
    }
}

fn terms(notify: bool) -> WatchTerms {
    let messages = Messages::Auto;
    WatchTerms {
        mailboxes: vec![WatchedMailbox { name: "INBOX".into(), ..WatchedMailbox::default() }],
        spare: vec![],
        judge: PushFilter { addresses: vec![USER.into()], messages, encrypted_only: false },
        renewal: Duration::from_secs(540),
        notify,
        blindly: false,
        late: false,
        grace: Duration::ZERO,
    }
}

#[test]
fn recorded_session_plays_through_all_machines() {
    let began = Instant::now();
    let mut client = ClientConnection::new(began);
    let mut watch = WatchConnection::new();
    let mut token = Vec::new();
    push_quoted(&mut token, TOKEN.as_bytes());
    let login = format!(" {USER} {PASSWORD}");
    for line in lines() {
        let now = began + line.at;
        let from = |side: ConnectionSide| side.speaker(line.speaker, line.mark);
        if let SessionId::Watch(_) = line.session {
            match from(ConnectionSide::Upstream) {
                Some(Speaker::Upstream) => watch.upstream_says(&line.bytes(b""), now),
                Some(Speaker::ToUpstream) => watch.sent.expect(&line),
                _ => {}
            }
            continue;
        }
        if from(ConnectionSide::Client) == Some(Speaker::Client) {
            let masked = if client.session.is_some() { token.as_slice() } else { login.as_bytes() };
            client.client_says(&line.bytes(masked), now);
        }
        if from(ConnectionSide::Upstream) == Some(Speaker::Upstream) {
            client.upstream_says(&line.bytes(b""), now);
        }
        if from(ConnectionSide::Upstream) == Some(Speaker::ToUpstream) {
            client.upstream.expect(&line);
        }
        if from(ConnectionSide::Client) == Some(Speaker::ToClient) {
            client.client.expect(&line);
        }
    }
    let session = client.session.expect("the client came through its login");
    assert!(watch.watch.is_some(), "the watch came through its login");
    assert!(client.client.0.is_empty() && client.upstream.0.is_empty());
    assert!(watch.sent.0.is_empty() && session.waiting.is_empty());
    assert_eq!(session.tokens, [DeviceToken::new(TOKEN.as_bytes()).unwrap()]);
    // The mailbox was empty; then a message came, and it deserves a push.
    let noted = watch.did.iter().filter_map(|action| match action {
        IdleAction::Noticed { look, announce, .. } => Some((look.position.uid_next, *announce)),
        _ => None,
    });
    assert_eq!(noted.collect::<Vec<_>>(), [(1, false), (2, true)]);
    assert_eq!(watch.did.iter().filter(|action| **action == IdleAction::Watching).count(), 1);
}
