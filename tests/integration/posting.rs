//! The POST as a notification server of one's own sees it: over TLS, from the real binary.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::http::Version;

use super::support::certs::Authority;
use super::support::client::Client;
use super::support::deltapush::{Deltapush, Options};
use super::support::notify::{Answer, NotifyServer};
use super::support::notify_wire::{
    Deed, Http, INTERNAL_ERROR, NotifyWire, REFUSED_STREAM, Request,
};
use super::support::poll;
use super::support::scripted::Scripted;

/// An account has 32 at most.
const TOKENS: usize = 30;

const LOGIN: &str = "
    S: * OK [CAPABILITY IMAP4rev1 SASL-IR IDLE AUTH=PLAIN] ready
    LOGIN
    S: <tag> OK [CAPABILITY IMAP4rev1 IDLE] in
";

/// A watch of a mailbox into which `messages` come, each when the test opens the gate.
fn watch(messages: usize) -> String {
    let mut script = r#"
    C: w1 EXAMINE "INBOX"
    S: * 4 EXISTS
    S: * OK [UIDVALIDITY 7] ok
    S: * OK [UIDNEXT 10] ok
    S: w1 OK [READ-ONLY] done
    C: w2 IDLE
    S: + idling
"#
    .to_owned();
    for number in 0..messages {
        let (tag, count, uid) = (2 * number + 2, number + 5, number + 10);
        let (fetch, idle) = (tag + 1, tag + 2);
        script += &format!(
            r"
    GATE
    S: * {count} EXISTS
    C: DONE
    S: w{tag} OK
    C~ w{fetch} UID FETCH {uid}:* (
    S= * {count} FETCH (UID {uid} FLAGS () BODY[HEADER.FIELDS (FROM)]<0> {{2}}\r\n\r\n)\r\n
    S: w{fetch} OK
    C: w{idle} IDLE
    S: + idling
"
        );
    }
    script + "EOF"
}

/// An account with tokens that is watched, and a notification server for it.
struct PostingScene {
    deltapush: Deltapush,
    upstream: Scripted,
    client: Client,
    commands: usize,
}

impl PostingScene {
    async fn begin(notify: &NotifyServer, ca: Option<PathBuf>, tokens: usize) -> Self {
        let change = |options: &mut Options| {
            options.notify_ca = ca;
            options.push = "contact: admin@example.org";
        };
        let mut scene = Self::new(&notify.url, 2, change).await;
        for number in 0..tokens {
            scene.set_token(&format!("\"{}\"", token(number))).await;
        }
        scene.is_watched().await;
        scene
    }

    /// An account without a token, whose mailbox gets `messages` messages.
    async fn new(notify_url: &str, messages: usize, change: impl FnOnce(&mut Options)) -> Self {
        let upstream =
            Scripted::start(&[&format!("{LOGIN}EOF"), &format!("{LOGIN}{}", watch(messages))])
                .await;
        let mut options =
            Options { notify_url: notify_url.to_owned(), ..Options::plain(upstream.port) };
        change(&mut options);
        let deltapush = Deltapush::start(&options);
        let mut client = Client::plain(deltapush.plain).await;
        client.expect_prefix("* OK").await;
        assert!(client.command("c1 LOGIN alice@lab.test sesame").await.result.starts_with("OK"));
        Self { upstream, deltapush, client, commands: 1 }
    }

    /// Hands over a token, given as it stands in the command.
    async fn set_token(&mut self, value: &str) {
        self.commands += 1;
        let set = format!("c{} SETMETADATA INBOX (/private/devicetoken {value})", self.commands);
        let reply = self.client.command(&set).await;
        assert!(reply.result.starts_with("OK"), "{}", self.client.dialogue());
    }

    async fn is_watched(&self) {
        self.logs("watching account=alice@lab.test").await;
    }

    async fn logs(&self, words: &str) {
        let said = poll(Duration::from_secs(40), || self.deltapush.log().contains(words)).await;
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
    let scene = PostingScene::begin(&notify, Some(authority.ca.clone()), TOKENS).await;
    scene.mail();
    notify.wait_for(TOKENS, Duration::from_secs(40)).await;
    scene.mail();
    let posted = notify.wait_for(2 * TOKENS, Duration::from_secs(40)).await;

    let tokens: HashSet<_> = posted.iter().map(|posted| posted.token.clone()).collect();
    assert_eq!(tokens, (0..TOKENS).map(token).collect(), "the body is the token, and nothing else");
    let agent = concat!("deltapush/", env!("CARGO_PKG_VERSION"), " (+mailto:admin@example.org)");
    for post in &posted {
        assert_eq!(
            (post.version, post.headers["user-agent"].to_str().unwrap()),
            (Version::HTTP_2, agent)
        );
    }
    let connections: HashSet<_> = posted.iter().map(|posted| posted.connection).collect();
    assert_eq!(connections.len(), 1, "{} posts", posted.len());
    scene.deltapush.decides("alice@lab.test", "the answer to the POST", TOKENS).await;
    assert_eq!(notify.posted().len(), 2 * TOKENS);
}

#[tokio::test]
async fn redirection_is_not_followed_to_wherever() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let config = authority.server_config();
    let (mut notify, elsewhere) =
        (NotifyServer::start_tls(&config).await, NotifyServer::start_tls(&config).await);
    notify.answer([Answer::Redirect(elsewhere.url.clone())]);
    let scene = PostingScene::begin(&notify, Some(authority.ca.clone()), 1).await;
    scene.mail();
    notify.wait_for(1, Duration::from_secs(40)).await;
    // The answer to the POST is the redirection itself.
    scene.logs("push failed").await;
    assert!(elsewhere.posted().is_empty());
}

/// Neither the built-in authorities nor this machine's know the server's, nor does another of one's own.
#[tokio::test]
async fn server_that_nobody_vouches_for_gets_no_token() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (authority, other) = (Authority::new(dir.path()), Authority::new(other.path()));
    for ca in [None, Some(other.ca)] {
        let notify = NotifyServer::start_tls(&authority.server_config()).await;
        let scene = PostingScene::begin(&notify, ca, 1).await;
        scene.mail();
        scene.logs("invalid peer certificate").await;
        assert!(notify.posted().is_empty());
    }
}

