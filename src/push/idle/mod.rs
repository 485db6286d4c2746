//! A watch session after its login, as a machine: responses and time in, actions out.
//!
//! EXAMINE (never SELECT: nothing is marked seen, no flag is taken away), fetch what came since the noted position, then
//! wait in IDLE (RFC 2177). On news: DONE, fetch, IDLE again. With NOTIFY (RFC 5465) flags and headers come with the news,
//! without that round, and one session watches several mailboxes. An EXISTS between a FETCH and an IDLE leads to one more
//! look before the wait: that gap is where other watchers lose messages.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

mod commands;
mod complaint;
mod look;
mod mailbox;
mod news;
#[cfg(test)]
mod odd_tests;
#[cfg(test)]
mod property_tests;
pub(crate) mod response;
mod retry;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod to_push;
mod types;
mod visits;
#[cfg(test)]
mod words_tests;

use std::time::{Duration, Instant};

pub use look::Oddity;
pub use mailbox::WatchedMailbox;
pub use retry::retry_after;
pub use types::{
    IdleAction, IdleFailure, IdleInput, InheritedState, WatchTerms, max_detection_delay,
};

use crate::machine::{Actions, Machine};
use crate::parser::response::{Condition, Status};
use crate::upstream::refusal::{self, LoginRefusal, classify};
use complaint::Complaint;
use look::CatchUp;
use mailbox::OpenMailbox;
use response::{Heard, MailboxCode, parse_response};
use retry::SkippedMailboxes;
use to_push::ToPush;

/// Time limit of the answer to a command.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// Time limit of a FETCH in all, as long as it brings something in between.
const FETCH_TIME: Duration = Duration::from_secs(600);

/// An IDLE that the server ends by itself sooner than this, for nothing, is no IDLE.
const SHORT_IDLE: Duration = Duration::from_secs(5);

/// So many of these in a row, and the session is given up.
const MAX_SHORT_IDLES: u32 = 3;

/// Responses to one command, or within one IDLE, that bring no new message: so many, and the session is given up. A person who
/// marks or deletes more at once has the watch come back a moment later.
const MAX_CHATTER: u32 = 20_000;

/// So many looks in a row that brought nothing new, and the next one waits.
const MAX_LOOKS: u32 = 8;

/// The pause then. An IDLE of twice that time ends the row.
const PAUSE: Duration = Duration::from_secs(30);

/// Time limit for flags and headers to follow an EXISTS where NOTIFY promises them. Then they are fetched.
const NOTIFY_TIME: Duration = Duration::from_secs(2);

/// The awaited response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IdleState {
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

/// The way in which new mail of the open mailbox is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notify {
    /// By EXISTS alone.
    Absent,
    /// The server has NOTIFY, and it is not set yet.
    Unset,
    /// EXISTS, then flags and headers.
    Set,
}

/// The machine.
#[derive(Debug)]
pub struct IdleMachine {
    watch: WatchTerms,
    state: IdleState,
    tag: u32,
    /// By when the awaited has to come; in [`IdleState::Idle`], when to do something.
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
    open: OpenMailbox,
    notify: Notify,
    /// The state of the session when this machine took it over.
    inherited: InheritedState,
    /// The session is to be given back.
    releasing: bool,
    /// The open mailbox may have more than was fetched.
    has_news: bool,
    /// Number of messages announced by EXISTS without headers from NOTIFY yet.
    expected: u64,
    /// Messages that were fetched, and are not yet stored.
    to_push: ToPush,
    /// When the first news came that is not noted yet.
    news_since: Option<Instant>,
    /// When the last of it came.
    last_news: Option<Instant>,
    /// The fetch under way.
    look: Option<Box<CatchUp>>,
    /// Looks in a row that brought nothing new.
    looks: u32,
    /// The server gives no UIDs: new messages are found by their sequence numbers.
    without_uids: bool,
    /// One above the highest UID that was seen.
    seen_next: u64,
    /// Mailboxes that could not be opened.
    left_out: Option<Box<SkippedMailboxes>>,
    /// The server's last words about something that goes wrong.
    complaint: Complaint,
}

impl Machine for IdleMachine {
    type Input<'a> = IdleInput<'a>;
    type Action<'a> = IdleAction;

