//! The observer of new mail in a client's own session, as a machine: responses and time in, new mail and positions out.
//!
//! The client waits in IDLE, hears EXISTS, and fetches. From what it fetches the messages are judged as a watch would do it,
//! and the mailbox counts as looked through once a FETCH of all that is new has passed. Without one nothing is known but that
//! something came, and in doubt that deserves a push.

use std::time::Instant;

use super::filter::{PushDecision, PushFilter, SkipReason};
use super::idle::is_same;
use super::idle::response::{Heard, MailboxCode, hear};
use crate::machine::{Actions, Machine};
use crate::parser::data::Fetch;
use crate::store::Position;

/// What comes in.
#[derive(Debug, Clone, Copy)]
pub enum ObserverInput<'a> {
    /// Another mailbox is being opened, or none is open.
    Closed,
    /// The mailbox with this name is open.
    Opened(&'a str),
    /// A response that passes by.
    Response {
        /// The whole response, or its beginning if it is very long.
        line: &'a [u8],
        /// Decides what is worth a push.
        filter: &'a PushFilter,
    },
    /// A FETCH of the client's has succeeded; it was for all messages from this UID on, if there is one.
    Fetched(Option<u64>),
    /// The answer to [`ObserverAction::Compare`]: what is noted of the mailbox that is open.
    Noted(Option<Position>),
    /// The other answer: as far as is known, the mailbox is nobody's concern.
    Unwatched,
    /// The answer to [`ObserverAction::Wait`]: the wait is over.
    Waited,
    /// Another session has looked through the open mailbox up to there.
    Advanced(Position),
    /// The last [`ObserverAction::Note`] could not be written.
    NotWritten,
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObserverAction {
    /// Find out what is noted of the mailbox that is open: [`ObserverInput::Noted`] or [`ObserverInput::Unwatched`].
    Compare,
    /// There is news: give the client time to fetch it, then [`ObserverInput::Waited`]. How long is the driver's to say, whose
    /// configuration may be read again meanwhile.
    Wait,
    /// Note this.
    Note(ObserverOutcome),
}

/// What is to be noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObserverOutcome {
    /// Of which mailbox.
    pub mailbox: String,
    /// Up to where it has been looked through.
    pub position: Position,
    /// Whether some message deserves a push.
    pub announce: bool,
    /// The client itself has fetched what came.
    pub is_fetched: bool,
    /// The highest UID of a message that deserves a push, if it is fetched.
    pub deserving: u64,
    /// When the news came.
    pub since: Option<Instant>,
}

/// Up to where a session has shown its client what is in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownPosition {
    /// Which mailbox.
    pub mailbox: String,
    /// Its UIDVALIDITY.
    pub uid_validity: u64,
    /// The highest UID.
    pub uid: u64,
}

impl ShownPosition {
    /// Whether that is all of `news`.
    #[must_use]
    pub fn covers(&self, news: &Self) -> bool {
        is_same(&self.mailbox, &news.mailbox)
            && self.uid_validity == news.uid_validity
            && self.uid >= news.uid
    }
}

impl ObserverOutcome {
    /// What of it has to have been shown to a device that needs no push; `None` if that is not known.
    #[must_use]
    pub fn news(&self) -> Option<ShownPosition> {
        let Self { mailbox, position: Position { uid_validity, .. }, deserving, .. } = self;
        self.is_fetched.then(|| ShownPosition {
            mailbox: mailbox.clone(),
            uid_validity: *uid_validity,
            uid: *deserving,
        })
    }

    /// This one and a later one of the same mailbox.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        Self {
            announce: self.announce || later.announce,
            deserving: self.deserving.max(later.deserving),
            since: self.since.or(later.since),
            ..later
        }
    }
}

