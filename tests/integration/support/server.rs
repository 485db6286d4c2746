//! The real servers by what they have in common, so that one test can be played with each.

use std::path::{Path, PathBuf};

use super::client::{Client, Reply};
use super::courier::Courier;
use super::cyrus::Cyrus;
use super::deltapush::Options;
use super::dovecot::{Dovecot, PASSWORD, Setup, message};

/// A running server that one test uses, which may restart it.
pub(crate) enum RealServer {
    /// TLS from the first byte.
    Dovecot(Dovecot),
    /// TLS from the first byte.
    Cyrus(Cyrus),
    /// In plain text.
    Courier(Courier),
}

impl RealServer {
    /// Debian's Dovecot, vanilla.
    pub(crate) fn dovecot() -> Self {
        Self::Dovecot(Dovecot::exclusive(Setup::Vanilla))
    }

    /// Debian's Cyrus, vanilla.
    pub(crate) fn cyrus() -> Self {
        Self::Cyrus(Cyrus::start())
    }

    /// Debian's Courier, vanilla.
    pub(crate) fn courier() -> Self {
        Self::Courier(Courier::start())
    }

    /// A deltapush in front of it.
    pub(crate) fn options(&self) -> Options {
        match self {
            Self::Dovecot(dovecot) => Options::dovecot(dovecot),
            Self::Cyrus(cyrus) => Options {
                upstream: format!("imaps://localhost:{}", cyrus.imaps),
                ca: Some(cyrus.authority.ca.clone()),
                ..Options::plain(0)
            },
            Self::Courier(courier) => Options::plain(courier.imap),
        }
    }

    /// A user of this test's own with the password [`PASSWORD`], by login name; mail arrives after the first login.
    pub(crate) fn user(&self, name: &str) -> String {
        match self {
            Self::Dovecot(dovecot) => dovecot.user(name),
            Self::Cyrus(cyrus) => cyrus.user(name),
            Self::Courier(courier) => courier.user(name),
        }
    }

    /// A client of the server itself that has not said anything.
    pub(crate) async fn connect(&self) -> Client {
        match self {
            Self::Dovecot(dovecot) => Client::tls(dovecot.imaps, &dovecot.authority.ca).await,
            Self::Cyrus(cyrus) => Client::tls(cyrus.imaps, &cyrus.authority.ca).await,
            Self::Courier(courier) => Client::plain(courier.imap).await,
        }
    }

    /// A client that is logged in to the server itself.
    pub(crate) async fn direct(&self, user: &str) -> Client {
        let mut client = self.connect().await;
        client.expect_prefix("* OK").await;
        // Not every server takes such a password in quotes.
        client.send(&format!("c1 LOGIN {user} {{{}}}", PASSWORD.len())).await;
        client.expect_prefix("+").await;
        client.send(PASSWORD).await;
        let Reply { result, .. } = client.until_tagged("c1").await;
        assert!(result.starts_with("OK"), "login of {user}: {result}");
        client
    }

    /// Delivers a message from somebody else.
    pub(crate) async fn deliver_news(&self, user: &str) {
        let news = message("bob@elsewhere.test", user, "news", "");
        match self {
            Self::Dovecot(dovecot) => dovecot.deliver("bob@elsewhere.test", user, &news).await,
            Self::Cyrus(cyrus) => cyrus.deliver(user, &news).await,
            Self::Courier(courier) => courier.deliver(user, &news),
        }
    }

    /// Ends the server.
    pub(crate) fn stop(&mut self) {
        match self {
            Self::Dovecot(dovecot) => dovecot.stop(),
            Self::Cyrus(cyrus) => cyrus.stop(),
            Self::Courier(courier) => courier.stop(),
        }
    }

    /// Starts it after [`stop`](Self::stop), where it was.
    pub(crate) fn start_again(&mut self) {
        match self {
            Self::Dovecot(dovecot) => dovecot.start_again(),
            Self::Cyrus(cyrus) => cyrus.start_again(),
            Self::Courier(courier) => courier.start_again(),
        }
    }

    /// Returns the records of a user's sessions after login, if the server keeps any.
    pub(crate) fn sessions(&self, user: &str) -> Option<Vec<String>> {
        match self {
            Self::Dovecot(dovecot) => Some(dovecot.sessions(user)),
            Self::Cyrus(cyrus) => Some(cyrus.sessions(user)),
            Self::Courier(_) => None,
        }
    }

    fn log(&self) -> String {
        match self {
            Self::Dovecot(dovecot) => dovecot.log(),
            Self::Cyrus(cyrus) => cyrus.log(),
            Self::Courier(courier) => courier.log(),
        }
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}---", self.log());
        }
    }
}

/// A program of those that `scripts/servers` unpacks for the tests.
pub(crate) fn program(name: &str) -> PathBuf {
    unpacked("bin").join(name)
}

/// Returns the folder of an unpacked server.
pub(crate) fn unpacked(server: &str) -> PathBuf {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("servers").join(server);
    assert!(
        folder.is_dir(),
        "{} is missing: run scripts/servers once, it unpacks Debian's packages",
        folder.display()
    );
    folder
}
