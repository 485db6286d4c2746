//! Counts since the start.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Event, Way};

/// The counts. They only grow, and wrap around at the end of 64 bits.
#[derive(Debug, Default)]
pub struct Metrics {
    connected: AtomicU64,
    disconnected: AtomicU64,
    to_client: AtomicU64,
    to_upstream: AtomicU64,
}

impl Metrics {
    pub(super) fn count(&self, event: &Event<'_>) {
        match event {
            Event::Connected => add(&self.connected, 1),
            Event::Disconnected => add(&self.disconnected, 1),
            _ => {}
        }
    }

    /// So many bytes were relayed that way, as they stand before compression and TLS. Not an event: it happens too often.
    pub fn add_relayed(&self, way: Way, bytes: usize) {
        match way {
            Way::ToClient => add(&self.to_client, bytes as u64),
            Way::ToUpstream => add(&self.to_upstream, bytes as u64),
        }
    }

    /// Clients that are connected now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        // In this order: who comes between the two is counted, who goes is not.
        let gone = self.disconnected.load(Ordering::Relaxed);
        self.connected.load(Ordering::Relaxed).saturating_sub(gone)
    }

    /// Bytes that were relayed that way.
    #[must_use]
    pub fn relayed(&self, way: Way) -> u64 {
        match way {
            Way::ToClient => self.to_client.load(Ordering::Relaxed),
            Way::ToUpstream => self.to_upstream.load(Ordering::Relaxed),
        }
    }
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}
