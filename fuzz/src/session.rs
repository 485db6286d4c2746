//! `proxy::session`: both sides' bytes in any order and any chunking.
//!
//! An input is a sequence of events. The same events, each side's bytes one at a time, give the same output; what deltapush
//! neither answers nor rewrites passes byte for byte; what it says stands between two responses; what it holds is bounded.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use deltapush::config::{JmapAccess, Native};
use deltapush::parser::capability::{self, Added};
use deltapush::parser::command;
use deltapush::parser::reader::ResponseReader;
use deltapush::parser::response::{self, Condition, ResponseHead};
use deltapush::proxy::session::{Session, SessionInput, SessionSettings, UpstreamTraits};
use deltapush::proxy::session_log::{self, LoggedSession};
use deltapush::secret::DeviceToken;

use super::events::{self, events};

/// Short, so that inputs go over them.
const MAX_COMMAND: usize = 200;
const MAX_RESPONSE: usize = 150;

static SETTINGS: LazyLock<Vec<Arc<SessionSettings>>> = LazyLock::new(|| {
    let entries = [
        ("/shared/comment", "Push here"),
        ("/shared/vendor/deltachat/maxsmtprecipients", "50"),
        ("/shared/x", "é"),
    ];
    let entries = entries.map(|(entry, value)| (entry.to_owned(), value.to_owned())).to_vec();
    let settings = |number: u8| SessionSettings {
        entries: entries.clone(),
        push_status: number & 2 != 0,
        native: if number & 1 == 0 { Native::Passthrough } else { Native::Takeover },
        keepalive: (number & 2 != 0).then_some(Duration::from_secs(240)),
        jmapaccess: if number & 4 == 0 { JmapAccess::Strip } else { JmapAccess::Pass },
        max_command: MAX_COMMAND,
        max_response: MAX_RESPONSE,
        ..session_log::settings()
    };
    (0..8).map(|number| Arc::new(settings(number))).collect()
});

/// The longest SELECT that is noted.
const MAX_SELECT: usize = 1024;

/// The line that an idling client hears now and then.
const STILL_HERE: &[u8] = b"* OK Still here\r\n";

/// A session with both its peers.
struct SessionWithPeers {
    it: LoggedSession,
    /// All that it has taken.
    taken: Vec<u8>,
    from_upstream: Vec<u8>,
    /// The number of answered requests.
    answered: usize,
    /// Time for which a peer was waited for after each event.
    waits: Vec<Option<Duration>>,
    has_keepalive: bool,
    step: usize,
}

pub(crate) fn check(data: &[u8]) {
    let (settings, script) = events::settings(data);
    let whole = play(settings, script, usize::MAX, false);
    let single = play(settings, script, 1, true);
    is_equal(&single.it.log.client, &whole.it.log.client, "to the client");
    is_equal(&single.it.log.upstream, &whole.it.log.upstream, "to the upstream");
    assert_eq!(single.it.log.requests, whole.it.log.requests);
    assert_eq!(single.it.log.idled, whole.it.log.idled);
    assert_eq!(single.it.log.compressed_from, whole.it.log.compressed_from);
    assert_eq!(single.waits, whole.waits, "for which peer it waits");
    assert_eq!(single.taken, whole.taken);
    what_is_foreign_goes_up(&whole);
    if !closes(script) {
        what_is_foreign_comes_down(&whole);
        what_the_client_hears(&whole);
    }
}

