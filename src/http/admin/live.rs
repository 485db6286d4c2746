//! Live updates of the overview by server-sent events (HTML Living Standard, section 9.2).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use super::page;
use super::site::AdminSite;
use crate::http::response::{self, Body, EVENTS};

/// Interval of checks for changes.
const LOOK: Duration = Duration::from_secs(2);

/// Interval of keep-alive comments, so that no proxy closes the connection and a lost browser is noticed.
const SILENCE: Duration = Duration::from_secs(20);

/// Reconnection delay for browsers, in milliseconds.
const RETRY: &str = "retry: 3000\n\n";

struct Viewer {
    site: Arc<AdminSite>,
    query: String,
    /// The last sent event.
    shown: Option<String>,
    said: Instant,
    _place: OwnedSemaphorePermit,
}

/// The event stream of the page with this query.
pub(super) fn stream(site: Arc<AdminSite>, query: &str) -> Response<Body> {
    let Ok(place) = Arc::clone(&site.viewers).try_acquire_owned() else {
        return response::plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many pages with live updates are open.\n",
        );
    };
    let viewer =
        Viewer { site, query: query.to_owned(), shown: None, said: Instant::now(), _place: place };
    let frames = unfold(viewer, |mut viewer| async move {
        let text = viewer.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(text))), viewer))
    });
    response::with_body(EVENTS, StreamBody::new(frames).boxed_unsync())
}

impl Viewer {
    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if self.shown.is_some() {
                let stop = self.site.stop.clone();
                stop.run_until_cancelled(sleep(LOOK)).await?;
            }
            let now = page::live_part(&self.site, &self.query).await.into_string();
            if self.shown.as_ref() != Some(&now) {
                let text = event(&now, self.shown.is_none());
                self.shown = Some(now);
                self.said = Instant::now();
                return Some(text);
            }
            if self.said.elapsed() >= SILENCE {
                self.said = Instant::now();
                return Some(": nothing new\n\n".into());
            }
        }
    }
}

fn event(html: &str, is_first: bool) -> String {
    let mut text = if is_first { RETRY.to_owned() } else { String::new() };
    // A carriage return ends a line here as well.
    for line in html.split(['\n', '\r']) {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_the_page_ends_an_event() {
        assert_eq!(event("<p>a\n\nb", false), "data: <p>a\ndata: \ndata: b\n\n");
        assert_eq!(event("x", true), "retry: 3000\n\ndata: x\n\n");
        assert_eq!(event("a\rdata: b", false), "data: a\ndata: data: b\n\n");
    }
}
