//! One HTTP connection, for all sites: its limits, its requests and its end.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::HttpVersion;
use super::response::{self, Body};
use crate::admission::connection_slots::ConnectionSlot;
use crate::admission::slot_table::SlotLimits;

/// Maximum size of the head of a request, and of a buffer of a connection.
const MAX_HEAD: usize = 16 * 1024;

/// Concurrent requests of one HTTP/2 connection.
const MAX_STREAMS: u32 = 8;

/// Flow control windows of HTTP/2, in bytes: the sites behind it read no bodies.
const WINDOW: u32 = 65_535;

/// Time that the last request of a connection has beyond its lifetime.
const LAST_REQUEST_TIME: Duration = Duration::from_secs(10);

/// Connections at once: an operator with some devices, a Prometheus or two, and strangers without the password; or the
/// addresses from which an authority looks, and strangers.
const LIMITS: SlotLimits = SlotLimits {
    connections: 128,
    per_address: 64,
    before_login: 48,
    before_login_per_address: 24,
};

/// A site: a function from a request to its response.
pub(crate) trait Site: Send + Sync + 'static {
    /// Its name in the log.
    const NAME: &'static str;

    /// Time limit for the head of a request, including the wait for it.
    const HEAD_TIME: Duration;

    /// Maximum duration of a connection. Clients open the next one by themselves.
    const LIFETIME: Duration;

    /// Connections at once, on a listener of its own.
    const LIMITS: SlotLimits;

    /// The response to any request. If its body is not read, hyper closes the connection or resets the rest.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        visitor: Arc<Visitor>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// A site of pages, which answers GET and reads no bodies.
pub(crate) trait Pages: Send + Sync + 'static {
    /// As of [`Site`].
    const NAME: &'static str;

    /// As of [`Site`].
    const HEAD_TIME: Duration;

    /// As of [`Site`].
    const LIFETIME: Duration;

    /// The content security policy of its responses.
    const POLICY: &'static str;

    /// The response to GET.
    fn respond(
        self: Arc<Self>,
        request: Request<()>,
        visitor: Arc<Visitor>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

impl<P: Pages> Site for P {
    const NAME: &'static str = <P as Pages>::NAME;
    const HEAD_TIME: Duration = <P as Pages>::HEAD_TIME;
    const LIFETIME: Duration = <P as Pages>::LIFETIME;
    const LIMITS: SlotLimits = LIMITS;

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        visitor: Arc<Visitor>,
    ) -> Response<Body> {
        respond(self, request.map(drop), visitor).await
    }
}

/// The peer of a connection.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(super) address: IpAddr,
    /// It knows the site's password.
    is_known: AtomicBool,
    became_known: Notify,
}

impl Visitor {
    pub(super) fn new(address: IpAddr) -> Self {
        Self { address, is_known: AtomicBool::new(false), became_known: Notify::new() }
    }

    /// Makes its connection safe from eviction.
    pub(super) fn set_known(&self) {
        if !self.is_known.swap(true, Ordering::Relaxed) {
            self.became_known.notify_one();
        }
    }

    fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }
}

/// Serves a peer until it disconnects, its time is over, its slot is taken, or `stop` is cancelled; then the requests in
/// progress are completed.
pub(crate) async fn serve<S: Site>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    version: HttpVersion,
    address: IpAddr,
    slot: &mut ConnectionSlot,
    site: Arc<S>,
    stop: &CancellationToken,
) {
    let visitor = Arc::new(Visitor::new(address));
    let known = Arc::clone(&visitor);
    let service = service_fn(move |request: Request<Incoming>| {
        let response = Arc::clone(&site).answer(request, Arc::clone(&visitor));
        async move { Ok::<_, Infallible>(response.await) }
    });
    let builder = builder(version, S::HEAD_TIME);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut end = Instant::now() + S::LIFETIME;
    let evicted = slot.evicted();
    tokio::pin!(evicted);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            // Errors are the peer's; many browsers end a connection with one.
            _ = &mut connection => return,
            () = known.became_known.notified() => {
                slot.logged_in();
                continue;
            }
            () = &mut evicted, if !known.is_known() => return,
            () = stop.cancelled(), if !is_stopping => {}
            () = sleep_until(end) => {
                if is_stopping {
                    return;
                }
                end += LAST_REQUEST_TIME;
            }
        }
        is_stopping = true;
        connection.as_mut().graceful_shutdown();
    }
}

fn builder(version: HttpVersion, head_time: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head_time).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .max_send_buf_size(MAX_HEAD)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .keep_alive_interval(head_time)
        .keep_alive_timeout(head_time);
    match version {
        HttpVersion::One => builder.http1_only(),
        HttpVersion::Two => builder.http2_only(),
    }
}

/// The response of pages to any request.
pub(super) async fn respond<S: Pages>(
    site: Arc<S>,
    request: Request<()>,
    visitor: Arc<Visitor>,
) -> Response<Body> {
    let method = request.method().clone();
    let is_for_browser = response::is_for_browser(request.headers());
    let mut response = match method {
        Method::GET | Method::HEAD => site.respond(request, visitor).await,
        _ => response::not_allowed(),
    };
    if is_for_browser {
        response = response::for_browser(response);
    }
    response::secure(response.headers_mut(), S::POLICY);
    if method == Method::HEAD { response::head(response) } else { response }
}
