//! As much of a mail client as the demo needs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

pub(crate) struct Client {
    stream: BufStream<TlsStream<TcpStream>>,
    commands: u32,
}

impl Client {
    /// Connects as Delta Chat does to a port other than 993: TLS with ALPN `imap`. It trusts `certificate` alone.
    pub(crate) async fn connect(address: SocketAddr, certificate: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(
            CertificateDer::from_pem_file(certificate)
                .context("cannot read deltapush's certificate")?,
        )?;
        let mut config = ClientConfig::builder_with_provider(deltapush::crypto::provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"imap".to_vec()];
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .context("no TLS with deltapush")?;
        let mut client = Self { stream: BufStream::new(stream), commands: 0 };
        let greeting = client.line().await?;
        ensure!(greeting.starts_with("* OK"), "deltapush greets with {greeting:?}");
        Ok(client)
    }

    /// Sends a command and returns the untagged responses, once it succeeded.
    pub(crate) async fn command(&mut self, command: &str) -> Result<Vec<String>> {
        self.commands = self.commands.saturating_add(1);
        let tag = format!("A{:04}", self.commands);
        self.stream.write_all(format!("{tag} {command}\r\n").as_bytes()).await?;
        self.stream.flush().await?;
        let mut untagged = Vec::new();
        loop {
            let line = self.line().await?;
            match line.strip_prefix(&tag).map(str::trim_start) {
                Some(answer) if answer.starts_with("OK") => return Ok(untagged),
                Some(answer) => bail!("the answer is {answer:?}"),
                None => untagged.push(line),
            }
        }
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await?;
        ensure!(read > 0, "deltapush closed the connection");
        Ok(line.trim_end().to_owned())
    }
}

/// A token that looks like Delta Chat's: what follows the colon is encrypted to the notification server there, and random
/// here.
pub(crate) fn new_token() -> String {
    let ciphertext: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(687).collect();
    format!("openpgp:{}", BASE64_STANDARD.encode(ciphertext))
}
