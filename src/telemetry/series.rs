//! The last day in slots of ten minutes: messages, pushes and their delay, for a plot.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Length of a slot, in seconds.
pub const SLOT_SECONDS: u64 = 600;

/// Number of slots: one day.
pub const SLOTS: usize = 144;

/// Counts of one slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slot {
    /// Messages to be pushed.
    pub messages: u32,
    /// Measured delays, from discovery to an accepted POST: one for each account.
    pub pushes: u32,
    /// Sum of the delays.
    pub delay: Duration,
    /// The longest delay.
    pub longest: Duration,
}

impl Slot {
    /// The average delay; `None` without a push.
    #[must_use]
    pub fn average(&self) -> Option<Duration> {
        self.delay.checked_div(self.pushes)
    }
}

/// The slots. Changed a few times for each message, after a commit to disk, so a short lock is sufficient.
#[derive(Debug, Default)]
pub struct Series(Mutex<SeriesRing>);

#[derive(Debug)]
struct SeriesRing {
    /// Number of the newest slot, counted from 1970.
    newest: u64,
    /// Each at its number modulo [`SLOTS`].
    slots: [Slot; SLOTS],
}

impl Default for SeriesRing {
    fn default() -> Self {
        Self { newest: 0, slots: [Slot::default(); SLOTS] }
    }
}

impl SeriesRing {
    /// Makes the slot of `now` the newest, and empties the skipped ones. If the clock goes back, the newest slot stays.
    fn advance(&mut self, now: u64) {
        let number = now / SLOT_SECONDS;
        if number.saturating_sub(self.newest) >= SLOTS as u64 {
            self.slots = [Slot::default(); SLOTS];
            self.newest = number;
        }
        while self.newest < number {
            self.newest += 1;
            *self.slot(self.newest) = Slot::default();
        }
    }

    #[expect(clippy::indexing_slicing, reason = "a number modulo the length is within it")]
    fn slot(&mut self, number: u64) -> &mut Slot {
        &mut self.slots[usize::try_from(number.rem_euclid(SLOTS as u64)).unwrap_or_default()]
    }

    fn current(&mut self, now: u64) -> &mut Slot {
        self.advance(now);
        self.slot(self.newest)
    }
}

impl Series {
    /// Counts a message to be pushed; `now` is in seconds since 1970, as everywhere here.
    pub(super) fn message(&self, now: u64) {
        let mut ring = self.lock();
        let slot = ring.current(now);
        slot.messages += 1;
    }

    /// Counts a POST that was accepted `delay` after the discovery of its message.
    pub(super) fn pushed(&self, now: u64, delay: Duration) {
        let mut ring = self.lock();
        let slot = ring.current(now);
        slot.pushes += 1;
        slot.delay += delay;
        slot.longest = slot.longest.max(delay);
    }

    /// The last day, the oldest slot first; the last one is in progress.
    #[must_use]
    pub fn get(&self, now: u64) -> Vec<Slot> {
        let mut ring = self.lock();
        ring.advance(now);
        let first = ring.newest + 1;
        (0..SLOTS as u64).map(|place| *ring.slot(first + place)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, SeriesRing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_older_than_a_day_go_and_younger_ones_stay() {
        let series = Series::default();
        let start = 1_700_000_000 / SLOT_SECONDS * SLOT_SECONDS;
        series.message(start);
        series.pushed(start + 1, Duration::from_secs(3));
        series.pushed(start + 2, Duration::from_secs(1));
        series.message(start + SLOT_SECONDS);
        let slots = series.get(start + SLOT_SECONDS);
        assert_eq!(slots.len(), SLOTS);
        let (before, last) = (slots[SLOTS - 2], slots[SLOTS - 1]);
        assert_eq!(
            (before.messages, before.pushes, before.longest),
            (1, 2, Duration::from_secs(3))
        );
        assert_eq!(before.average(), Some(Duration::from_secs(2)));
        assert_eq!(last, Slot { messages: 1, ..Slot::default() });
        let slots = series.get(start + SLOT_SECONDS * 143);
        assert_eq!((slots[0].messages, slots[1].messages), (1, 1));
        let slots = series.get(start + SLOT_SECONDS * 144);
        assert_eq!((slots[0].messages, slots[1].messages), (1, 0));
        assert!(
            series.get(start + SLOT_SECONDS * 1000).iter().all(|slot| *slot == Slot::default())
        );
    }

    #[test]
    fn clock_that_goes_back_loses_nothing() {
        let series = Series::default();
        series.message(SLOT_SECONDS * 1000);
        series.message(SLOT_SECONDS * 900);
        assert_eq!(series.get(SLOT_SECONDS * 1000)[SLOTS - 1].messages, 2);
    }
}
