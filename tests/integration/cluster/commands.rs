//! Commands at a node that does not own the account: another node does what is asked for, within a second.

use std::process::Output;
use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use super::super::support::poll;
use super::scene::{ClusterScene, PATIENCE};

/// A second, and what a busy machine adds. Without a notification a node looks after five.
const SOON: Duration = Duration::from_secs(3);

/// A command at the node that does not own account 0.
fn asked(scene: &ClusterScene, arguments: &[&str]) -> Output {
    let other = 1 - scene.owner_of(0);
    block_in_place(|| scene.nodes[other].deltapush.asked(arguments))
}

fn succeeds(scene: &ClusterScene, arguments: &[&str]) -> Output {
    let output = asked(scene, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commands_work_at_a_node_that_does_not_own_the_account() {
    let mut scene = ClusterScene::start(2).await;
    scene.populate(2).await;
    let user = scene.accounts[0].user.clone();

    let shown = succeeds(&scene, &["account", &user]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&user), "{shown:?}");

    let posted = |scene: &ClusterScene| {
        let accepted = scene.notifications.accepted();
        accepted.iter().filter(|post| post.token == scene.accounts[0].tokens[0]).count()
    };
    let before = posted(&scene);
    // No device comes.
    let tested = asked(&scene, &["push-test", &user, "--wait", "0"]);
    assert!(String::from_utf8_lossy(&tested.stdout).contains("POST, accepted"), "{tested:?}");
    assert!(poll(SOON, || posted(&scene) > before).await, "no test push");

    let watches = scene.dovecot.watches(&user).len();
    let began = Instant::now();
    succeeds(&scene, &["account", &user, "rewatch"]);
    let again = poll(SOON, || scene.dovecot.watches(&user).len() > watches).await;
    assert!(again, "its watch does not begin again within {SOON:?}");
    eprintln!("rewatch by the other node: {:.2} s", began.elapsed().as_secs_f32());
    scene.deliver(0).await;
    scene.repeatable = 1;
    scene.settle(PATIENCE).await;

    let began = Instant::now();
    succeeds(&scene, &["account", &user, "forget", "--yes"]);
    let ended = poll(SOON, || scene.sessions(0) == 0).await;
    assert!(ended, "its watch does not end within {SOON:?}");
    eprintln!("forget by the other node: {:.2} s", began.elapsed().as_secs_f32());
    let question = format!("SELECT count(*) FROM accounts WHERE name = '{user}'");
    assert_eq!(scene.sql(&question), "0");
    let before = posted(&scene);
    scene.dovecot.deliver_news(&user, "for nobody").await;
    scene.deliver(1).await;
    scene.settle(PATIENCE).await;
    assert_eq!(posted(&scene), before);
}
