//! Counts since the start, for Prometheus. No label contains a name or an address.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::delays::Delays;
use super::histogram::duration_histogram;
use super::series::Series;
use super::{Direction, LoginResult, NewsRefusal, PostResult, TelemetryEvent, WatchEvent};

/// Push decisions: the words of [`TelemetryEvent::Judged`], and the value of the label `verdict`. The first leads to a push.
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

/// Values of the label `outcome` of the mail server's news.
pub const NEWS_OUTCOMES: [&str; 6] =
    ["announced", "skipped", "known", "other_mailbox", "no_device", "refused"];

/// Consecutive POSTs without an answer, or with a server error, after which the notification server counts as down.
const TROUBLE: u64 = 3;

/// A counter for each value of one label.
type LabelledCounter = Family<[(&'static str, &'static str); 1], Counter>;

/// The metrics that [`TelemetryEvent`]s change.
#[derive(Debug)]
pub struct Metrics {
    connected: Counter,
    turned_away: Counter,
    connections: Gauge,
    logins: LabelledCounter,
    sessions: Gauge,
    registered: Counter,
    relayed: LabelledCounter,
    /// The counters of `relayed`, without the look-up of their label.
    to_client: Counter,
    to_upstream: Counter,
    interrupted: Counter,
    judged: LabelledCounter,
    noticed: Counter,
    news: LabelledCounter,
    news_refused: LabelledCounter,
    posts: LabelledCounter,
    given_up: Counter,
    post_time: Histogram,
    /// Consecutive POSTs that failed through the notification server's fault.
    trouble: AtomicU64,
    delays: Delays,
    series: Series,
}

impl Default for Metrics {
    fn default() -> Self {
        let relayed = labelled("direction", ["to_client", "to_upstream"]);
        Self {
            connected: Counter::default(),
            turned_away: Counter::default(),
            connections: Gauge::default(),
            logins: labelled("result", LoginResult::LABELS),
            sessions: Gauge::default(),
            registered: Counter::default(),
            to_client: relayed.get_or_create_owned(&[("direction", "to_client")]),
            to_upstream: relayed.get_or_create_owned(&[("direction", "to_upstream")]),
            relayed,
            interrupted: Counter::default(),
            judged: labelled("verdict", VERDICTS.map(|(_, label)| label)),
            noticed: Counter::default(),
            news: labelled("outcome", NEWS_OUTCOMES),
            news_refused: labelled("reason", NewsRefusal::LABELS),
            posts: labelled("answer", PostResult::LABELS),
            given_up: Counter::default(),
            post_time: duration_histogram(),
            trouble: AtomicU64::default(),
            delays: Delays::default(),
            series: Series::default(),
        }
    }
}

