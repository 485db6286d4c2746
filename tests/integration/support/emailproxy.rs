//! email-oauth2-proxy, from the Python environment, with the configuration of docs/recipes.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::dovecot::Dovecot;
use super::guarded::Guarded;
use super::poll;
use super::ports::{ReservedPort, wait_for_port};
use super::python;
use super::recipe::{block, replaced};

/// The section of the page.
pub(crate) const SECTION: &str = "Outlook.com and Microsoft 365";

/// The servers that the page names, here.
pub(crate) struct Servers<'a> {
    pub(crate) user: &'a str,
    pub(crate) dovecot: &'a Dovecot,
    pub(crate) smtp: u16,
    pub(crate) authority: u16,
}

/// A running email-oauth2-proxy. It ends with the test, and shows its log if the test fails.
pub(crate) struct EmailProxy {
    /// Port of IMAP, in plain text.
    pub(crate) imap: u16,
    /// Port of SMTP, with TLS from the first byte.
    pub(crate) smtp: u16,
    _reserved: [ReservedPort; 2],
    dir: PathBuf,
    _process: Guarded,
}

impl EmailProxy {
    /// Starts it as the unit of the page does, and waits until it accepts connections.
    pub(crate) fn start(servers: &Servers<'_>) -> Self {
        let dir =
            tempfile::Builder::new().prefix("deltapush-emailproxy-").tempdir().unwrap().keep();
        let reserved = [ReservedPort::new(), ReservedPort::new()];
        let [imap, smtp] = reserved.each_ref().map(ReservedPort::number);
        let config = configuration(servers, imap, smtp);
        fs::write(dir.join("emailproxy.config"), config).unwrap();
        let unit = block(SECTION, "ini", "ExecStart=");
        let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let program = python::program("emailproxy").get_program().to_str().unwrap().to_owned();
        let command = replaced(
            command,
            &[
                ("/opt/emailproxy/bin/emailproxy", &program),
                ("/etc/emailproxy.config", "emailproxy.config"),
                ("/var/lib/emailproxy/tokens", "tokens"),
            ],
        );
        // Its trust is that of the system.
        let ca = servers.dovecot.authority.ca.display();
        let script = format!("SSL_CERT_FILE={ca} PYTHONUNBUFFERED=1 exec {command}");
        let process = Guarded::start(&script, &dir);
        let proxy = Self { imap, smtp, _reserved: reserved, dir, _process: process };
        for port in [imap, smtp] {
            assert!(wait_for_port(port, Duration::from_secs(40)), "{}", proxy.log());
        }
        proxy
    }

    /// Waits until its log has these words so often.
    pub(crate) async fn logs(&self, words: &str, count: usize) {
        let patience = Duration::from_secs(40);
        let logged = poll(patience, || self.log().matches(words).count() >= count).await;
        assert!(logged, "not {count} times {words:?} in the log");
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        self.read(Path::new("log"))
    }

    /// A file of its folder.
    pub(crate) fn read(&self, file: &Path) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap_or_default()
    }
}

impl Drop for EmailProxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the log of email-oauth2-proxy\n{}---", self.log());
        }
    }
}

fn configuration(servers: &Servers<'_>, imap: u16, smtp: u16) -> String {
    let (authority, host) = (&servers.dovecot.authority, "localhost");
    let pages = "https://login.microsoftonline.com/common/oauth2/v2.0";
    let replacements = [
        ("[IMAP-2993]", format!("[IMAP-{imap}]")),
        ("[SMTP-465]", format!("[SMTP-{smtp}]\nlocal_address = 127.0.0.1")),
        (
            "outlook.office365.com\nserver_port = 993",
            format!("{host}\nserver_port = {}", servers.dovecot.imaps),
        ),
        (
            "smtp-mail.outlook.com\nserver_port = 587",
            format!("{host}\nserver_port = {}", servers.smtp),
        ),
        ("/run/credentials/emailproxy.service/chain", authority.leaf_cert.display().to_string()),
        ("/run/credentials/emailproxy.service/key", authority.leaf_key.display().to_string()),
        ("alice@outlook.com", servers.user.to_owned()),
        (pages, format!("https://{host}:{}", servers.authority)),
    ];
    let replacements = replacements.each_ref().map(|(page, test)| (*page, test.as_str()));
    replaced(block(SECTION, "ini", "[emailproxy]"), &replacements)
}
