//! The notifier with a real store and a notification server of its own on loopback.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::*;
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::push::registry::AccountEvents;
use crate::store::{self, Position};

/// One POST as a test sees it.
#[derive(Debug)]
struct Request {
    headers: HeaderMap,
    body: String,
}

/// A notification server that gives the answers that a test put there, and 200 after them.
struct PostServer {
    url: Url,
    requests: mpsc::UnboundedReceiver<Request>,
    answers: Arc<Mutex<VecDeque<Response>>>,
}

#[derive(Clone)]
struct Shared {
    requests: mpsc::UnboundedSender<Request>,
    answers: Arc<Mutex<VecDeque<Response>>>,
}

async fn notify(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    shared.requests.send(Request { headers, body }).unwrap();
    let answer = shared.answers.lock().unwrap().pop_front();
    answer.unwrap_or_else(|| StatusCode::OK.into_response())
}

impl PostServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/notify", listener.local_addr().unwrap()).parse().unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        let answers = Arc::default();
        let shared = Shared { requests: sender, answers: Arc::clone(&answers) };
        let router = Router::new().route("/notify", post(notify)).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, requests, answers }
    }

    fn answers(&self, answer: impl IntoResponse) {
        self.answers.lock().unwrap().push_back(answer.into_response());
    }

    async fn request(&mut self) -> Request {
        tokio::time::timeout(Duration::from_secs(40), self.requests.recv()).await.unwrap().unwrap()
    }

    async fn is_left_alone(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(300), self.requests.recv()).await.is_err()
    }
}

/// A notifier at work.
struct Running {
    registry: Registry,
    events: AccountEvents,
    tester: Tester,
    task: JoinHandle<()>,
    shutdown: oneshot::Sender<()>,
}

impl Running {
    fn start(directory: &TempDir, url: &Url, coalesce: Duration) -> Self {
        let settings = store::StoreSettings::sealed(directory.path().join("state"));
        let (registry, events, news) = Registry::open(&settings).unwrap();
        let schedule = schedule::ScheduleSettings { coalesce, max_in_flight: 16, per_second: 1000 };
        let settings = NotifierSettings {
            url: url.clone(),
            roots: RootCertStore::empty(),
            contact: Contact::parse("https://push.example.org/").ok(),
            schedule,
            grace: Duration::from_secs(5),
        };
        let notifier = Notifier::new(settings, registry.clone(), news).unwrap();
        let tester = notifier.tester();
        let (shutdown, asked) = oneshot::channel::<()>();
        let task = tokio::spawn(notifier.run(async move { drop(asked.await) }));
        Self { registry, events, tester, task, shutdown }
    }

    async fn register(&self, user: &str, token: &str) {
        let token = DeviceToken::new(token.as_bytes()).unwrap();
        self.registry
            .register(&account(user), &Credentials::new(user, "sesame"), &token)
            .await
            .unwrap();
    }

    async fn mail_for(&self, user: &str) {
        let position = Position { uid_validity: 1, uid_next: 2 };
        self.registry.noticed(&account(user), "INBOX", position, true).await.unwrap();
    }

    async fn stop(self) {
        self.shutdown.send(()).unwrap();
        self.task.await.unwrap();
        self.registry.close().await;
    }
}

fn account(user: &str) -> AccountId {
    AccountId::new(user, "imap.example.org:993")
}

const WINDOW: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn token_is_the_body_as_it_was_received() {
    let (directory, mut server) = (tempfile::tempdir().unwrap(), PostServer::start().await);
    let it = Running::start(&directory, &server.url, WINDOW);
    it.register("alice", "openpgp:abc+/=").await;
    it.mail_for("alice").await;
    let request = server.request().await;
    assert_eq!(request.body, "openpgp:abc+/=");
    let agent = concat!("deltapush/", env!("CARGO_PKG_VERSION"), " (+https://push.example.org/)");
    assert_eq!(request.headers["user-agent"], agent);
    assert!(
        !request.headers.contains_key("content-type")
            && !request.headers.contains_key("accept-encoding")
    );
    assert!(server.is_left_alone().await);
    it.stop().await;
    let it = Running::start(&directory, &server.url, WINDOW);
    assert!(server.is_left_alone().await, "an accepted push is not repeated after a restart");
    it.stop().await;
}

