//! A value that may be replaced while deltapush runs: each user takes the value of the moment at which it begins, and keeps
//! it.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// The value that counts now. Clones share it.
pub struct Reloadable<T>(watch::Sender<Arc<T>>);

impl<T> Reloadable<T> {
    /// Begins with `value`.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(watch::Sender::new(Arc::new(value)))
    }

    /// The current value.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.borrow())
    }

    /// Lets `value` count from now on.
    pub fn set(&self, value: T) {
        self.0.send_replace(Arc::new(value));
    }

    /// Tells of each value that comes from now on.
    #[must_use]
    pub fn changes(&self) -> LiveChanges<T> {
        LiveChanges(self.0.subscribe())
    }
}

impl<T> Clone for Reloadable<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for Reloadable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Live").field(&self.get()).finish()
    }
}

/// Tells of new values.
#[derive(Debug)]
pub struct LiveChanges<T>(watch::Receiver<Arc<T>>);

impl<T> LiveChanges<T> {
    /// Waits for the next value; never returns if none can come any more.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn taken_values_stay_and_changes_are_notified() {
        let live = Reloadable::new(1);
        let mut changes = live.changes();
        let (before, other) = (live.get(), live.clone());
        other.set(2);
        changes.next().await;
        assert_eq!((*before, *live.get()), (1, 2));
    }
}
