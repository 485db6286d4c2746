//! A watching session after its login, as a machine: responses and time in, actions out.
//!
//! EXAMINE (never SELECT: nothing is marked seen, no flag is taken away), fetch what came since the noted position, then wait
//! in IDLE (RFC 2177). On news: DONE, fetch, IDLE again. Where the server has NOTIFY (RFC 5465) flags and headers come with
//! the news, without that round, and one session watches several mailboxes. Whatever EXISTS says between a FETCH and an
//! IDLE leads to one more look before the wait: that gap is where other watchers lose messages.

mod complaint;
pub(super) mod heard;
mod mailbox;
mod terms;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use mailbox::{WatchedMailbox, is_same};
pub use terms::{Action, Failure, Manners, Watch, blindness};

use super::verdict::{Verdict, message_id};
use crate::parser::quote::push_quoted;
use crate::parser::response::{Condition, Status};
use crate::store::Position;
use crate::upstream::refusal::{self, Refusal, classify};
use complaint::Complaint;
use heard::{Code, Heard, Message, hear};
use mailbox::{Begin, Open};

/// How long the answer to a command may take.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// How long a FETCH may take in all, as long as it brings something in between.
const FETCH_TIME: Duration = Duration::from_secs(600);

/// How much of the headers is fetched, in bytes: a stranger writes them, and one message must not hold up all others.
const MAX_HEADERS: u32 = 16 * 1024;

/// An IDLE that the server ends by itself sooner than this, for nothing, is no IDLE.
const SHORT_IDLE: Duration = Duration::from_secs(5);

/// So many of these in a row, and the session is given up.
const MAX_SHORT_IDLES: u32 = 3;

/// Responses to one command, or within one IDLE, that bring no new message: so many, and the session is given up. A person who
/// marks or deletes more at once has the watch come back a moment later.
const MAX_CHATTER: u32 = 20_000;

/// How long flags and headers may take to follow an EXISTS where NOTIFY promises them. Then they are fetched.
const NOTIFY_TIME: Duration = Duration::from_secs(2);

/// What is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was sent yet.
    New,
    /// The end of EXAMINE.
    Examine,
    /// The end of the FETCH that only finds out the highest UID, of a server that gives no UIDNEXT.
    FindLast,
    /// The end of the FETCH of what is new.
    Fetch,
    /// The end of NOTIFY.
    Notify,
    /// `+`
    IdleStart,
    /// News, or the time to renew.
    Idle,
    /// The end of IDLE, after DONE.
    IdleEnd,
    /// The end of CLOSE, after which the session is as it was after its login.
    Close,
    /// Nothing more.
    Over,
}

/// How news of the open mailbox comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notify {
    /// By EXISTS alone.
    Absent,
    /// The server has NOTIFY, and it is not set yet.
    Unset,
    /// EXISTS, then flags and headers.
    Set,
}

/// So many messages that come together are told apart.
const MAX_IDS: usize = 32;

/// What tells messages that deserve a push from others. Boxed: most of the time there is none.
#[derive(Debug, Default)]
struct Ids(Option<Box<KnownIds>>);

#[derive(Debug, Default)]
struct KnownIds {
    ids: Vec<u64>,
    /// Of some message it is not known.
    is_incomplete: bool,
}

impl Ids {
    fn add(&mut self, id: Option<u64>) {
        let known = self.0.get_or_insert_default();
        match id.filter(|_| known.ids.len() < MAX_IDS) {
            Some(id) => known.ids.push(id),
            None => known.is_incomplete = true,
        }
    }

    /// Those of all messages, or none.
    fn known(self) -> Vec<u64> {
        self.0.filter(|known| !known.is_incomplete).map(|known| known.ids).unwrap_or_default()
    }
}

