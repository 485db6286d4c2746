//! The socket on which a Dovecot tells of new messages in its dict protocol, as chatmail relays do: a Lua script of
//! Dovecot's sets the attribute `/private/messagenew` of a mailbox, and `mail_attribute_dict` names this socket. `connection` does
//! the I/O of [`commands`] and [`transactions`].

pub mod commands;
mod connection;
pub mod transactions;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::accept::AcceptFailures;
use crate::push::server_news::NewsReceiver;
use crate::telemetry::Telemetry;
use crate::{file_access, unix_socket};
use commands::LineProblem;
use connection::{DictProblem, NewsTaker};

/// Connections at once: each process of Dovecot's that delivers may have one. Others wait.
const MAX_CONNECTIONS: usize = 256;

/// All programs of this machine may connect, as to the hook on loopback: the folder restricts access further.
const MODE: u32 = 0o666;

/// Time until a socket that cannot be opened is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Serves the socket at `path` in `tasks` until `stop` is cancelled. One that cannot be opened is tried again: mail and pushes go on
/// without it.
pub fn start(
    path: PathBuf,
    (receiver, telemetry): (NewsReceiver, Telemetry),
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let taker = NewsTaker { receiver, telemetry };
    let (connections, stop) = (tasks.clone(), stop.clone());
    tasks.spawn(async move {
        let Some(listener) = stop.run_until_cancelled(open(&path)).await else { return };
        info!("news of Dovecot: {}, from all programs that can open it", path.display());
        serve(&listener, taker, connections, stop).await;
        // Before the listener closes: then the next process makes its own.
        let _ = fs::remove_file(&path);
    });
}

async fn open(path: &Path) -> UnixListener {
    let mut last: Option<io::ErrorKind> = None;
    loop {
        let error = match listen(path) {
            Ok(listener) => return listener,
            Err(error) => error,
        };
        if last.replace(error.kind()) != Some(error.kind()) {
            let error = file_access::explain(path, &error);
            warn!(
                "no news of Dovecot yet: {}: {error}; see `news.dict` in config.yaml",
                path.display()
            );
        }
        sleep(AGAIN).await;
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    unix_socket::listen(path, MODE).and_then(UnixListener::from_std)
}

async fn serve(
    listener: &UnixListener,
    taker: NewsTaker,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut failures = AcceptFailures::default();
    let next = async || {
        // The semaphore is never closed.
        let place = Arc::clone(&places).acquire_owned().await;
        (place, listener.accept().await)
    };
    while let Some((place, accepted)) = stop.run_until_cancelled(next()).await {
        match accepted {
            Ok((stream, _)) => {
                let serving = connection::serve(stream, taker.clone(), stop.clone());
                tasks.spawn(async move {
                    log_end(serving.await);
                    drop(place);
                });
            }
            Err(error) => failures.handle(&error, "the socket for Dovecot's news").await,
        }
    }
}

fn log_end(result: Result<(), DictProblem>) {
    match result {
        Ok(()) => {}
        Err(DictProblem::Line(problem @ LineProblem::Version(_))) => {
            warn!("no news of this Dovecot: {problem}");
        }
        Err(problem) => debug!("connection of Dovecot's for news ended: {problem}"),
    }
}
