//! A real Delta Chat core whose sessions come to three nodes through HAProxy.

use serde_json::json;
use tokio::task::block_in_place;

use super::super::faults::ledger::Account;
use super::super::support::core::{Core, Submission, Version};
use super::super::support::poll;
use super::balancer::HaProxy;
use super::scene::{ClusterScene, PATIENCE, TAKEOVER};

impl ClusterScene {
    /// The nodes at which the account's client has logged in.
    fn visited(&self, user: &str) -> Vec<usize> {
        let has_come = |node: &usize| {
            let log = self.nodes[*node].deltapush.log();
            log.lines().any(|line| line.contains("logged in") && line.contains(user))
        };
        (0..self.nodes.len()).filter(has_come).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn core_lives_through_the_end_of_nodes() {
    let mut scene = ClusterScene::start(3).await;
    let haproxy = HaProxy::start(&scene);
    let submission = Submission::start(&scene.dovecot).await;
    let user = scene.dovecot.user("cluster-core");
    let mut core = Core::start(Version::WithToken).await;
    let account = core.add_account(&user, haproxy.port, submission.port).await;
    core.call("start_io_for_all_accounts", json!([])).await;
    core.event(account, "ImapInboxIdle").await;
    let token = || scene.sql("SELECT token FROM tokens");
    let is_there = poll(PATIENCE, || token().starts_with("openpgp:")).await;
    assert!(is_there, "the core has handed over {:?}", token());
    let tokens = vec![token()];
    scene.accounts.push(Account { user: user.clone(), tokens, quiet: false, gets_replies: true });
    let visited = scene.visited(&user);
    assert!(visited.len() > 1, "all sessions came to {visited:?}");

    // The owner of its account dies, and perhaps the node of its session: it is online and gets the message all the same.
    let owner = scene.owner_of(0);
    block_in_place(|| scene.nodes[owner].deltapush.kill());
    scene.deliver(0).await;
    core.event(account, "IncomingMsg").await;
    let announced = poll(TAKEOVER, || scene.tally().missing.is_empty()).await;
    assert!(announced, "not announced within {TAKEOVER:?}:\n{}", scene.tally());
    block_in_place(|| scene.nodes[owner].deltapush.start_again());
    scene.wait_for_shares_of(&["node-0", "node-1", "node-2"]).await;

    // Its app is gone, and the next owner dies.
    core.kill().await;
    let owner = scene.owner_of(0);
    scene.repeatable = 1;
    block_in_place(|| scene.nodes[owner].deltapush.kill());
    scene.deliver(0).await;
    let announced = poll(TAKEOVER, || scene.tally().missing.is_empty()).await;
    assert!(announced, "not announced within {TAKEOVER:?}:\n{}", scene.tally());
    scene.settle(PATIENCE).await;
}
