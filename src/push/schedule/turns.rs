//! Turns: the tokens that may be posted now, taken fairly by account.
//!
//! The account whose turn is due first is served. An account that comes new is due at once, one that was just served is due
//! [`MEMORY`] later: so accounts take turns, and first news of an account waits for nobody's second. An account's POSTs in
//! flight are bounded.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use crate::account::AccountId;
use crate::secret::DeviceToken;

/// POSTs of one account that may be in flight at once.
pub(super) const PER_ACCOUNT: usize = 2;

/// An account that was served within this time comes after those that were not.
const MEMORY: Duration = Duration::from_secs(10);

/// Kinds of POSTs, each with its own place in the order and its own limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// News of a token that was accepted before and has not failed since.
    Fresh,
    /// News of a token that was never accepted and has not failed yet.
    New,
    /// Another attempt for a token that was accepted before.
    Retry,
    /// Another attempt for a token that was never accepted.
    NewRetry,
}

pub(super) const CLASSES: usize = 4;

impl Class {
    pub(super) fn of(proven: bool, failed: bool) -> Self {
        match (proven, failed) {
            (true, false) => Self::Fresh,
            (false, false) => Self::New,
            (true, true) => Self::Retry,
            (false, true) => Self::NewRetry,
        }
    }

    pub(super) fn is_proven(self) -> bool {
        matches!(self, Self::Fresh | Self::Retry)
    }

    pub(super) fn is_retry(self) -> bool {
        matches!(self, Self::Retry | Self::NewRetry)
    }
}

/// When an account is due, with a number that makes it unique.
pub(super) type Turn = (Duration, u64);

#[derive(Debug, Default)]
pub(super) struct Turns {
    lanes: HashMap<AccountId, Lane>,
    /// For each class the accounts that have a token waiting in it and may post.
    order: [BTreeMap<Turn, AccountId>; CLASSES],
    /// Served accounts in their order, to forget those that are at rest.
    served: VecDeque<(Duration, AccountId)>,
    sequence: u64,
    len: usize,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: [VecDeque<DeviceToken>; CLASSES],
    in_flight: usize,
    served: Option<Duration>,
    turn: Turn,
}

impl Lane {
    fn is_at_rest(&self) -> bool {
        self.in_flight == 0 && self.waiting.iter().all(VecDeque::is_empty)
    }

    fn due_again(&self) -> Duration {
        self.served.map_or(Duration::ZERO, |at| at.saturating_add(MEMORY))
    }

    fn has_room(&self) -> bool {
        self.in_flight < PER_ACCOUNT
    }
}

