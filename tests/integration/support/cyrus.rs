//! A real Cyrus of one's own: Debian's package as `scripts/servers` unpacks it, run from a temporary folder.
//!
//! The configuration is Debian's but for the paths, the ports, the password file and the certificate.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::certs::Authority;
use super::dovecot::PASSWORD;
use super::guarded::Guarded;
use super::lmtp;
use super::ports::{ReservedPort, wait_for_port};
use super::server::unpacked;

/// Cyrus's user when it is started by root: every Debian has this one.
const MAIL_USER: &str = "mail";

/// A running Cyrus.
pub(crate) struct Cyrus {
    /// Port with TLS from the first byte.
    pub(crate) imaps: u16,
    /// The authority that issued the server's certificate.
    pub(crate) authority: Authority,
    lmtp: u16,
    _reserved: [ReservedPort; 2],
    running: Guarded,
    dir: tempfile::TempDir,
}

impl Cyrus {
    /// Starts an instance that one test uses, and waits until it accepts connections.
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("deltapush-cyrus-").tempdir().unwrap();
        let at = dir.path();
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        let authority = Authority::new(at);
        for folder in ["config", "config/log", "spool", "run", "proc", "lock"] {
            fs::create_dir(at.join(folder)).unwrap();
        }
        let reserved = [ReservedPort::new(), ReservedPort::new()];
        let [imaps, lmtp] = reserved.each_ref().map(ReservedPort::number);
        fs::write(at.join("imapd.conf"), imapd_conf(at, &authority)).unwrap();
        fs::write(at.join("cyrus.conf"), cyrus_conf(at, imaps, lmtp)).unwrap();
        own(at);
        let cyrus = Self { imaps, authority, lmtp, _reserved: reserved, running: run(at), dir };
        cyrus.wait_until_ready();
        cyrus
    }

    /// A user, ready to log in. The mailbox is made at the first login.
    pub(crate) fn user(&self, name: &str) -> String {
        let telemetry = self.telemetry(name);
        fs::create_dir(&telemetry)
            .unwrap_or_else(|error| panic!("two tests use the user {name}: {error}"));
        let program = unpacked("cyrus").join("usr/sbin/saslpasswd2");
        let mut saslpasswd = Command::new(program);
        saslpasswd.env("LD_LIBRARY_PATH", libraries()).env("SASL_PATH", mechanisms());
        saslpasswd.args(["-p", "-c", "-u", "localhost", "-f"]);
        saslpasswd.arg(self.dir.path().join("sasldb2")).arg(name).stdin(Stdio::piped());
        let mut child = saslpasswd.spawn().unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), PASSWORD.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "saslpasswd2 {name}");
        own(self.dir.path());
        name.to_owned()
    }

    /// Delivers a message by LMTP to somebody who has logged in before.
    pub(crate) async fn deliver(&self, user: &str, message: &str) {
        lmtp::deliver(self.lmtp, "bob@elsewhere.test", user, message).await;
    }

    /// Ends Cyrus.
    pub(crate) fn stop(&mut self) {
        self.running.stop();
    }

    /// Starts it after [`stop`](Self::stop), on the same folder and ports.
    pub(crate) fn start_again(&mut self) {
        self.running = run(self.dir.path());
        self.wait_until_ready();
    }

    /// Returns the dialogues of a user's sessions after login.
    pub(crate) fn sessions(&self, user: &str) -> Vec<String> {
        let entries = fs::read_dir(self.telemetry(user)).unwrap();
        entries
            .map(|entry| {
                String::from_utf8_lossy(&fs::read(entry.unwrap().path()).unwrap()).into_owned()
            })
            .collect()
    }

    /// Returns its output; the rest goes to the system's log.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join("log")).unwrap_or_default())
            .into_owned()
    }

    fn telemetry(&self, user: &str) -> PathBuf {
        self.dir.path().join("config/log").join(user)
    }

    fn wait_until_ready(&self) {
        for port in [self.imaps, self.lmtp] {
            assert!(
                wait_for_port(port, Duration::from_secs(40)),
                "Cyrus does not start:\n{}",
                self.log()
            );
        }
    }
}

fn libraries() -> PathBuf {
    unpacked("cyrus").join("libraries")
}

/// The SASL mechanisms. Those of the system are not taken: it may have none.
fn mechanisms() -> PathBuf {
    unpacked("cyrus").join("sasl2")
}

fn run(at: &Path) -> Guarded {
    let (libraries, mechanisms, bin) = (libraries(), mechanisms(), bin());
    let (libraries, mechanisms, bin) = (libraries.display(), mechanisms.display(), bin.display());
    let script = format!(
        r#"export LD_LIBRARY_PATH="{libraries}" SASL_PATH="{mechanisms}"
        exec "{bin}/master" -C "$PWD/imapd.conf" -M "$PWD/cyrus.conf" -p "$PWD/run/pid""#
    );
    Guarded::start(&script, at)
}

fn bin() -> PathBuf {
    unpacked("cyrus").join("usr/lib/cyrus/bin")
}

/// Hands all files to the user that Cyrus runs as.
fn own(at: &Path) {
    let owned = Command::new("chown").args(["-R", &owner()]).arg(at).status().unwrap();
    assert!(owned.success(), "chown");
}

fn owner() -> String {
    let said = |flag: &str| {
        let output = Command::new("id").arg(flag).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    if said("-u") == "0" {
        format!("{MAIL_USER}:{MAIL_USER}")
    } else {
        format!("{}:{}", said("-un"), said("-gn"))
    }
}

fn imapd_conf(at: &Path, authority: &Authority) -> String {
    let owner = owner();
    let (user, group) = owner.split_once(':').unwrap();
    let (cert, key, at) =
        (authority.leaf_cert.display(), authority.leaf_key.display(), at.display());
    format!(
        "configdirectory: {at}/config
proc_path: {at}/proc
mboxname_lockpath: {at}/lock
defaultpartition: default
partition-default: {at}/spool
sievedir: {at}/sieve
lmtpsocket: {at}/run/lmtp
idlesocket: {at}/run/idle
notifysocket: {at}/run/notify
altnamespace: no
unixhierarchysep: no
lmtp_downcase_rcpt: yes
allowanonymouslogin: no
autocreate_quota: 0
umask: 077
sieveusehomedir: false
hashimapspool: true
allowplaintext: yes
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: {at}/sasldb2
sasl_auto_transition: no
tls_session_timeout: 1440
tls_server_cert: {cert}
tls_server_key: {key}
servername: localhost
syslog_prefix: cyrus
cyrus_user: {user}
cyrus_group: {group}
"
    )
}

fn cyrus_conf(at: &Path, imaps: u16, lmtp: u16) -> String {
    let (bin, at) = (bin(), at.display());
    let program = |name: &str| format!("{}/{name} -C {at}/imapd.conf", bin.display());
    format!(
        r#"START {{
  recover cmd="{} -r"
}}
SERVICES {{
  imaps cmd="{} -s -U 30" listen="127.0.0.1:{imaps}" prefork=0 maxchild=100
  lmtp cmd="{} -a" listen="127.0.0.1:{lmtp}" prefork=0 maxchild=20
}}
EVENTS {{
  checkpoint cmd="{} -c" period=30
}}
"#,
        program("ctl_cyrusdb"),
        program("imapd"),
        program("lmtpd"),
        program("ctl_cyrusdb"),
    )
}
