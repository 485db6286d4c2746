//! The public page and autoconfig, for browsers and mail programs, on a port shared with IMAP.
//!
//! The page has two steps: the form with the mail address, which the server answers with the settings for it; then the
//! password, which stays in the browser: its script makes the login code. An address that is not served gets neither,
//! unless its owner insists.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

mod lookup_limit;
mod page;
mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::HOST;
use hyper::http::uri::Authority;
use hyper::{Request, Response, StatusCode};
use reqwest::Url;
use tokio::time::timeout;

use super::response::{self, Body, JS, XML};
use super::server::{Pages, Visitor};
use crate::tls::stream::TlsStream;
use settings::Expected;
pub(crate) use settings::{KNOWN, PublicSite, UNKNOWN};

/// Time to wait for a client that may speak HTTP or IMAP: an HTTP client speaks first.
const HESITATION: Duration = Duration::from_millis(500);

/// The paths of autoconfig: at the `autoconfig.` host and at the domain.
const AUTOCONFIG: [&str; 2] =
    ["/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml"];

/// The script of the page: a library that makes QR codes (MIT licence, in its head), and our own.
const SCRIPT: &str = concat!(include_str!("qrcodegen.js"), include_str!("script.js"));

impl Pages for PublicSite {
    const NAME: &'static str = "the public page";
    const HEAD_TIME: Duration = Duration::from_secs(10);
    const LIFETIME: Duration = Duration::from_secs(60);
    const POLICY: &'static str = response::CLOSED;

    async fn respond(
        self: Arc<Self>,
        request: Request<()>,
        visitor: Arc<Visitor>,
    ) -> Response<Body> {
        let path = request.uri().path();
        if let Some(asset) = response::asset(path) {
            return asset;
        }
        let address = match path {
            "/" => value(&request, "address"),
            "/script.js" => return response::fixed(JS, SCRIPT),
            path if AUTOCONFIG.contains(&path) => value(&request, "emailaddress"),
            _ => return response::error(StatusCode::NOT_FOUND, response::NO_PAGE),
        };
        if path == "/" && address.is_none() {
            return response::page(page::start(self.hostname(), None));
        }
        if let Some(wait) = self.wait(visitor.address, Instant::now()) {
            return response::too_many("Too many addresses were looked up. Wait a moment.\n", wait);
        }
        match (path, address) {
            ("/", Some(address)) => {
                let is_confirmed = value(&request, page::CONFIRMED).is_some();
                response::page(page::answer(&self, &address, is_confirmed))
            }
            (_, address) => match self.autoconfig(&host(&request), address.as_deref()) {
                Some(document) => response::whole(XML, document),
                None => response::error(
                    StatusCode::NOT_FOUND,
                    "No mail of this domain is served here.\n",
                ),
            },
        }
    }
}

