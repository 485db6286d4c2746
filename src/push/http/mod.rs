//! The notification server's side of a push: one HTTP client, one POST, what its answer means.
//!
//! **When a token may be posted twice.** A POST is made once more, at once and on a new connection, if the connection that it used
//! had brought an answer before and then ended (closed, reset, GOAWAY, a stream reset) or was found dead before the head of an
//! answer had arrived. Dead means: an HTTP/2 PING was not answered, the peer's kernel acknowledged nothing, or over HTTP/1.1
//! nothing came for [`HTTP1_SILENCE`]. The server may have read the first request in all these cases, and then it wakes the phone
//! twice: the app finds nothing new the second time, and the notification server drops a second notification of a token within
//! one second. No retry would be worse, because the message would be shown late. After the head of an answer, or a time-out on a
//! connection that lives, there is no second request here; the schedule decides then.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

mod connection;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, Url};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use self::connection::{HttpConnection, Recipe};
use super::schedule::{PostAnswer, TransientFailure};
use crate::causes::with_causes;
use crate::config::Contact;
use crate::dns::HttpDns;
use crate::secret::DeviceToken;

/// Silence after which an HTTP/1.1 connection that was used before counts as dead; half the POST's limit if that is less.
const HTTP1_SILENCE: Duration = Duration::from_secs(15);
/// The unused body of an answer is read up to this size, so that the connection can be used again.
const MAX_BODY: usize = 64 * 1024;
/// Time limit for that. A body that takes longer is dropped.
const BODY_TIME: Duration = Duration::from_secs(5);
/// Bodies that are read at once. Any further one is dropped.
const MAX_BODIES: usize = 16;

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
    url: Url,
    connection: Arc<HttpConnection>,
    /// Permits to read a body.
    bodies: Arc<Semaphore>,
}

/// A request that ended without an answer.
struct Unanswered {
    failure: TransientFailure,
    /// The connection had worked before, so that a new one may work.
    is_worth_a_retry: bool,
}

impl Poster {
    pub(super) fn new(
        url: Url,
        roots: RootCertStore,
        contact: Option<&Contact>,
    ) -> Result<Self, ClientError> {
        // Plain HTTP is for this machine (the configuration allows nothing else), where no proxy stands between.
        let proxied = url.scheme() != "http";
        let (tls, user_agent) = (client_config(roots)?, user_agent(contact));
        let recipe = Recipe { tls, user_agent, dns: HttpDns::of_system(), proxied };
        let connection = Arc::new(HttpConnection::new(recipe)?);
        Ok(Self { url, connection, bodies: Arc::new(Semaphore::new(MAX_BODIES)) })
    }

