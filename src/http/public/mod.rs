//! HTTP on a port shared with IMAP, for browsers and mail programs: a page with the settings for Delta Chat and its
//! login code, and autoconfig.

mod sealed;
mod site;

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST,
};
use hyper::header::{HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use hyper::http::uri::Authority;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use reqwest::Url;
use tokio::time::timeout;

use crate::http::HttpVersion;
use crate::tls::stream::TlsStream;
use site::Expected;
pub(crate) use site::{KNOWN, PublicSite, UNKNOWN};

/// The maximum duration of a connection: there is one page to read.
const STAY: Duration = Duration::from_secs(60);

/// Time limit for the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// Time to wait for a client that may speak HTTP or IMAP: an HTTP client speaks first.
const HESITATION: Duration = Duration::from_millis(500);

/// The most that is held of a request.
const MAX_HEAD: usize = 16 * 1024;

/// Requests of one connection at once.
const MAX_STREAMS: u32 = 8;

/// Content security policy: only the page's own style and script. The script, which handles a password, may not
/// connect to anything.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src 'unsafe-inline'; connect-src 'none'; form-action 'none'; \
         base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        PublicSite::script_hash()
    );
    // A hash in base64 is ASCII.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

const HEADERS: [(HeaderName, &str); 3] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
];

/// The paths of autoconfig: at the `autoconfig.` host and at the domain.
const AUTOCONFIG: [&str; 2] =
    ["/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml"];

/// The answer to a request.
fn answer<B>(site: &PublicSite, request: &Request<B>) -> Response<Full<Bytes>> {
    const HTML: &str = "text/html; charset=utf-8";
    const TEXT: &str = "text/plain; charset=utf-8";
    const XML: &str = "text/xml; charset=utf-8";
    let method = request.method();
    let (status, kind, body) = match (method, request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/") => (StatusCode::OK, HTML, site.page()),
        (&Method::GET | &Method::HEAD, path) if AUTOCONFIG.contains(&path) => {
            match autoconfig(site, request) {
                Some(document) => (StatusCode::OK, XML, document.into()),
                None => {
                    (StatusCode::NOT_FOUND, TEXT, "No mail of this domain is served here.\n".into())
                }
            }
        }
        (&Method::GET | &Method::HEAD, _) => {
            (StatusCode::NOT_FOUND, TEXT, "This page does not exist. The only page is /\n".into())
        }
        _ => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, "Only GET and HEAD are supported here.\n".into())
        }
    };
    let length = HeaderValue::from(body.len());
    let body = if method == Method::HEAD { Bytes::new() } else { body };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // Of HEAD too: what GET would give (RFC 9110 section 8.6).
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// The document for the address in the query, or for the host that was asked for.
fn autoconfig<B>(site: &PublicSite, request: &Request<B>) -> Option<String> {
    let in_header = || {
        request.headers().get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok())
    };
    let authority = request.uri().authority().cloned().or_else(in_header);
    let host = authority.map(|authority| authority.host().to_ascii_lowercase()).unwrap_or_default();
    // The rest of the address does not matter; its parser needs some.
    let url = Url::parse("https://host.invalid").ok()?;
    let url = url.join(&format!("?{}", request.uri().query().unwrap_or_default())).ok()?;
    let address = url
        .query_pairs()
        .find_map(|(key, value)| (key == "emailaddress").then(|| value.into_owned()));
    site.autoconfig(&host, address.as_deref().filter(|address| !address.is_empty()))
}

/// Detects HTTP from a client without ALPN, as Delta Chat fetches autoconfig. A client that may speak IMAP must get
/// its greeting without delay.
pub(crate) async fn wants_http(
    stream: &mut TlsStream,
    host: Option<&str>,
    site: &PublicSite,
) -> bool {
    if stream.agreed().alpn_protocol().is_some() {
        return false;
    }
    let patience = match host.map_or(Expected::Imap, |host| site.expects(host)) {
        Expected::Imap => return false,
        Expected::Http => HEAD_TIME,
        Expected::Either => HESITATION,
    };
    let first = timeout(patience, stream.peek()).await;
    first.is_ok_and(|seen| seen.is_ok_and(is_request))
}

/// Returns true if a client's first bytes are the beginning of a supported request.
fn is_request(seen: &[u8]) -> bool {
    let begins =
        |method: &[u8]| !seen.is_empty() && (seen.starts_with(method) || method.starts_with(seen));
    begins(b"GET /") || begins(b"HEAD /")
}

