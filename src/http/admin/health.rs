//! Health checks: listeners, state, notification server.

use std::fmt;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::http::listening::Listening;
use crate::ownership::SLOTS;
use crate::push::registry::Registry;

/// Validity of a successful write check, so that frequent requests cause no disk writes.
const BELIEVED: Duration = Duration::from_secs(60);

/// Validity of a failed write check.
const DOUBTED: Duration = Duration::from_secs(5);

fn state_words(registry: &Registry, is_writable: bool) -> String {
    let ownership = registry.ownership();
    match (is_writable, ownership.is_sole()) {
        (true, true) => "can be written".into(),
        (true, false) => {
            let (owned, nodes) = (ownership.owned().len(), ownership.nodes());
            format!(
                "can be written; this node owns {owned} of {SLOTS} slots of accounts, of {nodes} nodes"
            )
        }
        (false, _) => {
            format!("cannot be written: {} Tokens are refused meanwhile", registry.usual_trouble())
        }
    }
}

/// The last write check of the state.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Time and result of the last write check.
    tried: Mutex<Option<(Instant, bool)>>,
}

/// A health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) is_well: bool,
    what: &'static str,
    words: String,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_well { "ok  " } else { "FAIL" };
        write!(f, "{mark} {}: {}", self.what, self.words)
    }
}

impl Health {
    /// All checks: listeners, state, notification server.
    pub(super) async fn checks(
        &self,
        listening: &Listening,
        registry: &Registry,
        is_shutting_down: bool,
    ) -> [Check; 3] {
        let (at_work, wanted) = (listening.count(), listening.wanted());
        let is_writable = self.is_writable(registry).await;
        let answers = registry.telemetry().metrics().notification_server_answers();
        [
            Check {
                is_well: at_work == wanted && !is_shutting_down,
                what: "listeners",
                words: match is_shutting_down {
                    true => "deltapush shuts down".into(),
                    false => format!("{at_work} of {wanted} accept clients"),
                },
            },
            Check {
                is_well: is_writable,
                what: "state",
                words: state_words(registry, is_writable),
            },
            Check {
                is_well: answers,
                what: "notification server",
                words: match answers {
                    true => "answered the last request, or has had none yet",
                    false => "did not answer the last requests: pushes wait, and are sent when it is back",
                }
                .into(),
            },
        ]
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
