//! Dialogues of the session: its words in a script, and the beginning of most of them.

use std::time::Instant;

use super::*;
use crate::machine::script::{Done, Playable, Player, Said};
use crate::proxy::session_log::{self, LoggedAction, LoggedSession};
use crate::trace::testing::Shown;

pub(super) const TOKEN: &str = "openpgp:c2VjcmV0";

pub(super) const PLAIN: UpstreamTraits =
    UpstreamTraits { metadata: false, id: true, pushes: false };
pub(super) const METADATA: UpstreamTraits = UpstreamTraits { metadata: true, ..PLAIN };
pub(super) const RELAY: UpstreamTraits = UpstreamTraits { pushes: true, ..METADATA };

pub(super) fn settings(native: Native) -> Arc<SessionSettings> {
    Arc::new(SessionSettings {
        entries: vec![
            ("/shared/comment".into(), "Push here".into()),
            ("/shared/vendor/deltachat/maxsmtprecipients".into(), "50".into()),
        ],
        native,
        keepalive: Some(Duration::from_secs(290)),
        max_command: 6000,
        max_response: 2000,
        ..session_log::settings()
    })
}

/// A session with an upstream that has these traits.
pub(super) fn session(upstream: UpstreamTraits) -> LoggedSession {
    LoggedSession::new(Session::new(settings(Native::Passthrough), upstream))
}

/// A script that is played in whole lines.
pub(super) fn in_lines(session: LoggedSession) -> Player<LoggedSession> {
    let now = session.now;
    Player::new(session, now)
}

/// A script that is played byte by byte, and the transcript of it.
pub(super) fn traced(mut session: LoggedSession) -> (Player<LoggedSession>, Shown) {
    let (shown, trace) = Shown::begin();
    session.trace_in(Some(trace));
    (in_lines(session).bytewise(), shown)
}

/// Plays both peers in the language of [`machine::script`](crate::machine::script), in whole lines, and byte by byte with a transcript,
/// which shows no secret.
///
/// The session does: `(add)`, it wants the token [`TOKEN`] stored; `(remove)`, all tokens removed; `(idles in MAILBOX)`; `(compressed)`,
/// compression begins; `(ends REASON)`. It is told: `(stored)`, `(failed)`, that the oldest request was done, was not; `(keepalive)`,
/// the client has heard nothing for long; `(closed)`, the upstream closed the connection.
pub(super) fn play(script: &str) {
    play_with(PLAIN, Native::Passthrough, script);
}

pub(super) fn play_with(upstream: UpstreamTraits, native: Native, script: &str) {
    let new = || LoggedSession::new(Session::new(settings(native), upstream));
    let mut whole = in_lines(new());
    whole.play(script);
    whole.end();
    let (mut bytewise, transcript) = traced(new());
    bytewise.play(script);
    bytewise.end();
    let transcript = transcript.text();
    assert!(!transcript.contains("c2VjcmV0") && !transcript.contains("sesame"), "{transcript}");
}

impl Playable for LoggedSession {
    type End = ();

    const RELAYS: bool = true;

    fn play(&mut self, said: Said<'_>, now: Instant, done: &mut Done<()>) -> bool {
        self.now = now;
        match said {
            Said::Begin => {}
            Said::Client(bytes) => self.waiting.extend_from_slice(bytes),
            Said::Server(bytes) => self.upstream_says(bytes),
            Said::Later => self.handle(SessionInput::Time),
            Said::Event("stored") => self.request_done(true),
            Said::Event("failed") => self.request_done(false),
            Said::Event("keepalive") => self.handle(SessionInput::KeepAlive),
            Said::Event("closed") => self.handle(SessionInput::UpstreamClosed),
            Said::Event(_) => return false,
        }
        self.feed();
        write_log(self, done);
        true
    }
}

/// A session of which only the log matters: nothing that it sends stands in a script, and its requests succeed.
pub(super) struct Unheard(pub(super) LoggedSession);

impl Playable for Unheard {
    type End = ();

    const RELAYS: bool = true;

    fn play(&mut self, said: Said<'_>, _: Instant, _: &mut Done<()>) -> bool {
        match said {
            Said::Begin => {}
            Said::Client(bytes) => self.0.client_says(bytes),
            Said::Server(bytes) => self.0.upstream_says(bytes),
            Said::Later | Said::Event(_) => return false,
        }
        if !std::mem::take(&mut self.0.log.requests).is_empty() {
            self.0.request_done(true);
        }
        assert!(self.0.waiting.is_empty(), "nothing makes the client wait");
        true
    }
}

/// Moves what was logged into a script.
pub(super) fn write_log(session: &mut LoggedSession, done: &mut Done<()>) {
    let log = &mut session.log;
    for action in std::mem::take(&mut log.order) {
        match action {
            LoggedAction::ToClient(len) => {
                done.sent("<", &log.client.drain(..len).collect::<Vec<_>>())
            }
            LoggedAction::ToUpstream(len) => {
                done.sent(">", &log.upstream.drain(..len).collect::<Vec<_>>())
            }
            LoggedAction::Compress => done.did("compressed"),
            LoggedAction::Request => match log.requests.remove(0) {
                Request::AddToken(token) if token.expose() == TOKEN => done.did("add"),
                Request::AddToken(token) => done.did(&format!("add {}", token.expose())),
                Request::RemoveTokens => done.did("remove"),
            },
            LoggedAction::IdlesIn => done.did(&format!("idles in {}", log.idled.remove(0))),
            LoggedAction::End => done.did(&format!("ends {:?}", log.end.unwrap())),
        }
    }
}