/// The machine: one for each session.
#[derive(Debug, Default)]
pub struct NewMailObserver {
    mailbox: Option<String>,
    uid_validity: u64,
    /// UIDNEXT when it was opened.
    uid_next: Option<u64>,
    /// It was compared with what is noted.
    is_compared: bool,
    /// The lowest UID that is not looked through.
    from: u64,
    /// When the first news came that is not resolved.
    news_since: Option<Instant>,
    /// News was announced without a look.
    is_announced: bool,
    /// The highest UID that was fetched, and the highest of a message that deserves a push.
    seen: u64,
    deserving: u64,
    /// What was fetched of some message did not tell which one it was.
    is_doubtful: bool,
    /// The lowest UID that a FETCH of everything from there on has asked for, since the news.
    fetched_from: Option<u64>,
}

impl Machine for NewMailObserver {
    type Input<'a> = ObserverInput<'a>;
    type Action<'a> = ObserverAction;

    fn handle(&mut self, input: ObserverInput<'_>, now: Instant, actions: &mut impl Actions<Self>) {
        match input {
            ObserverInput::Closed => *self = Self::default(),
            ObserverInput::Opened(mailbox) => {
                self.mailbox = Some(mailbox.to_owned());
                actions.push(ObserverAction::Compare);
            }
            ObserverInput::Response { line, filter } => self.response(line, filter, now, actions),
            ObserverInput::Fetched(from) => self.fetched(from, actions),
            ObserverInput::Noted(noted) => self.compare(noted, now, actions),
            ObserverInput::Unwatched => self.mailbox = None,
            ObserverInput::Waited => self.resolve(actions),
            ObserverInput::Advanced(noted) => self.advance(noted),
            ObserverInput::NotWritten => {
                self.news_since.get_or_insert(now);
                actions.push(ObserverAction::Wait);
            }
        }
    }

    /// None: the waits are the driver's.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

impl NewMailObserver {
    /// Whether what the client fetches is of interest.
    #[must_use]
    pub fn looks(&self) -> bool {
        self.mailbox.is_some() && (!self.is_compared || self.has_news())
    }

    /// The mailbox that is open.
    #[must_use]
    pub fn mailbox(&self) -> Option<&str> {
        self.mailbox.as_deref()
    }

    fn response(
        &mut self,
        line: &[u8],
        judge: &PushFilter,
        now: Instant,
        actions: &mut impl Actions<Self>,
    ) {
        match hear(line) {
            Heard::Status(_, MailboxCode::UidValidity(value)) => self.uid_validity = value,
            Heard::Status(_, MailboxCode::UidNext(value)) if self.mailbox.is_none() => {
                self.uid_next = Some(value)
            }
            Heard::Exists(_) if self.mailbox.is_some() => self.news(now, actions),
            Heard::Fetch(message) if self.looks() => self.shown_message(&message, line, judge),
            _ => {}
        }
    }

    /// The client gets a message, or some of it.
    fn shown_message(&mut self, message: &Fetch<'_>, line: &[u8], judge: &PushFilter) {
        let Some(uid) = message.uid else {
            // With flags alone it is news of an old one.
            self.is_doubtful |=
                self.has_news() && (message.is_unclear || message.headers.is_some());
            return;
        };
        self.seen = self.seen.max(uid);
        let flags = || message.flags.iter().map(AsRef::as_ref);
        // Without headers flags alone may rule it out; in doubt it is a push.
        let verdict = match &message.headers {
            _ if message.is_unclear => PushDecision::Push,
            Some(headers) => match judge.verdict(flags(), headers) {
                // Fields that the client did not ask for say nothing.
                PushDecision::Skip(SkipReason::NotEncrypted) if !asks_for_rule(line) => {
                    PushDecision::Push
                }
                verdict => verdict,
            },
            None => judge.by_flags(flags()),
        };
        if verdict == PushDecision::Push {
            self.deserving = self.deserving.max(uid);
        }
    }

    fn news(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        let is_first = self.news_since.is_none();
        self.news_since.get_or_insert(now);
        // What was fetched before is not all that is new now.
        self.fetched_from = None;
        if is_first && self.is_compared {
            actions.push(ObserverAction::Wait);
        }
    }

    fn has_news(&self) -> bool {
        self.news_since.is_some() || self.is_announced
    }

