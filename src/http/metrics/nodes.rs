//! Metrics of nodes that share the state, as this node sees them. Nothing without companions.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{gauge, gauges};
use crate::admin::cluster_report::NodeState;
use crate::cluster::{ClusterStatus, ClusterView, LEASE, SeenNode};

/// Most nodes that have series of their own.
const MAX_NODES: usize = 100;

#[derive(Debug)]
pub(super) struct NodeMetrics {
    pub(super) view: ClusterView,
}

impl Collector for NodeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ClusterStatus { nodes, orphans, trouble, lapsed, seen, .. } = self.view.status();
        let has_lease = seen.is_some() && lapsed.is_none();
        let in_state = |state| nodes.iter().filter(|node| NodeState::of(node) == state).count();
        let states = NodeState::ALL.map(|state| (state.as_str(), in_state(state)));
        gauges(&mut encoder, "deltapush_nodes", "Nodes, by state.", "state", states)?;
        gauge(
            &mut encoder,
            "deltapush_lease_held",
            "1 while this node has its lease. Without it, it pushes nothing.",
            usize::from(has_lease),
        )?;
        gauge(
            &mut encoder,
            "deltapush_database_up",
            "1 unless the database did not answer this node's last renewal of its lease.",
            usize::from(seen.is_some() && trouble.is_none()),
        )?;
        gauge(
            &mut encoder,
            "deltapush_slots_without_node",
            "Slots of accounts, of 1024, that no living node owns: nobody watches their accounts.",
            orphans,
        )?;
        let nodes = by_name(&nodes);
        SERIES.iter().try_for_each(|series| series.encode(&mut encoder, &nodes))
    }
}

/// One node for each name: the row of a process that was killed may be there beside that of its successor.
fn by_name(nodes: &[SeenNode]) -> BTreeMap<&str, &SeenNode> {
    let mut found = BTreeMap::<_, &SeenNode>::new();
    for node in nodes.iter().take(MAX_NODES) {
        let known = found.entry(node.status.name.as_str()).or_insert(node);
        if node.status.lease_left > known.status.lease_left {
            *known = node;
        }
    }
    found
}

/// A gauge for each node.
struct Series {
    name: &'static str,
    help: &'static str,
    value: fn(&SeenNode) -> Option<f64>,
}

const SERIES: [Series; 7] = [
    Series {
        name: "deltapush_node_slots",
        help: "Slots of accounts, of 1024, that the node owns.",
        value: |node| Some(count(node.slots)),
    },
    Series {
        name: "deltapush_node_accounts",
        help: "Accounts of the node's slots, as it has told.",
        value: |node| Some(count(node.status.facts.counts?.accounts)),
    },
    Series {
        name: "deltapush_node_accounts_watched",
        help: "Accounts that the node watches now, as it has told.",
        value: |node| Some(count(node.status.facts.counts?.watched)),
    },
    Series {
        name: "deltapush_node_lease_age_seconds",
        help: "Time from the node's last renewal of its lease to the moment at which it was seen. It ends after 9 seconds.",
        value: |node| Some(LEASE.saturating_sub(node.status.lease_left).as_secs_f64()),
    },
    Series {
        name: "deltapush_node_log_lag_seconds",
        help: "Longest time from a change of the event log to the moment at which the node read it, within a minute.",
        value: |node| Some(seconds(node.status.facts.log_lag_us.unwrap_or_default())),
    },
    Series {
        name: "deltapush_node_database_seconds",
        help: "Duration of the node's last renewal of its lease: several statements of the database.",
        value: |node| node.status.facts.latency_us.map(seconds),
    },
    Series {
        name: "deltapush_node_database_worst_seconds",
        help: "Longest duration of such a renewal within a minute.",
        value: |node| node.status.facts.worst_latency_us.map(seconds),
    },
];

impl Series {
    fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        nodes: &BTreeMap<&str, &SeenNode>,
    ) -> fmt::Result {
        let mut family =
            encoder.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?;
        for (name, node) in nodes {
            if let Some(value) = (self.value)(node) {
                let labels = [("node", *name)];
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
fn count(number: usize) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry as MetricRegistry;

    use super::*;
    use crate::cluster::testing::status_of;
    use crate::cluster::{NodeCounts, NodeFacts, NodeId, NodeName, NodeStatus};
    use crate::ownership::{Epoch, Slot};
    use crate::store::lease_rows::{LeaseAnswer, LeaseFacts, SlotFact};

    fn metrics(view: &ClusterView) -> Vec<String> {
        let mut registry = MetricRegistry::default();
        registry.register_collector(Box::new(NodeMetrics { view: view.clone() }));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn nodes_have_a_series_each_and_one_name_has_one() {
        let view = ClusterView::new(NodeName { id: NodeId(1), name: "push-1".into() });
        assert_eq!(
            metrics(&view),
            [
                "deltapush_nodes{state=\"living\"} 0",
                "deltapush_nodes{state=\"leaving\"} 0",
                "deltapush_nodes{state=\"lapsed\"} 0",
                "deltapush_lease_held 0",
                "deltapush_database_up 0",
                "deltapush_slots_without_node 1024",
            ]
        );
        let counts = NodeCounts { accounts: 7, watched: 6, ..NodeCounts::default() };
        let facts = NodeFacts {
            latency_us: Some(3_000),
            worst_latency_us: Some(12_000),
            log_lag_us: None,
            counts: Some(counts),
        };
        let dead = NodeStatus { lease_left: Duration::ZERO, ..status_of(2) };
        let back = NodeStatus { id: NodeId(3), name: dead.name.clone(), ..status_of(3) };
        let nodes = vec![NodeStatus { facts, ..status_of(1) }, dead, back];
        let slot = |slot: Slot| SlotFact {
            slot,
            owner: Some(NodeId(1 + i64::from(slot.number() % 2))),
            epoch: Epoch(1),
            heir: None,
            ready: false,
        };
        let facts = LeaseFacts { nodes: vec![], slots: Slot::all().map(slot).collect() };
        view.show(LeaseAnswer { facts, nodes, ended: vec![] });
        assert_eq!(
            metrics(&view),
            [
                "deltapush_nodes{state=\"living\"} 2",
                "deltapush_nodes{state=\"leaving\"} 0",
                "deltapush_nodes{state=\"lapsed\"} 1",
                "deltapush_lease_held 1",
                "deltapush_database_up 1",
                "deltapush_slots_without_node 512",
                "deltapush_node_slots{node=\"push-1\"} 512.0",
                "deltapush_node_slots{node=\"push-2\"} 0.0",
                "deltapush_node_accounts{node=\"push-1\"} 7.0",
                "deltapush_node_accounts_watched{node=\"push-1\"} 6.0",
                "deltapush_node_lease_age_seconds{node=\"push-1\"} 1.0",
                "deltapush_node_lease_age_seconds{node=\"push-2\"} 1.0",
                "deltapush_node_log_lag_seconds{node=\"push-1\"} 0.0",
                "deltapush_node_log_lag_seconds{node=\"push-2\"} 0.0",
                "deltapush_node_database_seconds{node=\"push-1\"} 0.003",
                "deltapush_node_database_worst_seconds{node=\"push-1\"} 0.012",
            ]
        );
    }
}
