//! Converts moments of the monotonic clock to wall-clock times.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// One moment by both clocks: others are counted from it.
#[derive(Debug, Clone, Copy)]
pub struct DisplayClock {
    instant: Instant,
    wall: Timestamp,
}

impl DisplayClock {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { instant: Instant::now(), wall: Timestamp::now() }
    }

    /// Now, by the wall clock.
    #[must_use]
    pub fn wall(self) -> Timestamp {
        self.wall
    }

    /// A moment before or after now, by the wall clock. Time in which the machine was suspended is not in it.
    #[must_use]
    pub fn time_of(self, moment: Instant) -> Timestamp {
        let ahead = moment
            .checked_duration_since(self.instant)
            .and_then(|ahead| self.wall.checked_add(ahead).ok());
        ahead.unwrap_or_else(|| self.before(self.instant.saturating_duration_since(moment)))
    }

    fn before(self, ago: Duration) -> Timestamp {
        self.wall.checked_sub(ago).unwrap_or(Timestamp::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn past_and_the_future_have_times() {
        let past = Instant::now();
        tokio::time::advance(Duration::from_secs(90)).await;
        let clock = DisplayClock::now();
        let seconds = |moment| clock.time_of(moment).duration_since(clock.wall()).as_secs();
        assert_eq!((seconds(past), seconds(Instant::now() + Duration::from_secs(5))), (-90, 5));
    }
}
