//! A notification server that has bad days.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;

/// Delay of the answer on a slow day.
const LATE: Duration = Duration::from_millis(1_500);

/// The server's treatment of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Day {
    /// Takes it.
    Good,
    /// Takes it, and says so later: what comes meanwhile is not announced by it.
    Slow,
    /// Answers with 500.
    Failing,
    /// Answers one in three with 500.
    Flaky,
    /// Answers with 503, and when to come back.
    Overloaded {
        /// In seconds.
        retry_after: u32,
    },
    /// Does not answer until the day is over, and then with 504.
    Hanging,
}

/// A notification that was answered with 200.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    /// When it arrived.
    pub(crate) at: Instant,
    /// The request's body.
    pub(crate) token: String,
    /// The query of its URL, by which a test tells the senders apart.
    pub(crate) from: String,
}

/// A running server. It ends with the test's runtime.
pub(crate) struct Notifications {
    /// Its port.
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    day: watch::Sender<Day>,
    accepted: Mutex<Vec<Accepted>>,
    refused: Mutex<usize>,
    /// Invalid requests: none is right.
    strange: Mutex<Vec<String>>,
}

impl Notifications {
    /// A server with a good day.
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared {
            day: watch::Sender::new(Day::Good),
            accepted: Mutex::default(),
            refused: Mutex::default(),
            strange: Mutex::default(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { port, shared }
    }

    /// From now on.
    pub(crate) fn day(&self, day: Day) {
        self.shared.day.send_replace(day);
    }

    /// Lists the accepted notifications.
    pub(crate) fn accepted(&self) -> Vec<Accepted> {
        self.shared.accepted.lock().unwrap().clone()
    }

    /// Counts those answered otherwise.
    pub(crate) fn refused(&self) -> usize {
        *self.shared.refused.lock().unwrap()
    }

    /// Requests that are not as a notification server wants them.
    pub(crate) fn strange(&self) -> Vec<String> {
        self.shared.strange.lock().unwrap().clone()
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    token: String,
) -> (StatusCode, HeaderMap) {
    let at = Instant::now();
    if method != Method::POST || uri.path() != "/notify" {
        shared.strange.lock().unwrap().push(format!("{method} {uri}"));
    }
    let day = *shared.day.borrow();
    let mut headers = HeaderMap::new();
    let status = match day {
        Day::Flaky if fastrand::u32(0..3) == 0 => StatusCode::INTERNAL_SERVER_ERROR,
        Day::Good | Day::Flaky | Day::Slow => StatusCode::OK,
        Day::Failing => StatusCode::INTERNAL_SERVER_ERROR,
        Day::Overloaded { retry_after } => {
            headers.insert(RETRY_AFTER, retry_after.into());
            StatusCode::SERVICE_UNAVAILABLE
        }
        Day::Hanging => {
            // The sender outlives the server.
            let _ = shared.day.subscribe().wait_for(|day| *day != Day::Hanging).await;
            StatusCode::GATEWAY_TIMEOUT
        }
    };
    if status.is_success() {
        shared.accepted.lock().unwrap().push(Accepted {
            at,
            token,
            from: uri.query().unwrap_or_default().to_owned(),
        });
    } else {
        *shared.refused.lock().unwrap() += 1;
    }
    if day == Day::Slow {
        sleep(LATE).await;
    }
    (status, headers)
}
