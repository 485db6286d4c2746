//! The hook: from a request to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue, ORIGIN};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::answer::{Answer, METHODS, ordered};
use super::body::BodyReader;
use super::formats;
use super::tokens::{TokenProblem, Tokens};
use crate::admission::slot_table::SlotLimits;
use crate::config::NewsToken;
use crate::http::response::Body;
use crate::http::server::{Site, Visitor};
use crate::push::server_news::{NewsReceiver, NewsScope, ServerNews};
use crate::telemetry::{NewsRefusal, Telemetry, TelemetryEvent};

/// The path of the hook.
const PATH: &str = "/v1/news";

/// Requests at once whose news is stored.
const AT_WORK: usize = 64;

/// News of one request at once.
const OF_ONE_REQUEST: usize = 16;

/// The longest wait of a request for its turn.
const TURN_TIME: Duration = Duration::from_secs(2);

/// Time limit for storing the news of a request.
const STORE_TIME: Duration = Duration::from_secs(10);

/// The site of the hook.
pub(super) struct NewsHook {
    receiver: NewsReceiver,
    telemetry: Telemetry,
    tokens: Tokens,
    bodies: BodyReader,
    at_work: Semaphore,
    stop: CancellationToken,
}

impl NewsHook {
    /// Asks for one of `tokens`, if there are any. Bodies that are still to arrive when `stop` is cancelled are not waited for.
    pub(super) fn new(
        tokens: &[NewsToken],
        (receiver, telemetry): (NewsReceiver, Telemetry),
        stop: CancellationToken,
    ) -> Self {
        Self {
            receiver,
            telemetry,
            tokens: Tokens::new(tokens),
            bodies: BodyReader::default(),
            at_work: Semaphore::new(AT_WORK),
            stop,
        }
    }

    async fn handle(&self, request: Request<Incoming>, visitor: &Visitor) -> Answer {
        if let Some(answer) = misplaced(&request) {
            return answer;
        }
        let scope = match self.authorize(request.headers().get(AUTHORIZATION), visitor) {
            Ok(scope) => scope,
            Err(problem) => return problem.into(),
        };
        let reading = self.bodies.read(request.into_body());
        let body = match self.stop.run_until_cancelled(reading).await {
            Some(Ok(body)) => body,
            Some(Err(problem)) => return problem.into(),
            None => return Answer::ending(),
        };
        let news = match formats::read(&body.bytes) {
            Ok(news) => news,
            Err(problem) => return problem.into(),
        };
        drop(body);
        self.receive(news, &scope).await
    }

    fn authorize(
        &self,
        given: Option<&HeaderValue>,
        visitor: &Visitor,
    ) -> Result<NewsScope, TokenProblem> {
        let given = given.map(HeaderValue::as_bytes);
        let scope = self.tokens.scope(given, visitor.address, Instant::now());
        match &scope {
            Ok(_) => visitor.set_known(),
            Err(TokenProblem::Wrong { is_first: true }) => {
                info!("wrong token for the news hook from {}", visitor.address);
            }
            Err(_) => {}
        }
        scope
    }

    async fn receive(&self, news: Vec<ServerNews>, scope: &NewsScope) -> Answer {
        let Ok(Ok(_turn)) = timeout(TURN_TIME, self.at_work.acquire()).await else {
            return Answer::busy();
        };
        // Only forms without UIDs have several messages, so that their order does not matter.
        let answers = stream::iter(news)
            .map(|news| async move {
                let received = self.receiver.receive(news, scope).await;
                received.map_or_else(Answer::from, |outcome| Answer::taken(Some(outcome)))
            })
            .buffer_unordered(OF_ONE_REQUEST)
            .fold(None, async |so_far: Option<Answer>, next| {
                let Some(so_far) = so_far else { return Some(next) };
                let (given, other) = ordered(so_far, next);
                self.count(&other);
                Some(given)
            });
        match timeout(STORE_TIME, answers).await {
            Ok(answer) => answer.unwrap_or_else(|| Answer::taken(None)),
            Err(_) => Answer::too_slow(),
        }
    }

    fn count(&self, answer: &Answer) {
        if let Some(refusal) = answer.refusal {
            self.telemetry.record(&TelemetryEvent::NewsRefused(refusal));
        }
    }
}

/// Refuses requests that are none for the hook.
fn misplaced(request: &Request<Incoming>) -> Option<Answer> {
    let (status, text) = if request.uri().path() != PATH {
        (StatusCode::NOT_FOUND, format!("news is told at {PATH}"))
    } else if !matches!(*request.method(), Method::POST | Method::PUT) {
        (StatusCode::METHOD_NOT_ALLOWED, format!("news is told by {METHODS}"))
    } else if request.headers().contains_key(ORIGIN) {
        // Browsers send it with each POST of a page: no page in a browser on this machine reaches an open hook on loopback.
        (StatusCode::FORBIDDEN, "pages in a browser cannot tell of news".to_owned())
    } else {
        return None;
    };
    Some(Answer::refused(status, NewsRefusal::Body, text))
}

impl Site for NewsHook {
    const NAME: &'static str = "the news hook";
    // Longer than mail servers keep an idle connection, so that they are the ones who close it.
    const HEAD_TIME: Duration = Duration::from_secs(120);
    const LIFETIME: Duration = Duration::from_secs(3600);
    // A mail server may have a connection for each process that delivers, all from one address. Connections without a request that
    // was accepted displace each other.
    const LIMITS: SlotLimits = SlotLimits {
        connections: 512,
        per_address: 512,
        before_login: 256,
        before_login_per_address: 512,
    };

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        visitor: Arc<Visitor>,
    ) -> Response<Body> {
        let answer = self.handle(request, &visitor).await;
        self.count(&answer);
        if answer.refusal.is_some() {
            let (peer, status) = (visitor.address, answer.status.as_u16());
            debug!(%peer, status, "news refused: {}", answer.text);
        }
        answer.into_response()
    }
}
