//! What it costs when a large message passes: throughput, and growth of memory.
//!
//! A message goes from upstream to client (FETCH) and back (APPEND), TLS on both sides, through the real program. The same
//! is done with the least that could stand in its place, a program that copies bytes from one TLS connection to another.
//!
//! Then, what an idle session takes, with compression and without (docs/compression.md).
//!
//! `cargo bench --bench relay` takes the largest message that a big provider accepts, and a thousand sessions of each kind;
//! `-- --short` less of both, as does `cargo test --bench relay`. The exit code is 1 if deltapush's memory grows too much.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(clippy::arithmetic_side_effects, reason = "of figures that this program makes itself")]

#[path = "relay/bare.rs"]
mod bare;
#[path = "relay/client.rs"]
mod client;
#[path = "relay/idle.rs"]
mod idle;
#[path = "relay/memory.rs"]
mod memory;
#[path = "relay/message.rs"]
mod message;
#[path = "relay/proxy.rs"]
mod proxy;
#[path = "relay/tls.rs"]
mod tls;
#[path = "relay/upstream.rs"]
mod upstream;

use std::env;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use client::Client;
use idle::Costs;
use memory::Memory;
use proxy::{Kind, Proxy};
use tls::Authority;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// How much the memory of deltapush may grow while a message of any size passes.
const MAX_GROWTH: u64 = MIB;

/// The largest message that a big provider accepts (Microsoft 365).
const LARGE: u64 = 150 * MIB;
/// Enough to see whether a message is held.
const SHORT: u64 = 16 * MIB;
/// What goes through before anything is measured, so that what is allocated once is there.
const WARM_UP: u64 = 4 * MIB;

/// Rounds of which the fastest and the one with the largest growth count: other programs run, too.
const ROUNDS: usize = 5;

/// Sessions of each kind that are opened to see what one costs that says nothing: in the full form, and in the short one.
const IDLE_SESSIONS: usize = 1000;
const FEW_IDLE_SESSIONS: usize = 400;

/// How long one message may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which way a message goes.
#[derive(Debug, Clone, Copy)]
enum Way {
    Fetch,
    Append,
}

/// What was measured for one way.
struct Figures {
    fastest: Duration,
    growth: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [bare::COMMAND, folder, port, upstream] => bare::run(folder, port, upstream).map(|()| true),
        // Cargo says `--bench` for `cargo bench` only.
        arguments => {
            let is_full = arguments.contains(&"--bench") && !arguments.contains(&"--short");
            measure(if is_full { LARGE } else { SHORT })
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("the benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints; whether memory stayed within its bound.
#[tokio::main]
async fn measure(size: u64) -> Result<bool> {
    let folder = tempfile::Builder::new().prefix("deltapush-bench-").tempdir()?;
    let authority = Authority::make(folder.path())?;
    let upstream = upstream::start(&authority).await?;

    println!("a message of {} MiB, TLS on both sides, best of {ROUNDS}", size / MIB);
    println!("          deltapush    bare copy    ratio    growth of deltapush's memory");
    let mut growth = 0;
    let mut deltapush = Candidate::start(Kind::Deltapush, folder.path(), &authority, upstream).await?;
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
    let sessions = if size == LARGE { IDLE_SESSIONS } else { FEW_IDLE_SESSIONS };
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
        println!("deltapush's memory grew by {} KiB or more: it holds what it should only pass on", MAX_GROWTH / KIB);
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
    format!("{name:<8}{our_rate:>6.0} MB/s  {their_rate:>6.0} MB/s    {ratio:>5.2}    {growth:>5} KiB")
}

impl Figures {
    fn none() -> Self {
        Self { fastest: Duration::MAX, growth: 0 }
    }
}

/// A program between client and upstream, with one session through it.
struct Candidate {
    client: Client,
    memory: Memory,
    _proxy: Proxy,
}

impl Candidate {
    async fn start(kind: Kind, folder: &Path, authority: &Authority, upstream: SocketAddr) -> Result<Self> {
        let proxy = Proxy::start(kind, folder, authority, upstream)?;
        let client = tokio::time::timeout(PATIENCE, Client::connect(proxy.port, authority)).await??;
        let mut candidate = Self { client, memory: Memory::of(proxy.pid()), _proxy: proxy };
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

    /// With a reader who is in no hurry: whoever holds what that one does not take will show it. No matter of speed.
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
        done.map_err(|_| anyhow!("not done within {} s", PATIENCE.as_secs()))?.with_context(|| format!("{way:?}"))?;
        Ok(start.elapsed())
    }
}