    fn fetched(&mut self, from: Option<u64>, actions: &mut impl Actions<Self>) {
        let Some(from) = from.filter(|_| self.looks()) else { return };
        self.fetched_from = Some(self.fetched_from.map_or(from, |before| before.min(from)));
        if self.is_compared && self.has_news() && self.is_complete() {
            self.resolve(actions);
        }
    }

    /// Up to where the client has been shown what is in the mailbox, as far as that was looked at.
    #[must_use]
    pub fn shown(&self) -> Option<ShownPosition> {
        let mailbox = self.mailbox.clone().filter(|_| self.seen > 0)?;
        Some(ShownPosition { mailbox, uid_validity: self.uid_validity, uid: self.seen })
    }

    fn is_complete(&self) -> bool {
        self.fetched_from.is_some_and(|from| from <= self.from)
    }

    /// Compares the open mailbox with what is noted of it. Of a mailbox that was never looked through, what is there is old.
    fn compare(&mut self, noted: Option<Position>, now: Instant, actions: &mut impl Actions<Self>) {
        let Some(mailbox) = self.mailbox.clone().filter(|_| !self.is_compared) else { return };
        self.is_compared = true;
        let current = noted.filter(|noted| noted.uid_validity == self.uid_validity);
        self.from = current.map(|noted| noted.uid_next).or(self.uid_next).unwrap_or_default();
        let is_changed = noted.is_some() && current.is_none();
        if current.is_none() && self.uid_next.is_some() {
            actions.push(ObserverAction::Note(ObserverOutcome {
                mailbox,
                position: self.position(),
                announce: is_changed,
                is_fetched: false,
                deserving: 0,
                since: None,
            }));
        }
        if current.is_some() && self.uid_next.is_some_and(|next| next > self.from) {
            self.news_since.get_or_insert(now);
        }
        match self.has_news() {
            false => {}
            true if self.is_complete() => self.resolve(actions),
            true => actions.push(ObserverAction::Wait),
        }
    }

    /// Says what the news is, as far as it is known now.
    fn resolve(&mut self, actions: &mut impl Actions<Self>) {
        let open = self.mailbox.clone().filter(|_| self.is_compared && self.has_news());
        let Some(mailbox) = open else { return };
        let since = self.news_since.take();
        let is_fetched = self.is_complete() && !std::mem::take(&mut self.is_doubtful);
        if !is_fetched && since.is_none() {
            return;
        }
        let is_known = std::mem::replace(&mut self.is_announced, !is_fetched);
        let announce = match is_fetched {
            true => {
                self.deserving >= self.from && self.deserving > 0 && !(is_known && since.is_none())
            }
            false => true,
        };
        if is_fetched {
            self.from = self.from.max(self.seen.saturating_add(1));
            self.fetched_from = None;
        }
        actions.push(ObserverAction::Note(ObserverOutcome {
            mailbox,
            position: self.position(),
            announce,
            is_fetched,
            deserving: self.deserving,
            since,
        }));
    }

    fn position(&self) -> Position {
        Position { uid_validity: self.uid_validity, uid_next: self.from }
    }

