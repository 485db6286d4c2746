//! Watching mailboxes, which only deltapush does: memory, cost while nothing happens, start, from mail to POST.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::figures::{Series, kib, number};
use super::limits;
use super::options::{Extent, Options};
use crate::common::process::Process;
use crate::common::server::LoadServer;
use crate::common::tls::{self, Authority, Order};
use crate::notifications::Notifications;
use crate::program::{Program, Upstream};

/// New sessions that may begin in a second, and be in the making at once: more than this machine can do, so that the
/// handshakes are what takes time.
const A_SECOND: u32 = 5000;
const AT_ONCE: usize = 64;

/// Time limit for all.
const PATIENCE: Duration = Duration::from_secs(300);

/// Time for deltapush to put away what it needed for the start.
const REST: Duration = Duration::from_secs(1);

/// Between two messages, in milliseconds: fewer come in a second than deltapush may post (`push.max_per_second`).
const PAUSE: std::ops::Range<u64> = 25..50;

/// Figures of the measurement.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) accounts: usize,
    /// KiB for each account.
    pub(crate) kib_each: f64,
    /// Percent of a core for all.
    pub(crate) percent: f64,
    /// From the program's start until all are watched, and how long as many bare TLS handshakes take, in seconds.
    pub(crate) start: f64,
    pub(crate) handshakes: f64,
    /// From the moment when a message is there to the POST, in milliseconds, least first.
    pub(crate) posts: Vec<f64>,
}

impl Watched {
    /// The time within which so much of a hundred was posted, in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let index = (self.posts.len() * percent).div_ceil(100).saturating_sub(1);
        self.posts.get(index).copied().unwrap_or(f64::NAN)
    }
}

/// Measures all with as many accounts as the largest crowd has.
pub(crate) async fn measure(options: &Options, authority: &Authority) -> Result<Watched> {
    let wanted = options.crowds().last().copied().unwrap_or_default();
    // Here both ends of a bare handshake are in one process.
    let accounts = limits::sessions(wanted);
    let rounds = if options.extent() == Extent::Full { 3 } else { 1 };
    let server = LoadServer::start(accounts, Some(authority.acceptor(true, Order::Usual)?))?;
    let mut handshakes = Series::default();
    for _ in 0..rounds {
        handshakes.0.push(
            handshake(server.port, accounts, &authority.connector(true, Order::Ours)?)
                .await?
                .as_secs_f64(),
        );
    }
    let mut notifications = Notifications::start().await?;
    let folder = tempfile::Builder::new().prefix("deltapush-peers-").tempdir()?;
    let upstream = Upstream { port: server.port, ca: Some(authority.ca.clone()), hook: None };
    let pace = format!("pace:\n  at_once: {AT_ONCE}\n  new_sessions: {A_SECOND}/s\n");
    let mut program =
        Program::prepare(folder.path(), &upstream, &notifications.url, accounts, &pace).await?;
    let bench = Bench { server, accounts };

    let mut starts = Series::default();
    for round in 0..rounds {
        starts.0.push(bench.start(&mut program).await?.as_secs_f64());
        if round + 1 < rounds {
            program.kill()?;
            bench.wait_until(|watched| watched == 0).await?;
        }
    }
    sleep(REST).await;
    let process = Process::of(program.pid()?);
    let before = process.processor_time()?;
    sleep(options.quiet_time()).await;
    let spent = process.processor_time()?.saturating_sub(before);
    let memory = process.pss()?;
    let posts = bench.deliver(options.deliveries(), &mut notifications).await?;
    drop(program);
    let few = folder.path().join("few");
    std::fs::create_dir(&few)?;
    let few = bench
        .memory_for_one(Program::prepare(&few, &upstream, &notifications.url, 1, &pace).await?)
        .await?;
    Ok(Watched {
        accounts,
        kib_each: kib(memory.saturating_sub(few)) / number(accounts),
        percent: spent.as_secs_f64() / options.quiet_time().as_secs_f64() * 100.0,
        start: starts.median(),
        handshakes: handshakes.median(),
        posts,
    })
}

struct Bench {
    server: LoadServer,
    accounts: usize,
}

impl Bench {
    async fn start(&self, program: &mut Program) -> Result<Duration> {
        let began = Instant::now();
        program.start()?;
        self.wait_until(|watched| watched == self.accounts).await?;
        Ok(began.elapsed())
    }

    /// The memory of the program that watches next to nothing.
    async fn memory_for_one(&self, mut program: Program) -> Result<u64> {
        self.wait_until(|watched| watched == 0).await?;
        program.start()?;
        self.wait_until(|watched| watched == 1).await?;
        sleep(REST).await;
        Process::of(program.pid()?).pss()
    }

    async fn wait_until(&self, condition: impl Fn(usize) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self.server.watched()) {
            let watched = self.server.watched();
            ensure!(
                Instant::now() < deadline,
                "{watched} of {} accounts are watched in the end",
                self.accounts
            );
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// One message after the other, each to another account: how long until its POST, in milliseconds.
    async fn deliver(
        &self,
        messages: usize,
        notifications: &mut Notifications,
    ) -> Result<Vec<f64>> {
        let mut times = Vec::with_capacity(messages);
        for number in 0..messages {
            sleep(Duration::from_millis(fastrand::u64(PAUSE))).await;
            let account = number * self.accounts / messages.max(1);
            let began = Instant::now();
            self.server.deliver(account);
            let posted = notifications.next(Duration::from_secs(20)).await?;
            times.push(posted.saturating_duration_since(began).as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    }
}

/// The bare minimum of a start: as many TLS connections, at the same pace.
async fn handshake(port: u16, count: usize, tls: &TlsConnector) -> Result<Duration> {
    let began = Instant::now();
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut pace = interval(Duration::from_secs(1) / A_SECOND);
    let mut shaking: JoinSet<Result<TlsStream<TcpStream>>> = JoinSet::new();
    for _ in 0..count {
        let slot = Arc::clone(&slots).acquire_owned().await?;
        pace.tick().await;
        let tls = tls.clone();
        shaking.spawn(async move {
            let _slot = slot;
            let tcp = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
            tcp.set_nodelay(true)?;
            Ok(tls.connect(tls::server_name()?, tcp).await?)
        });
    }
    let mut connections = Vec::with_capacity(count);
    while let Some(connection) = shaking.join_next().await {
        connections.push(connection??);
    }
    Ok(began.elapsed())
}
