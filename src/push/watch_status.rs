//! Status of each watch: last activity, current trouble, next attempt. For people, and for the proxy, which may ask a
//! watch to yield its session.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::mailbox_name::MailboxName;
use crate::secret::DeviceToken;
use crate::store::MAX_TOKENS;
use crate::telemetry::WatchEvent;

/// The remedy for an account without a session.
const AWAITING_DEVICE: &str =
    "deltapush wakes its devices; push goes on when one of them has logged in";

/// Time in which the log names no other oddity of an account's server.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(3600);

/// The state of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchState {
    /// It waits for its turn at the server, or is logging in.
    Connecting,
    /// The mailbox is watched.
    Watching,
    /// It was interrupted, for a reason in words, and tries again at a time.
    Interrupted {
        /// The reason.
        reason: String,
        /// When it is tried again.
        next: Instant,
    },
    /// A client of the account waits for mail itself, and what it hears wakes the others.
    WithClient,
    /// There is no watch: the mail server tells of new mail.
    ServerTells,
    /// No session is left to watch in, for a reason in words: one of the account's devices has to come.
    AwaitingDevice {
        /// The reason.
        reason: String,
    },
    /// It ended, for a reason in words, until a client logs in.
    AwaitingLogin {
        /// The reason.
        reason: String,
        /// The remedy.
        cure: &'static str,
    },
}

impl WatchState {
    /// Their names in the counts, in the order of [`index`](Self::index).
    pub const NAMES: [&'static str; 4] =
        ["connecting", "watching", "interrupted", "awaiting_login"];

    /// Its place in [`NAMES`](Self::NAMES).
    #[must_use]
    pub fn index(&self) -> usize {
        match self {
            Self::Connecting => 0,
            Self::Watching | Self::WithClient | Self::ServerTells => 1,
            Self::Interrupted { .. } => 2,
            Self::AwaitingLogin { .. } | Self::AwaitingDevice { .. } => 3,
        }
    }

    /// The state as an event for telemetry.
    pub(crate) fn event(&self) -> WatchEvent<'_> {
        match self {
            Self::Connecting => WatchEvent::Connecting,
            Self::Watching | Self::WithClient | Self::ServerTells => WatchEvent::Watching,
            Self::AwaitingDevice { reason } => {
                WatchEvent::AwaitingLogin { reason, cure: AWAITING_DEVICE }
            }
            Self::Interrupted { reason, next } => WatchEvent::Interrupted {
                reason,
                next: next.saturating_duration_since(Instant::now()),
            },
            Self::AwaitingLogin { reason, cure } => WatchEvent::AwaitingLogin { reason, cure },
        }
    }
}

/// The status of a watch.
#[derive(Debug, Clone)]
pub struct WatchEntry {
    /// Its state.
    pub state: WatchState,
    /// Since when.
    pub since: Instant,
    /// It has a session at the server.
    has_session: bool,
    /// It has found new mail that another node, or none, may write down at the moment.
    stands_by: bool,
    /// When the server last said something to it.
    pub last_activity: Option<Instant>,
    /// The longest time between two responses of the server in a watch that is well: news may be that late if the connection
    /// died silently just after one.
    pub max_detection_delay: Duration,
    /// When the account's devices last fetched through deltapush.
    fetched: Vec<(DeviceToken, Instant)>,
    /// The mailboxes that cannot be opened.
    pub left_out: Vec<SkippedMailbox>,
    /// The server announces what only UW imapd has.
    pub is_uw_imapd: bool,
    /// When the log last named an oddity of the server's.
    complained: Option<Instant>,
    /// Sessions that were lost while they waited for new mail, since the start.
    pub lost: Option<LostSessions>,
}

/// Watch sessions that ended without a word of the server, while they waited for new mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostSessions {
    /// Their number.
    pub count: u32,
    /// When the last one was found to be lost.
    pub at: Instant,
    /// The server's silence before that.
    pub quiet: Duration,
}

/// A mailbox that is not watched because it cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedMailbox {
    /// Its name.
    pub mailbox: MailboxName,
    /// The server's words.
    pub reason: String,
    /// When it could not be opened for the first time.
    pub since: Instant,
}

/// The watch of one account: the task that watches, if there is one, and the status.
#[derive(Debug, Default)]
pub struct Watch {
    state: Mutex<WatchTask>,
    /// Asks the watch to give way to the person's client.
    yield_session: Notify,
}

#[derive(Debug, Default)]
struct WatchTask {
    running: Option<AbortHandle>,
    /// Boxed: where the mail server tells of new mail there is none.
    status: Option<Box<WatchEntry>>,
    /// Since when the mail server's news is all that wakes the account's devices; `None` if it is not.
    told_since: Option<Instant>,
}

