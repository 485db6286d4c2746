//! A push is never lost by several nodes: they are killed, stopped, sent away and started, the database is restarted and fails over,
//! ways to it and to the mail server break, at random, while mail arrives. In the end each account's ledger must agree, each
//! repeated POST must have an explanation, and each takeover must have been in time.
//!
//! Each round has a calm, in which nodes alone fail, so that takeovers are judged by their bounds, and a storm, in which all faults
//! meet. The seed and the long run are those of [`faults`](super::super::faults): `DELTAPUSH_SEED=n`, `DELTAPUSH_FAULTS=long`.

mod books;
mod calm;
mod database;
mod duplicates;
mod nodes;
mod outages;
mod takeovers;
mod ways;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::sleep;

use self::books::Books;
use self::database::{DatabaseFault, DatabaseWays, Databases};
use self::nodes::{NodeFault, Nodes};
use self::outages::Outages;
use self::takeovers::Takeovers;
use self::ways::{MailFault, MailWays, Ways};
use super::super::faults::lane::{Lane, Span};
use super::super::faults::ledger::{Account, Missing, Tally};
use super::super::faults::plan::{self, Stream};
use super::super::faults::post::Ports;
use super::super::support::postgres::Postgres;
use super::scene::ClusterScene;

/// Quantities of a run.
#[derive(Clone, Copy)]
struct Plan {
    rounds: usize,
    /// The messages of a storm.
    stream: Stream,
    /// Between two faults of nodes.
    node_gap: Span,
    /// Between two faults of the database, and between two on the ways to the mail server.
    gap: Span,
    /// Least number of kinds of faults of nodes in a storm.
    node_faults: usize,
    /// Time limit for the last announcement after the last fault.
    patience: Duration,
}

const ACCOUNTS: usize = 100;

/// Part of every test run: each fault once, as a rule.
const SHORT: Plan = Plan {
    rounds: 1,
    stream: Stream { messages: 150, senders: 6, pause: Span(100, 700) },
    node_gap: Span(100, 700),
    gap: Span(500, 1_500),
    node_faults: 1,
    patience: Duration::from_secs(60),
};

const LONG: Plan = Plan {
    rounds: 5,
    stream: Stream { messages: 500, senders: 8, pause: Span(0, 2_000) },
    node_gap: Span(500, 5_000),
    gap: Span(1_000, 10_000),
    node_faults: NodeFault::ALL.len(),
    patience: Duration::from_secs(300),
};

