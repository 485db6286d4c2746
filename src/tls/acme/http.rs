//! HTTPS to the authority, for the ACME library: bounded in time and size.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::{Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use reqwest::dns::Resolve;
use reqwest::redirect;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::crypto;

const PATIENCE: Duration = Duration::from_secs(30);

/// The largest answer that is read: a chain of certificates has some kilobytes.
const MAX_BODY: usize = 256 * 1024;

type HttpAnswer = Result<BytesResponse, Error>;

/// The client.
pub(super) struct Https(reqwest::Client);

impl Https {
    /// A client that trusts `roots`, and finds addresses by `resolver`.
    pub(super) fn new(roots: RootCertStore, resolver: Arc<dyn Resolve>) -> Result<Self, Error> {
        let tls = ClientConfig::builder_with_provider(crypto::provider())
            .with_safe_default_protocol_versions()
            .map_err(other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(resolver)
            .https_only(true)
            .redirect(redirect::Policy::none())
            .timeout(PATIENCE)
            .build();
        Ok(Self(client.map_err(other)?))
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = HttpAnswer> + Send>> {
        Box::pin(ask(self.0.clone(), request))
    }
}

async fn ask(client: reqwest::Client, request: Request<BodyWrapper<Bytes>>) -> HttpAnswer {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(other)?.to_bytes();
    let sent =
        client.request(head.method, head.uri.to_string()).headers(head.headers).body(body).send();
    let mut answer = sent.await.map_err(other)?;
    let mut response = Response::new(());
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(other)? {
        if body.len().saturating_add(chunk.len()) > MAX_BODY {
            return Err(Error::Other("the answer is too long".into()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(BytesResponse { parts: response.into_parts().0, body: Box::new(Bytes::from(body)) })
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}
