//! The candidates: which program, whether it is there, and how it runs.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use super::configurations as configure;
use super::options::Build;
use super::upstream::Upstream;
use crate::common::bare;
use crate::common::process::Group;
use crate::common::tls::Authority;
use crate::support::guarded::Guarded;
use crate::support::ports::{ReservedPort, wait_for_port};
use crate::support::server::program;

/// Time limit of a program's start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A kind of proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Deltapush,
    Bytes,
    NginxStream,
    NginxMail,
    Haproxy,
    Stunnel,
    Dovecot,
}

impl Kind {
    /// The programs that deltapush is compared with.
    pub(crate) const BESIDE: [Self; 6] = [
        Self::Bytes,
        Self::NginxStream,
        Self::Haproxy,
        Self::NginxMail,
        Self::Stunnel,
        Self::Dovecot,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deltapush => "deltapush",
            Self::Bytes => "bytes",
            Self::NginxStream => "nginx stream",
            Self::NginxMail => "nginx mail",
            Self::Haproxy => "HAProxy",
            Self::Stunnel => "stunnel",
            Self::Dovecot => "Dovecot proxy",
        }
    }

    /// The program, which may be of two kinds.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::NginxStream | Self::NginxMail => "nginx",
            Self::Dovecot => "Dovecot",
            kind => kind.name(),
        }
    }

    /// Reports if it is somebody else's proxy.
    pub(crate) fn is_peer(self) -> bool {
        !matches!(self, Self::Deltapush | Self::Bytes)
    }

    /// The program that is started, if it is another project's: as `scripts/servers` unpacks it, but for Dovecot, which is installed.
    fn file(self) -> Option<PathBuf> {
        match self {
            Self::Deltapush | Self::Bytes => None,
            Self::NginxStream | Self::NginxMail => Some(program("nginx")),
            Self::Haproxy => Some(program("haproxy")),
            Self::Stunnel => Some(program("stunnel4")),
            Self::Dovecot => Some(PathBuf::from("/usr/sbin/dovecot")),
        }
    }

    /// The program's version, in its own words.
    pub(crate) fn version(self) -> Option<String> {
        let flag = match self {
            Self::Deltapush => return Some(env!("CARGO_PKG_VERSION").to_owned()),
            Self::Bytes => return None,
            Self::NginxStream | Self::NginxMail | Self::Haproxy => "-v",
            Self::Stunnel => "-version",
            Self::Dovecot => "--version",
        };
        let output = Command::new(self.file()?).arg(flag).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let is_version = |word: &&str| {
            word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit())
        };
        let words = text.split(|c: char| c.is_whitespace() || c == '/');
        words
            .into_iter()
            .find(is_version)
            .map(|word| word.split('-').next().unwrap_or(word).to_owned())
    }
}

/// Fails if a program is not there.
pub(crate) fn check_installed(kinds: &[Kind]) -> Result<()> {
    for file in kinds.iter().filter_map(|kind| kind.file()) {
        ensure!(
            file.exists(),
            "{} is missing: run scripts/servers (Dovecot is installed by scripts/test), or name with --beside who is there",
            file.display()
        );
    }
    Ok(())
}

/// The subject of a column of the tables.
#[derive(Debug, Clone)]
pub(crate) struct Entrant {
    pub(crate) kind: Kind,
    /// Of deltapush: which one.
    build: Option<Build>,
}

impl Entrant {
    /// Each kind once, and deltapush once for each build.
    pub(crate) fn all(kinds: &[Kind], builds: &[Build]) -> Vec<Self> {
        let of_kind = |kind: &Kind| match *kind {
            Kind::Deltapush => builds
                .iter()
                .map(|build| Self { kind: *kind, build: Some(build.clone()) })
                .collect(),
            kind => vec![Self { kind, build: None }],
        };
        kinds.iter().flat_map(of_kind).collect()
    }

    pub(crate) fn name(&self) -> &str {
        self.build.as_ref().map_or(self.kind.name(), |build| &build.name)
    }
}

/// A running proxy.
pub(crate) struct Candidate {
    pub(crate) address: SocketAddr,
    pub(crate) group: Group,
    /// Ends it.
    _guarded: Guarded,
    _reserved: [ReservedPort; 2],
}

impl Candidate {
    /// Starts it, and waits until it takes connections.
    pub(crate) fn start(
        entrant: &Entrant,
        authority: &Authority,
        upstream: &Upstream,
    ) -> Result<Self> {
        // Taken away when the program ends.
        let folder = tempfile::Builder::new().prefix("deltapush-peers-").tempdir()?.keep();
        let reserved = [ReservedPort::new(), ReservedPort::new()];
        let [port, between] = reserved.each_ref().map(ReservedPort::number);
        let place = configure::Place { folder: &folder, port, between, authority, upstream };
        let script = prepare(entrant, &place)?;
        let mut guarded = Guarded::start(&format!("echo $$ >pid\n{script}"), &folder);
        // stunnel is two processes, and the one behind the other may be the slower to start.
        let ports = [port, between];
        let ports = if entrant.kind == Kind::Stunnel { &ports[..] } else { &ports[..1] };
        if !ports.iter().all(|port| wait_for_port(*port, PATIENCE)) {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            guarded.stop();
            bail!("{} does not start:\n{log}", entrant.name());
        }
        let leader =
            fs::read_to_string(folder.join("pid"))?.trim().parse().context("no process id")?;
        Ok(Self {
            address: ([127, 0, 0, 1], port).into(),
            group: Group { leader },
            _guarded: guarded,
            _reserved: reserved,
        })
    }
}

/// Writes the configuration into the folder; what a shell has to do there to run the program.
fn prepare(entrant: &Entrant, place: &configure::Place<'_>) -> Result<String> {
    let write =
        |name: &str, text: String| -> Result<()> { Ok(fs::write(place.folder.join(name), text)?) };
    let kind = entrant.kind;
    let file = kind.file().unwrap_or_default();
    let file = file.display();
    Ok(match kind {
        Kind::Deltapush => {
            write("config.yaml", configure::deltapush(place))?;
            let file = &entrant.build.as_ref().context("no build of deltapush")?.file;
            format!("exec '{}' --config config.yaml run", file.display())
        }
        Kind::Bytes => {
            let certificates = place.authority.certificate.parent().context("no folder")?;
            let (program, command) = (std::env::current_exe()?, bare::COMMAND);
            let (port, upstream) = (place.port, place.upstream.tls);
            format!(
                "exec '{}' {command} '{}' {port} 127.0.0.1:{upstream}",
                program.display(),
                certificates.display()
            )
        }
        Kind::NginxStream | Kind::NginxMail => {
            let is_mail = kind == Kind::NginxMail;
            write(
                "nginx.conf",
                if is_mail { configure::nginx_mail(place) } else { configure::nginx_stream(place) },
            )?;
            format!("exec '{file}' -e stderr -p . -c nginx.conf")
        }
        Kind::Haproxy => {
            write("haproxy.cfg", configure::haproxy(place))?;
            format!("exec '{file}' -db -f haproxy.cfg")
        }
        Kind::Stunnel => {
            // In one process both ends would have to share one limit of open files.
            let [inner, outer] = configure::stunnel(place);
            write("in.conf", inner)?;
            write("out.conf", outer)?;
            format!("'{file}' out.conf &\nexec '{file}' in.conf")
        }
        Kind::Dovecot => {
            write("dovecot.conf", configure::dovecot(place))?;
            format!("exec '{file}' -F -c dovecot.conf")
        }
    })
}
