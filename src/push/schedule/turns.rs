//! Turns: the tokens that may be posted now, taken fairly by account.
//!
//! The account whose turn is due first is served. An account that comes new is due at once, one that was just served is due
//! [`MEMORY`] later: so accounts take turns, and first news of an account waits for nobody's second. An account's POSTs in
//! flight are bounded. After a POST that was not answered for a second the account is *slow* until one is accepted: all its
//! POSTs count as retries.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use crate::account::AccountId;
use crate::secret::DeviceToken;

/// POSTs of one account that may be in flight at once.
pub(super) const PER_ACCOUNT: usize = 2;

/// An account that was served within this time comes after those that were not.
const MEMORY: Duration = Duration::from_secs(10);

/// An account is slow for so long, unless a POST of it is accepted.
const SLOW_TIME: Duration = Duration::from_secs(3600);

/// A POST that has been in flight for so long makes its account slow. Less than [`SHORT_LIMIT`](super::SHORT_LIMIT): where slots
/// come free by that, no account has a second POST before others have their first.
const LONG_FLIGHT: Duration = Duration::from_secs(1);

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

/// All of them, in their order.
const ALL: [Class; CLASSES] = [Class::Fresh, Class::New, Class::Retry, Class::NewRetry];

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
pub(super) type DueTurn = (Duration, u64);

#[derive(Debug, Default)]
pub(super) struct AccountTurns {
    lanes: HashMap<AccountId, Lane>,
    /// For each class the accounts that have a token waiting in it and may post.
    order: [BTreeMap<DueTurn, AccountId>; CLASSES],
    /// Served accounts in their order, to forget those that are at rest.
    served: VecDeque<(Duration, AccountId)>,
    /// Begun POSTs in their order, to find those that are in flight for long.
    begun: VecDeque<(Duration, AccountId)>,
    /// Accounts that became slow, in their order, to end that.
    slow: VecDeque<(Duration, AccountId)>,
    sequence: u64,
    len: usize,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: [VecDeque<DeviceToken>; CLASSES],
    /// When its POSTs in flight began.
    in_flight: Vec<Duration>,
    served: Option<Duration>,
    turn: DueTurn,
    /// When a POST was last not answered for long, until one is accepted.
    slow_since: Option<Duration>,
}

impl Lane {
    fn is_at_rest(&self) -> bool {
        self.in_flight.is_empty() && self.slow_since.is_none() && self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.waiting.iter().all(VecDeque::is_empty)
    }

    /// The kinds of tokens that take their turn as this kind.
    fn kinds(&self, class: Class) -> impl Iterator<Item = Class> + use<> {
        let is_slow = self.slow_since.is_some();
        let own = (class.is_retry() || !is_slow).then_some(class);
        let first = (class.is_retry() && is_slow).then(|| Class::of(class.is_proven(), false));
        first.into_iter().chain(own)
    }

    fn waiting(&self, class: Class) -> Option<&VecDeque<DeviceToken>> {
        self.waiting.get(class as usize)
    }

    fn has_turn(&self, class: Class) -> bool {
        let has_token = |class| self.waiting(class).is_some_and(|waiting| !waiting.is_empty());
        self.has_room() && self.kinds(class).any(has_token)
    }

    fn due_again(&self) -> Duration {
        self.served.map_or(Duration::ZERO, |at| at + MEMORY)
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < PER_ACCOUNT
    }
}

