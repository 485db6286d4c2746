//! A channel that keeps, for each key, only what still matters: its length is bounded by the number of keys, the sender
//! never waits, and a receiver that was busy finds the present state instead of the history.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A value that a newer one for the same key can be merged into.
pub trait Merge {
    /// The value for the receiver if `newer` is sent before it has taken `self`.
    #[must_use]
    fn merge(self, newer: Self) -> Self;
}

/// Makes a channel.
#[must_use]
pub fn channel<K, V>() -> (LatestSender<K, V>, Receiver<K, V>) {
    let shared = Arc::new(LatestShared {
        waiting: Mutex::new(WaitingValues::new()),
        arrived: Notify::new(),
    });
    (LatestSender { shared: Arc::clone(&shared) }, Receiver { shared })
}

/// Says things.
pub struct LatestSender<K, V> {
    shared: Arc<LatestShared<K, V>>,
}

/// Takes them, the key that has waited longest first.
pub struct Receiver<K, V> {
    shared: Arc<LatestShared<K, V>>,
}

struct LatestShared<K, V> {
    waiting: Mutex<WaitingValues<K, V>>,
    arrived: Notify,
}

struct WaitingValues<K, V> {
    /// The keys of `values`, in the order of their arrival.
    order: VecDeque<K>,
    values: HashMap<K, V>,
}

impl<K: Clone + Eq + Hash, V: Merge> LatestSender<K, V> {
    /// Says `value` about `key`.
    pub fn send(&self, key: K, value: V) {
        let mut waiting = self.shared.lock();
        let merged = match waiting.values.remove(&key) {
            Some(older) => older.merge(value),
            None => {
                waiting.order.push_back(key.clone());
                value
            }
        };
        waiting.values.insert(key, merged);
        drop(waiting);
        self.shared.arrived.notify_one();
    }
}

impl<K: Clone + Eq + Hash, V> Receiver<K, V> {
    /// The next thing said; waits for it. Nothing is lost if the future is dropped while it waits.
    pub async fn recv(&mut self) -> (K, V) {
        loop {
            if let Some(said) = self.try_recv() {
                return said;
            }
            self.shared.arrived.notified().await;
        }
    }

    /// The next thing said, if there is any.
    pub fn try_recv(&mut self) -> Option<(K, V)> {
        let mut waiting = self.shared.lock();
        let key = waiting.order.pop_front()?;
        let value = waiting.values.remove(&key)?;
        if waiting.order.is_empty() {
            // The memory that one burst needed is given back.
            *waiting = WaitingValues::new();
        }
        Some((key, value))
    }
}

impl<K, V> WaitingValues<K, V> {
    fn new() -> Self {
        Self { order: VecDeque::new(), values: HashMap::new() }
    }
}

impl<K, V> LatestShared<K, V> {
    fn lock(&self) -> MutexGuard<'_, WaitingValues<K, V>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> Clone for LatestSender<K, V> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K, V> std::fmt::Debug for LatestSender<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<K, V> std::fmt::Debug for Receiver<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Merge for u32 {
        fn merge(self, newer: Self) -> Self {
            self.max(newer)
        }
    }

    #[tokio::test]
    async fn each_key_waits_once_and_in_its_turn() {
        let (sender, mut receiver) = channel();
        for (key, value) in [("a", 1), ("b", 5), ("a", 3), ("b", 2)] {
            sender.send(key, value);
        }
        assert_eq!(receiver.recv().await, ("a", 3));
        assert_eq!(receiver.recv().await, ("b", 5));
        assert_eq!(receiver.try_recv(), None);
    }

    #[tokio::test]
    async fn waiting_receiver_is_woken() {
        let (sender, mut receiver) = channel();
        let taken = tokio::spawn(async move { receiver.recv().await });
        tokio::task::yield_now().await;
        sender.send("a", 1_u32);
        assert_eq!(taken.await.unwrap(), ("a", 1));
    }
}