/// A scene with a notification server that breaks off where it is told to.
struct WireScene {
    scene: PostingScene,
    notify: NotifyWire,
    _dir: tempfile::TempDir,
}

impl WireScene {
    /// `push` has further keys of the configuration's `push`.
    async fn begin(http: Http, tokens: usize, messages: usize, push: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(dir.path());
        let notify = NotifyWire::start(http, &authority.server_config()).await;
        let change = |options: &mut Options| {
            options.notify_ca = Some(authority.ca.clone());
            options.coalesce = "1ms";
            options.push = push;
        };
        let mut scene = PostingScene::new(&notify.url, messages, change).await;
        for number in 0..tokens {
            scene.set_token(&format!("\"{}\"", token(number))).await;
        }
        scene.is_watched().await;
        Self { scene, notify, _dir: dir }
    }

    /// Delivers a message and waits until there are `n` requests in all.
    async fn requests_after_mail(&mut self, n: usize, patience: Duration) -> Vec<Request> {
        self.scene.mail();
        self.notify.wait_for(n, patience).await
    }

    /// Waits until deltapush has taken note of `n` pushes that ended so.
    async fn ended(&self, words: &str, n: usize) {
        let ended = || self.scene.deltapush.log().matches(words).count();
        let enough = poll(Duration::from_secs(40), || ended() >= n).await;
        assert!(enough, "{words:?} {} of {n} times", ended());
    }
}

/// Each connection that breaks had brought an answer before. The push arrives once more, on another connection, within the bound.
async fn broken_connections_are_replaced(http: Http, breaks: &[(Deed, Duration)]) {
    let mut it = WireScene::begin(http, 1, breaks.len() + 1, "").await;
    it.requests_after_mail(1, Duration::from_secs(40)).await;
    it.ended("push accepted", 1).await;
    for (number, (deed, bound)) in breaks.iter().enumerate() {
        it.notify.next([deed.clone()]);
        let requests = it.requests_after_mail(2 * number + 3, Duration::from_secs(30)).await;
        let [.., broken, again] = &requests[..] else { unreachable!() };
        assert_eq!((&broken.token, &again.token), (&token(0), &token(0)));
        assert_ne!(broken.connection, again.connection, "{deed:?}: on a new connection");
        let late = again.at - broken.at;
        assert!(late < *bound, "{deed:?} cost {late:?}");
        it.ended("push accepted", number + 2).await;
        assert_eq!(it.notify.requests().len(), 2 * number + 3, "{deed:?}: once more, not twice");
    }
    assert!(!it.scene.deltapush.log().contains("push failed"), "the schedule has not heard of it");
}

