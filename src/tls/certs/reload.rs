//! Reload of certificate files that another program replaces while deltapush runs: found by polling, read again,
//! refused if broken.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::day;
use crate::tls::certs::Certificates;
use crate::tls::certs::file_stamp::FileStamp;

/// Interval between checks of the files: a handful of system calls.
const LOOK: Duration = Duration::from_secs(5);

/// Interval after which certificates are read again although no file changed: a self-signed one may be due for renewal, and
/// the end of another near.
const ANYWAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads certificates again when their files have changed, until `stop` is cancelled. A broken file is logged once, and the
/// certificates at work stay.
pub async fn keep_current(certificates: Arc<Certificates>, stop: CancellationToken) {
    let mut before = None;
    // A broken file is read once, until it changes again.
    let mut tried = None;
    let mut last = Instant::now();
    log_troubles(&certificates);
    while stop.run_until_cancelled(sleep(LOOK)).await.is_some() {
        let looked_at = Arc::clone(&certificates);
        let Ok(now) = spawn_blocking(move || FileStamp::now(&looked_at.wanted().get())).await
        else {
            continue;
        };
        // Chain and key are two files: they are read when nothing has changed for a while.
        let is_quiet = before.as_ref() == Some(&now);
        let changed =
            is_quiet && tried.as_ref() != Some(&now) && *certificates.get().files() != now;
        before = Some(now.clone());
        if changed || last.elapsed() >= ANYWAY {
            tried = Some(now);
            last = Instant::now();
            refresh(&certificates, changed).await;
            log_troubles(&certificates);
        }
    }
}

/// Logs problems that clients have with the certificates in use.
pub(crate) fn log_troubles(certificates: &Certificates) {
    for trouble in
        certificates.get().troubles(&certificates.wanted().get().hostname, Timestamp::now())
    {
        warn!("{trouble}");
    }
}

async fn refresh(certificates: &Arc<Certificates>, changed: bool) {
    let refreshed = Arc::clone(certificates);
    match spawn_blocking(move || refreshed.refresh()).await {
        Ok(Ok(())) if changed => {
            let set = certificates.get();
            let until = set.summary().not_after.map(day).unwrap_or_default();
            info!("certificates read again: {}, valid until {until}", set.summary().path.display());
        }
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            warn!("the certificates on disk cannot be used, the previous ones stay in use: {error}")
        }
        Err(_) => error!("reading the certificates panicked, which is a bug in deltapush"),
    }
}
