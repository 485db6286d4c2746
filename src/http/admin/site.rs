//! Paths of the admin listener and their access control.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hyper::header::{AUTHORIZATION, HOST, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::answer::{self, Body, CSS, HTML, JS, SVG, TEXT};
use super::exposition;
use super::health::Health;
use super::hosts::Hosts;
use super::listening::Listening;
use super::live;
use super::page;
use super::password::Password;
use super::throttle::Guesses;
use crate::admin::report::StatusReport;
use crate::admin::status::Reporter;
use crate::config::{Admin, Hostname};
use crate::logging::LogLimit;
use crate::push::registry::Registry;
use crate::push::watch_status::Board;
use crate::store::StoreError;
use crate::tls::certs::Certificates;

/// Pages that are refreshed live at once.
const VIEWERS: usize = 16;

/// Validity of a report: with thousands of accounts a new one takes some milliseconds.
const RECENT: Duration = Duration::from_secs(1);

/// Sources of the site's data.
pub struct Sources {
    /// Status reports.
    pub reporter: Reporter,
    /// Accounts.
    pub registry: Registry,
    /// Watches and history.
    pub board: Board,
    /// The certificates at work.
    pub certificates: Arc<Certificates>,
    /// The listeners for clients.
    pub listening: Listening,
    /// The limit of the log.
    pub log: LogLimit,
    /// Counter of dropped trace lines.
    pub trace_dropped: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// All that the admin listener serves.
pub struct AdminSite {
    pub(super) reporter: Reporter,
    pub(super) registry: Registry,
    pub(super) board: Board,
    pub(super) certificates: Arc<Certificates>,
    pub(super) listening: Listening,
    pub(super) log: LogLimit,
    pub(super) started: SystemTime,
    pub(super) hostname: String,
    pub(super) viewers: Arc<Semaphore>,
    pub(super) stop: CancellationToken,
    trace_dropped: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The last report, and when it was made.
    report: tokio::sync::Mutex<Option<(Instant, Arc<StatusReport>)>>,
    health: Health,
    hosts: Hosts,
    password: Password,
    guesses: Mutex<Guesses>,
    /// Only this machine can reach it.
    is_on_loopback: bool,
}

/// The peer of a connection.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) address: IpAddr,
    /// It knows the password.
    pub(super) is_known: AtomicBool,
    pub(super) became_known: Notify,
}

impl Visitor {
    pub(super) fn new(address: IpAddr) -> Self {
        Self { address, is_known: AtomicBool::new(false), became_known: Notify::new() }
    }

    fn knows(&self) {
        if !self.is_known.swap(true, Ordering::Relaxed) {
            self.became_known.notify_one();
        }
    }
}

impl AdminSite {
    /// The site of a deltapush with this host name, until `stop` is cancelled.
    #[must_use]
    pub fn new(
        admin: &Admin,
        hostname: &Hostname,
        password: Password,
        sources: Sources,
        stop: CancellationToken,
    ) -> Self {
        let Sources { reporter, registry, board, certificates, listening, log, trace_dropped } =
            sources;
        Self {
            reporter,
            registry,
            board,
            certificates,
            listening,
            log,
            trace_dropped,
            started: SystemTime::now(),
            hostname: hostname.to_string(),
            viewers: Arc::new(Semaphore::new(VIEWERS)),
            stop,
            report: tokio::sync::Mutex::default(),
            health: Health::default(),
            hosts: Hosts::new(hostname, admin),
            password,
            guesses: Mutex::default(),
            is_on_loopback: admin.is_on_loopback(),
        }
    }

    /// The status report, at most a moment old; shared by all requests.
    pub(super) async fn report(&self) -> Result<Arc<StatusReport>, StoreError> {
        let mut last = self.report.lock().await;
        if let Some((_, report)) = last.as_ref().filter(|(at, _)| at.elapsed() < RECENT) {
            return Ok(Arc::clone(report));
        }
        let report = Arc::new(self.reporter.report().await?);
        *last = Some((Instant::now(), Arc::clone(&report)));
        Ok(report)
    }