    /// Posts the token as it was received. Returns as soon as the status of the answer is known, after `limit` at the latest.
    pub(super) async fn post(&self, token: &DeviceToken, limit: Duration) -> PostAnswer {
        let failed = |failure| PostAnswer::Failed { failure, retry_after: None };
        match timeout(limit, self.post_up_to_twice(token, limit)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(unanswered)) => failed(unanswered.failure),
            Err(_) => failed(TransientFailure::TimedOut),
        }
    }

    async fn post_up_to_twice(
        &self,
        token: &DeviceToken,
        limit: Duration,
    ) -> Result<PostAnswer, Unanswered> {
        let silence = HTTP1_SILENCE.min(limit.checked_div(2).unwrap_or_default());
        match self.request(token, Some(silence)).await {
            Err(Unanswered { is_worth_a_retry: true, .. }) => self.request(token, None).await,
            ended => ended,
        }
    }

    /// One request. A used HTTP/1.1 connection has `silence` to answer, if that is limited.
    async fn request(
        &self,
        token: &DeviceToken,
        silence: Option<Duration>,
    ) -> Result<PostAnswer, Unanswered> {
        let turn = self.connection.turn().await;
        let lease = self.connection.lease();
        let sending = lease.client.post(self.url.clone()).body(token.expose().to_owned()).send();
        let sent = match silence.filter(|_| lease.is_reused && lease.is_http1) {
            None => sending.await,
            Some(silence) => match timeout(silence, sending).await {
                Ok(sent) => sent,
                Err(_) => {
                    tracing::debug!(
                        "the notification server did not answer over HTTP/1.1 within {silence:?}"
                    );
                    self.connection.lost(&lease);
                    return Err(Unanswered {
                        failure: TransientFailure::TimedOut,
                        is_worth_a_retry: true,
                    });
                }
            },
        };
        match sent {
            Ok(response) => {
                self.connection.answered(&lease, response.version());
                drop(turn);
                let answer = classify(
                    response.status().as_u16(),
                    retry_after(response.headers(), SystemTime::now()),
                );
                self.drain(response);
                Ok(answer)
            }
            Err(error) => {
                self.connection.lost(&lease);
                let is_worth_a_retry = lease.is_reused && !error.is_connect();
                tracing::debug!(
                    is_worth_a_retry,
                    "POST to the notification server failed: {}",
                    with_causes(&error.without_url())
                );
                Err(Unanswered { failure: TransientFailure::Unreachable, is_worth_a_retry })
            }
        }
    }

    /// Reads the rest of an answer, within bounds, so that the connection can be used again. Nobody waits for it.
    fn drain(&self, mut response: Response) {
        if response.content_length() == Some(0) {
            return;
        }
        let Ok(permit) = Arc::clone(&self.bodies).try_acquire_owned() else { return };
        tokio::spawn(async move {
            let mut taken = 0_usize;
            let whole = async {
                while let Ok(Some(chunk)) = response.chunk().await {
                    taken = taken.saturating_add(chunk.len());
                    if taken > MAX_BODY {
                        break;
                    }
                }
            };
            // Dropping it afterwards closes the stream, over HTTP/1.1 the connection.
            let _ = timeout(BODY_TIME, whole).await;
            drop(permit);
        });
    }
}

/// Product and version, and a contact for the people who run the notification server (RFC 9110 section 10.1.5).
fn user_agent(contact: Option<&Contact>) -> String {
    let product = concat!("deltapush/", env!("CARGO_PKG_VERSION"));
    contact.map_or_else(|| product.into(), |contact| format!("{product} (+{contact})"))
}

fn client_config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn classify(status: u16, retry_after: Option<Duration>) -> PostAnswer {
    match status {
        200..=299 => PostAnswer::Accepted,
        410 => PostAnswer::Gone,
        // Request time-out, too early, too many requests: these pass. So may a redirection, which is never followed,
        // because a token goes to the configured address only.
        408 | 425 | 429 | 0..=399 | 500.. => {
            PostAnswer::Failed { failure: TransientFailure::Status(status), retry_after }
        }
        400..=499 => PostAnswer::Refused(status),
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
    use crate::tls::client::https_roots;

    #[test]
    fn statuses_mean_what_the_chatmail_relay_takes_them_for() {
        let failed = |status| PostAnswer::Failed {
            failure: TransientFailure::Status(status),
            retry_after: None,
        };
        assert_eq!(classify(200, None), PostAnswer::Accepted);
        assert_eq!(classify(204, None), PostAnswer::Accepted);
        assert_eq!(classify(410, None), PostAnswer::Gone);
        for status in [400, 401, 403, 404, 413, 422] {
            assert_eq!(classify(status, None), PostAnswer::Refused(status));
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

    #[test]
    fn user_agent_names_version_and_contact() {
        let product = concat!("deltapush/", env!("CARGO_PKG_VERSION"));
        assert_eq!(user_agent(None), product);
        let contact = Contact::parse("admin@example.org").unwrap();
        assert_eq!(user_agent(Some(&contact)), format!("{product} (+mailto:admin@example.org)"));
    }

    #[test]
    fn client_can_be_built() {
        for url in ["https://notifications.example.org/notify", "http://127.0.0.1:1/notify"] {
            let contact = Contact::parse("https://push.example.org/contact").ok();
            Poster::new(url.parse().unwrap(), https_roots(None).unwrap(), contact.as_ref())
                .unwrap();
        }
    }
}