impl WatchEntry {
    fn new(state: WatchState, since: Instant, max_detection_delay: Duration) -> Self {
        Self {
            state,
            since,
            has_session: false,
            stands_by: false,
            last_activity: None,
            max_detection_delay,
            fetched: Vec::new(),
            left_out: Vec::new(),
            is_uw_imapd: false,
            complained: None,
            lost: None,
        }
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, WatchTask> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut WatchEntry) -> T) -> Option<T> {
        self.lock().status.as_deref_mut().map(change)
    }

    /// Starts a task that watches, in place of the one that runs; `spawn` returns none if the account is erased. Known facts
    /// of the account's mailboxes stay.
    pub(crate) fn run(&self, spawn: impl FnOnce() -> Option<AbortHandle>) {
        let mut task = self.lock();
        if let Some(running) = task.running.take() {
            running.abort();
        }
        task.running = spawn();
    }

    /// Ends the task that watches.
    pub(crate) fn stop(&self) {
        self.run(|| None);
    }

    /// A watch begins, of which news may be `max_detection_delay` late at worst.
    pub(crate) fn begin(&self, max_detection_delay: Duration) {
        let mut entry =
            WatchEntry::new(WatchState::Connecting, Instant::now(), max_detection_delay);
        let mut task = self.lock();
        task.told_since = None;
        if let Some(before) = task.status.take() {
            entry.left_out = before.left_out;
            entry.complained = before.complained;
            entry.lost = before.lost;
        }
        task.status = Some(Box::new(entry));
    }

    /// Reports if a watch has begun and not ended.
    pub(crate) fn has_begun(&self) -> bool {
        let task = self.lock();
        task.status.is_some() || task.told_since.is_some()
    }

    /// The mail server's news is all that wakes the account's devices from now on.
    pub(crate) fn server_tells(&self) {
        let mut task = self.lock();
        task.status = None;
        task.told_since.get_or_insert_with(Instant::now);
    }

    /// Waits until the watch is asked to give way.
    pub(crate) async fn asked_to_give_way(&self) {
        self.yield_session.notified().await;
    }

    /// The watch has another session: news may be `max_detection_delay` late at worst.
    pub(crate) fn found_within(&self, max_detection_delay: Duration) {
        self.change(|entry| entry.max_detection_delay = max_detection_delay);
    }

    pub(crate) fn set(&self, state: WatchState) {
        self.change(|entry| {
            entry.has_session &= state == WatchState::Watching;
            entry.state = state;
            entry.since = Instant::now();
        });
    }

    /// The account's mailboxes are these: no other is left out.
    pub(crate) fn watches(&self, mailboxes: &[MailboxName]) {
        self.change(|entry| {
            entry.left_out.retain(|left_out| mailboxes.contains(&left_out.mailbox))
        });
    }

    /// A mailbox cannot be opened. Returns since when, if that is known already.
    pub(crate) fn left_out(&self, mailbox: &str, words: &str) -> Option<Instant> {
        self.change(|entry| {
            if let Some(known) = entry.left_out.iter_mut().find(|known| known.mailbox == mailbox) {
                words.clone_into(&mut known.reason);
                return Some(known.since);
            }
            let (mailbox, reason) = (mailbox.into(), words.to_owned());
            entry.left_out.push(SkippedMailbox { mailbox, reason, since: Instant::now() });
            None
        })?
    }

    pub(crate) fn is_left_out(&self, mailbox: &str) -> bool {
        self.change(|entry| entry.left_out.iter().any(|left_out| left_out.mailbox == mailbox))
            .unwrap_or_default()
    }

    /// A mailbox that could not be opened is open, or is not to be watched any more.
    pub(crate) fn no_longer_left_out(&self, mailbox: &str) {
        self.change(|entry| entry.left_out.retain(|left_out| left_out.mailbox != mailbox));
    }

    pub(crate) fn is_uw_imapd(&self, is_uw_imapd: bool) {
        self.change(|entry| entry.is_uw_imapd = is_uw_imapd);
    }

    /// Reports if the log may name an oddity of the account's server: once an hour.
    pub(crate) fn may_complain(&self) -> bool {
        self.change(|entry| {
            let is_due = entry.complained.is_none_or(|at| at.elapsed() >= COMPLAINT_PAUSE);
            if is_due {
                entry.complained = Some(Instant::now());
            }
            is_due
        })
        .unwrap_or_default()
    }

    /// The server has just said something.
    pub(crate) fn note_activity(&self) {
        self.change(|entry| {
            entry.last_activity = Some(Instant::now());
            entry.has_session = true;
        });
    }

    /// The session was lost without a word. Counts if it was waiting for new mail.
    pub(crate) fn note_loss(&self) {
        self.change(|entry| {
            let Some(last) = entry.last_activity.filter(|_| entry.state == WatchState::Watching)
            else {
                return;
            };
            let count = entry.lost.map_or(0, |lost| lost.count).saturating_add(1);
            entry.lost = Some(LostSessions { count, at: Instant::now(), quiet: last.elapsed() });
        });
    }

    /// The watch has found new mail, and waits until this node may write it down: as long as the guard is there.
    pub(crate) fn stand_by(&self) -> StandbyGuard<'_> {
        self.change(|entry| entry.stands_by = true);
        StandbyGuard(self)
    }

    /// Reports if the watch is as far as it can get: it waits for new mail or for the right to write it down, or is interrupted.
    pub(crate) fn is_settled(&self) -> bool {
        let task = self.lock();
        let is_connecting =
            |entry: &WatchEntry| entry.state == WatchState::Connecting && !entry.stands_by;
        task.told_since.is_some()
            || task.status.as_deref().is_some_and(|entry| !is_connecting(entry))
    }

    /// There is nothing to watch with. Returns whether there was.
    pub(crate) fn end(&self) -> bool {
        let mut task = self.lock();
        task.told_since.take().is_some() | task.status.take().is_some()
    }

    /// The status; `None` if no watch has begun.
    #[must_use]
    pub fn status(&self) -> Option<WatchEntry> {
        let task = self.lock();
        let told = |since| WatchEntry::new(WatchState::ServerTells, since, Duration::ZERO);
        task.status.as_deref().cloned().or(task.told_since.map(told))
    }

    /// The index of its state ([`WatchState::index`]), if a watch has begun.
    #[must_use]
    pub fn state_index(&self) -> Option<usize> {
        let task = self.lock();
        let told = task.told_since.map(|_| WatchState::ServerTells.index());
        task.status.as_ref().map(|entry| entry.state.index()).or(told)
    }

    /// Reports if the account is watched now.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        self.change(|entry| matches!(entry.state, WatchState::Watching | WatchState::WithClient))
            .unwrap_or_default()
    }

    /// The device with this token fetches messages of the account.
    pub fn device_fetches(&self, token: &DeviceToken) {
        self.device_fetched(token, Duration::ZERO);
    }

    /// The device with this token fetched messages of the account so long ago, at another node.
    pub(crate) fn device_fetched(&self, token: &DeviceToken, age: Duration) {
        let now = Instant::now();
        let at = now.checked_sub(age).unwrap_or(now);
        self.change(|entry| {
            entry.fetched.retain(|(known, _)| known != token);
            // An account has no more tokens than that; those of devices that are gone make room.
            if entry.fetched.len() >= MAX_TOKENS {
                entry.fetched.remove(0);
            }
            entry.fetched.push((token.clone(), at));
        });
    }

    /// The tokens of the devices that have fetched since then.
    #[must_use]
    pub fn fetched_since(&self, since: Instant) -> Vec<DeviceToken> {
        let fetched = |entry: &mut WatchEntry| {
            let recent = entry.fetched.iter().filter(|(_, at)| *at >= since);
            recent.map(|(token, _)| token.clone()).collect()
        };
        self.change(fetched).unwrap_or_default()
    }

    /// The server has no session left for the person's own client: the watch leaves it its own, and comes back in minutes.
    /// Returns whether there was a session to leave.
    #[must_use]
    pub fn yield_session(&self) -> bool {
        let has_session = self.change(|entry| entry.has_session).unwrap_or_default();
        if has_session {
            // Only the present waiter: the next session must not find an old request.
            self.yield_session.notify_waiters();
        }
        has_session
    }
}

