//! The walk: each command of the page in its order, what people do in between, and the output that the page promises.

use std::fs;
use std::path::Path;

use tokio::task::block_in_place;

use super::evening::{Evening, expect_well};
use super::page::{self, promised};
use super::vps::Vps;
use super::{internet, namespace};
use crate::support::browser::{Browser, Look};

const TEST: &str = "first_evening::walk::newcomer_comes_to_a_phone_that_is_woken";

const INSTALL: &str = "apt-get install -y ./deltapush_0.1.0_amd64.deb";

/// `init` without a terminal, for the machine that has a configuration.
const AGAIN: &str = "deltapush init you@example.org --hostname push.example.org --ca system --agree-to-terms --only-me --overwrite --start";

/// A newcomer's evening.
struct Walk(Evening);

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
    walk.is_told_why_the_service_does_not_start();
    walk.gets_another_configuration().await;
}

impl Walk {
    async fn start(folder: &Path) -> Self {
        let root = namespace::copy_of_this_machine(folder);
        let [own, others] = internet::addresses();
        Self(Evening::start(Vps::boot(&root, &own, &others).await).await)
    }

    /// Types a command of the page, and does what the page says around it. Each command of the page must be here: as it is,
    /// or with its stand-in.
    async fn step(&mut self, command: &str) {
        let evening = &mut self.0;
        match command {
            "getent ahosts push.example.org" => self.finds_addresses(command),
            "ss -Hltnp '( sport = :993 or sport = :443 )'" => {
                assert_eq!(evening.vps.expect(command), "", "another program has the port");
            }
            // Stands in: no mirror is in this internet.
            "apt-get update" => {}
            INSTALL => self.installs(),
            "deltapush init you@example.org --hostname push.example.org" => {
                evening.initializes(command);
                self.opens_the_page().await;
            }
            "deltapush status" => {
                evening.scans().await;
                evening.is_watched(command).await;
            }
            "deltapush doctor" => evening.is_well(command),
            "deltapush push-test you@example.org" => evening.wakes_the_phone(command).await,
            "deltapush account you@example.org" => evening.gets_a_message(command).await,
            _ => {
                panic!("docs/first-evening.md has a command that its test does not know: {command}")
            }
        }
    }

    /// Section 1. The addresses are those of the records.
    fn finds_addresses(&self, command: &str) {
        let found = self.0.vps.expect(command);
        for record in page::records() {
            let address = internet::public(record.address);
            assert!(found.lines().any(|line| line.starts_with(address)), "no {address}: {found}");
        }
    }

    /// Section 3. Stands in for the package, which takes a release build: its files, where it places them. `package` installs it.
    fn installs(&self) {
        let vps = &self.0.vps;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd");
        fs::copy(env!("CARGO_BIN_EXE_deltapush"), vps.path("/usr/bin/deltapush")).unwrap();
        let users = vps.path("/usr/lib/sysusers.d/deltapush.conf");
        fs::copy(source.join("deltapush.sysusers"), users).unwrap();
        for unit in ["deltapush.service", "deltapush@.socket"] {
            let text = fs::read_to_string(source.join(unit)).unwrap();
            let text = text.replace("/usr/local/bin/deltapush", "/usr/bin/deltapush");
            fs::write(vps.path(&format!("/usr/lib/systemd/system/{unit}")), text).unwrap();
        }
        // As the package's script for the end of an installation.
        vps.expect("systemd-sysusers deltapush.conf && systemctl daemon-reload");
    }

    /// Section 4. The page loads without a warning.
    async fn opens_the_page(&mut self) {
        self.0.internet.trust_in_browsers().await;
        let look = Look { width: 390, scheme: "light", script: true };
        let shown = block_in_place(|| {
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

    /// The promise at the end of section 7. Meanwhile systemd holds the ports.
    async fn gets_mail_after_a_restart(&mut self) {
        let vps = &self.0.vps;
        let sockets = "systemctl is-active deltapush@993.socket deltapush@443.socket";
        assert_eq!(vps.output_of(sockets), "active\nactive\n");
        assert_eq!(vps.output_of("systemctl is-enabled deltapush"), "enabled\n");
        block_in_place(|| vps.output_of("systemctl restart deltapush"));
        self.0.is_watched("deltapush status").await;
        self.0.is_pushed("still awake?").await;
    }

    /// `init` on a machine with a state that cannot be used: the service's last words, and what helps.
    fn is_told_why_the_service_does_not_start(&self) {
        let vps = &self.0.vps;
        let [state, away] = ["/var/lib/deltapush/state", "/root/state"];
        vps.expect(&format!("systemctl stop deltapush && mv {state} {away} && touch {state}"));
        let shown = block_in_place(|| vps.expect_failure(AGAIN, 69));
        for words in ["deltapush does not start: ", state, "`deltapush state check`"] {
            assert!(shown.contains(words), "no {words:?} in {shown}");
        }
        let shown = block_in_place(|| vps.expect_failure("deltapush doctor", 69));
        let finding = "fail  service      deltapush has ended with exit code 74";
        assert!(shown.contains(finding), "no {finding:?} in {shown}");
        vps.expect(&format!("rm {state} && mv {away} {state}"));
    }

    /// `init` once more, also while deltapush runs: it is restarted, and serves the account that it had.
    async fn gets_another_configuration(&self) {
        for words in ["Starting deltapush …", "deltapush is running: restarting it"] {
            let shown = block_in_place(|| self.0.vps.expect(AGAIN));
            assert!(shown.contains(words), "no {words:?} in {shown}");
            expect_well(&shown);
            self.0.is_watched("deltapush status").await;
        }
    }
}
