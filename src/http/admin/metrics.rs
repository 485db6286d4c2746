//! The metrics for Prometheus. Every series exists from the start; no label contains a name or an address.

use super::exposition::Exposition;
use super::process::Process;
use super::site::AdminSite;
use crate::push::watch_status::WatchState;
use crate::telemetry::Direction;
use crate::telemetry::metrics::Metrics;

impl AdminSite {
    /// All metrics of this moment.
    pub(super) fn metrics(&self) -> String {
        let mut text = Exposition::default();
        let metrics = self.board.telemetry().metrics();
        let version = [(env!("CARGO_PKG_VERSION"), 1)];
        text.gauges(
            "deltapush_build_info",
            "Always 1: the version is in the label.",
            "version",
            version,
        );
        clients(&mut text, metrics);
        self.watches(&mut text, metrics);
        pushes(&mut text, metrics);
        self.tokens(&mut text);
        self.rest(&mut text);
        Process::now().expose(&mut text, self.started);
        text.into_text()
    }

    fn watches(&self, text: &mut Exposition, metrics: &Metrics) {
        text.gauge("deltapush_accounts", "Accounts that have a device.", self.registry.len());
        let refused = "New accounts that were refused because there were too many.";
        text.counter("deltapush_accounts_refused_total", refused, self.registry.refused_accounts());
        let waiting = "Accounts that are not watched until one of their devices logs in.";
        let states = self.board.count_states();
        // Where sessions are kept, all that wait are among the watches.
        let without_session = if self.registry.keeps_sessions() { states[3] } else { 0 };
        text.gauge(
            "deltapush_accounts_waiting",
            waiting,
            self.registry.waiting().saturating_add(without_session),
        );
        text.gauges(
            "deltapush_watches",
            "Watches, by state.",
            "state",
            WatchState::NAMES.into_iter().zip(states),
        );
        let interrupted = "Interrupted watches, which retry automatically.";
        text.counter("deltapush_watch_interruptions_total", interrupted, metrics.interrupted());
        let judged = "New messages, by push decision: push, or the reason for none.";
        text.counters(
            "deltapush_messages_judged_total",
            judged,
            "verdict",
            metrics.judged_by_reason(),
        );
        let noticed = "Times that new mail to be pushed was stored on disk.";
        text.counter("deltapush_noticed_total", noticed, metrics.noticed());
    }

    fn tokens(&self, text: &mut Exposition) {
        let quarantined = "Tokens in quarantine: the notification server rejected them as gone (410). They are tried again rarely.";
        text.gauge("deltapush_tokens_quarantined", quarantined, self.registry.quarantined_tokens());
    }

    fn rest(&self, text: &mut Exposition) {
        let answers = self.board.telemetry().metrics().notification_server_answers();
        let up = "1 unless the notification server did not answer the last requests.";
        text.gauge("deltapush_notification_server_up", up, u8::from(answers));
        let writable = "1 if the last change of the state could be written.";
        text.gauge("deltapush_state_writable", writable, u8::from(self.registry.is_writable()));
        text.gauge("deltapush_listeners", "Listeners that accept clients.", self.listening.count());
        if let Some(end) = self.certificates.get().summary().not_after {
            let help = "Expiry of the default certificate, in seconds since 1970.";
            text.gauge("deltapush_certificate_expiry_timestamp_seconds", help, end.as_second());
        }
        let dropped = "Trace lines that were dropped because the reader is too slow.";
        text.counter("deltapush_trace_lines_dropped_total", dropped, self.trace_dropped());
        let left_out = "Log lines that were left out because there were too many of their kind.";
        text.counter("deltapush_log_lines_left_out_total", left_out, self.log.left_out());
    }
}

fn clients(text: &mut Exposition, metrics: &Metrics) {
    text.counter(
        "deltapush_connections_total",
        "Client connections that got a connection slot.",
        metrics.connected(),
    );
    let away = "Client connections that were refused: no connection slot was free, or their address may not connect.";
    text.counter("deltapush_connections_turned_away_total", away, metrics.turned_away());
    text.gauge("deltapush_connections_open", "Clients that are connected.", metrics.connections());
    text.gauge("deltapush_sessions", "Clients that are logged in.", metrics.sessions());
    text.counters("deltapush_logins_total", "Logins, by result.", "result", metrics.logins());
    let registered = "Tokens that clients handed over, including known ones.";
    text.counter("deltapush_registrations_total", registered, metrics.registered());
    let relayed = "Relayed bytes, before compression and TLS.";
    let ways = [("to_client", Direction::ToClient), ("to_upstream", Direction::ToUpstream)];
    let bytes = ways.map(|(word, way)| (word, metrics.relayed(way)));
    text.counters("deltapush_relayed_bytes_total", relayed, "direction", bytes);
}

fn pushes(text: &mut Exposition, metrics: &Metrics) {
    text.counters(
        "deltapush_posts_total",
        "POSTs to the notification server, by its answer.",
        "answer",
        metrics.posts(),
    );
    text.histogram(
        "deltapush_post_duration_seconds",
        "Duration of POSTs.",
        &metrics.post_time().get(),
    );
    text.counter(
        "deltapush_pushes_given_up_total",
        "Pushes that were given up.",
        metrics.given_up(),
    );
    let delays = metrics.delays();
    let posted = "Time from the discovery of a message to the first accepted POST for its account.";
    text.histogram("deltapush_noticed_to_posted_seconds", posted, &delays.noticed_to_posted.get());
    let connected = "Time from that POST to the next login of a client of that account.";
    text.histogram(
        "deltapush_posted_to_connected_seconds",
        connected,
        &delays.posted_to_connected.get(),
    );
}
