//! A real Dovecot of one's own: Debian's package, run from a temporary folder on free loopback ports.
//!
//! One instance per [`Setup`] serves all tests of this binary, each with users of its own: any user name logs in with
//! [`PASSWORD`]. Everything a client says after login is kept by Dovecot's rawlog, so a test can read what arrived.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::certs::Authority;
use super::ports::{ReservedPort, wait_for_port};
use super::{lmtp, poll};

/// Every user's password: it has what breaks careless quoting.
pub(crate) const PASSWORD: &str = r#"pä "quoted" \back{5}"#;

/// Every user's other password, for programs that cannot be told the first.
pub(crate) const SIMPLE_PASSWORD: &str = "sesame";

const DOVECOT: &str = "/usr/sbin/dovecot";

/// Runs Dovecot until standard input ends (Ctrl-C ends it too), and takes the folder away unless the input was `keep`.
const GUARD: &str = r#"
    trap : INT
    "$0" -F -c "$1" & dovecot=$!
    said=$(cat)
    kill "$dovecot"
    wait "$dovecot"
    [ "$said" = keep ] || rm -rf "$2"
"#;

/// Owner of the mail when the tests run as root. Dovecot needs no passwd entry for it.
const MAIL_UID: u32 = 54321;

/// Capabilities of the server beyond plain IMAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    /// As Debian ships it: neither METADATA nor push.
    Vanilla,
    /// METADATA only: it keeps entries, but nothing says that it pushes.
    Metadata,
    /// METADATA and XDELTAPUSH, as a chatmail relay advertises them.
    Chatmail,
    /// IDLE, but no NOTIFY.
    WithoutNotify,
    /// Every mechanism to log in by; access tokens are signed with [`TOKEN_KEY`].
    Mechanisms,
    /// It says every two seconds of an IDLE that it is still there.
    Talkative,
    /// COMPRESS=DEFLATE.
    Compress,
    /// It believes what deltapush says of its clients: by ID everywhere, by the PROXY protocol on its plain port.
    Trusting,
    /// One process for all logins ("high-performance mode"), so that TLS sessions can be resumed.
    OneLoginProcess,
}

/// Key of the access tokens of [`Setup::Mechanisms`].
pub(crate) const TOKEN_KEY: &str = "the-key-that-signs-access-tokens";

/// A running Dovecot.
pub(crate) struct Dovecot {
    /// Port with TLS from the first byte.
    pub(crate) imaps: u16,
    /// Port in plain text, with STARTTLS on offer.
    pub(crate) imap: u16,
    /// Port where mail is delivered.
    pub(crate) lmtp: u16,
    /// The authority that issued the server's certificate.
    pub(crate) authority: Authority,
    _reserved: [ReservedPort; 3],
    guard: Child,
    dir: tempfile::TempDir,
}

/// The shared instance of a set-up, started on first use.
pub(crate) fn shared(setup: Setup) -> &'static Dovecot {
    static INSTANCES: [OnceLock<Dovecot>; 9] = [const { OnceLock::new() }; 9];
    INSTANCES[setup as usize].get_or_init(|| Dovecot::start(setup))
}

impl Dovecot {
    /// An instance that only one test uses, which may restart it.
    pub(crate) fn exclusive(setup: Setup) -> Self {
        Self::start(setup)
    }

    /// Ends Dovecot; it says goodbye to its clients.
    pub(crate) fn stop(&mut self) {
        self.guard.stdin.as_mut().unwrap().write_all(b"keep").unwrap();
        assert!(self.end(Duration::from_secs(20)), "Dovecot does not end:\n{}", self.log());
    }

