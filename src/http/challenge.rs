//! The listener that answers an authority's HTTP-01 challenges (RFC 8555 section 8.3): on port 80, or where a web server hands
//! them on.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::listen;
use super::response::{self, Body};
use super::server::{Pages, Visitor};
use crate::tls::acme::ChallengeListener;
use crate::tls::acme::challenges::Challenges;

/// The path of all challenges, before the token.
const FOLDER: &str = "/.well-known/acme-challenge/";

/// The answers to challenges, and nothing else.
struct ChallengeSite(Challenges);

impl Pages for ChallengeSite {
    const NAME: &'static str = "the listener for challenges";
    const HEAD_TIME: Duration = Duration::from_secs(10);
    const LIFETIME: Duration = Duration::from_secs(20);
    const POLICY: &'static str = response::CLOSED;

    async fn respond(self: Arc<Self>, request: Request<()>, _: Arc<Visitor>) -> Response<Body> {
        let token = request.uri().path().strip_prefix(FOLDER);
        match token.and_then(|token| self.0.answer_http(token)) {
            Some(answer) => response::plain(StatusCode::OK, answer),
            None => response::error(
                StatusCode::NOT_FOUND,
                "Only challenges of a certificate authority are answered here, while one is under way.\n",
            ),
        }
    }
}

/// The listener, wherever the configuration wants it.
pub(crate) struct ChallengePort {
    challenges: Challenges,
    tasks: TaskTracker,
    stop: CancellationToken,
    state: Mutex<PortState>,
}

struct PortState {
    open: Option<OpenPort>,
    /// A socket that systemd passed on, until it is used.
    passed: Option<(SocketAddr, StdListener)>,
}

struct OpenPort {
    address: SocketAddr,
    close: CancellationToken,
    serving: JoinHandle<()>,
}

impl ChallengePort {
    /// Answers with `challenges` in `tasks`, until `stop` is cancelled. `passed` is the socket that systemd holds, if there is
    /// one.
    pub(crate) fn new(
        challenges: Challenges,
        passed: Option<(SocketAddr, StdListener)>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { challenges, tasks, stop, state: Mutex::new(PortState { open: None, passed }) }
    }

    async fn move_to(&self, address: Option<SocketAddr>) -> io::Result<()> {
        let mut state = self.state.lock().await;
        let is_there =
            |open: &OpenPort| Some(open.address) == address && !open.serving.is_finished();
        if state.open.as_ref().is_some_and(is_there) {
            return Ok(());
        }
        if let Some(OpenPort { close, serving, .. }) = state.open.take() {
            close.cancel();
            // An error is a panic, which was logged.
            let _ = serving.await;
        }
        let Some(address) = address else { return Ok(()) };
        let socket = match state.passed.take_if(|(own, _)| *own == address) {
            Some((_, socket)) => {
                socket.set_nonblocking(true)?;
                TcpListener::from_std(socket)?
            }
            None => TcpListener::bind(address).await?,
        };
        info!("challenges of the certificate authority are answered at http://{address}{FOLDER}");
        state.open = Some(self.serve(address, socket));
        Ok(())
    }

    fn serve(&self, address: SocketAddr, socket: TcpListener) -> OpenPort {
        let close = self.stop.child_token();
        let site = Arc::new(ChallengeSite(self.challenges.clone()));
        let serving = listen::serve(socket, site, None, self.tasks.clone(), close.clone());
        OpenPort { address, close, serving: self.tasks.spawn(serving) }
    }
}

impl ChallengeListener for ChallengePort {
    fn listen(
        &self,
        address: Option<SocketAddr>,
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + '_>> {
        Box::pin(self.move_to(address))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http_body_util::BodyExt as _;
    use hyper::Method;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::http::server;

    async fn get(challenges: &Challenges, method: Method, path: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let visitor = Arc::new(Visitor::new(Ipv4Addr::LOCALHOST.into()));
        let site = Arc::new(ChallengeSite(challenges.clone()));
        let response = server::respond(site, request, visitor).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn token_is_answered_while_its_challenge_is_under_way_and_nothing_else() {
        let challenges = Challenges::default();
        let path = "/.well-known/acme-challenge/t_-1";
        let offer = challenges.offer_http("t_-1", "t_-1.thumb".to_owned()).unwrap();
        assert_eq!(get(&challenges, Method::GET, path).await, (200, "t_-1.thumb".to_owned()));
        assert_eq!(get(&challenges, Method::HEAD, path).await, (200, String::new()));
        assert_eq!(get(&challenges, Method::POST, path).await.0, 405);
        for other in ["/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/t", "/t_-1"]
        {
            assert_eq!(get(&challenges, Method::GET, other).await.0, 404, "{other}");
        }
        drop(offer);
        assert_eq!(get(&challenges, Method::GET, path).await.0, 404);
    }

    /// The status line of a request to a port; `None` if nobody listens there.
    async fn asked(address: SocketAddr) -> Option<String> {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.lines().next().map(str::to_owned)
    }

    #[tokio::test]
    async fn port_moves_with_the_configuration_and_a_taken_one_can_be_tried_again() {
        let taken = StdListener::bind("127.0.0.1:0").unwrap();
        let passed = StdListener::bind("127.0.0.1:0").unwrap();
        let (first, second) = (passed.local_addr().unwrap(), taken.local_addr().unwrap());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let port =
            ChallengePort::new(Challenges::default(), Some((first, passed)), tasks, stop.clone());
        port.listen(Some(first)).await.unwrap();
        port.listen(Some(first)).await.unwrap();
        assert_eq!(asked(first).await.as_deref(), Some("HTTP/1.0 404 Not Found"));
        let error = port.listen(Some(second)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(asked(first).await, None);
        drop(taken);
        port.listen(Some(second)).await.unwrap();
        assert_eq!(asked(second).await.as_deref(), Some("HTTP/1.0 404 Not Found"));
        port.listen(None).await.unwrap();
        assert_eq!(asked(second).await, None);
    }
}