/// A watch that waits until this node may write down what it has found.
pub(crate) struct StandbyGuard<'a>(&'a Watch);

impl Drop for StandbyGuard<'_> {
    fn drop(&mut self) {
        self.0.change(|entry| entry.stands_by = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn session_that_is_lost_while_it_waits_is_counted() {
        let watch = Watch::default();
        watch.begin(Duration::ZERO);
        watch.note_activity();
        watch.note_loss();
        assert_eq!(watch.status().unwrap().lost, None, "it was not waiting");
        for count in 1..=2 {
            watch.set(WatchState::Watching);
            watch.note_activity();
            tokio::time::advance(Duration::from_secs(600)).await;
            watch.note_loss();
            let lost = watch.status().unwrap().lost.unwrap();
            assert_eq!((lost.count, lost.quiet.as_secs()), (count, 600));
            watch.set(WatchState::Connecting);
        }
        watch.begin(Duration::ZERO);
        assert!(watch.status().unwrap().lost.is_some(), "another watch keeps the count");
    }

    #[tokio::test(start_paused = true)]
    async fn device_that_fetched_after_the_news_is_known() {
        let watch = Watch::default();
        let token = |name: &str| DeviceToken::new(name.as_bytes()).unwrap();
        watch.begin(Duration::ZERO);
        watch.device_fetches(&token("early"));
        tokio::time::advance(Duration::from_secs(1)).await;
        let news = Instant::now();
        watch.device_fetches(&token("late"));
        assert_eq!(watch.fetched_since(news), [token("late")]);
        (0..100).for_each(|number| watch.device_fetches(&token(&format!("t{number}"))));
        assert_eq!(watch.fetched_since(news).len(), MAX_TOKENS);
    }

    #[tokio::test]
    async fn only_a_watch_with_a_session_gives_way() {
        let watch = Watch::default();
        assert!(!watch.yield_session());
        watch.begin(Duration::ZERO);
        assert!(!watch.yield_session(), "it has no session yet");
        watch.note_activity();
        let mut waiting = Box::pin(watch.asked_to_give_way());
        assert!(tokio::time::timeout(Duration::ZERO, &mut waiting).await.is_err());
        assert!(watch.yield_session());
        waiting.await;
        watch.set(WatchState::AwaitingLogin { reason: String::new(), cure: "" });
        assert!(!watch.yield_session(), "it has none any more");
    }
}
