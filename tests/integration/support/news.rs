//! A Dovecot that tells deltapush of each delivery, in one of the ways of docs/news-dovecot.md, with the page's own lines.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::deltapush::Options;
use super::dovecot::{Dovecot, Setup};
use super::ports::ReservedPort;
use super::recipe::{Page, replaced};

pub(crate) const PAGE: Page = Page(include_str!("../../../docs/news-dovecot.md"));
const CONF: &str = include_str!("../../../contrib/dovecot/99-deltapush.conf");

/// The Lua script. It waits for a second; here for three, because a busy machine may stand still for one.
pub(crate) fn lua_script() -> String {
    let script = include_str!("../../../contrib/dovecot/deltapush.lua");
    replaced(script, &[("TIME_LIMIT_MS = 1000", "TIME_LIMIT_MS = 3000")])
}

/// A way of Dovecot 2.3 to tell of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Lua,
    Ox,
    Sieve,
    Dict,
}

/// The addresses at which deltapush takes news, known before it starts.
pub(crate) struct Hook {
    port: ReservedPort,
    /// The port that Dovecot is told, if something is between.
    pub(crate) between: Option<u16>,
    /// For the sockets; the mail user must get through.
    folder: tempfile::TempDir,
}

impl Hook {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("deltapush-news-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { port: ReservedPort::new(), between: None, folder }
    }

    /// The port on which deltapush listens.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1/news", self.between.unwrap_or(self.port()))
    }

    /// The section `news` of deltapush's configuration, for this way.
    pub(crate) fn section(&self, way: Way) -> String {
        let folder = self.folder.path().display();
        let key = match way {
            Way::Lua | Way::Ox => format!("listen: 127.0.0.1:{}", self.port.number()),
            Way::Sieve => format!("socket: {folder}/news.sock"),
            Way::Dict => format!("dict: {folder}/dict.sock"),
        };
        format!("news:\n  {key}\n")
    }
}

/// Dovecot's settings for a way, with the files that they name in Dovecot's folder.
pub(crate) fn settings(way: Way, hook: &Hook, dir: &Path) -> String {
    let script = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    match way {
        Way::Lua => {
            assert_eq!(CONF, PAGE.block("Dovecot 2.3", "", "push_notification_driver"));
            let lua = script("deltapush.lua", &lua_script());
            replaced(
                CONF,
                &[
                    ("/usr/share/deltapush/dovecot/deltapush.lua", &lua),
                    (
                        "#deltapush_url = http://127.0.0.1:1981/v1/news",
                        &format!("deltapush_url = {}", hook.url()),
                    ),
                ],
            )
        }
        Way::Ox => {
            let block = PAGE.block("The OX driver", "", "ox:url");
            replaced(
                block,
                &[
                    ("http://127.0.0.1:1981/v1/news", &hook.url()),
                    ("timeout_msecs=1000", "timeout_msecs=3000"),
                ],
            )
        }
        Way::Sieve => {
            let program = format!(
                "{} news --socket {}/news.sock",
                env!("CARGO_BIN_EXE_deltapush"),
                hook.folder.path().display()
            );
            let wrapper = include_str!("../../../contrib/dovecot/deltapush-news");
            fs::create_dir(dir.join("sieve-pipe")).unwrap();
            script(
                "sieve-pipe/deltapush-news",
                &replaced(
                    wrapper,
                    &[("/usr/bin/deltapush news", &program), ("--timeout 1s", "--timeout 3s")],
                ),
            );
            let sieve =
                script("deltapush.sieve", include_str!("../../../contrib/dovecot/deltapush.sieve"));
            let block = PAGE.block("Sieve", "", "sieve_after");
            replaced(
                block,
                &[
                    ("sieve_pipe_exec_timeout = 2s", "sieve_pipe_exec_timeout = 6s"),
                    ("/etc/dovecot/sieve/deltapush.sieve", &sieve),
                    ("/etc/dovecot/sieve-pipe", &dir.join("sieve-pipe").display().to_string()),
                ],
            )
        }
        Way::Dict => {
            let lua = script(
                "deltapush-dict.lua",
                include_str!("../../../contrib/dovecot/deltapush-dict.lua"),
            );
            let block = PAGE.block("The dict socket", "", "mail_attribute_dict");
            let socket = hook.folder.path().join("dict.sock").display().to_string();
            replaced(
                block,
                &[
                    ("/usr/share/deltapush/dovecot/deltapush-dict.lua", &lua),
                    ("/run/deltapush/dict.sock", &socket),
                ],
            )
        }
    }
}

/// A Dovecot that tells of deliveries in this way. Messages are compiled before the first delivery, as the page advises.
pub(crate) fn dovecot(way: Way, hook: &Hook) -> Dovecot {
    let dovecot = Dovecot::configured(Setup::Vanilla, &["localhost", "127.0.0.1"], |dir| {
        settings(way, hook, dir)
            + "lmtp_save_to_detail_mailbox = yes\nlda_mailbox_autocreate = yes\n"
    });
    if way == Way::Sieve {
        let compiled = Command::new("sievec")
            .arg("-c")
            .arg(dovecot.dir().join("dovecot.conf"))
            .arg(dovecot.dir().join("deltapush.sieve"))
            .output()
            .expect("sievec, of the Debian package dovecot-sieve, is missing: run scripts/test");
        assert!(compiled.status.success(), "{compiled:?}");
    }
    dovecot
}

/// deltapush's options in front of it.
pub(crate) fn options(dovecot: &Dovecot, hook: &Hook, way: Way, news: &str) -> Options {
    let section = hook.section(way);
    options_through(dovecot.imaps, dovecot, section, news)
}

/// The same where the server is reached through another port.
pub(crate) fn options_through(
    port: u16,
    dovecot: &Dovecot,
    section: String,
    news: &str,
) -> Options {
    let ca = dovecot.authority.ca.display();
    let route = format!(
        "  - domain: \"*\"\n    upstream: imaps://localhost:{port}\n    ca: \"{ca}\"\n    news: {news}"
    );
    Options { routes: Some(route), more: section, coalesce: "1ms", ..Options::plain(0) }
}

/// Makes the OX driver tell of a user.
pub(crate) fn set_ox_metadata(dovecot: &Dovecot, user: &str) {
    let command = PAGE.block("The OX driver", "sh", "http-notify");
    let doveadm = format!("doveadm -c {}", dovecot.dir().join("dovecot.conf").display());
    let command = replaced(command, &[("doveadm", &doveadm), ("alice@example.org", user)]);
    let set = Command::new("sh").args(["-ec", &command]).output().unwrap();
    assert!(set.status.success(), "{set:?}");
}
