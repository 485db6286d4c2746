//! One certificate of an authority at three nodes: any of them answers its challenges.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::block_in_place;

use super::super::support::deltapush::{Deltapush, Options};
use super::super::support::pebble::Pebble;
use super::super::support::poll;
use super::super::support::postgres::{Postgres, USER};
use super::super::support::tls::{handshake, leaf, public_key, trusting};

const NAME: &str = "push.example.org";

/// It is renewed at half of it. A node that dies in the midst of that is replaced within 15 s.
const VALIDITY: Duration = Duration::from_secs(70);

/// Time within which a certificate is at work everywhere.
const EVERYWHERE: Duration = Duration::from_secs(60);

const PATIENCE: Duration = Duration::from_secs(90);

/// A load balancer: each connection goes to the next node that is there.
struct Balancer {
    port: u16,
    nodes: Arc<Mutex<Vec<u16>>>,
}

impl Balancer {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let nodes = Arc::<Mutex<Vec<u16>>>::default();
        let targets = Arc::clone(&nodes);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let order = {
                    let mut nodes = targets.lock().unwrap();
                    if !nodes.is_empty() {
                        nodes.rotate_left(1);
                    }
                    nodes.clone()
                };
                tokio::spawn(forward(client, order));
            }
        });
        Self { port, nodes }
    }
}

async fn forward(mut client: TcpStream, nodes: Vec<u16>) {
    for port in nodes {
        if let Ok(mut node) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            // Either side may be cut.
            let _ = copy_bidirectional(&mut client, &mut node).await;
            return;
        }
    }
}

struct CertificateScene {
    nodes: Vec<Deltapush>,
    balancer: Balancer,
    postgres: Postgres,
    pebble: Pebble,
    root: PathBuf,
    key: tempfile::TempDir,
}

impl CertificateScene {
    async fn start() -> Self {
        let key = tempfile::tempdir().unwrap();
        let random: Vec<u8> = (0..32).map(|_| fastrand::u8(..)).collect();
        let path = key.path().join("seal.key");
        fs::write(&path, BASE64_STANDARD.encode(random)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let (balancer, postgres) = (Balancer::start().await, block_in_place(Postgres::start));
        let pebble = block_in_place(|| Pebble::start(NAME, balancer.port, VALIDITY));
        let root = pebble.root().await;
        let mut scene = Self { nodes: Vec::new(), balancer, postgres, pebble, root, key };
        for _ in 0..3 {
            scene.join();
        }
        scene
    }

    fn join(&mut self) {
        let acme = serde_json::json!({
            "terms_agreed": true, "directory": self.pebble.directory, "ca": self.pebble.ca,
        });
        let (postgres, key) = (self.postgres.section(self.postgres.port), self.key.path());
        let options = Options {
            hostname: NAME,
            certificate: format!("acme: {acme}"),
            storage: format!(
                "postgres: {postgres}\n  key_file: {}",
                key.join("seal.key").display()
            ),
            more: format!("node: {{name: node-{}}}\n", self.nodes.len()),
            ..Options::plain(9)
        };
        let node = block_in_place(|| Deltapush::start(&options));
        self.balancer.nodes.lock().unwrap().push(node.imaps);
        self.nodes.push(node);
    }

    /// The certificate that a client sees at a node, and verifies.
    async fn shown(&self, node: usize) -> Option<Vec<u8>> {
        shown(self.nodes[node].imaps, &self.root).await
    }

    /// Waits until all these nodes show one certificate that is not `other`. Returns it, and the time from the first to the last.
    async fn shown_by_all(&self, nodes: &[usize], other: &[u8]) -> (Vec<u8>, Duration) {
        let (deadline, mut first) = (Instant::now() + PATIENCE, None);
        while Instant::now() < deadline {
            let mut all = Vec::new();
            for node in nodes {
                all.extend(self.shown(*node).await.filter(|leaf| leaf[..] != *other));
            }
            if !all.is_empty() {
                first.get_or_insert_with(Instant::now);
            }
            if all.len() == nodes.len() && all.iter().all(|leaf| *leaf == all[0]) {
                let took = first.map_or(Duration::ZERO, |first| first.elapsed());
                return (all.swap_remove(0), took);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let logs: Vec<_> = self.nodes.iter().map(Deltapush::log).collect();
        panic!("{nodes:?} show no certificate in common\n{}", logs.join("\n---\n"));
    }

    fn requests(&self, node: usize) -> usize {
        self.nodes[node].log().matches("requesting a certificate from localhost").count()
    }
}

async fn shown(port: u16, root: &Path) -> Option<Vec<u8>> {
    handshake(port, NAME, trusting(root, &[])).await.ok().map(|stream| leaf(&stream).to_vec())
}

/// The private keys in a node's folder of certificates: pieces of their base64, each of which gives it away.
fn pieces_of_keys(node: &Deltapush) -> Vec<String> {
    let files = fs::read_dir(node.dir().join("certs")).unwrap();
    let texts = files.filter_map(|file| fs::read_to_string(file.unwrap().path()).ok());
    let keys = texts.filter(|text| text.contains("PRIVATE KEY"));
    keys.flat_map(|text| {
        let lines = text.lines().filter(|line| !line.starts_with("-----") && line.len() > 40);
        lines.map(str::to_owned).collect::<Vec<_>>()
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_node_orders_and_all_show_the_certificate() {
    let mut scene = CertificateScene::start().await;
    let (issued, took) = scene.shown_by_all(&[0, 1, 2], &[]).await;
    assert!(took < EVERYWHERE, "{took:?}");
    let requests: Vec<_> = (0..3).map(|node| scene.requests(node)).collect();
    assert_eq!(requests.iter().sum::<usize>(), 1, "{requests:?}");

    // Both forms of a key are looked for in all that the database has.
    let pieces = pieces_of_keys(&scene.nodes[0]);
    assert!(!pieces.is_empty(), "a node has the key in its folder");
    let values = block_in_place(|| {
        scene.postgres.sql(USER, "SELECT name, encode(value, 'hex') FROM shared")
    });
    assert!(values.contains("certificate/"), "{values}");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for piece in pieces {
        assert!(!values.contains(&hex(piece.as_bytes())), "a private key lies open");
        let decoded = BASE64_STANDARD.decode(&piece).unwrap();
        assert!(!values.contains(&hex(&decoded[..16])), "a private key lies open");
    }

    // One that starts later has it at once.
    scene.join();
    let late = scene.shown(3).await;
    let current = scene.shown(0).await;
    assert!(late.is_some() && late == current, "{}", scene.nodes[3].log());

    // The node that orders the next one dies in the midst of that.
    let before: Vec<_> = (0..4).map(|node| scene.requests(node)).collect();
    let orders = || (0..4).find(|node| scene.requests(*node) > before[*node]);
    assert!(poll(PATIENCE, || orders().is_some()).await, "nobody renews the certificate");
    let dead = orders().unwrap();
    block_in_place(|| scene.nodes[dead].kill());
    let living: Vec<usize> = (0..4).filter(|node| *node != dead).collect();
    let (renewed, took) = scene.shown_by_all(&living, &issued).await;
    assert!(took < EVERYWHERE, "{took:?}");
    assert_eq!(public_key(&renewed.into()), public_key(&issued.into()), "apps remember the key");
    assert!(living.iter().any(|node| scene.requests(*node) > before[*node]));
}
