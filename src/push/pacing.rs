//! Per-server pacing of watch sessions: limits on concurrent logins, login rate and total sessions. Ten thousand
//! sessions that were cut off together reconnect one after the other.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::{Instant, sleep_until};

use super::places::{Place, Places};
use crate::config::{PacingLimits, ServerSettings, StartupConfig, known_servers};

/// The limits for one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Treatment {
    /// Watching sessions there.
    pub sessions: usize,
    /// Sessions in the making at once.
    pub at_once: usize,
    /// The time from one new session to the next.
    pub interval: Duration,
    /// Duration of one IDLE.
    pub idle_renewal: Duration,
}

/// All gates, one per server that is watched.
pub struct WatchPacing {
    gates: DashMap<Arc<str>, Arc<Gate>>,
    usual: Treatment,
    servers: Vec<ServerSettings>,
    /// Nodes that share the limits.
    nodes: AtomicU32,
}

/// The gate of one server.
pub struct Gate {
    treatment: Treatment,
    sessions: Arc<Places>,
    at_once: Arc<Places>,
    /// Nodes that share the limits.
    nodes: AtomicU32,
    /// When the next session may begin.
    next: Mutex<Instant>,
}

/// The right to have a session, until it is dropped.
pub struct WatchPermit {
    _session: Place,
    making: Option<Place>,
}

impl WatchPacing {
    /// WatchPacing as `config` wants them.
    #[must_use]
    pub fn new(config: &StartupConfig) -> Self {
        let PacingLimits { sessions, at_once, new_sessions } = config.pace;
        let usual = Treatment {
            sessions,
            at_once,
            interval: new_sessions.interval(),
            idle_renewal: config.idle_renewal,
        };
        let servers = config.servers.iter().cloned().chain(known_servers()).collect();
        Self { gates: DashMap::new(), usual, servers, nodes: AtomicU32::new(1) }
    }

    /// The gate of the server `host` (in lower case).
    #[must_use]
    pub fn of(&self, host: &Arc<str>) -> Arc<Gate> {
        if let Some(gate) = self.gates.get(host) {
            return Arc::clone(&gate);
        }
        // Servers that nobody watches any more are forgotten when a new one comes.
        self.gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        let new = || {
            let gate = Gate::new(self.treatment(host));
            gate.share(self.nodes.load(Ordering::SeqCst));
            Arc::new(gate)
        };
        Arc::clone(&self.gates.entry(Arc::clone(host)).or_insert_with(new))
    }

    /// So many nodes share the limits from now on: each has its part of them, and one session at least.
    pub(super) fn share(&self, nodes: usize) {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX).max(1);
        self.nodes.store(nodes, Ordering::SeqCst);
        self.gates.iter().for_each(|gate| gate.share(nodes));
    }

    fn treatment(&self, host: &str) -> Treatment {
        let Some(server) = self.servers.iter().find(|server| server.is_about(host)) else {
            return self.usual;
        };
        Treatment {
            sessions: server.sessions.unwrap_or(self.usual.sessions).max(1),
            at_once: server.at_once.unwrap_or(self.usual.at_once).max(1),
            interval: server
                .new_sessions
                .map_or(self.usual.interval, crate::config::Rate::interval),
            idle_renewal: server.idle_renewal.unwrap_or(self.usual.idle_renewal),
        }
    }
}

impl Gate {
    fn new(treatment: Treatment) -> Self {
        Self {
            treatment,
            sessions: Places::new(treatment.sessions),
            at_once: Places::new(treatment.at_once),
            nodes: AtomicU32::new(1),
            next: Mutex::new(Instant::now()),
        }
    }

    fn share(&self, nodes: u32) {
        self.nodes.store(nodes, Ordering::SeqCst);
        // As many accounts as there may be sessions are watched, rather than some of them nowhere.
        self.sessions.share(nodes, true);
        self.at_once.share(nodes, false);
    }

    /// The limits for this server.
    #[must_use]
    pub fn treatment(&self) -> &Treatment {
        &self.treatment
    }

    /// Waits for a place, first come, first served.
    pub async fn enter(&self) -> WatchPermit {
        let session = self.sessions.enter().await;
        let making = self.at_once.enter().await;
        let turn = self.next_turn();
        sleep_until(turn).await;
        WatchPermit { _session: session, making: Some(making) }
    }

    fn next_turn(&self) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(Instant::now());
        let interval = self.treatment.interval.saturating_mul(self.nodes.load(Ordering::SeqCst));
        *next = turn.checked_add(interval).unwrap_or(turn);
        turn
    }
}

impl WatchPermit {
    /// The session is made, or will not be: the next one may be begun.
    pub fn made(&mut self) {
        self.making = None;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn gates(yaml: &str) -> WatchPacing {
        WatchPacing::new(&Config::parse(yaml, Path::new(""), "test").unwrap().startup)
    }

    #[test]
    fn configured_value_precedes_the_known_one() {
        let gates =
            gates("servers:\n  - host: imap.gmail.com\n    at_once: 7\n    idle_renewal: 5m\n");
        let gmail = *gates.of(&"imap.gmail.com".into()).treatment();
        assert_eq!(
            (gmail.at_once, gmail.idle_renewal, gmail.interval),
            (7, Duration::from_secs(300), Duration::from_millis(20))
        );
        assert_eq!(gates.of(&"imap.gmx.net".into()).treatment().interval, Duration::from_secs(1));
        assert_eq!(*gates.of(&"imap.example.org".into()).treatment(), gates.usual);
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_come_one_after_the_other_within_the_limits() {
        let gates = gates("pace:\n  sessions: 4\n  at_once: 2\n  new_sessions: 1/s\n");
        let gate = gates.of(&"imap.example.org".into());
        let began = Instant::now();
        let mut first = gate.enter().await;
        let second = gate.enter().await;
        assert_eq!(began.elapsed().as_secs(), 1);
        assert!(
            tokio::time::timeout(Duration::from_secs(9), gate.enter()).await.is_err(),
            "two are in the making"
        );
        first.made();
        let mut third = gate.enter().await;
        third.made();
        let _fourth = gate.enter().await;
        assert!(
            tokio::time::timeout(Duration::from_secs(9), gate.enter()).await.is_err(),
            "four are there"
        );
        drop(second);
        gate.enter().await;
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_share_the_limits() {
        let gates = gates("pace:\n  sessions: 4\n  at_once: 4\n  new_sessions: 1/s\n");
        let gate = gates.of(&"imap.example.org".into());
        gates.share(2);
        let began = Instant::now();
        let places = [gate.enter().await, gate.enter().await];
        assert_eq!(began.elapsed().as_secs(), 2);
        let late = gates.of(&"imap.example.net".into());
        for gate in [&gate, &late] {
            let others = [late.enter().await, late.enter().await];
            let full = tokio::time::timeout(Duration::from_secs(9), gate.enter()).await;
            assert!(full.is_err(), "two are there");
            drop(others);
        }
        gates.share(1);
        let (third, _fourth) = (gate.enter().await, gate.enter().await);
        gates.share(4);
        drop((places, third));
        let full = tokio::time::timeout(Duration::from_secs(9), gate.enter()).await;
        assert!(full.is_err(), "one is there, which is its share");
    }

    #[test]
    fn servers_that_nobody_watches_are_forgotten() {
        let gates = gates("{}");
        let kept = gates.of(&"a.example.org".into());
        (0..100)
            .for_each(|number| drop(gates.of(&format!("{number}.example.org").as_str().into())));
        assert!(gates.gates.len() <= 2 && Arc::ptr_eq(&kept, &gates.of(&"a.example.org".into())));
    }
}
