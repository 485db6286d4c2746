//! Several nodes with one database, one mail server and one notification server.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt as _;
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::super::faults::ledger::{self, Account, Delivered, Kind, Tally};
use super::super::faults::notifications::Notifications;
use super::super::faults::post::{self, Ports};
use super::super::support::certs::Authority;
use super::super::support::client::{Client, Reply, quoted};
use super::super::support::deltapush::{Deltapush, Options};
use super::super::support::dns::DnsServer;
use super::super::support::dovecot::{Dovecot, Setup};
use super::super::support::network::Network;
use super::super::support::poll;
use super::super::support::ports::ReservedPort;
use super::super::support::postgres::{Postgres, USER};
use super::super::support::recipe::Page;

/// The page that says how several nodes are set up.
pub(super) const DOCUMENT: Page = Page(include_str!("../../../docs/cluster.md"));

/// Time limit for what happens soon on a machine with time.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);

/// Time limit for slots that move to other nodes: a dozen portions, each with four commits one after the other, on a busy disk.
pub(super) const MOVE: Duration = Duration::from_secs(120);

/// Bound on the takeover of a dead node's accounts, with what a busy machine adds.
pub(super) const TAKEOVER: Duration = Duration::from_secs(20);

/// The name of the mail server, which each node's own DNS server knows at an address of its own.
const MAIL_SERVER: &str = "mail.lab.test";

/// The first of these addresses.
const MAIL_NETWORK: u32 = u32::from_be_bytes([127, 0, 20, 1]);

/// Clients that register tokens at once.
const AT_ONCE: usize = 8;

/// Slots in all.
const SLOTS: usize = 1024;

/// One node, and its way to the database.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) deltapush: Deltapush,
    /// The port of its web page.
    pub(super) admin: ReservedPort,
    /// One network for each server of the database.
    pub(super) to_database: Vec<Arc<Network>>,
    /// Its own way to the mail server, which has one name and port for all nodes.
    pub(super) to_dovecot: Arc<Network>,
    _dns: DnsServer,
}

/// A node that is not started yet.
struct ReadyNode {
    name: String,
    options: Options,
    admin: ReservedPort,
    to_database: Vec<Arc<Network>>,
    to_dovecot: Arc<Network>,
    dns: DnsServer,
}

impl ReadyNode {
    fn started(self, deltapush: Deltapush) -> Node {
        let Self { name, admin, to_database, to_dovecot, dns, .. } = self;
        Node { name, deltapush, admin, to_database, to_dovecot, _dns: dns }
    }
}

/// Nodes with all that they need.
pub(super) struct ClusterScene {
    // They end before the servers that they use.
    pub(super) nodes: Vec<Node>,
    pub(super) databases: Vec<Postgres>,
    pub(super) dovecot: Dovecot,
    /// The port of all ways to it.
    mail_port: Arc<ReservedPort>,
    pub(super) notifications: Arc<Notifications>,
    pub(super) accounts: Vec<Account>,
    pub(super) delivered: Vec<Delivered>,
    /// POSTs that may be repeated: a lease has lapsed, and nobody may have written their answers.
    pub(super) repeatable: usize,
    /// `push.coalesce` of the nodes.
    pub(super) coalesce: &'static str,
    key: tempfile::TempDir,
}

impl ClusterScene {
    /// A database with `nodes` nodes, each with its share.
    pub(super) async fn start(nodes: usize) -> Self {
        Self::start_on(vec![Postgres::start()], nodes, "300ms").await
    }

    /// The same on these servers: a primary, perhaps with its standby.
    pub(super) async fn start_on(
        databases: Vec<Postgres>,
        nodes: usize,
        coalesce: &'static str,
    ) -> Self {
        let mut scene = Self::prepare(databases, coalesce).await;
        scene.join_together(nodes).await;
        scene.wait_for_shares().await;
        scene
    }

