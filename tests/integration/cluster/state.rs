//! The state between a file and a database: moves as docs/cluster.md has them, cut off and repeated; and a new key for all nodes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use super::super::faults::ledger::Account;
use super::super::support::deltapush::Deltapush;
use super::super::support::network::Manner;
use super::super::support::poll;
use super::super::support::postgres::{Postgres, USER};
use super::scene::{ClusterScene, DOCUMENT, PATIENCE};

/// Accounts of a state whose move takes a while on a slow network.
const MANY: usize = 20_000;

/// Exit code of a state that cannot be used.
const EX_IOERR: Option<i32> = Some(74);

impl ClusterScene {
    /// A machine with a state file and accounts, each with a device, and an empty database.
    async fn alone(accounts: usize) -> Self {
        let mut scene = Self::prepare(vec![Postgres::start()], "300ms").await;
        scene.start_alone().await;
        for index in 0..accounts {
            let user = scene.dovecot.user(&format!("alone-{index}"));
            let token = format!("openpgp:alone-{index}");
            let reply = scene.register(0, &user, &token).await;
            assert!(reply.result.starts_with("OK"), "{reply:?}");
            let tokens = vec![token];
            scene.accounts.push(Account { user, tokens, quiet: false, gets_replies: true });
        }
        // Mail that is there before the first look is not new.
        for account in &scene.accounts {
            scene.dovecot.wait_for_watch(&account.user, 1).await;
        }
        scene
    }

    async fn deliver_to_all(&mut self) {
        for account in 0..self.accounts.len() {
            self.deliver(account).await;
        }
    }

    /// Adds `storage.postgres` to a node's configuration, or removes it.
    fn set_database(&self, node: usize, is_set: bool) {
        let line = format!("  {}\n", self.postgres_of(&self.nodes[node]));
        let path = self.nodes[node].deltapush.dir().join("config.yaml");
        let config = fs::read_to_string(&path).unwrap();
        let changed = match is_set {
            true => config.replacen("storage:\n", &format!("storage:\n{line}"), 1),
            false => config.replacen(&line, "", 1),
        };
        assert_ne!(config, changed, "{config}");
        fs::write(&path, changed).unwrap();
    }

    /// Runs the commands of a block of docs/cluster.md. Commands of the service concern these nodes, others the first one.
    /// Returns the output of deltapush.
    fn follow(&mut self, section: &str, words: &str, nodes: &[usize]) -> String {
        let mut shown = String::new();
        for line in DOCUMENT.block(section, "sh", words).lines() {
            let command = line.split(" #").next().unwrap_or_default().trim();
            let words: Vec<_> = command.split_whitespace().collect();
            match words.as_slice() {
                ["systemctl", "stop", "deltapush"] => {
                    nodes.iter().for_each(|node| _ = self.nodes[*node].deltapush.terminate())
                }
                ["systemctl", "start", "deltapush"] => self.start_again_together(nodes),
                ["deltapush", arguments @ ..] => {
                    shown += &succeeded(&self.nodes[nodes[0]].deltapush.asked(arguments));
                }
                // All nodes of the test have one key file, and the configuration is named.
                [] | ["cd", "/etc/deltapush"] | ["scp", ..] => {}
                other => panic!("not known how to follow {other:?}"),
            }
        }
        shown
    }
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn refused(output: &Output, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), EX_IOERR, "{output:?}");
    assert!(said.contains(words), "no {words:?}: {said}");
}

