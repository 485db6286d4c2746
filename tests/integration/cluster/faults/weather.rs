//! Faults during a run: three lanes, for nodes, the database, and the ways to the mail server. The lanes know nothing of each
//! other, so faults meet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::{Mutex, watch};
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::super::super::faults::ledger::Kind;
use super::super::super::faults::weather::{Count, Span, draw};
use super::super::super::support::network::{Manner, Network};
use super::super::super::support::postgres::{Postgres, USER};
use super::super::scene::Node;
use super::books::Books;
use super::outages::{Outages, Part};
use super::takeovers::Takeovers;

/// Longer than a lease.
const LONG_PAUSE: Span = Span(9_300, 10_000);
const SHORT_PAUSE: Span = Span(300, 2_000);

/// Most accounts of a node that are sent a message when it fails.
const PROBES: usize = 5;

/// The ways of one node.
#[derive(Clone)]
struct NodeWays {
    node: String,
    to_database: Vec<Arc<Network>>,
    to_dovecot: Arc<Network>,
    /// Held while the way to the database is broken.
    is_broken: Arc<Mutex<()>>,
}

/// The ways of all nodes.
#[derive(Clone)]
pub(super) struct Ways(Vec<NodeWays>);

impl Ways {
    pub(super) fn of(nodes: &[Node]) -> Self {
        let ways = |node: &Node| NodeWays {
            node: node.name.clone(),
            to_database: node.to_database.clone(),
            to_dovecot: Arc::clone(&node.to_dovecot),
            is_broken: Arc::default(),
        };
        Self(nodes.iter().map(ways).collect())
    }
}

/// The servers of the database. Held while they are being restarted.
pub(super) struct Databases(Mutex<Servers>);

struct Servers {
    primary: Postgres,
    standby: Postgres,
    /// Lost primaries. Their folders have what all nodes read: the authority and the password.
    lost: Vec<Postgres>,
}

impl Databases {
    pub(super) fn new(primary: Postgres, standby: Postgres) -> Self {
        Self(Mutex::new(Servers { primary, standby, lost: Vec::new() }))
    }

    /// The login names of the accounts that a node owns.
    async fn owned_by(&self, node: &str) -> Vec<String> {
        let servers = self.0.lock().await;
        let question = format!(
            "SELECT accounts.name FROM accounts JOIN slots USING (slot) JOIN nodes ON nodes.id = owner
             WHERE nodes.name = '{node}'"
        );
        let rows = block_in_place(|| servers.primary.sql(USER, &question));
        rows.lines().map(str::to_owned).collect()
    }
}

/// A fault of a node.
#[derive(Clone, Copy)]
enum NodeFault {
    /// It is killed at any instant, and started again.
    Kill,
    /// It stands still for longer than its lease.
    Stop,
    /// It leaves in good order, and comes back.
    Leave,
    /// It does not reach the database for longer than its lease.
    Cut,
}

impl NodeFault {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "node killed",
            Self::Stop => "node stopped for longer than its lease",
            Self::Leave => "node left, and joined",
            Self::Cut => "node cut off from the database for longer than its lease",
        }
    }
}

/// The lane of the nodes.
pub(super) struct NodeWeather {
    pub(super) nodes: Vec<Node>,
    pub(super) books: Arc<Books>,
    pub(super) databases: Arc<Databases>,
    pub(super) takeovers: Arc<Takeovers>,
    pub(super) outages: Arc<Outages>,
    pub(super) ways: Ways,
}

