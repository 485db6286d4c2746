//! Nodes that die, leave, join or stand still.

use std::time::{Duration, Instant};

use tokio::task::block_in_place;
use tokio::time::sleep;

use super::super::support::poll;
use super::scene::{ClusterScene, PATIENCE, TAKEOVER};

/// Longest way of a message while shares move, on a busy machine: without a watch it takes a takeover.
const NO_GAP: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn accounts_of_a_killed_node_are_watched_by_the_others() {
    let mut scene = ClusterScene::start(3).await;
    scene.populate(9).await;
    let account = scene.account_of(1);
    let died = Instant::now();
    block_in_place(|| scene.nodes[1].deltapush.kill());
    // It comes while nobody watches.
    scene.deliver(account).await;
    let watched = poll(TAKEOVER, || scene.tally().missing.is_empty()).await;
    assert!(
        watched,
        "not announced within {TAKEOVER:?} after the node's death:\n{}",
        scene.tally()
    );
    eprintln!("takeover after {:.1} s", died.elapsed().as_secs_f32());
    scene.settle(PATIENCE).await;
    scene.wait_for_shares_of(&["node-0", "node-2"]).await;
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    scene.settle(PATIENCE).await;
    // It comes back and gets its share.
    block_in_place(|| scene.nodes[1].deltapush.start_again());
    scene.wait_for_shares_of(&["node-0", "node-1", "node-2"]).await;
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    scene.settle(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn node_that_leaves_hands_its_accounts_over_without_a_gap() {
    let mut scene = ClusterScene::start(3).await;
    scene.populate(9).await;
    scene.nodes[2].deltapush.signal("TERM");
    scene.deliver_for(Duration::from_secs(6)).await;
    scene.wait_for_shares_of(&["node-0", "node-1"]).await;
    let waits = scene.settle(PATIENCE).await;
    assert!(waits.last() < Some(&NO_GAP), "the slowest of {}: {:?}", waits.len(), waits.last());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn node_that_joins_gets_its_share_without_a_gap() {
    let mut scene = ClusterScene::start(2).await;
    scene.populate(9).await;
    scene.join().await;
    scene.deliver_for(Duration::from_secs(6)).await;
    scene.wait_for_shares_of(&["node-0", "node-1", "node-2"]).await;
    let waits = scene.settle(PATIENCE).await;
    assert!(waits.last() < Some(&NO_GAP), "the slowest of {}: {:?}", waits.len(), waits.last());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn node_that_stood_still_announces_nothing_twice() {
    let mut scene = ClusterScene::start(2).await;
    scene.populate(6).await;
    scene.nodes[0].deltapush.signal("STOP");
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    let taken = poll(TAKEOVER, || scene.tally().missing.is_empty()).await;
    assert!(taken, "not announced within {TAKEOVER:?}:\n{}", scene.tally());
    // The mail server's news waits in the sockets of the node that wakes up.
    scene.nodes[0].deltapush.signal("CONT");
    scene.wait_for_shares_of(&["node-0", "node-1"]).await;
    sleep(Duration::from_secs(1)).await;
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    scene.settle(PATIENCE).await;
}