    fn end(&mut self, patience: Duration) -> bool {
        drop(self.guard.stdin.take());
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if !matches!(self.guard.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Starts Dovecot after [`stop`](Self::stop), on the same folder and ports.
    pub(crate) fn start_again(&mut self) {
        self.guard = spawn(self.dir.path());
        self.wait_until_ready();
    }

    /// Starts an instance and waits until it accepts connections.
    fn start(setup: Setup) -> Self {
        Self::naming(setup, &["localhost", "127.0.0.1"])
    }

    /// The same, with a certificate for these names.
    pub(crate) fn naming(setup: Setup, names: &[&str]) -> Self {
        Self::configured(setup, names, |_| String::new())
    }

    /// The same, with further settings: `settings` gets the server's folder, and may write files there.
    pub(crate) fn configured(
        setup: Setup,
        names: &[&str],
        settings: impl FnOnce(&Path) -> String,
    ) -> Self {
        assert!(
            Path::new(DOVECOT).exists(),
            "{DOVECOT} is missing: install the Debian packages dovecot-imapd, dovecot-lmtpd and dovecot-sieve, or run scripts/test"
        );
        let dir = tempfile::Builder::new().prefix("deltapush-dovecot-").tempdir().unwrap();
        let authority = Authority::naming(dir.path(), names);
        let reserved = [(); 3].map(|()| ReservedPort::new());
        let [imaps, imap, lmtp] = reserved.each_ref().map(ReservedPort::number);
        for folder in ["mail", "rawlog"] {
            let folder = dir.path().join(folder);
            fs::create_dir(&folder).unwrap();
            own(&folder);
        }
        // The mail user must get through the temporary folder, which is made for its owner alone.
        open_to_all(dir.path());
        let config = configuration(setup, dir.path(), &authority, imaps, imap, lmtp);
        fs::write(dir.path().join("dovecot.conf"), config + &settings(dir.path())).unwrap();

        // Statics are never dropped: Dovecot ends when this process does, because its standard input is then closed.
        let guard = spawn(dir.path());
        let dovecot = Self { imaps, imap, lmtp, authority, _reserved: reserved, guard, dir };
        dovecot.wait_until_ready();
        dovecot
    }

    fn wait_until_ready(&self) {
        for port in [self.imaps, self.imap, self.lmtp] {
            assert!(
                wait_for_port(port, Duration::from_secs(40)),
                "Dovecot does not start:\n{}",
                self.log()
            );
        }
    }

    /// A user of this test's own, ready to log in and to receive mail.
    pub(crate) fn user(&self, name: &str) -> String {
        self.user_of(format!("{name}@lab.test"))
    }

    /// The same with an address of another domain.
    pub(crate) fn user_of(&self, user: String) -> String {
        let rawlog = self.dir.path().join("rawlog").join(&user);
        fs::create_dir(&rawlog)
            .unwrap_or_else(|error| panic!("two tests use the user {user}: {error}"));
        own(&rawlog);
        user
    }

    /// Delivers a message by LMTP. `sender` is the envelope's.
    pub(crate) async fn deliver(&self, sender: &str, user: &str, message: &str) {
        lmtp::deliver(self.lmtp, sender, user, message).await;
    }

    /// Delivers an ordinary message from somebody else.
    pub(crate) async fn deliver_news(&self, user: &str, subject: &str) {
        self.deliver("bob@elsewhere.test", user, &message("bob@elsewhere.test", user, subject, ""))
            .await;
    }

    /// Returns the commands of a user's sessions after login, oldest session first.
    pub(crate) fn sessions(&self, user: &str) -> Vec<String> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.dir.path().join("rawlog").join(user))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "in"))
            .collect();
        files.sort();
        files
            .iter()
            .map(|file| String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned())
            .collect()
    }

    /// The sessions in which somebody watches: EXAMINE, then IDLE. A client of Delta Chat's kind uses SELECT.
    pub(crate) fn watches(&self, user: &str) -> Vec<String> {
        self.sessions(user)
            .into_iter()
            .filter(|said| said.contains("EXAMINE") && said.contains("IDLE"))
            .collect()
    }

    /// Waits until the `n`th watch of a user's mailbox stands in IDLE.
    pub(crate) async fn wait_for_watch(&self, user: &str, n: usize) {
        let watching = poll(Duration::from_secs(40), || self.watches(user).len() >= n).await;
        assert!(
            watching,
            "no watch number {n} of {user}; its sessions said: {:#?}\n{}",
            self.sessions(user),
            self.log()
        );
    }

    /// Expects exactly `n` logins of a user to have succeeded so far.
    pub(crate) async fn expect_logins(&self, user: &str, n: usize) {
        let needle = format!("Login: user=<{user}>");
        let logins = || self.log().lines().filter(|line| line.contains(&needle)).count();
        // Dovecot writes its log a little later.
        poll(Duration::from_secs(40), || logins() >= n).await;
        assert_eq!(logins(), n, "logins of {user}:\n{}", self.log());
    }

    /// Counts the current sessions of a user by `doveadm who`.
    pub(crate) fn who(&self, user: &str) -> usize {
        let output = Command::new("doveadm")
            .arg("-c")
            .arg(self.dir.path().join("dovecot.conf"))
            .args(["who", "-1"])
            .output();
        let output = output.expect("doveadm, of the Debian package dovecot-core, is missing");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter(|line| line.split_whitespace().next() == Some(user))
            .count()
    }

    /// The folder with its configuration and files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Dovecot's own log.
    pub(crate) fn log(&self) -> String {
        let mut log = String::new();
        for name in ["stderr", "log"] {
            log +=
                &String::from_utf8_lossy(&fs::read(self.dir.path().join(name)).unwrap_or_default());
        }
        log
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.end(Duration::from_secs(5));
    }
}

fn spawn(dir: &Path) -> Child {
    let stderr = fs::File::options().create(true).append(true).open(dir.join("stderr")).unwrap();
    Command::new("sh")
        .args(["-c", GUARD])
        .args([Path::new(DOVECOT), &dir.join("dovecot.conf"), dir])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap()
}

/// A message as its sender would write it; `headers` are further header lines, each with its CRLF.
pub(crate) fn message(from: &str, to: &str, subject: &str, headers: &str) -> String {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!(
        "From: {from}\r\nTo: {to}\r\nSubject: {subject}\r\nMessage-ID: <{number}.{}@lab.test>\r\n\
         Date: Mon, 01 Jun 2026 12:00:00 +0000\r\n{headers}Content-Type: text/plain; charset=utf-8\r\n\r\n{subject}\r\n",
        std::process::id()
    )
}

