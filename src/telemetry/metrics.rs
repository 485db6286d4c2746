//! Counts since the start. What is relayed is counted by atomics alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::counts::{CounterArray, Label, PostOutcomeKind};
use super::delays::Delays;
use super::histogram::Histogram;
use super::series::Series;
use super::{Direction, LoginResult, PostResult, TelemetryEvent, WatchEvent};

/// What a watch may say of a message: in the words of [`TelemetryEvent::Judged`], and as a value of the label `reason`. The first
/// deserves a push.
pub const VERDICTS: [(Option<&str>, &str); 8] = [
    (None, "push"),
    (Some("already seen"), "seen"),
    (Some("deleted"), "deleted"),
    (Some("junk"), "junk"),
    (Some("sent automatically"), "automatic"),
    (Some("sent by the account itself"), "own_mail"),
    (Some("no chat message"), "no_chat"),
    (Some("not encrypted: the app would not fetch it"), "not_encrypted"),
];

/// So many POSTs in a row that the notification server did not answer, or not with an answer, are more than bad luck.
const TROUBLE: u64 = 3;

/// The counts. They only grow, and wrap around at the end of 64 bits.
#[derive(Debug, Default)]
pub struct Metrics {
    connected: AtomicU64,
    turned_away: AtomicU64,
    disconnected: AtomicU64,
    logins: CounterArray<6>,
    logged_out: AtomicU64,
    registered: AtomicU64,
    to_client: AtomicU64,
    to_upstream: AtomicU64,
    interrupted: AtomicU64,
    judged: CounterArray<8>,
    noticed: AtomicU64,
    posts: CounterArray<6>,
    given_up: AtomicU64,
    post_time: Histogram,
    /// POSTs in a row of which the notification server's trouble is to blame.
    trouble: AtomicU64,
    delays: Delays,
    series: Series,
}

impl Metrics {
    pub(super) fn count(&self, event: &TelemetryEvent<'_>) {
        match event {
            TelemetryEvent::Connected => add(&self.connected, 1),
            TelemetryEvent::TurnedAway => add(&self.turned_away, 1),
            TelemetryEvent::Disconnected => add(&self.disconnected, 1),
            TelemetryEvent::Login { result, .. } => self.logins.add_label(*result),
            TelemetryEvent::LoggedOut { .. } => add(&self.logged_out, 1),
            TelemetryEvent::Registered { .. } => add(&self.registered, 1),
            TelemetryEvent::Watch { state: WatchEvent::Interrupted { .. }, .. } => {
                add(&self.interrupted, 1)
            }
            TelemetryEvent::Judged { skipped, .. } => self.judged(*skipped),
            TelemetryEvent::Noticed { announce: true, .. } => add(&self.noticed, 1),
            TelemetryEvent::Posted { result, took, .. } => {
                self.posts.add_label(PostOutcomeKind::from(*result));
                self.post_time.observe(*took);
                self.note_trouble(*result);
            }
            TelemetryEvent::GaveUp { .. } => add(&self.given_up, 1),
            _ => {}
        }
        self.delays.measure(event, Instant::now(), &self.series, now());
    }

    fn judged(&self, skipped: Option<&str>) {
        if let Some(place) = VERDICTS.iter().position(|(words, _)| *words == skipped) {
            self.judged.add(place);
        }
        if skipped.is_none() {
            self.series.message(now());
        }
    }

    fn note_trouble(&self, result: PostResult) {
        match PostOutcomeKind::from(result) {
            PostOutcomeKind::Accepted | PostOutcomeKind::Gone | PostOutcomeKind::Refused => {
                self.trouble.store(0, Ordering::Relaxed)
            }
            PostOutcomeKind::Failed | PostOutcomeKind::TimedOut | PostOutcomeKind::Unreachable => {
                add(&self.trouble, 1)
            }
        }
    }

    /// So many bytes were relayed that way, as they stand before compression and TLS. Not an event: it happens too often.
    pub fn add_relayed(&self, way: Direction, bytes: usize) {
        match way {
            Direction::ToClient => add(&self.to_client, bytes as u64),
            Direction::ToUpstream => add(&self.to_upstream, bytes as u64),
        }
    }

