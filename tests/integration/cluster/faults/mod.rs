//! A push is never lost by several nodes: they are killed, stopped, sent away and started, the database is restarted and fails over,
//! ways to it and to the mail server break, at random, while mail arrives. In the end each account's ledger must agree, each
//! repeated POST must have an explanation, and each takeover must have been in time.
//!
//! The seed and the long run are those of [`faults`](super::super::faults): `DELTAPUSH_SEED=n`, `DELTAPUSH_FAULTS=long`.

mod books;
mod duplicates;
mod outages;
mod takeovers;
mod weather;

use std::env;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::sleep;

use self::books::Books;
use self::outages::Outages;
use self::takeovers::Takeovers;
use self::weather::{Databases, NodeWeather};
use super::super::faults::ledger::{Account, Missing, Tally};
use super::super::faults::post::Ports;
use super::super::faults::weather::Span;
use super::super::support::postgres::Postgres;
use super::scene::ClusterScene;

/// Quantities of a run.
#[derive(Clone, Copy)]
struct Plan {
    messages: usize,
    /// Number of concurrent senders.
    senders: usize,
    /// Between two deliveries of one sender.
    pause: Span,
    /// Between two faults of nodes.
    node_gap: Span,
    /// Between two faults of the database, and between two on the ways to the mail server.
    gap: Span,
    /// Time limit for the last announcement after the last fault.
    patience: Duration,
}

const ACCOUNTS: usize = 100;

/// Part of every test run: each fault once, as a rule.
const SHORT: Plan = Plan {
    messages: 240,
    senders: 6,
    pause: Span(300, 1_100),
    node_gap: Span(100, 700),
    gap: Span(2_000, 4_500),
    patience: Duration::from_secs(60),
};

const LONG: Plan = Plan {
    messages: 2_500,
    senders: 8,
    pause: Span(0, 2_000),
    node_gap: Span(500, 8_000),
    gap: Span(1_000, 12_000),
    patience: Duration::from_secs(600),
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
    let plan = match env::var("DELTAPUSH_FAULTS").as_deref() {
        Ok("long") => LONG,
        _ => SHORT,
    };
    let seed =
        env::var("DELTAPUSH_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    // Before anything can fail.
    eprintln!("cluster faults: to take this run's seed again, set DELTAPUSH_SEED={seed}");
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
    let ways = weather::Ways::of(nodes);
    let standby = databases.pop().expect("a primary and its standby");
    let primary = databases.pop().expect("a primary");
    let databases = Arc::new(Databases::new(primary, standby));

    let (over, is_over) = watch::channel(false);
    let breaking_nodes = tokio::spawn(weather::break_nodes(
        NodeWeather {
            nodes: std::mem::take(nodes),
            books: Arc::clone(&books),
            databases: Arc::clone(&databases),
            takeovers: Arc::clone(&takeovers),
            outages: Arc::clone(&outages),
            ways: ways.clone(),
        },
        plan.node_gap,
        rng.fork(),
        is_over.clone(),
    ));
    let breaking_databases = tokio::spawn(weather::break_databases(
        Arc::clone(&databases),
        ways.clone(),
        Arc::clone(&outages),
        plan.gap,
        rng.fork(),
        is_over.clone(),
    ));
    let breaking_mail = tokio::spawn(weather::break_mail(
        ways,
        Arc::clone(&outages),
        plan.gap,
        rng.fork(),
        is_over,
    ));
    books.deliver(plan, &mut rng).await;
    over.send_replace(true);
    let (nodes, of_nodes) = breaking_nodes.await.unwrap();
    let of_databases = breaking_databases.await.unwrap();
    let of_mail = breaking_mail.await.unwrap();

    let healed = Instant::now();
    let tally = books.settle(plan.patience).await;
    let settled = healed.elapsed();
    // Surplus pushes come at the end of a window.
    sleep(Duration::from_secs(2)).await;
    let tally = Tally { missing: tally.missing, ..books.tally() };
    let duplicates = duplicates::explain(&books, &outages);
    let times = takeovers.times(&books, &outages);
    let last = books.last_round(plan.patience).await;

    let mut report = format!(
        "\n| several nodes, seed {seed} | {ACCOUNTS} accounts, {:.0} s, {:.0} s of them before the first fault |\n| --- | ---: |\n",
        began.elapsed().as_secs_f32(),
        ready.as_secs_f32()
    );
    for (name, count) in of_nodes.iter().chain(&of_databases).chain(&of_mail) {
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
    assert!(
        last.missing.is_empty(),
        "seed {seed}: not watched any more in the end:\n{}",
        list(&last.missing)
    );
    assert_eq!(books.strange(), Vec::<String>::new());
    // Their logs are shown if something failed before this.
    drop((nodes, databases));
}

fn list(missing: &[Missing]) -> String {
    missing.iter().map(|missing| format!("{missing}\n")).collect()
}
