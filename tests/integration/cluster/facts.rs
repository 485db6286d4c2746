//! Facts about mail servers that one node finds out and the others use.

use std::time::Duration;

use super::super::support::client::Client;
use super::super::support::deltapush::{Deltapush, Options};
use super::super::support::dns::DnsServer;
use super::super::support::poll;
use super::super::support::postgres::Postgres;
use super::scene::ClusterScene;
use tokio::task::block_in_place;

/// Longest time until a node has told the others.
const TOLD: Duration = Duration::from_secs(60);

impl ClusterScene {
    /// A node that finds the servers of domains by its own DNS server.
    fn start_discovering(&self, name: &str, dns: &DnsServer) -> Deltapush {
        let ca = serde_json::json!(self.dovecot.authority.ca);
        let route = "domain: lab.test\n    discover: true\n    private: true\n";
        let database = &self.databases[0];
        let options = Options {
            routes: Some(format!("  - ca: {ca}\n    {route}")),
            storage: format!(
                "postgres: {}\n  key_file: {}",
                database.section(database.port),
                self.key().display()
            ),
            more: format!("node: {{name: {name}}}\n{}", dns.yaml()),
            ..Options::plain(0)
        };
        block_in_place(|| Deltapush::start(&options))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn server_that_one_node_has_found_is_used_by_a_node_that_starts() {
    let scene = ClusterScene::prepare(vec![Postgres::start()], "300ms").await;
    let (dns, other) = (DnsServer::start(), DnsServer::start());
    dns.service("_imaps._tcp.lab.test", 0, "mail.lab.test.", scene.dovecot.imaps);
    for dns in [&dns, &other] {
        dns.address("mail.lab.test", "127.0.0.1");
    }
    let first = scene.start_discovering("node-0", &dns);
    let user = scene.dovecot.user("facts");
    Client::plain(first.plain).await.log_in(&user).await;
    let stored = || {
        scene.sql("SELECT count(*) FROM server_facts WHERE name LIKE 'domain lab.test %'") == "1"
    };
    assert!(poll(TOLD, stored).await, "{}", first.log());
    let second = scene.start_discovering("node-1", &other);
    // Its own DNS server would say that there is none.
    Client::plain(second.plain).await.log_in(&user).await;
}