impl Metrics {
    /// Registers all of them by name, with help texts. The registry adds the full stop to a help text, and the text format
    /// `_total` to the name of a counter.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "deltapush_connections",
            "Client connections that got a connection slot",
            self.connected.clone(),
        );
        registry.register(
            "deltapush_connections_turned_away",
            "Client connections that were refused: no connection slot was free, or their address may not connect",
            self.turned_away.clone(),
        );
        registry.register(
            "deltapush_connections_open",
            "Clients that are connected",
            self.connections.clone(),
        );
        registry.register(
            "deltapush_sessions",
            "Clients that are logged in",
            self.sessions.clone(),
        );
        registry.register("deltapush_logins", "Logins, by result", self.logins.clone());
        registry.register(
            "deltapush_registrations",
            "Tokens that clients handed over, including known ones",
            self.registered.clone(),
        );
        registry.register(
            "deltapush_relayed_bytes",
            "Relayed bytes, before compression and TLS",
            self.relayed.clone(),
        );
        registry.register(
            "deltapush_watch_interruptions",
            "Interrupted watches, which retry automatically",
            self.interrupted.clone(),
        );
        registry.register(
            "deltapush_messages_judged",
            "New messages, by push decision: push, or the reason for none",
            self.judged.clone(),
        );
        registry.register(
            "deltapush_noticed",
            "Times that new mail to be pushed was stored on disk",
            self.noticed.clone(),
        );
        registry.register(
            "deltapush_news",
            "News of the mail server, by outcome",
            self.news.clone(),
        );
        registry.register(
            "deltapush_news_refused",
            "Requests to the hook and the socket for news that were refused, by reason",
            self.news_refused.clone(),
        );
        registry.register(
            "deltapush_posts",
            "POSTs to the notification server, by its answer",
            self.posts.clone(),
        );
        registry.register(
            "deltapush_post_duration_seconds",
            "Duration of POSTs",
            self.post_time.clone(),
        );
        registry.register(
            "deltapush_pushes_given_up",
            "Pushes that were given up",
            self.given_up.clone(),
        );
        self.delays.register(registry);
    }

    pub(super) fn count(&self, event: &TelemetryEvent<'_>) {
        match event {
            TelemetryEvent::Connected => {
                self.connected.inc();
                self.connections.inc();
            }
            TelemetryEvent::TurnedAway => {
                self.turned_away.inc();
            }
            TelemetryEvent::Disconnected => {
                self.connections.dec();
            }
            TelemetryEvent::Login { result, .. } => {
                self.logins.get_or_create(&[("result", result.label())]).inc();
                if *result == LoginResult::Accepted {
                    self.sessions.inc();
                }
            }
            TelemetryEvent::LoggedOut { .. } => {
                self.sessions.dec();
            }
            TelemetryEvent::Registered { .. } => {
                self.registered.inc();
            }
            TelemetryEvent::Watch { state: WatchEvent::Interrupted { .. }, .. } => {
                self.interrupted.inc();
            }
            TelemetryEvent::Judged { skipped, .. } => self.count_judged(*skipped),
            TelemetryEvent::Noticed { announce: true, .. } => {
                self.noticed.inc();
            }
            TelemetryEvent::NewsRefused(reason) => {
                self.news_refused.get_or_create(&[("reason", reason.label())]).inc();
            }
            TelemetryEvent::Posted { result, took, .. } => {
                self.posts.get_or_create(&[("answer", result.label())]).inc();
                self.post_time.observe(took.as_secs_f64());
                self.note_trouble(*result);
            }
            TelemetryEvent::GaveUp { .. } => {
                self.given_up.inc();
            }
            _ => {}
        }
        self.delays.measure(event, Instant::now(), &self.series, now());
    }

    fn count_judged(&self, skipped: Option<&str>) {
        if let Some((_, verdict)) = VERDICTS.iter().find(|(words, _)| *words == skipped) {
            self.judged.get_or_create(&[("verdict", verdict)]).inc();
        }
        if skipped.is_none() {
            self.series.message(now());
        }
    }

    fn note_trouble(&self, result: PostResult) {
        match result {
            PostResult::Accepted | PostResult::Gone | PostResult::Refused(_) => {
                self.trouble.store(0, Ordering::Relaxed);
            }
            PostResult::Failed(_) | PostResult::TimedOut | PostResult::Unreachable => {
                self.trouble.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Counts news of the mail server by its outcome, one of [`NEWS_OUTCOMES`].
    pub fn count_news(&self, outcome: &'static str) {
        self.news.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts relayed bytes, before compression and TLS. Not an event: it happens too often.
    pub fn add_relayed(&self, direction: Direction, bytes: usize) {
        let counter = match direction {
            Direction::ToClient => &self.to_client,
            Direction::ToUpstream => &self.to_upstream,
        };
        counter.inc_by(bytes as u64);
    }

    /// Number of connected clients.
    #[must_use]
    pub fn connections(&self) -> u64 {
        u64::try_from(self.connections.get()).unwrap_or_default()
    }

    /// False if the notification server did not answer the last POSTs.
    #[must_use]
    pub fn notification_server_answers(&self) -> bool {
        self.trouble.load(Ordering::Relaxed) < TROUBLE
    }

    /// Messages and delays of the last day.
    #[must_use]
    pub fn series(&self) -> &Series {
        &self.series
    }
}

/// A family in which every series exists from the start.
fn labelled(
    label: &'static str,
    values: impl IntoIterator<Item = &'static str>,
) -> LabelledCounter {
    let family = LabelledCounter::default();
    for value in values {
        drop(family.get_or_create(&[(label, value)]));
    }
    family
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

    fn text(metrics: &Metrics) -> String {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::prometheus_text::encode(&mut text, &registry).unwrap();
        text
    }

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
        let text = text(&metrics);
        for (answer, count) in [
            ("accepted", 0),
            ("gone", 1),
            ("refused", 0),
            ("failed", 1),
            ("timed_out", 1),
            ("unreachable", 1),
        ] {
            let line = format!("\ndeltapush_posts_total{{answer=\"{answer}\"}} {count}\n");
            assert!(text.contains(&line), "{text}");
        }
    }

    #[test]
    fn every_label_is_one_of_those_that_exist_from_the_start() {
        let metrics = Metrics::default();
        let series = text(&metrics).lines().count();
        for result in [
            LoginResult::Accepted,
            LoginResult::Refused,
            LoginResult::Limited,
            LoginResult::NotAllowed,
            LoginResult::Unavailable,
            LoginResult::NoMechanism,
        ] {
            metrics.count(&TelemetryEvent::Login { session: 1, account: None, result });
        }
        let token = DeviceToken::new(b"token").unwrap();
        for result in [
            PostResult::Accepted,
            PostResult::Gone,
            PostResult::Refused(400),
            PostResult::Failed(500),
            PostResult::TimedOut,
            PostResult::Unreachable,
        ] {
            metrics.count(&TelemetryEvent::Posted {
                accounts: &[],
                token: &token,
                result,
                took: Duration::ZERO,
            });
        }
        for refusal in [
            NewsRefusal::Token,
            NewsRefusal::Body,
            NewsRefusal::Account,
            NewsRefusal::Rate,
            NewsRefusal::State,
        ] {
            metrics.count(&TelemetryEvent::NewsRefused(refusal));
        }
        assert_eq!(text(&metrics).lines().count(), series);
        assert!(!text(&metrics).contains("deltapush_news_refused_total{reason=\"token\"} 0"));
        assert!(!text(&metrics).contains("_total{result=\"refused\"} 0"));
    }

    #[test]
    fn sessions_are_logins_that_are_not_over() {
        let metrics = Metrics::default();
        let login =
            |result| metrics.count(&TelemetryEvent::Login { session: 1, account: None, result });
        login(LoginResult::Accepted);
        login(LoginResult::Accepted);
        login(LoginResult::Refused);
        metrics.count(&TelemetryEvent::LoggedOut { session: 1, account: None });
        assert!(text(&metrics).contains("\ndeltapush_sessions 1\n"), "{}", text(&metrics));
    }
}
