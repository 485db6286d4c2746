//! The mail server's news of one account: when it last told of a message, the messages that it did not tell of, and how much news
//! is accepted.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Account;

/// So much news of an account is accepted at once.
const BURST: f64 = 100.0;

/// News of an account that is accepted, on average, in a second.
const PER_SECOND: f64 = 10.0;

/// Messages whose identifiers are remembered; with one more, the oldest is forgotten.
const MAX_IDS: usize = 32;

/// An identifier is remembered for so long.
const ID_TIME: Duration = Duration::from_secs(3600);

/// Notes on the mail server's news. Nothing is allocated before the first.
#[derive(Default)]
pub(super) struct NewsNotes(Mutex<Option<Box<Notes>>>);

struct Notes {
    status: NewsStatus,
    /// News that is accepted at once, as of `refilled`.
    allowance: f64,
    refilled: Instant,
    /// Messages without a UID that the mail server told of, since a mailbox was last compared with its position.
    without_uid: u64,
    /// Messages that devices were woken for, the oldest first.
    ids: VecDeque<(u64, Instant)>,
}

/// The mail server's news of an account, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewsStatus {
    /// When the mail server last told of a message.
    pub last: Option<Instant>,
    /// Messages that were found otherwise, without a word of the mail server.
    pub missed: u64,
    /// When such a message was last found.
    pub missed_at: Option<Instant>,
}

impl NewsStatus {
    /// Reports if the mail server has told of nothing since a message was found that it left out.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.missed_at.is_some_and(|missed| self.last.is_none_or(|last| last < missed))
    }
}

impl Notes {
    fn new(now: Instant) -> Self {
        Self {
            status: NewsStatus::default(),
            allowance: BURST,
            refilled: now,
            without_uid: 0,
            ids: VecDeque::new(),
        }
    }

    /// Takes news, if as much may be accepted.
    fn accept(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.allowance = (self.allowance + passed * PER_SECOND).min(BURST);
        self.refilled = now;
        self.status.last = Some(now);
        let is_accepted = self.allowance >= 1.0;
        if is_accepted {
            self.allowance -= 1.0;
        }
        is_accepted
    }

    fn is_known(&mut self, id: u64, now: Instant) -> bool {
        self.ids.retain(|(_, at)| now.saturating_duration_since(*at) < ID_TIME);
        self.ids.iter().any(|(known, _)| *known == id)
    }

    fn remember(&mut self, id: u64, now: Instant) {
        if self.is_known(id, now) {
            return;
        }
        if self.ids.len() >= MAX_IDS {
            self.ids.pop_front();
        }
        self.ids.push_back((id, now));
    }
}

impl NewsNotes {
    fn lock(&self) -> MutexGuard<'_, Option<Box<Notes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_known<T: Default>(&self, then: impl FnOnce(&mut Notes, Instant) -> T) -> T {
        self.lock().as_mut().map(|notes| then(notes, Instant::now())).unwrap_or_default()
    }

    fn change<T>(&self, then: impl FnOnce(&mut Notes, Instant) -> T) -> T {
        let now = Instant::now();
        then(self.lock().get_or_insert_with(|| Box::new(Notes::new(now))), now)
    }
}

impl Account {
    /// The mail server's news of it, since the start.
    #[must_use]
    pub fn news_status(&self) -> NewsStatus {
        self.news.of_known(|notes, _| notes.status)
    }

    /// The mail server tells of a message. Returns whether that is accepted, or too much.
    pub(in crate::push) fn accept_news(&self) -> bool {
        self.news.change(Notes::accept)
    }

    /// Remembers a message without a UID that the mail server told of.
    pub(in crate::push) fn told_without_uid(&self) {
        self.news.of_known(|notes, _| notes.without_uid = notes.without_uid.saturating_add(1));
    }

    /// Subtracts from `new` messages of a mailbox those without a UID that the mail server told of since the last time.
    pub(in crate::push) fn take_told_without_uid(&self, new: u64) -> u64 {
        let told = self.news.of_known(|notes, _| std::mem::take(&mut notes.without_uid));
        new.saturating_sub(told)
    }

    /// Notes messages that the mail server did not tell of.
    pub(in crate::push) fn news_missed(&self, messages: u64) {
        self.news.change(|notes, now| {
            notes.status.missed = notes.status.missed.saturating_add(messages);
            notes.status.missed_at = Some(now);
        });
    }

    /// Reports if devices were woken for all of these messages, as far as they are remembered.
    pub(in crate::push) fn was_woken_for(&self, ids: &[u64]) -> bool {
        !ids.is_empty()
            && self.news.of_known(|notes, now| ids.iter().all(|id| notes.is_known(*id, now)))
    }

    /// Forgets messages again: that devices are woken for them is not on disk.
    pub(in crate::push) fn forget_woken_for(&self, ids: &[u64]) {
        self.news.of_known(|notes, _| notes.ids.retain(|(known, _)| !ids.contains(known)));
    }

    /// Remembers messages that devices were woken for. Only if the mail server has ever told of one, or left one out.
    pub(in crate::push) fn remember_woken_for(&self, ids: &[u64]) {
        self.news.of_known(|notes, now| ids.iter().for_each(|id| notes.remember(*id, now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::AccountId;
    use crate::push::account::AccountState;

    fn account() -> Account {
        let state = AccountState {
            credentials: None,
            tokens: vec![],
            idled: vec![],
            called: None,
            is_watched: false,
        };
        Account::new(AccountId::new("alice", "imap.example.org:993"), state, false)
    }

    #[tokio::test(start_paused = true)]
    async fn news_is_accepted_at_a_bounded_rate() {
        let account = account();
        let accepted = |tries: usize| (0..tries).filter(|_| account.accept_news()).count();
        assert_eq!(accepted(150), 100);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(accepted(150), 10);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(accepted(150), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn server_is_silent_once_it_left_a_message_out_and_told_of_none_since() {
        let account = account();
        assert!(!account.news_status().is_silent());
        account.news_missed(2);
        assert!(account.news_status().is_silent(), "it never told of any");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(account.accept_news());
        assert!(!account.news_status().is_silent());
        tokio::time::advance(Duration::from_secs(1)).await;
        account.news_missed(1);
        let status = account.news_status();
        assert_eq!((status.is_silent(), status.missed), (true, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn identifiers_are_remembered_for_a_while_where_the_server_tells() {
        let account = account();
        account.remember_woken_for(&[1]);
        assert!(!account.was_woken_for(&[1]), "the mail server never told");
        assert!(account.accept_news());
        account.remember_woken_for(&[1, 2]);
        assert!(account.was_woken_for(&[1, 2]) && !account.was_woken_for(&[1, 3]));
        assert!(!account.was_woken_for(&[]));
        (10..100).for_each(|id| account.remember_woken_for(&[id]));
        assert!(!account.was_woken_for(&[1]) && account.was_woken_for(&[99]));
        tokio::time::advance(ID_TIME).await;
        assert!(!account.was_woken_for(&[99]));
    }

    #[tokio::test]
    async fn messages_told_without_a_uid_are_no_surprise() {
        let account = account();
        assert!(account.accept_news());
        account.told_without_uid();
        account.told_without_uid();
        assert_eq!(account.take_told_without_uid(3), 1);
        assert_eq!(account.take_told_without_uid(3), 3);
    }
}
