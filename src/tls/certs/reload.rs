//! Reload of certificate files that another program replaces while deltapush runs: found by polling, read again,
//! refused if broken.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::day;
use crate::tls::certs::{CertificateSettings, Certificates};

/// Interval between checks of the files: a handful of system calls.
const LOOK: Duration = Duration::from_secs(5);

/// Interval after which certificates are read again although no file changed: a self-signed one may be due for renewal, and
/// the end of another near.
const ANYWAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Identifies the state of the files that were read: for each, its device, inode, size, and time of change in seconds and
/// nanoseconds. Links are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileStamp(Vec<(PathBuf, Option<[i128; 5]>)>);

impl FileStamp {
    fn now(wanted: &CertificateSettings) -> Self {
        let certificate = &wanted.certificate;
        let own = certificate.chain.iter().chain(&certificate.key).map(|path| &**path);
        let more = certificate.more.iter().flat_map(|files| [&files.chain, &files.key]);
        let look = |path: &PathBuf| {
            let found = fs::metadata(path).ok().map(|data| {
                [
                    data.dev().into(),
                    data.ino().into(),
                    data.size().into(),
                    data.mtime().into(),
                    data.mtime_nsec().into(),
                ]
            });
            (path.clone(), found)
        };
        Self(own.chain(more).map(look).collect())
    }
}

/// Reads certificates again when their files have changed, until `stop` is cancelled. What is broken is told once, and the
/// certificates at work stay.
pub async fn keep_current(certificates: Arc<Certificates>, stop: CancellationToken) {
    let mut read = FileStamp::now(&certificates.wanted().get());
    let mut before = read.clone();
    let mut last = Instant::now();
    log_troubles(&certificates);
    while stop.run_until_cancelled(sleep(LOOK)).await.is_some() {
        let looked_at = Arc::clone(&certificates);
        let Ok(now) = spawn_blocking(move || FileStamp::now(&looked_at.wanted().get())).await
        else {
            continue;
        };
        // Chain and key are two files: they are read when nothing has changed for a while.
        let changed = now != read && now == before;
        before = now.clone();
        if changed || last.elapsed() >= ANYWAY {
            read = now;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Hostname};

    #[test]
    fn change_is_seen_also_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        fs::write(file("1"), "one").unwrap();
        fs::write(file("2"), "one").unwrap();
        std::os::unix::fs::symlink(file("1"), file("live")).unwrap();
        let certificate =
            config::Certificate { chain: Some(file("live").into()), ..Default::default() };
        let wanted =
            CertificateSettings { hostname: Hostname::new("a.example").unwrap(), certificate };
        let first = FileStamp::now(&wanted);
        assert_eq!(first, FileStamp::now(&wanted));
        fs::remove_file(file("live")).unwrap();
        let gone = FileStamp::now(&wanted);
        std::os::unix::fs::symlink(file("2"), file("live")).unwrap();
        let second = FileStamp::now(&wanted);
        fs::write(file("2"), "more").unwrap();
        let third = FileStamp::now(&wanted);
        assert!(first != gone && gone != second && second != first && third != second);
    }
}
