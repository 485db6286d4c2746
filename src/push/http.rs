//! The notification server's side of a push: one HTTP client, one POST, what its answer means.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Url, redirect};
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::schedule::{Answer, Failure};
use crate::causes::with_causes;
use crate::config::Trust;
use crate::secret::DeviceToken;
use crate::upstream::tls::{self, TrustError};

/// For reaching the server.
const PATIENCE: Duration = Duration::from_secs(60);
/// So long after an answer the connection counts as there. The library keeps it for 90 s.
const WARM: Duration = Duration::from_secs(60);
/// So long POSTs wait for the one that opens the connection. It may never be answered.
const TURN: Duration = Duration::from_secs(1);
/// Of an answer's body, which nobody reads, so much is taken to keep the connection.
const MAX_BODY: usize = 64 * 1024;

pub(super) const USER_AGENT: &str = concat!("deltapush/", env!("CARGO_PKG_VERSION"));

/// Why there can be no HTTP client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The cryptography that TLS needs is not there.
    #[error("TLS to the notification server cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// Refused by the HTTP library.
    #[error("the HTTP client for the notification server cannot be set up: {0}")]
    Http(#[from] reqwest::Error),
}

/// Posts tokens to one address over one connection.
#[derive(Debug, Clone)]
pub(super) struct Poster {
    client: Client,
    url: Url,
    connection: Arc<Connection>,
}

/// Whether there is a connection. Without this, POSTs that begin together while there is none would open one each: that it
/// speaks HTTP/2 and so could carry them all is known only after the handshake.
#[derive(Debug, Default)]
struct Connection {
    answered: Mutex<Option<Instant>>,
    opening: tokio::sync::Mutex<()>,
}

impl Connection {
    /// Waits until there is a connection, or it is the caller's turn to open it while holding what is returned.
    async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if self.is_warm() {
            return None;
        }
        let turn = timeout(TURN, self.opening.lock()).await.ok()?;
        (!self.is_warm()).then_some(turn)
    }

    fn is_warm(&self) -> bool {
        self.lock().is_some_and(|answered| answered.elapsed() < WARM)
    }

    fn ended(&self, answered: bool) {
        *self.lock() = answered.then(Instant::now);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Poster {
    pub(super) fn new(url: Url, roots: RootCertStore) -> Result<Self, ClientError> {
        Ok(Self { client: builder(&url, roots)?.build()?, url, connection: Arc::default() })
    }

    /// Posts the token as it was received. The answer is waited for until `limit`.
    pub(super) async fn post(&self, token: &DeviceToken, limit: Duration) -> Answer {
        let request = self.client.post(self.url.clone()).timeout(limit).body(token.expose().to_owned());
        let turn = self.connection.turn().await;
        let sent = request.send().await;
        self.connection.ended(sent.is_ok());
        drop(turn);
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => return failed(&error.without_url()),
        };
        let answer = classify(response.status().as_u16(), retry_after(response.headers(), SystemTime::now()));
        let mut taken = 0_usize;
        while let Ok(Some(chunk)) = response.chunk().await {
            taken = taken.saturating_add(chunk.len());
            if taken > MAX_BODY {
                break;
            }
        }
        answer
    }
}

fn builder(url: &Url, roots: RootCertStore) -> Result<ClientBuilder, ClientError> {
    let builder = Client::builder()
        .user_agent(USER_AGENT)
        .tls_backend_preconfigured(client_config(roots)?)
        .redirect(redirect::Policy::none())
        .connect_timeout(PATIENCE)
        // A connection that died in silence must not swallow one POST after the other.
        .http2_keep_alive_interval(Duration::from_secs(30))
        .http2_keep_alive_timeout(Duration::from_secs(15))
        .tcp_keepalive(Duration::from_secs(60));
    // Without TLS it is for this machine (the configuration allows nothing else): no proxy of the environment's between.
    Ok(if url.scheme() == "http" { builder.no_proxy() } else { builder })
}

/// Whom the notification server's certificate must come from. Where the configuration says nothing: from the built-in
/// authorities or this machine's, should it have any.
///
/// # Errors
/// [`TrustError`], the operator's to mend.
pub fn roots(ca: Option<&Trust>) -> Result<RootCertStore, TrustError> {
    if let Some(trust) = ca {
        return tls::roots(trust);
    }
    let mut roots = tls::roots(&Trust::WebPki)?;
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Ok(roots)
}

fn client_config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn failed(error: &reqwest::Error) -> Answer {
    tracing::debug!("notification server: {}", with_causes(error));
    // What times out while connecting is no worse than what is refused there.
    let timed_out = error.is_timeout() && !error.is_connect();
    let failure = if timed_out { Failure::TimedOut } else { Failure::Unreachable };
    Answer::Failed { failure, retry_after: None }
}

fn classify(status: u16, retry_after: Option<Duration>) -> Answer {
    match status {
        200..=299 => Answer::Accepted,
        410 => Answer::Gone,
        // Request time-out, too early, too many requests: these pass. So may a redirection, which is never followed,
        // because a token goes to the configured address only.
        408 | 425 | 429 | 0..=399 | 500.. => Answer::Failed { failure: Failure::Status(status), retry_after },
        400..=499 => Answer::Refused(status),
    }
}

/// `Retry-After` in either of its forms (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(SystemTime::from(until).duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_mean_what_the_chatmail_relay_takes_them_for() {
        let failed = |status| Answer::Failed { failure: Failure::Status(status), retry_after: None };
        assert_eq!(classify(200, None), Answer::Accepted);
        assert_eq!(classify(204, None), Answer::Accepted);
        assert_eq!(classify(410, None), Answer::Gone);
        for status in [400, 401, 403, 404, 413, 422] {
            assert_eq!(classify(status, None), Answer::Refused(status));
        }
        for status in [301, 308, 408, 429, 500, 502, 503, 599] {
            assert_eq!(classify(status, None), failed(status));
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_opens_the_connection_and_others_wait_but_not_for_long() {
        let connection = Connection::default();
        let turn = connection.turn().await;
        assert!(turn.is_some());
        let began = Instant::now();
        assert!(connection.turn().await.is_none(), "it goes without");
        assert_eq!(began.elapsed(), TURN);
        connection.ended(true);
        drop(turn);
        assert!(connection.turn().await.is_none(), "there is a connection");
        tokio::time::advance(WARM).await;
        assert!(connection.turn().await.is_some());
        connection.ended(true);
        connection.ended(false);
        assert!(connection.turn().await.is_some());
    }

    #[test]
    fn the_client_can_be_built() {
        for url in ["https://notifications.example.org/notify", "http://127.0.0.1:1/notify"] {
            Poster::new(url.parse().unwrap(), roots(None).unwrap()).unwrap();
        }
    }
}
