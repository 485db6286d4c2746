//! Connection slots: limits in all, per address, and before the login.
//!
//! If all slots before the login are taken, a new connection is admitted nevertheless, and the oldest one of the prefix
//! that has most of them is closed. If the new one were refused, a peer that holds the slots could keep everybody out; this
//! way a crowd of strangers displaces itself: a client that logs in within seconds is old only where that many others come
//! in these seconds, and one that is logged in is not concerned at all. A connection whose login is being tried is spared
//! while others can be closed: a mail server may take longer than a crowd. No more than half of the slots are spared like
//! that, so that a crowd of logins cannot keep out clients that want to log in.

use std::collections::{BTreeSet, HashMap};

use super::Prefix;

/// Limits on connection slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotLimits {
    /// In all.
    pub connections: usize,
    /// From one prefix.
    pub per_address: usize,
    /// Not logged in.
    pub before_login: usize,
    /// Not logged in, from one prefix.
    pub before_login_per_address: usize,
}

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SlotsFull {
    /// All places are taken by clients that are logged in.
    #[error("all connection slots are in use (limits.connections)")]
    All,
    /// The address has too many.
    #[error("the address has too many connections (limits.per_address)")]
    Address,
}

/// A connection, by a number that grows.
pub type Id = u64;

/// The connections there are.
#[derive(Debug, Default)]
pub struct Places {
    /// The sum of `by_prefix`.
    total: usize,
    /// Connections of a prefix, in either state. Never zero.
    by_prefix: HashMap<Prefix, usize>,
    /// Those that are not logged in, oldest first.
    waiting: HashMap<Prefix, BTreeSet<Id>>,
    /// Those of them whose login is being tried, and which go last. Not in `waiting`.
    trying: HashMap<Prefix, BTreeSet<Id>>,
    trying_total: usize,
    /// Both together.
    waiting_total: usize,
}

impl Places {
    /// Takes a place for a connection that is not logged in. `Ok(Some(other))`: that one has to go, its place is given up
    /// already.
    ///
    /// # Errors
    /// [`SlotsFull`] if there is none.
    pub fn enter(
        &mut self,
        id: Id,
        prefix: Prefix,
        limits: &SlotLimits,
    ) -> Result<Option<Id>, SlotsFull> {
        let number = |of: &HashMap<Prefix, BTreeSet<Id>>| of.get(&prefix).map_or(0, BTreeSet::len);
        let waiting = number(&self.waiting) + number(&self.trying);
        let of_prefix = self.by_prefix.get(&prefix).copied().unwrap_or(0);
        if of_prefix >= limits.per_address || waiting >= limits.before_login_per_address {
            return Err(SlotsFull::Address);
        }
        let crowded = self.waiting_total >= limits.before_login || self.total >= limits.connections;
        let evicted = if crowded { Some(self.evict().ok_or(SlotsFull::All)?) } else { None };
        self.count(prefix);
        self.waiting_total += 1;
        self.waiting.entry(prefix).or_default().insert(id);
        Ok(evicted)
    }

    fn evict(&mut self) -> Option<Id> {
        let (id, prefix) =
            oldest_of_most(&self.waiting).or_else(|| oldest_of_most(&self.trying))?;
        self.leave(id, prefix);
        Some(id)
    }

    /// The connection's login is being tried.
    pub fn begin_try(&mut self, id: Id, prefix: Prefix, limits: &SlotLimits) {
        if self.trying_total < limits.before_login / 2 && take(&mut self.waiting, id, prefix) {
            self.trying_total += 1;
            self.trying.entry(prefix).or_default().insert(id);
        }
    }

    /// It is not any more. Nothing happens to who has left meanwhile.
    pub fn end_try(&mut self, id: Id, prefix: Prefix) {
        if take(&mut self.trying, id, prefix) {
            self.trying_total -= 1;
            self.waiting.entry(prefix).or_default().insert(id);
        }
    }

    /// The connection is logged in: it cannot be evicted any more. One that was evicted at that very moment stays as well.
    pub fn logged_in(&mut self, id: Id, prefix: Prefix) {
        if !self.stop_waiting(id, prefix) {
            self.count(prefix);
        }
    }

    fn count(&mut self, prefix: Prefix) {
        self.total += 1;
        let count = self.by_prefix.entry(prefix).or_default();
        *count += 1;
    }

