//! State of the admin site that its pages share, and access control.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::{AUTHORIZATION, HOST, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::health::{Check, Health};
use super::hosts::Hosts;
use super::password::Password;
use crate::admin::report::StatusReport;
use crate::admin::status::Reporter;
use crate::config::{Admin, Hostname};
use crate::http::listening::Listening;
use crate::http::metrics::{self, Exposition};
use crate::http::response::{self, Body};
use crate::http::server::Visitor;
use crate::http::throttle::Guesses;
use crate::push::registry::Registry;
use crate::store::StoreError;

/// Pages that are refreshed live at once.
const VIEWERS: usize = 16;

/// Validity of a report: with thousands of accounts a new one takes some milliseconds.
const RECENT: Duration = Duration::from_secs(1);

/// Validity of a report with a search in the database, which may have to look at each account.
const RECENT_SEARCH: Duration = Duration::from_secs(10);

/// Sources of the site's data.
pub struct Sources {
    /// Status reports.
    pub reporter: Arc<Reporter>,
    /// Accounts, with their watches and history.
    pub registry: Registry,
    /// The listeners for clients.
    pub listening: Listening,
    /// Metrics.
    pub metrics: Exposition,
}

/// All that the admin listener serves.
pub struct AdminSite {
    pub(super) reporter: Arc<Reporter>,
    pub(super) registry: Registry,
    pub(super) listening: Listening,
    pub(super) hostname: String,
    pub(super) viewers: Arc<Semaphore>,
    pub(super) stop: CancellationToken,
    metrics: Exposition,
    health: Health,
    /// The last report, when it was made, and what was searched for.
    report: tokio::sync::Mutex<Option<(Instant, String, Arc<StatusReport>)>>,
    hosts: Hosts,
    password: Password,
    guesses: Mutex<Guesses>,
    /// Only this machine can reach it.
    pub(super) is_on_loopback: bool,
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
        let Sources { reporter, registry, listening, metrics } = sources;
        Self {
            reporter,
            registry,
            listening,
            metrics,
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

    /// The status report, at most a moment old; shared by all requests. Where nodes share the state, it has the accounts that
    /// `search` finds; otherwise all.
    pub(super) async fn report(&self, search: &str) -> Result<Arc<StatusReport>, StoreError> {
        let search = if self.reporter.cluster().is_some() { search } else { "" };
        let recent = if search.is_empty() { RECENT } else { RECENT_SEARCH };
        let mut last = self.report.lock().await;
        let is_recent = |(at, of, _): &&(Instant, String, _)| at.elapsed() < recent && of == search;
        if let Some((_, _, report)) = last.as_ref().filter(is_recent) {
            return Ok(Arc::clone(report));
        }
        let names: Vec<String> = Some(search)
            .filter(|search| !search.is_empty())
            .map(str::to_owned)
            .into_iter()
            .collect();
        let report = Arc::new(self.reporter.report(&names).await?);
        *last = Some((Instant::now(), search.to_owned(), Arc::clone(&report)));
        Ok(report)
    }

    pub(super) async fn health(&self) -> Vec<Check> {
        let (reporter, is_stopped) = (&self.reporter, self.stop.is_cancelled());
        self.health.checks(&self.listening, reporter, is_stopped).await
    }

    pub(super) fn metrics(&self) -> Response<Body> {
        response::whole(metrics::CONTENT_TYPE, self.metrics.text())
    }

    /// Refuses requests with a foreign host name.
    pub(super) fn misdirected(&self, request: &Request<()>) -> Option<Response<Body>> {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        match host {
            None => Some(response::error(
                StatusCode::BAD_REQUEST,
                "The request names no host: send a Host header.\n",
            )),
            Some(host) if self.hosts.have(host) => None,
            Some(_) => Some(response::error(
                StatusCode::MISDIRECTED_REQUEST,
                "deltapush does not serve this page under this host name. If the name is yours, add it to `admin.hosts` in config.yaml.\n",
            )),
        }
    }

    /// Refuses requests without the password.
    pub(super) fn unauthorized(
        &self,
        request: &Request<()>,
        visitor: &Visitor,
    ) -> Option<Response<Body>> {
        let given = request.headers().get(AUTHORIZATION);
        let now = Instant::now();
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(given) = given {
            if let Some(wait) = guesses.wait(visitor.address, now) {
                return Some(response::too_many(
                    "A wrong password was given. Wait a moment.\n",
                    wait,
                ));
            }
            if self.password.is_in(given.as_bytes()) {
                guesses.right(visitor.address);
                visitor.set_known();
                return None;
            }
            if guesses.wrong(visitor.address, now) {
                info!("wrong password for the web page from {}", visitor.address);
            }
        }
        let mut response = response::error(
            StatusCode::UNAUTHORIZED,
            "Log in with any user name and the password. The log shows at the start of deltapush which file contains it.\n",
        );
        let challenge = HeaderValue::from_static("Basic realm=\"deltapush\", charset=\"UTF-8\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        Some(response)
    }
}