    pub(super) fn trace_dropped(&self) -> u64 {
        (self.trace_dropped)()
    }

    /// Answers a request without reading its body.
    pub(super) async fn answer<B>(
        self: Arc<Self>,
        request: &Request<B>,
        visitor: &Visitor,
    ) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return answer::not_allowed();
        }
        let path = request.uri().path();
        // Who asks whether it is well may call it anything.
        match path {
            "/healthz" => return answer::whole(TEXT, "ok\n".to_owned()),
            "/readyz" => return self.readiness().await,
            _ => {}
        }
        if let Some(refused) = self.misdirected(request) {
            return refused;
        }
        match path {
            "/style.css" => return answer::fixed(CSS, include_str!("style.css")),
            "/live.js" => return answer::fixed(JS, include_str!("live.js")),
            "/icon.svg" => return answer::fixed(SVG, include_str!("icon.svg")),
            "/metrics" if self.is_on_loopback => {
                return answer::whole(exposition::CONTENT_TYPE, self.metrics());
            }
            _ => {}
        }
        if let Some(refused) = self.unauthorized(request, visitor) {
            return refused;
        }
        let query = request.uri().query().unwrap_or_default();
        match path {
            "/metrics" => answer::whole(exposition::CONTENT_TYPE, self.metrics()),
            "/" => answer::whole(HTML, page::overview(&self, query).await.into_string()),
            "/live" => live::answer(self, query),
            "/account" => match page::account(&self, query).await {
                Some(page) => answer::whole(HTML, page.into_string()),
                None => answer::plain(
                    StatusCode::NOT_FOUND,
                    "There is no account of this name with a device.\n",
                ),
            },
            _ => answer::plain(
                StatusCode::NOT_FOUND,
                "This page does not exist. The overview is at /\n",
            ),
        }
    }

    async fn readiness(&self) -> Response<Body> {
        let checks = self.health.checks(self).await;
        let status = if checks.iter().all(|check| check.is_well) {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let lines: String = checks.iter().map(|check| format!("{check}\n")).collect();
        answer::plain(status, lines)
    }

    /// Refuses requests with a foreign host name.
    fn misdirected<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        match host {
            None => Some(answer::plain(
                StatusCode::BAD_REQUEST,
                "The request names no host: send a Host header.\n",
            )),
            Some(host) if self.hosts.have(host) => None,
            Some(_) => Some(answer::plain(
                StatusCode::MISDIRECTED_REQUEST,
                "deltapush does not serve this page under this host name. If the name is yours, add it to `admin.hosts` in config.yaml.\n",
            )),
        }
    }

    /// Refuses requests without the password.
    fn unauthorized<B>(&self, request: &Request<B>, visitor: &Visitor) -> Option<Response<Body>> {
        let given = request.headers().get(AUTHORIZATION);
        let now = Instant::now();
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(given) = given {
            if let Some(wait) = guesses.wait(visitor.address, now) {
                let mut response = answer::plain(
                    StatusCode::TOO_MANY_REQUESTS,
                    "A wrong password was given. Wait a moment.\n",
                );
                let seconds = wait.as_secs().saturating_add(1);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
                return Some(response);
            }
            if self.password.is_in(given.as_bytes()) {
                guesses.right(visitor.address);
                visitor.knows();
                return None;
            }
            if guesses.wrong(visitor.address, now) {
                info!("wrong password for the web page from {}", visitor.address.to_canonical());
            }
        }
        let mut response = answer::plain(
            StatusCode::UNAUTHORIZED,
            "Log in with any user name and the password. The log shows at the start of deltapush which file contains it.\n",
        );
        let challenge = HeaderValue::from_static("Basic realm=\"deltapush\", charset=\"UTF-8\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        Some(response)
    }
}
