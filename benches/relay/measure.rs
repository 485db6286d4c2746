//! A large message there and back, a crowd of idle sessions, and the table.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use super::MIB;
use super::common::client::Client;
use super::common::process::Process;
use super::common::server::LoadServer;
use super::common::tls::{Authority, Order};
use super::idle::Costs;
use super::proxy::{Kind, Proxy};

const KIB: u64 = 1024;

/// Growth of deltapush's memory that is allowed while a message of any size passes.
const MAX_GROWTH: u64 = MIB;

/// Bytes that go through before anything is measured, so that what is allocated once is there.
const WARM_UP: u64 = 4 * MIB;

/// Rounds of which the fastest and the one with the largest growth count: other programs run, too.
const ROUNDS: usize = 5;

/// Time limit of one message.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The direction of a message.
#[derive(Debug, Clone, Copy)]
enum Way {
    Fetch,
    Append,
}

/// Figures of one direction.
struct Figures {
    fastest: Duration,
    growth: u64,
}

/// Measures and prints; whether memory stayed within its bound.
#[tokio::main]
pub(crate) async fn all(size: u64, sessions: usize) -> Result<bool> {
    let folder = tempfile::Builder::new().prefix("deltapush-bench-").tempdir()?;
    let authority = Authority::make(folder.path())?;
    let server = LoadServer::start(0, Some(authority.acceptor(true, Order::Usual)?))?;
    let upstream = SocketAddr::from(([127, 0, 0, 1], server.port));

    println!("a message of {} MiB, TLS on both sides, best of {ROUNDS}", size / MIB);
    println!("          deltapush    bare copy    ratio    growth of deltapush's memory");
    let mut growth = 0;
    let mut deltapush =
        Candidate::start(Kind::Deltapush, folder.path(), &authority, upstream).await?;
    let mut bare = Candidate::start(Kind::BareCopy, folder.path(), &authority, upstream).await?;
    for way in [Way::Fetch, Way::Append] {
        let (mut ours, mut theirs) = (Figures::none(), Figures::none());
        // In turns, so that what else this machine does meets both.
        for _ in 0..ROUNDS {
            deltapush.round(way, size, &mut ours).await?;
            bare.round(way, size, &mut theirs).await?;
        }
        deltapush.slow_round(way, size, &mut ours).await?;
        growth = growth.max(ours.growth);
        println!("{}", row(way, size, &ours, &theirs));
    }
    // A process of its own: in the other one sessions may use what the large messages have left.
    drop((deltapush, bare));
    let proxy = Proxy::start(Kind::Deltapush, folder.path(), &authority, upstream)?;
    let costs = Costs::measure(&proxy, &authority, sessions).await?;
    #[expect(clippy::cast_precision_loss, reason = "a size has fewer digits than an f64")]
    let kib = |bytes: u64| bytes as f64 / 1024.0;
    println!(
        "an idle session, of {sessions}: {:.1} KiB, compressed {:.1} KiB",
        kib(costs.plain),
        kib(costs.compressed)
    );
    if !costs.are_close() {
        println!("a compressed session takes more than a quarter more");
    }
    if growth >= MAX_GROWTH {
        println!(
            "deltapush's memory grew by {} KiB or more: it holds what it should only pass on",
            MAX_GROWTH / KIB
        );
    }
    Ok(growth < MAX_GROWTH && costs.are_close())
}

fn row(way: Way, size: u64, ours: &Figures, theirs: &Figures) -> String {
    let name = match way {
        Way::Fetch => "FETCH",
        Way::Append => "APPEND",
    };
    #[expect(clippy::cast_precision_loss, reason = "a size has fewer digits than an f64")]
    let rate = |figures: &Figures| size as f64 / 1e6 / figures.fastest.as_secs_f64();
    let (our_rate, their_rate) = (rate(ours), rate(theirs));
    let (ratio, growth) = (our_rate / their_rate, ours.growth / KIB);
    format!(
        "{name:<8}{our_rate:>6.0} MB/s  {their_rate:>6.0} MB/s    {ratio:>5.2}    {growth:>5} KiB"
    )
}

impl Figures {
    fn none() -> Self {
        Self { fastest: Duration::MAX, growth: 0 }
    }
}

/// A program between client and upstream, with one session through it.
struct Candidate {
    client: Client,
    memory: Process,
    _proxy: Proxy,
}

impl Candidate {
    async fn start(
        kind: Kind,
        folder: &Path,
        authority: &Authority,
        upstream: SocketAddr,
    ) -> Result<Self> {
        let proxy = Proxy::start(kind, folder, authority, upstream)?;
        let client = proxy.client(authority).await?;
        let mut candidate = Self { client, memory: Process::of(proxy.pid()), _proxy: proxy };
        for way in [Way::Fetch, Way::Append] {
            candidate.transfer(way, WARM_UP, false).await?;
        }
        Ok(candidate)
    }

    async fn round(&mut self, way: Way, size: u64, figures: &mut Figures) -> Result<()> {
        let before = self.memory.reset_peak()?;
        let took = self.transfer(way, size, false).await?;
        figures.fastest = figures.fastest.min(took);
        figures.growth = figures.growth.max(self.memory.peak()?.saturating_sub(before));
        Ok(())
    }

    /// With a reader who is in no hurry: a relay that holds what that one does not take will show it. No matter of speed.
    async fn slow_round(&mut self, way: Way, size: u64, figures: &mut Figures) -> Result<()> {
        let before = self.memory.reset_peak()?;
        self.transfer(way, size, true).await?;
        figures.growth = figures.growth.max(self.memory.peak()?.saturating_sub(before));
        Ok(())
    }

    async fn transfer(&mut self, way: Way, size: u64, slow: bool) -> Result<Duration> {
        let start = Instant::now();
        let transfer = async {
            match way {
                Way::Fetch => self.client.fetch(size, slow).await,
                Way::Append => self.client.append(size, slow).await,
            }
        };
        let done = tokio::time::timeout(PATIENCE, transfer).await;
        done.map_err(|_| anyhow!("not done within {} s", PATIENCE.as_secs()))?
            .with_context(|| format!("{way:?}"))?;
        Ok(start.elapsed())
    }
}