fn is_equal(single: &[u8], whole: &[u8], way: &str) {
    assert!(single == whole, "{way}, byte by byte: {}; whole: {}", text(single), text(whole));
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn closes(script: &[u8]) -> bool {
    events(script).any(|(kind, _)| kind == b'x' || kind == b'X')
}

/// `C` and `S`: said by client and upstream. `y`, `n`: the oldest request was done, or not. `x`: the upstream closed. `X`:
/// deltapush does. `k`: the client has heard nothing for long. Anything else is said by the client.
fn play(settings: u8, script: &[u8], step: usize, traced: bool) -> SessionWithPeers {
    let common = SETTINGS[usize::from(settings & 1 | settings >> 3 & 6)].clone();
    let upstream = UpstreamTraits {
        metadata: settings & 2 != 0,
        pushes: settings & 4 != 0,
        id: settings & 64 != 0,
    };
    let has_keepalive = common.keepalive.is_some();
    let mut it = LoggedSession::new(Session::new(common, upstream));
    it.handle(SessionInput::Traced(traced));
    if settings & 8 != 0 {
        it.tokens = [&b"openpgp:dG9rZW4x"[..], b"openpgp:dG9rZW4y"]
            .map(|token| DeviceToken::new(token).unwrap())
            .to_vec();
    }
    let (taken, from_upstream, waits) = (vec![], vec![], vec![]);
    let mut stage =
        SessionWithPeers { it, taken, from_upstream, answered: 0, waits, has_keepalive, step };
    for (kind, said) in events(script) {
        match kind {
            b'S' => stage.upstream_says(said),
            b'y' | b'n' if stage.answered < stage.it.log.requests.len() => {
                stage.answered += 1;
                stage.it.request_done(kind == b'y');
            }
            b'y' | b'n' => {}
            b'k' => stage.keeps_alive(),
            b'x' => stage.it.handle(SessionInput::UpstreamClosed),
            b'X' => {
                let bye = SessionInput::Close("BYE [UNAVAILABLE] Deltapush is restarting.");
                stage.it.handle(bye);
            }
            _ => stage.client_says(said),
        }
        stage.feed();
        stage.is_bounded(said.len());
        stage.waits.push(stage.it.waits());
    }
    stage
}

impl SessionWithPeers {
    fn upstream_says(&mut self, said: &[u8]) {
        self.from_upstream.extend_from_slice(said);
        for chunk in said.chunks(self.step.min(said.len()).max(1)) {
            self.it.upstream_says(chunk);
        }
    }

    fn keeps_alive(&mut self) {
        let before = self.it.log.client.len();
        let is_due = self.it.session.keepalive().is_some();
        self.it.handle(SessionInput::KeepAlive);
        assert_eq!(&self.it.log.client[before..], if is_due { STILL_HERE } else { b"" });
    }

    fn client_says(&mut self, said: &[u8]) {
        for chunk in said.chunks(self.step.min(said.len()).max(1)) {
            self.it.waiting.extend_from_slice(chunk);
            self.feed();
        }
    }

    fn feed(&mut self) {
        let waiting = self.it.waiting.clone();
        let used = self.it.feed();
        assert!(
            !self.it.session.takes_client_input() || self.it.waiting.is_empty(),
            "it says that it takes input"
        );
        self.taken.extend_from_slice(&waiting[..used]);
    }

    /// Reports if the lines that an idling client hears are the upstream's.
    fn idles_with_the_upstream(&self) -> bool {
        !self.has_keepalive || !events::contains(&self.taken.to_ascii_lowercase(), b"idle")
    }

    /// At most one command and one response are held, each up to its limit and the piece that went over it.
    fn is_bounded(&self, said: usize) {
        // ID is written again, with quotes and deltapush's name.
        let command = (2 * MAX_COMMAND + 100).max(command::HEAD_LIMIT) + MAX_SELECT;
        let response = MAX_RESPONSE.max(response::HEAD_LIMIT);
        let piece = self.step.min(said.max(self.it.waiting.len()).max(self.taken.len()));
        assert!(
            self.it.session.held() <= command + response + 3 * piece,
            "{} bytes are held",
            self.it.session.held()
        );
    }
}

/// Reports if a response says no more than that the server is there.
fn is_keepalive(said: &[u8]) -> bool {
    response::status(said).is_some_and(|status| {
        let text = status.human_text().to_ascii_lowercase();
        let words = text.trim_end_matches(['.', '!']);
        status.tag.is_none()
            && status.condition == Condition::Ok
            && ["", "still here", "hang in there"].contains(&words)
    })
}

/// Reports if nothing stands in the client's input that deltapush would read.
fn is_foreign(stream: &[u8]) -> bool {
    // deltapush decides on the end of IDLE, and on lines that are no command.
    let has_malformed = stream
        .split_inclusive(|byte| *byte == b'\n')
        .any(|line| command::head(line).is_some_and(|head| head.verb == command::Verb::Malformed));
    let has_login = [&b"login"[..], b"authenticate", b"idle"]
        .iter()
        .any(|verb| events::contains(&stream.to_ascii_lowercase(), verb));
    !has_malformed && !has_login && !has_own(stream)
}

/// Reports if something stands there that deltapush would read of either peer.
fn has_own(stream: &[u8]) -> bool {
    const OWN: [&[u8]; 9] = [
        b"metadata",
        b"compress",
        b"starttls",
        b"unauthenticate",
        b"capability",
        b"getjmapaccess",
        b"rlist",
        b"rlsub",
        b"referral",
    ];
    let lower = stream.to_ascii_lowercase();
    // ID, but not IDLE.
    let has_id = lower.windows(4).any(|window| window.starts_with(b" id") && window[3] != b'l');
    has_id || OWN.iter().any(|own| events::contains(&lower, own))
}

/// Bytes that do not concern deltapush come out as they went in, as far as they can be told apart already.
fn what_is_foreign_goes_up(stage: &SessionWithPeers) {
    if is_foreign(&stage.taken) {
        assert!(
            stage.taken.starts_with(&stage.it.log.upstream),
            "to the upstream: {}",
            text(&stage.it.log.upstream)
        );
        assert!(stage.taken.len() - stage.it.log.upstream.len() < command::HEAD_LIMIT);
        assert!(stage.it.log.requests.is_empty());
    }
}

/// The same toward the client.
fn what_is_foreign_comes_down(stage: &SessionWithPeers) {
    if stage.idles_with_the_upstream() && is_foreign(&stage.taken) && !has_own(&stage.from_upstream)
    {
        assert!(
            stage.from_upstream.starts_with(&stage.it.log.client),
            "to the client: {}",
            text(&stage.it.log.client)
        );
        assert!(stage.from_upstream.len() - stage.it.log.client.len() < response::HEAD_LIMIT);
    }
}

/// Response by response, the client hears what the upstream said, as it was or with another capability list; but for the
/// commands in which deltapush has a part.
fn what_the_client_hears(stage: &SessionWithPeers) {
    let said = responses(&stage.from_upstream);
    // The possible counts of those passed on by now: the upstream's lines may look like deltapush's own.
    let mut told = BTreeSet::from([0]);
    for heard in responses(&stage.it.log.client) {
        let mut next = if is_own(&heard) { told.clone() } else { BTreeSet::new() };
        for start in told {
            let kept = said[start..].iter().take_while(|said| may_be_kept(said)).count();
            let reach = said[start..].iter().enumerate().take(kept + 1);
            next.extend(
                reach.filter(|(_, said)| is_same(said, &heard)).map(|(ahead, _)| start + ahead + 1),
            );
        }
        assert!(!next.is_empty(), "the upstream never said {}", text(&heard));
        told = next;
    }
}

/// The responses that are complete.
fn responses(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = ResponseReader::new(1 << 20);
    std::iter::from_fn(|| reader.next(&mut stream).ok().flatten()).collect()
}

fn is_same(said: &[u8], heard: &[u8]) -> bool {
    said == heard
        || response::without_referral(said).as_deref() == Some(heard)
        || (0..8u8).any(|number| {
            let added = Added { push: number & 1 != 0, compress: number & 2 != 0 };
            let jmapaccess = if number & 4 != 0 { JmapAccess::Strip } else { JmapAccess::Pass };
            capability::rewrite(said, added, jmapaccess).as_deref() == Some(heard)
        })
}

/// Responses that deltapush may keep or replace by another line: the `+` and the end of its own commands, and their values.
fn may_be_kept(said: &[u8]) -> bool {
    matches!(
        response::head(said),
        Some(ResponseHead::Continuation | ResponseHead::Tagged { .. } | ResponseHead::Metadata)
    ) || is_keepalive(said)
}

/// deltapush's own lines: those that go with a literal, values, and the ends of commands, which have the client's tag.
fn is_own(heard: &[u8]) -> bool {
    heard == b"+ OK\r\n"
        || heard == b"* ID (\"name\" \"deltapush\")\r\n"
        || heard == STILL_HERE
        || matches!(
            response::head(heard),
            Some(ResponseHead::Tagged { .. } | ResponseHead::Metadata)
        )
}
