//! The database, with its standby, and the ways of the nodes to it, which break.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use tokio::sync::Mutex;
use tokio::task::block_in_place;

use super::super::super::faults::lane::Breakable;
use super::super::super::support::network::Manner;
use super::super::super::support::postgres::{Postgres, USER};
use super::super::scene::shares_in;
use super::outages::{Outages, Part};
use super::ways::{SHORT_PAUSE, Ways};

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

    /// Slots by the name of the owner; those of nobody by an empty one.
    pub(super) async fn shares(&self) -> BTreeMap<String, usize> {
        let servers = self.0.lock().await;
        block_in_place(|| shares_in(&servers.primary))
    }

    /// The login names of the accounts that a node owns.
    pub(super) async fn owned_by(&self, node: &str) -> Vec<String> {
        let servers = self.0.lock().await;
        let question = format!(
            "SELECT accounts.name FROM accounts JOIN slots USING (slot) JOIN nodes ON nodes.id = owner
             WHERE nodes.name = '{node}'"
        );
        let rows = block_in_place(|| servers.primary.sql(USER, &question));
        rows.lines().map(str::to_owned).collect()
    }
}

/// A fault of the database, or between it and a node.
#[derive(Clone, Copy)]
pub(super) enum DatabaseFault {
    Kill,
    Restart,
    /// The primary is lost; the standby, which lacks nothing, takes its place and gets a standby of its own.
    FailOver,
    BlackHole,
    Hiccup,
}

impl DatabaseFault {
    pub(super) const ALL: [Self; 5] =
        [Self::Kill, Self::Restart, Self::FailOver, Self::BlackHole, Self::Hiccup];

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "database killed",
            Self::Restart => "database restarted",
            Self::FailOver => "database failed over to its standby",
            Self::BlackHole => "black hole between a node and the database",
            Self::Hiccup => "connections of a node to the database reset",
        }
    }
}

/// The database, as the nodes see it.
pub(super) struct DatabaseWays {
    pub(super) databases: Arc<Databases>,
    pub(super) ways: Ways,
    pub(super) outages: Arc<Outages>,
}

impl Breakable for DatabaseWays {
    type Fault = DatabaseFault;

    async fn meet(&mut self, fault: DatabaseFault, rng: &mut Rng) -> &'static str {
        let Self { databases, ways, outages } = self;
        if matches!(fault, DatabaseFault::BlackHole | DatabaseFault::Hiccup) {
            break_way(ways, fault, outages, rng).await;
        } else {
            let mut servers = databases.0.lock().await;
            let outage = outages.begin(fault.name(), Part::Database);
            break_servers(&mut servers, fault, ways, rng).await;
            outages.end(outage);
        }
        fault.name()
    }
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
async fn break_way(ways: &Ways, fault: DatabaseFault, outages: &Outages, rng: &mut Rng) {
    let way = &ways.0[rng.usize(0..ways.0.len())];
    let _broken = way.is_broken.lock().await;
    let outage = outages.begin(fault.name(), Part::Node(way.node.clone()));
    if let DatabaseFault::BlackHole = fault {
        way.to_database.iter().for_each(|network| network.all(Manner::BlackHole));
        SHORT_PAUSE.pass(rng).await;
        way.to_database.iter().for_each(|network| network.heal());
    } else {
        way.to_database.iter().for_each(|network| network.present(Manner::Reset));
    }
    outages.end(outage);
}
