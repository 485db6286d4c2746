//! A real Dovecot 2.4: Debian 13's, as `scripts/servers` unpacks it, in a temporary folder that is its root, because it wants
//! another C library. That takes root's right to chroot.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::certs::Authority;
use super::dovecot::PASSWORD;
use super::guarded::Guarded;
use super::ports::{ReservedPort, wait_for_port};
use super::server::unpacked;

/// Owner of the mail.
const MAIL_UID: u32 = 54321;

/// A running Dovecot 2.4.
pub(crate) struct Dovecot24 {
    /// Port with TLS from the first byte.
    pub(crate) imaps: u16,
    /// Port where mail is delivered.
    pub(crate) lmtp: u16,
    /// The authority that issued the server's certificate.
    pub(crate) authority: Authority,
    _reserved: [ReservedPort; 2],
    _running: Guarded,
    dir: tempfile::TempDir,
}

impl Dovecot24 {
    /// Starts an instance with this configuration, in which `IMAPS`, `LMTP`, `MAIL_UID` and `PASSWORD` are replaced, and waits
    /// until it accepts connections.
    pub(crate) fn start(configuration: &str) -> Self {
        Self::with_files(configuration, &[])
    }

    /// The same with further files in its root, each by its path there and its text.
    pub(crate) fn with_files(configuration: &str, files: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new().prefix("deltapush-dovecot24-").tempdir().unwrap();
        let at = dir.path();
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        let root = unpacked("dovecot-2.4").join(".");
        assert!(Command::new("cp").arg("-a").arg(root).arg(at).status().unwrap().success());
        for folder in ["srv/mail", "srv/rawlog"] {
            fs::create_dir(at.join(folder)).unwrap();
            chown(at.join(folder), Some(MAIL_UID), Some(MAIL_UID)).unwrap();
        }
        let authority = Authority::new(&at.join("etc"));
        let reserved = [ReservedPort::new(), ReservedPort::new()];
        let [imaps, lmtp] = reserved.each_ref().map(ReservedPort::number);
        let configuration = configuration
            .replace("IMAPS", &imaps.to_string())
            .replace("LMTP", &lmtp.to_string())
            .replace("MAIL_UID", &MAIL_UID.to_string())
            .replace("PASSWORD", &BASE64_STANDARD.encode(PASSWORD));
        fs::write(at.join("etc/dovecot.conf"), configuration).unwrap();
        for (path, text) in files {
            fs::write(at.join(path), text).unwrap();
        }
        let running = Guarded::start("exec chroot . /usr/sbin/dovecot -F -c /etc/dovecot.conf", at);
        let dovecot = Self { imaps, lmtp, authority, _reserved: reserved, _running: running, dir };
        for port in [imaps, lmtp] {
            assert!(wait_for_port(port, Duration::from_secs(40)), "{}", dovecot.log());
        }
        dovecot
    }

    /// A user of this test's own.
    pub(crate) fn user(&self, name: &str) -> String {
        let user = format!("{name}@lab.test");
        let rawlog = self.dir.path().join("srv/rawlog").join(&user);
        fs::create_dir(&rawlog).unwrap();
        chown(rawlog, Some(MAIL_UID), Some(MAIL_UID)).unwrap();
        user
    }

    /// Dovecot's own log.
    pub(crate) fn log(&self) -> String {
        let read = |name: &str| fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&[read("log"), read("srv/log")].concat()).into_owned()
    }
}

impl Drop for Dovecot24 {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- Dovecot's log\n{}---", self.log());
        }
    }
}
