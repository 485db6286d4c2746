//! The POST as a notification server of one's own sees it: over TLS, from the real binary.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::Version;

use super::support::certs::Authority;
use super::support::client::Client;
use super::support::deltapush::{Deltapush, Options};
use super::support::notify::{Answer, NotifyServer};
use super::support::poll;
use super::support::scripted::Scripted;

/// An account has 32 at most.
const TOKENS: usize = 30;

const LOGIN: &str = "
    S: * OK [CAPABILITY IMAP4rev1 SASL-IR IDLE AUTH=PLAIN] ready
    LOGIN
    S: <tag> OK [CAPABILITY IMAP4rev1 IDLE] in
";

/// Two messages, each when the test opens the gate.
const WATCH: &str = r#"
    C: w1 EXAMINE "INBOX"
    S: * 4 EXISTS
    S: * OK [UIDVALIDITY 7] ok
    S: * OK [UIDNEXT 10] ok
    S: w1 OK [READ-ONLY] done
    C: w2 IDLE
    S: + idling
    GATE
    S: * 5 EXISTS
    C: DONE
    S: w2 OK
    C~ w3 UID FETCH 10:* (
    S= * 5 FETCH (UID 10 FLAGS () BODY[HEADER.FIELDS (FROM)]<0> {2}\r\n\r\n)\r\n
    S: w3 OK
    C: w4 IDLE
    S: + idling
    GATE
    S: * 6 EXISTS
    C: DONE
    S: w4 OK
    C~ w5 UID FETCH 11:* (
    S= * 6 FETCH (UID 11 FLAGS () BODY[HEADER.FIELDS (FROM)]<0> {2}\r\n\r\n)\r\n
    S: w5 OK
    C: w6 IDLE
    S: + idling
    EOF
"#;

/// An account with tokens that is watched, and a notification server for it.
struct Scene {
    upstream: Scripted,
    deltapush: Deltapush,
    _client: Client,
}

impl Scene {
    async fn begin(notify: &NotifyServer, ca: Option<PathBuf>, tokens: usize) -> Self {
        let upstream = Scripted::start(&[&format!("{LOGIN}EOF"), &format!("{LOGIN}{WATCH}")]).await;
        let deltapush = Deltapush::start(&Options {
            notify_url: notify.url.clone(),
            notify_ca: ca,
            ..Options::plain(upstream.port)
        });
        let mut client = Client::plain(deltapush.plain).await;
        client.expect_prefix("* OK").await;
        assert!(client.command("c1 LOGIN alice@lab.test sesame").await.result.starts_with("OK"));
        for number in 0..tokens {
            let set = format!("c{} SETMETADATA INBOX (/private/devicetoken \"{}\")", number + 2, token(number));
            assert!(client.command(&set).await.result.starts_with("OK"));
        }
        let scene = Self { upstream, deltapush, _client: client };
        scene.says("watching account=alice@lab.test").await;
        scene
    }

    async fn says(&self, words: &str) {
        let said = poll(Duration::from_secs(20), || self.deltapush.log().contains(words)).await;
        assert!(said, "not said: {words:?}");
    }

    fn mail(&self) {
        self.upstream.open_gate();
    }
}

fn token(number: usize) -> String {
    format!("openpgp:{number}+/=")
}

#[tokio::test]
async fn many_posts_are_one_connection_of_http2() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let mut notify = NotifyServer::start_tls(&authority.server_config()).await;
    let scene = Scene::begin(&notify, Some(authority.ca.clone()), TOKENS).await;
    scene.mail();
    notify.wait_for(TOKENS, Duration::from_secs(20)).await;
    scene.mail();
    let posted = notify.wait_for(2 * TOKENS, Duration::from_secs(20)).await;

    let tokens: HashSet<_> = posted.iter().map(|posted| posted.token.clone()).collect();
    assert_eq!(tokens, (0..TOKENS).map(token).collect(), "the body is the token, and nothing else");
    let agent = concat!("deltapush/", env!("CARGO_PKG_VERSION"));
    for post in &posted {
        assert_eq!((post.version, post.headers["user-agent"].to_str().unwrap()), (Version::HTTP_2, agent));
    }
    let connections: HashSet<_> = posted.iter().map(|posted| posted.connection).collect();
    assert_eq!(connections.len(), 1, "{} posts", posted.len());
    notify.stays_at(2 * TOKENS, Duration::from_millis(500)).await;
}

#[tokio::test]
async fn a_redirection_is_not_followed_to_wherever() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let config = authority.server_config();
    let (mut notify, mut elsewhere) = (NotifyServer::start_tls(&config).await, NotifyServer::start_tls(&config).await);
    notify.answer([Answer::Redirect(elsewhere.url.clone())]);
    let scene = Scene::begin(&notify, Some(authority.ca.clone()), 1).await;
    scene.mail();
    notify.wait_for(1, Duration::from_secs(20)).await;
    scene.says("push failed").await;
    elsewhere.stays_at(0, Duration::from_secs(1)).await;
}

/// Neither the built-in authorities nor this machine's know the server's, nor does another of one's own.
#[tokio::test]
async fn a_server_that_nobody_vouches_for_gets_no_token() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (authority, other) = (Authority::new(dir.path()), Authority::new(other.path()));
    for ca in [None, Some(other.ca)] {
        let mut notify = NotifyServer::start_tls(&authority.server_config()).await;
        let scene = Scene::begin(&notify, ca, 1).await;
        scene.mail();
        scene.says("invalid peer certificate").await;
        notify.stays_at(0, Duration::from_millis(500)).await;
    }
}
