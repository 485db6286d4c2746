//! Three members with one real PostgreSQL: each takeover is measured.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::testing::{KeeperCall, RecordingKeeper};
use super::{ClusterStatus, ClusterView, NodeId, NodeName, SeenEnd, SeenNode, serve};
use crate::ownership::{Epoch, Ownership, SLOTS, Slot};
use crate::store::postgres_testing::{Database, Version};
use crate::store::{EventLog, Store, StoredEvent};

const ALL: usize = SLOTS as usize;

/// A member, on a thread of its own, which can stand still.
pub(super) struct Member {
    id: i64,
    pub(super) ownership: Ownership,
    keeper: Arc<RecordingKeeper>,
    pub(super) leave: CancellationToken,
    kill: CancellationToken,
    pub(super) runtime: Handle,
    pub(super) store: Store,
    view: ClusterView,
    pub(super) thread: thread::JoinHandle<()>,
}

impl Member {
    pub(super) fn join(database: &Database, id: i64) -> Self {
        Self::join_as(Version::Present, database, id)
    }

    pub(super) fn join_as(version: Version, database: &Database, id: i64) -> Self {
        let (ownership, keeper) = (Ownership::of_node(), Arc::new(RecordingKeeper::default()));
        let (leave, kill) = (CancellationToken::new(), CancellationToken::new());
        let settings = database.settings("seal.key");
        let (sender, receiver) = mpsc::channel();
        let view = ClusterView::new(NodeName { id: NodeId(id), name: format!("push-{id}") });
        let thread = thread::spawn({
            let (ownership, keeper) = (ownership.clone(), Arc::clone(&keeper));
            let view = view.clone();
            let (leave, kill) = (leave.clone(), kill.clone());
            move || {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let opened = version.open(&settings, ownership.clone(), id, drop).await;
                    let store = opened.unwrap();
                    sender.send((Handle::current(), store.clone())).unwrap();
                    let (log, changed) = (store.event_log().unwrap(), Arc::new(Notify::new()));
                    tokio::select! {
                        () = serve(store, view, ownership, keeper, Arc::clone(&changed), leave) => {}
                        () = follow(log, &changed) => {}
                        () = kill.cancelled() => {}
                    }
                });
            }
        });
        let (runtime, store) = receiver.recv().unwrap();
        Self { id, ownership, keeper, leave, kill, runtime, store, view, thread }
    }

    pub(super) fn owns(&self) -> usize {
        self.ownership.owned().len()
    }

    /// Waits until it owns so many slots. Returns the time since `begun`.
    pub(super) fn until_owns(&self, slots: usize, begun: Instant) -> Duration {
        while self.owns() != slots {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{}: {} slots",
                self.id,
                self.owns()
            );
            thread::sleep(Duration::from_millis(5));
        }
        begun.elapsed()
    }

    /// Waits until it shows such nodes.
    fn until_shows(&self, is_shown: impl Fn(&ClusterStatus) -> bool) -> ClusterStatus {
        let begun = Instant::now();
        loop {
            let status = self.view.status();
            if is_shown(&status) {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{status:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its thread stands still, as a process does after SIGSTOP.
    pub(super) fn pause(&self, wait: Duration) {
        self.runtime.spawn(async move { thread::sleep(wait) });
    }

    /// It ends without a word.
    pub(super) fn kill(self) {
        self.kill.cancel();
        self.thread.join().unwrap();
    }
}

/// Reads the log as a node does.
async fn follow(mut log: EventLog, changed: &Notify) {
    loop {
        let events = log.read().await.unwrap_or_default();
        if events.iter().any(|event| matches!(event, StoredEvent::Slots | StoredEvent::Rewound)) {
            changed.notify_one();
        }
        log.changed().await;
    }
}

pub(super) fn assert_disjoint(members: &[&Member]) {
    for slot in Slot::all() {
        let owners: Vec<(i64, Epoch)> = members
            .iter()
            .filter_map(|member| Some((member.id, member.ownership.epoch(slot)?)))
            .collect();
        assert!(owners.len() <= 1, "{slot:?}: {owners:?}");
    }
}

#[test]
fn members_take_over_within_their_bounds() {
    let database = Database::new();
    let begun = Instant::now();
    let one = Member::join(&database, 1);
    let started = one.until_owns(ALL, begun);
    let begun = Instant::now();
    let (two, three) = (Member::join(&database, 2), Member::join(&database, 3));
    let joined = two.until_owns(341, begun).max(three.until_owns(341, begun));
    assert_disjoint(&[&one, &two, &three]);
    assert_eq!(one.owns(), 342);
    let prepared = two.keeper.calls();
    let of = |call: &KeeperCall| match call {
        KeeperCall::Prepare(slots) => slots.len(),
        _ => 0,
    };
    assert!(prepared.iter().map(of).sum::<usize>() >= 341);
    assert!(prepared.iter().all(|call| of(call) <= 32), "only a portion is in motion");

    // Any node shows all.
    let is_fresh = |node: &SeenNode| {
        let node = &node.status;
        node.lease_left > Duration::from_secs(5) && node.facts.latency_us.is_some()
    };
    let slots = |status: &ClusterStatus| -> Vec<usize> {
        status.nodes.iter().map(|node| node.slots).collect()
    };
    let shown = three.until_shows(|status| {
        slots(status) == [342, 341, 341] && status.nodes.iter().all(is_fresh)
    });
    assert_eq!((shown.orphans, shown.ended), (0, vec![]));

    // One stands still for longer than its lease: it owns nothing when it goes on, and comes back.
    let begun = Instant::now();
    three.pause(Duration::from_secs(13));
    let paused = one.until_owns(512, begun).max(two.until_owns(512, begun));
    assert_eq!(three.owns(), 0);
    assert_disjoint(&[&one, &two, &three]);
    three.until_owns(341, begun);

    // One is killed.
    let begun = Instant::now();
    three.kill();
    let killed = one.until_owns(512, begun).max(two.until_owns(512, begun));
    let shown = two.until_shows(|status| status.ended.len() == 1 && status.orphans == 0);
    let SeenEnd { node, successors } = &shown.ended[0];
    assert!(node.name == "push-3" && node.has_died, "{node:?}");
    let successors: BTreeMap<&str, usize> =
        successors.iter().map(|(name, slots)| (name.as_deref().unwrap(), *slots)).collect();
    assert_eq!(successors.values().sum::<usize>(), 341);
    assert!(successors.into_keys().eq(["push-1", "push-2"]));

    // One leaves.
    let begun = Instant::now();
    two.leave.cancel();
    let left = one.until_owns(ALL, begun);
    two.thread.join().unwrap();
    let shown = one.until_shows(|status| status.ended.len() == 2 && status.nodes.len() == 1);
    let SeenEnd { node, successors } = &shown.ended[0];
    assert!(node.name == "push-2" && !node.has_died, "{node:?}");
    assert_eq!(successors, &[(Some("push-1".to_owned()), 512)]);
    println!("start {started:?} join {joined:?} pause {paused:?} kill {killed:?} leave {left:?}");
    assert!(started < Duration::from_secs(5) && joined < Duration::from_secs(25));
    assert!(paused < Duration::from_secs(12) && killed < Duration::from_secs(12));
    assert!(left < Duration::from_secs(20));
    one.leave.cancel();
    one.thread.join().unwrap();
    assert_eq!(database.sql("SELECT count(*) FROM nodes"), "0");
    assert_eq!(database.sql("SELECT count(*) FROM slots WHERE owner IS NOT NULL"), "0");
}
