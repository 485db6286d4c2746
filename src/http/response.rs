//! Responses, and the security headers that all of them get: a browser may only display them.

use std::convert::Infallible;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Bytes};
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap,
    HeaderName, HeaderValue, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use maud::Markup;
use std::time::Duration;

use super::html;

/// The body of a response.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const XML: &str = "text/xml; charset=utf-8";
pub(super) const JS: &str = "text/javascript; charset=utf-8";
pub(super) const EVENTS: &str = "text/event-stream";
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The text for a path without a page.
pub(super) const NO_PAGE: &str = "This page does not exist. The start page is /\n";

/// Content security policy of all pages (CSP level 3): nothing inline, nothing from elsewhere, nothing framed, and forms
/// are sent to this server only.
macro_rules! policy {
    ($more:literal) => {
        concat!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'; ",
            $more
        )
    };
}

/// For pages with a script that handles a password: it may not connect to anything, nor make HTML from text.
pub(super) const CLOSED: &str =
    policy!("connect-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'");

/// For pages with a script that loads updates from this server.
pub(super) const UPDATING: &str = policy!("connect-src 'self'");

const HEADERS: [(HeaderName, &str); 5] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Adds the security headers, with this content security policy.
pub(super) fn secure(headers: &mut HeaderMap, policy: &'static str) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// The response to HEAD: the head of the response to GET (RFC 9110 section 9.3.2).
pub(super) fn head(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(head, Full::default().boxed_unsync())
}

/// A response with a body that comes in pieces, or whole.
pub(super) fn with_body(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A response made for one request.
pub(super) fn whole(kind: &'static str, text: String) -> Response<Body> {
    with_body(kind, Full::new(Bytes::from(text)).boxed_unsync())
}

/// A page.
pub(super) fn page(markup: Markup) -> Response<Body> {
    whole(HTML, markup.into_string())
}

/// A constant response.
pub(super) fn fixed(kind: &'static str, text: &'static str) -> Response<Body> {
    with_body(kind, Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync())
}

/// The files that the pages of all sites load.
pub(super) fn asset(path: &str) -> Option<Response<Body>> {
    match path {
        "/style.css" => Some(fixed(CSS, include_str!("style.css"))),
        "/icon.svg" => Some(fixed(SVG, include_str!("icon.svg"))),
        _ => None,
    }
}

/// The sentence of an error: its response can become a page.
#[derive(Clone, Copy)]
struct ErrorText(&'static str);

/// An error: text for programs, a page for browsers ([`for_browser`]).
pub(super) fn error(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = plain(status, text);
    response.extensions_mut().insert(ErrorText(text));
    response
}

/// True if a peer asks for pages, as browsers do (RFC 9110 section 12.5.1).
pub(super) fn is_for_browser(headers: &HeaderMap) -> bool {
    let accepts_pages = |value: &HeaderValue| {
        value.to_str().is_ok_and(|kinds| kinds.to_ascii_lowercase().contains("text/html"))
    };
    headers.get_all(ACCEPT).iter().any(accepts_pages)
}

/// The response for a browser: an error as a page, everything else unchanged.
pub(super) fn for_browser(mut response: Response<Body>) -> Response<Body> {
    let Some(ErrorText(text)) = response.extensions_mut().remove() else { return response };
    let (mut head, _) = response.into_parts();
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(HTML));
    let body = page(html::error(head.status, text.trim_end())).into_body();
    Response::from_parts(head, body)
}

/// A text with a status.
pub(super) fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = whole(TEXT, text.into());
    *response.status_mut() = status;
    response
}

/// The response to methods other than GET and HEAD.
pub(super) fn not_allowed() -> Response<Body> {
    let mut response =
        error(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are supported here.\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// The response to a peer that must wait.
pub(super) fn too_many(text: &'static str, wait: Duration) -> Response<Body> {
    let mut response = error(StatusCode::TOO_MANY_REQUESTS, text);
    let seconds = wait.as_secs().saturating_add(1);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}
