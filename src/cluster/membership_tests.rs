//! Several members in one process, in stopped time, with the rows of the simulation.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::lease::{LeaseFacts, LeaseRequest, LeaseSettings, NodeId};
use super::membership::{LeaseDatabase, Membership};
use super::simulation::Database;
use super::testing::{KeeperCall, RecordingKeeper};
use super::{ClusterView, NodeName};
use crate::ownership::{Ownership, SLOTS, Slot};
use crate::store::StoreError;

/// The rows, which can be away.
struct Rows {
    start: Instant,
    database: Mutex<Database>,
    is_away: Mutex<bool>,
    changed: Mutex<Vec<Arc<Notify>>>,
}

impl Rows {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            database: Mutex::new(Database::of_all_slots(LeaseSettings::default().lease)),
            is_away: Mutex::new(false),
            changed: Mutex::default(),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LeaseDatabase for Rows {
    async fn request(&self, me: NodeId, request: &LeaseRequest) -> Result<LeaseFacts, StoreError> {
        sleep(Duration::from_millis(3)).await;
        if *lock(&self.is_away) {
            return Err(StoreError::NotWritten);
        }
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap();
        let mut database = lock(&self.database);
        if database.request(me, request, now).1 {
            lock(&self.changed).iter().for_each(|changed| changed.notify_one());
        }
        Ok(database.facts(now))
    }
}

/// A member of the test.
struct Member {
    ownership: Ownership,
    keeper: Arc<RecordingKeeper>,
    leave: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Member {
    fn join(rows: &Arc<Rows>, id: i64) -> Self {
        Self::join_with(rows, id, RecordingKeeper::default())
    }

    fn join_with(rows: &Arc<Rows>, id: i64, keeper: RecordingKeeper) -> Self {
        let changed = Arc::new(Notify::new());
        lock(&rows.changed).push(Arc::clone(&changed));
        let (ownership, leave) = (Ownership::of_node(), CancellationToken::new());
        let keeper = Arc::new(keeper);
        let view = ClusterView::new(NodeName { id: NodeId(id), name: format!("push-{id}") });
        let task = tokio::spawn(Membership::serve(
            (view, LeaseSettings::default()),
            Arc::clone(rows),
            ownership.clone(),
            Arc::clone(&keeper),
            changed,
            leave.clone(),
        ));
        Self { ownership, keeper, leave, task }
    }

    fn owns(&self) -> usize {
        self.ownership.owned().len()
    }

    /// Waits until the member owns so many slots, and returns the time that it took.
    async fn until_owns(&self, slots: usize) -> Duration {
        let start = Instant::now();
        while self.owns() != slots {
            assert!(start.elapsed() < Duration::from_secs(60), "{} slots", self.owns());
            sleep(Duration::from_millis(10)).await;
        }
        start.elapsed()
    }
}

/// Each slot has one owner at most.
fn assert_disjoint(members: &[&Member]) {
    for slot in Slot::all() {
        let owners = members.iter().filter(|member| member.ownership.epoch(slot).is_some()).count();
        assert!(owners <= 1, "{slot:?} has {owners} owners");
    }
}

#[tokio::test(start_paused = true)]
async fn members_share_inherit_and_leave() {
    let rows = Rows::new();
    let first = Member::join(&rows, 1);
    assert!(first.until_owns(usize::from(SLOTS)).await < Duration::from_secs(1));
    let second = Member::join(&rows, 2);
    assert!(second.until_owns(512).await < Duration::from_secs(15));
    let third = Member::join(&rows, 3);
    assert!(third.until_owns(341).await < Duration::from_secs(15));
    assert_disjoint(&[&first, &second, &third]);
    assert_eq!(first.owns() + second.owns(), 683);

    // One is killed: the others have its slots within a lease and a little.
    third.task.abort();
    let took = first.until_owns(512).await.max(second.until_owns(512).await);
    assert!(took < Duration::from_millis(9_500), "{took:?}");
    assert!(first.keeper.calls().contains(&KeeperCall::Share(3)));

    // One leaves: the other owns everything.
    second.leave.cancel();
    assert!(first.until_owns(usize::from(SLOTS)).await < Duration::from_secs(20));
    assert_eq!(second.owns(), 0);
    second.task.await.unwrap();
    let calls = second.keeper.calls();
    assert!(calls.iter().any(|call| matches!(call, KeeperCall::Prepare(_))), "{calls:?}");
    let settled = |call: &KeeperCall| match call {
        KeeperCall::Settle(slots) => slots.len(),
        _ => 0,
    };
    assert!(calls.iter().map(settled).sum::<usize>() >= 512, "{calls:?}");
    first.leave.cancel();
    first.task.await.unwrap();
    assert!(lock(&rows.database).facts(0).nodes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn member_without_its_database_lapses_and_comes_back() {
    let rows = Rows::new();
    let member = Member::join(&rows, 1);
    member.until_owns(usize::from(SLOTS)).await;
    *lock(&rows.is_away) = true;
    let took = member.until_owns(0).await;
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(8), "{took:?}");
    sleep(Duration::from_millis(10)).await;
    let all: Vec<Slot> = Slot::all().collect();
    let (lapsed, taken) = (KeeperCall::Lapse(all.clone()), KeeperCall::Take(all));
    assert_eq!(member.keeper.calls(), [KeeperCall::Share(1), taken.clone(), lapsed]);
    *lock(&rows.is_away) = false;
    assert!(member.until_owns(usize::from(SLOTS)).await < Duration::from_millis(1_500));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(member.keeper.calls(), [taken]);
}

/// Its slots are better owned by a node that serves them.
#[tokio::test(start_paused = true)]
async fn membership_ends_with_its_keeper() {
    let rows = Rows::new();
    let member = Member::join_with(&rows, 1, RecordingKeeper::faulty());
    tokio::time::timeout(Duration::from_secs(5), member.task).await.unwrap().unwrap();
}
