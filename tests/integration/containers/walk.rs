//! The walk: each command of the page in its order, what people do in between, and what they see.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::client::MailProgram;
use super::docker;
use super::page;
use super::scene::Scene;
use crate::first_evening::namespace;
use crate::first_evening::phone::Phone;
use crate::first_evening::vps::{show, text_of};
use crate::setup;
use crate::support::dovecot::PASSWORD;
use crate::support::poll;
use crate::support::scene::PATIENCE;

const TEST: &str = "containers::walk::commands_of_the_page_lead_to_a_phone_that_is_woken";

const YOU: &str = "you@example.org";
const COMPOSE: &str = include_str!("../../../contrib/compose/alone/compose.yaml");
/// The user in the image.
const USER: &str = "65532";
/// The time that the compose file gives it to stop.
const GRACE: Duration = Duration::from_secs(15);

/// Stands in for authorities that everybody trusts. No certificate of Let's Encrypt's: Pebble's directory has another path, for which
/// there is no variable.
const OVERRIDE: &str = "
services:
  deltapush:
    volumes: [\"/etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro\"]
";
const VARIABLES: &str =
    "    environment: {DELTAPUSH_CA: system, DELTAPUSH_AGREE_TO_TERMS: \"false\"}\n";

struct Walk {
    scene: Scene,
    phone: Option<Phone>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes an image and Docker: scripts/test-image"]
async fn commands_of_the_page_lead_to_a_phone_that_is_woken() {
    let Some(folder) = namespace::folder() else { return namespace::run_inside(TEST) };
    let mut walk = Walk::start(&folder).await;
    for command in page::commands() {
        eprintln!("# {command}");
        walk.step(&command).await;
    }
}

impl Walk {
    async fn start(inside: &Path) -> Self {
        let scene = Scene::start(inside).await;
        scene.internet.dovecot.user_of(YOU.to_owned());
        docker::make_podman(inside);
        scene.write("compose.yaml", COMPOSE);
        scene.write("compose.override.yaml", &format!("{OVERRIDE}{VARIABLES}"));
        Self { scene, phone: None }
    }

    /// Types a command of the page. Each command of the page must be here: as it is, or with its stand-in.
    async fn step(&mut self, command: &str) {
        match command {
            "docker load --input deltapush-0.1.0-image-amd64.tar" => {
                assert_eq!(self.scene.vps.expect(command), "Loaded image: deltapush:0.1.0\n");
            }
            "docker compose up --detach" => drop(self.scene.vps.expect(command)),
            "docker compose logs" => self.is_ready(command).await,
            "docker compose exec deltapush deltapush qr you@example.org" => {
                self.scans(command).await
            }
            "docker compose exec deltapush deltapush status" => self.is_watched(command).await,
            "docker compose exec deltapush deltapush push-test you@example.org" => {
                self.wakes_the_phone(command).await;
                self.is_healthy_without_rights().await;
                self.is_pushed().await;
            }
            "docker compose run --rm deltapush init you@example.org --hostname push.example.org" => {
                self.initializes(command);
            }
            "docker compose cp config.yaml deltapush:/data/config.yaml" => {
                self.edits_the_configuration();
                drop(self.scene.vps.expect(command));
            }
            "docker compose kill --signal HUP deltapush" => {
                drop(self.scene.vps.expect(command));
                self.scene.logs(&["the configuration was read again"]).await;
                // By a connection of the authority's to the published port 443.
                self.scene.logs(&["renewal due about"]).await;
                self.connects_once().await;
                self.is_pushed().await;
            }
            "docker compose exec deltapush deltapush state backup /data/copy.sqlite"
            | "docker compose cp deltapush:/data/config.yaml ."
            | "docker compose run --rm deltapush state check"
            | "chown 65532:65532 copy.sqlite"
            | "docker compose cp copy.sqlite deltapush:/data/state/state.sqlite" => {
                drop(self.scene.vps.expect(command));
            }
            "docker compose cp deltapush:/data/copy.sqlite ." => {
                drop(self.scene.vps.expect(command));
                let copy = fs::read(self.scene.folder.join("copy.sqlite")).unwrap();
                assert!(copy.starts_with(b"SQLite format 3\0"));
            }
            "docker compose stop" => self.stops_with_a_goodbye(command),
            "podman load --input deltapush-0.1.0-image-amd64.tar" => {
                // The ports are Docker's until here.
                self.is_pushed().await;
                drop(self.scene.vps.expect("docker compose down"));
                assert!(self.scene.vps.expect(command).contains("deltapush:0.1.0"));
            }
            _ if command.starts_with("podman run --detach --name deltapush ") => {
                self.runs_with_podman(command).await;
            }
            "podman exec --interactive --tty deltapush deltapush qr you@example.org" => {
                let answers = [("Password of you@example.org", PASSWORD)];
                let code = setup::read_terminal(&self.scene.vps.converse(command, &answers));
                assert!(code.starts_with("dclogin://you@example.org/?p="), "{code}");
            }
            _ => panic!("docs/containers.md has a command that its test does not know: {command}"),
        }
    }

    async fn is_ready(&self, command: &str) {
        self.scene.logs(&[" is ready"]).await;
        drop(self.scene.vps.expect(command));
    }

    /// The phone scans the code on the terminal.
    async fn scans(&mut self, command: &str) {
        let answers = [("Password of you@example.org", PASSWORD)];
        let code = setup::read_terminal(&self.scene.vps.converse(command, &answers));
        assert!(code.starts_with("dclogin://you@example.org/?p="), "{code}");
        let certificate =
            self.scene.docker.volume("deltapush_data").join("certs/push.example.org.cert.pem");
        self.phone = Some(Phone::scan(&code, &certificate, &self.scene.internet.smtp).await);
    }

    /// The command fails as long as a container has only been started.
    async fn is_watched(&self, command: &str) {
        let mut shown = String::new();
        let is_there = poll(PATIENCE, || {
            shown = text_of(&self.scene.vps.begin(command).wait_with_output().unwrap());
            [YOU, "watching since", "  device "].iter().all(|words| shown.contains(words))
        });
        assert!(is_there.await, "{shown}");
        show(shown);
    }

    /// The app is in the background, and the push makes it connect.
    async fn wakes_the_phone(&mut self, command: &str) {
        let phone = self.phone.as_mut().unwrap();
        phone.background().await;
        let before = self.scene.internet.notify.posted().len();
        let test = self.scene.vps.begin(command);
        self.scene.internet.notify.wait_for(before + 1, PATIENCE).await;
        phone.fetch_in_background().await;
        let output = tokio::task::block_in_place(|| test.wait_with_output()).unwrap();
        let shown = show(text_of(&output));
        assert!(output.status.success(), "{shown}");
    }

    /// A message for the account wakes the phone, which is in the background.
    async fn is_pushed(&mut self) {
        self.is_watched("docker compose exec deltapush deltapush status").await;
        let before = self.scene.internet.notify.posted().len();
        self.scene.internet.dovecot.deliver_news(YOU, "news").await;
        self.scene.internet.notify.wait_for(before + 1, PATIENCE).await;
    }

    /// No user and no capability of root's, a root that is read-only, and the health check of the image.
    async fn is_healthy_without_rights(&self) {
        let inspect = |form: &str| self.scene.inspect(form);
        assert_eq!(inspect(".HostConfig.ReadonlyRootfs"), "true");
        let status = fs::read_to_string(format!("/proc/{}/status", inspect(".State.Pid"))).unwrap();
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(value("Uid:"), [USER; 4]);
        assert_eq!(value("Gid:"), [USER; 4]);
        for set in ["CapEff:", "CapPrm:", "CapBnd:", "CapAmb:"] {
            assert_eq!(value(set), ["0000000000000000"], "{set}");
        }
        assert_eq!(value("NoNewPrivs:"), ["1"]);
        let is_healthy =
            poll(Duration::from_secs(60), || inspect(".State.Health.Status") == "healthy");
        assert!(is_healthy.await, "{}", inspect("json .State.Health"));
    }

    /// `environment` is removed, as the page says, and `init` writes a file. The provider's authority is unlike the page, as in
    /// `first_evening`.
    fn initializes(&mut self, command: &str) {
        let (before, rest) = COMPOSE.split_once("    environment:\n").unwrap();
        let after = rest.split_once("    ports:").unwrap().1;
        self.scene.write("compose.yaml", &format!("{before}    ports:{after}"));
        self.scene.write("compose.override.yaml", OVERRIDE);
        let answers = [
            ("Password of you@example.org", PASSWORD),
            ("Let's Encrypt issues a certificate", "y"),
            ("Accept only logins of you@example.org?", "y"),
        ];
        let shown = self.scene.vps.converse(&format!("{command} --ca system"), &answers);
        assert!(shown.contains("IDLE: yes") && shown.contains("Created config.yaml"), "{shown}");
    }

    /// The directory of Pebble has another path than that of Let's Encrypt.
    fn edits_the_configuration(&self) {
        let file = self.scene.folder.join("config.yaml");
        let written = fs::read_to_string(&file).unwrap();
        let (agreed, directory) = ("    terms_agreed: true", &self.scene.internet.acme.directory);
        assert!(written.contains(agreed), "{written}");
        let changed = written.replace(agreed, &format!("    directory: {directory}\n{agreed}"));
        fs::write(file, changed).unwrap();
    }

    /// The route leads to the mail server by its name now, which makes another account, as the page says.
    async fn connects_once(&mut self) {
        let phone = self.phone.as_mut().unwrap();
        phone.foreground().await;
        phone.background().await;
    }

    /// A client hears the end, and the container ends in the time that the compose file gives it.
    fn stops_with_a_goodbye(&self, command: &str) {
        let mut client = MailProgram::connect("push.example.org", 993);
        client.log_in(YOU, PASSWORD);
        client.send("b SELECT INBOX\r\nc IDLE");
        client.expect("+ ");
        let began = Instant::now();
        drop(self.scene.vps.expect(command));
        assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
        client.expect("* BYE");
        assert_eq!(self.scene.inspect(".State.ExitCode"), "0");
    }

    async fn runs_with_podman(&self, command: &str) {
        // A certificate of Let's Encrypt's would be asked for: its directory is not here, and the self-signed one serves.
        drop(self.scene.vps.expect(command));
        let mut shown = String::new();
        let is_ready = poll(Duration::from_secs(40), || {
            shown = self.scene.vps.output_of("podman logs deltapush 2>&1");
            shown.contains(" is ready")
        });
        assert!(is_ready.await, "{shown}");
        drop(self.scene.vps.expect("podman exec deltapush deltapush status --quiet"));
    }
}
