//! The processes that are measured.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::common::bare;
use super::common::client::Client;
use super::common::tls::{Authority, HOST, Order};
use super::measure::PATIENCE;
use super::ports::ReservedPort;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Deltapush,
    BareCopy,
}

/// A process of its own, that ends with this value.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    child: Child,
    _reserved: ReservedPort,
}

impl Proxy {
    pub(crate) fn start(
        kind: Kind,
        folder: &Path,
        authority: &Authority,
        upstream: SocketAddr,
    ) -> Result<Self> {
        let reserved = ReservedPort::new();
        let port = reserved.number();
        let mut command = match kind {
            Kind::Deltapush => {
                let config = folder.join("config.yaml");
                fs::write(&config, configuration(port, authority, upstream))?;
                let mut command = Command::new(env!("CARGO_BIN_EXE_deltapush"));
                command.arg("--config").arg(config);
                command
            }
            Kind::BareCopy => {
                let mut command = Command::new(std::env::current_exe()?);
                command
                    .arg(bare::COMMAND)
                    .arg(folder)
                    .args([port.to_string(), upstream.to_string()]);
                command
            }
        };
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {kind:?}"))?;
        Ok(Self { port, child, _reserved: reserved })
    }

    /// A session through it, as soon as it is there.
    pub(crate) async fn client(&self, authority: &Authority) -> Result<Client> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let session = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
            Client::connect(
                ([127, 0, 0, 1], 0).into(),
                address,
                &authority.connector(false, Order::Usual)?,
                "alice@lab.test",
            )
            .await
        };
        timeout(PATIENCE, session).await?
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(port: u16, authority: &Authority, upstream: SocketAddr) -> String {
    let (certificate, key, ca) =
        (authority.certificate.display(), authority.key.display(), authority.ca.display());
    // All clients come from one address.
    format!(
        "hostname: {HOST}\n\
         listeners:\n  - address: {HOST}:{port}\n    tls: implicit\n\
         certificate:\n  chain: {certificate}\n  key: {key}\n\
         routes:\n  - domain: lab.test\n    upstream: imaps://{upstream}\n    ca: {ca}\n\
         limits:\n  connections: 4000\n  per_address: 4000\n\
         admin:\n  address: off\nlog:\n  level: warn\n"
    )
}
