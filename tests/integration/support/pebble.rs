//! Pebble, the small ACME server of Let's Encrypt's, with a name server to which every name is on loopback.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::certs::Authority;
use super::ports::{free_port, wait_for_port};

/// A running Pebble. It ends with the test.
pub(crate) struct Pebble {
    /// The URL of its directory.
    pub(crate) directory: String,
    /// What its web server's certificate is verified against.
    pub(crate) ca: PathBuf,
    management: u16,
    children: Vec<Child>,
    dir: tempfile::TempDir,
}

impl Pebble {
    /// Starts it. It looks for proofs on the loopback port `proofs`, issues certificates for `validity`, and refuses one nonce
    /// in ten, so that the client has to ask again.
    pub(crate) fn start(proofs: u16, validity: Duration) -> Self {
        let dir = tempfile::Builder::new().prefix("deltapush-pebble-").tempdir().unwrap();
        let authority = Authority::new(dir.path());
        let (port, management, names) = (free_port(), free_port(), free_port());
        let config = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"), "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": authority.leaf_cert, "privateKey": authority.leaf_key,
            "httpPort": 9, "tlsPort": proofs, "certificateValidityPeriod": validity.as_secs(),
        }});
        let path = dir.path().join("pebble.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let names = format!("127.0.0.1:{names}");
        let mut resolver = command("pebble-challtestsrv", &dir);
        resolver.args(["-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]);
        resolver.args(["-management", &format!("127.0.0.1:{}", free_port()), "-dns01", &names]);
        let mut server = command("pebble", &dir);
        server.arg("-config").arg(&path).args(["-dnsserver", &names]);
        server
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "10")
            .env("PEBBLE_AUTHZREUSE", "0");
        let start = |command: &mut Command| {
            command
                .spawn()
                .unwrap_or_else(|error| panic!("{error}: install pebble, or run scripts/test once"))
        };
        let children = vec![start(&mut resolver), start(&mut server)];
        assert!(wait_for_port(port, Duration::from_secs(10)), "pebble does not listen");
        Self {
            directory: format!("https://localhost:{port}/dir"),
            ca: authority.ca,
            management,
            children,
            dir,
        }
    }

    /// The PEM file of the root that its certificates lead to.
    pub(crate) async fn root(&self) -> PathBuf {
        let url = format!("https://localhost:{}/roots/0", self.management);
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured((*super::certs::client_config(&self.ca)).clone());
        let answer = client.build().unwrap().get(url).send().await.unwrap().bytes().await.unwrap();
        let path = self.dir.path().join("root.pem");
        std::fs::write(&path, answer).unwrap();
        path
    }
}

fn command(name: &str, dir: &tempfile::TempDir) -> Command {
    let mut command = Command::new(name);
    let log = std::fs::File::create(dir.path().join(format!("{name}.log"))).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log =
                std::fs::read_to_string(self.dir.path().join("pebble.log")).unwrap_or_default();
            eprintln!("--- Pebble's log\n{log}---");
        }
    }
}