#[tokio::test]
async fn new_mail_within_the_window_is_pushed_at_its_end() {
    let (directory, mut server) = (tempfile::tempdir().unwrap(), PostServer::start().await);
    let window = Duration::from_millis(700);
    let it = Running::start(&directory, &server.url, window);
    it.register("alice", "openpgp:a").await;
    it.mail_for("alice").await;
    server.request().await;
    let first = Instant::now();
    it.mail_for("alice").await;
    it.mail_for("alice").await;
    server.request().await;
    assert!(first.elapsed() >= window - Duration::from_millis(50), "{:?}", first.elapsed());
    assert!(server.is_left_alone().await);
    it.stop().await;
}

#[tokio::test]
async fn token_that_was_removed_is_not_posted() {
    let (directory, mut server) = (tempfile::tempdir().unwrap(), PostServer::start().await);
    let it = Running::start(&directory, &server.url, Duration::from_millis(200));
    it.register("alice", "openpgp:a").await;
    it.mail_for("alice").await;
    server.request().await;
    it.mail_for("alice").await;
    it.registry.commit(change::remove_account(&account("alice"))).await.unwrap();
    assert!(server.is_left_alone().await, "its window has ended");
    it.stop().await;
}

#[tokio::test]
async fn push_that_waits_is_left_to_another_node() {
    let (directory, mut server) = (tempfile::tempdir().unwrap(), PostServer::start().await);
    let it = Running::start(&directory, &server.url, Duration::from_millis(700));
    let token = DeviceToken::new(b"openpgp:a").unwrap();
    it.register("alice", "openpgp:a").await;
    it.mail_for("alice").await;
    server.request().await;
    it.mail_for("alice").await;
    // A test push is taken up after all that came before.
    assert_eq!(it.tester.push(token.clone()).await, Some(PostResult::Accepted));
    server.request().await;
    it.registry.leave_post(token.clone());
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(server.is_left_alone().await, "its window has ended");
    it.mail_for("alice").await;
    it.registry.leave_post(token);
    server.request().await;
    assert!(server.is_left_alone().await, "what is noticed here meanwhile is posted here");
    it.stop().await;
}

#[tokio::test]
async fn token_that_is_gone_is_kept_and_so_is_its_account() {
    let (directory, mut server) = (tempfile::tempdir().unwrap(), PostServer::start().await);
    let mut it = Running::start(&directory, &server.url, WINDOW);
    it.register("alice", "openpgp:a").await;
    it.events.recv().await;
    server.answers(StatusCode::GONE);
    it.mail_for("alice").await;
    server.request().await;
    assert!(server.is_left_alone().await, "confirmed after a minute");
    assert_eq!(it.events.try_recv(), None);
    assert!(it.registry.is_known(&account("alice")));
    it.stop().await;
    let it = Running::start(&directory, &server.url, WINDOW);
    server.request().await;
    it.stop().await;
}

#[tokio::test]
async fn quarantine_survives_a_restart_and_an_accepted_test_ends_it() {
    let (directory, mut server) = (tempfile::tempdir().unwrap(), PostServer::start().await);
    let it = Running::start(&directory, &server.url, WINDOW);
    it.register("alice", "openpgp:a").await;
    let token = DeviceToken::new(b"openpgp:a").unwrap();
    assert!(!it.registry.quarantined(&token, 1, Duration::from_secs(3600)).await.unwrap());
    it.mail_for("alice").await;
    assert!(server.is_left_alone().await);
    it.stop().await;
    let it = Running::start(&directory, &server.url, WINDOW);
    it.mail_for("alice").await;
    assert!(server.is_left_alone().await);
    server.answers(StatusCode::GONE);
    assert_eq!(it.tester.push(token.clone()).await, Some(PostResult::Gone));
    server.request().await;
    assert!(it.registry.is_known(&account("alice")), "a test erases nothing");
    assert_eq!(it.tester.push(token.clone()).await, Some(PostResult::Accepted));
    server.request().await;
    server.request().await;
    it.stop().await;
}

