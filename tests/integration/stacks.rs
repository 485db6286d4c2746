//! Mail servers that people run as a whole: the settings that mailcow, docker-mailserver and YunoHost give their Dovecot, with
//! the lines of docs/recipes.md and the routes of contrib, in front of them deltapush, scripted clients and a real core.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use rcgen::KeyPair;
use serde_json::json;

use super::support::certs::Authority;
use super::support::client::{Client, quoted};
use super::support::core::{Core, Submission, Version};
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{Dovecot, Setup, message};
use super::support::dovecot_24::Dovecot24;
use super::support::lmtp;
use super::support::notify::NotifyServer;
use super::support::{poll, recipe};

const PATIENCE: Duration = Duration::from_secs(40);
/// A client that is not deltapush.
const FAR_AWAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
/// More than the ten sessions of an address that Dovecot allows by default.
const MANY: u8 = 12;

/// A Dovecot with the settings of one of them.
enum Stack {
    V23(Dovecot),
    V24(Dovecot24),
}

impl Stack {
    /// Dovecot 2.3 with these settings, and the lines that `section` of the page adds, for deltapush at `address`.
    fn dovecot_23(settings: &str, section: &str, address: &str) -> Self {
        let lines = lines(section, address);
        let start = |dir: &Path| {
            let key = KeyPair::generate().unwrap();
            fs::write(dir.join("crypt.key"), key.serialize_pem()).unwrap();
            fs::write(dir.join("crypt.pub"), key.public_key_pem()).unwrap();
            settings.replace("AT", &dir.display().to_string()) + &lines
        };
        Self::V23(Dovecot::configured(Setup::Vanilla, &["localhost", "127.0.0.1"], start))
    }

    fn dovecot_24(settings: &str, section: &str, address: &str) -> Self {
        Self::V24(Dovecot24::start(&(settings.to_owned() + &lines(section, address))))
    }

    fn imaps(&self) -> u16 {
        match self {
            Self::V23(dovecot) => dovecot.imaps,
            Self::V24(dovecot) => dovecot.imaps,
        }
    }

    fn lmtp(&self) -> u16 {
        match self {
            Self::V23(dovecot) => dovecot.lmtp,
            Self::V24(dovecot) => dovecot.lmtp,
        }
    }

    fn authority(&self) -> &Authority {
        match self {
            Self::V23(dovecot) => &dovecot.authority,
            Self::V24(dovecot) => &dovecot.authority,
        }
    }

    fn user(&self, name: &str) -> String {
        match self {
            Self::V23(dovecot) => dovecot.user(name),
            Self::V24(dovecot) => dovecot.user(name),
        }
    }

    fn log(&self) -> String {
        match self {
            Self::V23(dovecot) => dovecot.log(),
            Self::V24(dovecot) => dovecot.log(),
        }
    }
}

/// Dovecot's lines in a section of the page.
fn lines(section: &str, address: &str) -> String {
    recipe::replaced(
        recipe::block(section, "", "login_trusted_networks"),
        &[(address, "127.0.0.1")],
    )
}

/// A stack behind a deltapush with the page's routes, and a notification server.
struct StackScene {
    stack: Stack,
    deltapush: Deltapush,
    notify: NotifyServer,
}

impl StackScene {
    async fn start(stack: Stack, routes: &str, upstream: &str) -> Self {
        let notify = NotifyServer::start().await;
        let authority = stack.authority().ca.display().to_string();
        let routes = recipe::replaced(
            &routes.replace("    ca: system\n", ""),
            &[
                ("domain: example.org", "domain: lab.test"),
                (upstream, &format!("imaps://localhost:{}\n    ca: {authority}", stack.imaps())),
            ],
        );
        let options = Options {
            routes: Some(routes),
            notify_url: notify.url.clone(),
            more: "limits:\n  failed_logins:\n    delay: 10ms\n".to_owned(),
            ..Options::plain(0)
        };
        Self { stack, deltapush: Deltapush::start(&options), notify }
    }

    async fn client(&self) -> Client {
        Client::tls_from(FAR_AWAY, self.deltapush.imaps, &self.deltapush.certificate()).await
    }

    async fn is_woken(&mut self, user: &str, n: usize) {
        let news = message("bob@elsewhere.test", user, "news", "");
        lmtp::deliver(self.stack.lmtp(), "bob@elsewhere.test", user, &news).await;
        let posted = self.notify.wait_for(n, PATIENCE).await;
        assert!(posted[n - 1].token.starts_with("openpgp:"), "{posted:?}");
    }

    async fn is_watched(&self, accounts: usize) {
        let watching = || self.deltapush.status().matches("watch    watching").count() == accounts;
        assert!(poll(PATIENCE, watching).await, "{}", self.deltapush.status());
    }

