//! A Dovecot that tells deltapush of each delivery, and one account.

use std::time::{Duration, Instant};

use super::super::support::client::{Client, quoted};
use super::super::support::deltapush::{Deltapush, Options};
use super::super::support::dovecot::{Dovecot, message};
use super::super::support::lmtp;
use super::super::support::news::{Hook, Way, dovecot, options, set_ox_metadata};
use super::super::support::notify::NotifyServer;
use super::super::support::poll;
use super::super::support::scene::PATIENCE;

/// From the end of the message to its POST, on a machine that does other things too: IDLE takes 500 ms where nothing else runs.
pub(crate) const BOUND: Duration = Duration::from_millis(400);

/// A Dovecot that tells, a deltapush, a notification server, and one account.
pub(super) struct NewsScene {
    pub(super) dovecot: Dovecot,
    // It ends before the server that it posts to, whose port then belongs to another test.
    pub(super) deltapush: Deltapush,
    pub(super) notify: NotifyServer,
    pub(super) user: String,
    news: &'static str,
    _hook: Hook,
}

impl NewsScene {
    pub(super) async fn start(way: Way, news: &'static str) -> Self {
        Self::with(way, news, |_| ()).await
    }

    pub(super) async fn with(
        way: Way,
        news: &'static str,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let hook = Hook::new();
        let dovecot = dovecot(way, &hook);
        let notify = NotifyServer::start().await;
        let mut options =
            Options { notify_url: notify.url.clone(), ..options(&dovecot, &hook, way, news) };
        change(&mut options);
        let deltapush = Deltapush::start(&options);
        let user = dovecot.user("alice");
        if way == Way::Ox {
            set_ox_metadata(&dovecot, &user);
        }
        Self { dovecot, deltapush, notify, user, news, _hook: hook }
    }

    /// A client that is logged in through deltapush.
    pub(super) async fn client(&self) -> Client {
        let mut client = Client::tls(self.deltapush.imaps, &self.deltapush.certificate()).await;
        client.log_in(&self.user).await;
        client
    }

    /// Hands a token over as Delta Chat does, and goes away. With `both`, waits until the mailbox is watched.
    pub(super) async fn register(&self, token: &str) {
        let mut client = self.client().await;
        let entry = format!("c2 SETMETADATA \"INBOX\" (/private/devicetoken {})", quoted(token));
        let reply = client.command(&entry).await;
        assert!(reply.result.starts_with("OK"), "{reply:?}");
        // From here on it is known how far the mailbox goes.
        let reply = client.command("c3 SELECT INBOX").await;
        assert!(reply.result.starts_with("OK"), "{reply:?}");
        client.command("c4 LOGOUT").await;
        if self.news == "both" {
            self.dovecot.wait_for_watch(&self.user, 1).await;
        }
    }

    /// Delivers a message; returns when its data was complete, and how long the mail server took for the answer.
    pub(super) async fn deliver(&self, text: &str) -> (Instant, Duration) {
        self.deliver_to(&self.user, text).await
    }

    /// The same, to an address of the account.
    pub(super) async fn deliver_to(&self, recipient: &str, text: &str) -> (Instant, Duration) {
        let at = lmtp::try_deliver(self.dovecot.lmtp, "bob@elsewhere.test", recipient, text)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", self.dovecot.log()));
        (at, at.elapsed())
    }

    /// A message from somebody else.
    pub(super) fn news(&self) -> String {
        message("bob@elsewhere.test", &self.user, "news", "")
    }

    /// Waits until `pushes` notifications have come in all; returns when the last of them did.
    pub(super) async fn pushed(&mut self, pushes: usize) -> Instant {
        self.notify.wait_for(pushes, PATIENCE).await.last().unwrap().at
    }

    /// Waits until deltapush knows that its notifications were accepted: one that is killed before posts them again.
    pub(super) async fn accepted(&self) {
        let outstanding = || {
            let report = self.deltapush.account(&self.user).unwrap();
            let devices = report["account"]["devices"].as_array().unwrap();
            devices.iter().any(|device| device["pending"] != false)
        };
        assert!(
            poll(PATIENCE, || !outstanding()).await,
            "{:#?}",
            self.deltapush.account(&self.user)
        );
    }

    /// Dovecot's warnings about deltapush.
    pub(super) fn warnings(&self) -> usize {
        self.dovecot.log().matches("deltapush was not told").count()
    }
}

impl Drop for NewsScene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- Dovecot's log\n{}---", self.dovecot.log());
        }
    }
}