/// Less than the schedule waits before it makes a POST again.
const AT_ONCE: Duration = Duration::from_secs(6);

#[tokio::test]
async fn broken_http1_connection_is_replaced_at_once_and_a_silent_one_in_time() {
    let breaks = [
        (Deed::Close, AT_ONCE),
        (Deed::TcpReset, AT_ONCE),
        (Deed::Silence, Duration::from_secs(30)),
    ];
    broken_connections_are_replaced(Http::One, &breaks).await;
}

#[tokio::test]
async fn broken_http2_connection_is_replaced_at_once_and_a_silent_one_in_time() {
    let breaks = [
        (Deed::Close, AT_ONCE),
        (Deed::TcpReset, AT_ONCE),
        (Deed::GoAway { refused: true }, AT_ONCE),
        (Deed::GoAway { refused: false }, AT_ONCE),
        (Deed::StreamReset(REFUSED_STREAM), AT_ONCE),
        (Deed::StreamReset(INTERNAL_ERROR), AT_ONCE),
        (Deed::Silence, Duration::from_secs(30)),
    ];
    broken_connections_are_replaced(Http::Two, &breaks).await;
}

/// A connection that dies in silence takes all POSTs on it along: none of them waits for the others.
#[tokio::test]
async fn all_posts_of_a_dead_connection_arrive_on_the_next() {
    let mut it = WireScene::begin(Http::Two, 8, 2, "").await;
    it.requests_after_mail(8, Duration::from_secs(40)).await;
    it.ended("push accepted", 8).await;
    it.notify.next([Deed::Silence]);
    it.scene.mail();
    it.ended("push accepted", 16).await;
    let requests = it.notify.requests();
    let after: HashSet<_> =
        requests[8..].iter().filter(|request| request.connection == 1).map(|r| &r.token).collect();
    assert_eq!(after.len(), 8, "{requests:?}");
    assert!(
        requests[8..].iter().all(|request| request.at - requests[8].at < Duration::from_secs(30)),
        "{requests:?}"
    );
    assert!(!it.scene.deltapush.log().contains("push failed"));
}

/// A server that breaks off each request must not get each of them twice.
#[tokio::test]
async fn first_request_of_a_connection_is_not_repeated_at_once() {
    for (http, deed) in [(Http::One, Deed::TcpReset), (Http::Two, Deed::GoAway { refused: false })]
    {
        let mut it = WireScene::begin(http, 1, 1, "").await;
        it.notify.next([deed.clone(), deed]);
        it.requests_after_mail(1, Duration::from_secs(40)).await;
        it.ended("push failed; next attempt", 1).await;
        assert_eq!(it.notify.requests().len(), 1);
    }
}

/// The notification server waits up to a minute for a phone's push service. That is no dead connection.
#[tokio::test]
async fn slow_answer_on_a_living_connection_is_waited_for() {
    let mut it = WireScene::begin(Http::Two, 1, 2, "").await;
    it.requests_after_mail(1, Duration::from_secs(40)).await;
    it.ended("push accepted", 1).await;
    it.notify.next([Deed::Late(Duration::from_secs(12))]);
    let requests = it.requests_after_mail(2, Duration::from_secs(40)).await;
    it.ended("push accepted", 2).await;
    assert!(requests[1].at.elapsed() >= Duration::from_secs(12));
    assert_eq!(it.notify.requests().len(), 2);
}