/// The machine.
#[derive(Debug)]
pub struct IdleMachine {
    watch: Watch,
    state: State,
    tag: u32,
    /// By when the awaited has to come; in [`State::Idle`], when to do something.
    deadline: Instant,
    /// When to leave IDLE to renew it.
    renew_at: Instant,
    /// When the last IDLE or FETCH began.
    began: Instant,
    /// The server has accepted an IDLE in this session.
    has_idled: bool,
    /// IDLEs in a row that the server ended at once.
    short_idles: u32,
    /// Responses since the last command or new message.
    chatter: u32,
    /// The session failed while it fetched.
    failed_to_fetch: bool,
    /// Index of the mailbox that is open.
    current: usize,
    /// Indexes of the mailboxes that have to be visited.
    to_visit: Vec<usize>,
    open: Open,
    notify: Notify,
    /// What was set in the session before it was this one's.
    manners: Manners,
    /// The session is to be given back.
    releasing: bool,
    /// The open mailbox may have more than was fetched.
    has_news: bool,
    /// How many messages were announced by EXISTS of which NOTIFY has not brought the headers.
    expected: u32,
    /// Some message that was looked at, and not yet noted, deserves a push.
    announce: bool,
    /// What tells these messages from others.
    ids: Ids,
    /// When the first news came that is not noted yet.
    news_since: Option<Instant>,
    /// When the last of it came.
    last_news: Option<Instant>,
    /// The lowest UID that the fetch under way asks for.
    fetch_from: u32,
    /// One above the highest UID that was seen.
    seen_next: u32,
    /// The server's last words about something that goes wrong.
    complaint: Complaint,
}

impl IdleMachine {
    /// A machine for a session that is logged in and has nothing selected.
    #[must_use]
    pub fn new(watch: Watch, now: Instant) -> Self {
        let notify = if watch.notify { Notify::Unset } else { Notify::Absent };
        // The first one last: it is the one that stays open.
        let to_visit = (0..watch.mailboxes.len()).filter(|index| watch.notify || *index == 0).collect();
        Self {
            watch,
            state: State::New,
            tag: 0,
            deadline: now,
            renew_at: now,
            began: now,
            has_idled: false,
            short_idles: 0,
            chatter: 0,
            failed_to_fetch: false,
            current: 0,
            to_visit,
            open: Open::default(),
            notify,
            manners: Manners::default(),
            releasing: false,
            has_news: false,
            expected: 0,
            announce: false,
            ids: Ids::default(),
            news_since: None,
            last_news: None,
            fetch_from: 1,
            seen_next: 1,
            complaint: Complaint::default(),
        }
    }

    /// The same, in a session that had another user before, who may have left a mailbox open.
    #[must_use]
    pub fn in_session(mut self, manners: Manners) -> Self {
        self.manners = manners;
        self
    }

    /// Whether it was in the middle of a fetch: if the session ends now, that may be why.
    #[must_use]
    pub fn is_fetching(&self) -> bool {
        self.state == State::Fetch || self.failed_to_fetch
    }

    /// The end of the session as the driver saw it, with the server's last words if it gives no reason itself.
    #[must_use]
    pub fn explain(&self, end: Failure) -> Failure {
        self.complaint.explain(end, self.has_idled)
    }

    /// When [`tick`](Self::tick) has to be called.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Begins.
    pub fn start(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.go_on(now, actions);
    }

    /// Whether the apps of all the account's devices are known to fetch encrypted messages only.
    pub fn fetches_encrypted_only(&mut self, is_so: bool) {
        self.watch.judge.encrypted_only = is_so;
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if now < self.deadline {
            return;
        }
        match self.state {
            // What NOTIFY promised has not come, the grace is over, or it is time to renew.
            State::Idle => self.done(now, actions),
            State::New | State::Over => {}
            _ => self.fail(Failure::Silent, actions),
        }
    }

    /// deltapush ends: leaves in good order. What is said after that counts no more; what is new will be found at the next
    /// start.
    pub fn leave(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.state {
            State::New | State::Over => return,
            State::IdleStart | State::Idle => actions.push(Action::Send(b"DONE\r\n".to_vec())),
            _ => {}
        }
        self.command(b"LOGOUT", State::Over, now, actions);
    }

    /// Somebody else wants the session: what is new is looked at, then it is brought to where it was after its login. Not for a
    /// session with NOTIFY, which cannot be undone.
    pub fn release(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.releasing = true;
        if self.state == State::Idle {
            self.done(now, actions);
        }
    }

