//! Pebble, the small ACME server of Let's Encrypt's, with a name server to which the proved name is on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::certs::Authority;
use super::dns::DnsServer;
use super::ports::{ReservedPort, wait_for_address};
use super::server::program;

/// A running Pebble. It ends with the test.
pub(crate) struct Pebble {
    /// The URL of its directory.
    pub(crate) directory: String,
    /// Authority of its web server's certificate.
    pub(crate) ca: PathBuf,
    management: u16,
    child: Child,
    _reserved: [ReservedPort; 2],
    _names: Option<DnsServer>,
    dir: tempfile::TempDir,
}

/// The address of a Pebble, and those of the servers that it asks.
struct PebbleSettings {
    /// The address of its web server, and the name in its URLs.
    address: SocketAddr,
    host: &'static str,
    /// The name server that it asks.
    names: SocketAddr,
    /// The ports at which it looks for proofs.
    proofs: ProofPorts,
    /// The lifetime of certificates of the profile "shortlived", if it has one.
    short_lived: Option<Duration>,
}

/// The ports at which an authority looks for proofs.
#[derive(Clone, Copy)]
pub(crate) struct ProofPorts {
    /// For TLS-ALPN-01.
    pub(crate) tls: u16,
    /// For HTTP-01.
    pub(crate) http: u16,
}

impl ProofPorts {
    /// Nobody listens for HTTP.
    pub(crate) fn tls(tls: u16) -> Self {
        Self { tls, http: 9 }
    }

    /// Nobody listens for TLS.
    pub(crate) fn http(http: u16) -> Self {
        Self { tls: 9, http }
    }
}

impl Pebble {
    /// Starts it. It looks for proofs of `name` on the loopback port `proofs`, in TLS, and issues certificates for `validity`.
    pub(crate) fn start(name: &str, proofs: u16, validity: Duration) -> Self {
        Self::start_for(name, ProofPorts::tls(proofs), validity)
    }

    /// The same with other ports.
    pub(crate) fn start_for(name: &str, proofs: ProofPorts, validity: Duration) -> Self {
        Self::start_on_loopback(name, proofs, validity, None)
    }

    /// The same for IP addresses: as at Let's Encrypt, they want the profile "shortlived", with this validity.
    pub(crate) fn start_for_addresses(proofs: ProofPorts, short_lived: Duration) -> Self {
        let default = Duration::from_secs(3600);
        Self::start_on_loopback("localhost", proofs, default, Some(short_lived))
    }

    fn start_on_loopback(
        name: &str,
        proofs: ProofPorts,
        validity: Duration,
        short_lived: Option<Duration>,
    ) -> Self {
        let names = DnsServer::start();
        names.address(name, "127.0.0.1");
        let reserved = [ReservedPort::new(), ReservedPort::new()];
        let address = (Ipv4Addr::LOCALHOST, reserved[0].number()).into();
        let (host, server) = ("localhost", names.address);
        let settings = PebbleSettings { address, host, names: server, proofs, short_lived };
        let mut pebble = Self::run(&settings, reserved, validity);
        pebble._names = Some(names);
        pebble
    }

    /// Starts it as `host` at an address of its own. It asks the name server `names`, and looks for proofs on port 443.
    pub(crate) fn start_at(
        address: SocketAddr,
        host: &'static str,
        names: SocketAddr,
        validity: Duration,
    ) -> Self {
        let proofs = ProofPorts::tls(443);
        let settings = PebbleSettings { address, host, names, proofs, short_lived: None };
        Self::run(&settings, [ReservedPort::new(), ReservedPort::new()], validity)
    }

    fn run(settings: &PebbleSettings, reserved: [ReservedPort; 2], validity: Duration) -> Self {
        let PebbleSettings { address, host, names, proofs, short_lived } = *settings;
        let dir = tempfile::Builder::new().prefix("deltapush-pebble-").tempdir().unwrap();
        let authority = Authority::naming(dir.path(), &["localhost", host]);
        let management = reserved[1].number();
        // For an order without a profile it takes one by chance.
        let mut profiles =
            json!({"default": {"description": "", "validityPeriod": validity.as_secs()}});
        if let Some(validity) = short_lived {
            profiles["shortlived"] =
                json!({"description": "", "validityPeriod": validity.as_secs()});
        }
        let config = json!({"pebble": {
            "listenAddress": address, "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": authority.leaf_cert, "privateKey": authority.leaf_key,
            "httpPort": proofs.http, "tlsPort": proofs.tls,
            "profiles": profiles,
        }});
        let path = dir.path().join("pebble.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let log = std::fs::File::create(dir.path().join("pebble.log")).unwrap();
        let mut command = Command::new(program("pebble"));
        command.arg("-config").arg(&path).args(["-dnsserver", &names.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // By default it refuses nonces and reuses authorizations by chance. The ACME library asks three times.
        command
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .env("PEBBLE_AUTHZREUSE", "0");
        let child = command.spawn().unwrap();
        assert!(wait_for_address(address, Duration::from_secs(40)), "pebble does not listen");
        Self {
            directory: format!("https://{host}:{}/dir", address.port()),
            ca: authority.ca,
            management,
            child,
            _reserved: reserved,
            _names: None,
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

impl Drop for Pebble {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log =
                std::fs::read_to_string(self.dir.path().join("pebble.log")).unwrap_or_default();
            eprintln!("--- Pebble's log\n{log}---");
        }
    }
}