#[tokio::test]
async fn body_that_trickles_holds_no_slot() {
    for http in [Http::One, Http::Two] {
        let mut it = WireScene::begin(http, 3, 2, "max_in_flight: 1").await;
        it.notify.next([Deed::TrickledBody, Deed::TrickledBody]);
        let requests = it.requests_after_mail(3, Duration::from_secs(10)).await;
        let waited = requests[2].at - requests[0].at;
        assert!(waited < Duration::from_secs(2), "{http:?}: {waited:?}");
        it.ended("push accepted", 3).await;
        it.requests_after_mail(6, Duration::from_secs(10)).await;
    }
}

/// For every status: one request for each token, and the connection stays.
#[tokio::test]
async fn no_status_is_asked_for_twice_at_once() {
    let statuses = [200, 204, 301, 400, 401, 403, 404, 408, 410, 413, 422, 425, 429, 500, 501, 507];
    for http in [Http::One, Http::Two] {
        let mut it = WireScene::begin(http, statuses.len(), 1, "max_in_flight: 1").await;
        it.notify.next(statuses.map(Deed::Status));
        let requests = it.requests_after_mail(statuses.len(), Duration::from_secs(40)).await;
        let tokens: HashSet<_> = requests.iter().map(|request| &request.token).collect();
        assert_eq!(tokens.len(), statuses.len(), "{requests:?}");
        let connections: HashSet<_> = requests.iter().map(|request| request.connection).collect();
        assert!(connections.len() == 1 || http == Http::One, "{requests:?}");
        it.ended("push accepted", 2).await;
        assert_eq!(it.notify.requests().len(), statuses.len());
    }
}

#[tokio::test]
async fn retry_after_of_a_429_holds_for_all_tokens() {
    for http in [Http::One, Http::Two] {
        let mut it = WireScene::begin(http, 3, 1, "max_in_flight: 1").await;
        it.notify.next([Deed::RetryAfter(3)]);
        let requests = it.requests_after_mail(4, Duration::from_secs(30)).await;
        let pause = requests[1].at - requests[0].at;
        assert!(pause >= Duration::from_secs(3), "{http:?}: {pause:?}");
    }
}

/// Each kind of token that Delta Chat's apps have, in each form in which a client may write it, up to the longest.
#[tokio::test]
async fn every_kind_of_token_reaches_the_notification_server_as_it_was_handed_over() {
    let base64 = |len: usize| "Ab+/9Zz=".chars().cycle().take(len).collect::<String>();
    let webpush = "webpush:https://push.example.org/wpush/v2/gAAAAABm-_x~y?topic=a%20b&n=1|BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQtUbVlUls0VJXg7A8u-Ts1XbjhazAkj7I99e8QcYP7DkM|tBHItJI5svbpez7KI4CCXg";
    let tokens = [
        format!("openpgp:{}", base64(922)),
        format!("openpgp:{}", base64(4096 - "openpgp:".len())),
        webpush.to_owned(),
        format!("{webpush}{}", "k".repeat(4096 - webpush.len())),
        format!("fcm-chat.delta:{}", base64(160)),
        "ubports-deltatouch.lotharketterer|c3BhY2VkOnRva2Vu".to_owned(),
        format!("sandbox:{}", "0f".repeat(32)),
        "0f".repeat(32),
    ];
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let mut notify = NotifyServer::start_tls(&authority.server_config()).await;
    let form = |number: usize, token: &str| match number {
        0 => format!("\"{token}\""),
        _ => format!("{{{}+}}\r\n{token}", token.len()),
    };
    let mut scene =
        PostingScene::new(&notify.url, 1, |options| options.notify_ca = Some(authority.ca.clone()))
            .await;
    let mut wanted = HashSet::new();
    for (number, token) in tokens.iter().enumerate() {
        for variant in 0..2 {
            // Two forms of the same token are one token.
            let mark = ["a", "b"][variant];
            let mut token = token.clone();
            token.pop();
            token += mark;
            scene.set_token(&form(variant, &token)).await;
            assert!(wanted.insert(token), "{number}");
        }
    }
    scene.is_watched().await;
    let began = Instant::now();
    scene.mail();
    let posted = notify.wait_for(wanted.len(), Duration::from_secs(40)).await;
    let got: HashSet<_> = posted.into_iter().map(|posted| posted.token).collect();
    assert_eq!(got, wanted, "after {:?}", began.elapsed());
}