    /// Takes a whole response.
    pub fn response(&mut self, line: &[u8], now: Instant, actions: &mut Vec<Action>) {
        if self.state == State::Over {
            return;
        }
        self.chatter = self.chatter.saturating_add(1);
        if self.chatter > MAX_CHATTER {
            return self.fail(Failure::Chatter, actions);
        }
        match hear(line) {
            Heard::Continuation => self.continuation(now, actions),
            Heard::Status(status, code) => self.status(status, code, now, actions),
            Heard::Exists(count) => self.exists(count, now, actions),
            Heard::Expunge => self.open.exists = self.open.exists.saturating_sub(1),
            Heard::Fetch(message) => self.fetched(&message, now, actions),
            Heard::Mailbox { name, uid_validity, uid_next } => {
                self.other_mailbox(&name, uid_validity, uid_next, now, actions);
            }
            Heard::Other => {}
        }
    }

    fn status(&mut self, status: Status<'_>, code: Code, now: Instant, actions: &mut Vec<Action>) {
        self.complaint.record(status);
        match code {
            Code::UidValidity(value) => self.open.uid_validity = value,
            Code::UidNext(value) if self.state == State::Examine => self.open.uid_next = Some(value),
            Code::NotificationOverflow => {
                self.without_notify(actions);
                self.has_news = true;
                self.look_soon(now, actions);
            }
            Code::UidNext(_) | Code::None => {}
        }
        match status.tag {
            Some(tag) if tag == self.current_tag().as_bytes() => self.ended(status, now, actions),
            None if status.condition == Condition::Bye => {
                self.fail(Failure::Bye(refusal::words(status)), actions);
            }
            // One command is under way: it is the one that was not understood (RFC 9051 section 7.1.3).
            None if status.condition == Condition::Bad && !matches!(self.state, State::Idle | State::IdleEnd) => {
                self.ended(status, now, actions);
            }
            _ => {}
        }
    }

    /// Any EXISTS means that there may be something new, even one that names no higher number: servers exist that say
    /// nothing of what was expunged.
    fn exists(&mut self, count: u32, now: Instant, actions: &mut Vec<Action>) {
        let grown = count.saturating_sub(std::mem::replace(&mut self.open.exists, count));
        if self.state == State::Examine {
            // The first one belongs to the answer, the second one is news that UIDNEXT may not know of.
            self.has_news |= std::mem::replace(&mut self.open.counted, true);
            return;
        }
        self.news_since.get_or_insert(now);
        self.last_news = Some(now);
        let headers_follow = self.notify == Notify::Set && self.watch.grace.is_zero() && grown > 0;
        if self.state == State::Idle && headers_follow {
            if self.expected == 0 {
                self.deadline = self.renew_at.min(after(now, NOTIFY_TIME));
            }
            self.expected = self.expected.saturating_add(grown);
            return;
        }
        self.has_news = true;
        self.look_soon(now, actions);
    }

    /// There is news: leave IDLE for it, at once or after the grace.
    fn look_soon(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.state != State::Idle {
            return;
        }
        if self.watch.grace.is_zero() {
            self.done(now, actions);
        } else {
            self.deadline = self.deadline.min(after(now, self.watch.grace));
        }
    }

    /// NOTIFY: something happened in a mailbox that is not open.
    fn other_mailbox(
        &mut self,
        name: &str,
        uid_validity: Option<u32>,
        uid_next: Option<u32>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let found =
            self.watch.mailboxes.iter().position(|mailbox| is_same(&self.manners.on_the_wire(&mailbox.name), name));
        let Some(index) = found.filter(|index| *index != self.current) else { return };
        let noted = self.watch.mailboxes.get(index).and_then(|mailbox| mailbox.position);
        let is_known = noted.is_some_and(|noted| {
            uid_validity.is_none_or(|validity| validity == noted.uid_validity)
                && uid_next.is_some_and(|next| next <= noted.uid_next)
        });
        if is_known || self.to_visit.contains(&index) {
            return;
        }
        self.to_visit.push(index);
        self.look_soon(now, actions);
    }

