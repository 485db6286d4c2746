//! The page that browsers find on a port that they share with IMAP: what this is, and what to enter in Delta Chat.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use hyper::header::{HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::timeout;

use super::handshake::Http;
use crate::config::{Config, ListenerTls};
use crate::stream::TlsStream;

/// How long a browser may stay: it has one page to read.
const STAY: Duration = Duration::from_secs(60);

/// How long the head of a request may take.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// The most that is held of a request.
const MAX_HEAD: usize = 16 * 1024;

/// Requests of one connection at once.
const MAX_STREAMS: u32 = 8;

const HEADERS: [(HeaderName, &str); 4] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; form-action 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
];

/// The page, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Page(Bytes);

impl Page {
    /// The page for what `config` serves.
    pub(super) fn new(config: &Config) -> Self {
        let mut rows = String::new();
        let is_public = config.listeners.iter().any(|listener| !listener.is_on_loopback());
        for listener in &config.listeners {
            if is_public && listener.is_on_loopback() {
                continue;
            }
            let security = match listener.tls {
                ListenerTls::Implicit => "SSL/TLS",
                ListenerTls::StartTls => "STARTTLS",
                ListenerTls::None => continue,
            };
            let row = format!("<tr><td>{}<td>{}<td>{security}\n", config.hostname, listener.address.port());
            // IPv4 and IPv6 may have a listener each.
            if !rows.contains(&row) {
                rows.push_str(&row);
            }
        }
        // A host name is made of letters, digits, hyphens, underscores and dots, or is an address: nothing to escape.
        Self(include_str!("web.html").replace("{hostname}", config.hostname.as_str()).replace("{rows}", &rows).into())
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        const HTML: &str = "text/html; charset=utf-8";
        const TEXT: &str = "text/plain; charset=utf-8";
        let (status, kind, body) = match (method, path) {
            (&Method::GET | &Method::HEAD, "/") => (StatusCode::OK, HTML, self.0.clone()),
            (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, TEXT, "There is one page here: /\n".into()),
            _ => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "This page can only be read.\n".into()),
        };
        let length = HeaderValue::from(body.len());
        let body = if method == Method::HEAD { Bytes::new() } else { body };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        // Of HEAD too: what GET would give (RFC 9110 section 8.6).
        headers.insert(CONTENT_LENGTH, length);
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

/// Serves a browser until it goes or has stayed long enough.
pub(super) async fn serve(stream: TlsStream, http: Http, page: Page) {
    let answer = service_fn(move |request: Request<Incoming>| {
        // Whatever body there is is not read: hyper closes or resets what it belongs to.
        let response = page.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let stream = TokioIo::new(stream);
    // Errors are the browser's, and its end comes as one often enough.
    let _ = match http {
        Http::One => {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(MAX_HEAD);
            timeout(STAY, builder.serve_connection(stream, answer)).await
        }
        Http::Two => {
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

    #[test]
    fn the_page_says_what_to_enter() {
        let page = Page::new(&Config::default());
        let text = str::from_utf8(&page.0).unwrap();
        assert!(text.contains("<tr><td>localhost<td>1993<td>SSL/TLS\n<tr><td>localhost<td>1143<td>STARTTLS"), "{text}");
        assert!(!text.contains('{') || !text.contains("{rows}") && !text.contains("{hostname}"), "{text}");
    }

    #[test]
    fn only_ports_that_can_be_reached_are_named_each_once() {
        let mut config = Config::default();
        for address in ["0.0.0.0:993", "[::]:993"] {
            config.listeners.push(crate::config::Listener::new(address.parse().unwrap(), ListenerTls::Implicit));
        }
        let page = Page::new(&config);
        let text = str::from_utf8(&page.0).unwrap();
        assert_eq!(text.matches("<tr><td>").count(), 1, "{text}");
        assert!(text.contains("<td>993<td>"), "{text}");
    }

    #[test]
    fn a_browser_may_do_nothing_with_it_but_show_it() {
        let page = Page::new(&Config::default());
        for (method, path) in [(Method::GET, "/"), (Method::HEAD, "/"), (Method::GET, "/x"), (Method::PUT, "/")] {
            let response = page.answer(&method, path);
            let header = |name: HeaderName| response.headers()[name].to_str().unwrap().to_owned();
            assert!(header(CONTENT_SECURITY_POLICY).starts_with("default-src 'none';"));
            assert_eq!(header(X_CONTENT_TYPE_OPTIONS), "nosniff");
            assert_eq!(header(CACHE_CONTROL), "no-store");
            assert_eq!(header(CONTENT_TYPE).starts_with("text/html"), response.status() == StatusCode::OK);
        }
        let length = |method: Method| page.answer(&method, "/").headers()[CONTENT_LENGTH].clone();
        assert_eq!(length(Method::GET), length(Method::HEAD));
        assert_eq!(page.answer(&Method::PUT, "/").headers()[ALLOW], "GET, HEAD");
    }

    #[test]
    fn there_is_nothing_else() {
        let page = Page::new(&Config::default());
        let status = |method: Method, path: &str| page.answer(&method, path).status().as_u16();
        assert_eq!(status(Method::GET, "/"), 200);
        assert_eq!(status(Method::HEAD, "/"), 200);
        assert_eq!(status(Method::GET, "/.git/config"), 404);
        assert_eq!(status(Method::POST, "/"), 405);
    }
}