#[tokio::test]
async fn refused_push_is_kept_and_posted_after_a_restart() {
    let (directory, mut server) = (tempfile::tempdir().unwrap(), PostServer::start().await);
    let it = Running::start(&directory, &server.url, Duration::ZERO);
    it.register("alice", "openpgp:a").await;
    server.answers(StatusCode::BAD_REQUEST);
    it.mail_for("alice").await;
    server.request().await;
    assert!(server.is_left_alone().await);
    it.stop().await;
    let it = Running::start(&directory, &server.url, Duration::ZERO);
    assert_eq!(server.request().await.body, "openpgp:a");
    it.stop().await;
}

#[tokio::test]
async fn failed_push_is_posted_after_a_restart() {
    let (directory, mut server) = (tempfile::tempdir().unwrap(), PostServer::start().await);
    let it = Running::start(&directory, &server.url, WINDOW);
    it.register("alice", "openpgp:a").await;
    server.answers(StatusCode::INTERNAL_SERVER_ERROR);
    it.mail_for("alice").await;
    server.request().await;
    assert!(server.is_left_alone().await, "the retry comes after 8 seconds");
    it.stop().await;
    let it = Running::start(&directory, &server.url, WINDOW);
    assert_eq!(server.request().await.body, "openpgp:a");
    it.stop().await;
}

#[tokio::test]
async fn pause_that_the_server_wants_for_one_token_holds_up_no_other() {
    let (directory, mut server) = (tempfile::tempdir().unwrap(), PostServer::start().await);
    let it = Running::start(&directory, &server.url, WINDOW);
    it.register("alice", "openpgp:a").await;
    server.answers((StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]));
    it.mail_for("alice").await;
    server.request().await;
    assert!(server.is_left_alone().await);
    it.register("bob", "openpgp:b").await;
    it.mail_for("bob").await;
    assert_eq!(server.request().await.body, "openpgp:b");
    // The server was not down, so nobody's pause is cut short.
    assert!(server.is_left_alone().await);
    it.stop().await;
}

#[tokio::test]
async fn redirection_is_not_followed() {
    let (directory, mut server) = (tempfile::tempdir().unwrap(), PostServer::start().await);
    let mut elsewhere = PostServer::start().await;
    let it = Running::start(&directory, &server.url, WINDOW);
    it.register("alice", "openpgp:a").await;
    server.answers((StatusCode::TEMPORARY_REDIRECT, [("location", elsewhere.url.to_string())]));
    it.mail_for("alice").await;
    server.request().await;
    assert!(elsewhere.is_left_alone().await, "a token goes to the configured address only");
    it.stop().await;
}

#[tokio::test]
async fn server_that_cannot_be_reached_costs_nothing_but_time() {
    let directory = tempfile::tempdir().unwrap();
    // Nobody else gets the port, and it refuses connections.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/", socket.local_addr().unwrap()).parse().unwrap();
    let it = Running::start(&directory, &url, WINDOW);
    it.register("alice", "openpgp:a").await;
    it.mail_for("alice").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    it.stop().await;
    let mut server = PostServer::start().await;
    let it = Running::start(&directory, &server.url, WINDOW);
    assert_eq!(server.request().await.body, "openpgp:a");
    it.stop().await;
}

#[tokio::test]
async fn at_the_end_what_is_in_flight_is_waited_for_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}/notify", listener.local_addr().unwrap()).parse().unwrap();
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let slowly = move || async move {
        arrived.send(()).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    let router = Router::new().route("/notify", post(slowly));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let it = Running::start(&directory, &url, WINDOW);
    it.register("alice", "openpgp:a").await;
    it.mail_for("alice").await;
    arrivals.recv().await.unwrap();
    it.stop().await;
    let settings = store::StoreSettings::sealed(directory.path().join("state"));
    let (_registry, _events, mut news) = Registry::open(&settings).unwrap();
    assert_eq!(news.try_recv(), None, "the answer was written");
}
