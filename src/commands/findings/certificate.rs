//! The certificate that clients see.

use jiff::Timestamp;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{CertificateError, Error};

use super::super::Fault;
use super::Finding;
use super::outside::Visit;
use crate::client_setup;
use crate::config::{Hostname, LiveConfig, Trust};
use crate::tls::certs::x509::Leaf;
use crate::tls::{client, inspect};

const SUBJECT: &str = "certificate";

/// Facts about the certificate.
#[derive(Debug)]
pub(in super::super) struct CertificateFacts {
    pub(in super::super) hostname: Hostname,
    /// The origin in the configuration.
    pub(in super::super) origin: ConfiguredOrigin,
    /// The login code makes clients accept any certificate.
    pub(in super::super) any_accepted: bool,
    /// From when to when it is valid.
    pub(in super::super) validity: Option<(Timestamp, Timestamp)>,
    /// Verified with Mozilla's list, which Delta Chat has.
    pub(in super::super) by_clients: Result<(), Error>,
    /// Verified with this machine's list.
    pub(in super::super) by_machine: bool,
    /// No authority has issued it.
    pub(in super::super) is_self_signed: bool,
}

/// The origin of the certificate in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ConfiguredOrigin {
    Acme,
    Files,
    SelfSigned,
}

impl ConfiguredOrigin {
    fn of(config: &LiveConfig) -> Self {
        match &config.certificate {
            certificate if certificate.acme.is_some() => Self::Acme,
            certificate if certificate.chain.is_some() => Self::Files,
            _ => Self::SelfSigned,
        }
    }
}

/// Verifies the first chain that a listener showed; `None` if none did. Blocks on this machine's list of authorities.
pub(in super::super) fn look(config: &LiveConfig, visits: &[Visit]) -> Option<CertificateFacts> {
    let chain = visits.iter().find_map(Visit::chain)?;
    let hostname = config.hostname.clone();
    let origin = ConfiguredOrigin::of(config);
    let (by_clients, by_machine) = verified(chain, &hostname);
    let leaf = Leaf::of(chain).ok();
    Some(CertificateFacts {
        origin,
        any_accepted: client_setup::needs_any_certificate(config, hostname.as_str()),
        validity: leaf.as_ref().and_then(Leaf::validity),
        is_self_signed: leaf.is_some_and(|leaf| leaf.is_self_signed()),
        by_clients,
        by_machine,
        hostname,
    })
}

