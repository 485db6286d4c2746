//! The measurements, and their tables.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tokio::time::sleep;

use super::database::{Database, Work};
use super::mail_servers::MailServers;
use super::nodes::{Node, Peers};
use super::options::Options;
use crate::common::tls::Authority;
use crate::notifications::Notifications;

/// Time limit for all to be watched.
const PATIENCE: Duration = Duration::from_secs(900);

/// Between two messages: nothing is to wait for the one before.
const PAUSE: Duration = Duration::from_millis(50);

/// Time for a node to put away what it needed for the start.
const REST: Duration = Duration::from_secs(3);

/// Open files of a node other than connections to mail servers.
const OTHER_FILES: usize = 300;

/// Measures all, and prints it.
///
/// # Errors
/// If an account is not watched, or a message not announced.
pub(crate) async fn all(options: &Options) -> Result<()> {
    let (nodes, accounts) = (options.nodes(), options.accounts());
    let files = usize::try_from(rlimit::increase_nofile_limit(u64::MAX)?)?;
    // In the end one node is dead, and shares are not even.
    let most = accounts.div_ceil(nodes - 1) * 21 / 20 + OTHER_FILES;
    ensure!(most <= files, "{nodes} nodes are too few for {accounts} accounts: {files} open files");
    println!("{accounts} accounts, {nodes} nodes; load of the machine {}\n", load()?);
    let mut bench = Bench::start(options).await?;
    let alone = bench.alone(options).await?;
    println!("| | |\n| --- | ---: |");
    let mut cluster = bench.cluster(options).await?;
    bench.start_all(&mut cluster).await?;
    cluster.print_memory(options)?;
    let quiet = cluster.quiet(Duration::from_secs(options.idle())).await?;
    println!("| statements a second while nothing happens | {:.1} |", quiet.statements);
    let (began, before) = (Instant::now(), cluster.database.work()?);
    let together = bench.messages(options).await?;
    let during = cluster.database.work()?.since(&before);
    during.less(&quiet, began.elapsed()).print(options.messages());
    bench.take_over(&mut cluster).await?;
    println!("\nDelivery → POST, load of the machine {}\n", load()?);
    println!("| | one node with SQLite | PostgreSQL | more |\n| --- | ---: | ---: | ---: |");
    for (name, percent) in [("median", 50), ("99th percentile", 99)] {
        let (alone, together) = (percentile(&alone, percent), percentile(&together, percent));
        println!("| {name} | {alone:.2} ms | {together:.2} ms | {:.2} ms |", together - alone);
    }
    Ok(())
}

/// The peers of the nodes.
struct Bench {
    servers: MailServers,
    notifications: Notifications,
    authority: Authority,
    accounts: usize,
    folder: TempDir,
}

