//! A mail server that tells any of three nodes of new mail.

use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use super::super::support::poll;
use super::scene::{ClusterScene, PATIENCE, TAKEOVER};

/// Below the time after which a node looks for itself, if it has missed a notification.
const AT_ONCE: Duration = Duration::from_secs(4);

impl ClusterScene {
    /// Tells a node of a message for the account.
    fn tell(&self, node: usize, account: usize) {
        let user = &self.accounts[account].user;
        let told = block_in_place(|| self.nodes[node].deltapush.asked(&["news", user]));
        assert!(told.status.success(), "{told:?}");
    }

    fn pushes(&self, account: usize) -> usize {
        let token = &self.accounts[account].tokens[0];
        self.notifications.accepted().iter().filter(|accepted| accepted.token == *token).count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn news_may_come_to_any_node_and_outlives_the_owner() {
    let mut scene = ClusterScene::start(3).await;
    scene.populate(3).await;
    for node in &scene.nodes {
        let with_news = |text: &str| text.replace("\n    ca: ", "\n    news: both\n    ca: ");
        node.deltapush.reconfigure(with_news);
    }
    let is_read = |node: &super::scene::Node| {
        node.deltapush.log().contains("the configuration was read again")
    };
    assert!(poll(PATIENCE, || scene.nodes.iter().all(is_read)).await);
    for node in 0..3 {
        let (before, began) = (scene.pushes(0), Instant::now());
        scene.tell(node, 0);
        let pushed = poll(PATIENCE, || scene.pushes(0) > before).await;
        let took = began.elapsed();
        eprintln!("pushed after {} ms, told at {node}", took.as_millis());
        assert!(pushed && took < AT_ONCE, "{took:?} at {node} of {}", scene.owner_of(0));
    }
    // A POST whose answer nobody has written may be repeated.
    let waiting = "SELECT count(*) FROM tokens WHERE pending IS NOT NULL";
    assert!(poll(PATIENCE, || scene.sql(waiting) == "0").await);
    let (owner, before) = (scene.owner_of(0), scene.pushes(0));
    block_in_place(|| scene.nodes[owner].deltapush.kill());
    scene.tell((owner + 1) % 3, 0);
    assert!(poll(TAKEOVER, || scene.pushes(0) > before).await, "the next owner takes it in");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.pushes(0), before + 1, "once");
}
