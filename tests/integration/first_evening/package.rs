//! The Debian package on a machine with systemd, by README's commands: from the installation to a phone that is woken; an upgrade during
//! which a session is open and a push pending; removal and purge. The archive, by README's commands for it.
//!
//! `scripts/test-packages` makes the machine and runs these tests with `DELTAPUSH_MACHINE`: the folder of a Debian that has in /root the
//! files that README names, and in /root/new the package of a later version.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, block_in_place};

use super::evening::{Evening, YOU};
use super::page::{self, OPERATION, README, UPGRADE};
use super::vps::{Vps, text_of};
use super::{internet, namespace};
use crate::support::client::Client;
use crate::support::notify::Answer;
use crate::support::scene::PATIENCE;

/// The file that README installs.
const PACKAGE: &str = concat!("/root/deltapush_", env!("CARGO_PKG_VERSION"), "_amd64.deb");
/// The package's files that only purging erases.
const KEPT: [&str; 2] = ["/etc/deltapush/config.yaml", "/var/lib/deltapush/state/state.sqlite"];

/// The machine with the internet around it.
struct Installed(Evening);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a machine: scripts/test-packages makes it"]
async fn package_is_installed_upgraded_and_purged() {
    const TEST: &str = "first_evening::package::package_is_installed_upgraded_and_purged";
    let Some(folder) = namespace::folder() else { return namespace::run_inside(TEST) };
    namespace::make_files_private(&folder);
    let mut installed = Installed::start().await;
    installed.types(README, "apt install ./");
    installed.runs_nothing();
    installed.comes_to_a_phone().await;
    installed.lets_systemd_hold_the_ports().await;
    installed.is_upgraded().await;
    installed.is_removed_and_comes_back().await;
    installed.moves().await;
    installed.is_purged();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a machine: scripts/test-packages makes it"]
async fn archive_is_installed() {
    const TEST: &str = "first_evening::package::archive_is_installed";
    let Some(folder) = namespace::folder() else { return namespace::run_inside(TEST) };
    namespace::make_files_private(&folder);
    let mut installed = Installed::start().await;
    installed.types(README, "tar -xf");
    installed.comes_to_a_phone().await;
}

impl Installed {
    async fn start() -> Self {
        let machine = env::var_os("DELTAPUSH_MACHINE").expect("scripts/test-packages sets it");
        let [own, others] = internet::addresses();
        let vps = Vps::boot(&PathBuf::from(machine), &own, &others).await;
        Self(Evening::start(vps).await)
    }

    /// Types the commands of a block of a page.
    fn types(&mut self, page: &'static str, start: &str) {
        self.types_all(&page::block(page, start));
    }

    fn types_all(&mut self, commands: &[&str]) {
        for line in commands {
            eprintln!("# {line}");
            let command = line.split_once('#').map_or(*line, |(command, _comment)| command).trim();
            match command.strip_prefix("cd ") {
                Some(folder) => self.0.vps.change_folder(folder),
                None => drop(block_in_place(|| self.0.vps.expect(command))),
            }
        }
    }

    fn log(&self) -> String {
        self.0.vps.output_of("journalctl --unit deltapush --output cat --no-pager")
    }

    /// Reports if systemd runs the service.
    fn is_active(&self) -> bool {
        self.0.vps.output_of("systemctl is-active deltapush || true").trim() == "active"
    }

    /// Without a configuration the service does not start, and nothing is enabled.
    fn runs_nothing(&self) {
        let vps = &self.0.vps;
        vps.expect("systemctl start deltapush");
        assert!(!self.is_active(), "{}", self.log());
        assert_eq!(vps.output_of("systemctl is-enabled deltapush || true").trim(), "disabled");
        assert_eq!(vps.output_of("systemctl list-units --no-legend 'deltapush@*'"), "");
    }

    /// README's steps 2 and 3, and the push that the phone waits for.
    async fn comes_to_a_phone(&mut self) {
        for command in page::block(README, "deltapush init") {
            eprintln!("# {command}");
            self.0.initializes(command);
        }
        self.0.scans().await;
        self.0.is_watched("deltapush status").await;
        self.0.wakes_the_phone("deltapush push-test you@example.org").await;
        self.0.gets_a_message("deltapush account you@example.org").await;
    }

    async fn lets_systemd_hold_the_ports(&mut self) {
        self.types(OPERATION, "systemctl enable --now deltapush@993.socket");
        self.0.is_watched("deltapush status").await;
        self.0.is_pushed("with sockets that systemd holds").await;
    }

    /// The upgrade as docs/upgrade.md has it: a client that is connected gets BYE and can connect again at once, no client is refused,
    /// and a push that the notification server did not accept before is posted after it.
    async fn is_upgraded(&mut self) {
        self.0.internet.notify.always("", Some(Answer::Status(503)));
        self.0.writes("while you upgrade").await;
        let mut session = self.session().await;
        session.send("i1 IDLE").await;
        session.expect_prefix("+ ").await;
        let process = self.0.vps.output_of("systemctl show --property MainPID deltapush");
        let (stop, knocking) = knock();
        self.0.vps.output_of(&format!("cp /root/new/later.deb {PACKAGE}"));
        self.0.vps.change_folder("/root");
        let commands = page::block(UPGRADE, "apt install ./");
        let upgrade = self.0.vps.begin(commands[0]);
        // The client and the notification server do their part meanwhile.
        let upgrade = tokio::task::spawn_blocking(|| upgrade.wait_with_output().unwrap());
        while !session.line().await.starts_with("* BYE") {}
        let before = self.0.internet.notify.posted().len();
        self.0.internet.notify.always("", None);
        let mut again = self.session().await;
        again.command("n1 NOOP").await;
        let output = upgrade.await.unwrap();
        assert!(output.status.success(), "{}", text_of(&output));
        stop.send(()).unwrap();
        let knocks = knocking.await.unwrap();
        assert!(knocks > 20, "{knocks} connections");
        let version = self.0.vps.output_of("dpkg-query --show --showformat '${Version}' deltapush");
        assert!(version.ends_with("+upgrade"), "{version}");
        assert_ne!(process, self.0.vps.output_of("systemctl show --property MainPID deltapush"));
        self.0.internet.notify.wait_for(before + 1, PATIENCE).await;
        self.0.reads("while you upgrade").await;
        self.types_all(&commands[1..]);
        self.0.is_watched("deltapush status").await;
        self.0.is_pushed("after the upgrade").await;
    }

    /// A client of the account, as an app is one that trusts the authority.
    async fn session(&self) -> Client {
        let root = self.0.internet.acme.root().await;
        let mut client = Client::tls_at(internet::vps(993), "push.example.org", &root).await;
        client.log_in(YOU).await;
        client.command("s1 SELECT INBOX").await;
        client
    }

    /// Removal keeps what the service needs to go on after another installation.
    async fn is_removed_and_comes_back(&mut self) {
        let shown = block_in_place(|| self.0.vps.expect("apt remove --yes deltapush"));
        assert!(shown.contains("To erase them: apt purge deltapush"), "{shown}");
        assert!(TcpStream::connect(internet::vps(993)).await.is_err(), "a port is still open");
        for file in KEPT {
            assert!(self.0.vps.path(file).exists(), "{file} is gone");
        }
        self.0.vps.change_folder("/root");
        self.types(README, "apt install ./");
        self.types(OPERATION, "systemctl enable --now deltapush@993.socket");
        self.0.vps.change_folder("/etc/deltapush");
        self.0.is_watched("deltapush status").await;
        self.0.is_pushed("after the removal").await;
    }

    /// This machine stands in for the old and the new one: in between everything is purged.
    async fn moves(&mut self) {
        self.types(UPGRADE, "tar -czf");
        self.is_purged();
        self.0.vps.change_folder("/root");
        self.types(UPGRADE, "tar -xzf");
        self.0.is_watched("deltapush status").await;
        self.0.is_pushed("on the new machine").await;
    }

    /// Purging leaves no file and no failed unit.
    fn is_purged(&mut self) {
        self.0.vps.change_folder("/root");
        let shown = block_in_place(|| self.0.vps.expect("apt purge --yes deltapush"));
        assert!(shown.contains("Erasing /etc/deltapush and /var/lib/deltapush"), "{shown}");
        for folder in ["/etc/deltapush", "/var/lib/deltapush"] {
            assert!(!self.0.vps.path(folder).exists(), "{folder} is still there");
        }
        let left = self.0.vps.output_of("find /etc -name '*deltapush*'");
        assert_eq!(left, "", "files in /etc");
        let failed = self.0.vps.output_of("systemctl --failed --no-legend");
        assert_eq!(failed, "", "units have failed");
    }
}

/// Connects to port 993 again and again, and panics if a connection is refused. Ends with the message; returns the number of connections.
fn knock() -> (oneshot::Sender<()>, JoinHandle<usize>) {
    let (stop, mut stopped) = oneshot::channel();
    let knocking = tokio::spawn(async move {
        let mut count = 0;
        while stopped.try_recv().is_err() {
            let connected = TcpStream::connect(internet::vps(993)).await;
            connected.unwrap_or_else(|error| panic!("connection {count}: {error}"));
            count += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        count
    });
    (stop, knocking)
}
