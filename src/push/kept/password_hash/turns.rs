//! Turns at the one thing that makes hashes: fair between address prefixes, and few for each account and prefix. Without time
//! and I/O.

use std::net::IpAddr;

use crate::account::AccountId;

/// Hashes of one account that are under way or wait.
const PER_ACCOUNT: usize = 2;

/// Hashes for one address prefix that are under way or wait: many people may be behind one IPv4 address.
const PER_PREFIX: usize = 8;

/// Hashes that are under way or wait in all: more than one second is enough for.
const IN_ALL: usize = 64;

/// The login for which a hash is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::push::kept) struct HashRequester {
    /// Its account.
    pub(in crate::push::kept) account: AccountId,
    /// The prefix of the client's address.
    pub(in crate::push::kept) prefix: IpAddr,
}

/// The queue. The first entry has the turn.
#[derive(Debug)]
pub(super) struct HashQueue<W> {
    queue: Vec<QueuedHash<W>>,
    next: u64,
}

#[derive(Debug)]
struct QueuedHash<W> {
    number: u64,
    caller: HashRequester,
    /// Number of waiters of its prefix at its arrival: those with fewer go first.
    rank: usize,
    /// Wakes it; taken when it has the turn.
    wake: Option<W>,
}

impl<W> Default for HashQueue<W> {
    fn default() -> Self {
        Self { queue: Vec::new(), next: 0 }
    }
}

impl<W> HashQueue<W> {
    /// Queues a caller, and returns its number; `None` if there are too many already. `woken` gets whom to wake.
    pub(super) fn enter(
        &mut self,
        caller: HashRequester,
        wake: W,
        woken: impl FnOnce(W),
    ) -> Option<u64> {
        let of = |is: &dyn Fn(&HashRequester) -> bool| {
            self.queue.iter().filter(|entry| is(&entry.caller)).count()
        };
        let rank = of(&|known| known.prefix == caller.prefix);
        if of(&|known| known.account == caller.account) >= PER_ACCOUNT || rank >= PER_PREFIX {
            return None;
        }
        if self.queue.len() >= IN_ALL {
            // The one with the most of its kind before it goes, if it has more than the one who comes; the first is at work.
            let last = self
                .queue
                .iter()
                .enumerate()
                .skip(1)
                .max_by_key(|(_, entry)| (entry.rank, entry.number))?;
            if last.1.rank <= rank {
                return None;
            }
            self.queue.remove(last.0);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.queue.push(QueuedHash { number, caller, rank, wake: Some(wake) });
        self.wake_first(woken);
        Some(number)
    }

    /// A caller is done, or waits no more.
    pub(super) fn leave(&mut self, number: u64, woken: impl FnOnce(W)) {
        let Some(index) = self.queue.iter().position(|entry| entry.number == number) else {
            return;
        };
        self.queue.remove(index);
        if index == 0
            && let Some((next, _)) =
                self.queue.iter().enumerate().min_by_key(|(_, entry)| (entry.rank, entry.number))
        {
            self.queue.swap(0, next);
        }
        self.wake_first(woken);
    }

    fn wake_first(&mut self, woken: impl FnOnce(W)) {
        if let Some(wake) = self.queue.first_mut().and_then(|first| first.wake.take()) {
            woken(wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue whose callers are woken by name, and who was.
    #[derive(Default)]
    struct TurnScene {
        turns: HashQueue<String>,
        woken: Vec<String>,
    }

    impl TurnScene {
        fn enter(&mut self, account: &str, prefix: u8) -> Option<u64> {
            let caller = HashRequester {
                account: AccountId {
                    user: account.into(),
                    upstream: "imap.example.org:993".into(),
                },
                prefix: IpAddr::from([192, 0, 2, prefix]),
            };
            let woken = &mut self.woken;
            self.turns.enter(caller, account.to_owned(), |name| woken.push(name))
        }

        fn leave(&mut self, number: u64) {
            let woken = &mut self.woken;
            self.turns.leave(number, |name| woken.push(name));
        }
    }

    #[test]
    fn one_account_has_two_turns_at_most_and_nobody_waits_for_more() {
        let mut scene = TurnScene::default();
        let busy: Vec<u64> = (0..40).filter_map(|_| scene.enter("busy", 1)).collect();
        assert_eq!(busy.len(), PER_ACCOUNT);
        let other = scene.enter("other", 2).unwrap();
        assert_eq!(scene.woken, ["busy"]);
        scene.leave(busy[0]);
        assert_eq!(
            scene.woken,
            ["busy", "other"],
            "the second of a prefix comes after the first of another"
        );
        scene.leave(other);
        assert_eq!(scene.woken, ["busy", "other", "busy"]);
        assert!(scene.enter("busy", 3).is_some(), "one has left");
    }

    #[test]
    fn one_prefix_neither_delays_nor_displaces_others() {
        let mut scene = TurnScene::default();
        let many: Vec<u64> = (0..100).filter_map(|n| scene.enter(&format!("many{n}"), 1)).collect();
        assert_eq!(many.len(), PER_PREFIX);
        let late = scene.enter("late", 2).unwrap();
        scene.leave(many[0]);
        assert_eq!(scene.woken, ["many0", "late"]);
        scene.leave(late);
        // A few prefixes fill the queue: one more gets a place in it all the same.
        for prefix in 2..=20 {
            for n in 0..PER_PREFIX {
                scene.enter(&format!("{prefix}-{n}"), prefix);
            }
        }
        assert_eq!(scene.turns.queue.len(), IN_ALL);
        assert!(scene.enter("last", 201).is_some());
        assert_eq!(scene.turns.queue.len(), IN_ALL);
    }

    #[test]
    fn cancelled_waiter_leaves_no_gap() {
        let mut scene = TurnScene::default();
        let numbers: Vec<u64> =
            (1..=3).map(|n| scene.enter(&format!("a{n}"), n).unwrap()).collect();
        scene.leave(numbers[1]);
        scene.leave(numbers[0]);
        scene.leave(numbers[0]);
        assert_eq!(scene.woken, ["a1", "a3"]);
        scene.leave(numbers[2]);
        scene.enter("a4", 4).unwrap();
        assert_eq!(scene.woken, ["a1", "a3", "a4"]);
    }
}
