//! Slots that are taken, dropped or loaded again while their accounts are still being loaded.

use tokio::task::{JoinHandle, yield_now};

use super::*;

/// A load of slots that waits.
struct HeldUp(oneshot::Sender<()>);

impl HeldUp {
    fn go_on(self) {
        self.0.send(()).unwrap();
    }

    fn fail(self) {
        drop(self.0);
    }
}

impl Node {
    /// The next load of slots waits.
    fn hold_up(&self) -> HeldUp {
        let (go_on, held_up) = oneshot::channel();
        self.shared.change(|tables| tables.held_up.push_back(held_up));
        HeldUp(go_on)
    }

    fn loads(&self) -> usize {
        self.shared.change(|tables| tables.loads.len())
    }

    /// Calls the keeper, on a task of its own, until it waits.
    async fn call<F>(&self, call: impl FnOnce(NodeAccounts<Shared>) -> F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let called = tokio::spawn(call(self.accounts.clone()));
        for _ in 0..10 {
            yield_now().await;
        }
        called
    }

    /// A preparation whose load is held up.
    async fn prepare_slowly(&self) -> (JoinHandle<Result<(), StoreError>>, HeldUp) {
        let (held_up, slot) = (self.hold_up(), self.slot);
        self.accounts.want(&[slot]);
        let prepare = self.call(async move |node| node.prepare(vec![slot]).await).await;
        assert_eq!(self.loads(), 1);
        (prepare, held_up)
    }

    /// The slot is granted, and taken.
    async fn take_later(&self) -> JoinHandle<Result<(), StoreError>> {
        let slot = self.slot;
        self.grant();
        self.call(async move |node| node.take(vec![slot]).await).await
    }
}

#[tokio::test]
async fn take_waits_for_the_load_of_a_preparation() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let mut node = Node::start(&server).await;
    node.shared.change(|tables| tables.pending = vec![unannounced()]);
    let (prepare, held_up) = node.prepare_slowly().await;
    let take = node.take_later().await;
    assert!(!take.is_finished(), "the accounts are not here");
    assert!(node.watching.posted().is_empty(), "nobody knows the token yet");
    held_up.go_on();
    take.await.unwrap().unwrap();
    assert!(node.watching.registry.standing(&token()).is_some());
    assert_eq!(node.watching.posted(), [token()]);
    prepare.await.unwrap().unwrap();
    assert!(node.waits_in_idle());
    assert_eq!(node.loads(), 1);
}

#[tokio::test]
async fn take_loads_what_a_preparation_could_not() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let node = Node::start(&server).await;
    let (prepare, held_up) = node.prepare_slowly().await;
    let take = node.take_later().await;
    held_up.fail();
    assert!(prepare.await.unwrap().is_err());
    take.await.unwrap().unwrap();
    until("the account of an owned slot is watched", || node.waits_in_idle()).await;
    assert_eq!(node.loads(), 2);
}

#[tokio::test]
async fn take_that_fails_or_is_cancelled_is_made_again() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let node = Node::start(&server).await;
    let held_up = node.hold_up();
    let take = node.take_later().await;
    held_up.fail();
    assert!(take.await.unwrap().is_err());
    assert!(!node.watching.registry.is_watched_here(&node.watching.account));
    // The lease lapses, and is renewed.
    let _held_up = node.hold_up();
    let take = node.take_later().await;
    node.revoke();
    take.abort();
    assert!(take.await.is_err());
    node.accounts.lapse(vec![node.slot]);
    assert!(!node.watching.registry.is_watched_here(&node.watching.account));
    node.take_later().await.await.unwrap().unwrap();
    until("it is watched", || node.waits_in_idle()).await;
    assert_eq!(node.loads(), 3);
}

#[tokio::test]
async fn slots_that_lapse_while_they_are_loaded_stay_as_standby() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let node = Node::start(&server).await;
    let (prepare, held_up) = node.prepare_slowly().await;
    node.grant();
    node.revoke();
    node.accounts.lapse(vec![node.slot]);
    held_up.go_on();
    prepare.await.unwrap().unwrap();
    assert!(node.waits_in_idle());
}

#[tokio::test]
async fn slots_that_are_dropped_while_others_are_loaded_do_not_come() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let node = Node::start(&server).await;
    let held_up = node.hold_up();
    // In two pieces.
    let mut slots: Vec<Slot> = Slot::all().filter(|slot| *slot != node.slot).take(PIECE).collect();
    slots.insert(0, node.slot);
    node.accounts.want(&slots);
    let asked = slots.clone();
    let prepare = node.call(async move |node| node.prepare(asked).await).await;
    node.accounts.drop(slots.clone());
    held_up.go_on();
    prepare.await.unwrap().unwrap();
    assert!(node.watching.registry.is_empty() && node.watching.registry.loaded_slots().is_empty());
    assert_eq!(node.loads(), 1);
    // A preparation that begins late, too.
    node.accounts.prepare(slots).await.unwrap();
    assert!(node.watching.registry.loaded_slots().is_empty());
}

#[tokio::test]
async fn reload_of_everything_waits_for_the_load_of_a_slot() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let node = Node::start(&server).await;
    let alice = node.watching.account.clone();
    let waits = AccountRecord { credentials: None, ..record(&alice) };
    node.shared.change(|tables| tables.accounts.insert(alice.clone(), waits));
    let (prepare, held_up) = node.prepare_slowly().await;
    let reload = node.call(async move |node| node.reload_all().await).await;
    assert!(!reload.is_finished());
    held_up.go_on();
    assert!(reload.await.unwrap().unwrap().is_empty());
    assert_eq!(node.watching.registry.waiting(), 1, "counted once");
    prepare.await.unwrap().unwrap();
}

/// The database has lost the account while it was loaded.
#[tokio::test]
async fn reload_of_everything_knows_what_was_loaded_before() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let node = Node::start(&server).await;
    node.prepare().await.unwrap();
    node.shared.change(|tables| tables.accounts.clear());
    let left = node.accounts.reload_all().await.unwrap();
    assert_eq!(left, HashSet::from([node.watching.account.clone()]));
}
