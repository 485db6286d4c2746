//! The mail server behind all, as a process of its own: with TLS, without, and the HTTP server that nginx asks where to go.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::common::process::Group;
use crate::common::server::{self, Server};
use crate::common::tls::{Authority, HOST, Order};
use crate::support::guarded::Guarded;
use crate::support::ports::{free_port, wait_for_port};

/// As its first argument it makes this program a mail server.
pub(crate) const COMMAND: &str = "upstream";

/// As a further one: no TLS session can be resumed there.
const NO_RESUMPTION: &str = "no-resumption";

/// A running mail server.
pub(crate) struct Upstream {
    pub(crate) tls: u16,
    pub(crate) http: u16,
    pub(crate) group: Group,
    _guarded: Guarded,
}

impl Upstream {
    pub(crate) fn start(authority: &Authority, resumption: bool) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("deltapush-peers-").tempdir()?.keep();
        let certificates = authority.certificate.parent().context("no folder")?;
        let [tls, plain, http] = [free_port(), free_port(), free_port()];
        let resumption = if resumption { "" } else { NO_RESUMPTION };
        let program = std::env::current_exe()?;
        let script = format!(
            "echo $$ >pid\nexec '{}' {COMMAND} '{}' {tls} {plain} {http} {resumption}",
            program.display(),
            certificates.display()
        );
        let guarded = Guarded::start(&script, &folder);
        ensure!(wait_for_port(http, Duration::from_secs(20)), "the mail server does not start");
        let group = Group { leader: fs::read_to_string(folder.join("pid"))?.trim().parse()? };
        Ok(Self { tls, http, group, _guarded: guarded })
    }
}

/// Serves until it is ended.
#[tokio::main]
pub(crate) async fn run(folder: &str, arguments: &[&str]) -> Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let [tls, plain, http, flags @ ..] = arguments else { anyhow::bail!("three ports are wanted") };
    let plain: u16 = plain.parse()?;
    let authority = Authority::in_folder(Path::new(folder));
    let acceptor = authority.acceptor(!flags.contains(&NO_RESUMPTION), Order::Usual)?;
    let _servers =
        (Server::start_at(tls.parse()?, 0, Some(acceptor))?, Server::start_at(plain, 0, None)?);
    let listener = server::listen(http.parse()?)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // A connection that ends is no matter.
        tokio::spawn(async move { drop(answer(stream, plain).await) });
    }
}

/// Tells nginx that the login is right, and where to go (ngx_mail_auth_http_module): one request, without a body.
async fn answer(stream: TcpStream, plain: u16) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 && line != "\r\n" {
        line.clear();
    }
    let answer = format!(
        "HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nAuth-Server: {HOST}\r\nAuth-Port: {plain}\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}