    fn handle(&mut self, input: IdleInput<'_>, now: Instant, actions: &mut impl Actions<Self>) {
        match input {
            IdleInput::Start => self.go_on(now, actions),
            IdleInput::Response(line) => self.response(line, now, actions),
            IdleInput::Tick => self.tick(now, actions),
            IdleInput::Release => self.release(now, actions),
            IdleInput::Leave => self.leave(now, actions),
            IdleInput::EncryptedOnly(is_so) => self.watch.judge.encrypted_only = is_so,
            IdleInput::NeverRetry(mailbox) => {
                self.left_out = self.left_out.take().and_then(|left_out| left_out.without(mailbox));
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        (!matches!(self.state, IdleState::New | IdleState::Over)).then_some(self.deadline)
    }
}

impl IdleMachine {
    /// A machine for a session that is logged in and has nothing selected.
    #[must_use]
    pub fn new(watch: WatchTerms, now: Instant) -> Self {
        let notify = if watch.notify { Notify::Unset } else { Notify::Absent };
        // The first one last: it is the one that stays open.
        let to_visit =
            (0..watch.mailboxes.len()).filter(|index| watch.notify || *index == 0).collect();
        Self {
            watch,
            state: IdleState::New,
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
            open: OpenMailbox::default(),
            notify,
            inherited: InheritedState::default(),
            releasing: false,
            has_news: false,
            expected: 0,
            to_push: ToPush::default(),
            news_since: None,
            last_news: None,
            look: None,
            looks: 0,
            without_uids: false,
            seen_next: 1,
            left_out: None,
            complaint: Complaint::default(),
        }
    }

    /// The same, in a session that had another user before, who may have left a mailbox open.
    #[must_use]
    pub fn in_session(mut self, inherited: InheritedState) -> Self {
        self.inherited = inherited;
        self
    }

    /// Reports if it is in the middle of a fetch: if the session ends now, that may be the reason.
    #[must_use]
    pub fn is_fetching(&self) -> bool {
        self.state == IdleState::Fetch || self.failed_to_fetch
    }

    /// The end of the session as the driver saw it, with the server's last words if it gives no reason itself.
    #[must_use]
    pub fn explain(&self, end: IdleFailure) -> IdleFailure {
        self.complaint.explain(end, self.has_idled)
    }

    /// The same for a connection that broke, or cannot be read on; `None` if the server had not complained.
    #[must_use]
    pub fn explain_break(&self, end: String) -> Option<IdleFailure> {
        self.complaint.explain_break(end, self.has_idled)
    }

    /// Time has passed.
    fn tick(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        if now < self.deadline {
            return;
        }
        match self.state {
            // The data that NOTIFY promised has not come, the grace is over, or it is time to renew.
            IdleState::Idle => self.done(now, actions),
            IdleState::New | IdleState::Over => {}
            _ => self.fail(IdleFailure::Silent, actions),
        }
    }

    /// Leaves in good order, because deltapush ends. Later responses are ignored; new mail will be found at the next start.
    fn leave(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        match self.state {
            IdleState::New | IdleState::Over => return,
            IdleState::IdleStart | IdleState::Idle => {
                actions.push(IdleAction::Send(b"DONE\r\n".to_vec()))
            }
            _ => {}
        }
        self.command(b"LOGOUT", IdleState::Over, now, actions);
    }

    /// Somebody else wants the session: what is new is looked at, then it is brought to where it was after its login. Not for a
    /// session with NOTIFY, which cannot be undone.
    fn release(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        self.releasing = true;
        if self.state == IdleState::Idle {
            self.done(now, actions);
        }
    }

    /// Takes a whole response.
    fn response(&mut self, line: &[u8], now: Instant, actions: &mut impl Actions<Self>) {
        if self.state == IdleState::Over {
            if let Heard::Status(status, _) = parse_response(line) {
                self.complaint.record_last(status);
            }
            return;
        }
        self.chatter = self.chatter.saturating_add(1);
        if self.chatter > MAX_CHATTER {
            return self.fail(IdleFailure::Chatter(String::new()), actions);
        }
        match parse_response(line) {
            Heard::Continuation => self.continuation(now, actions),
            Heard::Status(status, code) => self.status(status, code, now, actions),
            Heard::Exists(count) => self.exists(count, now, actions),
            Heard::Expunge(sequence) => self.expunged(sequence),
            Heard::Fetch(message) => self.fetched(&message, now, actions),
            Heard::Mailbox(status) => self.other_mailbox(&status, now, actions),
            Heard::Unclear => self.unclear(now, actions),
            Heard::Other => {}
        }
    }

    fn status(
        &mut self,
        status: Status<'_>,
        code: MailboxCode,
        now: Instant,
        actions: &mut impl Actions<Self>,
    ) {
        self.complaint.record(status);
        match code {
            MailboxCode::UidValidity(value) => self.open.uid_validity = value,
            MailboxCode::UidNext(value) if self.state == IdleState::Examine => {
                self.open.uid_next = Some(value)
            }
            MailboxCode::NotificationOverflow => {
                self.without_notify(actions);
                self.has_news = true;
                self.look_soon(now, actions);
            }
            MailboxCode::UidNext(_) | MailboxCode::None => {}
        }
        match status.tag {
            Some(tag) if tag == self.current_tag().as_bytes() => self.ended(status, now, actions),
            None if status.condition == Condition::Bye => {
                self.fail(IdleFailure::Bye(refusal::words(status)), actions);
            }
            // One command is under way: it is the one that was not understood (RFC 9051 section 7.1.3).
            None if status.condition == Condition::Bad
                && !matches!(self.state, IdleState::Idle | IdleState::IdleEnd) =>
            {
                self.ended(status, now, actions);
            }
            _ => {}
        }
    }

    fn continuation(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        if self.state != IdleState::IdleStart {
            return;
        }
        self.state = IdleState::Idle;
        self.has_idled = true;
        self.renew_at = after(now, self.watch.renewal);
        self.deadline = self.renew_at;
        actions.push(IdleAction::Watching);
        if self.releasing {
            return self.done(now, actions);
        }
        if self.has_news || !self.to_visit.is_empty() {
            // EXISTS came before `+`, as Outlook does it.
            self.look_soon(now, actions);
        }
    }

    /// The command under way has ended.
    fn ended(&mut self, status: Status<'_>, now: Instant, actions: &mut impl Actions<Self>) {
        let text = self.complaint.with_answer(status);
        match (self.state, status.condition == Condition::Ok) {
            (IdleState::Examine, true) => self.examined(now, actions),
            (IdleState::Examine, false) => self.not_opened(text, now, actions),
            (IdleState::FindLast, _) => self.found_last(now, actions),
            (IdleState::Fetch, true) => {
                self.looked(true, actions);
                self.go_on(now, actions);
            }
            (IdleState::Fetch, false) => {
                // Its responses before it gave up count.
                self.looked(false, actions);
                match self.open.exists {
                    // The mailbox may be empty, from which some servers refuse to fetch.
                    None => self.go_on(now, actions),
                    Some(_) => self.fail(IdleFailure::NoFetch(text), actions),
                }
            }
            (IdleState::Notify, true) => {
                self.notify = Notify::Set;
                self.go_on(now, actions);
            }
            // Without it what its user before has set would go on, and that may be silence.
            (IdleState::Notify, false) if self.inherited.notify => {
                self.fail(IdleFailure::IdleRefused(text), actions)
            }
            (IdleState::Notify, false) => {
                self.without_notify(actions);
                self.go_on(now, actions);
            }
            (IdleState::IdleStart, false) if self.knows_no_idle(status) => {
                self.fail(IdleFailure::NoIdle(text), actions)
            }
            (IdleState::IdleStart, false) => self.fail(IdleFailure::IdleRefused(text), actions),
            // A server may end IDLE by itself, with or without a reason.
            (IdleState::Idle | IdleState::IdleStart, _) if self.is_short_idle(now) => {
                let words = if text.is_empty() {
                    "it ends IDLE at once".into()
                } else {
                    format!("it ends IDLE at once: {text}")
                };
                self.fail(IdleFailure::IdleRefused(words), actions);
            }
            (IdleState::Idle | IdleState::IdleStart | IdleState::IdleEnd, _) => {
                self.go_on(now, actions)
            }
            (IdleState::Close, true) => {
                self.state = IdleState::Over;
                actions.push(IdleAction::Released);
            }
            (IdleState::Close, false) => self.fail(IdleFailure::NoMailbox(text), actions),
            (IdleState::New | IdleState::Over, _) => {}
        }
    }

    /// IDLE was refused: whether for good. Not if it has worked in this session, nor if the words are about the moment, as
    /// Outlook's "User is authenticated but not connected".
    fn knows_no_idle(&self, refused: Status<'_>) -> bool {
        let moment = matches!(
            classify(&[b"BAD ", refused.text].concat(), b""),
            LoginRefusal::TooManySessions
                | LoginRefusal::Temporary
                | LoginRefusal::Throttled
                | LoginRefusal::Disabled
        );
        // An untagged BAD is more of a complaint than a statement about the command.
        refused.tag.is_some() && refused.condition == Condition::Bad && !self.has_idled && !moment
    }

    /// The server ended IDLE by itself: whether it does so at once, again and again.
    fn is_short_idle(&mut self, now: Instant) -> bool {
        let is_short =
            !self.has_news && self.to_visit.is_empty() && now < after(self.began, SHORT_IDLE);
        self.short_idles = if is_short { self.short_idles.saturating_add(1) } else { 0 };
        self.short_idles >= MAX_SHORT_IDLES
    }

    /// The next thing to do: look once more if something may have come, visit what has to be visited, come back, wait.
    fn go_on(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        if std::mem::take(&mut self.expected) > 0 {
            // NOTIFY brought less than it promised: what it brought counts as not seen.
            self.has_news = true;
            let noted = self.watch.mailboxes.get(self.current).and_then(|mailbox| mailbox.position);
            self.seen_next = noted.map_or(self.seen_next, |noted| noted.uid_next);
        }
        let may_look = self.looks < MAX_LOOKS;
        if self.has_news && may_look && self.open.exists != Some(0) {
            return self.look(now, actions);
        }
        if self.releasing {
            // It is read-only: nothing is expunged (RFC 9051 section 6.4.1).
            return self.command(b"CLOSE", IdleState::Close, now, actions);
        }
        self.try_again(now);
        if let Some(index) = self.to_visit.pop() {
            return self.examine(index, now, actions);
        }
        if self.current != 0 {
            return self.examine(0, now, actions);
        }
        if self.notify == Notify::Unset {
            let command = self.notify_command();
            return self.command(&command, IdleState::Notify, now, actions);
        }
        self.has_news &= !may_look;
        self.news_since = None;
        self.last_news = None;
        self.began = now;
        self.command(b"IDLE", IdleState::IdleStart, now, actions);
    }

    fn done(&mut self, now: Instant, actions: &mut impl Actions<Self>) {
        self.short_idles = 0;
        if now >= after(self.began, PAUSE.saturating_mul(2)) {
            self.looks = 0;
        } else if now >= after(self.began, PAUSE) {
            self.looks = self.looks.min(MAX_LOOKS.saturating_sub(1));
        }
        self.state = IdleState::IdleEnd;
        self.deadline = after(now, ANSWER_TIME);
        actions.push(IdleAction::Send(b"DONE\r\n".to_vec()));
    }

    fn fail(&mut self, failure: IdleFailure, actions: &mut impl Actions<Self>) {
        self.failed_to_fetch = self.state == IdleState::Fetch;
        self.state = IdleState::Over;
        actions.push(IdleAction::Failed(self.complaint.explain(failure, self.has_idled)));
    }

    fn current_tag(&self) -> String {
        format!("w{}", self.tag)
    }

    fn command(
        &mut self,
        command: &[u8],
        next: IdleState,
        now: Instant,
        actions: &mut impl Actions<Self>,
    ) {
        self.tag = self.tag.wrapping_add(1);
        self.chatter = 0;
        self.state = next;
        self.deadline = after(now, ANSWER_TIME);
        actions.push(IdleAction::Send(
            [self.current_tag().as_bytes(), b" ", command, b"\r\n"].concat(),
        ));
    }
}

fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}
