//! One account in Dovecot behind one deltapush, with a notification server.

use std::time::Duration;

use super::client::{Client, quoted};
use super::deltapush::{Deltapush, Options};
use super::dovecot::{self, Dovecot, Setup};
use super::notify::NotifyServer;

/// Time limit for a push on a busy machine. `cores.rs` measures how soon one comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// Time without a push after which none is expected. Dovecot holds news back for half a second.
pub(crate) const QUIET: Duration = Duration::from_secs(3);

/// One account behind one deltapush, with a notification server.
pub(crate) struct DovecotScene {
    pub(crate) dovecot: &'static Dovecot,
    // It ends before the server that it posts to, whose port then belongs to another test.
    pub(crate) deltapush: Deltapush,
    pub(crate) notify: NotifyServer,
    pub(crate) user: String,
}

impl DovecotScene {
    pub(crate) async fn new(setup: Setup, name: &str) -> Self {
        Self::with(setup, name, |_| ()).await
    }

    pub(crate) async fn with(setup: Setup, name: &str, change: impl FnOnce(&mut Options)) -> Self {
        let dovecot = dovecot::shared(setup);
        let notify = NotifyServer::start().await;
        let mut options = Options { notify_url: notify.url.clone(), ..Options::dovecot(dovecot) };
        change(&mut options);
        Self { dovecot, notify, deltapush: Deltapush::start(&options), user: dovecot.user(name) }
    }

    /// A connection through the proxy that has not said anything yet.
    pub(crate) async fn connect(&self) -> Client {
        Client::tls(self.deltapush.imaps, &self.deltapush.certificate()).await
    }

    /// A client that is logged in through the proxy.
    pub(crate) async fn client(&self) -> Client {
        let mut client = self.connect().await;
        client.log_in(&self.user).await;
        client
    }

    /// A client that is logged in to Dovecot itself.
    pub(crate) async fn direct(&self) -> Client {
        let mut client = Client::plain(self.dovecot.imap).await;
        client.log_in(&self.user).await;
        client
    }

    /// Registers a token as Delta Chat does, goes away, and waits until the mailbox is watched.
    pub(crate) async fn register(&self, token: &str) {
        let mut client = self.client().await;
        let reply = client
            .command(&format!("c2 SETMETADATA \"INBOX\" (/private/devicetoken {})", quoted(token)))
            .await;
        assert!(reply.result.starts_with("OK"), "{reply:?}");
        drop(client);
        self.dovecot.wait_for_watch(&self.user, 1).await;
    }

    pub(crate) async fn deliver_news(&self) {
        self.dovecot.deliver_news(&self.user, "news").await;
    }

    /// Waits until the account's history has `count` events with these words and no push is outstanding, and expects
    /// `pushes` notifications in all.
    pub(crate) async fn expect_decided(&self, words: &str, count: usize, pushes: usize) {
        self.deltapush.decides(&self.user, words, count).await;
        let posted = self.notify.posted();
        assert_eq!(posted.len(), pushes, "notifications: {posted:?}");
    }

    /// Expects the tokens of all notifications so far to be these, in any order.
    pub(crate) async fn expect_pushes(&mut self, tokens: &[&str]) {
        let posted = self.notify.wait_for(tokens.len(), PATIENCE).await;
        let mut got: Vec<&str> = posted.iter().map(|posted| posted.token.as_str()).collect();
        let mut wanted = tokens.to_vec();
        got.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(got, wanted);
    }
}

impl Drop for DovecotScene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.dovecot.log();
            let about: Vec<&str> = log.lines().filter(|line| line.contains(&self.user)).collect();
            eprintln!("--- Dovecot's log of {}\n{}", self.user, about.join("\n"));
            let said = self.dovecot.sessions(&self.user).join("-\n");
            let first: Vec<&str> = said.lines().take(200).collect();
            eprintln!("--- what its sessions said\n{}\n---", first.join("\n"));
        }
    }
}
