//! The stage of the dialogues: scripts of what both peers say and get.

use super::*;
use crate::proxy::session_log::{self, LoggedSession};
use crate::trace::testing::Shown;

pub(super) const TOKEN: &str = "openpgp:c2VjcmV0";

/// Plays both peers.
pub(super) struct Stage {
    pub(super) it: LoggedSession,
    byte_by_byte: bool,
    is_compressed: bool,
}

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

impl Stage {
    pub(super) fn new(
        upstream: UpstreamTraits,
        native: Native,
        byte_by_byte: bool,
    ) -> (Self, Shown) {
        let (shown, trace) = Shown::begin();
        let mut it = LoggedSession::new(Session::new(settings(native), upstream));
        if byte_by_byte {
            it.trace_in(Some(trace));
        }
        (Self { it, byte_by_byte, is_compressed: false }, shown)
    }

    pub(super) fn feed(&mut self, from_client: bool, bytes: &[u8]) {
        let step = if self.byte_by_byte { 1 } else { bytes.len().max(1) };
        for chunk in bytes.chunks(step) {
            if from_client {
                self.it.waiting.extend_from_slice(chunk);
            } else {
                self.it.upstream_says(chunk);
            }
            self.feed_waiting();
        }
    }

    pub(super) fn feed_waiting(&mut self) {
        self.it.feed();
        if let Some(from) = self.it.log.compressed_from.take() {
            assert!(!std::mem::replace(&mut self.is_compressed, true), "once is enough");
            self.it.log.client.splice(from..from, *b"(compressed)\r\n");
        }
    }

    /// `C:` and `S:` are sent by client and upstream, `>` is what the upstream got, `<` what the client got. `(stored)` and
    /// `(failed)` end a request; `(add)` and `(remove)` expect one. A line that ends in `\` has no line end.
    pub(super) fn play(&mut self, script: &str) {
        for line in script.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
            let (kind, text) = line.split_once(' ').unwrap_or((line, ""));
            let bytes = match text.strip_suffix('\\') {
                Some(text) => text.to_owned(),
                None => format!("{text}\r\n"),
            };
            match kind {
                "C:" => self.feed(true, bytes.as_bytes()),
                "S:" => self.feed(false, bytes.as_bytes()),
                ">" => take(&mut self.it.log.upstream, &bytes, line),
                "<" => take(&mut self.it.log.client, &bytes, line),
                "(add)" => assert!(
                    matches!(self.it.log.requests.pop(), Some(Request::AddToken(token)) if token.expose() == TOKEN)
                ),
                "(remove)" => assert_eq!(self.it.log.requests.pop(), Some(Request::RemoveTokens)),
                "(stored)" | "(failed)" => {
                    self.it.request_done(kind == "(stored)");
                    self.feed_waiting();
                }
                "(idles" => assert_eq!(
                    self.it.log.idled.pop().as_deref(),
                    Some(text.trim_start_matches("in ").trim_end_matches(')'))
                ),
                "(keepalive)" => self.it.handle(SessionInput::KeepAlive),
                "(closed)" => self.it.handle(SessionInput::UpstreamClosed),
                _ => panic!("what is {line:?}?"),
            }
        }
        let left = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(left(&self.it.log.upstream), "", "unexpected for the upstream");
        assert_eq!(left(&self.it.log.client), "", "unexpected for the client");
        assert_eq!(self.it.log.requests, vec![]);
        assert_eq!(self.it.log.idled, Vec::<String>::new());
    }
}

fn take(from: &mut Vec<u8>, expected: &str, line: &str) {
    let got = String::from_utf8_lossy(from).into_owned();
    let Some(rest) = from.strip_prefix(expected.as_bytes()) else {
        panic!("at {line:?}: there is {got:?}")
    };
    *from = rest.to_vec();
}

pub(super) const PLAIN: UpstreamTraits =
    UpstreamTraits { metadata: false, id: true, pushes: false };
pub(super) const METADATA: UpstreamTraits = UpstreamTraits { metadata: true, ..PLAIN };
pub(super) const RELAY: UpstreamTraits = UpstreamTraits { pushes: true, ..METADATA };

pub(super) fn play_with(upstream: UpstreamTraits, native: Native, script: &str) {
    for byte_by_byte in [false, true] {
        let (mut stage, transcript) = Stage::new(upstream, native, byte_by_byte);
        stage.play(script);
        drop(stage);
        let transcript = transcript.text();
        assert!(!transcript.contains("c2VjcmV0") && !transcript.contains("sesame"), "{transcript}");
    }
}

pub(super) fn play(script: &str) {
    play_with(PLAIN, Native::Passthrough, script);
}
