//! Metrics for Prometheus. Every series exists from the start; no label contains a name or an address, except
//! for the names of nodes.

mod nodes;
mod process;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry as MetricRegistry;
use tracing::error;

use crate::cluster::ClusterView;
use crate::http::listening::Listening;
use crate::logging::LogLimit;
use crate::push::registry::Registry;
use crate::push::watch_status::WatchState;
use crate::tls::certs::Certificates;
use crate::trace::Tracer;
use nodes::NodeMetrics;
use process::Process;

/// The media type of [`Exposition::text`].
pub(super) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Sources of the metrics that are read at each request.
pub struct MetricSources {
    /// Accounts, with their watches and telemetry.
    pub registry: Registry,
    /// The certificates in use.
    pub certificates: Arc<Certificates>,
    /// The listeners for clients.
    pub listening: Listening,
    /// The limit of the log.
    pub log: LogLimit,
    /// The trace.
    pub tracer: Tracer,
    /// The nodes, where several share the state.
    pub cluster: Option<ClusterView>,
}

/// All metrics, in Prometheus's text format.
#[derive(Debug)]
pub struct Exposition(MetricRegistry);

impl Exposition {
    /// The metrics of a deltapush that starts now.
    #[must_use]
    pub fn new(sources: MetricSources) -> Self {
        let mut registry = MetricRegistry::default();
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("deltapush_build", "Always 1: the version is in the label", version);
        sources.registry.telemetry().metrics().register(&mut registry);
        if let Some(view) = sources.cluster.clone() {
            registry.register_collector(Box::new(NodeMetrics { view }));
        }
        registry.register_collector(Box::new(sources));
        registry.register_collector(Box::new(ProcessMetrics { started: SystemTime::now() }));
        Self(registry)
    }

    /// The text of this moment. Blocks on a few files in /proc, and one more for each open file.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if prometheus_text::encode(&mut text, &self.0).is_err() {
            error!("the metrics cannot be written as text: this is a bug in deltapush");
        }
        text
    }
}

impl fmt::Debug for MetricSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricSources").finish_non_exhaustive()
    }
}

impl Collector for MetricSources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self { registry, certificates, listening, log, tracer, cluster: _ } = self;
        let states = registry.count_watches();
        // With kept sessions, accounts that wait are among the watches.
        let without_session = if registry.keeps_sessions() { states[3] } else { 0 };
        let waiting = registry.waiting() + without_session;
        let watches = WatchState::NAMES.into_iter().zip(states);
        let answers = registry.telemetry().metrics().notification_server_answers();

        gauge(&mut encoder, "deltapush_accounts", "Accounts that have a device.", registry.len())?;
        expose(
            &mut encoder,
            "deltapush_accounts_refused",
            "New accounts that were refused because there were too many.",
            &ConstCounter::new(registry.refused_accounts()),
        )?;
        gauge(
            &mut encoder,
            "deltapush_accounts_waiting",
            "Accounts that are not watched until one of their devices logs in.",
            waiting,
        )?;
        gauges(&mut encoder, "deltapush_watches", "Watches, by state.", "state", watches)?;
        gauge(
            &mut encoder,
            "deltapush_tokens_quarantined",
            "Tokens in quarantine: the notification server rejected them as gone (410). A new message is posted an hour after the first such answer, then once a day.",
            registry.quarantined_tokens(),
        )?;
        gauge(
            &mut encoder,
            "deltapush_notification_server_up",
            "1 unless the notification server did not answer the last requests.",
            usize::from(answers),
        )?;
        gauge(
            &mut encoder,
            "deltapush_state_writable",
            "1 if the last change of the state could be written.",
            usize::from(registry.is_writable()),
        )?;
        gauge(
            &mut encoder,
            "deltapush_listeners",
            "Listeners that accept clients.",
            listening.count(),
        )?;
        let certificate = certificates.get();
        if let Some(start) = certificate.summary().not_before {
            expose(
                &mut encoder,
                "deltapush_certificate_start_timestamp_seconds",
                "Begin of the default certificate's validity, in seconds since 1970.",
                &ConstGauge::new(start.as_second()),
            )?;
        }
        if let Some(end) = certificate.summary().not_after {
            expose(
                &mut encoder,
                "deltapush_certificate_expiry_timestamp_seconds",
                "Expiry of the default certificate, in seconds since 1970.",
                &ConstGauge::new(end.as_second()),
            )?;
        }
        expose(
            &mut encoder,
            "deltapush_trace_lines_dropped",
            "Trace lines that were dropped because the reader is too slow.",
            &ConstCounter::new(tracer.dropped()),
        )?;
        expose(
            &mut encoder,
            "deltapush_log_lines_left_out",
            "Log lines that were left out because there were too many of their kind.",
            &ConstCounter::new(log.left_out()),
        )
    }
}

#[derive(Debug)]
struct ProcessMetrics {
    started: SystemTime,
}

impl Collector for ProcessMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        Process::now().encode(encoder, self.started)
    }
}

/// Writes one metric. The text format adds `_total` to the name of a counter.
fn expose(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &dyn EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: usize) -> fmt::Result {
    expose(encoder, name, help, &ConstGauge::new(value))
}

/// Writes a gauge for each value of a label.
fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    values: impl IntoIterator<Item = (&'static str, usize)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (value, number) in values {
        let labels = [(label, value)];
        ConstGauge::new(number).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
