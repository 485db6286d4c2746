//! `proxy::session` where sessions are kept, and `push::observer`: a session that its client leaves at any moment.
//!
//! An input is a sequence of events, as for `session`; then the client is gone, and what the upstream says after that brings the
//! session to rest, or not. The same events, one byte at a time, give the same output and the same end; nothing but DONE, `*` and
//! the end of a harmless command is said to the upstream after the client; once at rest, nothing more; and a LOGOUT never gets
//! there.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use deltapush::config::{JmapAccess, Native};
use deltapush::machine::Machine;
use deltapush::proxy::session::{
    ChangedState, DrainStep, ObservedEvent, Output, Request, Session, SessionSettings,
    UpstreamTraits,
};
use deltapush::push::filter::PushFilter;
use deltapush::push::observer::{NewMailObserver, ObserverAction, ObserverInput};
use deltapush::secret::DeviceToken;
use deltapush::store::Position;
use deltapush::trace::Transcript;

use super::events::{self, events};

static SETTINGS: LazyLock<Arc<SessionSettings>> = LazyLock::new(|| {
    Arc::new(SessionSettings {
        entries: vec![],
        native: Native::Passthrough,
        keepalive: None,
        push_status: false,
        jmapaccess: JmapAccess::Strip,
        max_command: 200,
        max_response: 150,
    })
});

/// What is looked through of the mailbox.
const NOTED: Position = Position { uid_validity: 7, uid_next: 4 };

#[derive(Default)]
struct Recorded {
    client: Vec<u8>,
    upstream: Vec<u8>,
    eye: NewMailObserver,
    actions: Vec<ObserverAction>,
}

impl Recorded {
    /// Each action but the comparison is only noted.
    fn observe(&mut self, input: ObserverInput<'_>) {
        let before = self.actions.len();
        self.eye.handle(input, *BEGAN, &mut self.actions);
        if self.actions.get(before..).unwrap().contains(&ObserverAction::Compare) {
            self.eye.handle(ObserverInput::Noted(Some(NOTED)), *BEGAN, &mut self.actions);
        }
    }
}

impl Output for Recorded {
    fn to_client(&mut self, bytes: &[u8]) {
        self.client.extend_from_slice(bytes);
    }
    fn to_upstream(&mut self, bytes: &[u8]) {
        self.upstream.extend_from_slice(bytes);
    }
    fn compress(&mut self) {}
    fn request(&mut self, _: Request) {}
    fn idles_in(&mut self, _: &str) {}
    fn fetches(&mut self) {}
    fn tokens(&self) -> Vec<DeviceToken> {
        vec![]
    }
    fn push_status(&self) -> String {
        String::new()
    }
    fn looks_for_mail(&self) -> bool {
        self.eye.looks()
    }
    fn sees(&mut self, glimpse: ObservedEvent<'_>) {
        let filter = PushFilter::default();
        self.observe(match glimpse {
            ObservedEvent::Opening | ObservedEvent::Closed => ObserverInput::Closed,
            ObservedEvent::Opened(mailbox) => ObserverInput::Opened(mailbox),
            ObservedEvent::Response(line) => ObserverInput::Response { line, filter: &filter },
            ObservedEvent::Fetched { from } => ObserverInput::Fetched(from),
        });
    }
    fn transcript(&mut self) -> Option<&mut dyn Transcript> {
        None
    }
}

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
struct Played {
    client: String,
    upstream: String,
    /// What was said to the upstream after the client had gone.
    last_words: String,
    settling: DrainStep,
    set: ChangedState,
    actions: Vec<ObserverAction>,
}

pub(crate) fn check(data: &[u8]) {
    let (settings, script) = events::settings(data);
    let whole = play(settings, script, usize::MAX);
    assert_eq!(play(settings, script, 1), whole);
    assert_eq!(play(settings, script, 3), whole);
    // Of a command that was gathered as a whole the rest may follow.
    let upper = whole.upstream.to_ascii_uppercase();
    if [" ID", "METADATA"].iter().any(|verb| upper.contains(verb)) {
        return;
    }
    let words = whole.last_words.trim_start_matches('x');
    assert!(matches!(words, "" | "\r\n" | "DONE\r\n" | "*\r\n"), "{words:?}");
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\r", "\r").replace("\\n", "\n")
}

/// `C` and `S`: said by client and upstream. `z`: the client is gone, and what it says after that is not heard.
fn play(settings: u8, script: &[u8], step: usize) -> Played {
    let upstream =
        UpstreamTraits { metadata: settings & 1 != 0, pushes: false, id: settings & 2 != 0 };
    let mut session = Session::new(SETTINGS.clone(), upstream).kept();
    let mut out = Recorded::default();
    let mut waiting = VecDeque::new();
    let mut gone = None;
    let mut answered = 0;
    let mut settling = DrainStep::Waiting;
    for (kind, said) in events(script) {
        for chunk in said.chunks(step.min(said.len()).max(1)) {
            match kind {
                b'S' if settling == DrainStep::Waiting => session.from_upstream(chunk, &mut out),
                b'C' if gone.is_none() => waiting.extend(chunk),
                _ => {}
            }
            if gone.is_none() && kind == b'C' {
                feed(&mut session, &mut waiting, &mut out);
            }
        }
        // What the client has said before goes on when the upstream has said all.
        if gone.is_none() {
            feed(&mut session, &mut waiting, &mut out);
        }
        // Not within: it may be at rest for a moment, and then in the middle of what else was said.
        if gone.is_some() && settling == DrainStep::Waiting {
            settling = session.settle(&mut out);
        }
        if kind == b'y' {
            answered += 1;
            session.answered(answered % 2 == 0, &mut out);
            if gone.is_none() {
                feed(&mut session, &mut waiting, &mut out);
            }
        }
        if kind == b'z' && gone.is_none() {
            gone = Some(out.upstream.len());
            settling = session.settle(&mut out);
        }
    }
    let gone = gone.unwrap_or_else(|| {
        let before = out.upstream.len();
        settling = session.settle(&mut out);
        before
    });
    if settling == DrainStep::Settled {
        let before = out.upstream.len();
        assert_eq!(
            (session.settle(&mut out), out.upstream.len()),
            (DrainStep::Settled, before),
            "it rests"
        );
    }
    Played {
        client: text(&out.client),
        upstream: text(&out.upstream),
        last_words: text(out.upstream.get(gone..).unwrap()),
        settling,
        set: session.set(),
        actions: out.actions,
    }
}

fn feed(session: &mut Session, waiting: &mut VecDeque<u8>, out: &mut Recorded) {
    while session.takes_client_input() && !waiting.is_empty() {
        let used = session.from_client(waiting.make_contiguous(), out);
        waiting.drain(..used);
        if used == 0 {
            return;
        }
    }
}
