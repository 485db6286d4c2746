//! Nodes that are all well.

use std::time::Duration;

use super::super::faults::notifications::Day;
use super::super::support::poll;
use super::super::support::postgres::Postgres;
use super::scene::{ClusterScene, PATIENCE};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tokens_come_to_any_node_and_one_node_watches_each_account() {
    let mut scene = ClusterScene::start(3).await;
    scene.populate(9).await;
    for account in 0..scene.accounts.len() {
        assert_eq!(scene.sessions(account), 1, "{}", scene.accounts[account].user);
    }
    let owners: std::collections::BTreeSet<_> =
        (0..scene.accounts.len()).map(|account| scene.owner_of(account)).collect();
    assert_eq!(owners.len(), 3, "accounts of one node only: {owners:?}");
    for _ in 0..2 {
        for account in 0..scene.accounts.len() {
            scene.deliver(account).await;
        }
        scene.settle(PATIENCE).await;
    }
    assert_eq!(scene.tally().accepted, 2 * scene.accounts.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn account_is_changed_and_erased_at_another_node() {
    let mut scene = ClusterScene::start(2).await;
    scene.populate(2).await;
    let other = 1 - scene.owner_of(0);
    let user = scene.accounts[0].user.clone();
    let reply = scene.register(other, &user, "openpgp:second").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    scene.accounts[0].tokens.push("openpgp:second".to_owned());
    scene.deliver(0).await;
    scene.settle(PATIENCE).await;
    let mut client = scene.client(other, &user).await;
    let reply = client.command("c2 SETMETADATA INBOX (/private/devicetoken NIL)").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    drop(client);
    let ended = poll(PATIENCE, || scene.sessions(0) == 0).await;
    assert!(ended, "an account without a token is watched");
    let before = scene.notifications.accepted().len();
    scene.dovecot.deliver_news(&user, "for nobody").await;
    scene.deliver(1).await;
    scene.settle(PATIENCE).await;
    assert_eq!(scene.notifications.accepted().len(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn device_with_accounts_of_two_nodes_gets_one_push_in_a_window() {
    let databases = vec![Postgres::start()];
    let mut scene = ClusterScene::start_on(databases, 2, "4s").await;
    scene.populate(8).await;
    let (first, second) = (scene.account_of(0), scene.account_of(1));
    for account in [first, second] {
        let user = scene.accounts[account].user.clone();
        let reply = scene.register(0, &user, "openpgp:shared").await;
        assert!(reply.result.starts_with("OK"), "{reply:?}");
        scene.accounts[account].tokens.push("openpgp:shared".to_owned());
    }
    for _ in 0..3 {
        scene.deliver(first).await;
        scene.deliver(second).await;
    }
    scene.settle(PATIENCE).await;
    let accepted = scene.notifications.accepted();
    let times: Vec<_> = accepted
        .iter()
        .filter(|accepted| accepted.token == "openpgp:shared")
        .map(|accepted| accepted.at)
        .collect();
    let closest = times.windows(2).map(|pair| pair[1] - pair[0]).min();
    assert!(
        closest.is_none_or(|closest| closest >= Duration::from_millis(3_900)),
        "two pushes within the window: {closest:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn push_that_waits_moves_when_the_account_of_its_node_is_erased_at_another() {
    let mut scene = ClusterScene::start(3).await;
    scene.populate(6).await;
    let owners: Vec<_> = (0..scene.accounts.len()).map(|account| scene.owner_of(account)).collect();
    // The node of the one that was there first posts for both.
    let second = owners.iter().position(|owner| *owner != owners[0]).unwrap();
    let third = (0..3).find(|node| *node != owners[0] && *node != owners[second]).unwrap();
    for account in [0, second] {
        let user = scene.accounts[account].user.clone();
        let reply = scene.register(third, &user, "openpgp:shared").await;
        assert!(reply.result.starts_with("OK"), "{reply:?}");
    }
    scene.accounts[second].tokens.push("openpgp:shared".to_owned());
    scene.notifications.day(Day::Failing);
    scene.deliver(second).await;
    let tried = poll(PATIENCE, || scene.notifications.refused() >= 2).await;
    assert!(tried, "the account's own token and the shared one");
    let mut client = scene.client(third, &scene.accounts[0].user).await;
    let reply = client.command("c2 SETMETADATA INBOX (/private/devicetoken NIL)").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    scene.notifications.day(Day::Good);
    scene.settle(PATIENCE).await;
}
