//! Three members with one real PostgreSQL: each takeover is measured.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use super::testing::{KeeperCall, RecordingKeeper};
use super::{NodeId, NodeName, NodeStatus, serve};
use crate::ownership::{Epoch, Ownership, SLOTS, Slot};
use crate::store::Store;
use crate::store::postgres_testing::{Database, Version};

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
        let thread = thread::spawn({
            let (ownership, keeper) = (ownership.clone(), Arc::clone(&keeper));
            let (leave, kill) = (leave.clone(), kill.clone());
            move || {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let opened = version.open(&settings, ownership.clone(), id, drop).await;
                    let store = opened.unwrap();
                    sender.send((Handle::current(), store.clone())).unwrap();
                    let node = NodeName { id: NodeId(id), name: format!("push-{id}") };
                    tokio::select! {
                        served = serve(store, node, ownership, keeper, leave) => served.unwrap(),
                        () = kill.cancelled() => {}
                    }
                });
            }
        });
        let (runtime, store) = receiver.recv().unwrap();
        Self { id, ownership, keeper, leave, kill, runtime, store, thread }
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
    let shown = two.runtime.block_on(async { three.store.nodes().await }).unwrap();
    let slots: Vec<usize> = shown.iter().map(|node| node.slots).collect();
    assert_eq!(slots, [342, 341, 341]);
    let is_fresh = |node: &NodeStatus| node.lease_left > Duration::from_secs(5) && !node.is_leaving;
    assert!(shown.iter().all(is_fresh) && shown.iter().any(|node| node.database_latency.is_some()));

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

    // One leaves.
    let begun = Instant::now();
    two.leave.cancel();
    let left = one.until_owns(ALL, begun);
    two.thread.join().unwrap();
    println!("start {started:?} join {joined:?} pause {paused:?} kill {killed:?} leave {left:?}");
    assert!(started < Duration::from_secs(5) && joined < Duration::from_secs(25));
    assert!(paused < Duration::from_secs(12) && killed < Duration::from_secs(12));
    assert!(left < Duration::from_secs(20));
    one.leave.cancel();
    one.thread.join().unwrap();
    assert_eq!(database.sql("SELECT count(*) FROM nodes"), "0");
    assert_eq!(database.sql("SELECT count(*) FROM slots WHERE owner IS NOT NULL"), "0");
}
