//! Recorded sessions for tests, benchmarks and fuzz targets: a log of all actions, and a driver without peers.

use std::time::{Duration, Instant};

use super::session::{
    AccountQuestion, DrainStep, ObservedEvent, Request, Session, SessionAction, SessionEnd,
    SessionInput, SessionSettings, UsedInput,
};
use crate::machine::{Actions, Machine};
use crate::policy::{JmapAccess, Native};
use crate::push::server_news::OpenedMailbox;
use crate::secret::DeviceToken;
use crate::store::FetchLesson;
use crate::trace::{Piece, Recorder, TraceEvent};

/// Settings of which a test changes what it is about.
#[must_use]
pub fn settings() -> SessionSettings {
    SessionSettings {
        entries: vec![],
        push_status: false,
        native: Native::Passthrough,
        keepalive: None,
        jmapaccess: JmapAccess::Strip,
        command_time: Duration::from_secs(30),
        max_command: 8192,
        max_response: 8192,
    }
}

/// An action whose place among the others is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoggedAction {
    /// So many bytes more in [`SessionLog::client`].
    ToClient(usize),
    /// So many bytes more in [`SessionLog::upstream`].
    ToUpstream(usize),
    /// [`SessionAction::Compress`].
    Compress,
    /// One more of [`SessionLog::requests`].
    Request,
    /// One more of [`SessionLog::idled`].
    IdlesIn,
    /// [`SessionLog::end`].
    End,
}

/// All that a session has asked its driver for.
#[derive(Default)]
pub struct SessionLog {
    /// The order of the actions.
    pub order: Vec<LoggedAction>,
    /// Bytes for the client.
    pub client: Vec<u8>,
    /// Bytes for the upstream.
    pub upstream: Vec<u8>,
    /// Requests, oldest first.
    pub requests: Vec<Request>,
    /// Mailboxes in which the client idled.
    pub idled: Vec<String>,
    /// The number of times that the client asked for new messages.
    pub fetches: usize,
    /// The number of times that it was recognized as a background fetch.
    pub background_fetches: usize,
    /// Lessons from what the app fetched.
    pub lessons: Vec<FetchLesson>,
    /// Mailboxes that the client opened, with their positions.
    pub opened: Vec<OpenedMailbox>,
    /// Events for the observer of new mail.
    pub observed: Vec<LoggedEvent>,
    /// The number of bytes that the client had got when compression began.
    pub compressed_from: Option<usize>,
    /// The end of the session by the machine.
    pub end: Option<SessionEnd>,
    /// The text of the trace.
    pub shown: Vec<u8>,
    /// A recorder that gets the trace, too.
    pub trace: Option<Recorder>,
    drained: Option<DrainStep>,
    used: UsedInput,
    question: Option<AccountQuestion>,
}

/// An [`ObservedEvent`] with its own text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoggedEvent {
    /// [`ObservedEvent::Opening`].
    Opening,
    /// [`ObservedEvent::Opened`].
    Opened(String),
    /// [`ObservedEvent::Closed`].
    Closed,
    /// [`ObservedEvent::Response`].
    Response(Vec<u8>),
    /// [`ObservedEvent::Fetched`].
    Fetched {
        /// The lowest UID of a set that is open to the end.
        from: Option<u64>,
    },
}

impl From<ObservedEvent<'_>> for LoggedEvent {
    fn from(event: ObservedEvent<'_>) -> Self {
        match event {
            ObservedEvent::Opening => Self::Opening,
            ObservedEvent::Opened(mailbox) => Self::Opened(mailbox.to_owned()),
            ObservedEvent::Closed => Self::Closed,
            ObservedEvent::Response(response) => Self::Response(response.to_vec()),
            ObservedEvent::Fetched { from } => Self::Fetched { from },
        }
    }
}

impl Actions<Session> for SessionLog {
    fn push(&mut self, action: SessionAction<'_>) {
        match action {
            SessionAction::ToClient(bytes) => {
                self.client.extend_from_slice(bytes);
                self.order.push(LoggedAction::ToClient(bytes.len()));
            }
            SessionAction::ToUpstream(bytes) => {
                self.upstream.extend_from_slice(bytes);
                self.order.push(LoggedAction::ToUpstream(bytes.len()));
            }
            SessionAction::Used(used) => self.used = used,
            SessionAction::Compress => {
                assert_eq!(self.compressed_from, None, "compressed twice");
                self.compressed_from = Some(self.client.len());
                self.order.push(LoggedAction::Compress);
            }
            SessionAction::Request(request) => {
                self.requests.push(request.clone());
                self.order.push(LoggedAction::Request);
            }
            SessionAction::Ask(question) => self.question = Some(question),
            SessionAction::IdlesIn(mailbox) => {
                self.idled.push(mailbox.to_owned());
                self.order.push(LoggedAction::IdlesIn);
            }
            SessionAction::Fetches => self.fetches = self.fetches.saturating_add(1),
            SessionAction::Learned(lesson) => self.lessons.push(lesson.clone()),
            SessionAction::BackgroundFetch => {
                self.background_fetches = self.background_fetches.saturating_add(1);
            }
            SessionAction::Opened(opened) => self.opened.push(opened.clone()),
            SessionAction::Observed(event) => self.observed.push(event.into()),
            SessionAction::Trace(event) => self.show(event),
            SessionAction::Drained(step) => self.drained = Some(step),
            SessionAction::End(end) => {
                self.end = Some(end);
                self.order.push(LoggedAction::End);
            }
        }
    }
}

