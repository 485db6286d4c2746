//! Any node shows all nodes: `status`, `account`, the web page, metrics and health.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::block_in_place;

use super::super::admin::dashboard::assert_dashboard_shows;
use super::super::support::accessibility::{Subject, check_after};
use super::super::support::browser::{Browser, Look};
use super::super::support::poll;
use super::scene::{ClusterScene, Node, PATIENCE, TAKEOVER};

/// Longest time of an answer by way of the database, on a busy machine.
const ANSWER: Duration = Duration::from_secs(3);

/// Longest time in which `status` answers while the database is away, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(8);

impl Node {
    fn status(&self) -> Value {
        let output = block_in_place(|| self.deltapush.asked(&["status", "--json"]));
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn status_text(&self) -> String {
        block_in_place(|| self.deltapush.status())
    }

    fn account(&self, user: &str) -> Value {
        let found = block_in_place(|| self.deltapush.account(user));
        found.unwrap_or_else(|| panic!("{} does not know {user}", self.name))
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let _ = deltapush::crypto::provider();
        let password = self.password();
        let request = reqwest::Client::new()
            .get(format!("http://127.0.0.1:{}{path}", self.admin.number()))
            .basic_auth("admin", Some(&password));
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    fn password(&self) -> String {
        let path = self.deltapush.dir().join("state/admin.password");
        fs::read_to_string(path).unwrap().trim().to_owned()
    }

    fn page(&self) -> String {
        format!("http://admin:{}@127.0.0.1:{}/", self.password(), self.admin.number())
    }

    /// Waits until its status is so.
    async fn until_shows(&self, patience: Duration, is_shown: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let shown = poll(patience, || {
            last = self.status();
            is_shown(&last)
        });
        assert!(shown.await, "{}: {:#}", self.name, last["cluster"]);
        last
    }
}

/// Living nodes by name.
fn living(status: &Value) -> Vec<&str> {
    let nodes = status["cluster"]["nodes"].as_array().unwrap();
    let lives = |node: &&Value| node["state"] == "living";
    nodes.iter().filter(lives).map(|node| node["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_node_shows_all_nodes_and_the_owner_of_each_account() {
    // The third one joins when the first is there to tell of it.
    let mut scene = ClusterScene::start(2).await;
    scene.join().await;
    scene.wait_for_shares_of(&["node-0", "node-1", "node-2"]).await;
    scene.populate(6).await;
    let accounts = scene.accounts.len();
    for node in &scene.nodes {
        let status = node
            .until_shows(PATIENCE, |status| {
                let nodes = status["cluster"]["nodes"].as_array().unwrap();
                let told = nodes.iter().all(|node| node["counts"]["accounts"].is_u64());
                told && status["counts"]["watched"] == accounts
            })
            .await;
        assert_eq!(living(&status), ["node-0", "node-1", "node-2"]);
        assert_eq!(status["cluster"]["node"], node.name);
        assert_eq!(status["counts"]["accounts"], accounts);
        assert_eq!(status["accounts"].as_array().unwrap().len(), accounts);
        let nodes = status["cluster"]["nodes"].as_array().unwrap();
        let slots: u64 = nodes.iter().map(|node| node["slots"].as_u64().unwrap()).sum();
        assert_eq!((slots, &status["cluster"]["unowned_slots"]), (1024, &Value::from(0)));
        for shown in nodes {
            assert!(shown["lease_age_milliseconds"].as_u64() < Some(9_000), "{shown:#}");
            assert!(shown["database_worst_microseconds"].as_u64() > Some(0), "{shown:#}");
            assert!(shown["log_lag_microseconds"].as_u64() > Some(0), "{shown:#}");
        }
    }
    scene.deliver(0).await;
    scene.settle(PATIENCE).await;
    for account in 0..accounts {
        let (owner, user) = (scene.owner_of(account), scene.accounts[account].user.clone());
        for (index, node) in scene.nodes.iter().enumerate() {
            let watch = node.account(&user)["account"]["watch"].clone();
            let name = Value::from(scene.nodes[owner].name.as_str());
            let named = if index == owner { &Value::Null } else { &name };
            assert_eq!((&watch["state"], &watch["node"]), (&"watching".into(), named));
        }
    }
    // The history is that of the owner, within a second and what a busy machine adds.
    let (owner, user) = (scene.owner_of(0), scene.accounts[0].user.clone());
    let other = &scene.nodes[(owner + 1) % 3];
    let asked = Instant::now();
    let (there, here) = (scene.nodes[owner].account(&user), other.account(&user));
    assert!(asked.elapsed() < 2 * ANSWER, "{:?}", asked.elapsed());
    assert_eq!(here["happened"], there["happened"]);
    assert!(here["happened"].to_string().contains("to be pushed"), "{here:#}");
    let text = block_in_place(|| other.deltapush.asked(&["account", &user]).stdout);
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(&format!("Node node-{owner} watches it")), "{text}");
    let status = other.status();
    let listed = status["accounts"].as_array().unwrap();
    let listed = listed.iter().find(|account| account["name"] == user.as_str()).unwrap();
    assert_eq!(listed["watch"]["state"], "at-another-node");
    assert_eq!(listed["watch"]["node"], format!("node-{owner}"));
    let found = block_in_place(|| other.deltapush.asked(&["status", &user, "--json"]).stdout);
    let found: Value = serde_json::from_slice(&found).unwrap();
    assert_eq!(found["accounts"].as_array().unwrap().len(), 1, "{found:#}");
    let (_, metrics) = other.get("/metrics").await;
    assert_dashboard_shows(&metrics, |_| true);
    for line in [
        "deltapush_nodes{state=\"living\"} 3",
        "deltapush_lease_held 1",
        "deltapush_database_up 1",
        "deltapush_slots_without_node 0",
        "deltapush_node_slots{node=\"node-2\"} 34",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    // The portions in which a share moves are not the operator's business.
    let reports = |node: &Node| node.deltapush.log().matches(" of 1024 slots").count();
    let reported = poll(PATIENCE, || reports(&scene.nodes[2]) > 0).await;
    assert!(reported && reports(&scene.nodes[2]) <= 2, "{}", scene.nodes[2].deltapush.log());
    let log = scene.nodes[0].deltapush.log();
    assert_eq!(log.matches("node node-2 has joined").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn death_of_a_node_is_shown_with_its_successors() {
    let mut scene = ClusterScene::start(3).await;
    scene.populate(6).await;
    let account = scene.account_of(1);
    let user = scene.accounts[account].user.clone();
    let died = Instant::now();
    block_in_place(|| scene.nodes[1].deltapush.kill());
    for index in [0, 2] {
        let node = &scene.nodes[index];
        let status = node
            .until_shows(TAKEOVER, |status| {
                let cluster = &status["cluster"];
                cluster["ended"][0]["name"] == "node-1" && cluster["unowned_slots"] == 0
            })
            .await;
        eprintln!("shown by {} after {:.1} s", node.name, died.elapsed().as_secs_f32());
        assert_eq!(living(&status), ["node-0", "node-2"]);
        let ended = &status["cluster"]["ended"][0];
        assert_eq!(ended["has_died"], true);
        let successors = ended["successors"].as_array().unwrap();
        let slots: u64 =
            successors.iter().map(|successor| successor["slots"].as_u64().unwrap()).sum();
        assert!((340..=342).contains(&slots), "{ended:#}");
        let text = node.status_text();
        assert!(text.contains("node node-1 is gone: its lease ended "), "{text}");
        let log = node.deltapush.log();
        assert_eq!(log.matches("node node-1 is gone").count(), 1, "{log}");
        // The owner is named by both.
        let owner = scene.owner_of(account);
        let watch = node.account(&user)["account"]["watch"].clone();
        let name = scene.nodes[owner].name.as_str();
        let named = if index == owner { Value::Null } else { name.into() };
        assert_eq!(watch["node"], named, "{watch:#}");
    }
    // The page is looked at when it does not change any more.
    let accounts = scene.accounts.len();
    let is_watched = |status: &Value| status["counts"]["watched"] == accounts;
    scene.nodes[0].until_shows(PATIENCE, is_watched).await;
    let mut browser = Browser::start();
    let page = scene.nodes[0].page();
    let subject = Subject { name: "admin-nodes", url: &page, text: "node-1 is gone" };
    // An update in the midst of a check leaves it undecided, and on a busy machine there is always one.
    check_after(&mut browser, &subject, |browser| {
        browser.run("if (typeof source !== 'undefined') source.close()");
    });
    let shown = browser.open(&page, Look { width: 390, scheme: "light", script: true });
    assert!(shown.width <= 390.0, "wider than a phone: {}", shown.width);
    assert!(shown.html.contains("renewed in time"), "{}", shown.html);
    block_in_place(|| scene.nodes[1].deltapush.start_again());
    let back = |status: &Value| {
        status["cluster"]["ended"] == Value::Array(vec![]) && living(status).len() == 3
    };
    scene.nodes[2].until_shows(PATIENCE, back).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn database_that_is_away_is_shown_and_takes_no_node_out() {
    let mut scene = ClusterScene::start(2).await;
    scene.populate(2).await;
    let node = &scene.nodes[0];
    let (status, text) = node.get("/readyz").await;
    assert!(status == 200 && text.contains("ok   lease: is held: 512 of 1024 slots"), "{text}");
    block_in_place(|| scene.databases[0].kill());
    let lapsed = |status: &Value| status["cluster"]["lapsed_since"].is_string();
    let node = &scene.nodes[0];
    let shown = node.until_shows(TAKEOVER, lapsed).await;
    assert!(shown["cluster"]["database"]["since"].is_string(), "{shown:#}");
    let begun = Instant::now();
    let text = node.status_text();
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    for words in
        ["the database has not answered this node since", "this node has had no lease since"]
    {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    let (status, text) = node.get("/readyz").await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("warn database: has not answered for"), "{text}");
    assert!(text.contains("warn lease: lapsed"), "{text}");
    let (_, metrics) = node.get("/metrics").await;
    assert!(metrics.contains("deltapush_lease_held 0"), "{metrics}");
    assert!(metrics.contains("deltapush_database_up 0"), "{metrics}");
    let (_, page) = node.get("/").await;
    assert!(page.contains("the database has not answered this node since"), "{page}");
    block_in_place(|| scene.databases[0].start_again());
    let is_well = |status: &Value| {
        status["cluster"]["lapsed_since"].is_null()
            && status["cluster"]["unowned_slots"] == 0
            && status["counts"]["watched"] == scene.accounts.len()
    };
    scene.nodes[0].until_shows(PATIENCE, is_well).await;
    assert_eq!(scene.nodes[0].get("/readyz").await.0, 200);
}
