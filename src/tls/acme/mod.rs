//! Certificates from an authority that speaks ACME (RFC 8555): requested, validated by TLS-ALPN-01 (RFC 8737) or HTTP-01,
//! renewed in time. `order` talks to the authority, `schedule` decides when.

mod account;
pub mod challenges;
mod error;
mod http;
mod order;
mod schedule;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::dns::Resolve;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::error::AcmeError;
use self::schedule::{RenewalAction, RenewalInput, RenewalSchedule};
use crate::clock::{day, now, reached};
use crate::config::{Acme, Hostname};
use crate::machine::Machine;
use crate::tls::acme::challenges::{Challenges, ProofContent};
use crate::tls::certs::{CertificateSettings, Certificates};

/// Time limit of one attempt, from the first request to the certificate.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// The longest wait for the turn to order, before it is looked at again.
const TURN: Duration = Duration::from_secs(10);

/// The parts of the server that an order uses.
pub struct OrderServices {
    /// Answers to the authority's challenges.
    pub challenges: Challenges,
    /// The listener for challenges over HTTP.
    pub port: Box<dyn ChallengeListener>,
    /// Finds the authority's addresses.
    pub resolver: Arc<dyn Resolve>,
    /// The other nodes that serve the same name, if there are any.
    pub companions: Option<Arc<dyn Companions>>,
}

impl OrderServices {
    /// Reports if it is this node that orders certificates.
    fn may_order(&self) -> bool {
        self.companions.as_ref().is_none_or(|companions| companions.may_order())
    }

    /// Lets the other nodes show these proofs, and no others.
    async fn publish(&self, proofs: &[ProofContent]) {
        if let Some(companions) = &self.companions {
            companions.publish(proofs.to_vec()).await;
        }
    }
}

/// Nodes that serve the same name: the authority may come to any of them.
pub trait Companions: Send + Sync {
    /// Reports if it is this node that orders certificates: one does at a time.
    fn may_order(&self) -> bool;

