//! Health checks: listeners, state, notification server.

use std::fmt;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::admin::format::{counted, rounded};
use crate::admin::status::Reporter;
use crate::cluster::{ClusterStatus, DatabaseTrouble};
use crate::http::listening::Listening;
use crate::ownership::SLOTS;
use crate::push::registry::Registry;

/// Validity of a successful write check, so that frequent requests cause no disk writes.
const BELIEVED: Duration = Duration::from_secs(60);

/// Validity of a failed write check.
const DOUBTED: Duration = Duration::from_secs(5);

/// The last write check of the state.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Time and result of the last write check.
    tried: Mutex<Option<(Instant, bool)>>,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grade {
    Well,
    /// Something is wrong, and clients are served all the same. Only nodes that share a state have this: what they have in common
    /// fails for all of them at once, and a load balancer that left them all out would end the sessions that still work.
    Impaired,
    Failed,
}

/// A health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) grade: Grade,
    what: &'static str,
    words: String,
}

impl Check {
    fn new(what: &'static str, grade: Grade, words: impl Into<String>) -> Self {
        Self { grade, what, words: words.into() }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.grade {
            Grade::Well => "ok  ",
            Grade::Impaired => "warn",
            Grade::Failed => "FAIL",
        };
        write!(f, "{mark} {}: {}", self.what, self.words)
    }
}

impl Health {
    /// All checks: listeners, state, notification server; with several nodes their lease and database in place of the state.
    pub(super) async fn checks(
        &self,
        listening: &Listening,
        reporter: &Reporter,
        is_shutting_down: bool,
    ) -> Vec<Check> {
        let registry = reporter.registry();
        let mut checks = vec![listeners(listening, is_shutting_down)];
        match reporter.cluster() {
            Some(cluster) => checks.extend(node(&cluster.status(), registry)),
            None => checks.push(state(self.is_writable(registry).await, registry)),
        }
        checks.push(notification_server(registry));
        checks
    }

    async fn is_writable(&self, registry: &Registry) -> bool {
        let mut tried = self.tried.lock().await;
        let believed =
            |(at, well): &(Instant, bool)| at.elapsed() < if *well { BELIEVED } else { DOUBTED };
        match tried.filter(believed) {
            Some((_, well)) => well && registry.is_writable(),
            None => {
                let well = registry.try_writing().await;
                *tried = Some((Instant::now(), well));
                well
            }
        }
    }
}

fn listeners(listening: &Listening, is_shutting_down: bool) -> Check {
    let (at_work, wanted) = (listening.count(), listening.wanted());
    let words = match is_shutting_down {
        true => "deltapush shuts down".into(),
        false => format!("{at_work} of {wanted} accept clients"),
    };
    let is_well = at_work == wanted && !is_shutting_down;
    Check::new("listeners", if is_well { Grade::Well } else { Grade::Failed }, words)
}

fn state(is_writable: bool, registry: &Registry) -> Check {
    match is_writable {
        true => Check::new("state", Grade::Well, "can be written"),
        false => {
            let trouble = registry.usual_trouble();
            let words = format!("cannot be written: {trouble} Tokens are refused meanwhile");
            Check::new("state", Grade::Failed, words)
        }
    }
}

/// The database and the lease of one node of several. The database is not asked: the last renewal of the lease tells.
fn node(status: &ClusterStatus, registry: &Registry) -> [Check; 2] {
    let database = match &status.trouble {
        Some(DatabaseTrouble { since, reason }) => {
            let words = format!(
                "has not answered for {} ({reason}): logins and sessions go on, tokens are refused",
                rounded(since.elapsed().unwrap_or_default())
            );
            Check::new("database", Grade::Impaired, words)
        }
        None if !registry.is_writable() => Check::new(
            "database",
            Grade::Impaired,
            "the last change could not be written: tokens are refused",
        ),
        None => Check::new("database", Grade::Well, "answers"),
    };
    let lease = match (status.lapsed, status.seen) {
        (Some(since), _) => {
            let words = format!(
                "lapsed {} ago: this node pushes nothing; nodes that reach the database take over",
                rounded(since.elapsed().unwrap_or_default())
            );
            Check::new("lease", Grade::Impaired, words)
        }
        (None, None) => {
            Check::new("lease", Grade::Impaired, "this node has not joined the others yet")
        }
        (None, Some(_)) => {
            let (owned, nodes) = (registry.ownership().owned().len(), status.nodes.len());
            let words = format!(
                "is held: {owned} of {SLOTS} slots of accounts, {}",
                counted(nodes as u64, "node")
            );
            Check::new("lease", Grade::Well, words)
        }
    };
    [database, lease]
}

fn notification_server(registry: &Registry) -> Check {
    let what = "notification server";
    if registry.telemetry().metrics().notification_server_answers() {
        return Check::new(what, Grade::Well, "answered the last request, or has had none yet");
    }
    let grade = if registry.ownership().is_sole() { Grade::Failed } else { Grade::Impaired };
    let words = "did not answer the last requests: pushes wait, and are sent when it is back";
    Check::new(what, grade, words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{ClusterView, NodeId, NodeName};
    use crate::ownership::Ownership;
    use crate::store::StoreSettings;

    #[tokio::test]
    async fn failures_of_all_nodes_at_once_take_none_out() {
        let directory = tempfile::tempdir().unwrap();
        let settings = StoreSettings::sealed(directory.path().join("state"));
        let (registry, ..) = Registry::open_owning(&settings, Ownership::of_node()).unwrap();
        let view = ClusterView::new(NodeName { id: NodeId(1), name: "push-1".into() });
        let text = |status: &ClusterStatus| node(status, &registry).map(|check| check.to_string());
        assert_eq!(
            text(&view.status()),
            ["ok   database: answers", "warn lease: this node has not joined the others yet"]
        );
        let ago = |seconds| Some(std::time::SystemTime::now() - Duration::from_secs(seconds));
        let well = ClusterStatus { seen: ago(0), ..view.status() };
        assert_eq!(text(&well)[1], "ok   lease: is held: 0 of 1024 slots of accounts, 0 nodes");
        let (since, reason) = (ago(65).unwrap(), "connection refused".to_owned());
        let away = ClusterStatus {
            trouble: Some(DatabaseTrouble { since, reason }),
            lapsed: ago(60),
            ..well
        };
        let expected = [
            "warn database: has not answered for 1m 5s (connection refused): logins and sessions go on, tokens are refused",
            "warn lease: lapsed 1m ago: this node pushes nothing; nodes that reach the database take over",
        ];
        assert_eq!(text(&away), expected);
        assert!(node(&away, &registry).iter().all(|check| check.grade == Grade::Impaired));
    }
}
