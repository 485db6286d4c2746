//! The parts of a scene with one deltapush that break: the program, the mail server and the notification server, with their
//! networks.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::block_in_place;

use super::super::support::deltapush::Deltapush;
use super::super::support::dovecot::Dovecot;
use super::super::support::network::{Manner, Network};
use super::Source;
use super::lane::{Breakable, Span};
use super::notifications::{Day, Notifications};

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

impl Breakable for Deltapush {
    type Fault = Halt;

    async fn meet(&mut self, fault: Halt, rng: &mut Rng) -> &'static str {
        match fault {
            Halt::Kill => {
                block_in_place(|| self.kill());
                Span(0, 1_500).pass(rng).await;
                block_in_place(|| self.start_again());
                "deltapush killed"
            }
            Halt::Stop => {
                self.signal("STOP");
                Span(500, 2_500).pass(rng).await;
                self.signal("CONT");
                "deltapush stopped for a while"
            }
            Halt::FullDisk => {
                self.disk().fill();
                Span(500, 2_500).pass(rng).await;
                self.disk().make_room();
                "disk of deltapush full"
            }
        }
    }
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

/// The mail server, which is restarted, and its network, which misbehaves.
pub(super) struct MailServer {
    pub(super) dovecot: Dovecot,
    pub(super) network: Arc<Network>,
}

impl Breakable for MailServer {
    type Fault = MailFault;

    async fn meet(&mut self, fault: MailFault, rng: &mut Rng) -> &'static str {
        use MailFault::{
            BlackHole, CutAll, Delay, HalfOpen, ResetSome, Restart, Throttle, Unreachable,
        };
        let lasts = Span(500, 2_500);
        let Self { dovecot, network } = self;
        let name = match fault {
            Restart => {
                block_in_place(|| dovecot.stop());
                Span(0, 1_500).pass(rng).await;
                block_in_place(|| dovecot.start_again());
                "mail server restarted"
            }
            Unreachable => {
                network.reachable(false);
                network.present(Manner::Reset);
                lasts.pass(rng).await;
                "mail server unreachable"
            }
            CutAll => {
                network.present(Manner::Closed);
                "connections to it closed"
            }
            ResetSome => {
                network.some(60, Manner::Reset, rng);
                "connections to it reset"
            }
            BlackHole => {
                network.all(Manner::BlackHole);
                lasts.pass(rng).await;
                "black hole before it"
            }
            HalfOpen => {
                network.some(30, Manner::HalfOpen, rng);
                "connections to it half-open"
            }
            Delay => {
                network.all(Manner::Delayed(Duration::from_millis(rng.u64(50..500))));
                lasts.pass(rng).await;
                "delay before it"
            }
            Throttle => {
                network.all(Manner::Throttled(rng.u32(500..5_000)));
                lasts.pass(rng).await;
                "throttle before it"
            }
        };
        network.heal();
        name
    }
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

/// The notification server, which has bad days, and its network, which misbehaves.
pub(super) struct PushServer {
    pub(super) notifications: Arc<Notifications>,
    pub(super) network: Arc<Network>,
}

impl Breakable for PushServer {
    type Fault = PushFault;

    async fn meet(&mut self, fault: PushFault, rng: &mut Rng) -> &'static str {
        use PushFault::{BlackHole, CutAll, HalfOpen, Unreachable};
        let lasts = Span(500, 3_000);
        let Self { notifications, network } = self;
        let name = match fault {
            PushFault::Day(day, name) => {
                notifications.day(day);
                lasts.pass(rng).await;
                name
            }
            Unreachable => {
                network.reachable(false);
                network.present(Manner::Reset);
                lasts.pass(rng).await;
                "notification server unreachable"
            }
            CutAll => {
                network.present(Manner::Reset);
                "connections to it reset"
            }
            BlackHole => {
                network.all(Manner::BlackHole);
                lasts.pass(rng).await;
                "black hole before it"
            }
            HalfOpen => {
                network.some(50, Manner::HalfOpen, rng);
                "connections to it half-open"
            }
        };
        notifications.day(Day::Good);
        network.heal();
        name
    }
}
