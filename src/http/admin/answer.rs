//! HTTP answers of the admin listener, with security headers that permit a browser only to display them.

use std::convert::Infallible;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
};
use hyper::header::{REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const CSS: &str = "text/css; charset=utf-8";
pub(super) const JS: &str = "text/javascript; charset=utf-8";
pub(super) const SVG: &str = "image/svg+xml";
pub(super) const EVENTS: &str = "text/event-stream";

/// Nothing inline, nothing from elsewhere, nothing framed, nothing sent.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// An answer that comes as a stream, or whole.
pub(super) fn with_body(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// An answer made for this request. hyper omits the body for HEAD.
pub(super) fn whole(kind: &'static str, text: String) -> Response<Body> {
    with_body(kind, Full::new(Bytes::from(text)).boxed_unsync())
}

/// A constant answer.
pub(super) fn fixed(kind: &'static str, text: &'static str) -> Response<Body> {
    with_body(kind, Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync())
}

/// Words with a status.
pub(super) fn plain(status: StatusCode, words: impl Into<String>) -> Response<Body> {
    let mut response = whole(TEXT, words.into());
    *response.status_mut() = status;
    response
}

/// Answer to methods other than GET and HEAD.
pub(super) fn not_allowed() -> Response<Body> {
    let mut response =
        plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are supported here.\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}