    fn fetched(&mut self, message: &Message<'_>, now: Instant, actions: &mut Vec<Action>) {
        let next = message.uid.unwrap_or(0).saturating_add(1);
        if self.state == State::FindLast {
            self.seen_next = self.seen_next.max(next);
            return;
        }
        // Also one that no EXISTS has announced: some servers forget to say what was expunged, and the numbers do not add up.
        let notified = self.state == State::Idle && self.notify == Notify::Set && self.watch.grace.is_zero();
        if self.state == State::Fetch {
            self.deadline = after(now, ANSWER_TIME).min(after(self.began, FETCH_TIME));
        } else if !notified {
            return;
        }
        if message.unclear && self.state == State::Fetch && message.uid.is_none_or(|uid| uid >= self.fetch_from) {
            self.announce = true;
            self.ids.add(None);
            self.seen_next = self.seen_next.max(next);
        }
        // `n:*` also brings the last message if all are below n; a FETCH without headers is news of flags only.
        let (Some(uid), Some(headers)) = (message.uid, &message.headers) else { return };
        let from = if notified { self.seen_next } else { self.fetch_from };
        if uid < from {
            return;
        }
        self.chatter = 0;
        self.seen_next = self.seen_next.max(next);
        let verdict = self.watch.judge.verdict(message.flags.iter().map(AsRef::as_ref), headers);
        if verdict == Verdict::Push {
            self.announce = true;
            self.ids.add(message_id(headers));
        }
        let mailbox = self.watch.mailboxes.get(self.current).map(|mailbox| mailbox.name.clone()).unwrap_or_default();
        actions.push(Action::Judged { mailbox, uid, verdict });
        if notified {
            self.notified(now, actions);
        }
    }

    /// NOTIFY brought a message's headers; when it has brought all, they count.
    fn notified(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.expected = self.expected.saturating_sub(1);
        if self.expected == 0 {
            self.deadline = self.renew_at.max(now);
            self.note(self.seen_next, actions);
        }
    }

    fn continuation(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.state != State::IdleStart {
            return;
        }
        self.state = State::Idle;
        self.has_idled = true;
        self.renew_at = after(now, self.watch.renewal);
        self.deadline = self.renew_at;
        actions.push(Action::Watching);
        if self.releasing {
            return self.done(now, actions);
        }
        if self.has_news || !self.to_visit.is_empty() {
            // EXISTS came before `+`, as Outlook does it.
            self.look_soon(now, actions);
        }
    }

    /// The command under way has ended.
    fn ended(&mut self, status: Status<'_>, now: Instant, actions: &mut Vec<Action>) {
        let text = self.complaint.with_answer(status);
        match (self.state, status.condition == Condition::Ok) {
            (State::Examine, true) => self.examined(now, actions),
            (State::Examine, false) => self.not_opened(text, now, actions),
            (State::FindLast, _) => {
                self.note(self.seen_next, actions);
                self.go_on(now, actions);
            }
            (State::Fetch, true) => {
                self.note(self.seen_next.max(self.fetch_from), actions);
                self.go_on(now, actions);
            }
            (State::Fetch, false) => {
                // What it has said before it gave up counts.
                if self.announce {
                    self.note(self.seen_next, actions);
                }
                self.fail(Failure::NoFetch(text), actions);
            }
            (State::Notify, true) => {
                self.notify = Notify::Set;
                self.go_on(now, actions);
            }
            // Without it what its user before has set would go on, and that may be silence.
            (State::Notify, false) if self.manners.notify => self.fail(Failure::IdleRefused(text), actions),
            (State::Notify, false) => {
                self.without_notify(actions);
                self.go_on(now, actions);
            }
            (State::IdleStart, false) if self.knows_no_idle(status) => self.fail(Failure::NoIdle(text), actions),
            (State::IdleStart, false) => self.fail(Failure::IdleRefused(text), actions),
            // A server may end IDLE by itself, with or without a reason.
            (State::Idle | State::IdleStart, _) if self.is_short_idle(now) => {
                self.fail(Failure::IdleRefused("it ends at once".into()), actions);
            }
            (State::Idle | State::IdleStart | State::IdleEnd, _) => self.go_on(now, actions),
            (State::Close, true) => {
                self.state = State::Over;
                actions.push(Action::Released);
            }
            (State::Close, false) => self.fail(Failure::NoMailbox(text), actions),
            (State::New | State::Over, _) => {}
        }
    }

