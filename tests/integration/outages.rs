//! A mail server at which nobody can log in: one warning for each cause, with its remedy, one line when it is over, and a
//! status that groups the accounts by server.

use std::path::Path;

use serde_json::json;

use super::support::certs::Authority;
use super::support::client::{Client, quoted};
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{Dovecot, PASSWORD, Setup};
use super::support::poll;
use super::support::scene::PATIENCE;

/// A Dovecot and the accounts that deltapush watches there.
struct Server {
    deltapush: Deltapush,
    dovecot: Dovecot,
    users: [String; 2],
}

impl Server {
    async fn start(name: &str) -> Self {
        let dovecot = Dovecot::exclusive(Setup::Vanilla);
        let deltapush = Deltapush::start(&Options::dovecot(&dovecot));
        let users = ["one", "two"].map(|who| dovecot.user(&format!("{name}-{who}")));
        for user in &users {
            let mut client = Client::plain(deltapush.plain).await;
            client.log_in(user).await;
            let token = format!("c2 SETMETADATA INBOX (/private/devicetoken \"openpgp:{user}\")");
            assert!(client.command(&token).await.result.starts_with("OK"));
            drop(client);
            dovecot.wait_for_watch(user, 1).await;
        }
        Self { dovecot, deltapush, users }
    }

    /// The server, as log and status name it.
    fn name(&self) -> String {
        format!("localhost:{}", self.dovecot.imaps)
    }

    /// The answer to a login with the right password.
    async fn login(&self, user: &str) -> String {
        let mut client = Client::plain(self.deltapush.plain).await;
        client.expect_prefix("* OK").await;
        client.command(&format!("c1 LOGIN {user} {}", quoted(PASSWORD))).await.result
    }

    /// Lines of the log that report the outage for this cause.
    fn warnings(&self, cause: &str) -> Vec<String> {
        let start = format!("mail server {}: {cause}, nobody can log in there", self.name());
        self.deltapush.log().lines().filter(|line| line.contains(&start)).map(Into::into).collect()
    }

    /// Waits until the watches of both accounts wait for the server, and expects the status to group them.
    async fn expect_group(&self, problem: &str) {
        let report = |text: &str| {
            let group = format!("{}: {problem}", self.name());
            let line = text.lines().find(|line| line.starts_with(&group));
            line.is_some_and(|line| {
                line.contains(": 2 accounts wait; deltapush retries automatically")
            })
        };
        let grouped = poll(PATIENCE, || report(&self.deltapush.status())).await;
        assert!(grouped, "{}\n{}", self.deltapush.status(), self.deltapush.log());
    }

    /// Expects one warning for the cause, with the remedy, although several logins failed.
    async fn expect_one_warning(&self, cause: &str, remedy: &str, answer: &str) {
        for user in [&self.users[0], &self.users[1], &self.users[0]] {
            let heard = self.login(user).await;
            assert!(heard.starts_with(answer), "{heard}");
        }
        let log = self.deltapush.log();
        let [warning] = &self.warnings(cause)[..] else { panic!("not one warning:\n{log}") };
        assert!(warning.contains(" WARN ") && warning.ends_with(remedy), "{warning}");
        assert!(!log.contains("works again"), "{log}");
    }

    /// Waits for the line of the end; further logins write no other.
    async fn expect_end(&self) {
        let over = format!("mail server {} works again", self.name());
        let ends = || self.deltapush.log().matches(&over).count();
        assert!(poll(PATIENCE, || ends() > 0).await, "{}", self.deltapush.log());
        for user in &self.users {
            assert!(self.login(user).await.starts_with("OK"), "{}", self.deltapush.log());
        }
        let log = self.deltapush.log();
        let line = log.lines().find(|line| line.contains(&over)).unwrap();
        // Without the numbers if the outage was shorter than a second.
        let is_whole = line.ends_with(" logins failed)") || line.ends_with(&over);
        assert!(line.contains(" INFO ") && is_whole, "{line}");
        assert_eq!(ends(), 1, "{log}");
    }
}

#[tokio::test]
async fn server_that_stops_is_one_warning_and_one_line_at_its_end() {
    let mut server = Server::start("stops").await;
    server.dovecot.stop();
    server.expect_group("cannot reach the mail server: Connection refused").await;
    let remedy = "check that the mail server runs, and its port in `upstream` of the route";
    let answer = "NO [UNAVAILABLE] The mail server cannot be reached.";
    server.expect_one_warning("it refuses connections", remedy, answer).await;
    server.dovecot.start_again();
    server.expect_end().await;
}

#[tokio::test]
async fn certificate_that_is_not_trusted_is_one_warning_and_one_line_at_its_end() {
    let mut server = Server::start("untrusted").await;
    let folder = tempfile::tempdir().unwrap();
    let other = Authority::new(folder.path());
    let right = server.dovecot.authority.ca.clone();
    let yaml = |path: &Path| format!("ca: {}", json!(path));
    server.deltapush.reconfigure(|text| text.replace(&yaml(&right), &yaml(&other.ca)));
    // The watches log in again after a start only.
    server.deltapush.restart();
    server.expect_group("the TLS handshake with the mail server failed: ").await;
    let remedy = "set `ca:` in the route to the file of that authority";
    let answer = "NO [UNAVAILABLE] There is no secure connection to the mail server.";
    server.expect_one_warning("its certificate is not trusted", remedy, answer).await;
    let reloads = || server.deltapush.log().matches("the configuration was read again").count();
    let before = reloads();
    server.deltapush.reconfigure(|text| text.replace(&yaml(&other.ca), &yaml(&right)));
    assert!(poll(PATIENCE, || reloads() > before).await, "{}", server.deltapush.log());
    assert!(server.login(&server.users[0]).await.starts_with("OK"), "{}", server.deltapush.log());
    server.expect_end().await;
}
