//! The measurements, and their tables.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::Size;
use super::common::server::LoadServer;
use super::nodes::{Node, State};
use super::notifications::Notifications;
use super::support::postgres::{Postgres, USER};

/// Time limit for all to be watched.
const PATIENCE: Duration = Duration::from_secs(900);

/// Counts statements. It comes with PostgreSQL.
const STATISTICS: &str = "shared_preload_libraries = 'pg_stat_statements'";

/// Between two messages: nothing is to wait for the one before.
const PAUSE: Duration = Duration::from_millis(50);

/// Measures all, and prints it.
///
/// # Errors
/// If an account is not watched, or a message not announced.
pub(crate) async fn all(size: Size) -> Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    println!("{size:?}\n");
    let place = tempfile::Builder::new().prefix("deltapush-bench-").tempdir()?;
    let alone = alone(place.path(), size).await?;
    let mut cluster = Cluster::start(place.path(), size).await?;
    println!("| | |\n| --- | ---: |");
    cluster.watched("all accounts watched after", Instant::now()).await?;
    sleep(Duration::from_secs(5)).await;
    cluster.memory(size)?;
    cluster.idle(size.idle).await;
    let (waits, statements) = cluster.messages(size).await?;
    print("delivery → POST, one node with SQLite", &alone);
    print("delivery → POST, PostgreSQL", &waits);
    println!("| statements for a message | {statements:.1} |");
    cluster.takeover().await
}

/// The ways of messages with one node and SQLite.
async fn alone(place: &Path, size: Size) -> Result<Vec<Duration>> {
    let server = LoadServer::start(size.accounts, None)?;
    let mut notifications = Notifications::start().await?;
    let mut node = Node::prepare(place, "alone", server.port, &notifications.url, &State::Sqlite)?;
    node.populate(server.port, size.messages).await?;
    node.start()?;
    until(|| server.watched() == size.messages).await?;
    ways(&server, &mut notifications, size.messages).await
}

/// Delivers messages one after the other. The time of each until its POST begins, in order.
async fn ways(
    server: &LoadServer,
    notifications: &mut Notifications,
    messages: usize,
) -> Result<Vec<Duration>> {
    let mut waits = Vec::new();
    for account in 0..messages {
        let began = Instant::now();
        server.deliver(account);
        waits.push(notifications.next(Duration::from_secs(60)).await?.duration_since(began));
        sleep(PAUSE).await;
    }
    waits.sort_unstable();
    Ok(waits)
}

struct Cluster {
    nodes: Vec<Node>,
    server: LoadServer,
    notifications: Notifications,
    database: Postgres,
    accounts: usize,
    /// Memory of a node before it has any account, in bytes.
    empty: u64,
}

impl Cluster {
    async fn start(place: &Path, size: Size) -> Result<Self> {
        let server = LoadServer::start(size.accounts, None)?;
        let notifications = Notifications::start().await?;
        let database = tokio::task::block_in_place(|| Postgres::start_with(STATISTICS));
        database.sql("postgres", "CREATE EXTENSION pg_stat_statements");
        let section = database.section(database.port);
        let state = State::Postgres(&section);
        let mut nodes = Vec::new();
        for number in 0..size.nodes {
            let name = format!("node-{number}");
            nodes.push(Node::prepare(place, &name, server.port, &notifications.url, &state)?);
        }
        // Its key is made by the first that comes.
        nodes[0].start()?;
        sleep(Duration::from_secs(5)).await;
        let empty = nodes[0].process()?.pss()?;
        nodes[0].kill()?;
        nodes[0].populate(server.port, size.accounts).await?;
        for node in &mut nodes {
            node.start()?;
        }
        let accounts = size.accounts;
        Ok(Self { nodes, server, notifications, database, accounts, empty })
    }

    async fn watched(&self, name: &str, began: Instant) -> Result<()> {
        until(|| self.server.watched() >= self.accounts).await?;
        println!("| {name} | {:.1} s |", began.elapsed().as_secs_f32());
        Ok(())
    }

    fn memory(&self, size: Size) -> Result<()> {
        let mut all = 0;
        for node in &self.nodes {
            all += node.process()?.pss()?.saturating_sub(self.empty);
        }
        println!("| memory of a node without accounts (PSS) | {} KiB |", self.empty / 1024);
        let each = all as f64 / 1024.0 / size.accounts as f64;
        println!("| memory of an account, over {} nodes | {each:.1} KiB |", self.nodes.len());
        let database = self.sql(&format!("SELECT pg_database_size('{USER}')"));
        let database = database.parse::<f64>()? / 1024.0 / size.accounts as f64;
        println!("| database for an account | {database:.1} KiB |");
        Ok(())
    }

    /// Statements while nothing happens.
    async fn idle(&self, seconds: u64) {
        let before = self.statements();
        sleep(Duration::from_secs(seconds)).await;
        let each = (self.statements() - before) / seconds as f64;
        println!("| statements a second while nothing happens | {each:.1} |");
    }

    async fn messages(&mut self, size: Size) -> Result<(Vec<Duration>, f64)> {
        let began = Instant::now();
        let before = self.statements();
        let waits = ways(&self.server, &mut self.notifications, size.messages).await?;
        // The change that a POST's answer brings is written after it.
        sleep(Duration::from_secs(1)).await;
        let (during, spent) = (self.statements() - before, began.elapsed());
        let before = self.statements();
        sleep(spent).await;
        let idle = self.statements() - before;
        Ok((waits, (during - idle) / size.messages as f64))
    }

    /// A node is killed.
    async fn takeover(&mut self) -> Result<()> {
        let began = Instant::now();
        self.nodes[0].kill()?;
        until(|| self.server.watched() < self.accounts).await?;
        self.watched("all watched after a node was killed", began).await
    }

    /// Statements of deltapush so far.
    fn statements(&self) -> f64 {
        let calls = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid";
        self.sql(&format!("{calls} WHERE rolname = '{USER}'")).parse().unwrap_or_default()
    }

    fn sql(&self, statement: &str) -> String {
        tokio::task::block_in_place(|| self.database.sql("postgres", statement))
    }
}

async fn until(condition: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        ensure!(Instant::now() < deadline, "not within {} s", PATIENCE.as_secs());
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn print(name: &str, times: &[Duration]) {
    let at = |percent: usize| {
        let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    println!("| {name}: median | {:.2} ms |", at(50));
    println!("| … 99th percentile | {:.2} ms |", at(99));
}
