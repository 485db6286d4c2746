//! Simulation of several nodes in virtual time: random faults against the promises of the lease.
//!
//! The machines are the real ones. Models stand for the database (`database.rs`), the drivers and the keepers (`node.rs`), and
//! for accounts whose messages are seen, committed and posted (`work.rs`). A schedule has some faults (`faults.rs`), while which
//! messages arrive; then all faults end, and what was promised must have come about (`ledger.rs`). All of it follows from the
//! seed of the schedule, which a failure prints: `DELTAPUSH_SEED=n DELTAPUSH_SCHEDULES=1` runs that one alone.

mod befall;
mod commits;
mod database;
mod faults;
mod ledger;
mod network;
mod node;
mod work;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

pub(super) use database::Database;
use ledger::Counts;
use world::World;

const MILLISECOND: u64 = 1_000;
const SECOND: u64 = 1_000_000;
/// Faults begin before this time.
const SETTLES_AT: u64 = 30 * SECOND;
/// A schedule ends at this time.
const ENDS_AT: u64 = 75 * SECOND;

/// A fault of deltapush itself, which the simulation must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    None,
    /// Every other node goes on longer than its lease.
    LongLease,
    /// Commits are accepted in any epoch.
    NoFence,
    /// Slots are claimed whatever their epoch and their owner.
    ClaimsBlindly,
    /// Pending pushes are not taken up by the next owner.
    ForgetsMarks,
    /// A node never takes another for dead.
    NoTakeover,
}

/// Plays one schedule. The error names the promise that was broken.
fn play(seed: u64, mutation: Mutation) -> Result<Counts, String> {
    World::new(seed, mutation).run()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().expect("a number"))
}

/// Plays schedules on both cores until one fails.
fn play_all(first: u64, count: u64) -> Result<Counts, String> {
    let next = AtomicU64::new(first);
    let worker = || {
        let mut sum = Counts::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first.saturating_add(count) {
                return Ok(sum);
            }
            match play(seed, Mutation::None) {
                Ok(counts) => sum = sum.plus(counts),
                Err(broken) => {
                    next.store(u64::MAX / 2, Ordering::Relaxed);
                    return Err(format!("DELTAPUSH_SEED={seed} DELTAPUSH_SCHEDULES=1: {broken}"));
                }
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        let mut results = workers.into_iter().map(|worker| worker.join().expect("no panic"));
        results.try_fold(Counts::default(), |sum, counts| Ok(sum.plus(counts?)))
    })
}

#[test]
fn random_schedules_break_no_promise() {
    let count = number("DELTAPUSH_SCHEDULES").unwrap_or(10_000);
    let first = number("DELTAPUSH_SEED").unwrap_or_else(|| fastrand::u64(..u64::MAX / 4));
    println!("{count} schedules from seed {first}");
    let counts = play_all(first, count).unwrap();
    println!("{counts:?}");
    assert!(count < 100 || counts.takeovers > count && counts.handovers > count);
}

#[test]
fn broken_promises_are_found() {
    use Mutation::{ClaimsBlindly, ForgetsMarks, LongLease, NoFence, NoTakeover};
    for mutation in [LongLease, NoFence, ClaimsBlindly, ForgetsMarks, NoTakeover] {
        let found = (0..500).find(|seed| play(*seed, mutation).is_err());
        assert!(found.is_some(), "{mutation:?} went unnoticed");
    }
}