    /// A phone hands its token over and is woken, while the account has more sessions than one address may have.
    async fn serves_many_clients(&mut self, user: &str) {
        let mut phone = self.client().await;
        phone.log_in(user).await;
        let token = quoted("openpgp:phone");
        let set =
            phone.command(&format!("c2 SETMETADATA INBOX (/private/devicetoken {token})")).await;
        assert!(set.result.starts_with("OK"), "{set:?}");
        drop(phone);
        self.is_watched(1).await;
        let mut clients = Vec::new();
        for number in 1..=MANY {
            let address = Ipv4Addr::new(127, 0, 1, number % 2 + 1);
            let certificate = self.deltapush.certificate();
            let mut client = Client::tls_from(address, self.deltapush.imaps, &certificate).await;
            client.log_in(user).await;
            let selected = client.command("c2 SELECT INBOX").await;
            assert!(selected.result.starts_with("OK"), "{selected:?}");
            clients.push(client);
        }
        self.is_woken(user, 1).await;
        let listed = clients[0].command("c3 LIST \"\" *").await.text();
        assert!(listed.contains("Junk"), "{listed}");
    }

    /// A wrong password is the client's, not deltapush's, for all that reads the log.
    async fn names_the_client_of_a_failed_login(&self, user: &str) {
        let mut client = self.client().await;
        client.expect_prefix("* OK").await;
        let refused = client.command(&format!("c1 LOGIN {user} wrong")).await.result;
        assert!(refused.starts_with("NO"), "{refused}");
        let failed =
            |line: &str| line.contains("auth failed") && line.contains(&format!("rip={FAR_AWAY}"));
        let named = poll(PATIENCE, || self.stack.log().lines().any(failed)).await;
        assert!(named, "{}", self.stack.log());
        let own = self
            .stack
            .log()
            .lines()
            .any(|line| line.contains("auth failed") && line.contains("rip=127.0.0.1,"));
        assert!(!own, "{}", self.stack.log());
    }

    /// A real core hands its token over, ends, and is woken.
    async fn wakes_a_core(&mut self, user: &str) {
        let submission = Submission::start_at(self.stack.lmtp(), self.stack.authority()).await;
        let mut core = Core::start(Version::CurrentWithToken).await;
        core.add_account(user, self.deltapush.imaps, submission.port).await;
        core.call("start_io_for_all_accounts", json!([])).await;
        self.is_watched(2).await;
        core.kill().await;
        self.is_woken(user, 2).await;
    }

    async fn serves_phones(mut self) {
        let [phone, core] = ["phone", "core"].map(|name| self.stack.user(name));
        self.serves_many_clients(&phone).await;
        self.names_the_client_of_a_failed_login(&phone).await;
        self.wakes_a_core(&core).await;
        assert!(!self.stack.log().contains("Error: "), "{}", self.stack.log());
    }
}

#[tokio::test]
async fn mailcows_dovecot_is_served() {
    let stack =
        Stack::dovecot_23(include_str!("data/dovecot/mailcow.conf"), "mailcow", "172.22.1.93");
    let configuration = include_str!("../../contrib/compose/mailcow/deltapush.yaml");
    let routes = recipe::routes_of(configuration);
    StackScene::start(stack, &routes, "imaps://mail.example.org").await.serves_phones().await;
}

#[tokio::test]
async fn docker_mailservers_dovecot_is_served() {
    let section = "docker-mailserver";
    let settings = include_str!("data/dovecot/docker-mailserver.conf");
    let stack = Stack::dovecot_24(settings, section, "172.30.93.6");
    let files = [
        include_str!("../../contrib/compose/docker-mailserver/dovecot.cf"),
        include_str!("../../contrib/compose/docker-mailserver/fail2ban-jail.cf"),
    ];
    for (file, (language, words)) in
        files.into_iter().zip([("", "login_trusted_networks"), ("ini", "ignoreip")])
    {
        assert!(file.ends_with(recipe::block(section, language, words)), "{file}");
    }
    let configuration = include_str!("../../contrib/compose/docker-mailserver/deltapush.yaml");
    let routes = recipe::routes_of(configuration);
    StackScene::start(stack, &routes, "imaps://mail.example.org").await.serves_phones().await;
}

#[tokio::test]
async fn yunohosts_dovecot_is_served() {
    let stack =
        Stack::dovecot_23(include_str!("data/dovecot/yunohost.conf"), "YunoHost", "127.0.0.1 ::1");
    let routes = recipe::routes("YunoHost");
    StackScene::start(stack, &routes, "imaps://example.org").await.serves_phones().await;
}
