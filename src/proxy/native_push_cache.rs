//! Cache of the mail servers that send push notifications themselves.

use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;
use tracing::info;

use crate::upstream::route::Target;

/// The upstreams that push by themselves, as far as they were asked: a question less at each login.
#[derive(Debug, Default)]
pub(super) struct Probes {
    known: DashMap<String, (bool, Instant)>,
}

/// Lifetime of an answer.
const PROBE_LIFE: Duration = Duration::from_secs(3600);

/// Most upstreams that are remembered.
const MAX_PROBES: usize = 1000;

impl Probes {
    fn get(&self, target: &Target) -> Option<bool> {
        let known = self.known.get(&target.name())?;
        (known.1.elapsed() < PROBE_LIFE).then_some(known.0)
    }

    pub(super) fn is_known(&self, target: &Target) -> bool {
        self.get(target).is_some()
    }

    pub(super) fn pushes(&self, target: &Target) -> bool {
        self.get(target).unwrap_or(false)
    }

    pub(super) fn remember(&self, target: &Target, pushes: bool) {
        if self.known.len() >= MAX_PROBES {
            self.known.clear();
        }
        let before = self.known.insert(target.name(), (pushes, Instant::now()));
        if pushes && before.is_none_or(|(before, _)| !before) {
            info!(
                upstream = %target,
                "this mail server sends push notifications itself: deltapush passes device tokens on to it \
                 (push.native: passthrough)"
            );
        }
    }
}
