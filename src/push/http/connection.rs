//! The connection to the notification server: when a POST may use it, and when it is replaced by a new one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::{Client, Version, redirect};
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::ClientConfig;

use crate::dns::HttpDns;

/// Time after an answer in which the connection counts as open. The library keeps an idle connection for 90 s.
const WARM: Duration = Duration::from_secs(60);
/// Longest wait for the POST that opens the connection, which may never be answered.
const TURN: Duration = Duration::from_secs(1);
/// Time after an answer in which an HTTP/1.1 connection is used again. It has no PING, so one that died unnoticed would cost
/// a time-out; a new one costs some round trips.
const HTTP1_IDLE: Duration = Duration::from_secs(10);
/// TCP and TLS handshakes, for all addresses together.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// While a POST waits, an HTTP/2 connection on which nothing was read for this time is asked by a PING.
const PING_AFTER: Duration = Duration::from_secs(5);
/// Time for the answer to a PING. After it the connection counts as dead.
const PING_TIME: Duration = Duration::from_secs(5);
/// Time in which the peer's kernel must acknowledge what was sent (Linux).
const ACKNOWLEDGED_IN: Duration = Duration::from_secs(10);

/// The settings of an HTTP client.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) tls: ClientConfig,
    pub(super) user_agent: String,
    pub(super) dns: HttpDns,
    /// True to use a proxy that the environment names.
    pub(super) proxied: bool,
}

impl Recipe {
    fn build(&self) -> reqwest::Result<Client> {
        let builder = Client::builder()
            .user_agent(&self.user_agent)
            .dns_resolver(Arc::new(self.dns.clone()))
            .tls_backend_preconfigured(self.tls.clone())
            .redirect(redirect::Policy::none())
            // The library's own retries would come on top of the one that the caller makes.
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIME)
            .http2_keep_alive_interval(PING_AFTER)
            .http2_keep_alive_timeout(PING_TIME)
            .tcp_keepalive(Duration::from_secs(60));
        #[cfg(target_os = "linux")]
        let builder = builder.tcp_user_timeout(ACKNOWLEDGED_IN);
        if self.proxied { builder } else { builder.no_proxy() }.build()
    }
}

/// The HTTP client in use. Each client has its own pool, so a new client means a new connection.
#[derive(Debug)]
pub(super) struct HttpConnection {
    recipe: Recipe,
    current: Mutex<CurrentClient>,
    /// Held by the POST that opens the connection. Without it, POSTs that begin together would open one each: only after the
    /// handshake is it known that the connection speaks HTTP/2 and can carry them all.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct CurrentClient {
    client: Client,
    number: u64,
    /// The last answer: when, and whether by HTTP/1.1.
    answered: Option<(Instant, bool)>,
}

/// A client to make one request with.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) client: Client,
    number: u64,
    /// True if it has brought an answer before, so that its connection may have been closed or lost since.
    pub(super) is_reused: bool,
    /// True if that answer came by HTTP/1.1.
    pub(super) is_http1: bool,
}

impl HttpConnection {
    pub(super) fn new(recipe: Recipe) -> reqwest::Result<Self> {
        let current =
            Mutex::new(CurrentClient { client: recipe.build()?, number: 0, answered: None });
        Ok(Self { recipe, current, opening: tokio::sync::Mutex::default() })
    }

    /// Waits until there is a connection, or until the caller may open it while it holds the returned guard.
    pub(super) async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if self.is_warm() {
            return None;
        }
        let turn = timeout(TURN, self.opening.lock()).await.ok()?;
        (!self.is_warm()).then_some(turn)
    }

    fn is_warm(&self) -> bool {
        self.lock().answered.is_some_and(|(at, _)| at.elapsed() < WARM)
    }

    /// The client for the next request.
    pub(super) fn lease(&self) -> Lease {
        let mut current = self.lock();
        if current.answered.is_some_and(|(at, is_http1)| is_http1 && at.elapsed() >= HTTP1_IDLE) {
            self.renew(&mut current);
        }
        Lease {
            client: current.client.clone(),
            number: current.number,
            is_reused: current.answered.is_some(),
            is_http1: current.answered.is_some_and(|(_, is_http1)| is_http1),
        }
    }

    /// A request with `lease` was answered.
    pub(super) fn answered(&self, lease: &Lease, version: Version) {
        let mut current = self.lock();
        if current.number == lease.number {
            current.answered = Some((Instant::now(), version < Version::HTTP_2));
        }
    }

    /// A request with `lease` found no connection, or one that ended before an answer: the next request opens another.
    pub(super) fn lost(&self, lease: &Lease) {
        let mut current = self.lock();
        if current.number == lease.number {
            self.renew(&mut current);
        }
    }

    fn renew(&self, current: &mut CurrentClient) {
        current.answered = None;
        current.number = current.number.wrapping_add(1);
        match self.recipe.build() {
            Ok(client) => current.client = client,
            // It could be built at the start. The old one opens new connections too, once its pool has found the dead one.
            Err(error) => tracing::debug!(
                "cannot build a new HTTP client for the notification server, the old one stays in use: {error}"
            ),
        }
    }

    fn lock(&self) -> MutexGuard<'_, CurrentClient> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::http::client_config;
    use crate::tls::client::https_roots;

    fn connection() -> HttpConnection {
        let tls = client_config(https_roots(None).unwrap()).unwrap();
        HttpConnection::new(Recipe {
            tls,
            user_agent: "test".into(),
            dns: HttpDns::of_system(),
            proxied: false,
        })
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_post_opens_the_connection_and_others_wait_for_a_bounded_time() {
        let connection = connection();
        let turn = connection.turn().await;
        assert!(turn.is_some());
        let began = Instant::now();
        assert!(connection.turn().await.is_none(), "it goes without");
        assert_eq!(began.elapsed(), TURN);
        let lease = connection.lease();
        assert!(!lease.is_reused);
        connection.answered(&lease, Version::HTTP_2);
        drop(turn);
        assert!(connection.turn().await.is_none(), "there is a connection");
        tokio::time::advance(WARM).await;
        assert!(connection.turn().await.is_some());
        connection.answered(&connection.lease(), Version::HTTP_2);
        assert!(connection.turn().await.is_none());
        connection.lost(&connection.lease());
        assert!(connection.turn().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn lost_connection_is_replaced_once_however_many_posts_it_carried() {
        let connection = connection();
        connection.answered(&connection.lease(), Version::HTTP_2);
        let (one, other) = (connection.lease(), connection.lease());
        assert!(one.is_reused && other.is_reused);
        connection.lost(&one);
        let new = connection.lease();
        assert!(!new.is_reused && new.number != one.number);
        connection.answered(&new, Version::HTTP_2);
        connection.lost(&other);
        assert!(connection.lease().is_reused, "the new connection has nothing to do with it");
        connection.lost(&new);
        connection.answered(&other, Version::HTTP_2);
        assert!(
            !connection.lease().is_reused,
            "an answer by an older connection says nothing about the new one"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connection_without_ping_is_not_used_again() {
        let connection = connection();
        connection.answered(&connection.lease(), Version::HTTP_11);
        let lease = connection.lease();
        assert!(lease.is_reused && lease.is_http1);
        tokio::time::advance(HTTP1_IDLE).await;
        assert!(!connection.lease().is_reused);
        connection.answered(&connection.lease(), Version::HTTP_2);
        tokio::time::advance(HTTP1_IDLE).await;
        let lease = connection.lease();
        assert!(lease.is_reused && !lease.is_http1, "HTTP/2 has a PING");
    }
}