impl Bench {
    async fn start(options: &Options) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("deltapush-bench-").tempdir()?;
        let authority = Authority::make(folder.path())?;
        let servers = MailServers::start(folder.path(), options.accounts())?;
        let notifications = Notifications::start().await?;
        Ok(Self { servers, notifications, authority, accounts: options.accounts(), folder })
    }

    fn peers<'a>(&'a self, program: &'a Path) -> Peers<'a> {
        Peers {
            folder: self.folder.path(),
            program,
            servers: &self.servers,
            authority: &self.authority,
            notify_url: &self.notifications.url,
        }
    }

    /// The ways of messages with SQLite, and one node that has as many accounts as one of several. Its end.
    async fn alone(&mut self, options: &Options) -> Result<Vec<Duration>> {
        let mut node = self.peers(options.program()).node("alone", None)?;
        node.populate(&self.servers, options.share()).await?;
        node.program.start()?;
        self.until(|watched| watched == options.share()).await?;
        sleep(REST).await;
        let ways = self.deliver(options.messages(), options.share()).await?;
        node.program.kill()?;
        self.until(|watched| watched == 0).await?;
        Ok(ways)
    }

    /// The nodes, with all accounts in their database; none runs.
    async fn cluster(&self, options: &Options) -> Result<Cluster> {
        let database = Database::start();
        let (peers, section) = (self.peers(options.program()), database.section());
        let node = |number| peers.node(&format!("node-{number}"), Some(&section));
        let mut nodes: Vec<Node> = (1..=options.nodes()).map(node).collect::<Result<_>>()?;
        nodes[0].program.start()?;
        sleep(REST).await;
        let process = nodes[0].program.process()?;
        let (empty, empty_anonymous) = (process.pss()?, process.anonymous()?);
        nodes[0].program.stop()?;
        let empty_database = database.size()?;
        let began = Instant::now();
        nodes[0].populate(&self.servers, options.accounts()).await?;
        println!("| all accounts registered after | {:.1} s |", began.elapsed().as_secs_f32());
        Ok(Cluster { nodes, database, empty, empty_anonymous, empty_database })
    }

    async fn start_all(&mut self, cluster: &mut Cluster) -> Result<()> {
        let (began, accounts) = (Instant::now(), self.accounts);
        cluster.nodes.iter_mut().try_for_each(|node| node.program.start())?;
        self.until(|watched| watched >= accounts).await?;
        println!("| all accounts watched after | {:.1} s |", began.elapsed().as_secs_f32());
        let shares = cluster.even_shares().await?;
        println!("| … in even shares after | {:.1} s |", began.elapsed().as_secs_f32());
        println!("| watched accounts in all | {accounts} |");
        let shares: Vec<String> = shares.iter().map(ToString::to_string).collect();
        println!("| … of each node | {} |", shares.join(", "));
        sleep(REST).await;
        Ok(())
    }

    async fn messages(&mut self, options: &Options) -> Result<Vec<Duration>> {
        self.deliver(options.messages(), options.accounts()).await
    }

    /// Delivers messages to some of the accounts, one after the other. The time of each until its POST begins, in order.
    async fn deliver(&mut self, messages: usize, accounts: usize) -> Result<Vec<Duration>> {
        let mut ways = Vec::with_capacity(messages);
        for number in 0..messages {
            let began = Instant::now();
            self.servers.deliver(number * accounts / messages)?;
            let posted = self.notifications.next(Duration::from_secs(60)).await?;
            ways.push(posted.duration_since(began));
            sleep(PAUSE).await;
        }
        ways.sort_unstable();
        Ok(ways)
    }

    /// A node is killed.
    async fn take_over(&mut self, cluster: &mut Cluster) -> Result<()> {
        let share = cluster.database.watched()?.into_iter().next().context("no node")?;
        let (accounts, began) = (self.accounts, Instant::now());
        cluster.nodes[0].program.kill()?;
        // Until then some of its accounts may have a second watch, or some of others none for a moment.
        while cluster.database.watched()?.len() == cluster.nodes.len() {
            ensure!(began.elapsed() < PATIENCE, "nobody notices that the node is dead");
            sleep(Duration::from_millis(50)).await;
        }
        self.until(|watched| watched >= accounts).await?;
        let took = began.elapsed().as_secs_f32();
        println!("| all watched after a node with {share} accounts was killed | {took:.1} s |");
        Ok(())
    }

    async fn until(&mut self, condition: impl Fn(usize) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let watched = self.servers.watched()?;
            if condition(watched) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{watched} accounts are watched in the end");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

struct Cluster {
    nodes: Vec<Node>,
    database: Database,
    /// Memory of a node and size of the database without accounts, in bytes.
    empty: u64,
    empty_anonymous: u64,
    empty_database: u64,
}

impl Cluster {
    /// Waits until all nodes have even shares of the slots and watch the accounts in them, as they tell it every other second.
    /// Returns the number of each node.
    async fn even_shares(&self) -> Result<Vec<usize>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shares = self.database.watched()?;
            if self.database.is_even() && shares == self.database.owned()? {
                return Ok(shares);
            }
            ensure!(Instant::now() < deadline, "the nodes watch {shares:?} accounts in the end");
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn print_memory(&self, options: &Options) -> Result<()> {
        let mut all = 0;
        for node in &self.nodes {
            all += node.program.process()?.anonymous()?.saturating_sub(self.empty_anonymous);
        }
        let each = |bytes: u64| bytes as f64 / 1024.0 / options.accounts() as f64;
        println!("| memory of a node without accounts (PSS) | {} MiB |", mib(self.empty));
        println!("| … of an account | {:.1} KiB |", each(all));
        println!("| memory of PostgreSQL (PSS) | {} MiB |", mib(self.database.memory()));
        let database = self.database.size()?.saturating_sub(self.empty_database);
        println!("| database for an account | {:.2} KiB |", each(database));
        Ok(())
    }

    /// The database's work in a second while nothing happens.
    async fn quiet(&self, time: Duration) -> Result<Work> {
        let before = self.database.work()?;
        sleep(time).await;
        Ok(self.database.work()?.since(&before).per(time.as_secs_f64()))
    }
}

/// One of times in order, in milliseconds.
fn percentile(times: &[Duration], percent: usize) -> f64 {
    let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1024 * 1024)
}

/// Processes that ran or wanted to, as a mean of one minute.
fn load() -> Result<String> {
    let averages = fs::read_to_string("/proc/loadavg")?;
    Ok(averages.split(' ').next().context("no load")?.to_owned())
}