    /// NOTIFY is not to be had, whatever the capabilities say: the other mailboxes are not this session's any more.
    fn without_notify(&mut self, actions: &mut Vec<Action>) {
        self.notify = Notify::Absent;
        if self.watch.mailboxes.len() > 1 {
            self.watch.mailboxes.truncate(1);
            self.to_visit.retain(|index| *index == 0);
            actions.push(Action::OnlyFirst);
        }
    }

    /// IDLE was refused: whether for good. Not if it has worked in this session, nor if the words are about the moment, as
    /// Outlook's "User is authenticated but not connected".
    fn knows_no_idle(&self, refused: Status<'_>) -> bool {
        let moment = matches!(
            classify(&[b"BAD ", refused.text].concat(), b""),
            Refusal::TooManySessions | Refusal::Temporary | Refusal::Throttled | Refusal::Disabled
        );
        // An untagged BAD is more of a complaint than a statement about the command.
        refused.tag.is_some() && refused.condition == Condition::Bad && !self.has_idled && !moment
    }

    /// The server ended IDLE by itself: whether it does so at once, again and again.
    fn is_short_idle(&mut self, now: Instant) -> bool {
        let is_short = !self.has_news && self.to_visit.is_empty() && now < after(self.began, SHORT_IDLE);
        self.short_idles = if is_short { self.short_idles.saturating_add(1) } else { 0 };
        self.short_idles >= MAX_SHORT_IDLES
    }

    /// A mailbox is open: is there anything since the noted position?
    fn examined(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let noted = self.watch.mailboxes.get(self.current).and_then(|mailbox| mailbox.position);
        match self.open.begin(noted, self.watch.late) {
            Begin::Wait(next) => {
                self.seen_next = next;
                self.go_on(now, actions);
            }
            Begin::Note(next) => {
                self.note(next, actions);
                self.go_on(now, actions);
            }
            Begin::FindLast => {
                self.seen_next = 1;
                self.command(b"UID FETCH * (UID)", State::FindLast, now, actions);
            }
            Begin::FetchUids(_) | Begin::FetchNewest(..) if self.watch.blindly => {
                self.announce = true;
                self.ids.add(None);
                match self.open.uid_next {
                    Some(next) => {
                        self.note(next, actions);
                        self.go_on(now, actions);
                    }
                    None => self.command(b"UID FETCH * (UID)", State::FindLast, now, actions),
                }
            }
            Begin::FetchUids(from) => {
                self.seen_next = from;
                self.fetch_uids(now, actions);
            }
            Begin::FetchNewest(first, next) => {
                self.seen_next = next;
                self.fetch_from = 1;
                let items = self.items();
                self.fetch(&format!("FETCH {first}:* {items}"), now, actions);
            }
        }
    }

    /// A mailbox cannot be opened: without the first one there is nothing to wait in.
    fn not_opened(&mut self, words: String, now: Instant, actions: &mut Vec<Action>) {
        if self.current == 0 {
            return self.fail(Failure::NoMailbox(words), actions);
        }
        // It may be left out already: NOTIFY can fail while it is being opened.
        if self.current < self.watch.mailboxes.len() {
            let left_out = self.watch.mailboxes.remove(self.current);
            actions.push(Action::LeftOut(left_out.name, words));
        }
        let removed = self.current;
        self.to_visit.retain(|index| *index != removed);
        for index in self.to_visit.iter_mut().filter(|index| **index > removed) {
            *index = index.saturating_sub(1);
        }
        self.current = usize::MAX;
        self.go_on(now, actions);
    }

    /// The next thing to do: look once more if something may have come, visit what has to be visited, come back, wait.
    fn go_on(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if std::mem::take(&mut self.expected) > 0 {
            // NOTIFY brought less than it promised: what it brought counts as not seen.
            self.has_news = true;
            let noted = self.watch.mailboxes.get(self.current).and_then(|mailbox| mailbox.position);
            self.seen_next = noted.map_or(self.seen_next, |noted| noted.uid_next);
        }
        if self.has_news && self.open.exists > 0 {
            return self.fetch_uids(now, actions);
        }
        if self.releasing {
            // It is read-only: nothing is expunged (RFC 9051 section 6.4.1).
            return self.command(b"CLOSE", State::Close, now, actions);
        }
        if let Some(index) = self.to_visit.pop() {
            return self.examine(index, now, actions);
        }
        if self.current != 0 {
            return self.examine(0, now, actions);
        }
        if self.notify == Notify::Unset {
            let command = self.notify_command();
            return self.command(&command, State::Notify, now, actions);
        }
        self.has_news = false;
        self.news_since = None;
        self.last_news = None;
        self.began = now;
        self.command(b"IDLE", State::IdleStart, now, actions);
    }

