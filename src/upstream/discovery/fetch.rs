//! Fetching an autoconfig document over HTTPS.

use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::{Attempt, Policy};
use reqwest::{StatusCode, Url};
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

use crate::causes::{causes, with_causes};
use crate::config::is_dns_name;
use crate::dns::{DnsError, HttpDns};

/// The whole fetch, redirections included.
const FETCH: Duration = Duration::from_secs(8);
/// The largest document that is read, in bytes.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// Number of times that the server may send on.
const MAX_REDIRECTIONS: usize = 3;

/// Outcome of a fetch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// The document.
    Document(Vec<u8>),
    /// The first [`MAX_BODY`] bytes of a longer document.
    TooLong(Vec<u8>),
    /// There is none.
    Absent,
    /// It may be there, but cannot be had now.
    Failed(String),
}

/// Fetches the document at `url`. The login is not told to anybody: no provider's document is known to need it.
pub(super) async fn fetch(url: &str, tls: &Arc<ClientConfig>, dns: HttpDns) -> Fetched {
    match timeout(FETCH, Box::pin(fetch_unbounded(url, tls, dns))).await {
        Ok(Ok(fetched)) => fetched,
        Ok(Err(error)) => failed(&error.without_url()),
        Err(_) => Fetched::Failed("the time limit has passed".to_owned()),
    }
}

async fn fetch_unbounded(
    url: &str,
    tls: &Arc<ClientConfig>,
    dns: HttpDns,
) -> Result<Fetched, reqwest::Error> {
    // A proxy of the environment would connect to what the filter of `dns` forbids.
    let client = reqwest::Client::builder()
        .user_agent(concat!("deltapush/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(ClientConfig::clone(tls))
        .https_only(true)
        .no_proxy()
        .redirect(Policy::custom(follow))
        .dns_resolver(Arc::new(dns))
        .build()?;
    let mut response = client.get(url).send().await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN => {
            return Ok(Fetched::Absent);
        }
        status => {
            return Ok(Fetched::Failed(format!("the web server answers {}", status.as_u16())));
        }
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = MAX_BODY.saturating_sub(body.len());
        if let Some((fitting, _)) =
            chunk.split_at_checked(room).filter(|(_, rest)| !rest.is_empty())
        {
            body.extend_from_slice(fitting);
            return Ok(Fetched::TooLong(body));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Fetched::Document(body))
}

/// A web server that DNS does not know has no document. All else may pass.
fn failed(error: &reqwest::Error) -> Fetched {
    match causes(error).find_map(|cause| cause.downcast_ref::<DnsError>()) {
        Some(DnsError::Absent { .. }) => Fetched::Absent,
        Some(error) => Fetched::Failed(error.to_string()),
        None => Fetched::Failed(with_causes(error)),
    }
}

/// To names only, whose addresses the resolver filters: an address in the URL would go past it.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    if attempt.previous().len() > MAX_REDIRECTIONS || !has_name(attempt.url()) {
        return attempt.error("the web server redirects to an address that is not allowed");
    }
    attempt.follow()
}

/// Returns true if the host is a name and not an address.
fn has_name(url: &Url) -> bool {
    url.host_str().is_some_and(is_dns_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_lead_to_names_only() {
        for (url, expected) in [
            ("https://autoconfig.example.org/a", true),
            ("https://127.0.0.1/a", false),
            ("https://[::1]/a", false),
            ("https://0x7f.1/a", false),
            ("https://2130706433/a", false),
        ] {
            assert_eq!(Url::parse(url).is_ok_and(|url| has_name(&url)), expected, "{url}");
        }
    }
}
