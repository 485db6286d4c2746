//! A notification server that remembers what it was sent and answers as a test wants it.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

/// How a notification is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With this HTTP status.
    Status(u16),
    /// Not at all.
    Hang,
}

/// One notification, as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Posted {
    /// When.
    pub(crate) at: Instant,
    /// The request's body.
    pub(crate) token: String,
}

/// A running notification server. It ends with the test's runtime.
pub(crate) struct NotifyServer {
    /// What goes into the configuration.
    pub(crate) url: String,
    shared: Arc<Shared>,
    arrived: watch::Receiver<usize>,
}

struct Shared {
    posted: Mutex<Vec<Posted>>,
    /// Answers to come, one per request; 200 when there is none left.
    answers: Mutex<VecDeque<Answer>>,
    arrived: watch::Sender<usize>,
}

impl NotifyServer {
    /// Starts a server that answers 200.
    pub(crate) async fn start() -> Self {
        let (sender, arrived) = watch::channel(0);
        let shared = Arc::new(Shared { posted: Mutex::default(), answers: Mutex::default(), arrived: sender });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/notify", listener.local_addr().unwrap());
        // One handler for every path and method: it fails the test if either is wrong.
        let app = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, shared, arrived }
    }

    /// The answers to the next requests, in order. After them it is 200 again.
    pub(crate) fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.answers.lock().unwrap().extend(answers);
    }

    /// What has arrived so far.
    pub(crate) fn posted(&self) -> Vec<Posted> {
        self.shared.posted.lock().unwrap().clone()
    }

    /// Waits until `n` notifications have arrived since the start.
    pub(crate) async fn wait_for(&mut self, n: usize, patience: Duration) -> Vec<Posted> {
        let arrived = timeout(patience, self.arrived.wait_for(|count| *count >= n)).await.is_ok();
        let posted = self.posted();
        assert!(arrived, "{} of {n} notifications within {patience:?}: {posted:?}", posted.len());
        posted
    }

    /// Fails if more than `n` notifications have arrived by the end of `time`.
    pub(crate) async fn stays_at(&mut self, n: usize, time: Duration) {
        tokio::time::sleep(time).await;
        let posted = self.posted();
        assert_eq!(posted.len(), n, "notifications: {posted:?}");
    }
}

async fn receive(State(shared): State<Arc<Shared>>, method: Method, uri: Uri, token: String) -> StatusCode {
    let posted = Posted { at: Instant::now(), token };
    if method != Method::POST || uri.path() != "/notify" {
        let token = format!("not a notification: {method} {uri} {}", posted.token);
        shared.posted.lock().unwrap().push(Posted { token, ..posted });
    } else {
        shared.posted.lock().unwrap().push(posted);
    }
    shared.arrived.send_modify(|count| *count += 1);
    let answer = shared.answers.lock().unwrap().pop_front().unwrap_or(Answer::Status(200));
    match answer {
        Answer::Status(status) => StatusCode::from_u16(status).unwrap(),
        Answer::Hang => std::future::pending().await,
    }
}