/// The value of a key of the query, without spaces around it; `None` if it is empty.
fn value(request: &Request<()>, key: &str) -> Option<String> {
    // The rest of the URL does not matter; its parser needs some.
    let mut url = Url::parse("https://host.invalid").ok()?;
    url.set_query(request.uri().query());
    let (_, value) = url.query_pairs().find(|(name, _)| name == key)?;
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The host that was asked for, without port, in lower case.
fn host(request: &Request<()>) -> String {
    let in_header = || {
        request.headers().get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok())
    };
    let authority = request.uri().authority().cloned().or_else(in_header);
    authority.map(|authority| authority.host().to_ascii_lowercase()).unwrap_or_default()
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
        Expected::Http => PublicSite::HEAD_TIME,
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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::path::Path;

    use http_body_util::BodyExt as _;
    use hyper::Method;
    use hyper::header::{
        ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
        HeaderName, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
    };

    use super::*;
    use crate::config::Config;
    use crate::http::server;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn site() -> Arc<PublicSite> {
        let yaml = concat!(
            "hostname: push.example.org\nlisteners:\n  - {address: \"0.0.0.0:443\", tls: implicit, web: true}\n",
            "routes:\n  - {domain: example.org, upstream: imaps://imap.example.org, smtp: \"smtps://smtp.{domain}\", smtp_login: local}\n",
            "  - {domain: other.example, upstream: imaps://imap.other.example, host: imap.other.example}\n",
            "  - {address: bob@gmail.com, upstream: imaps://imap.gmail.com}\n",
        );
        Arc::new(PublicSite::new(&Config::parse(yaml, Path::new(""), "test").unwrap().live))
    }

    async fn answer_of(site: &Arc<PublicSite>, method: Method, uri: &str) -> Response<Body> {
        let request =
            Request::builder().method(method).uri(uri).header(HOST, "push.example.org:443");
        let visitor = Arc::new(Visitor::new(CLIENT));
        server::respond(Arc::clone(site), request.body(()).unwrap(), visitor).await
    }

    async fn answer_to(method: Method, uri: &str) -> Response<Body> {
        answer_of(&site(), method, uri).await
    }

    async fn page(uri: &str) -> String {
        let response = answer_to(Method::GET, uri).await;
        assert_eq!(response.status(), StatusCode::OK, "{uri}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn autoconfig_is_found_at_both_places_by_host_or_address() {
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
            let answer = answer_to(Method::GET, uri).await;
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

    #[tokio::test]
    async fn browser_may_do_nothing_with_it_but_show_it() {
        for (method, path) in [
            (Method::GET, "/"),
            (Method::HEAD, "/"),
            (Method::GET, "/?address=alice%40example.org"),
            (Method::GET, "/script.js"),
            (Method::GET, "/x"),
            (Method::PUT, "/"),
        ] {
            let response = answer_to(method, path).await;
            let header = |name: HeaderName| response.headers()[name].to_str().unwrap().to_owned();
            let policy = header(CONTENT_SECURITY_POLICY);
            assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
            for part in ["connect-src 'none'", "form-action 'self'", "trusted-types 'none'"] {
                assert!(policy.contains(part), "{policy}");
            }
            assert!(!policy.contains("unsafe"), "{policy}");
            assert_eq!(header(X_CONTENT_TYPE_OPTIONS), "nosniff");
            assert_eq!(header(CACHE_CONTROL), "no-store");
        }
        let get = answer_to(Method::GET, "/x").await.into_body().collect().await.unwrap();
        let head = answer_to(Method::HEAD, "/x").await;
        assert_eq!(head.headers()[CONTENT_LENGTH], get.to_bytes().len().to_string());
        assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
        assert_eq!(answer_to(Method::PUT, "/").await.headers()[ALLOW], "GET, HEAD");
    }

    #[tokio::test]
    async fn there_is_nothing_else() {
        for (method, path, status) in [
            (Method::GET, "/", 200),
            (Method::HEAD, "/", 200),
            (Method::GET, "/.git/config", 404),
            (Method::POST, "/", 405),
        ] {
            assert_eq!(answer_to(method, path).await.status().as_u16(), status, "{path}");
        }
    }

    #[tokio::test]
    async fn first_page_lists_no_domains() {
        let text = page("/").await;
        assert!(text.contains("name=\"address\"") && text.contains("push.example.org"), "{text}");
        for kept in ["smtp", "other.example", "gmail", "password\""] {
            assert!(!text.contains(kept), "{kept} in {text}");
        }
        assert_eq!(page("/?address=+").await, text);
    }

    #[tokio::test]
    async fn second_page_says_what_to_enter_for_the_address() {
        let text = page("/?address=+Alice%40Example.org").await;
        for part in [
            ">push.example.org<",
            ">443<",
            ">SSL/TLS<",
            ">Alice@Example.org<",
            ">smtp.example.org<",
            ">465<",
            ">Alice<",
            "dclogin://Alice@Example.org/?p=",
            "&v=1&ih=push.example.org&ip=443&is=ssl&sh=smtp.example.org&sp=465&ss=ssl&su=Alice",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let text = page("/?address=bob%40gmail.com").await;
        assert!(text.contains(">smtp.gmail.com<"), "{text}");
        let text = page("/?address=carol%40other.example").await;
        assert!(text.contains(">imap.other.example<") && text.contains("is not known"), "{text}");
    }

    #[tokio::test]
    async fn address_that_is_not_served_gets_settings_only_if_confirmed() {
        let refused = page("/?address=+Alice%40gmail.com").await;
        assert!(refused.contains("state bad") && refused.contains("does not serve"), "{refused}");
        assert!(refused.contains("name=\"address\" value=\"Alice@gmail.com\""), "{refused}");
        assert!(refused.contains("name=\"confirmed\" value=\"yes\""), "{refused}");
        for kept in ["password", "dclogin", "<table", "script"] {
            assert!(!refused.contains(kept), "{kept} in {refused}");
        }
        assert_eq!(page("/?address=Alice%40gmail.com&confirmed=").await, refused);
        // It gets the settings for everybody.
        let confirmed = page("/?address=Alice%40gmail.com&confirmed=yes").await;
        for part in
            ["does not serve", ">push.example.org<", "dclogin://Alice@gmail.com/", "id=\"login\""]
        {
            assert!(confirmed.contains(part), "{part} in {confirmed}");
        }
        assert!(!confirmed.contains("smtp.gmail"), "{confirmed}");
        // A confirmation changes nothing for an address that is served.
        let served = page("/?address=alice%40example.org").await;
        assert!(!served.contains("does not serve") && !served.contains("spelled"), "{served}");
        assert_eq!(page("/?address=alice%40example.org&confirmed=yes").await, served);
    }

    #[tokio::test]
    async fn catch_all_route_serves_every_address() {
        let yaml = "listeners:\n  - {address: \"127.0.0.1:443\", tls: implicit, web: true}\n";
        let site = PublicSite::new(&Config::parse(yaml, Path::new(""), "test").unwrap().live);
        let answer = answer_of(&Arc::new(site), Method::GET, "/?address=alice%40gmail.com").await;
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        let text = str::from_utf8(&text).unwrap();
        assert!(text.contains("spelled correctly?") && !text.contains("does not serve"), "{text}");
        assert!(text.contains("dclogin://alice@gmail.com/"), "{text}");
    }

    #[tokio::test]
    async fn browser_gets_an_error_as_a_page_and_a_program_as_text() {
        for (accept, kind, text) in [
            ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html", "<h1>Not Found</h1>"),
            ("*/*", "text/plain", "This page does not exist."),
        ] {
            let request = Request::builder().uri("/x").header(ACCEPT, accept).body(()).unwrap();
            let answer = server::respond(site(), request, Arc::new(Visitor::new(CLIENT))).await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND);
            assert!(answer.headers()[CONTENT_TYPE].to_str().unwrap().starts_with(kind));
            assert!(answer.headers().contains_key(CONTENT_SECURITY_POLICY));
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(str::from_utf8(&body).unwrap().contains(text), "{body:?}");
        }
    }

    #[tokio::test]
    async fn nothing_in_an_address_ends_its_place_in_the_page() {
        let text = page("/?address=%3C%2Fscript%3E%3Cb%3E%22%26%40example.org").await;
        assert!(!text.contains("</script><b>") && !text.contains("\"&@"), "{text}");
        assert_eq!(text.matches("</script>").count(), 2, "{text}");
        for wrong in ["alice", "%40example.org", "alice%40", "a+b%40example.org", &"a".repeat(300)]
        {
            let text = page(&format!("/?address={wrong}")).await;
            assert!(text.contains("is not a mail address") && !text.contains("dclogin"), "{text}");
        }
    }

    #[tokio::test]
    async fn guesser_has_to_wait_whatever_is_guessed() {
        let site = site();
        // The client's next look-ups are paid for an hour ahead.
        let later = Instant::now() + Duration::from_secs(3600);
        assert_eq!(site.wait(CLIENT, later), None);
        let status = async |uri| answer_of(&site, Method::GET, uri).await;
        for uri in [
            "/?address=alice%40example.org",
            "/?address=x%40example.com",
            "/mail/config-v1.1.xml?emailaddress=a@b.c",
            "https://autoconfig.example.org/mail/config-v1.1.xml",
        ] {
            let answer = status(uri).await;
            assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS, "{uri}");
            assert!(answer.headers().contains_key(RETRY_AFTER), "{uri}");
        }
        assert_eq!(status("/").await.status(), StatusCode::OK);
    }
}
