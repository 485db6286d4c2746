//! Faults of a schedule, drawn from its seed.

use fastrand::Rng;

use super::{SECOND, SETTLES_AT};

/// A fault, or an intended change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Join,
    /// The nth running node.
    Leave(usize),
    Kill(usize),
    /// SIGSTOP, for so long.
    Pause(usize, u64),
    /// No connection between the node and the database.
    CutOff(usize, u64),
    /// Notifications do not reach the node.
    Deafen(usize, u64),
    /// A restart of the database, or a failover.
    Down(u64),
    /// The database's clock is set, forwards or backwards.
    Step(i64),
}

/// Faults with their times, in order. Two steps of the clock have ten seconds between them at least: those of a clock that
/// is set to and fro within one renewal cannot be told from none.
pub(super) fn draw(rng: &mut Rng) -> Vec<(u64, Fault)> {
    let mut faults: Vec<(u64, Fault)> =
        (0..rng.usize(1..7)).map(|_| (rng.u64(0..SETTLES_AT), one(rng))).collect();
    for _ in 0..rng.usize(0..3) {
        faults.push((rng.u64(0..SECOND), Fault::Join));
    }
    faults.sort_by_key(|(at, _)| *at);
    let mut stepped = None;
    faults.retain(|(at, fault)| {
        let is_step = matches!(fault, Fault::Step(_));
        let is_near = is_step && stepped.is_some_and(|stepped| at - stepped < 10 * SECOND);
        stepped = if is_step && !is_near { Some(*at) } else { stepped };
        !is_near
    });
    faults
}

fn one(rng: &mut Rng) -> Fault {
    let node = rng.usize(0..8);
    let wait = duration(rng);
    match rng.u8(0..12) {
        0 | 1 => Fault::Join,
        2 => Fault::Leave(node),
        3 | 4 => Fault::Kill(node),
        5 | 6 => Fault::Pause(node, wait),
        7 | 8 => Fault::CutOff(node, wait),
        9 => Fault::Deafen(node, wait),
        10 => Fault::Down(wait / 2),
        _ => Fault::Step(rng.i64(-20..20) * i64::try_from(rng.u64(0..=SECOND)).unwrap()),
    }
}

/// Short and long ones, and many near the length of a lease.
fn duration(rng: &mut Rng) -> u64 {
    match rng.u8(0..3) {
        0 => rng.u64(0..3 * SECOND),
        1 => rng.u64(8 * SECOND..12 * SECOND),
        _ => rng.u64(0..30 * SECOND),
    }
}
