//! Paths of the admin listener.

use std::sync::Arc;
use std::time::Duration;

use hyper::{Request, Response, StatusCode};

use super::health::Grade;
use super::live;
use super::page;
use super::site::AdminSite;
use crate::http::response::{self, Body, JS, TEXT};
use crate::http::server::{Pages, Visitor};

impl Pages for AdminSite {
    const NAME: &'static str = "the web page";
    const HEAD_TIME: Duration = Duration::from_secs(30);
    // As long as a page with live updates is open.
    const LIFETIME: Duration = Duration::from_secs(3600);
    const POLICY: &'static str = response::UPDATING;

    async fn respond(
        self: Arc<Self>,
        request: Request<()>,
        visitor: Arc<Visitor>,
    ) -> Response<Body> {
        let path = request.uri().path();
        // Health checks may use any host name.
        match path {
            "/healthz" => return response::whole(TEXT, "ok\n".to_owned()),
            "/readyz" => return readiness(&self).await,
            _ => {}
        }
        // They are the same for everybody, and pages of errors load them.
        if let Some(asset) = response::asset(path) {
            return asset;
        }
        if let Some(refused) = self.misdirected(&request) {
            return refused;
        }
        match path {
            "/live.js" => return response::fixed(JS, include_str!("live.js")),
            "/metrics" if self.is_on_loopback => return self.metrics(),
            _ => {}
        }
        if let Some(refused) = self.unauthorized(&request, &visitor) {
            return refused;
        }
        let query = request.uri().query().unwrap_or_default();
        match path {
            "/metrics" => self.metrics(),
            "/" => response::page(page::overview(&self, query).await),
            "/live" => live::stream(self, query),
            "/account" => match page::account(&self, query).await {
                Some(page) => response::page(page),
                None => response::error(
                    StatusCode::NOT_FOUND,
                    "There is no account of this name with a device.\n",
                ),
            },
            _ => response::error(StatusCode::NOT_FOUND, response::NO_PAGE),
        }
    }
}

async fn readiness(site: &AdminSite) -> Response<Body> {
    let checks = site.health().await;
    let status = if checks.iter().any(|check| check.grade == Grade::Failed) {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    let lines: String = checks.iter().map(|check| format!("{check}\n")).collect();
    response::plain(status, lines)
}