    fn advance(&mut self, noted: Position) {
        if noted.uid_validity == self.uid_validity {
            self.from = self.from.max(noted.uid_next);
        }
    }
}

/// Whether the fields of a FETCH response were selected so that they tell an encrypted message.
fn asks_for_rule(line: &[u8]) -> bool {
    let selected = line.split(|byte| *byte == b']').next().unwrap_or_default().to_ascii_uppercase();
    [b"CONTENT-TYPE".as_slice(), b"SECURE-JOIN", b"FROM"]
        .iter()
        .all(|name| memchr::memmem::find(&selected, name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eye(noted: Option<(u64, u64)>) -> (NewMailObserver, Vec<Seen>) {
        let mut eye = NewMailObserver::default();
        for line in ["* 3 EXISTS", "* OK [UIDVALIDITY 7] x", "* OK [UIDNEXT 4] x"] {
            assert_eq!(says(&mut eye, line), []);
        }
        assert_eq!(handle(&mut eye, ObserverInput::Opened("INBOX")), [Seen::Compare]);
        let noted = noted.map(|(uid_validity, uid_next)| Position { uid_validity, uid_next });
        let actions = handle(&mut eye, ObserverInput::Noted(noted));
        (eye, actions)
    }

    /// An action in short.
    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Compare,
        Wait,
        /// UIDNEXT, whether it is announced, and whether the client has fetched.
        Note(u64, bool, bool),
    }

    fn outcomes(eye: &mut NewMailObserver, input: ObserverInput<'_>) -> Vec<ObserverAction> {
        let mut actions = vec![];
        eye.handle(input, Instant::now(), &mut actions);
        actions
    }

    fn handle(eye: &mut NewMailObserver, input: ObserverInput<'_>) -> Vec<Seen> {
        let seen = |action| match action {
            ObserverAction::Compare => Seen::Compare,
            ObserverAction::Wait => Seen::Wait,
            ObserverAction::Note(outcome) => {
                Seen::Note(outcome.position.uid_next, outcome.announce, outcome.is_fetched)
            }
        };
        outcomes(eye, input).into_iter().map(seen).collect()
    }

    fn says(eye: &mut NewMailObserver, line: &str) -> Vec<Seen> {
        let filter = PushFilter { addresses: vec!["me@lab.test".into()], ..PushFilter::default() };
        let line = format!("{line}\r\n");
        handle(eye, ObserverInput::Response { line: line.as_bytes(), filter: &filter })
    }

    fn fetched(eye: &mut NewMailObserver, from: Option<u64>) -> Vec<Seen> {
        handle(eye, ObserverInput::Fetched(from))
    }

    fn waited(eye: &mut NewMailObserver) -> Vec<Seen> {
        handle(eye, ObserverInput::Waited)
    }

    /// The only action, a note.
    fn noted(eye: &mut NewMailObserver, input: ObserverInput<'_>) -> ObserverOutcome {
        match outcomes(eye, input).as_slice() {
            [ObserverAction::Note(outcome)] => outcome.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn fetch(uid: u64, headers: &str) -> String {
        format!(
            "* 4 FETCH (UID {uid} FLAGS () BODY[HEADER.FIELDS (FROM)] {{{}}}\r\n{headers})",
            headers.len()
        )
    }

    #[test]
    fn news_that_the_client_fetches_is_judged_by_what_it_fetches() {
        let (mut eye, actions) = eye(Some((7, 4)));
        assert_eq!(actions, [], "nothing is new");
        assert!(!eye.looks());
        assert_eq!(says(&mut eye, "* 4 EXISTS"), [Seen::Wait]);
        assert_eq!(says(&mut eye, "* 5 EXISTS"), []);
        says(&mut eye, &fetch(4, "From: bob@lab.test\r\n\r\n"));
        says(&mut eye, &fetch(5, "From: me@lab.test\r\n\r\n"));
        assert_eq!(fetched(&mut eye, None), [], "of which messages is not known");
        assert_eq!(fetched(&mut eye, Some(4)), [Seen::Note(6, true, true)]);
        assert_eq!(waited(&mut eye), []);
        // Its own mail wakes nobody.
        assert_eq!(says(&mut eye, "* 6 EXISTS"), [Seen::Wait]);
        says(&mut eye, &fetch(6, "From: me@lab.test\r\n\r\n"));
        assert_eq!(fetched(&mut eye, Some(6)), [Seen::Note(7, false, true)]);
    }

    #[test]
    fn without_a_fetch_it_is_announced_once_and_stays_to_be_looked_at() {
        let (mut eye, _) = eye(Some((7, 4)));
        says(&mut eye, "* 4 EXISTS");
        assert_eq!(waited(&mut eye), [Seen::Note(4, true, false)]);
        assert_eq!(waited(&mut eye), []);
        // The client comes later.
        says(&mut eye, &fetch(4, "From: bob@lab.test\r\n\r\n"));
        assert_eq!(fetched(&mut eye, Some(4)), [Seen::Note(5, false, true)]);
    }

    #[test]
    fn fetched_messages_without_a_readable_uid_are_announced() {
        for answer in [
            "* 4 FETCH (FLAGS () BODY[HEADER.FIELDS (FROM)] {2}\r\n\r\n)",
            "* 4 FETCH (UID 99999999999999999999 FLAGS () BODY[] {2}\r\n\r\n)",
            "* 4 FETCH (UID",
        ] {
            let (mut eye, _) = eye(Some((7, 4)));
            assert_eq!(says(&mut eye, "*   4 EXISTS  "), [Seen::Wait]);
            says(&mut eye, answer);
            let outcome = noted(&mut eye, ObserverInput::Fetched(Some(4)));
            assert!(outcome.announce && outcome.news().is_none(), "{answer}");
            // Once.
            assert!(!waited(&mut eye).iter().any(|seen| matches!(seen, Seen::Note(_, true, _))));
        }
        let (mut eye, _) = eye(Some((7, 4)));
        says(&mut eye, "*  4  EXISTS");
        says(&mut eye, "*  4  FETCH ( UID  19564493749  FLAGS ( )  BODY[]  {2}\r\n\r\n )");
        assert_eq!(fetched(&mut eye, Some(4)), [Seen::Note(19_564_493_750, true, true)]);
    }

    #[test]
    fn fetch_that_began_before_the_news_is_not_of_all_of_it() {
        let (mut eye, _) = eye(Some((7, 4)));
        says(&mut eye, "* 4 EXISTS");
        says(&mut eye, &fetch(4, "From: bob@lab.test\r\n\r\n"));
        says(&mut eye, "* 5 EXISTS");
        assert_eq!(fetched(&mut eye, Some(5)), [], "there is one below");
        assert_eq!(waited(&mut eye), [Seen::Note(4, true, false)]);
    }

    #[test]
    fn announcement_names_the_devices_that_know_the_message() {
        let shown = |uid| ShownPosition { mailbox: "inbox".into(), uid_validity: 7, uid };
        let (mut eye, _) = eye(Some((7, 4)));
        says(&mut eye, "* 4 EXISTS");
        says(&mut eye, &fetch(4, "From: bob@lab.test\r\n\r\n"));
        assert_eq!(eye.shown().unwrap().uid, 4);
        // Its fetch may be as late as it wants: of this one it has not heard.
        says(&mut eye, "* 5 EXISTS");
        let outcome = noted(&mut eye, ObserverInput::Waited);
        assert!(outcome.news().is_none(), "nobody is known to know it");
        says(&mut eye, &fetch(5, "From: bob@lab.test\r\n\r\n"));
        fetched(&mut eye, Some(4));
        says(&mut eye, "* 6 EXISTS");
        says(&mut eye, &fetch(6, "From: me@lab.test\r\n\r\n"));
        let news = noted(&mut eye, ObserverInput::Fetched(Some(4))).news().unwrap();
        assert_eq!((shown(4).covers(&news), shown(5).covers(&news)), (false, true));
    }

    #[test]
    fn of_two_outcomes_nothing_is_lost() {
        let position = |uid_next| Position { uid_validity: 7, uid_next };
        let outcome = |uid_next, announce, deserving| ObserverOutcome {
            mailbox: "INBOX".into(),
            position: position(uid_next),
            announce,
            is_fetched: true,
            deserving,
            since: None,
        };
        let both = outcome(5, true, 4).and(outcome(6, false, 4));
        assert_eq!((both.position, both.announce, both.deserving), (position(6), true, 4));
    }

    #[test]
    fn mail_that_came_meanwhile_is_found_when_the_mailbox_is_opened() {
        let (mut eye, actions) = eye(Some((7, 2)));
        assert_eq!(actions, [Seen::Wait]);
        says(&mut eye, &fetch(2, "From: bob@lab.test\r\n\r\n"));
        says(&mut eye, &fetch(3, "From: bob@lab.test\r\n\r\n"));
        assert_eq!(fetched(&mut eye, Some(1)), [Seen::Note(4, true, true)]);
    }

    #[test]
    fn first_look_notes_where_it_begins() {
        assert_eq!(eye(None).1, [Seen::Note(4, false, false)]);
        assert_eq!(eye(Some((6, 99))).1, [Seen::Note(4, true, false)], "another UIDVALIDITY");
    }
}