    /// The same without a node.
    pub(super) async fn prepare(databases: Vec<Postgres>, coalesce: &'static str) -> Self {
        let key = tempfile::tempdir().unwrap();
        let random: Vec<u8> = (0..32).map(|_| fastrand::u8(..)).collect();
        let path = key.path().join("seal.key");
        fs::write(&path, BASE64_STANDARD.encode(random)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let dovecot = Dovecot::naming(Setup::Vanilla, &[MAIL_SERVER]);
        Self {
            nodes: Vec::new(),
            databases,
            mail_port: Arc::new(ReservedPort::new()),
            dovecot,
            notifications: Arc::new(Notifications::start().await),
            accounts: Vec::new(),
            delivered: Vec::new(),
            repeatable: 0,
            coalesce,
            key,
        }
    }

    /// Starts one more node.
    pub(super) async fn join(&mut self) {
        self.add(true).await;
    }

    /// Starts a machine with its state in a file. It has a network to the database.
    pub(super) async fn start_alone(&mut self) {
        self.add(false).await;
    }

    /// The configuration of `storage.postgres` for a node.
    pub(super) fn postgres_of(&self, node: &Node) -> String {
        let ports: Vec<_> = node.to_database.iter().map(|network| network.port).collect();
        format!("postgres: {}", self.databases[0].section_of(&ports))
    }

    async fn add(&mut self, is_node: bool) {
        let ready = self.ready(self.nodes.len(), is_node).await;
        let deltapush = block_in_place(|| Deltapush::start(&ready.options));
        self.nodes.push(ready.started(deltapush));
    }

    /// Starts nodes at once.
    async fn join_together(&mut self, nodes: usize) {
        let mut all = Vec::new();
        for index in 0..nodes {
            all.push(self.ready(index, true).await);
        }
        let starts = all.iter().map(|ready| || Deltapush::start(&ready.options)).collect();
        let started = block_in_place(|| together(starts));
        self.nodes.extend(all.into_iter().zip(started).map(|(ready, node)| ready.started(node)));
    }

    /// Starts these nodes again at once.
    pub(super) fn start_again_together(&mut self, nodes: &[usize]) {
        let chosen = self.nodes.iter_mut().enumerate().filter(|(index, _)| nodes.contains(index));
        let starts = chosen.map(|(_, node)| || node.deltapush.start_again()).collect();
        block_in_place(|| together(starts));
    }

    /// All that a node needs before it is started.
    async fn ready(&self, index: usize, is_node: bool) -> ReadyNode {
        let name = format!("node-{index}");
        let mut to_database = Vec::new();
        for database in &self.databases {
            to_database.push(Arc::new(Network::start(database.port).await));
        }
        let address = Ipv4Addr::from(MAIL_NETWORK + u32::try_from(index).unwrap());
        let port = Arc::clone(&self.mail_port);
        let to_dovecot = Arc::new(Network::start_at(address, port, self.dovecot.imaps).await);
        let dns = DnsServer::start();
        dns.address(MAIL_SERVER, &address.to_string());
        let ports: Vec<_> = to_database.iter().map(|network| network.port).collect();
        let postgres = match is_node {
            true => format!("postgres: {}\n  ", self.databases[0].section_of(&ports)),
            false => String::new(),
        };
        let key = self.key();
        let Authority { leaf_cert, leaf_key, .. } = &self.databases[0].authority;
        let admin = ReservedPort::new();
        let options = Options {
            upstream: format!("imaps://{MAIL_SERVER}:{}", self.mail_port.number()),
            notify_url: format!("http://127.0.0.1:{}/notify?{name}", self.notifications.port),
            coalesce: self.coalesce,
            storage: format!("{postgres}key_file: {}", key.display()),
            certificate: format!("chain: {}\n  key: {}", leaf_cert.display(), leaf_key.display()),
            listener: "proxy_protocol: [127.0.0.1]",
            more: format!(
                "node: {{name: {name}}}\nadmin:\n  address: 127.0.0.1:{}\n{}",
                admin.number(),
                dns.yaml()
            ),
            ..Options::dovecot(&self.dovecot)
        };
        ReadyNode { name, options, admin, to_database, to_dovecot, dns }
    }

    /// The key that the nodes share.
    pub(super) fn key(&self) -> PathBuf {
        self.key.path().join("seal.key")
    }

    /// Slots by the name of the owner; those of nobody by an empty one.
    pub(super) fn shares(&self) -> BTreeMap<String, usize> {
        block_in_place(|| shares_in(&self.databases[0]))
    }

    /// Waits until all slots are shared by these nodes, each with a fair share, so that none moves any more.
    pub(super) async fn wait_for_shares_of(&self, names: &[&str]) {
        let shared = poll(MOVE, || is_fair(&self.shares(), names)).await;
        assert!(shared, "{names:?} do not share the slots: {:?}", self.shares());
    }

    async fn wait_for_shares(&self) {
        let names: Vec<_> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        self.wait_for_shares_of(&names).await;
    }

    /// Asks the primary, past all networks.
    pub(super) fn sql(&self, statement: &str) -> String {
        block_in_place(|| self.databases[0].sql(USER, statement))
    }

    /// The index of the node that owns an account.
    pub(super) fn owner_of(&self, account: usize) -> usize {
        let user = &self.accounts[account].user;
        let owner = self.sql(&format!(
            "SELECT nodes.name FROM accounts JOIN slots USING (slot) JOIN nodes ON nodes.id = owner \
             WHERE accounts.name = '{user}'"
        ));
        let index = self.nodes.iter().position(|node| node.name == owner);
        index.unwrap_or_else(|| panic!("{user} belongs to {owner:?}"))
    }

    fn has_account(&self, node: usize) -> bool {
        (0..self.accounts.len()).any(|account| self.owner_of(account) == node)
    }

    /// An account that this node owns.
    pub(super) fn account_of(&self, node: usize) -> usize {
        let found = (0..self.accounts.len()).find(|account| self.owner_of(*account) == node);
        found.unwrap_or_else(|| panic!("node {node} owns none of {:?}", self.accounts))
    }

    /// A client that is logged in at a node.
    pub(super) async fn client(&self, node: usize, user: &str) -> Client {
        let mut client = Client::plain(self.nodes[node].deltapush.plain).await;
        client.log_in(user).await;
        client
    }

    /// Registers a token at a node, as Delta Chat does. The reply.
    pub(super) async fn register(&self, node: usize, user: &str, token: &str) -> Reply {
        let mut client = self.client(node, user).await;
        let entry = format!("c2 SETMETADATA INBOX (/private/devicetoken {})", quoted(token));
        client.command(&entry).await
    }

    /// Adds at least `count` accounts, each with a device, at the nodes in turn, until each node owns one; waits until all are
    /// watched.
    pub(super) async fn populate(&mut self, count: usize) {
        let mut index = 0;
        while index < count || !(0..self.nodes.len()).all(|node| self.has_account(node)) {
            assert!(index < 100, "accounts are not dealt among the nodes: {:?}", self.shares());
            let user = self.dovecot.user(&format!("cluster-{index}"));
            let tokens = vec![format!("openpgp:cluster-{index}")];
            let account = Account { user, tokens, quiet: false, gets_replies: true };
            self.register_all(index, &account).await;
            self.accounts.push(account);
            index += 1;
        }
        self.wait_for_watches().await;
    }

    /// Adds `count` accounts, which `account` makes of their login names and numbers; waits until all are watched.
    pub(super) async fn populate_with(
        &mut self,
        count: usize,
        account: impl Fn(String, usize) -> Account,
    ) {
        self.accounts = (0..count)
            .map(|index| account(self.dovecot.user(&format!("cluster-{index}")), index))
            .collect();
        let mut adding = futures_util::stream::iter(self.accounts.iter().enumerate())
            .map(|(index, account)| self.register_all(index, account))
            .buffer_unordered(AT_ONCE);
        while adding.next().await.is_some() {}
        drop(adding);
        self.wait_for_watches().await;
    }

    /// Registers all tokens of an account, at the nodes in turn.
    async fn register_all(&self, index: usize, account: &Account) {
        for token in &account.tokens {
            let reply = self.register(index % self.nodes.len(), &account.user, token).await;
            assert!(reply.result.starts_with("OK"), "{reply:?}");
        }
    }

    async fn wait_for_watches(&self) {
        for account in &self.accounts {
            self.dovecot.wait_for_watch(&account.user, 1).await;
        }
    }

    /// Delivers a message from somebody else.
    pub(super) async fn deliver(&mut self, account: usize) {
        let ports = Ports { imap: self.dovecot.imap, lmtp: self.dovecot.lmtp };
        self.delivered.push(post::put(ports, &self.accounts, account, Kind::News).await);
    }

    /// Delivers messages to all accounts in turn, until `time` has passed.
    pub(super) async fn deliver_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            for account in 0..self.accounts.len() {
                self.deliver(account).await;
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Deliveries compared with POSTs.
    pub(super) fn tally(&self) -> Tally {
        let nobody = |_: &str, _: &str, _| false;
        ledger::compare(&self.accounts, &self.delivered, &self.notifications.accepted(), nobody)
    }

    /// Waits until everything is announced, and expects that nothing was announced twice. Returns the time that each message
    /// took, in order.
    pub(super) async fn settle(&self, patience: Duration) -> Vec<Duration> {
        let announced = poll(patience, || self.tally().missing.is_empty()).await;
        assert!(announced, "not announced within {patience:?}:\n{}", self.tally());
        // Surplus pushes come at the end of a window.
        sleep(Duration::from_secs(2)).await;
        let tally = self.tally();
        assert!(tally.accepted <= tally.owed + self.repeatable, "announced twice:\n{tally}");
        tally.waits
    }

    /// Counts the sessions of an account at the mail server.
    pub(super) fn sessions(&self, account: usize) -> usize {
        block_in_place(|| self.dovecot.who(&self.accounts[account].user))
    }
}

/// Does these at once. Returns what they return, in order.
fn together<T: Send>(starts: Vec<impl FnOnce() -> T + Send>) -> Vec<T> {
    thread::scope(|scope| {
        let starting: Vec<_> = starts.into_iter().map(|start| scope.spawn(start)).collect();
        starting.into_iter().map(|starting| starting.join().unwrap()).collect()
    })
}

/// Slots by the name of the owner; those of nobody by an empty one.
pub(super) fn shares_in(database: &Postgres) -> BTreeMap<String, usize> {
    let rows = database.sql(
        USER,
        "SELECT coalesce(nodes.name, ''), count(*) FROM slots LEFT JOIN nodes ON nodes.id = owner GROUP BY 1",
    );
    let share = |row: &str| {
        let (name, count) = row.split_once('|')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    rows.lines().filter_map(share).collect()
}

/// Reports if these nodes have all slots, each a fair share, so that none moves any more.
pub(super) fn is_fair(shares: &BTreeMap<String, usize>, names: &[&str]) -> bool {
    let fair = SLOTS / names.len();
    shares.len() == names.len()
        && names.iter().all(|name| shares.get(*name).is_some_and(|share| *share >= fair))
}