fn verified(chain: &[CertificateDer<'static>], hostname: &Hostname) -> (Result<(), Error>, bool) {
    let name = match ServerName::try_from(hostname.as_str().to_owned()) {
        Ok(name) => name,
        Err(error) => return (Err(Error::General(error.to_string())), false),
    };
    let verify = |trust: &Trust| match client::roots(trust) {
        Ok(roots) => inspect::verify(chain, &name, roots),
        Err(error) => Err(Error::General(error.to_string())),
    };
    (verify(&Trust::WebPki), verify(&Trust::System).is_ok())
}

/// Judges the certificate.
pub(in super::super) fn judge(facts: &CertificateFacts, now: Timestamp) -> Finding {
    let name = &facts.hostname;
    if let Some(finding) = out_of_time(facts, now) {
        return finding;
    }
    let until = facts
        .validity
        .map(|(_, until)| format!(", valid until {}", until.strftime("%Y-%m-%d")))
        .unwrap_or_default();
    match &facts.by_clients {
        Ok(()) => near_end(facts, now).unwrap_or_else(|| {
            Finding::ok(SUBJECT, format!("clients accept it for {name}{until}"))
        }),
        Err(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => Finding::fail(
            Fault::Configuration,
            SUBJECT,
            format!("it is not valid for {name}: clients refuse it"),
            "set `hostname` to a name on the certificate, or get one for this name (docs/certificates.md)",
        ),
        // A self-signed one may also be refused as that of an authority, which no server may show.
        Err(error) if inspect::is_unknown_issuer(error) || facts.is_self_signed => {
            unknown_issuer(facts, &until)
        }
        Err(error) => Finding::fail(
            Fault::Configuration,
            SUBJECT,
            format!("clients refuse it: {error}"),
            "get another one: docs/certificates.md",
        ),
    }
}

fn out_of_time(facts: &CertificateFacts, now: Timestamp) -> Option<Finding> {
    let (from, until) = facts.validity?;
    let renewal = match facts.origin {
        ConfiguredOrigin::Acme => {
            "the log has the reason why it was not renewed: journalctl -u deltapush -g certificate"
        }
        ConfiguredOrigin::Files => "renew it, then `systemctl reload deltapush`",
        ConfiguredOrigin::SelfSigned => "restart deltapush, which renews it",
    };
    if until <= now {
        let words = format!("it expired on {}: clients refuse it", until.strftime("%Y-%m-%d"));
        return Some(Finding::fail(Fault::Configuration, SUBJECT, words, renewal));
    }
    (from > now).then(|| {
        let words = format!("it is not valid before {}", from.strftime("%Y-%m-%d %H:%M UTC"));
        Finding::fail(
            Fault::System,
            SUBJECT,
            words,
            "check the clock of this machine: `timedatectl`",
        )
    })
}

/// The last quarter of its life: renewals come before.
fn near_end(facts: &CertificateFacts, now: Timestamp) -> Option<Finding> {
    let (from, until) = facts.validity?;
    let left = until.duration_since(now);
    let quarter = until.duration_since(from).checked_div(4)?;
    let remedy = match facts.origin {
        ConfiguredOrigin::Acme => {
            "its renewal is overdue; the log has the reason: journalctl -u deltapush -g certificate"
        }
        _ => "check the program that renews it",
    };
    (left < quarter).then(|| {
        let words = format!("it expires on {}", until.strftime("%Y-%m-%d %H:%M UTC"));
        Finding::warn(SUBJECT, words, remedy)
    })
}

/// An authority, or the server itself, that clients do not know.
fn unknown_issuer(facts: &CertificateFacts, until: &str) -> Finding {
    let name = &facts.hostname;
    if facts.by_machine {
        let words = format!(
            "it is for {name}{until}, of an authority that this machine knows and Delta Chat may not"
        );
        return Finding::warn(
            SUBJECT,
            words,
            "install that authority on the phones, or get a certificate of a public one",
        );
    }
    match facts.origin {
        ConfiguredOrigin::SelfSigned if facts.any_accepted => Finding::warn(
            SUBJECT,
            format!("self-signed{until}: the login code makes the app accept any certificate"),
            "better ways: docs/certificates.md",
        ),
        ConfiguredOrigin::SelfSigned => Finding::ok(
            SUBJECT,
            format!(
                "self-signed{until}: Delta Chat accepts it, because {name} starts with an underscore"
            ),
        ),
        ConfiguredOrigin::Acme if facts.is_self_signed => Finding::fail(
            Fault::Unavailable,
            SUBJECT,
            "the authority has not issued one yet: clients see a self-signed one and refuse it",
            "mostly port 443 (80 with `http`) is closed, or the name leads elsewhere; the log has the reason: journalctl -u deltapush -g certificate",
        ),
        ConfiguredOrigin::Acme => Finding::fail(
            Fault::Configuration,
            SUBJECT,
            "clients do not know the authority that issued it",
            "name one whose certificates clients accept in `certificate.acme.directory`",
        ),
        ConfiguredOrigin::Files => Finding::fail(
            Fault::Configuration,
            SUBJECT,
            "clients do not know who issued it",
            "`chain` must hold the intermediate certificates, too (fullchain.pem): docs/certificates.md",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::findings::Verdict;

    const UNKNOWN: Error = Error::InvalidCertificate(CertificateError::UnknownIssuer);

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn facts(origin: ConfiguredOrigin, by_clients: Result<(), Error>) -> CertificateFacts {
        CertificateFacts {
            hostname: Hostname::new("push.example.org").unwrap(),
            origin,
            any_accepted: origin == ConfiguredOrigin::SelfSigned,
            validity: Some((time("2026-11-01T00:00:00Z"), time("2027-01-30T00:00:00Z"))),
            by_clients,
            by_machine: false,
            is_self_signed: origin != ConfiguredOrigin::Files,
        }
    }

    fn judged(facts: &CertificateFacts) -> Finding {
        judge(facts, time("2026-11-30T12:00:00Z"))
    }

    #[test]
    fn certificate_that_clients_accept_is_well_until_it_is_due() {
        let facts = facts(ConfiguredOrigin::Acme, Ok(()));
        assert_eq!(
            judged(&facts),
            Finding::ok(
                "certificate",
                "clients accept it for push.example.org, valid until 2027-01-30"
            )
        );
        let due = judge(&facts, time("2027-01-20T00:00:00Z"));
        assert!(due.verdict == Verdict::Warn && due.remedy.unwrap().contains("overdue"));
        assert!(judge(&facts, time("2027-02-01T00:00:00Z")).is_failure());
        let early = judge(&facts, time("2026-10-01T00:00:00Z"));
        assert!(early.remedy.unwrap().contains("clock"));
    }

    #[test]
    fn unknown_issuer_has_a_remedy_for_each_origin() {
        let unknown = |origin| facts(origin, Err(UNKNOWN));
        let acme = judged(&unknown(ConfiguredOrigin::Acme));
        assert!(acme.is_failure() && acme.words.contains("has not issued one yet"));
        let staging = CertificateFacts { is_self_signed: false, ..unknown(ConfiguredOrigin::Acme) };
        assert!(judged(&staging).remedy.unwrap().contains("acme.directory"));
        let files = judged(&unknown(ConfiguredOrigin::Files));
        assert!(files.remedy.unwrap().contains("intermediate"));
        let own = judged(&unknown(ConfiguredOrigin::SelfSigned));
        assert!(own.verdict == Verdict::Warn && own.words.contains("accept any"));
        let underscore =
            CertificateFacts { any_accepted: false, ..unknown(ConfiguredOrigin::SelfSigned) };
        assert_eq!(judged(&underscore).verdict, Verdict::Ok);
        let private = CertificateFacts { by_machine: true, ..unknown(ConfiguredOrigin::Files) };
        assert!(judged(&private).words.contains("this machine knows"));
    }

    #[test]
    fn other_name_and_other_faults_are_failures() {
        let name = Error::InvalidCertificate(CertificateError::NotValidForName);
        assert!(judged(&facts(ConfiguredOrigin::Files, Err(name))).words.contains("not valid for"));
        let other = Error::InvalidCertificate(CertificateError::BadSignature);
        assert!(judged(&facts(ConfiguredOrigin::Files, Err(other))).is_failure());
    }
}
