//! A notification server that remembers what it was sent and answers as a test wants it.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, Version};
use axum::response::{IntoResponse as _, Response};
use axum::serve::{IncomingStream, Listener};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::client::Stream;

/// Answer to a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With this HTTP status.
    Status(u16),
    /// With a redirection to this URL.
    Redirect(String),
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
    /// The version of HTTP.
    pub(crate) version: Version,
    /// The header fields.
    pub(crate) headers: HeaderMap,
    /// Tells connections apart: the client's port.
    pub(crate) connection: u16,
}

/// A running notification server. It ends with the test's runtime.
pub(crate) struct NotifyServer {
    /// URL for the configuration.
    pub(crate) url: String,
    /// Its port, on loopback.
    pub(crate) port: u16,
    shared: Arc<Shared>,
    arrived: watch::Receiver<usize>,
}

struct Shared {
    posted: Mutex<Vec<Posted>>,
    /// Answers to come, one per request; 200 when there is none left.
    answers: Mutex<VecDeque<Answer>>,
    /// Answers to tokens that begin so, whatever else is to come.
    always: Mutex<Vec<(&'static str, Answer)>>,
    arrived: watch::Sender<usize>,
}

impl NotifyServer {
    /// Starts a server that answers 200.
    pub(crate) async fn start() -> Self {
        Self::serve("http", None).await
    }

    /// The same with TLS, and HTTP/2 for whoever wants it.
    pub(crate) async fn start_tls(config: &ServerConfig) -> Self {
        let mut config = config.clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::serve("https", Some(Arc::new(config).into())).await
    }

    async fn serve(scheme: &str, tls: Option<TlsAcceptor>) -> Self {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let url = format!("{scheme}://127.0.0.1:{port}/notify");
        let listener = MaybeTls { tcp, tls };
        let (sender, arrived) = watch::channel(0);
        let shared = Arc::new(Shared {
            posted: Mutex::default(),
            answers: Mutex::default(),
            always: Mutex::default(),
            arrived: sender,
        });
        // One handler for every path and method: it fails the test if either is wrong.
        let app = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        let app = app.into_make_service_with_connect_info::<Peer>();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, port, shared, arrived }
    }

    /// The answers to the next requests, in order. After them it is 200 again.
    pub(crate) fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.answers.lock().unwrap().extend(answers);
    }

    /// The answer to every token that begins so, from now on; none to have no rule any more.
    pub(crate) fn always(&self, prefix: &'static str, answer: Option<Answer>) {
        let mut always = self.shared.always.lock().unwrap();
        always.retain(|(known, _)| *known != prefix);
        always.extend(answer.map(|answer| (prefix, answer)));
    }

    /// Returns the notifications so far.
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

/// The client's port.
#[derive(Clone, Copy)]
struct Peer(u16);

impl Connected<IncomingStream<'_, MaybeTls>> for Peer {
    fn connect_info(stream: IncomingStream<'_, MaybeTls>) -> Self {
        Self(stream.remote_addr().port())
    }
}

/// Accepts connections, with TLS if it has that; who fails the handshake is not heard.
pub(crate) struct MaybeTls {
    /// The listening socket.
    pub(crate) tcp: TcpListener,
    /// TLS from the first byte.
    pub(crate) tls: Option<TlsAcceptor>,
}

impl Listener for MaybeTls {
    type Io = Box<dyn Stream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (tcp, peer) = self.tcp.accept().await.unwrap();
            match &self.tls {
                None => return (Box::new(tcp), peer),
                Some(tls) => {
                    if let Ok(stream) = tls.accept(tcp).await {
                        return (Box::new(stream), peer);
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(Peer(connection)): ConnectInfo<Peer>,
    (method, uri, version): (Method, Uri, Version),
    headers: HeaderMap,
    token: String,
) -> Response {
    // `deltapush doctor` looks if the server is there.
    if method == Method::HEAD && uri.path() == "/" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let is_notification = method == Method::POST && uri.path() == "/notify";
    let token =
        if is_notification { token } else { format!("not a notification: {method} {uri} {token}") };
    let rules = shared.always.lock().unwrap().clone();
    let rule =
        rules.into_iter().find(|(prefix, _)| token.starts_with(prefix)).map(|(_, answer)| answer);
    let posted = Posted { at: Instant::now(), token, version, headers, connection };
    shared.posted.lock().unwrap().push(posted);
    shared.arrived.send_modify(|count| *count += 1);
    let answer = rule.unwrap_or_else(|| {
        shared.answers.lock().unwrap().pop_front().unwrap_or(Answer::Status(200))
    });
    match answer {
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::Redirect(url) => {
            (StatusCode::TEMPORARY_REDIRECT, [("location", url)]).into_response()
        }
        Answer::Hang => std::future::pending().await,
    }
}
