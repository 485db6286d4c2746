//! The load generator: sessions that do one thing again and again for a while.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::candidate::Candidate;
use super::work::{Measurement, Work};
use crate::common::client::Client;

/// Time limit of anything that is done once.
const PATIENCE: Duration = Duration::from_secs(60);

/// Addresses of the loopback network that clients come from, so that ports do not run out.
const ADDRESSES: usize = 16;

/// Figures of one candidate in one round.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// Times that it was done.
    pub(crate) count: usize,
    pub(crate) elapsed: Duration,
    /// The candidate's processor time.
    pub(crate) processor: Duration,
    /// The duration of each, shortest first.
    pub(crate) times: Vec<Duration>,
    /// Of the logins, those that resumed a TLS session with the candidate.
    pub(crate) resumed: usize,
}

impl Sample {
    /// The time within which so much of a hundred was done.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let index = (self.times.len() * percent).div_ceil(100).saturating_sub(1);
        self.times.get(index).copied().unwrap_or_default()
    }
}

/// The address of the next client: any port of the next address.
fn next_source() -> SocketAddr {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % ADDRESSES + 1;
    ([127, 0, 0, u8::try_from(number).unwrap()], 0).into()
}

/// Opens a session through a candidate.
pub(crate) async fn session(
    candidate: SocketAddr,
    tls: &TlsConnector,
    number: usize,
) -> Result<Client> {
    let user = format!("client{number}@lab.test");
    timeout(PATIENCE, Client::connect(next_source(), candidate, tls, &user))
        .await
        .context("no session in time")?
}

/// One session's part of a measurement.
#[derive(Default)]
struct Part {
    times: Vec<Duration>,
    resumed: usize,
    /// The client that is logged out when all is measured.
    client: Option<Client>,
}

/// Drives a candidate for at least so long; what is under way then is finished.
pub(crate) async fn drive(
    candidate: &Candidate,
    measurement: &Measurement,
    tls: &TlsConnector,
    time: Duration,
) -> Result<Sample> {
    let work = measurement.work;
    let mut sessions = Vec::new();
    for number in 0..measurement.sessions {
        let mut client = None;
        if let Some(warm_up) = warm_up(work) {
            let mut session = session(candidate.address, tls, number).await?;
            once(&mut session, warm_up).await?;
            client = Some(session);
        }
        sessions.push(client);
    }
    let before = candidate.group.processor_time()?;
    let began = Instant::now();
    let until = began + time;
    let mut running = JoinSet::new();
    for (number, client) in sessions.into_iter().enumerate() {
        let (address, tls) = (candidate.address, tls.clone());
        running.spawn(async move {
            match client {
                Some(client) => work_until(client, work, until).await,
                None => log_in_until(address, tls, number, until).await,
            }
        });
    }
    let (mut all, mut clients) = (Part::default(), Vec::new());
    let mut elapsed = Duration::ZERO;
    while let Some(part) = running.join_next().await {
        let part = part??;
        elapsed = began.elapsed();
        all.times.extend(part.times);
        all.resumed += part.resumed;
        clients.extend(part.client);
    }
    let processor = candidate.group.processor_time()?.saturating_sub(before);
    for client in clients {
        timeout(PATIENCE, client.log_out()).await.context("no end of a session in time")??;
    }
    all.times.sort_unstable();
    Ok(Sample {
        count: all.times.len(),
        elapsed,
        processor,
        times: all.times,
        resumed: all.resumed,
    })
}

/// The work of a session before it counts: enough for buffers to have grown. Logins are sessions of their own.
fn warm_up(work: Work) -> Option<Work> {
    const ENOUGH: u64 = 1024 * 1024;
    match work {
        Work::Fetch(size) => Some(Work::Fetch(size.min(ENOUGH))),
        Work::Append(size) => Some(Work::Append(size.min(ENOUGH))),
        Work::Login { .. } => None,
        Work::Noop | Work::Headers => Some(work),
    }
}

async fn work_until(mut client: Client, work: Work, until: Instant) -> Result<Part> {
    let mut part = Part::default();
    loop {
        let began = Instant::now();
        once(&mut client, work).await?;
        part.times.push(began.elapsed());
        if Instant::now() >= until {
            part.client = Some(client);
            return Ok(part);
        }
    }
}

async fn log_in_until(
    address: SocketAddr,
    tls: TlsConnector,
    number: usize,
    until: Instant,
) -> Result<Part> {
    let mut part = Part::default();
    loop {
        let began = Instant::now();
        let client = session(address, &tls, number).await?;
        part.resumed += usize::from(client.is_resumed());
        timeout(PATIENCE, client.log_out()).await.context("no end of the session in time")??;
        part.times.push(began.elapsed());
        if Instant::now() >= until {
            return Ok(part);
        }
    }
}

async fn once(client: &mut Client, work: Work) -> Result<()> {
    let done = async {
        match work {
            Work::Fetch(size) => client.fetch(size, false).await,
            Work::Append(size) => client.append(size, false).await,
            Work::Noop => client.command("NOOP").await,
            Work::Headers => client.headers().await,
            Work::Login { .. } => Ok(()),
        }
    };
    timeout(PATIENCE, done).await.context("not done in time")?
}
