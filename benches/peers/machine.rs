//! On what it was measured, and what this machine can do at best.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use jiff::Zoned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::limits;
use super::options::Options;
use crate::common::process::TICK;

/// The largest TLS record.
const RECORD: usize = 16 * 1024;

/// Of so many attempts the best counts: other programs only take away.
const ATTEMPTS: u32 = 5;

/// Facts about the machine, as lines.
pub(crate) async fn describe(options: &Options) -> Result<Vec<String>> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .unzip()
        .1;
    let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kib: u64 =
        memory.split_ascii_whitespace().nth(1).context("no size of the memory")?.parse()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    // The text after the numbers names the builder.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    let versions: BTreeSet<String> = options
        .entrants()
        .iter()
        .filter_map(|entrant| {
            Some(format!("{} {}", entrant.kind.program(), entrant.kind.version()?))
        })
        .collect();
    let (date, files) = (Zoned::now().strftime("%Y-%m-%d"), limits::files());
    let (mut best_encryption, mut best_loopback) = (0.0_f64, 0.0_f64);
    for _ in 0..ATTEMPTS {
        best_encryption = best_encryption.max(encryption(options.time() / ATTEMPTS)?);
        best_loopback = best_loopback.max(loopback(options.time() / ATTEMPTS).await?);
    }
    let per_gib = f64::from(1 << 30) / 1e6 / best_encryption;
    Ok(vec![
        format!(
            "{date}; {cores} cores ({}), {} GiB of memory, Linux {kernel}, {files} open files at most",
            model.unwrap_or("of a kind that is not told"),
            kib.div_ceil(1024 * 1024)
        ),
        versions.into_iter().collect::<Vec<_>>().join(", "),
        format!(
            "what this machine can do at best: one core seals {best_encryption:.0} MB/s with AES-128-GCM, so that opening and \
             sealing a GiB takes {:.2} s; loopback carries {best_loopback:.0} MB/s from one program to another without TLS",
            2.0 * per_gib
        ),
    ])
}

/// Work of the processors while programs were driven: time of anybody's programs, of ours, and all that there was.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Meanwhile {
    pub(crate) busy: Duration,
    pub(crate) ours: Duration,
    pub(crate) available: Duration,
}

impl Meanwhile {
    /// So far, of this machine; what is ours is told by who knows it.
    pub(crate) fn now(ours: Duration) -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("nothing is known of processors")?;
        // User, nice, system, idle, waiting; what follows belongs to no program (proc(5)).
        let ticks = line.split_ascii_whitespace().skip(1).map(|field| Ok(field.parse::<u32>()?));
        let ticks: Vec<u32> = ticks.take(5).collect::<Result<_>>()?;
        let time = |fields: &[u32]| TICK * fields.iter().sum();
        Ok(Self { busy: time(ticks.get(..3).unwrap_or_default()), ours, available: time(&ticks) })
    }

    /// Adds what was between two moments.
    pub(crate) fn add(&mut self, before: &Self, after: &Self) {
        self.busy += after.busy.saturating_sub(before.busy);
        self.ours += after.ours.saturating_sub(before.ours);
        self.available += after.available.saturating_sub(before.available);
    }

    /// The share that other programs took, in percent.
    pub(crate) fn others(&self) -> Option<f64> {
        let others = self.busy.saturating_sub(self.ours).as_secs_f64();
        (!self.available.is_zero()).then(|| others / self.available.as_secs_f64() * 100.0)
    }
}

/// MB that one core seals in a second, in records as TLS has them.
fn encryption(time: Duration) -> Result<f64> {
    let failed = |_| anyhow!("no AES-128-GCM");
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(failed)?);
    let mut record = vec![0; RECORD];
    let (began, mut bytes) = (Instant::now(), 0_u32);
    while began.elapsed() < time || bytes == 0 {
        let mut nonce = [0; NONCE_LEN];
        nonce[..4].copy_from_slice(&bytes.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let _tag =
            key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut record).map_err(failed)?;
        bytes = bytes.wrapping_add(RECORD as u32);
    }
    Ok(f64::from(bytes) / 1e6 / began.elapsed().as_secs_f64())
}

/// MB that pass a connection on loopback in a second.
async fn loopback(time: Duration) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut sender = TcpStream::connect(listener.local_addr()?).await?;
    let (mut receiver, _) = listener.accept().await?;
    let began = Instant::now();
    let sending = tokio::spawn(async move {
        let bytes = vec![0; 64 * 1024];
        while began.elapsed() < time {
            sender.write_all(&bytes).await?;
        }
        anyhow::Ok(())
    });
    let (mut buffer, mut bytes) = (vec![0; 64 * 1024], 0_u64);
    loop {
        match receiver.read(&mut buffer).await? {
            0 => break,
            count => bytes += count as u64,
        }
    }
    sending.await??;
    #[expect(
        clippy::cast_precision_loss,
        reason = "a number of bytes has fewer digits than an f64"
    )]
    let megabytes = bytes as f64 / 1e6;
    Ok(megabytes / began.elapsed().as_secs_f64())
}
