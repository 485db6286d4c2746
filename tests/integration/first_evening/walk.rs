//! The walk: each command of the page in its order, what people do in between, and the output that the page promises.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::internet::{self, Internet};
use super::namespace;
use super::page::{self, promised};
use super::phone::Phone;
use super::service::Service;
use super::vps::{Vps, show, text_of};
use crate::setup;
use crate::support::browser::{Browser, Look};
use crate::support::dovecot::PASSWORD;
use crate::support::poll;
use crate::support::scene::PATIENCE;

const TEST: &str = "first_evening::walk::newcomer_comes_to_a_phone_that_is_woken";

const YOU: &str = "you@example.org";
const CONFIG: &str = "/etc/deltapush/config.yaml";
/// The certificate that deltapush shows in the end.
const CERTIFICATE: &str = "/var/lib/deltapush/certs/push.example.org.acme.pem";

/// A newcomer's evening.
struct Walk {
    vps: Vps,
    internet: Internet,
    service: Service,
    /// The checkout of the repository, as the page's commands see it.
    checkout: PathBuf,
    /// The login code that `init` shows.
    code: String,
    phone: Option<Phone>,
    /// The friend's phone, and its chat with you.
    friend: Option<(Phone, Value)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomer_comes_to_a_phone_that_is_woken() {
    let Some(folder) = namespace::folder() else { return namespace::run_inside(TEST) };
    namespace::make_files_private(&folder);
    let mut walk = Walk::start(&folder).await;
    for command in page::commands() {
        eprintln!("# {command}");
        walk.step(command).await;
    }
    walk.gets_mail_after_a_restart().await;
}

impl Walk {
    async fn start(folder: &Path) -> Self {
        let checkout = folder.join("checkout");
        fs::create_dir(&checkout).unwrap();
        let [own, others] = internet::addresses();
        let vps = Vps::start(&checkout, &own, &others).await;
        let internet = Internet::start().await;
        internet.dovecot.user_of(YOU.to_owned());
        let service = Service::new(folder.join("log"));
        Self { vps, internet, service, checkout, code: String::new(), phone: None, friend: None }
    }

    /// Types a command of the page, and does what the page says around it. Each command of the page must be here: as it is,
    /// or with its stand-in.
    async fn step(&mut self, command: &str) {
        match command {
            "getent ahosts push.example.org" => self.finds_addresses(command),
            "ss -Hltnp '( sport = :993 or sport = :443 )'" => {
                assert_eq!(self.vps.expect(command), "", "another program has the port");
            }
            // Stands in: scripts/test has installed what the build takes.
            "apt-get update"
            | "apt-get install -y build-essential curl git"
            | "curl --proto '=https' -sSf https://sh.rustup.rs | sh -s -- -y"
            | ". \"$HOME/.cargo/env\"" => {}
            // Stands in: cargo has built the program for all tests.
            "cargo build --release --locked" => self.takes_the_build(),
            "install -m 755 target/release/deltapush /usr/local/bin/"
            | "install -D -m 644 contrib/systemd/deltapush.sysusers /etc/sysusers.d/deltapush.conf"
            | "install -m 644 contrib/systemd/deltapush.service /etc/systemd/system/"
            | "systemd-sysusers" => drop(self.vps.expect(command)),
            // Stands in: no systemd is here that would read the unit.
            "systemctl daemon-reload" => {}
            "deltapush init you@example.org --hostname push.example.org --config /etc/deltapush/config.yaml" =>
            {
                self.initializes(command);
            }
            "cd /etc/deltapush" => self.vps.change_folder("/etc/deltapush"),
            "deltapush check" => drop(self.vps.expect(command)),
            "deltapush check --login you@example.org --connect" => {
                let shown = self.vps.expect(command);
                assert!(shown.contains(promised("connection   works")), "{shown}");
            }
            // Stands in: the unit's command, as its user.
            "systemctl enable --now deltapush" => self.service.start(&self.vps),
            // Stands in: the log is a file.
            "journalctl -u deltapush -n 30 -f" => self.gets_a_certificate().await,
            "deltapush qr you@example.org" => self.scans(command).await,
            "deltapush status" => self.is_watched(command).await,
            "deltapush push-test you@example.org" => self.wakes_the_phone(command).await,
            "deltapush account you@example.org" => self.gets_a_message(command).await,
            _ => {
                panic!("docs/first-evening.md has a command that its test does not know: {command}")
            }
        }
    }

    /// Section 1. The addresses are those of the records.
    fn finds_addresses(&self, command: &str) {
        let found = self.vps.expect(command);
        for record in page::records() {
            let address = internet::public(record.address);
            assert!(found.lines().any(|line| line.starts_with(address)), "no {address}: {found}");
        }
    }

    /// Section 3. The checkout has the program where a release build would be.
    fn takes_the_build(&self) {
        let release = self.checkout.join("target/release");
        fs::create_dir_all(&release).unwrap();
        symlink(env!("CARGO_BIN_EXE_deltapush"), release.join("deltapush")).unwrap();
        let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib");
        symlink(contrib, self.checkout.join("contrib")).unwrap();
    }