impl NodeWeather {
    /// A node that owns accounts that get mail, and some of them.
    async fn with_accounts(&self, rng: &mut Rng) -> (usize, Vec<usize>) {
        loop {
            let index = rng.usize(0..self.nodes.len());
            let owned = self.databases.owned_by(&self.nodes[index].name).await;
            let accounts = self.books.accounts.iter().enumerate();
            let mut found: Vec<usize> = accounts
                .filter(|(_, account)| !account.quiet && owned.contains(&account.user))
                .map(|(account, _)| account)
                .collect();
            if !found.is_empty() {
                rng.shuffle(&mut found);
                found.truncate(PROBES);
                return (index, found);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn meet(&mut self, fault: NodeFault, rng: &mut Rng) {
        let (index, accounts) = self.with_accounts(rng).await;
        let name = self.nodes[index].name.clone();
        let _broken = match fault {
            NodeFault::Cut => Some(self.ways.0[index].is_broken.lock().await),
            _ => None,
        };
        let (outage, began) =
            (self.outages.begin(fault.name(), Part::Node(name.clone())), Instant::now());
        let Node { deltapush, to_database, .. } = &mut self.nodes[index];
        match fault {
            NodeFault::Kill => block_in_place(|| deltapush.kill()),
            NodeFault::Stop => deltapush.signal("STOP"),
            NodeFault::Leave => deltapush.signal("TERM"),
            NodeFault::Cut => to_database.iter().for_each(|way| {
                way.reachable(false);
                way.present(Manner::Reset);
            }),
        }
        let mut probes = Vec::new();
        for account in accounts {
            probes.push(self.books.put(account, Kind::News).await);
        }
        self.takeovers.add(fault.name(), &name, began, probes);
        match fault {
            NodeFault::Kill => {
                SHORT_PAUSE.pass(rng).await;
                block_in_place(|| deltapush.start_at_last());
            }
            NodeFault::Stop => {
                LONG_PAUSE.pass(rng).await;
                deltapush.signal("CONT");
            }
            NodeFault::Leave => block_in_place(|| {
                deltapush.ends();
                deltapush.start_at_last();
            }),
            NodeFault::Cut => {
                LONG_PAUSE.pass(rng).await;
                to_database.iter().for_each(|way| way.heal());
            }
        }
        self.outages.end(outage);
    }
}

/// Nodes fail.
pub(super) async fn break_nodes(
    mut weather: NodeWeather,
    gap: Span,
    mut rng: Rng,
    over: watch::Receiver<bool>,
) -> (Vec<Node>, Count) {
    const ALL: [NodeFault; 4] =
        [NodeFault::Kill, NodeFault::Stop, NodeFault::Leave, NodeFault::Cut];
    let (mut count, mut bag) = (Count::new(), Vec::new());
    while !*over.borrow() || count.len() < ALL.len() {
        gap.pass(&mut rng).await;
        let fault = draw(&mut bag, &ALL, &mut rng);
        weather.meet(fault, &mut rng).await;
        *count.entry(fault.name()).or_default() += 1;
    }
    (weather.nodes, count)
}

/// A fault of the database, or between it and a node.
#[derive(Clone, Copy)]
enum DatabaseFault {
    Kill,
    Restart,
    /// The primary is lost; the standby, which lacks nothing, takes its place and gets a standby of its own.
    FailOver,
    BlackHole,
    Hiccup,
}

/// The database fails.
pub(super) async fn break_databases(
    databases: Arc<Databases>,
    ways: Ways,
    outages: Arc<Outages>,
    gap: Span,
    mut rng: Rng,
    over: watch::Receiver<bool>,
) -> Count {
    use DatabaseFault::{BlackHole, FailOver, Hiccup, Kill, Restart};
    const ALL: [DatabaseFault; 5] = [Kill, Restart, FailOver, BlackHole, Hiccup];
    let (mut count, mut bag) = (Count::new(), Vec::new());
    while !*over.borrow() || count.len() < ALL.len() {
        gap.pass(&mut rng).await;
        let fault = draw(&mut bag, &ALL, &mut rng);
        let name = match fault {
            Kill => "database killed",
            Restart => "database restarted",
            FailOver => "database failed over to its standby",
            BlackHole => "black hole between a node and the database",
            Hiccup => "connections of a node to the database reset",
        };
        if matches!(fault, BlackHole | Hiccup) {
            break_way(&ways, fault, name, &outages, &mut rng).await;
        } else {
            let mut servers = databases.0.lock().await;
            let outage = outages.begin(name, Part::Database);
            break_servers(&mut servers, fault, &ways, &mut rng).await;
            outages.end(outage);
        }
        *count.entry(name).or_default() += 1;
    }
    count
}

async fn break_servers(servers: &mut Servers, fault: DatabaseFault, ways: &Ways, rng: &mut Rng) {
    match fault {
        DatabaseFault::Restart => block_in_place(|| {
            servers.primary.stop();
            servers.primary.start_again();
        }),
        DatabaseFault::FailOver => block_in_place(|| {
            servers.primary.kill();
            servers.standby.promote();
            let standby = servers.standby.standby(true);
            let promoted = std::mem::replace(&mut servers.standby, standby);
            servers.lost.push(std::mem::replace(&mut servers.primary, promoted));
            for way in ways.0.iter().map(|ways| &ways.to_database) {
                way[0].lead_to(servers.primary.port);
                way[1].lead_to(servers.standby.port);
            }
        }),
        _ => {
            block_in_place(|| servers.primary.kill());
            SHORT_PAUSE.pass(rng).await;
            block_in_place(|| servers.primary.start_again());
        }
    }
}

/// Breaks the way of a node to the database that is whole.
async fn break_way(
    ways: &Ways,
    fault: DatabaseFault,
    name: &'static str,
    outages: &Outages,
    rng: &mut Rng,
) {
    let way = &ways.0[rng.usize(0..ways.0.len())];
    let _broken = way.is_broken.lock().await;
    let outage = outages.begin(name, Part::Node(way.node.clone()));
    if let DatabaseFault::BlackHole = fault {
        way.to_database.iter().for_each(|network| network.all(Manner::BlackHole));
        SHORT_PAUSE.pass(rng).await;
        way.to_database.iter().for_each(|network| network.heal());
    } else {
        way.to_database.iter().for_each(|network| network.present(Manner::Reset));
    }
    outages.end(outage);
}

/// A fault on the ways to the mail server.
#[derive(Clone, Copy)]
enum MailFault {
    CutAll,
    ResetSome,
    BlackHole,
    Delay,
    /// One node alone does not reach it.
    OneNode,
}

/// Ways to the mail server break.
pub(super) async fn break_mail(
    ways: Ways,
    outages: Arc<Outages>,
    gap: Span,
    mut rng: Rng,
    over: watch::Receiver<bool>,
) -> Count {
    use MailFault::{BlackHole, CutAll, Delay, OneNode, ResetSome};
    const ALL: [MailFault; 5] = [CutAll, ResetSome, BlackHole, Delay, OneNode];
    let (mut count, mut bag) = (Count::new(), Vec::new());
    while !*over.borrow() || count.len() < ALL.len() {
        gap.pass(&mut rng).await;
        let fault = draw(&mut bag, &ALL, &mut rng);
        let name = match fault {
            CutAll => "connections to the mail server closed",
            ResetSome => "connections to it reset",
            BlackHole => "black hole before it",
            Delay => "delay before it",
            OneNode => "mail server out of reach of one node",
        };
        let concerned = match fault {
            OneNode => vec![ways.0[rng.usize(0..ways.0.len())].clone()],
            _ => ways.0.clone(),
        };
        let begin = |way: &NodeWays| outages.begin(name, Part::Mail(way.node.clone()));
        let numbers: Vec<_> = concerned.iter().map(begin).collect();
        let delay = Duration::from_millis(rng.u64(50..500));
        for network in concerned.iter().map(|way| &way.to_dovecot) {
            match fault {
                CutAll => network.present(Manner::Closed),
                ResetSome => network.some(60, Manner::Reset, &mut rng),
                BlackHole => network.all(Manner::BlackHole),
                Delay => network.all(Manner::Delayed(delay)),
                OneNode => {
                    network.reachable(false);
                    network.present(Manner::Reset);
                }
            }
        }
        if matches!(fault, BlackHole | Delay | OneNode) {
            SHORT_PAUSE.pass(&mut rng).await;
        }
        concerned.iter().for_each(|way| way.to_dovecot.heal());
        numbers.into_iter().for_each(|number| outages.end(number));
        *count.entry(name).or_default() += 1;
    }
    count
}