    /// Clients that are connected now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        // In this order: who comes between the two is counted, who goes is not.
        let gone = get(&self.disconnected);
        get(&self.connected).saturating_sub(gone)
    }

    /// Clients that found a place.
    #[must_use]
    pub fn connected(&self) -> u64 {
        get(&self.connected)
    }

    /// Connections that were turned away.
    #[must_use]
    pub fn turned_away(&self) -> u64 {
        get(&self.turned_away)
    }

    /// Clients that are logged in now.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        let gone = get(&self.logged_out);
        self.logins.get_label(LoginResult::Accepted).saturating_sub(gone)
    }

    /// Logins, by what came of them.
    pub fn logins(&self) -> impl Iterator<Item = (&'static str, u64)> {
        labelled(LoginResult::ALL, self.logins.get())
    }

    /// Tokens that clients handed over, known ones too.
    #[must_use]
    pub fn registered(&self) -> u64 {
        get(&self.registered)
    }

    /// Bytes that were relayed that way.
    #[must_use]
    pub fn relayed(&self, way: Direction) -> u64 {
        match way {
            Direction::ToClient => get(&self.to_client),
            Direction::ToUpstream => get(&self.to_upstream),
        }
    }

    /// Watches that were interrupted.
    #[must_use]
    pub fn interrupted(&self) -> u64 {
        get(&self.interrupted)
    }

    /// Messages that were judged, by the reason.
    pub fn judged_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        VERDICTS.iter().zip(self.judged.get()).map(|((_, label), count)| (*label, count))
    }

    /// How often a watch found something that is to be announced.
    #[must_use]
    pub fn noticed(&self) -> u64 {
        get(&self.noticed)
    }

    /// POSTs, by their answer.
    pub fn posts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        labelled(PostOutcomeKind::ALL, self.posts.get())
    }

    /// How long POSTs took, whatever came of them.
    #[must_use]
    pub fn post_time(&self) -> &Histogram {
        &self.post_time
    }

    /// Announcements that were given up.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        get(&self.given_up)
    }

    /// Whether the notification server answered lately, as far as it was asked.
    #[must_use]
    pub fn notification_server_answers(&self) -> bool {
        get(&self.trouble) < TROUBLE
    }

    /// How long messages took to wake somebody.
    #[must_use]
    pub fn delays(&self) -> &Delays {
        &self.delays
    }

    /// The last day.
    #[must_use]
    pub fn series(&self) -> &Series {
        &self.series
    }
}

fn labelled<L: Label, const N: usize>(
    all: &'static [(L, &'static str)],
    counts: [u64; N],
) -> impl Iterator<Item = (&'static str, u64)> {
    all.iter().zip(counts).map(|((_, label), count)| (*label, count))
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::secret::DeviceToken;

    #[test]
    fn three_failures_in_a_row_are_trouble_and_one_answer_ends_it() {
        let metrics = Metrics::default();
        let token = DeviceToken::new(b"token").unwrap();
        let post = |result| {
            metrics.count(&TelemetryEvent::Posted {
                accounts: &[],
                token: &token,
                result,
                took: Duration::ZERO,
            });
            metrics.notification_server_answers()
        };
        assert!(metrics.notification_server_answers());
        assert!(
            post(PostResult::TimedOut)
                && post(PostResult::Failed(503))
                && !post(PostResult::Unreachable)
        );
        assert!(post(PostResult::Gone));
        let posts: Vec<_> = metrics.posts().map(|(_, count)| count).collect();
        assert_eq!(posts, [0, 1, 0, 1, 1, 1]);
    }

    #[test]
    fn sessions_are_logins_that_are_not_over() {
        let metrics = Metrics::default();
        let account = crate::account::AccountId::new("alice@example.org", "imap:993");
        let login =
            |result| metrics.count(&TelemetryEvent::Login { session: 1, account: None, result });
        login(LoginResult::Accepted);
        login(LoginResult::Accepted);
        login(LoginResult::Refused);
        metrics.count(&TelemetryEvent::LoggedOut { session: 1, account: &account });
        assert_eq!(metrics.sessions(), 1);
    }
}