    /// Section 4. Two things are unlike the page: the provider's certificate is of an authority that only this machine trusts,
    /// and the directory of Pebble has another path than that of Let's Encrypt.
    fn initializes(&mut self, command: &str) {
        let answers = [
            ("Password of you@example.org", PASSWORD),
            ("Let's Encrypt issues a certificate", "y"),
            ("Accept only logins of you@example.org?", "y"),
        ];
        let shown = self.vps.converse(&format!("{command} --ca system"), &answers);
        // The next command but the checks, as the page has it.
        for words in [promised("IDLE: yes"), "Start deltapush: systemctl enable --now deltapush"] {
            assert!(shown.contains(words), "no {words:?} in {shown}");
        }
        assert!(!shown.contains(PASSWORD), "{shown}");
        self.code = setup::read_terminal(&shown);
        assert!(self.code.starts_with("dclogin://you@example.org/?p="), "{}", self.code);
        let written = fs::read_to_string(CONFIG).unwrap();
        let (agreed, directory) = ("    terms_agreed: true", &self.internet.acme.directory);
        assert!(written.contains(agreed), "{written}");
        let changed = written.replace(agreed, &format!("    directory: {directory}\n{agreed}"));
        fs::write(CONFIG, changed).unwrap();
    }

    /// Section 5. The certificate comes, and the page loads without a warning.
    async fn gets_a_certificate(&mut self) {
        let words = [promised("certificate:"), promised("renewal due about")];
        self.service.wait_for(&words).await;
        self.internet.trust_in_browsers().await;
        let look = Look { width: 390, scheme: "light", script: true };
        let shown = tokio::task::block_in_place(|| {
            let mut browser = Browser::start_strict();
            let shown = browser.open(promised("https://push.example.org/"), look);
            // The certificate is for the name alone, and this browser minds.
            let address = internet::public("203.0.113.7");
            let refusal = browser.refusal(&format!("https://{address}/"), look);
            assert!(refusal.contains("ERR_CERT_COMMON_NAME_INVALID"), "{refusal}");
            shown
        });
        assert!(shown.complaints.is_empty(), "{:?}", shown.complaints);
        assert!(shown.html.contains("name=\"address\""), "{}", shown.html);
    }

    /// Section 6. The phone scans the code on the terminal.
    async fn scans(&mut self, command: &str) {
        let answers = [("Password of you@example.org", PASSWORD)];
        let code = setup::read_terminal(&self.vps.converse(command, &answers));
        assert_eq!(code, self.code, "`init` shows another code");
        let phone = Phone::scan(&code, Path::new(CERTIFICATE), &self.internet.smtp).await;
        self.phone = Some(phone);
    }

    async fn is_watched(&self, command: &str) {
        let watching = promised("watch    watching since …").trim_end_matches('…');
        let device = format!("  {} ", promised("device"));
        let mut shown = String::new();
        let is_there = poll(PATIENCE, || {
            shown = self.vps.output_of(command);
            [YOU, watching, &device].iter().all(|words| shown.contains(words))
        });
        assert!(is_there.await, "{shown}");
        show(shown);
    }

    /// Section 7. The app is in the background, and the push makes it connect.
    async fn wakes_the_phone(&mut self, command: &str) {
        let phone = self.phone.as_mut().unwrap();
        phone.background().await;
        let before = self.internet.notify.posted().len();
        let test = self.vps.begin(command);
        self.internet.notify.wait_for(before + 1, PATIENCE).await;
        phone.fetch_in_background().await;
        let output = tokio::task::block_in_place(|| test.wait_with_output()).unwrap();
        let shown = show(text_of(&output));
        let first = shown.lines().next().unwrap_or_default();
        assert!(output.status.success() && first.contains(promised("accepted")), "{shown}");
    }

    /// Section 8. A friend scans your code, and writes when your app is in the background again.
    async fn gets_a_message(&mut self, command: &str) {
        let mut friend = Phone::of_friend(&self.internet).await;
        let phone = self.phone.as_mut().unwrap();
        phone.foreground().await;
        let chat = friend.befriend(phone).await;
        phone.background().await;
        self.friend = Some((friend, chat));
        self.is_pushed("are you awake?").await;
        let history = self.vps.expect(command);
        for words in
            ["new mail", promised("POST"), promised("accepted"), "connected for a background fetch"]
        {
            assert!(history.contains(words), "no {words:?} in {history}");
        }
    }

    /// The friend writes; the push makes the phone fetch the message.
    async fn is_pushed(&mut self, text: &str) {
        self.has_no_push_left().await;
        let before = self.internet.notify.posted().len();
        let (friend, chat) = self.friend.as_mut().unwrap();
        friend.write(chat, text).await;
        self.internet.notify.wait_for(before + 1, PATIENCE).await;
        let phone = self.phone.as_mut().unwrap();
        phone.fetch_in_background().await;
        while phone.read().await != text {}
    }

    /// Waits until no push is outstanding for a message before.
    async fn has_no_push_left(&self) {
        let mut shown = String::new();
        let is_so = poll(PATIENCE, || {
            shown = self.vps.output_of("deltapush status --json");
            serde_json::from_str::<Value>(&shown).unwrap()["counts"]["pending"] == 0
        });
        assert!(is_so.await, "{shown}");
    }

    /// The promise at the end of section 8.
    async fn gets_mail_after_a_restart(&mut self) {
        tokio::task::block_in_place(|| self.service.restart(&self.vps));
        let is_up = || self.service.log().matches(" is ready").count() == 2;
        assert!(poll(Duration::from_secs(30), is_up).await, "{}", self.service.log());
        self.is_watched("deltapush status").await;
        self.is_pushed("still awake?").await;
    }
}