impl AccountTurns {
    /// Tokens that wait here.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Reports if nothing waits, is in flight, or is remembered.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
            && self.lanes.is_empty()
            && self.served.is_empty()
            && self.begun.is_empty()
            && self.slow.is_empty()
    }

    pub(super) fn push(
        &mut self,
        account: &AccountId,
        class: Class,
        token: DeviceToken,
        now: Duration,
    ) {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let lane = self.lanes.entry(account.clone()).or_default();
        if lane.in_flight.is_empty() && lane.is_empty() {
            lane.turn = (lane.due_again().max(now), sequence);
        }
        if let Some(waiting) = lane.waiting.get_mut(class as usize) {
            waiting.push_back(token);
            self.len += 1;
        }
        self.list(account);
    }

    /// Removes a token that waits in the class. An account has few.
    pub(super) fn remove(
        &mut self,
        account: &AccountId,
        class: Class,
        token: &DeviceToken,
        now: Duration,
    ) {
        let Some(lane) = self.lanes.get_mut(account) else { return };
        let Some(waiting) = lane.waiting.get_mut(class as usize) else { return };
        if let Some(index) = waiting.iter().position(|waiting| waiting == token) {
            waiting.remove(index);
            self.len -= 1;
        }
        self.list(account);
        self.forget(account, now);
    }

    /// The accounts that may post a token of the class, the one that is due first in front.
    pub(super) fn due(&self, class: Class) -> impl Iterator<Item = (DueTurn, &AccountId)> {
        self.order.get(class as usize).into_iter().flatten().map(|(turn, account)| (*turn, account))
    }

    /// Takes the account's first token of the class, whose POST begins.
    pub(super) fn take(
        &mut self,
        account: &AccountId,
        class: Class,
        now: Duration,
    ) -> Option<DeviceToken> {
        let lane = self.lanes.get_mut(account)?;
        let token = lane
            .kinds(class)
            .find_map(|class| lane.waiting.get_mut(class as usize)?.pop_front())?;
        self.len -= 1;
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
        lane.in_flight.push(now);
        lane.served = Some(now);
        lane.turn = (lane.due_again(), self.sequence);
        self.served.push_back((now, account.clone()));
        self.begun.push_back((now, account.clone()));
        self.list(account);
    }

    /// The POST of the account that began then has ended, or was not made after all.
    pub(super) fn ended(&mut self, account: &AccountId, began: Duration, now: Duration) {
        if let Some(lane) = self.lanes.get_mut(account)
            && let Some(index) = lane.in_flight.iter().position(|other| *other == began)
        {
            lane.in_flight.swap_remove(index);
        }
        self.list(account);
        self.forget(account, now);
    }

    /// A POST of the account was not answered in time, or for long: it is slow, and its tokens take their turns as retries.
    pub(super) fn timed_out(&mut self, account: &AccountId, now: Duration) {
        self.set_slow(account, Some(now));
        self.slow.push_back((now, account.clone()));
    }

    /// A POST of the account was accepted: it is not slow any more, unless another of its POSTs has been in flight for long.
    pub(super) fn accepted(&mut self, account: &AccountId, now: Duration) {
        let Some(lane) = self.lanes.get(account) else { return };
        if lane.in_flight.iter().any(|began| *began + LONG_FLIGHT <= now) {
            self.timed_out(account, now);
        } else if lane.slow_since.is_some() {
            self.set_slow(account, None);
        }
    }

    fn set_slow(&mut self, account: &AccountId, since: Option<Duration>) {
        self.unlist(account);
        self.lanes.entry(account.clone()).or_default().slow_since = since;
        self.list(account);
    }

    /// Finds POSTs that are in flight for long, and forgets accounts that were served long ago and are at rest.
    pub(super) fn clean(&mut self, now: Duration) {
        while let Some((began, _)) = self.begun.front()
            && *began + LONG_FLIGHT <= now
            && let Some((began, account)) = self.begun.pop_front()
        {
            if self.lanes.get(&account).is_some_and(|lane| lane.in_flight.contains(&began)) {
                self.timed_out(&account, now);
            }
        }
        while let Some((since, _)) = self.slow.front()
            && *since + SLOW_TIME <= now
            && let Some((since, account)) = self.slow.pop_front()
        {
            if self.lanes.get(&account).is_some_and(|lane| lane.slow_since == Some(since)) {
                self.set_slow(&account, None);
            }
            self.forget(&account, now);
        }
        while let Some((at, _)) = self.served.front()
            && *at + MEMORY <= now
            && let Some((_, account)) = self.served.pop_front()
        {
            self.forget(&account, now);
        }
    }

    /// Forgets an account at rest, unless it was served lately: then it is in `served`.
    fn forget(&mut self, account: &AccountId, now: Duration) {
        if self.lanes.get(account).is_some_and(|lane| lane.is_at_rest() && lane.due_again() <= now)
        {
            self.lanes.remove(account);
        }
    }

    /// Brings the account's place in the order up to date.
    fn list(&mut self, account: &AccountId) {
        let Some(lane) = self.lanes.get(account) else { return };
        for (class, order) in ALL.into_iter().zip(&mut self.order) {
            if lane.has_turn(class) {
                order.entry(lane.turn).or_insert_with(|| account.clone());
            } else {
                order.remove(&lane.turn);
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

    fn served(turns: &mut AccountTurns, now: Duration) -> Option<String> {
        let account = turns.due(Class::New).next()?.1.clone();
        turns.take(&account, Class::New, now);
        turns.ended(&account, now, now);
        Some(account.user.to_string())
    }

    #[test]
    fn accounts_take_turns_and_a_new_one_comes_first() {
        let (mut turns, now) = (AccountTurns::default(), Duration::from_secs(100));
        for number in 0..3 {
            for name in ["a", "b"] {
                turns.push(&account(name), Class::New, token(&format!("{name}{number}")), now);
            }
        }
        assert_eq!(
            [served(&mut turns, now), served(&mut turns, now)],
            [Some("a".into()), Some("b".into())]
        );
        turns.push(&account("c"), Class::New, token("c"), now);
        let order: Vec<_> = std::iter::from_fn(|| served(&mut turns, now)).collect();
        assert_eq!(order, ["c", "a", "b", "a", "b"]);
        assert_eq!(turns.len(), 0);
        turns.clean(now + MEMORY);
        assert!(turns.is_empty());
    }

    #[test]
    fn account_has_two_posts_in_flight_at_most() {
        let (mut turns, now) = (AccountTurns::default(), Duration::ZERO);
        let alice = account("a");
        for number in 0..4 {
            turns.push(&alice, Class::Fresh, token(&number.to_string()), now);
        }
        for _ in 0..PER_ACCOUNT {
            assert!(turns.take(&alice, Class::Fresh, now).is_some());
        }
        assert_eq!(turns.due(Class::Fresh).next(), None);
        turns.remove(&alice, Class::Fresh, &token("2"), now);
        turns.ended(&alice, now, now);
        assert!(turns.due(Class::Fresh).next().is_some());
        assert_eq!(turns.take(&alice, Class::Fresh, now), Some(token("3")));
    }
}
