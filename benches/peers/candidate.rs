//! Who is measured: which program, whether it is there, and how it runs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
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
use crate::support::ports::{free_port, wait_for_port};

/// How long a program may take to start.
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
    /// All that deltapush is measured beside.
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

    /// Whether it is somebody else's proxy.
    pub(crate) fn is_peer(self) -> bool {
        !matches!(self, Self::Deltapush | Self::Bytes)
    }

    /// What must be there, and the Debian package that has it.
    fn needs(self) -> &'static [(&'static str, &'static str)] {
        const NGINX: (&str, &str) = ("/usr/sbin/nginx", "nginx");
        match self {
            Self::Deltapush | Self::Bytes => &[],
            Self::NginxStream => {
                &[NGINX, ("/usr/lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream")]
            }
            Self::NginxMail => {
                &[NGINX, ("/usr/lib/nginx/modules/ngx_mail_module.so", "libnginx-mod-mail")]
            }
            Self::Haproxy => &[("/usr/sbin/haproxy", "haproxy")],
            Self::Stunnel => &[("/usr/bin/stunnel4", "stunnel4")],
            Self::Dovecot => &[
                ("/usr/sbin/dovecot", "dovecot-core"),
                ("/usr/lib/dovecot/imap-login", "dovecot-imapd"),
            ],
        }
    }

    /// What the program says of its version.
    pub(crate) fn version(self) -> Option<String> {
        let (program, flag) = match self {
            Self::Deltapush => return Some(env!("CARGO_PKG_VERSION").to_owned()),
            Self::Bytes => return None,
            Self::NginxStream | Self::NginxMail => ("/usr/sbin/nginx", "-v"),
            Self::Haproxy => ("/usr/sbin/haproxy", "-v"),
            Self::Stunnel => ("/usr/bin/stunnel4", "-version"),
            Self::Dovecot => ("/usr/sbin/dovecot", "--version"),
        };
        let output = Command::new(program).arg(flag).output().ok()?;
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

/// Fails if a program is not there, and says which packages have what is missing.
pub(crate) fn check_installed(kinds: &[Kind]) -> Result<()> {
    let mut missing: Vec<&str> = Vec::new();
    for (file, package) in kinds.iter().flat_map(|kind| kind.needs()) {
        if !Path::new(file).exists() && !missing.contains(package) {
            missing.push(package);
        }
    }
    ensure!(
        missing.is_empty(),
        "these Debian packages are missing: {}; install them (apt-get install --no-install-recommends), mask their \
         services if nothing shall start, or name with --beside who is there",
        missing.join(" ")
    );
    Ok(())
}

/// Whom a column of the tables is about.
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
        let port = free_port();
        let script = prepare(entrant, &folder, port, authority, upstream)?;
        let mut guarded = Guarded::start(&format!("echo $$ >pid\n{script}"), &folder);
        if !wait_for_port(port, PATIENCE) {
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
        })
    }
}

/// Writes the configuration into the folder; what a shell has to do there to run the program.
fn prepare(
    entrant: &Entrant,
    folder: &Path,
    port: u16,
    authority: &Authority,
    upstream: &Upstream,
) -> Result<String> {
    let write =
        |name: &str, text: String| -> Result<()> { Ok(fs::write(folder.join(name), text)?) };
    let place = configure::Place { folder, port, authority, upstream };
    let kind = entrant.kind;
    Ok(match kind {
        Kind::Deltapush => {
            write("config.yaml", configure::deltapush(&place))?;
            let file = &entrant.build.as_ref().context("no build of deltapush")?.file;
            format!("exec '{}' --config config.yaml run", file.display())
        }
        Kind::Bytes => {
            let certificates = authority.certificate.parent().context("no folder")?;
            let (program, command) = (std::env::current_exe()?, bare::COMMAND);
            let upstream = upstream.tls;
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
                if is_mail {
                    configure::nginx_mail(&place)
                } else {
                    configure::nginx_stream(&place)
                },
            )?;
            "exec /usr/sbin/nginx -e stderr -p . -c nginx.conf".to_owned()
        }
        Kind::Haproxy => {
            write("haproxy.cfg", configure::haproxy(&place))?;
            "exec /usr/sbin/haproxy -db -f haproxy.cfg".to_owned()
        }
        Kind::Stunnel => {
            // In one process both ends would have to share one limit of open files.
            let between = free_port();
            let [inner, outer] = configure::stunnel(&place, between);
            write("in.conf", inner)?;
            write("out.conf", outer)?;
            "/usr/bin/stunnel4 out.conf &\nexec /usr/bin/stunnel4 in.conf".to_owned()
        }
        Kind::Dovecot => {
            write("dovecot.conf", configure::dovecot(&place))?;
            "exec /usr/sbin/dovecot -F -c dovecot.conf".to_owned()
        }
    })
}