fn configuration(
    setup: Setup,
    dir: &Path,
    authority: &Authority,
    imaps: u16,
    imap: u16,
    lmtp: u16,
) -> String {
    let at = dir.display();
    let password = BASE64_STANDARD.encode(PASSWORD);
    let (cert, key) = (authority.leaf_cert.display(), authority.leaf_key.display());
    let (uid, gid) = mail_owner();
    let mut text = format!(
        r"
protocols = imap lmtp
listen = 127.0.0.1
base_dir = {at}/run
state_dir = {at}/run
log_path = {at}/log
mail_location = maildir:~/Maildir
ssl = yes
ssl_cert = <{cert}
ssl_key = <{key}
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
mail_max_userip_connections = 100
# Linux gives 128 inotify instances to a user, and each waiting session takes one: those of a cluster, or of several tests at once,
# are more. A session without one looks for mail only so often; 30 s is the default.
mailbox_idle_check_interval = 2s
# Each connection with TLS has a process of its own, and an account has two while it moves from one node to another.
default_process_limit = 1000
default_client_limit = 4000
first_valid_uid = 1
first_valid_gid = 1
rawlog_dir = {at}/rawlog/%u
passdb {{
  driver = static
  args = password={{PLAIN.b64}}{password}
}}
passdb {{
  driver = static
  args = password={SIMPLE_PASSWORD}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={at}/mail/%u allow_all_users=yes
}}
service imap-login {{
  chroot =
  process_min_avail = 2
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
service anvil {{
  chroot =
  # No delay after wrong passwords: all tests come from one address.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"
    );
    if !is_root() {
        let (user, group) = (id("-un"), id("-gn"));
        write!(text, "default_internal_user = {user}\ndefault_login_user = {user}\ndefault_internal_group = {group}\n")
            .unwrap();
    }
    if matches!(setup, Setup::Metadata | Setup::Chatmail) {
        text += "mail_attribute_dict = file:%h/dovecot-attributes\nprotocol imap {\n  imap_metadata = yes\n}\n";
    }
    match setup {
        Setup::Chatmail => text += "imap_capability = +XDELTAPUSH\n",
        // It can be told to say more, but not to say less, than a whole list.
        Setup::WithoutNotify => {
            text +=
                "imap_capability = IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE UIDPLUS CONDSTORE\n"
        }
        Setup::Mechanisms => text = with_mechanisms(&text, dir),
        Setup::Talkative => text += "imap_idle_notify_interval = 2 secs\n",
        Setup::Compress => {
            text += "mail_plugins = zlib\nprotocol imap {\n  mail_plugins = zlib imap_zlib\n}\n"
        }
        Setup::Trusting => {
            text +=
                "haproxy_trusted_networks = 127.0.0.0/8\nlogin_trusted_networks = 127.0.0.0/8\n";
            text += "service imap-login {\n  inet_listener imap {\n    haproxy = yes\n  }\n}\n";
        }
        Setup::OneLoginProcess => {
            text += "service imap-login {\n  service_count = 0\n  process_min_avail = 1\n  process_limit = 1\n}\n"
        }
        Setup::Vanilla | Setup::Metadata => {}
    }
    text
}

/// The configuration with all mechanisms: SCRAM with the one password, tokens with a key of their own.
fn with_mechanisms(text: &str, dir: &Path) -> String {
    let keys = dir.join("keys");
    fs::create_dir_all(keys.join("default/HS256")).unwrap();
    fs::write(keys.join("default/HS256/default"), BASE64_STANDARD.encode(TOKEN_KEY)).unwrap();
    let tokens = format!(
        "introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix={}/\nusername_attribute = email\n",
        keys.display()
    );
    fs::write(dir.join("oauth2.conf"), tokens).unwrap();
    let passdb = format!(
        "passdb {{\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  args = {}/oauth2.conf\n}}\n\
         passdb {{\n  driver = static\n  mechanisms = plain login scram-sha-1 scram-sha-256\n",
        dir.display()
    );
    text.replace(
        "auth_mechanisms = plain login",
        "auth_mechanisms = plain login scram-sha-1 scram-sha-256 xoauth2 oauthbearer",
    )
    .replace("passdb {\n  driver = static\n", &passdb)
}

fn is_root() -> bool {
    id("-u") == "0"
}

fn mail_owner() -> (String, String) {
    if is_root() { (MAIL_UID.to_string(), MAIL_UID.to_string()) } else { (id("-u"), id("-g")) }
}

/// Hands a folder to the user that Dovecot's mail processes run as.
fn own(folder: &Path) {
    if is_root() {
        std::os::unix::fs::chown(folder, Some(MAIL_UID), Some(MAIL_UID)).unwrap();
    }
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

fn id(flag: &str) -> String {
    let output = Command::new("id").arg(flag).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
