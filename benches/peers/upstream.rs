//! The mail server behind all, as a process of its own: with TLS, without, and the HTTP server that nginx asks where to go.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::common::process::Group;
use crate::common::server::{self, LoadServer};
use crate::common::tls::{Authority, HOST, Order};
use crate::support::guarded::Guarded;

/// As its first argument it makes this program a mail server.
pub(crate) const COMMAND: &str = "upstream";

/// The file in which it tells its ports: with TLS, and of the HTTP server.
const PORTS: &str = "ports";

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
        let resumption = if resumption { "" } else { NO_RESUMPTION };
        let program = std::env::current_exe()?;
        let script = format!(
            "echo $$ >pid\nexec '{}' {COMMAND} '{}' {resumption}",
            program.display(),
            certificates.display()
        );
        let guarded = Guarded::start(&script, &folder);
        let file = folder.join(PORTS);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !file.exists() {
            ensure!(Instant::now() < deadline, "the mail server does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let ports = fs::read_to_string(file)?;
        let (tls, http) = ports.split_once(' ').context("not two ports")?;
        let (tls, http) = (tls.parse()?, http.parse()?);
        let group = Group { leader: fs::read_to_string(folder.join("pid"))?.trim().parse()? };
        Ok(Self { tls, http, group, _guarded: guarded })
    }
}

/// Serves until it is ended.
#[tokio::main]
pub(crate) async fn run(folder: &str, arguments: &[&str]) -> Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let authority = Authority::in_folder(Path::new(folder));
    let acceptor = authority.acceptor(!arguments.contains(&NO_RESUMPTION), Order::Usual)?;
    let (tls, plain) = (LoadServer::start(0, Some(acceptor))?, LoadServer::start(0, None)?);
    let listener = server::listen(0)?;
    let ports = format!("{} {}", tls.port, listener.local_addr()?.port());
    // Whole, or not there yet.
    fs::write("ports.new", ports)?;
    fs::rename("ports.new", PORTS)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // A connection that ends is no matter.
        tokio::spawn(async move { drop(answer(stream, plain.port).await) });
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
