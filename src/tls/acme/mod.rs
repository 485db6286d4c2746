//! Certificates from an authority that speaks ACME (RFC 8555): requested, validated by TLS-ALPN-01 (RFC 8737), renewed
//! in time. `order` talks to the authority, `schedule` decides when.

mod account;
pub mod challenges;
mod error;
mod http;
mod order;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::error::AcmeError;
use self::schedule::RenewalSchedule;
use crate::config::Acme;
use crate::tls::acme::challenges::Challenges;
use crate::tls::certs::{CertificateSettings, Certificates};

/// How long one attempt may take, from the first request to the certificate.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// The longest wait before the clock is looked at again: machines sleep, and their clocks are set.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// Sees to it that there is a certificate from the configured authority, if there is one, until `stop` is cancelled.
pub async fn keep_issued(
    certificates: Arc<Certificates>,
    challenges: Challenges,
    stop: CancellationToken,
) {
    let mut changes = certificates.wanted().changes();
    let mut schedule = RenewalSchedule::new(fastrand::f64());
    loop {
        let wait = due(&certificates, &schedule).map(|due| until(due).min(LOOK));
        tokio::select! {
            () = stop.cancelled() => return,
            () = changes.next() => {
                // The operator may have mended what was wrong.
                schedule = RenewalSchedule::new(fastrand::f64());
                continue;
            }
            () = sleep(wait.unwrap_or(LOOK)) => {}
        }
        let wanted = certificates.wanted().get();
        let is_due = due(&certificates, &schedule).is_some_and(|due| until(due).is_zero());
        let Some(acme) = wanted.certificate.acme.as_deref().filter(|_| is_due) else { continue };
        let attempt = renew(&certificates, &challenges, &schedule, &wanted, acme);
        match stop.run_until_cancelled(Box::pin(timeout(PATIENCE, attempt))).await {
            None => return,
            Some(Ok(Ok(()))) => succeeded(&certificates, &mut schedule),
            Some(Ok(Err(error))) => failed(&mut schedule, acme, &error),
            Some(Err(_)) => failed(&mut schedule, acme, &AcmeError::TimedOut(PATIENCE)),
        }
    }
}

fn due(certificates: &Certificates, schedule: &RenewalSchedule) -> Option<Timestamp> {
    certificates.wanted().get().certificate.acme.as_ref()?;
    Some(schedule.due(certificates.get().issued()))
}

fn until(due: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default()
}

async fn renew(
    certificates: &Arc<Certificates>,
    challenges: &Challenges,
    schedule: &RenewalSchedule,
    wanted: &Arc<CertificateSettings>,
    acme: &Acme,
) -> Result<(), AcmeError> {
    // Authorities issue a few of the same kind in a week: one that could not be used for what was wrong here is not wasted.
    refresh(certificates).await?;
    if due(certificates, schedule).is_none_or(|due| !until(due).is_zero()) {
        return Ok(());
    }
    info!(
        "requesting a certificate from {} for {}",
        host(acme),
        acme.names_or(&wanted.hostname).join(", ")
    );
    order::obtain(wanted, acme, challenges).await?;
    refresh(certificates).await
}

async fn refresh(certificates: &Arc<Certificates>) -> Result<(), AcmeError> {
    let refreshed = Arc::clone(certificates);
    tokio::task::spawn_blocking(move || refreshed.refresh())
        .await
        .map_err(|_| AcmeError::Panicked)??;
    Ok(())
}

fn succeeded(certificates: &Certificates, schedule: &mut RenewalSchedule) {
    let now = Timestamp::now();
    schedule.succeeded();
    let set = certificates.get();
    match set.issued() {
        Some(validity) if schedule.due(Some(validity)) > now => {
            let due = schedule.due(Some(validity));
            let path = set.summary().path.display();
            info!("certificate: {path}, valid until {}, renewal due about {due}", validity.1);
        }
        _ => {
            let wait = schedule.failed(now);
            warn!(
                "the new certificate cannot be used, or its renewal is due already; next attempt in {}; check this \
                 machine's clock",
                in_words(wait)
            );
        }
    }
}

fn failed(schedule: &mut RenewalSchedule, acme: &Acme, error: &AcmeError) {
    let wait = schedule.failed(Timestamp::now());
    warn!(
        "no certificate from {}: {error}; the previous one stays in use, next attempt in {}; {}",
        host(acme),
        in_words(wait),
        error.cure()
    );
}

fn host(acme: &Acme) -> &str {
    acme.directory.host_str().unwrap_or_default()
}

fn in_words(wait: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(wait.as_secs()))
}