impl Turns {
    /// Tokens that wait here.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits, is in flight, or is remembered.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0 && self.lanes.is_empty() && self.served.is_empty()
    }

    pub(super) fn push(&mut self, account: &AccountId, class: Class, token: DeviceToken, now: Duration) {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let lane = self.lanes.entry(account.clone()).or_default();
        if lane.is_at_rest() {
            lane.turn = (lane.due_again().max(now), sequence);
        }
        if let Some(waiting) = lane.waiting.get_mut(class as usize) {
            waiting.push_back(token);
            self.len = self.len.saturating_add(1);
        }
        self.list(account);
    }

    /// Removes a token that waits in the class. An account has few.
    pub(super) fn remove(&mut self, account: &AccountId, class: Class, token: &DeviceToken, now: Duration) {
        let Some(lane) = self.lanes.get_mut(account) else { return };
        let Some(waiting) = lane.waiting.get_mut(class as usize) else { return };
        if let Some(index) = waiting.iter().position(|waiting| waiting == token) {
            waiting.remove(index);
            self.len = self.len.saturating_sub(1);
        }
        self.list(account);
        self.forget(account, now);
    }

    /// The accounts that may post a token of the class, the one that is due first in front.
    pub(super) fn due(&self, class: Class) -> impl Iterator<Item = (Turn, &AccountId)> {
        self.order.get(class as usize).into_iter().flatten().map(|(turn, account)| (*turn, account))
    }

    /// Takes the account's first token of the class, whose POST begins.
    pub(super) fn take(&mut self, account: &AccountId, class: Class, now: Duration) -> Option<DeviceToken> {
        let token = self.lanes.get_mut(account)?.waiting.get_mut(class as usize)?.pop_front()?;
        self.len = self.len.saturating_sub(1);
        self.begin(account, now);
        Some(token)
    }

    pub(super) fn has_room(&self, account: &AccountId) -> bool {
        self.lanes.get(account).is_none_or(Lane::has_room)
    }

    /// A POST of the account begins.
    pub(super) fn begin(&mut self, account: &AccountId, now: Duration) {
        self.unlist(account);
        self.sequence = self.sequence.wrapping_add(1);
        let lane = self.lanes.entry(account.clone()).or_default();
        lane.in_flight = lane.in_flight.saturating_add(1);
        lane.served = Some(now);
        lane.turn = (lane.due_again(), self.sequence);
        self.served.push_back((now, account.clone()));
        self.list(account);
    }

    /// A POST of the account has ended, or was not made after all.
    pub(super) fn ended(&mut self, account: &AccountId, now: Duration) {
        if let Some(lane) = self.lanes.get_mut(account) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
        }
        self.list(account);
        self.forget(account, now);
    }

    /// Forgets accounts that were served long ago and are at rest.
    pub(super) fn clean(&mut self, now: Duration) {
        while let Some((at, _)) = self.served.front()
            && at.saturating_add(MEMORY) <= now
            && let Some((_, account)) = self.served.pop_front()
        {
            self.forget(&account, now);
        }
    }

    /// Forgets an account at rest, unless it was served lately: then it is in `served`.
    fn forget(&mut self, account: &AccountId, now: Duration) {
        if self.lanes.get(account).is_some_and(|lane| lane.is_at_rest() && lane.due_again() <= now) {
            self.lanes.remove(account);
        }
    }

    /// Brings the account's place in the order up to date.
    fn list(&mut self, account: &AccountId) {
        let Some(lane) = self.lanes.get(account) else { return };
        for (waiting, order) in lane.waiting.iter().zip(&mut self.order) {
            if waiting.is_empty() || !lane.has_room() {
                order.remove(&lane.turn);
            } else {
                order.entry(lane.turn).or_insert_with(|| account.clone());
            }
        }
    }

    fn unlist(&mut self, account: &AccountId) {
        if let Some(lane) = self.lanes.get(account) {
            self.order.iter_mut().for_each(|order| drop(order.remove(&lane.turn)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> AccountId {
        AccountId::new(name, "imap.example.org:993")
    }

    fn token(name: &str) -> DeviceToken {
        DeviceToken::new(name.as_bytes()).unwrap()
    }

    fn served(turns: &mut Turns, now: Duration) -> Option<String> {
        let account = turns.due(Class::New).next()?.1.clone();
        turns.take(&account, Class::New, now);
        turns.ended(&account, now);
        Some(account.user.to_string())
    }

    #[test]
    fn accounts_take_turns_and_a_new_one_comes_first() {
        let (mut turns, now) = (Turns::default(), Duration::from_secs(100));
        for number in 0..3 {
            for name in ["a", "b"] {
                turns.push(&account(name), Class::New, token(&format!("{name}{number}")), now);
            }
        }
        assert_eq!([served(&mut turns, now), served(&mut turns, now)], [Some("a".into()), Some("b".into())]);
        turns.push(&account("c"), Class::New, token("c"), now);
        let order: Vec<_> = std::iter::from_fn(|| served(&mut turns, now)).collect();
        assert_eq!(order, ["c", "a", "b", "a", "b"]);
        assert_eq!(turns.len(), 0);
        turns.clean(now.saturating_add(MEMORY));
        assert!(turns.is_empty());
    }

    #[test]
    fn an_account_has_two_posts_in_flight_at_most() {
        let (mut turns, now) = (Turns::default(), Duration::ZERO);
        let alice = account("a");
        for number in 0..4 {
            turns.push(&alice, Class::Fresh, token(&number.to_string()), now);
        }
        for _ in 0..PER_ACCOUNT {
            assert!(turns.take(&alice, Class::Fresh, now).is_some());
        }
        assert_eq!(turns.due(Class::Fresh).next(), None);
        turns.remove(&alice, Class::Fresh, &token("2"), now);
        turns.ended(&alice, now);
        assert!(turns.due(Class::Fresh).next().is_some());
        assert_eq!(turns.take(&alice, Class::Fresh, now), Some(token("3")));
    }
}
