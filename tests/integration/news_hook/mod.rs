//! The hook and the socket on which mail servers tell of new messages: access, bodies, answers, limits, and the
//! pushes. The mail server is scripted: it accepts the login that brings the token, and no session after it.

mod access;
mod bodies;
mod dict;
mod limits;

use std::time::Duration;

use serde_json::Value;

use super::support::client::Client;
use super::support::deltapush::{Deltapush, Options};
use super::support::notify::NotifyServer;
use super::support::ports::{ReservedPort, wait_for_port};
use super::support::scripted::{Scripted, USER};

const LOGIN: &str = "
    S: * OK [CAPABILITY IMAP4rev1 SASL-IR IDLE AUTH=PLAIN] ready
    LOGIN
    S: <tag> OK [CAPABILITY IMAP4rev1 IDLE] in
    EOF
";

/// A deltapush with a hook, and an account whose mail server tells of new messages.
struct HookScene {
    // It ends before the server that it posts to, whose port then belongs to another test.
    deltapush: Deltapush,
    upstream: Scripted,
    notify: NotifyServer,
    port: ReservedPort,
}

impl HookScene {
    /// The hook without further keys.
    async fn new() -> Self {
        Self::with("").await
    }

    /// The hook with further keys of `news`, as YAML.
    async fn with(news: &str) -> Self {
        let (upstream, notify) = (Scripted::start(&[LOGIN]).await, NotifyServer::start().await);
        let port = ReservedPort::new();
        let options = Options {
            notify_url: notify.url.clone(),
            routes: Some(format!(
                "  - domain: lab.test\n    upstream: imap+plain://127.0.0.1:{}\n    news: server",
                upstream.port
            )),
            more: format!("news:\n  listen: 127.0.0.1:{}\n{news}", port.number()),
            ..Options::plain(0)
        };
        let deltapush = Deltapush::start(&options);
        assert!(wait_for_port(port.number(), Duration::from_secs(40)), "{}", deltapush.log());
        // reqwest takes the process's default.
        let _ = deltapush::crypto::provider();
        let scene = Self { deltapush, upstream, notify, port };
        scene.register().await;
        scene
    }

    async fn register(&self) {
        let mut client = Client::plain(self.deltapush.plain).await;
        client.expect_prefix("* OK").await;
        assert!(client.command("c1 LOGIN alice@lab.test sesame").await.result.starts_with("OK"));
        let set = "c2 SETMETADATA INBOX (/private/devicetoken \"openpgp:alice\")";
        assert!(client.command(set).await.result.starts_with("OK"), "{}", client.dialogue());
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1/news", self.port.number())
    }

    fn post(&self, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        reqwest::Client::new().post(self.url()).body(body)
    }

    /// Tells of a message with this UID, and returns the answer.
    async fn tell(&self, uid: u32) -> (u16, String) {
        answered(self.post(own(uid))).await
    }

    /// Waits for this many notifications in all, and fails if there are more, or if a session was opened for the account.
    async fn expect_pushes(&mut self, count: usize) {
        let posted = self.notify.wait_for(count, Duration::from_secs(40)).await;
        assert!(posted.iter().all(|posted| posted.token == "openpgp:alice"), "{posted:?}");
        assert_eq!((posted.len(), self.upstream.connections()), (count, 1), "{posted:?}");
    }
}

/// deltapush's own form, for a message with this UID.
fn own(uid: u32) -> String {
    format!(r#"{{"name": "{USER}", "uid": {uid}, "uid_validity": 7}}"#)
}

/// The status, and the text of the JSON: the outcome, or the error.
async fn answered(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/json");
    let json: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    let key = if status == 200 { "outcome" } else { "error" };
    (status, json[key].as_str().unwrap_or_else(|| panic!("{status} {json}")).to_owned())
}
