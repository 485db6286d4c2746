//! Sessions that wait, and for each of them a mailbox that is watched, all in one process: what they cost while nothing happens.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::time::sleep;

use super::candidate::Candidate;
use super::idle::{self, Manner};
use super::limits;
use super::options::Options;
use super::upstream::Upstream;
use crate::common::tls::{Authority, Order};

/// Time limit of deltapush until it watches all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time for it to come to rest then.
const REST: Duration = Duration::from_secs(2);

/// Figures of the measurement.
#[derive(Debug)]
pub(crate) struct Together {
    /// Sessions that wait; as many accounts are watched.
    pub(crate) sessions: usize,
    /// Percent of a core for all.
    pub(crate) percent: f64,
}

/// As many as the largest crowd has, or as there may be in one process.
pub(crate) async fn measure(
    options: &Options,
    authority: &Authority,
    upstream: &Upstream,
) -> Result<Together> {
    let entrants = options.entrants();
    let candidate =
        Candidate::start(entrants.first().context("nobody is measured")?, authority, upstream)?;
    let sessions = limits::watched_sessions(options.crowds().last().copied().unwrap_or_default());
    let tls = authority.connector(false, Order::Usual)?;
    let mut clients = Vec::new();
    idle::grow(&candidate, &tls, sessions, Manner::WithToken, &mut clients).await?;
    let began = Instant::now();
    // Two for each that waits, one for each that is watched; some more listen.
    while candidate.group.sockets()? < sessions * 3 {
        ensure!(began.elapsed() < PATIENCE, "only {} sockets are open", candidate.group.sockets()?);
        sleep(Duration::from_millis(50)).await;
    }
    sleep(REST).await;
    let before = candidate.group.processor_time()?;
    sleep(options.quiet_time()).await;
    let spent = candidate.group.processor_time()?.saturating_sub(before);
    let percent = spent.as_secs_f64() / options.quiet_time().as_secs_f64() * 100.0;
    println!("  {sessions} idle sessions and as many watched accounts: {percent:.3} % of a core");
    Ok(Together { sessions, percent })
}