/// Starts the program with this key in its environment, where it must not stay.
fn run_with_key(deltapush: &Deltapush, key: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltapush"));
    command.arg("--config").arg(deltapush.dir().join("config.yaml"));
    command.env("DELTAPUSH_SEAL_KEY", key).stdin(Stdio::null()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_machine_becomes_several_nodes_and_one_again() {
    let mut scene = ClusterScene::alone(4).await;
    scene.deliver_to_all().await;
    scene.settle(PATIENCE).await;
    scene.set_database(0, true);
    // Nobody has moved the state yet: the empty database is no state.
    let config = scene.nodes[0].deltapush.dir().join("config.yaml");
    block_in_place(|| scene.nodes[0].deltapush.terminate());
    let early = block_in_place(|| scene.nodes[0].deltapush.asked(&["run"]));
    refused(&early, "has 4: move them with `deltapush state move --to postgres`");
    block_in_place(|| {
        scene.set_database(0, false);
        scene.nodes[0].deltapush.start_again();
        scene.set_database(0, true);
    });

    let said =
        block_in_place(|| scene.follow("From one machine to several", "--to postgres", &[0]));
    for words in
        ["        4  accounts\n", "all are the same", "opens the passwords of 4 accounts\n"]
    {
        assert!(said.contains(words), "no {words:?}: {said}");
    }
    scene.wait_for_shares_of(&["node-0"]).await;
    scene.deliver_to_all().await;
    scene.settle(PATIENCE).await;
    scene.join().await;
    scene.wait_for_shares_of(&["node-0", "node-1"]).await;
    scene.deliver_to_all().await;
    scene.settle(PATIENCE).await;
    let reply = scene.register(1, &scene.accounts[0].user, "openpgp:later").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    scene.accounts[0].tokens.push("openpgp:later".to_owned());

    // A service on the old file refuses, and says where the state is.
    let old = fs::read_to_string(&config).unwrap();
    scene.set_database(0, false);
    let moved = block_in_place(|| scene.nodes[0].deltapush.asked(&["run"]));
    refused(&moved, "set `storage.postgres` again");
    fs::write(&config, old).unwrap();
    let running =
        block_in_place(|| scene.nodes[0].deltapush.asked(&["state", "move", "--to", "sqlite"]));
    refused(&running, "stop all of them first");

    let said = block_in_place(|| scene.follow("Back to one machine", "--to sqlite", &[0, 1]));
    assert!(said.contains("        5  tokens\n"), "{said}");
    scene.set_database(0, false);
    block_in_place(|| scene.nodes[0].deltapush.start_again());
    scene.deliver_to_all().await;
    scene.settle(PATIENCE).await;
    let other = block_in_place(|| scene.nodes[1].deltapush.asked(&["run"]));
    refused(&other, "remove `storage.postgres` to use the state there");
}

/// Adds accounts to a state file, each with a token.
fn enlarge(deltapush: &Deltapush) {
    let file = rusqlite::Connection::open(deltapush.dir().join("state/state.sqlite")).unwrap();
    file.execute_batch(&format!(
        "INSERT INTO accounts (name, upstream, credentials, created, watched)
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})
             SELECT 'many' || i || '@lab.test', 'localhost:1', x'', 1, 0 FROM n;
         INSERT INTO tokens (account, hash, token, first_seen, last_seen)
             SELECT id, randomblob(32), 'openpgp:' || hex(randomblob(80)), 1, 1 FROM accounts
             WHERE watched = 0;"
    ))
    .unwrap();
}