    /// The connection has ended that was logged in.
    pub fn leave_logged_in(&mut self, prefix: Prefix) {
        let Some(count) = self.by_prefix.get_mut(&prefix) else { return };
        self.total -= 1;
        *count -= 1;
        if *count == 0 {
            self.by_prefix.remove(&prefix);
        }
    }

    /// The connection has ended that was not logged in. Nothing happens if it was evicted.
    pub fn leave(&mut self, id: Id, prefix: Prefix) {
        if self.stop_waiting(id, prefix) {
            self.leave_logged_in(prefix);
        }
    }

    fn stop_waiting(&mut self, id: Id, prefix: Prefix) -> bool {
        self.end_try(id, prefix);
        let was_there = take(&mut self.waiting, id, prefix);
        if was_there {
            self.waiting_total -= 1;
        }
        was_there
    }
}

fn take(from: &mut HashMap<Prefix, BTreeSet<Id>>, id: Id, prefix: Prefix) -> bool {
    let Some(ids) = from.get_mut(&prefix) else { return false };
    let was_there = ids.remove(&id);
    if ids.is_empty() {
        from.remove(&prefix);
    }
    was_there
}

fn oldest_of_most(of: &HashMap<Prefix, BTreeSet<Id>>) -> Option<(Id, Prefix)> {
    let most =
        of.iter().max_by_key(|(_, ids)| (ids.len(), std::cmp::Reverse(ids.first().copied())));
    most.and_then(|(prefix, ids)| Some((*ids.first()?, *prefix)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: SlotLimits = SlotLimits {
        connections: 10,
        per_address: 4,
        before_login: 6,
        before_login_per_address: 3,
    };

    fn prefix(number: u8) -> Prefix {
        Prefix::of([192, 0, 2, number].into())
    }

    #[test]
    fn one_address_has_its_limits() {
        let mut places = Places::default();
        for id in 0..3 {
            assert_eq!(places.enter(id, prefix(1), &LIMITS), Ok(None));
        }
        assert_eq!(places.enter(3, prefix(1), &LIMITS), Err(SlotsFull::Address));
        places.logged_in(0, prefix(1));
        assert_eq!(places.enter(4, prefix(1), &LIMITS), Ok(None));
        places.logged_in(1, prefix(1));
        assert_eq!(places.enter(5, prefix(1), &LIMITS), Err(SlotsFull::Address), "four in all");
        places.leave_logged_in(prefix(1));
        assert_eq!(places.enter(6, prefix(1), &LIMITS), Ok(None));
    }

    #[test]
    fn crowd_pushes_out_the_oldest_of_the_largest_part_of_it() {
        let mut places = Places::default();
        for (id, address) in [(1, 1), (2, 2), (3, 2), (4, 2), (5, 3), (6, 3)] {
            assert_eq!(places.enter(id, prefix(address), &LIMITS), Ok(None));
        }
        assert_eq!(places.enter(7, prefix(4), &LIMITS), Ok(Some(2)), "address 2 has most");
        assert_eq!(
            places.enter(8, prefix(5), &LIMITS),
            Ok(Some(3)),
            "2 and 3 have as many: the older one"
        );
        assert_eq!(places.enter(9, prefix(6), &LIMITS), Ok(Some(5)));
        assert_eq!(places.enter(10, prefix(7), &LIMITS), Ok(Some(1)), "one each: the oldest");
        // The evicted ones end a little later; that changes nothing.
        for (id, address) in [(2, 2), (3, 2), (5, 3), (1, 1)] {
            places.leave(id, prefix(address));
        }
        assert_eq!((places.total, places.waiting_total), (6, 6));
    }

    #[test]
    fn whose_login_is_tried_goes_last_and_half_of_the_places_stay_for_newcomers() {
        let mut places = Places::default();
        for id in 0..6 {
            let address = u8::try_from(id).unwrap();
            assert_eq!(places.enter(id, prefix(address), &LIMITS), Ok(None));
        }
        // The fourth is one too many.
        (0..4).for_each(|id| places.begin_try(id, prefix(u8::try_from(id).unwrap()), &LIMITS));
        for (id, evicted) in [(6, 3), (7, 4), (8, 5), (9, 6)] {
            assert_eq!(
                places.enter(id, prefix(u8::try_from(id).unwrap()), &LIMITS),
                Ok(Some(evicted))
            );
        }
        places.end_try(0, prefix(0));
        assert_eq!(places.enter(10, prefix(10), &LIMITS), Ok(Some(0)), "its login has failed");
        // With all slots in use, the last of those without a login go as well.
        let full = SlotLimits { connections: 6, before_login: 100, ..LIMITS };
        for (id, evicted) in [(11, 7), (12, 8), (13, 9), (14, 10)] {
            let address = u8::try_from(id).unwrap();
            assert_eq!(places.enter(id, prefix(address), &full), Ok(Some(evicted)));
            places.begin_try(id, prefix(address), &full);
        }
        assert_eq!(places.enter(15, prefix(15), &full), Ok(Some(1)));
        places.end_try(1, prefix(1));
        places.logged_in(2, prefix(2));
        places.leave_logged_in(prefix(2));
        (11..16).for_each(|id| places.leave(id, prefix(u8::try_from(id).unwrap())));
        assert_eq!(format!("{places:?}"), format!("{:?}", Places::default()));
    }

    #[test]
    fn logged_in_clients_stay_when_all_slots_are_taken() {
        let mut places = Places::default();
        for id in 0..10 {
            let address = u8::try_from(id).unwrap();
            assert_eq!(places.enter(id, prefix(address), &LIMITS), Ok(None));
            if id < 9 {
                places.logged_in(id, prefix(address));
            }
        }
        assert_eq!(places.enter(10, prefix(10), &LIMITS), Ok(Some(9)));
        // It had to go when its login succeeded.
        places.logged_in(9, prefix(9));
        places.logged_in(10, prefix(10));
        assert_eq!(places.enter(11, prefix(11), &LIMITS), Err(SlotsFull::All));
        (0..11).for_each(|address| places.leave_logged_in(prefix(address)));
        assert_eq!((places.total, places.waiting_total), (0, 0));
        assert!(
            places.by_prefix.is_empty() && places.waiting.is_empty(),
            "nothing is kept of who is gone"
        );
    }

    /// A step of a connection, chosen by a number that the test maps to one that is there.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Enter(u8),
        BeginTry(usize),
        EndTry(usize),
        LoggedIn(usize),
        Leave(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0_u8..5).prop_map(Step::Enter),
            2 => any::<usize>().prop_map(Step::BeginTry),
            2 => any::<usize>().prop_map(Step::EndTry),
            1 => any::<usize>().prop_map(Step::LoggedIn),
            2 => any::<usize>().prop_map(Step::Leave),
        ];
        proptest::collection::vec(step, 0..200)
    }

    impl Places {
        fn assert_counts(&self) {
            let number = |of: &HashMap<Prefix, BTreeSet<Id>>| of.values().map(BTreeSet::len).sum();
            let (waiting, trying): (usize, usize) = (number(&self.waiting), number(&self.trying));
            assert_eq!(self.total, self.by_prefix.values().sum::<usize>());
            assert_eq!((self.waiting_total, self.trying_total), (waiting + trying, trying));
        }
    }

    proptest! {
        /// Also of connections that were evicted, and that end, log in or are tried later.
        #[test]
        fn each_slot_is_given_back_once(steps in steps()) {
            let mut places = Places::default();
            let mut there: Vec<(Id, Prefix, bool)> = Vec::new();
            for (id, step) in (0..).zip(steps) {
                let len = there.len().max(1);
                match step {
                    Step::Enter(address) => {
                        if places.enter(id, prefix(address), &LIMITS).is_ok() {
                            there.push((id, prefix(address), false));
                        }
                    }
                    Step::BeginTry(index) => {
                        if let Some((id, prefix, _)) = there.get(index % len) {
                            places.begin_try(*id, *prefix, &LIMITS);
                        }
                    }
                    Step::EndTry(index) => {
                        if let Some((id, prefix, _)) = there.get(index % len) {
                            places.end_try(*id, *prefix);
                        }
                    }
                    Step::LoggedIn(index) => {
                        if let Some((id, prefix, logged_in @ false)) = there.get_mut(index % len) {
                            places.logged_in(*id, *prefix);
                            *logged_in = true;
                        }
                    }
                    Step::Leave(index) if !there.is_empty() => {
                        leave(&mut places, there.swap_remove(index % len));
                    }
                    Step::Leave(_) => {}
                }
                places.assert_counts();
            }
            there.into_iter().for_each(|connection| leave(&mut places, connection));
            prop_assert_eq!(format!("{places:?}"), format!("{:?}", Places::default()));
        }
    }

    fn leave(places: &mut Places, (id, prefix, logged_in): (Id, Prefix, bool)) {
        if logged_in {
            places.leave_logged_in(prefix);
        } else {
            places.leave(id, prefix);
        }
    }
}
