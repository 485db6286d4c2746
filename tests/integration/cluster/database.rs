//! A database that is away: for one node, for all, and for good.

use std::time::Duration;

use tokio::task::block_in_place;

use super::super::support::network::Manner;
use super::super::support::poll;
use super::super::support::postgres::Postgres;
use super::scene::{ClusterScene, DOCUMENT, PATIENCE, TAKEOVER};

/// Registers a token at a node until that is accepted.
async fn register_at_last(scene: &ClusterScene, node: usize, account: usize, token: &str) {
    let user = &scene.accounts[account].user;
    let mut reply = scene.register(node, user, token).await;
    for _ in 0..100 {
        if reply.result.starts_with("OK") {
            return;
        }
        assert!(reply.result.starts_with("NO [UNAVAILABLE]"), "{reply:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
        reply = scene.register(node, user, token).await;
    }
    panic!("no token is accepted again: {reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn node_without_the_database_refuses_tokens_and_loses_its_accounts() {
    let mut scene = ClusterScene::start(2).await;
    scene.populate(6).await;
    scene.repeatable = scene.accounts.len();
    let mut session = scene.client(0, &scene.accounts[0].user.clone()).await;
    let network = &scene.nodes[0].to_database[0];
    network.reachable(false);
    network.present(Manner::Reset);
    let reply = scene.register(0, &scene.accounts[0].user, "openpgp:refused").await;
    assert!(reply.result.starts_with("NO [UNAVAILABLE]"), "{reply:?}");
    let reply = session.command("c3 SELECT INBOX").await;
    assert!(reply.result.starts_with("OK"), "its session goes on: {reply:?}");
    drop(session);
    // News comes to both, and is announced by the one that may.
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    let taken = poll(TAKEOVER, || scene.tally().missing.is_empty()).await;
    assert!(taken, "not announced within {TAKEOVER:?}:\n{}", scene.tally());
    scene.nodes[0].to_database[0].heal();
    register_at_last(&scene, 0, 0, "openpgp:refused").await;
    scene.accounts[0].tokens.push("openpgp:refused".to_owned());
    scene.wait_for_shares_of(&["node-0", "node-1"]).await;
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    scene.settle(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn news_waits_for_a_database_that_is_restarted() {
    let mut scene = ClusterScene::start(2).await;
    scene.populate(6).await;
    scene.repeatable = scene.accounts.len();
    block_in_place(|| scene.databases[0].kill());
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    let reply = scene.register(0, &scene.accounts[0].user, "openpgp:refused").await;
    assert!(reply.result.starts_with("NO [UNAVAILABLE]"), "{reply:?}");
    block_in_place(|| scene.databases[0].start_again());
    scene.settle(PATIENCE).await;
    scene.wait_for_shares_of(&["node-0", "node-1"]).await;
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    scene.settle(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acknowledged_tokens_survive_the_loss_of_the_primary() {
    let primary = Postgres::start();
    let standby = primary.standby(true);
    let mut scene = ClusterScene::start_on(vec![primary, standby], 2, "300ms").await;
    scene.populate(6).await;
    scene.repeatable = scene.accounts.len();
    block_in_place(|| scene.databases[0].kill());
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    block_in_place(|| scene.databases[1].promote());
    scene.settle(PATIENCE).await;
    register_at_last(&scene, 1, 0, "openpgp:later").await;
    scene.accounts[0].tokens.push("openpgp:later".to_owned());
    // Its questions go to the first.
    scene.databases.swap(0, 1);
    scene.wait_for_shares_of(&["node-0", "node-1"]).await;
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    scene.settle(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn backup_is_restored_on_another_server() {
    let mut scene = ClusterScene::start(2).await;
    scene.populate(4).await;
    let restored = block_in_place(|| {
        let restored = Postgres::start();
        let lines = DOCUMENT.block("Backup", "sh", "pg_restore");
        scene.databases[0].restore_to(&restored, lines);
        for node in &mut scene.nodes {
            node.deltapush.kill();
        }
        restored
    });
    scene.databases[0] = restored;
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    scene.join().await;
    scene.settle(PATIENCE).await;
    scene.wait_for_shares_of(&["node-2"]).await;
}