    /// Lets the other nodes show these proofs, and no others. Ends when they have had the time to learn of them; without a
    /// word if they could not be told, for then the authority says that it found nothing.
    fn publish(&self, proofs: Vec<ProofContent>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The listener that answers challenges over HTTP.
pub trait ChallengeListener: Send + Sync {
    /// Listens on `address` alone, unless it does so already; `None` for nowhere.
    ///
    /// # Errors
    /// If the address cannot be opened.
    fn listen(
        &self,
        address: Option<SocketAddr>,
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + '_>>;
}

/// Sees to it that there is a certificate from the configured authority, if there is one, until `stop` is cancelled.
pub async fn keep_issued(
    certificates: Arc<Certificates>,
    services: OrderServices,
    stop: CancellationToken,
) {
    let mut changes = certificates.wanted().changes();
    let mut schedule = RenewalSchedule::new(fastrand::f64());
    let mut is_new = true;
    loop {
        let is_due = handle(&mut schedule, look(&certificates)) == Some(RenewalAction::Renew);
        if is_due && services.may_order() {
            let attempt = Box::pin(attempt(&certificates, &services, &mut schedule));
            if stop.run_until_cancelled(attempt).await.is_none() {
                return;
            }
            is_new = false;
            continue;
        }
        if std::mem::take(&mut is_new)
            && let Err(error) = listen(&certificates, &services).await
        {
            // Long before the renewal, which would fail.
            warn!("the certificate cannot be renewed: {error}; {}", error.cure());
        }
        tokio::select! {
            () = stop.cancelled() => return,
            // The operator may have mended what was wrong.
            () = changes.next() => {
                schedule = RenewalSchedule::new(fastrand::f64());
                is_new = true;
            }
            () = reached(schedule.deadline()), if !is_due => {}
            // Another node orders it, and it will be here.
            () = sleep(TURN), if is_due => {}
        }
    }
}

fn look(certificates: &Certificates) -> RenewalInput {
    let wall = Timestamp::now();
    match certificates.wanted().get().certificate.acme {
        Some(_) => RenewalInput::Certificate { validity: certificates.get().issued(), wall },
        None => RenewalInput::NoAuthority,
    }
}

fn handle(schedule: &mut RenewalSchedule, input: RenewalInput) -> Option<RenewalAction> {
    let mut actions = Vec::new();
    schedule.handle(input, now(), &mut actions);
    actions.pop()
}

/// Opens the listener for challenges over HTTP, if one is configured, and closes one that no longer is.
async fn listen(certificates: &Certificates, services: &OrderServices) -> Result<(), AcmeError> {
    let wanted = certificates.wanted().get();
    let acme = wanted.certificate.acme.as_deref();
    let address = acme.and_then(|acme| acme.http.as_deref().copied());
    let listening = services.port.listen(address).await;
    listening.or_else(|source| {
        address.map_or(Ok(()), |address| Err(AcmeError::Listen { address, source }))
    })
}

/// Asks the authority for a certificate, and logs what came of it.
async fn attempt(
    certificates: &Arc<Certificates>,
    services: &OrderServices,
    schedule: &mut RenewalSchedule,
) {
    let wanted = certificates.wanted().get();
    let Some(acme) = wanted.certificate.acme.as_deref() else { return };
    let renewal = renew(certificates, services, schedule, &wanted, acme);
    let error = match timeout(PATIENCE, renewal).await {
        Ok(Ok(())) => {
            let validity = certificates.get().issued();
            let input = RenewalInput::Succeeded { validity, wall: Timestamp::now() };
            return log_success(certificates, handle(schedule, input));
        }
        Ok(Err(error)) => error,
        Err(_) => AcmeError::TimedOut(PATIENCE),
    };
    let until = certificates.get().issued().map(|(_, until)| until);
    let action = handle(schedule, RenewalInput::Failed { until, wall: Timestamp::now() });
    if let Some(RenewalAction::Retry(wait)) = action {
        warn!(
            "no certificate from {}: {error}; {}, next attempt in {}; {}",
            host(acme),
            meanwhile(until, Timestamp::now()),
            in_words(wait),
            error.cure()
        );
    }
}

async fn renew(
    certificates: &Arc<Certificates>,
    services: &OrderServices,
    schedule: &RenewalSchedule,
    wanted: &Arc<CertificateSettings>,
    acme: &Acme,
) -> Result<(), AcmeError> {
    // Authorities issue a few of the same kind in a week: one that could not be used for what was wrong here is not wasted.
    refresh(certificates).await?;
    let listening = listen(certificates, services).await;
    if schedule.due(certificates.get().issued()) > Timestamp::now() {
        return Ok(());
    }
    listening?;
    let names: Vec<String> =
        acme.names_or(&wanted.hostname).iter().map(Hostname::to_string).collect();
    info!("requesting a certificate from {} for {}", host(acme), names.join(", "));
    order::obtain(wanted, acme, services).await?;
    refresh(certificates).await
}

async fn refresh(certificates: &Arc<Certificates>) -> Result<(), AcmeError> {
    let refreshed = Arc::clone(certificates);
    tokio::task::spawn_blocking(move || refreshed.refresh())
        .await
        .map_err(|_| AcmeError::Panicked)??;
    Ok(())
}

fn log_success(certificates: &Certificates, action: Option<RenewalAction>) {
    match action {
        Some(RenewalAction::Renewed { until, due }) => {
            let set = certificates.get();
            let path = set.summary().path.display();
            info!(
                "certificate: {path}, valid until {}, renewal due about {}",
                day(until),
                day(due)
            );
        }
        Some(RenewalAction::Useless(wait)) => warn!(
            "the new certificate cannot be used, or its renewal is due already; next attempt in {}; check this \
             machine's clock",
            in_words(wait)
        ),
        _ => {}
    }
}

/// The certificate that clients see until there is another one.
fn meanwhile(until: Option<Timestamp>, now: Timestamp) -> String {
    match until {
        None => "clients see a self-signed one".to_owned(),
        Some(until) if until <= now => {
            "the previous one has expired, and clients refuse it".to_owned()
        }
        Some(until) => {
            let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
            let hours = Duration::from_secs(left.as_secs() / 3600 * 3600);
            match hours.is_zero() {
                true => "the previous one stays in use, for less than an hour".to_owned(),
                false => format!("the previous one stays in use, for {}", in_words(hours)),
            }
        }
    }
}

fn host(acme: &Acme) -> &str {
    acme.directory.host_str().unwrap_or_default()
}

fn in_words(wait: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(wait.as_secs()))
}