    fn examine(&mut self, index: usize, now: Instant, actions: &mut Vec<Action>) {
        self.current = index;
        self.has_news = false;
        self.news_since = None;
        self.last_news = None;
        self.open = Open::default();
        let mut command = b"EXAMINE ".to_vec();
        let name = self.watch.mailboxes.get(index).map(|mailbox| mailbox.name.as_str()).unwrap_or_default();
        push_quoted(&mut command, self.manners.on_the_wire(name).as_bytes());
        self.command(&command, State::Examine, now, actions);
    }

    fn fetch_uids(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.fetch_from = self.seen_next;
        let command = format!("UID FETCH {}:* {}", self.fetch_from, self.items());
        self.fetch(&command, now, actions);
    }

    fn fetch(&mut self, command: &str, now: Instant, actions: &mut Vec<Action>) {
        self.has_news = false;
        self.announce = false;
        self.ids = Ids::default();
        self.began = now;
        self.command(command.as_bytes(), State::Fetch, now, actions);
    }

    /// What is fetched of a new message.
    fn items(&self) -> String {
        format!("(UID FLAGS BODY.PEEK[HEADER.FIELDS ({})]<0.{MAX_HEADERS}>)", self.watch.judge.header_fields())
    }

    /// NOTIFY (RFC 5465 section 3): headers of what comes into the open mailbox, a STATUS of what comes into the others.
    fn notify_command(&self) -> Vec<u8> {
        let items = self.items();
        let others = self.watch.mailboxes.get(1..).unwrap_or_default();
        // A STATUS of each at once: something may have come since it was looked through.
        let status = if others.is_empty() { "" } else { "STATUS " };
        let mut command = format!("NOTIFY SET {status}(SELECTED (MessageNew {items} MessageExpunge))").into_bytes();
        if !others.is_empty() {
            command.extend_from_slice(b" (MAILBOXES (");
            for (index, mailbox) in others.iter().enumerate() {
                if index > 0 {
                    command.push(b' ');
                }
                push_quoted(&mut command, self.manners.on_the_wire(&mailbox.name).as_bytes());
            }
            command.extend_from_slice(b") (MessageNew MessageExpunge))");
        }
        command
    }

    fn done(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.short_idles = 0;
        self.state = State::IdleEnd;
        self.deadline = after(now, ANSWER_TIME);
        actions.push(Action::Send(b"DONE\r\n".to_vec()));
    }

    /// Notes how far the open mailbox was looked through, with what is to be announced.
    fn note(&mut self, uid_next: u32, actions: &mut Vec<Action>) {
        let position = Position { uid_validity: self.open.uid_validity, uid_next };
        self.seen_next = uid_next;
        let announce = std::mem::take(&mut self.announce);
        let ids = std::mem::take(&mut self.ids).known();
        let (since, last) = (self.news_since.take(), self.last_news.take());
        let Some(mailbox) = self.watch.mailboxes.get_mut(self.current) else { return };
        if announce || mailbox.position != Some(position) {
            actions.push(Action::Noticed { mailbox: mailbox.name.clone(), position, announce, since, last, ids });
        }
        mailbox.position = Some(position);
    }

    fn fail(&mut self, failure: Failure, actions: &mut Vec<Action>) {
        self.failed_to_fetch = self.state == State::Fetch;
        self.state = State::Over;
        actions.push(Action::Failed(self.complaint.explain(failure, self.has_idled)));
    }

    fn current_tag(&self) -> String {
        format!("w{}", self.tag)
    }

    fn command(&mut self, command: &[u8], next: State, now: Instant, actions: &mut Vec<Action>) {
        self.tag = self.tag.wrapping_add(1);
        self.chatter = 0;
        self.state = next;
        self.deadline = after(now, ANSWER_TIME);
        actions.push(Action::Send([self.current_tag().as_bytes(), b" ", command, b"\r\n"].concat()));
    }
}

fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}
