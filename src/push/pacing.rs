//! Per-server pacing of watch sessions: limits on concurrent logins, login rate and total sessions. Ten thousand
//! sessions that were cut off together reconnect one after the other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

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
}

/// The gate of one server.
pub struct Gate {
    treatment: Treatment,
    sessions: Arc<Semaphore>,
    at_once: Arc<Semaphore>,
    /// When the next session may begin.
    next: Mutex<Instant>,
}

/// The right to have a session, until it is dropped.
pub struct WatchPermit {
    _session: OwnedSemaphorePermit,
    making: Option<OwnedSemaphorePermit>,
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
        Self { gates: DashMap::new(), usual, servers }
    }

    /// The gate of the server `host` (in lower case).
    #[must_use]
    pub fn of(&self, host: &Arc<str>) -> Arc<Gate> {
        if let Some(gate) = self.gates.get(host) {
            return Arc::clone(&gate);
        }
        // Servers that nobody watches any more are forgotten when a new one comes.
        self.gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        Arc::clone(
            &self
                .gates
                .entry(Arc::clone(host))
                .or_insert_with(|| Arc::new(Gate::new(self.treatment(host)))),
        )
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
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self {
            treatment,
            sessions: permits(treatment.sessions),
            at_once: permits(treatment.at_once),
            next: Mutex::new(Instant::now()),
        }
    }

    /// The limits for this server.
    #[must_use]
    pub fn treatment(&self) -> &Treatment {
        &self.treatment
    }

    /// Waits for a place, first come, first served.
    pub async fn enter(&self) -> WatchPermit {
        let session = acquire(&self.sessions).await;
        let making = acquire(&self.at_once).await;
        let turn = self.next_turn();
        sleep_until(turn).await;
        WatchPermit { _session: session, making: Some(making) }
    }

    fn next_turn(&self) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(Instant::now());
        *next = turn.checked_add(self.treatment.interval).unwrap_or(turn);
        turn
    }
}

impl WatchPermit {
    /// The session is made, or will not be: the next one may be begun.
    pub fn made(&mut self) {
        self.making = None;
    }
}

async fn acquire(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    loop {
        // It is never closed, so that there is an end to this.
        if let Ok(permit) = Arc::clone(semaphore).acquire_owned().await {
            return permit;
        }
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

    #[test]
    fn servers_that_nobody_watches_are_forgotten() {
        let gates = gates("{}");
        let kept = gates.of(&"a.example.org".into());
        (0..100)
            .for_each(|number| drop(gates.of(&format!("{number}.example.org").as_str().into())));
        assert!(gates.gates.len() <= 2 && Arc::ptr_eq(&kept, &gates.of(&"a.example.org".into())));
    }
}
