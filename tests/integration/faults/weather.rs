//! Faults during a run: three lanes, each with its own bag of faults, out of which chance draws until it is empty,
//! and then again. The lanes know nothing of each other, so faults meet.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::super::support::deltapush::Deltapush;
use super::super::support::dovecot::Dovecot;
use super::super::support::network::{Manner, Network};
use super::Source;
use super::notifications::{Day, Notifications};

/// Occurrences of each fault.
pub(crate) type Count = BTreeMap<&'static str, usize>;

/// Range of a random duration, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(pub(crate) u64, pub(crate) u64);

impl Span {
    pub(crate) async fn pass(self, rng: &mut Rng) {
        sleep(Duration::from_millis(rng.u64(self.0..=self.1))).await;
    }
}

/// A fault of the program itself, or of its disk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Halt {
    /// It is killed at any instant, and started again.
    Kill,
    /// It stands still.
    Stop,
    /// There is no room for its state.
    FullDisk,
}

/// The program meets these faults at any instant.
pub(crate) async fn halt(
    mut deltapush: Deltapush,
    all: &'static [Halt],
    every: Span,
    mut rng: Rng,
    over: watch::Receiver<bool>,
) -> (Deltapush, Count) {
    let (mut count, mut bag) = (Count::new(), Vec::new());
    while !*over.borrow() || count.len() < all.len() {
        every.pass(&mut rng).await;
        let name = match draw(&mut bag, all, &mut rng) {
            Halt::Kill => {
                block_in_place(|| deltapush.kill());
                Span(0, 1_500).pass(&mut rng).await;
                block_in_place(|| deltapush.start_again());
                "deltapush killed"
            }
            Halt::Stop => {
                deltapush.signal("STOP");
                Span(500, 2_500).pass(&mut rng).await;
                deltapush.signal("CONT");
                "deltapush stopped for a while"
            }
            Halt::FullDisk => {
                deltapush.disk().fill();
                Span(500, 2_500).pass(&mut rng).await;
                deltapush.disk().make_room();
                "disk of deltapush full"
            }
        };
        *count.entry(name).or_default() += 1;
    }
    (deltapush, count)
}

/// A fault at the mail server, or on the way there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MailFault {
    Restart,
    Unreachable,
    CutAll,
    ResetSome,
    BlackHole,
    HalfOpen,
    Delay,
    Throttle,
}

/// Those that matter to a source of new mail. Where the mail server tells, they leave time for the faults of deltapush.
pub(super) fn mail_faults(source: Source) -> &'static [MailFault] {
    use MailFault::*;
    match source {
        Source::Idle(_) => {
            &[Restart, Unreachable, CutAll, ResetSome, BlackHole, HalfOpen, Delay, Throttle]
        }
        Source::News(_) => &[Restart, CutAll, Delay],
    }
}

/// The mail server is restarted, and its network misbehaves.
pub(crate) async fn mail(
    mut dovecot: Dovecot,
    network: &Network,
    all: &'static [MailFault],
    gap: Span,
    mut rng: Rng,
    over: watch::Receiver<bool>,
) -> (Dovecot, Count) {
    use MailFault::{
        BlackHole, CutAll, Delay, HalfOpen, ResetSome, Restart, Throttle, Unreachable,
    };
    let lasts = Span(500, 2_500);
    let (mut count, mut bag) = (Count::new(), Vec::new());
    while !*over.borrow() || count.len() < all.len() {
        gap.pass(&mut rng).await;
        let name = match draw(&mut bag, all, &mut rng) {
            Restart => {
                block_in_place(|| dovecot.stop());
                Span(0, 1_500).pass(&mut rng).await;
                block_in_place(|| dovecot.start_again());
                "mail server restarted"
            }
            Unreachable => {
                network.reachable(false);
                network.present(Manner::Reset);
                lasts.pass(&mut rng).await;
                "mail server unreachable"
            }
            CutAll => {
                network.present(Manner::Closed);
                "connections to it closed"
            }
            ResetSome => {
                network.some(60, Manner::Reset, &mut rng);
                "connections to it reset"
            }
            BlackHole => {
                network.all(Manner::BlackHole);
                lasts.pass(&mut rng).await;
                "black hole before it"
            }
            HalfOpen => {
                network.some(30, Manner::HalfOpen, &mut rng);
                "connections to it half-open"
            }
            Delay => {
                network.all(Manner::Delayed(Duration::from_millis(rng.u64(50..500))));
                lasts.pass(&mut rng).await;
                "delay before it"
            }
            Throttle => {
                network.all(Manner::Throttled(rng.u32(500..5_000)));
                lasts.pass(&mut rng).await;
                "throttle before it"
            }
        };
        network.heal();
        *count.entry(name).or_default() += 1;
    }
    (dovecot, count)
}

/// A fault at the notification server, or on the way there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PushFault {
    Day(Day, &'static str),
    Unreachable,
    CutAll,
    BlackHole,
    HalfOpen,
}

/// Those that a run takes. Posts are the same whatever the source of new mail is.
pub(super) fn push_faults(source: Source, flaky: bool) -> Vec<PushFault> {
    use PushFault::{BlackHole, CutAll, HalfOpen, Unreachable};
    let failing = PushFault::Day(Day::Failing, "notification server answers 500");
    if matches!(source, Source::News(_)) {
        return vec![failing];
    }
    let mut all = vec![
        failing,
        PushFault::Day(Day::Slow, "… late"),
        PushFault::Day(Day::Overloaded { retry_after: 2 }, "… 503 with Retry-After"),
        PushFault::Day(Day::Hanging, "… not at all"),
        Unreachable,
        CutAll,
        BlackHole,
        HalfOpen,
    ];
    if flaky {
        all.push(PushFault::Day(Day::Flaky, "… one in three with 500"));
    }
    all
}

/// The notification server has bad days, and its network misbehaves.
pub(crate) async fn pushes(
    notifications: &Notifications,
    network: &Network,
    gap: Span,
    all: &[PushFault],
    mut rng: Rng,
    over: watch::Receiver<bool>,
) -> Count {
    use PushFault::{BlackHole, CutAll, HalfOpen, Unreachable};
    let lasts = Span(500, 3_000);
    let (mut count, mut bag) = (Count::new(), Vec::new());
    while !*over.borrow() || count.len() < all.len() {
        gap.pass(&mut rng).await;
        let name = match draw(&mut bag, all, &mut rng) {
            PushFault::Day(day, name) => {
                notifications.day(day);
                lasts.pass(&mut rng).await;
                name
            }
            Unreachable => {
                network.reachable(false);
                network.present(Manner::Reset);
                lasts.pass(&mut rng).await;
                "notification server unreachable"
            }
            CutAll => {
                network.present(Manner::Reset);
                "connections to it reset"
            }
            BlackHole => {
                network.all(Manner::BlackHole);
                lasts.pass(&mut rng).await;
                "black hole before it"
            }
            HalfOpen => {
                network.some(50, Manner::HalfOpen, &mut rng);
                "connections to it half-open"
            }
        };
        notifications.day(Day::Good);
        network.heal();
        *count.entry(name).or_default() += 1;
    }
    count
}

/// Draws out of a bag, which is filled again when it is empty.
pub(crate) fn draw<T: Copy>(bag: &mut Vec<T>, all: &[T], rng: &mut Rng) -> T {
    if bag.is_empty() {
        bag.extend_from_slice(all);
        rng.shuffle(bag);
    }
    bag.pop().unwrap()
}
