//! The clock of the drivers of [machines](crate::machine): the runtime's, which tests may stop.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::system::sysinfo;
use tokio::time::{sleep, sleep_until};

/// Longest sleep after which [`reached_elsewhere`] looks at the time again.
const LOOK: Duration = Duration::from_secs(1);

/// Shorter suspensions do not count: the machine's uptime is told in whole seconds.
const SHORTEST_SUSPENSION: u64 = 2;

/// For how many seconds the machine was suspended, as far as was seen.
static SUSPENDED: AtomicU64 = AtomicU64::new(0);

/// The time now.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The time now as other machines have it: unlike that of [`now`], it goes on while this machine is suspended.
pub(crate) fn elsewhere() -> Instant {
    static START: OnceLock<(Instant, u64)> = OnceLock::new();
    // Linux: the uptime includes the time in which the system is suspended (CLOCK_BOOTTIME). That of `Instant` does not.
    let uptime = || u64::try_from(sysinfo().uptime).unwrap_or_default();
    let (start, up) = *START.get_or_init(|| (Instant::now(), uptime()));
    // In this order: if the process stands still in between, the difference is too small.
    let up = uptime().saturating_sub(up);
    now() + suspended(&SUSPENDED, up, start.elapsed())
}

/// The time in which the machine was suspended, from its uptime in seconds, and the time without suspensions.
fn suspended(known: &AtomicU64, up: u64, awake: Duration) -> Duration {
    let (was, found) = (known.load(Ordering::Relaxed), up.saturating_sub(awake.as_secs()));
    let is_longer = found >= was + SHORTEST_SUSPENSION;
    let longest =
        if is_longer { known.fetch_max(found, Ordering::Relaxed).max(found) } else { was };
    Duration::from_secs(longest)
}

/// Waits until it is this time [`elsewhere`]; without one forever.
pub(crate) async fn reached_elsewhere(deadline: Option<Instant>) {
    let Some(deadline) = deadline else { return std::future::pending().await };
    loop {
        let left = deadline.saturating_duration_since(elsewhere());
        if left.is_zero() {
            return;
        }
        sleep(left.min(LOOK)).await;
    }
}

/// A day, for log lines: `2030-02-25`.
pub(crate) fn day(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

/// Waits for a machine's deadline; without one forever.
pub(crate) async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspension_counts_if_it_is_longer_than_the_uptime_is_inexact() {
        let (known, seconds) = (AtomicU64::new(0), Duration::from_secs);
        let look = |up, awake| suspended(&known, up, awake);
        assert_eq!(look(100, seconds(100)), Duration::ZERO);
        assert_eq!(look(101, Duration::from_millis(100_010)), Duration::ZERO);
        assert_eq!(look(101, seconds(120)), Duration::ZERO, "the process stood still in between");
        assert_eq!(look(129, seconds(121)), seconds(8));
        assert_eq!(look(130, Duration::from_millis(121_010)), seconds(8));
        assert_eq!(look(132, seconds(124)), seconds(8));
        assert_eq!(look(140, seconds(125)), seconds(15));
    }

    #[tokio::test(start_paused = true)]
    async fn time_elsewhere_is_waited_for() {
        let (began, wait) = (elsewhere(), Duration::from_millis(2_500));
        reached_elsewhere(Some(began + wait)).await;
        assert!((wait..wait * 2).contains(&(elsewhere() - began)));
    }
}
