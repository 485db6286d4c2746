//! The walk: each command of the page in its order, what people do in between, and the output that the page promises.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::evening::Evening;
use super::page::{self, promised};
use super::service::Service;
use super::vps::Vps;
use super::{internet, namespace};
use crate::support::browser::{Browser, Look};
use crate::support::poll;

const TEST: &str = "first_evening::walk::newcomer_comes_to_a_phone_that_is_woken";

/// A newcomer's evening.
struct Walk {
    evening: Evening,
    service: Service,
    /// The checkout of the repository, as the page's commands see it.
    checkout: PathBuf,
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
        let service = Service::new(folder.join("log"));
        Self { evening: Evening::start(vps).await, service, checkout }
    }

    /// Types a command of the page, and does what the page says around it. Each command of the page must be here: as it is,
    /// or with its stand-in.
    async fn step(&mut self, command: &str) {
        let evening = &mut self.evening;
        match command {
            "getent ahosts push.example.org" => self.finds_addresses(command),
            "ss -Hltnp '( sport = :993 or sport = :443 )'" => {
                assert_eq!(evening.vps.expect(command), "", "another program has the port");
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
            | "systemd-sysusers" => drop(evening.vps.expect(command)),
            // Stands in: no systemd is here that would read the unit.
            "systemctl daemon-reload" => {}
            "deltapush init you@example.org --hostname push.example.org --config /etc/deltapush/config.yaml" =>
            {
                evening.initializes(command);
            }
            "cd /etc/deltapush" => evening.vps.change_folder("/etc/deltapush"),
            "deltapush check" => drop(evening.vps.expect(command)),
            "deltapush check --login you@example.org --connect" => {
                let shown = evening.vps.expect(command);
                assert!(shown.contains(promised("connection   works")), "{shown}");
            }
            // Stands in: the unit's command, as its user.
            "systemctl enable --now deltapush" => self.service.start(&evening.vps),
            // Stands in: the log is a file.
            "journalctl -u deltapush -n 30 -f" => self.gets_a_certificate().await,
            "deltapush qr you@example.org" => evening.scans(command).await,
            "deltapush status" => evening.is_watched(command).await,
            "deltapush push-test you@example.org" => evening.wakes_the_phone(command).await,
            "deltapush account you@example.org" => evening.gets_a_message(command).await,
            _ => {
                panic!("docs/first-evening.md has a command that its test does not know: {command}")
            }
        }
    }

    /// Section 1. The addresses are those of the records.
    fn finds_addresses(&self, command: &str) {
        let found = self.evening.vps.expect(command);
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

    /// Section 5. The certificate comes, and the page loads without a warning.
    async fn gets_a_certificate(&mut self) {
        self.evening.gets_a_certificate(|| self.service.log()).await;
        self.evening.internet.trust_in_browsers().await;
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

    /// The promise at the end of section 8.
    async fn gets_mail_after_a_restart(&mut self) {
        tokio::task::block_in_place(|| self.service.restart(&self.evening.vps));
        let is_up = || self.service.log().matches(" is ready").count() == 2;
        assert!(poll(Duration::from_secs(30), is_up).await, "{}", self.service.log());
        self.evening.is_watched("deltapush status").await;
        self.evening.is_pushed("still awake?").await;
    }
}
