//! `deltapush init` beside a Dovecot: it offers that Dovecot tells of new messages. Dovecot's own `doveconf` reads a configuration of
//! the test.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::setup::text;
use super::support::dovecot::{self, PASSWORD, Setup};
use super::support::python;

const SNIPPET: &str = include_str!("../../contrib/dovecot/99-deltapush.conf");

/// Lays the script of the packages over this system's folder, in a namespace of its own.
const WITH_SCRIPT: &str = "mount -t tmpfs tmpfs over && mkdir over/new over/work && \
    mount -t overlay overlay -o lowerdir=/usr/share,upperdir=over/new,workdir=over/work /usr/share && \
    mkdir -p /usr/share/deltapush/dovecot && cp \"$0\" /usr/share/deltapush/dovecot/ && exec \"$@\"";

/// A machine with a Dovecot, on which `init` runs.
struct Machine {
    folder: tempfile::TempDir,
    user: String,
    arguments: Vec<String>,
}

impl Machine {
    /// `settings` are those of Dovecot, `program` a line of `doveconf` before the real one.
    fn new(name: &str, settings: &str, program: &str) -> Self {
        let dovecot = dovecot::shared(Setup::Vanilla);
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for made in ["bin", "dovecot", "dovecot/conf.d", "over"] {
            fs::create_dir(at(made)).unwrap();
        }
        fs::write(at("dovecot/dovecot.conf"), format!("{settings}\n!include_try conf.d/*.conf\n"))
            .unwrap();
        let conf = at("dovecot/dovecot.conf");
        let shim = format!(
            "#!/bin/sh\n{program}\nexec /usr/bin/doveconf -c '{}' \"$@\"\n",
            conf.display()
        );
        fs::write(at("bin/doveconf"), shim).unwrap();
        fs::set_permissions(at("bin/doveconf"), fs::Permissions::from_mode(0o755)).unwrap();
        let user = dovecot.user(name);
        let (upstream, ca) =
            (format!("imaps://localhost:{}", dovecot.imaps), dovecot.authority.ca.display());
        let arguments = ["init", &user, "--upstream", &upstream, "--ca", &ca.to_string()];
        let more = ["--hostname", "localhost", "--smtp", "smtps://smtp.lab.test", "--no-start"];
        let arguments = arguments.into_iter().chain(more).map(str::to_owned).collect();
        Self { folder, user, arguments }
    }

    /// Runs `init` on a terminal on which a person answers.
    async fn init(&self, has_script: bool, more: &[&str], answers: &[(&str, &str)]) -> Output {
        let script = python::script("terminal.py");
        let lua = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/dovecot/deltapush.lua");
        let mut command = tokio::process::Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        if has_script {
            command.args(["sh", "-c", WITH_SCRIPT, lua]);
        }
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let child = command
            .arg(script.get_program())
            .args(script.get_args())
            .arg(env!("CARGO_BIN_EXE_deltapush"))
            .args(&self.arguments)
            .args(more)
            .current_dir(self.folder.path())
            .env("PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.unwrap();
        child.stdin.take().unwrap().write_all(json!(answers).to_string().as_bytes()).await.unwrap();
        child.wait_with_output().await.unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }
}

/// The answers of a person: to the offer, and to the question about Dovecot's file, where it is asked.
fn answers(
    offer: Option<&'static str>,
    write: Option<&'static str>,
) -> Vec<(&'static str, &'static str)> {
    let offer = offer.map(|answer| ("Set it up? [Y/n]", answer));
    let write = write.map(|answer| ("99-deltapush.conf? [Y/n]", answer));
    let before = [("press Enter to skip both", PASSWORD)].into_iter().chain(offer);
    before.chain([("Accept only logins of", "n")]).chain(write).collect()
}

const SETTINGS: &str = "mail_location = maildir:~/Maildir\nssl = no";
const WRITTEN: &str = "dovecot/conf.d/99-deltapush.conf";

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout).replace("\r\n", "\n")
}

#[tokio::test]
async fn dovecot_of_this_machine_is_set_up_if_the_operator_wants_it() {
    let machine = Machine::new("setup-dovecot", SETTINGS, "");
    let said = said(&machine.init(true, &[], &answers(Some("y"), Some("y"))).await);
    assert!(said.contains("systemctl reload dovecot"), "{said}");
    assert!(said.contains(&format!("The login as {} works", machine.user)), "{said}");
    let snippet = machine.read(WRITTEN).unwrap();
    let configuration = machine.read("config.yaml").unwrap();
    assert!(configuration.contains("    news: both\n"), "{configuration}");
    let port = configuration.split_once("news:\n  listen: \"127.0.0.1:").unwrap().1;
    let port = port.split_once('"').unwrap().0;
    // Another test's deltapush may have the usual port.
    match port {
        "1981" => assert_eq!(snippet, SNIPPET),
        _ => assert!(
            snippet.contains(&format!("\n  deltapush_url = http://127.0.0.1:{port}/")),
            "{snippet}"
        ),
    }
    // It is there now.
    let again = machine.init(true, &["--overwrite"], &answers(Some("y"), None)).await;
    let said = super::setup_dovecot::said(&again);
    assert!(said.contains("has deltapush's part already"), "{said}");
}

#[tokio::test]
async fn nothing_changes_without_the_operators_word() {
    let machine = Machine::new("setup-dovecot-no", SETTINGS, "");
    said(&machine.init(true, &[], &answers(Some("n"), None)).await);
    assert!(!machine.read("config.yaml").unwrap().contains("news"));
    let no = answers(Some("y"), Some("n"));
    let said = said(&machine.init(true, &["--config", "other.yaml"], &no).await);
    assert!(said.contains("\n  push_notification_driver = lua:file="), "{said}");
    assert_eq!(machine.read(WRITTEN), None);
}

#[tokio::test]
async fn dovecot_that_could_not_run_it_is_left_alone() {
    let machine = Machine::new("setup-dovecot-missing", SETTINGS, "");
    let shown = said(&machine.init(false, &["--news"], &answers(None, None)).await);
    assert!(shown.contains("deltapush.lua is missing: copy it"), "{shown}");
    assert!(shown.contains("\nprotocol lmtp {"), "{shown}");
    assert_eq!(machine.read(WRITTEN), None);

    let refuses = "[ ! -e dovecot/conf.d/99-deltapush.conf ] || exit 89";
    let machine = Machine::new("setup-dovecot-refuses", SETTINGS, refuses);
    let shown = said(&machine.init(true, &["--news"], &answers(None, Some("y"))).await);
    assert!(shown.contains("Dovecot does not accept this"), "{shown}");
    assert_eq!(machine.read(WRITTEN), None);

    let machine = Machine::new("setup-dovecot-none", SETTINGS, "exit 89");
    let refused = machine.init(true, &["--news"], &answers(None, None)).await;
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    assert_eq!(machine.read("config.yaml"), None);
}
