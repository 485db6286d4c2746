//! `proxy::session` where sessions are kept, and `push::kept::observer`: a session that its client leaves at any moment.
//!
//! An input is a sequence of events, as for `session`; then the client is gone, and what the upstream says after that brings the
//! session to rest, or not. The same events, one byte at a time, give the same output and the same end; nothing but DONE, `*` and
//! the end of a harmless command is said to the upstream after the client; once at rest, nothing more; and a LOGOUT never gets
//! there.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use deltapush::machine::Machine;
use deltapush::proxy::session::{
    ChangedState, DrainStep, Session, SessionInput, SessionSettings, UpstreamTraits,
};
use deltapush::proxy::session_log::{self, LoggedEvent, LoggedSession};
use deltapush::push::filter::PushFilter;
use deltapush::push::kept::observer::{NewMailObserver, ObserverAction, ObserverInput};
use deltapush::store::Position;

use super::events::{self, events};

static SETTINGS: LazyLock<Arc<SessionSettings>> = LazyLock::new(|| {
    Arc::new(SessionSettings { max_command: 200, max_response: 150, ..session_log::settings() })
});

/// The noted position of the mailbox.
const NOTED: Position = Position { uid_validity: 7, uid_next: 4 };

/// A session, and the observer of new mail that looks on.
struct ObservedSession {
    it: LoggedSession,
    observer: NewMailObserver,
    actions: Vec<ObserverAction>,
}

impl ObservedSession {
    fn upstream_says(&mut self, chunk: &[u8]) {
        self.it.handle(SessionInput::CopiesFetches(self.observer.wants_fetches()));
        self.it.upstream_says(chunk);
        self.look_on();
    }

    fn feed(&mut self) {
        self.it.feed();
        self.look_on();
    }

    fn drain(&mut self) -> DrainStep {
        let step = self.it.drain();
        self.look_on();
        step
    }

    fn look_on(&mut self) {
        for event in std::mem::take(&mut self.it.log.observed) {
            self.observe(&event);
        }
    }

    fn observe(&mut self, event: &LoggedEvent) {
        let filter = PushFilter::default();
        let input = match event {
            LoggedEvent::Opening | LoggedEvent::Closed => ObserverInput::Closed,
            LoggedEvent::Opened(mailbox) => ObserverInput::Opened(mailbox),
            LoggedEvent::Response(line) => ObserverInput::Response { line, filter: &filter },
            LoggedEvent::Fetched { from } => ObserverInput::Fetched(*from),
        };
        // Each action but the comparison is only noted.
        let before = self.actions.len();
        self.observer.handle(input, *BEGAN, &mut self.actions);
        if self.actions.get(before..).unwrap().contains(&ObserverAction::Compare) {
            let noted = ObserverInput::Noted(Some(NOTED));
            self.observer.handle(noted, *BEGAN, &mut self.actions);
        }
    }
}

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The outcome of a dialogue.
#[derive(Debug, PartialEq, Eq)]
struct Played {
    client: String,
    upstream: String,
    /// The bytes sent to the upstream after the client had gone.
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
    let it = LoggedSession::new(Session::new(SETTINGS.clone(), upstream).kept());
    let mut stage = ObservedSession { it, observer: NewMailObserver::default(), actions: vec![] };
    let mut gone = None;
    let mut answered = 0;
    let mut settling = DrainStep::Waiting;
    for (kind, said) in events(script) {
        for chunk in said.chunks(step.min(said.len()).max(1)) {
            match kind {
                b'S' if settling == DrainStep::Waiting => stage.upstream_says(chunk),
                b'C' if gone.is_none() => {
                    stage.it.waiting.extend_from_slice(chunk);
                    stage.feed();
                }
                _ => {}
            }
        }
        // Earlier input of the client goes on when the upstream has said all.
        if gone.is_none() {
            stage.feed();
        }
        // Not within: it may be at rest for a moment, and then in the middle of what else was said.
        if gone.is_some() && settling == DrainStep::Waiting {
            settling = stage.drain();
        }
        if kind == b'y' {
            answered += 1;
            stage.it.request_done(answered % 2 == 0);
            if gone.is_none() {
                stage.feed();
            }
        }
        if kind == b'z' && gone.is_none() {
            gone = Some(stage.it.log.upstream.len());
            settling = stage.drain();
        }
    }
    let gone = gone.unwrap_or_else(|| {
        let before = stage.it.log.upstream.len();
        settling = stage.drain();
        before
    });
    if settling == DrainStep::Settled {
        let before = stage.it.log.upstream.len();
        assert_eq!(
            (stage.drain(), stage.it.log.upstream.len()),
            (DrainStep::Settled, before),
            "it rests"
        );
    }
    let ObservedSession { it: LoggedSession { session, log, .. }, actions, .. } = stage;
    Played {
        client: text(&log.client),
        upstream: text(&log.upstream),
        last_words: text(log.upstream.get(gone..).unwrap()),
        settling,
        set: session.changed_state(),
        actions,
    }
}