/// Kills `deltapush state move` while rows are under way.
async fn kill_in_the_middle(scene: &ClusterScene, to: &str) {
    scene.nodes[0].to_database[0].all(Manner::Throttled(400_000));
    let mut moving =
        block_in_place(|| scene.nodes[0].deltapush.asking(&["state", "move", "--to", to]));
    let copies = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY%tokens%'";
    let begun = poll(PATIENCE, || scene.sql(copies) == "1").await;
    assert!(begun, "no rows are under way: {:?}", moving.try_wait());
    block_in_place(|| {
        moving.kill().unwrap();
        moving.wait().unwrap()
    });
    scene.nodes[0].to_database[0].heal();
    let others = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'deltapush'";
    assert!(poll(PATIENCE, || scene.sql(others) == "0").await, "the database does not notice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn move_that_is_killed_loses_nothing() {
    let mut scene = ClusterScene::alone(1).await;
    block_in_place(|| scene.nodes[0].deltapush.terminate());
    enlarge(&scene.nodes[0].deltapush);
    scene.set_database(0, true);
    kill_in_the_middle(&scene, "postgres").await;
    assert_eq!(scene.sql("SELECT to_regclass('accounts') IS NULL"), "t", "nothing is left there");
    scene.set_database(0, false);
    block_in_place(|| scene.nodes[0].deltapush.start_again());
    scene.deliver_to_all().await;
    scene.settle(PATIENCE).await;
    block_in_place(|| scene.nodes[0].deltapush.terminate());
    scene.set_database(0, true);
    let begun = Instant::now();
    let there =
        block_in_place(|| scene.nodes[0].deltapush.asked(&["state", "move", "--to", "postgres"]));
    let said = succeeded(&there);
    let accounts = format!("  {}  accounts\n", MANY + 1);
    assert!(said.contains(&accounts), "{said}");
    eprintln!("{MANY} accounts moved in {:.1} s", begun.elapsed().as_secs_f32());
    assert!(begun.elapsed() < Duration::from_secs(60));

    kill_in_the_middle(&scene, "sqlite").await;
    block_in_place(|| scene.nodes[0].deltapush.start_again());
    scene.wait_for_shares_of(&["node-0"]).await;
    scene.deliver_to_all().await;
    scene.settle(PATIENCE).await;
    block_in_place(|| scene.nodes[0].deltapush.terminate());
    let back =
        block_in_place(|| scene.nodes[0].deltapush.asked(&["state", "move", "--to", "sqlite"]));
    assert!(succeeded(&back).contains(&accounts), "{back:?}");
    scene.set_database(0, false);
    let sound = block_in_place(|| scene.nodes[0].deltapush.asked(&["state", "check"]));
    assert!(succeeded(&sound).contains("opens all sealed credentials"), "{sound:?}");
    block_in_place(|| scene.nodes[0].deltapush.start_again());
    scene.deliver_to_all().await;
    scene.settle(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mistakes_move_nothing_and_show_no_key() {
    let mut scene = ClusterScene::alone(1).await;
    scene.set_database(0, true);
    let to = |place: &str| {
        block_in_place(|| scene.nodes[0].deltapush.asked(&["state", "move", "--to", place]))
    };
    refused(&to("postgres"), "is in use by another deltapush; stop that one");
    block_in_place(|| scene.nodes[0].deltapush.terminate());
    let key = fs::read_to_string(scene.key()).unwrap();
    let wrong = format!("{}=", "A".repeat(43));
    fs::write(scene.key(), &wrong).unwrap();
    let to = |place: &str| {
        let output =
            block_in_place(|| scene.nodes[0].deltapush.asked(&["state", "move", "--to", place]));
        let shown = [output.stdout.clone(), output.stderr.clone()].concat();
        let shown = String::from_utf8(shown).unwrap();
        assert!(!shown.contains(&wrong) && !shown.contains(key.trim()), "{shown}");
        output
    };
    refused(&to("postgres"), "is not the one that the credentials are sealed with");
    refused(&to("sqlite"), "has no tables of deltapush yet");
    fs::write(scene.key(), &key).unwrap();
    block_in_place(|| scene.databases[0].stop());
    let away = to("postgres");
    refused(&away, "the database of storage.postgres cannot be used");
    refused(&away, "; nothing has moved: the state is still in ");
    block_in_place(|| scene.databases[0].start_again());
    let there = to("postgres");
    assert!(succeeded(&there).contains("1  accounts"), "{there:?}");
    refused(&to("postgres"), "the state was moved to database");
    // Undone: the file is the state again, and the database is not empty once a node has changed it.
    scene.sql("UPDATE tokens SET accepted = 4");
    let undone = block_in_place(|| {
        scene.nodes[0].deltapush.asked(&["state", "move", "--to", "postgres", "--undo"])
    });
    assert!(succeeded(&undone).contains("is used again"), "{undone:?}");
    refused(&to("postgres"), "has accounts already, and states are not merged");
    scene.set_database(0, false);
    block_in_place(|| scene.nodes[0].deltapush.start_again());
    scene.deliver_to_all().await;
    scene.settle(PATIENCE).await;
    assert_eq!(scene.databases[0].sql(USER, "SELECT count(*) FROM accounts"), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_nodes_get_a_new_key() {
    let mut scene = ClusterScene::start(3).await;
    scene.populate(6).await;
    scene.deliver_to_all().await;
    scene.settle(PATIENCE).await;
    let early = block_in_place(|| scene.nodes[0].deltapush.asked(&["state", "rotate-key"]));
    refused(&early, "node-0, node-1, node-2");
    let copy = scene.nodes[0].deltapush.dir().join("copy");
    let copied = block_in_place(|| {
        scene.nodes[0].deltapush.asked(&["state", "backup", copy.to_str().unwrap()])
    });
    refused(&copied, "which is backed up by its own tools, such as `pg_dump`");
    assert!(!copy.exists());
    let old = fs::read_to_string(scene.key()).unwrap();
    block_in_place(|| {
        scene.nodes.iter_mut().for_each(|node| _ = node.deltapush.terminate());
        let rotated = scene.nodes[0].deltapush.asked(&["state", "rotate-key"]);
        let said = succeeded(&rotated);
        let accounts =
            format!("passwords of {} accounts are sealed with a new key", scene.accounts.len());
        assert!(said.contains(&accounts) && said.contains("each node needs the new key"), "{said}");
    });
    assert_ne!(fs::read_to_string(scene.key()).unwrap(), old);
    assert_eq!(fs::metadata(scene.key()).unwrap().permissions().mode() & 0o777, 0o600);
    let with_old = block_in_place(|| run_with_key(&scene.nodes[1].deltapush, &old));
    refused(&with_old, "is not the one that the other nodes seal credentials with: copy theirs");
    scene.start_again_together(&[0, 1, 2]);
    scene.wait_for_shares_of(&["node-0", "node-1", "node-2"]).await;
    scene.deliver_to_all().await;
    scene.settle(PATIENCE).await;
    // Once more, as the page has it.
    let said = block_in_place(|| scene.follow("A new key", "rotate-key", &[0, 1, 2]));
    assert!(said.contains("are sealed with a new key"), "{said}");
    scene.wait_for_shares_of(&["node-0", "node-1", "node-2"]).await;
    scene.deliver_to_all().await;
    scene.settle(PATIENCE).await;
}