impl SessionLog {
    fn show(&mut self, event: TraceEvent<'_>) {
        if let TraceEvent::Piece(_, _, Piece::Text(text)) = event {
            self.shown.extend_from_slice(text);
        }
        if let Some(transcript) = self.trace.as_mut().and_then(Recorder::transcript) {
            event.show(transcript);
        }
    }
}

/// A session whose driver answers what it asks and logs the rest. Time stands still until it [`passes`](Self::passes).
pub struct LoggedSession {
    /// The machine.
    pub session: Session,
    /// Its actions.
    pub log: SessionLog,
    /// The tokens of its account.
    pub tokens: Vec<DeviceToken>,
    /// The push status of its account.
    pub push_status: String,
    /// Bytes that the client has sent and the session has not taken.
    pub waiting: Vec<u8>,
    /// The time.
    pub now: Instant,
}

impl LoggedSession {
    /// A session that begins now.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self {
            session,
            log: SessionLog::default(),
            tokens: vec![],
            push_status: "push active".to_owned(),
            waiting: vec![],
            now: Instant::now(),
        }
    }

    /// Has the trace shown, also in `recorder`.
    pub fn trace_in(&mut self, recorder: Option<Recorder>) {
        self.log.trace = recorder;
        self.handle(SessionInput::Traced(true));
    }

    /// Gives the session an input.
    pub fn handle(&mut self, input: SessionInput<'_>) {
        self.session.handle(input, self.now, &mut self.log);
    }

    fn answers_question(&mut self) -> bool {
        match self.log.question.take() {
            None => return false,
            Some(AccountQuestion::Tokens) => {
                let tokens = self.tokens.clone();
                self.handle(SessionInput::Tokens(&tokens));
            }
            Some(AccountQuestion::PushStatus) => {
                let status = self.push_status.clone();
                self.handle(SessionInput::PushStatus(&status));
            }
        }
        true
    }

    /// Gives it bytes of the client, and returns how many it used.
    pub fn give_client(&mut self, input: &[u8]) -> usize {
        let mut used: usize = 0;
        loop {
            let bytes = input.get(used..).unwrap_or_default();
            self.handle(SessionInput::Client { bytes, pieces: usize::MAX });
            used = used.saturating_add(self.log.used.bytes);
            if !self.answers_question() {
                return used;
            }
        }
    }

    /// The client sends bytes.
    pub fn client_says(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
        self.feed();
    }

    /// Gives it what waits, as far as it takes that. Returns how much it used.
    pub fn feed(&mut self) -> usize {
        let mut all: usize = 0;
        while self.session.takes_client_input() && !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            let used = self.give_client(&waiting);
            self.waiting = waiting.get(used..).unwrap_or_default().to_vec();
            all = all.saturating_add(used);
            if used == 0 {
                break;
            }
        }
        all
    }

    /// The upstream sends bytes.
    pub fn upstream_says(&mut self, bytes: &[u8]) {
        self.handle(SessionInput::Upstream { bytes, pieces: usize::MAX });
    }

    /// The oldest request was done, or not.
    pub fn request_done(&mut self, done: bool) {
        self.handle(SessionInput::Outcome(done.into()));
    }

    /// The client is gone, or the upstream has said more since.
    pub fn drain(&mut self) -> DrainStep {
        self.handle(SessionInput::Drain);
        self.log.drained.take().unwrap_or(DrainStep::Waiting)
    }

    /// Nothing happens for so long.
    pub fn passes(&mut self, time: Duration) {
        self.now = self.now.checked_add(time).unwrap_or(self.now);
        self.handle(SessionInput::Time);
    }

    /// The time until the session's deadline; `None` if it has none.
    #[must_use]
    pub fn waits(&self) -> Option<Duration> {
        self.session.deadline().map(|deadline| deadline.saturating_duration_since(self.now))
    }
}
