//! Mail servers at which nobody can log in: one line in the log for each server and cause, one more when it is over.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::connect_error::ConnectError;
use super::failure_cause::FailureCause;
use super::login_machine::LoginError;
use super::route::Target;
use crate::dns::Reach;

/// Time between two log lines about the same server and cause.
const LOG_INTERVAL: Duration = Duration::from_secs(3600);

/// An outage is forgotten after this time without a further failure: nobody uses the server any more.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

/// Servers that are remembered. Strangers may name servers, where a route allows it.
const MAX_SERVERS: usize = 256;

/// Counts failures by server, and logs them.
#[derive(Debug, Default)]
pub struct Outages(Mutex<OutageTable>);

impl Outages {
    /// Records the end of a login attempt at `target`.
    pub(super) fn record<T>(&self, target: &Target, ended: &Result<T, ConnectError>) {
        let (server, now) = (target.to_string(), Instant::now());
        let error = match ended {
            Err(error) if !is_answer(error) => error,
            _ => {
                let over = self.lock().succeeded(&server, now);
                if let Some(over) = over {
                    info!("mail server {server} works again{over}");
                }
                return;
            }
        };
        let Some(cause) = FailureCause::of(error) else { return };
        let lasting = self.lock().failed(&server, cause, now);
        let Some(lasting) = lasting else { return };
        let remedy = cause.remedy();
        // A server that a client's login names is the operator's concern only if the operator knows it.
        match target.reach {
            Reach::Anywhere => {
                warn!(
                    "mail server {server}: {cause}, nobody can log in there{lasting}: {error}; {remedy}"
                )
            }
            Reach::PublicOnly => info!("mail server {server}: {cause}{lasting}: {error}; {remedy}"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, OutageTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports if the server answered the login: one that refuses a password works.
fn is_answer(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Login(LoginError::Refused { .. }))
}

/// Sans-IO: ends of login attempts and time in, log lines out.
#[derive(Debug, Default)]
struct OutageTable(HashMap<String, Outage>);

#[derive(Debug)]
struct Outage {
    since: Instant,
    last: Instant,
    failures: u64,
    /// Causes that were logged, and when.
    logged: Vec<(FailureCause, Instant)>,
}

/// The age of an outage, for the log; empty for one that has just begun.
#[derive(Debug, PartialEq, Eq)]
struct OutageAge {
    age: Duration,
    failures: u64,
}

impl OutageTable {
    /// A login failed at `server`. Returns the outage if it is time for a log line.
    fn failed(&mut self, server: &str, cause: FailureCause, now: Instant) -> Option<OutageAge> {
        self.0.retain(|_, outage| now.saturating_duration_since(outage.last) < FORGOTTEN);
        if self.0.len() >= MAX_SERVERS && !self.0.contains_key(server) {
            let oldest = self.0.iter().min_by_key(|(_, outage)| outage.last);
            let oldest = oldest.map(|(server, _)| server.clone())?;
            self.0.remove(&oldest);
        }
        let outage = self.0.entry(server.to_owned()).or_insert_with(|| Outage {
            since: now,
            last: now,
            failures: 0,
            logged: Vec::new(),
        });
        outage.last = now;
        outage.failures += 1;
        let is_due = match outage.logged.iter().find(|(logged, _)| *logged == cause) {
            Some((_, at)) => now.saturating_duration_since(*at) >= LOG_INTERVAL,
            None => cause.is_certain() || outage.failures > 1,
        };
        if !is_due {
            return None;
        }
        outage.logged.retain(|(logged, _)| *logged != cause);
        outage.logged.push((cause, now));
        Some(outage.age(now))
    }

    /// A login got as far as the server's answer. Returns the outage that is over, if it was logged.
    fn succeeded(&mut self, server: &str, now: Instant) -> Option<OutageAge> {
        let outage = self.0.remove(server)?;
        (!outage.logged.is_empty()).then(|| outage.age(now))
    }
}

impl Outage {
    fn age(&self, now: Instant) -> OutageAge {
        OutageAge { age: now.saturating_duration_since(self.since), failures: self.failures }
    }
}

impl fmt::Display for OutageAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::from_secs(self.age.as_secs());
        match (seconds.is_zero(), self.failures) {
            (true, _) => Ok(()),
            (false, 1) => {
                write!(f, " (after {}, one login failed)", humantime::format_duration(seconds))
            }
            (false, failures) => write!(
                f,
                " (after {}, {failures} logins failed)",
                humantime::format_duration(seconds)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn server_and_cause_are_logged_once_an_hour_and_when_they_are_over() {
        let (mut table, start) = (OutageTable::default(), Instant::now());
        let mut lines = 0;
        for minute in 0..180 {
            let now = start + minute * MINUTE;
            lines += u32::from(table.failed("one:993", FailureCause::Untrusted, now).is_some());
        }
        assert_eq!(lines, 3);
        assert!(table.failed("one:993", FailureCause::Refused, start + 180 * MINUTE).is_some());
        let over = table.succeeded("one:993", start + 181 * MINUTE).unwrap();
        assert_eq!(over.to_string(), " (after 3h 1m, 181 logins failed)");
        assert_eq!(table.succeeded("one:993", start + 182 * MINUTE), None);
    }

    #[test]
    fn refused_password_is_the_answer_of_a_server_that_works() {
        let refused = LoginError::Refused { answer: b"NO no".to_vec(), untagged: vec![] };
        assert!(is_answer(&refused.into()));
        assert!(!is_answer(&LoginError::Bye("busy".into()).into()));
        assert!(!is_answer(&ConnectError::TimedOut(MINUTE)));
    }

    #[test]
    fn single_broken_connection_is_no_outage() {
        let (mut table, now) = (OutageTable::default(), Instant::now());
        assert_eq!(table.failed("one:993", FailureCause::Silent, now), None);
        assert_eq!(table.succeeded("one:993", now), None);
        assert_eq!(table.failed("one:993", FailureCause::Silent, now), None);
        assert!(table.failed("one:993", FailureCause::Broken, now).is_some());
    }

    #[test]
    fn servers_that_strangers_name_fill_no_memory() {
        let (mut table, start) = (OutageTable::default(), Instant::now());
        for number in 0..10_000 {
            table.failed(&format!("{number}:993"), FailureCause::NameUnknown, start + MINUTE);
        }
        assert_eq!(table.0.len(), MAX_SERVERS);
        assert!(table.failed("late:993", FailureCause::Refused, start + 2 * FORGOTTEN).is_some());
        assert_eq!(table.0.len(), 1);
    }
}
