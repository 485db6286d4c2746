//! Causes for which nobody can log in at a mail server, with their remedies.

use std::fmt;
use std::io;

use tokio_rustls::rustls::{self, CertificateError};

use super::connect_error::ConnectError;
use super::discovery::DiscoveryError;
use super::login_machine::LoginError;
use crate::dns::DnsError;

/// The cause of a failure that concerns every login at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureCause {
    /// DNS does not know the server's name.
    NameUnknown,
    /// The DNS server gives no answer.
    DnsSilent,
    /// The server has no public address, and the route allows no other.
    NotPublic,
    /// Nothing accepts connections at its address and port.
    Refused,
    /// The network does not lead to its address.
    NoNetwork,
    /// It does not answer in time.
    Silent,
    /// An authority that deltapush does not trust issued its certificate.
    Untrusted,
    /// Its certificate has expired, or is not yet valid.
    Expired,
    /// Its certificate is for another name.
    OtherName,
    /// TLS fails for another reason.
    Tls,
    /// It offers no STARTTLS.
    NoStartTls,
    /// It ends connections before the login.
    Broken,
    /// It does not speak IMAP as expected.
    Protocol,
    /// No source names the server of the domain.
    NotFound,
}

impl FailureCause {
    /// The cause of `error`; `None` if it concerns one login only, or deltapush did not ask the server.
    #[must_use]
    pub fn of(error: &ConnectError) -> Option<Self> {
        match error.end() {
            ConnectError::Unreachable(error) => Some(Self::of_connect(error)),
            ConnectError::Tls(error) => Some(Self::of_tls(error)),
            ConnectError::Broken(_) => Some(Self::Broken),
            ConnectError::TimedOut(_) => Some(Self::Silent),
            ConnectError::TooMuch | ConnectError::Injected => Some(Self::Protocol),
            ConnectError::Login(LoginError::NoStartTls) => Some(Self::NoStartTls),
            ConnectError::Login(LoginError::Protocol(_) | LoginError::Preauth) => {
                Some(Self::Protocol)
            }
            ConnectError::NotFound(DiscoveryError::Failed { .. }) => Some(Self::DnsSilent),
            ConnectError::NotFound(_) => Some(Self::NotFound),
            ConnectError::Login(_) | ConnectError::Complaint { .. } | ConnectError::NoPermit => {
                None
            }
        }
    }

    fn of_connect(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(DnsError::Absent { .. }) => return Self::NameUnknown,
            Some(DnsError::NotPublic { .. }) => return Self::NotPublic,
            Some(DnsError::Failed { .. }) => return Self::DnsSilent,
            None => {}
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Self::Refused,
            io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::NoNetwork,
        }
    }

    fn of_tls(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        let Some(rustls::Error::InvalidCertificate(wrong)) = inner else { return Self::Tls };
        match wrong {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Expired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::OtherName
            }
            _ => Self::Untrusted,
        }
    }

    /// Reports if one failure shows it. Of the others a single one may be an accident of one connection.
    pub(super) fn is_certain(self) -> bool {
        !matches!(self, Self::Silent | Self::Broken | Self::Tls | Self::Protocol)
    }

    /// The remedy, for the operator.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NameUnknown => "check the name in `upstream` of the route",
            Self::DnsSilent => {
                "check that this machine reaches the internet and its DNS server (/etc/resolv.conf, or `dns.server`)"
            }
            Self::NotPublic => "if it is in your own network, set `private: true` in the route",
            Self::Refused => {
                "check that the mail server runs, and its port in `upstream` of the route"
            }
            Self::NoNetwork => "check that this machine reaches the network of the mail server",
            Self::Silent => {
                "check that the mail server runs and that no firewall drops the connection"
            }
            Self::Untrusted => {
                "if your own authority issued its certificate, set `ca:` in the route to the file of that authority"
            }
            Self::Expired => {
                "its operator has to renew the certificate; check also the clock of this machine"
            }
            Self::OtherName => {
                "set `upstream` of the route to a name that its certificate contains"
            }
            Self::Tls => {
                "check that its port speaks TLS: `imaps://` is TLS from the first byte, `imap://` is STARTTLS"
            }
            Self::NoStartTls => "use `imaps://` in `upstream` of the route if it has a TLS port",
            Self::Broken | Self::Protocol => {
                "see the log of the mail server; `deltapush trace` shows the dialogue"
            }
            Self::NotFound => "set `upstream` in a route for this domain",
        }
    }
}

/// The fault of the server, as the end of a sentence.
impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NameUnknown => "its name is not in DNS",
            Self::DnsSilent => "DNS gives no answer",
            Self::NotPublic => "it has no public address",
            Self::Refused => "it refuses connections",
            Self::NoNetwork => "the network does not lead to it",
            Self::Silent => "it does not answer",
            Self::Untrusted => "its certificate is not trusted",
            Self::Expired => "its certificate has expired or is not yet valid",
            Self::OtherName => "its certificate is for another name",
            Self::Tls => "the TLS handshake fails",
            Self::NoStartTls => "it offers no STARTTLS",
            Self::Broken => "it ends connections before the login",
            Self::Protocol => "it does not speak IMAP as expected",
            Self::NotFound => "no source names the mail server",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_by_cause() {
        let certificate = |error| {
            ConnectError::Tls(io::Error::new(
                io::ErrorKind::InvalidData,
                rustls::Error::InvalidCertificate(error),
            ))
        };
        let dns = |error: DnsError| ConnectError::Unreachable(error.into());
        let name = || "imap.example.org".to_owned();
        for (error, cause) in [
            (certificate(CertificateError::UnknownIssuer), Some(FailureCause::Untrusted)),
            (certificate(CertificateError::Expired), Some(FailureCause::Expired)),
            (certificate(CertificateError::NotValidForName), Some(FailureCause::OtherName)),
            (dns(DnsError::NotPublic { name: name() }), Some(FailureCause::NotPublic)),
            (
                dns(DnsError::Absent { what: "address", name: name() }),
                Some(FailureCause::NameUnknown),
            ),
            (
                ConnectError::Unreachable(io::ErrorKind::ConnectionRefused.into()),
                Some(FailureCause::Refused),
            ),
            (ConnectError::Login(LoginError::Refused { answer: vec![], untagged: vec![] }), None),
            (ConnectError::Login(LoginError::Bye("too many".into())), None),
        ] {
            assert_eq!(FailureCause::of(&error), cause, "{error}");
        }
    }
}
