//! Clients come through HAProxy, with the lines of docs/cluster.md, which leaves out a node that is away.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::task::block_in_place;
use tokio::time::{Instant, sleep, timeout};

use super::super::support::client::Client;
use super::super::support::guarded::Guarded;
use super::super::support::ports::{ReservedPort, wait_for_port};
use super::super::support::recipe::{Page, replaced};
use super::super::support::server::program;
use super::scene::{ClusterScene, PATIENCE};

const CLUSTER: Page = Page(include_str!("../../../docs/cluster.md"));

/// The page's line for the second node.
const SECOND: &str = "    server push-2 10.0.0.12:993 send-proxy-v2 check\n";

/// HAProxy in front of all nodes.
pub(super) struct HaProxy {
    pub(super) port: u16,
    _running: Guarded,
    _reserved: ReservedPort,
    _folder: tempfile::TempDir,
}

impl HaProxy {
    pub(super) fn start(scene: &ClusterScene) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let reserved = ReservedPort::new();
        let port = reserved.number();
        fs::write(folder.path().join("haproxy.cfg"), configuration(scene, port)).unwrap();
        let script = format!("exec '{}' -db -f haproxy.cfg", program("haproxy").display());
        let running = Guarded::start(&script, folder.path());
        assert!(block_in_place(|| wait_for_port(port, PATIENCE)), "HAProxy does not start");
        Self { port, _running: running, _reserved: reserved, _folder: folder }
    }
}

/// The page's configuration with the ports of these nodes.
fn configuration(scene: &ClusterScene, port: u16) -> String {
    let block = CLUSTER.block("The way of clients to the nodes", "", "backend deltapush");
    let address = |node: usize| format!("127.0.0.1:{}", scene.nodes[node].deltapush.imaps);
    let further: String = (1..scene.nodes.len())
        .map(|node| {
            let name = format!("push-{}", node + 1);
            SECOND.replace("push-2", &name).replace("10.0.0.12:993", &address(node))
        })
        .collect();
    replaced(
        block,
        &[
            ("10.0.0.11:993", &address(0)),
            (SECOND.trim_end(), further.trim_end()),
            (":::993 v4v6", &format!("127.0.0.1:{port}")),
        ],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_behind_haproxy_reach_a_node_that_is_there() {
    let mut scene = ClusterScene::start(2).await;
    scene.populate(2).await;
    let haproxy = HaProxy::start(&scene);
    let user = scene.accounts[0].user.clone();
    let ca = scene.databases[0].authority.ca.clone();
    for killed in [0, 1] {
        block_in_place(|| scene.nodes[killed].deltapush.kill());
        let mut client = reached(haproxy.port, &ca).await;
        client.log_in(&user).await;
        let reply = client.command("c2 NOOP").await;
        assert!(reply.result.starts_with("OK"), "{reply:?}");
        block_in_place(|| scene.nodes[killed].deltapush.start_again());
    }
}

/// A client that tries again, as apps do, until a node greets it.
async fn reached(port: u16, ca: &Path) -> Client {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let connecting = tokio::spawn({
            let ca = ca.to_owned();
            async move { Client::tls(port, &ca).await }
        });
        if let Ok(Ok(client)) = timeout(Duration::from_secs(5), connecting).await {
            return client;
        }
        sleep(Duration::from_millis(500)).await;
    }
    panic!("no node behind HAProxy greets a client");
}
