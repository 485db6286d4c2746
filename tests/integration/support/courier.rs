//! A real Courier of one's own: Debian's package as `scripts/servers` unpacks it, in a temporary folder that is its root,
//! because its paths are compiled in. That takes root's right to chroot.
//!
//! The configuration is Debian's but for the port and the user database in place of PAM: no TLS, and IDLE that looks once a
//! minute.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::dovecot::PASSWORD;
use super::guarded::Guarded;
use super::ports::{ReservedPort, wait_for_port};
use super::server::unpacked;

/// Owner of the mail.
const MAIL_UID: u32 = 54321;

/// As /usr/lib/courier/imapd does it, without the logger.
const RUN: &str = r#"
    PATH=$PATH:/usr/sbin
    set -a
    . ./etc/courier/imapd
    set +a
    IMAP_STARTTLS=NO
    export IMAP_STARTTLS
    chroot . /usr/lib/courier/courier-authlib/authdaemond &
    exec chroot . /usr/sbin/couriertcpd -address=127.0.0.1 -maxprocs="$MAXDAEMONS" -maxperip="$MAXPERIP" $TCPDOPTS PORT \
        /usr/lib/courier/courier/imaplogin /usr/bin/imapd "$MAILDIRPATH"
"#;

/// A running Courier.
pub(crate) struct Courier {
    /// Port in plain text.
    pub(crate) imap: u16,
    _reserved: ReservedPort,
    users: Mutex<Vec<String>>,
    running: Guarded,
    dir: tempfile::TempDir,
}

impl Courier {
    /// Starts an instance that one test uses, and waits until it accepts connections.
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("deltapush-courier-").tempdir().unwrap();
        let at = dir.path();
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(unpacked("courier").join("."))
            .arg(at)
            .status()
            .unwrap();
        assert!(copied.success(), "cp");
        let may = in_root(at, "/usr/bin/maildirmake.courier", &["/srv/none"]).status().unwrap();
        assert!(may.success(), "Courier's tests need root's right to chroot: run them as root");
        let authdaemonrc = at.join("etc/courier/authdaemonrc");
        let text = fs::read_to_string(&authdaemonrc).unwrap();
        fs::write(
            &authdaemonrc,
            text.replace("authmodulelist=\"authpam\"", "authmodulelist=\"authuserdb\""),
        )
        .unwrap();

        let reserved = ReservedPort::new();
        let (imap, users) = (reserved.number(), Mutex::default());
        let courier = Self { imap, _reserved: reserved, users, running: run(at, imap), dir };
        courier.wait_until_ready();
        courier
    }

    /// A user, ready to log in and to receive mail.
    pub(crate) fn user(&self, name: &str) -> String {
        let user = format!("{name}@lab.test");
        let mut users = self.users.lock().unwrap();
        assert!(!users.contains(&user), "two tests use the user {user}");
        let at = self.dir.path();
        let home = at.join("srv").join(&user);
        fs::create_dir(&home).unwrap();
        let made = in_root(at, "/usr/bin/maildirmake.courier", &[&format!("/srv/{user}/Maildir")])
            .status()
            .unwrap();
        assert!(made.success(), "maildirmake");
        let owner = format!("{MAIL_UID}:{MAIL_UID}");
        assert!(
            Command::new("chown").args(["-R", &owner]).arg(&home).status().unwrap().success(),
            "chown"
        );
        users.push(user.clone());
        self.write_userdb(&users);
        user
    }

    /// Puts a message into the Maildir, as every delivery agent does.
    pub(crate) fn deliver(&self, user: &str, message: &str) {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let maildir = self.dir.path().join("srv").join(user).join("Maildir");
        let name = format!("1750000000.M{}.localhost", NUMBER.fetch_add(1, Ordering::Relaxed));
        let (written, delivered) =
            (maildir.join("tmp").join(&name), maildir.join("new").join(&name));
        fs::write(&written, message.replace("\r\n", "\n")).unwrap();
        std::os::unix::fs::chown(&written, Some(MAIL_UID), Some(MAIL_UID)).unwrap();
        fs::rename(written, delivered).unwrap();
    }

    /// Ends Courier.
    pub(crate) fn stop(&mut self) {
        self.running.stop();
    }

    /// Starts it after [`stop`](Self::stop), on the same folder and port.
    pub(crate) fn start_again(&mut self) {
        self.running = run(self.dir.path(), self.imap);
        self.wait_until_ready();
    }

    /// Courier's own log.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join("log")).unwrap_or_default())
            .into_owned()
    }

    /// The two databases that Debian's makeuserdb makes of a list of users.
    fn write_userdb(&self, users: &[String]) {
        let secret = BASE64_STANDARD.encode(digest::digest(&digest::SHA256, PASSWORD.as_bytes()));
        let (mut open, mut shadow) = (String::new(), String::new());
        for user in users {
            open += &format!("{user}\tuid={MAIL_UID}|gid={MAIL_UID}|home=/srv/{user}|_=\n");
            shadow += &format!("{user}\timappw={{SHA256}}{secret}\n");
        }
        for (name, text) in [("userdb", open), ("userdbshadow", shadow)] {
            let (made, place) =
                (format!("/etc/courier/{name}.tmp"), format!("/etc/courier/{name}.dat"));
            let program = "/usr/lib/courier/courier-authlib/makedatprog";
            let mut child = in_root(self.dir.path(), program, &["-", &made, &place])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            std::io::Write::write_all(
                child.stdin.as_mut().unwrap(),
                format!("{text}.\n").as_bytes(),
            )
            .unwrap();
            assert!(child.wait().unwrap().success(), "makedatprog");
        }
    }

    /// The port alone does not say that logins work: the other process has a socket.
    fn wait_until_ready(&self) {
        let socket = self.dir.path().join("run/courier/authdaemon/socket");
        let ready = wait_for_port(self.imap, Duration::from_secs(40)) && {
            let deadline = std::time::Instant::now() + Duration::from_secs(40);
            while std::os::unix::net::UnixStream::connect(&socket).is_err()
                && std::time::Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        };
        assert!(ready, "Courier does not start:\n{}", self.log());
    }
}

fn run(at: &Path, imap: u16) -> Guarded {
    Guarded::start(&RUN.replace("PORT", &imap.to_string()), at)
}

/// A program of Courier's, about to run in its root.
fn in_root(at: &Path, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("/usr/sbin/chroot");
    command.arg(at).arg(program).args(arguments);
    command
}