/// Two accounts share a device; every tenth has two devices; every seventh is sent nothing that deserves a push.
fn account(user: String, index: usize) -> Account {
    let devices = if index.is_multiple_of(10) { 2 } else { 1 };
    let mut tokens: Vec<String> =
        (0..devices).map(|device| format!("openpgp:{index}-{device}")).collect();
    if index < 2 {
        tokens[0] = "openpgp:shared".to_owned();
    }
    Account { user, tokens, quiet: index % 7 == 6, gets_replies: true }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_push_is_lost_by_several_nodes_whatever_breaks() {
    let plan = if plan::is_long() { LONG } else { SHORT };
    let seed = plan::seed();
    let (began, mut rng) = (Instant::now(), Rng::with_seed(seed));

    let primary = Postgres::start();
    let standby = primary.standby(true);
    let mut scene = ClusterScene::start_on(vec![primary, standby], 3, "300ms").await;
    scene.populate_with(ACCOUNTS, account).await;
    let ready = began.elapsed();
    let ClusterScene { nodes, databases, dovecot, notifications, accounts, .. } = &mut scene;
    let accounts = Arc::new(std::mem::take(accounts));
    let ports = Ports { imap: dovecot.imap, lmtp: dovecot.lmtp };
    let books = Arc::new(Books::new(Arc::clone(&accounts), ports, Arc::clone(notifications)));
    let outages = Arc::new(Outages::default());
    let takeovers = Arc::new(Takeovers::default());
    let ways = Ways::of(nodes);
    let standby = databases.pop().expect("a primary and its standby");
    let primary = databases.pop().expect("a primary");
    let databases = Arc::new(Databases::new(primary, standby));
    let nodes = Nodes {
        nodes: std::mem::take(nodes),
        books: Arc::clone(&books),
        databases: Arc::clone(&databases),
        takeovers: Arc::clone(&takeovers),
        outages: Arc::clone(&outages),
        ways: ways.clone(),
    };
    let database_ways = DatabaseWays {
        databases: Arc::clone(&databases),
        ways: ways.clone(),
        outages: Arc::clone(&outages),
    };
    let mail_ways = MailWays { ways, outages: Arc::clone(&outages) };

    let mut nodes = Lane::new(nodes, &NodeFault::ALL, plan.node_gap, rng.fork());
    let mut database_ways = Lane::new(database_ways, &DatabaseFault::ALL, plan.gap, rng.fork());
    let mut mail_ways = Lane::new(mail_ways, &MailFault::ALL, plan.gap, rng.fork());
    let (mut settled, mut last) = (Duration::ZERO, Tally::default());
    for _ in 0..plan.rounds {
        nodes.part.break_in_calm(&mut rng).await;
        let (over, is_over) = watch::channel(false);
        let breaking_nodes = tokio::spawn(nodes.run(plan.node_faults, is_over.clone()));
        let breaking_databases = tokio::spawn(database_ways.run_all(is_over.clone()));
        let breaking_mail = tokio::spawn(mail_ways.run_all(is_over));
        books.deliver(plan.stream, &mut rng).await;
        over.send_replace(true);
        nodes = breaking_nodes.await.unwrap();
        database_ways = breaking_databases.await.unwrap();
        mail_ways = breaking_mail.await.unwrap();

        let healed = Instant::now();
        // Further messages would make good what is missing.
        last = books.settle(plan.patience).await;
        if !last.missing.is_empty() {
            break;
        }
        settled = settled.max(healed.elapsed());
        // Surplus pushes come at the end of a window.
        sleep(Duration::from_secs(2)).await;
        last = books.last_round(plan.patience).await;
        if !last.missing.is_empty() {
            break;
        }
    }
    let tally = Tally { missing: last.missing, ..books.tally() };
    let duplicates = duplicates::explain(&books, &outages);
    let times = takeovers.times(&books);

    let mut report = format!(
        "\n| several nodes, seed {seed} | {ACCOUNTS} accounts, {:.0} s, {:.0} s of them before the first fault |\n| --- | ---: |\n",
        began.elapsed().as_secs_f32(),
        ready.as_secs_f32()
    );
    for (name, count) in nodes.count.iter().chain(&database_ways.count).chain(&mail_ways.count) {
        writeln!(report, "| {name} | {count:>6} |").unwrap();
    }
    eprintln!(
        "{report}{tally}\n{duplicates}{}| from the last fault to the last announcement | {:>4.1} s |",
        takeovers::table(&times),
        settled.as_secs_f32()
    );
    assert!(tally.missing.is_empty(), "seed {seed}: not announced:\n{}", list(&tally.missing));
    assert!(tally.nuisances.is_empty(), "seed {seed}: for nothing: {:?}", tally.nuisances);
    assert!(
        duplicates.unexplained.is_empty(),
        "seed {seed}: announced twice without a reason:\n{}\nfaults:\n{outages}",
        duplicates.unexplained.join("\n")
    );
    let late: Vec<_> = times.iter().filter(|takeover| takeover.is_late()).collect();
    assert!(late.is_empty(), "seed {seed}: taken over too late: {late:?}\nfaults:\n{outages}");
    assert_eq!(books.strange(), Vec::<String>::new());
    // Their logs are shown if something failed before this.
    drop((nodes, databases));
}

fn list(missing: &[Missing]) -> String {
    missing.iter().map(|missing| format!("{missing}\n")).collect()
}
