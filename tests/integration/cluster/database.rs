//! A database that is away: for one node, for all, and for good.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::block_in_place;

use super::super::faults::ledger::Account;
use super::super::support::network::Manner;
use super::super::support::poll;
use super::super::support::postgres::Postgres;
use super::scene::{ClusterScene, DOCUMENT, PATIENCE, TAKEOVER};

/// Registers a token at a node until that is accepted.
async fn register_at_last(scene: &ClusterScene, node: usize, user: &str, token: &str) {
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
    register_at_last(&scene, 0, &scene.accounts[0].user, "openpgp:refused").await;
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
    register_at_last(&scene, 1, &scene.accounts[0].user, "openpgp:later").await;
    scene.accounts[0].tokens.push("openpgp:later".to_owned());
    // Its questions go to the first.
    scene.databases.swap(0, 1);
    scene.wait_for_shares_of(&["node-0", "node-1"]).await;
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    scene.settle(PATIENCE).await;
}

/// What was acknowledged while the standby was behind is lost. Nothing else is: claims, epochs, positions and generations that are
/// lost, too, are made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_go_on_with_a_standby_that_was_behind() {
    let primary = Postgres::start();
    let standby = primary.standby(false);
    let mut scene = ClusterScene::start_on(vec![primary, standby], 3, "300ms").await;
    scene.populate(9).await;
    block_in_place(|| scene.databases[1].stop_following());
    // A token, an account, the takeover of a node's slots, positions and marks: the standby has none of them.
    let lost = scene.accounts[0].user.clone();
    let owner = scene.owner_of(0);
    let reply = scene.register(owner, &lost, "openpgp:lost").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    let late = scene.dovecot.user("late");
    let reply = scene.register(owner, &late, "openpgp:late").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    scene.repeatable = 1;
    let killed = (owner + 1) % 3;
    block_in_place(|| scene.nodes[killed].deltapush.kill());
    let names: Vec<_> =
        (0..3).filter(|node| *node != killed).map(|node| format!("node-{node}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    scene.wait_for_shares_of(&names).await;
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    scene.settle(PATIENCE).await;

    block_in_place(|| {
        scene.databases[0].kill();
        scene.databases[1].promote();
    });
    scene.databases.swap(0, 1);
    // Of each message that was announced before, the answer is lost.
    scene.repeatable = scene.accounts.len() + 3;
    scene.wait_for_shares_of(&names).await;
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    scene.settle(PATIENCE).await;

    // Apps hand their tokens over again. None is acknowledged without being stored.
    register_at_last(&scene, owner, &lost, "openpgp:lost").await;
    register_at_last(&scene, owner, &late, "openpgp:late").await;
    scene.accounts[0].tokens.push("openpgp:lost".to_owned());
    let tokens = vec!["openpgp:late".to_owned()];
    scene.accounts.push(Account { user: late, tokens, quiet: false, gets_replies: true });
    let count = "SELECT count(*) FROM tokens WHERE token IN ('openpgp:lost', 'openpgp:late')";
    assert_eq!(scene.sql(count), "2");
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    scene.settle(PATIENCE).await;
}

/// Watches do not move for that: the mail is announced when the node reaches the server again, at once by the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mail_server_out_of_reach_of_one_node_holds_no_other_up() {
    let mut scene = ClusterScene::start(2).await;
    scene.populate(8).await;
    let owners: Vec<_> = (0..scene.accounts.len()).map(|account| scene.owner_of(account)).collect();
    let network = Arc::clone(&scene.nodes[0].to_dovecot);
    network.reachable(false);
    network.present(Manner::Reset);
    for account in 0..scene.accounts.len() {
        scene.deliver(account).await;
    }
    let posted = |scene: &ClusterScene, node: usize| {
        let accepted = scene.notifications.accepted();
        (0..scene.accounts.len())
            .filter(|account| owners[*account] == node)
            .filter(|account| {
                accepted.iter().any(|post| post.token == scene.accounts[*account].tokens[0])
            })
            .count()
    };
    let of_other = owners.iter().filter(|owner| **owner == 1).count();
    let announced = poll(PATIENCE, || posted(&scene, 1) == of_other).await;
    assert!(announced, "the other node announces {} of {of_other}", posted(&scene, 1));
    assert_eq!(posted(&scene, 0), 0, "nobody reaches these mailboxes");
    // A third one joins, and gets its share of those, too: it reaches the server.
    scene.join().await;
    scene.wait_for_shares_of(&["node-0", "node-1", "node-2"]).await;
    network.heal();
    scene.settle(PATIENCE).await;
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