/// Serves a browser until it disconnects or its time is over.
pub(crate) async fn serve(stream: TlsStream, http: HttpVersion, site: Arc<PublicSite>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        // Whatever body there is is not read: hyper closes or resets what it belongs to.
        let response = answer(&site, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let stream = TokioIo::new(stream);
    // Errors are the browser's, and its end comes as one often enough.
    let _ = match http {
        HttpVersion::One => {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(MAX_HEAD);
            timeout(STAY, builder.serve_connection(stream, answer)).await
        }
        HttpVersion::Two => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(MAX_HEAD as u32)
                .max_send_buf_size(MAX_HEAD)
                .initial_connection_window_size(65_535)
                .initial_stream_window_size(65_535)
                .keep_alive_interval(HEAD_TIME)
                .keep_alive_timeout(HEAD_TIME);
            timeout(STAY, builder.serve_connection(stream, answer)).await
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(method: Method, uri: &str) -> Response<Full<Bytes>> {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(HOST, "push.example.org:443")
            .body(())
            .unwrap();
        let yaml = "routes:\n  - {domain: example.org, upstream: imaps://imap.example.org, smtp: \"smtps://smtp.{domain}\"}\n";
        let config = crate::config::Config::parse(yaml, std::path::Path::new(""), "test").unwrap();
        answer(&PublicSite::new(&config.live), &request)
    }

    #[test]
    fn autoconfig_is_found_at_both_places_by_host_or_address() {
        for (uri, status) in [
            ("/mail/config-v1.1.xml?emailaddress=alice%40example.org", 200),
            ("/.well-known/autoconfig/mail/config-v1.1.xml?emailaddress=alice@example.org&x", 200),
            ("https://autoconfig.example.org/mail/config-v1.1.xml", 200),
            ("https://Example.org:443/.well-known/autoconfig/mail/config-v1.1.xml", 200),
            ("/mail/config-v1.1.xml", 404),
            ("/mail/config-v1.1.xml?emailaddress=alice%40example.com", 404),
            ("/mail/config-v1.1.xml?emailaddress=%zz", 404),
            ("https://autoconfig.example.com/mail/config-v1.1.xml", 404),
        ] {
            let answer = answer_to(Method::GET, uri);
            assert_eq!(answer.status().as_u16(), status, "{uri}");
            assert_eq!(
                answer.headers()[CONTENT_TYPE].to_str().unwrap().starts_with("text/xml"),
                status == 200,
                "{uri}"
            );
        }
    }

    #[test]
    fn only_a_request_is_taken_for_one() {
        for (seen, is) in [
            ("GET / HTTP/1.1", true),
            ("HEAD /x", true),
            ("G", true),
            ("", false),
            ("a1 LOGIN", false),
            ("GETX", false),
        ] {
            assert_eq!(is_request(seen.as_bytes()), is, "{seen}");
        }
    }

    #[test]
    fn browser_may_do_nothing_with_it_but_show_it() {
        for (method, path) in
            [(Method::GET, "/"), (Method::HEAD, "/"), (Method::GET, "/x"), (Method::PUT, "/")]
        {
            let response = answer_to(method, path);
            let header = |name: HeaderName| response.headers()[name].to_str().unwrap().to_owned();
            let policy = header(CONTENT_SECURITY_POLICY);
            assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
            assert!(policy.contains("connect-src 'none'; form-action 'none'"), "{policy}");
            assert_eq!(header(X_CONTENT_TYPE_OPTIONS), "nosniff");
            assert_eq!(header(CACHE_CONTROL), "no-store");
            assert_eq!(
                header(CONTENT_TYPE).starts_with("text/html"),
                response.status() == StatusCode::OK
            );
        }
        let length = |method: Method| answer_to(method, "/x").headers()[CONTENT_LENGTH].clone();
        assert_eq!(length(Method::GET), length(Method::HEAD));
        assert_eq!(answer_to(Method::PUT, "/").headers()[ALLOW], "GET, HEAD");
    }

    #[test]
    fn there_is_nothing_else() {
        let status = |method: Method, path: &str| answer_to(method, path).status().as_u16();
        assert_eq!(status(Method::GET, "/"), 200);
        assert_eq!(status(Method::HEAD, "/"), 200);
        assert_eq!(status(Method::GET, "/.git/config"), 404);
        assert_eq!(status(Method::POST, "/"), 405);
    }
}
