//! The ports: before a start whether they can be opened, afterwards whether clients reach them.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};

use super::super::Fault;
use super::name::NameFacts;
use super::outside::{Visit, VisitResult};
use super::{Finding, listed};
use crate::config::{Config, ListenerTls};
use crate::dns::is_public;
use crate::file_access::listen_remedy;

const SUBJECT: &str = "listen";

/// The ports to which an authority connects to validate a name: in TLS (RFC 8737 section 3), and for HTTP (RFC 8555 section 8.3).
const TLS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// The ports that cannot be opened; all of them are free where no deltapush runs. Each is opened for a moment, but for those that
/// systemd is known to hold.
pub(in super::super) fn taken(config: &Config, held: &[u16]) -> Vec<Finding> {
    let listeners = config.live.listeners.iter().map(|listener| *listener.address);
    let admin = config.startup.admin.address.iter().map(|address| **address);
    let is_free = |address: &SocketAddr| !held.contains(&address.port());
    let mut found: Vec<Finding> =
        listeners.chain(admin).filter(is_free).filter_map(taken_one).collect();
    let acme = config.live.certificate.acme.as_ref();
    let http = acme.and_then(|acme| acme.http.as_deref().copied());
    found.extend(http.filter(is_free).and_then(taken_for_challenges));
    let news = config.startup.news.listen.as_deref().copied();
    found.extend(news.filter(is_free).and_then(taken_for_news));
    found
}

fn taken_one(address: SocketAddr) -> Option<Finding> {
    let error = TcpListener::bind(address).err()?;
    let words = format!("cannot listen on {address}: {error}");
    Some(Finding::fail(Fault::System, SUBJECT, words, listen_remedy(&error)))
}

/// deltapush starts without this port, and gets no certificate.
fn taken_for_challenges(address: SocketAddr) -> Option<Finding> {
    let error = TcpListener::bind(address).err()?;
    let words = format!("no certificate comes: cannot listen on {address}: {error}");
    Some(Finding::warn(SUBJECT, words, listen_remedy(&error)))
}

/// deltapush starts without this one too, and gets no news of mail servers until it is free.
fn taken_for_news(address: SocketAddr) -> Option<Finding> {
    let error = TcpListener::bind(address).err()?;
    let words = format!("no news of mail servers comes: cannot listen on {address}: {error}");
    Some(Finding::warn(SUBJECT, words, listen_remedy(&error)))
}

/// A certificate authority that cannot reach the port to which it connects.
pub(in super::super) fn acme(config: &Config) -> Option<Finding> {
    let acme = config.live.certificate.acme.as_ref()?;
    if let Some(http) = acme.http.as_deref() {
        // On loopback a web server hands the challenges on.
        let is_reached = http.port() == HTTP_PORT || http.ip().to_canonical().is_loopback();
        return (!is_reached).then(|| {
            Finding::warn(
                SUBJECT,
                format!("the authority connects to port {HTTP_PORT}, and `http` has another one"),
                format!("forward that port to {http}, or no certificate comes"),
            )
        });
    }
    let is_reached = config.live.listeners.iter().any(|listener| {
        listener.tls == ListenerTls::Implicit && listener.address.port() == TLS_PORT
    });
    (!is_reached).then(|| {
        Finding::warn(
            SUBJECT,
            format!(
                "the authority connects to port {TLS_PORT}, and no listener with `tls: implicit` is there"
            ),
            "forward that port to one, or set `http` of `certificate.acme` for port 80, or no certificate comes",
        )
    })
}

/// Judges the connections to each port.
pub(in super::super) fn judge(visits: &[Visit], name: &NameFacts) -> Vec<Finding> {
    let mut ports: BTreeMap<u16, Vec<&Visit>> = BTreeMap::new();
    for visit in visits {
        ports.entry(visit.listener.port()).or_default().push(visit);
    }
    ports.iter().map(|(port, visits)| judge_port(*port, visits, name)).collect()
}

fn judge_port(port: u16, visits: &[&Visit], name: &NameFacts) -> Finding {
    let failed = visits.iter().find_map(|visit| match &visit.result {
        VisitResult::Answers(_) => None,
        VisitResult::Unreachable(error) => Some((visit, error, true)),
        VisitResult::NoTls(error) => Some((visit, error, false)),
    });
    let Some((visit, error, is_unreachable)) = failed else {
        let addresses: Vec<_> = visits.iter().map(|visit| visit.target.ip()).collect();
        let tls = visits.first().map_or(ListenerTls::None, |visit| visit.tls);
        return Finding::ok(
            SUBJECT,
            format!("port {port} (TLS: {tls}) answers at {}", listed(&addresses)),
        );
    };
    let address = visit.target.ip();
    if !is_unreachable && visit.is_restricted {
        let words = format!("port {port} at {address} closes connections of this machine, which");
        return Finding::ok(SUBJECT, format!("{words} `allow.networks` may not have in its list"));
    }
    if !is_unreachable {
        let words = format!("port {port} at {address} makes no TLS handshake: {error}");
        return Finding::fail(
            Fault::Unavailable,
            SUBJECT,
            words,
            format!("another program may have the port: `ss -ltnp 'sport = :{port}'` names it"),
        );
    }
    let words = format!("port {port} does not answer at {address}: {}", in_words(error));
    if is_public(address) && !name.own.contains(&address) {
        return Finding::warn(
            SUBJECT,
            words,
            format!(
                "forward port {port} from {address} to this machine. Some routers refuse this only to their own network: \
                 try from a phone without WLAN"
            ),
        );
    }
    Finding::fail(Fault::Unavailable, SUBJECT, words, unreachable_remedy(port, error))
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut => "no answer in time".to_owned(),
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}

fn unreachable_remedy(port: u16, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            format!(
                "deltapush does not listen there: see `listeners`, and `ss -ltn 'sport = :{port}'`"
            )
        }
        ErrorKind::TimedOut => {
            format!("open port {port} for TCP in the firewall of this machine")
        }
        _ => "check the network of this machine".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::commands::findings::Verdict;
    use crate::config::Hostname;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new(""), "here").unwrap()
    }

    #[test]
    fn acme_needs_a_listener_on_its_port() {
        let text = "hostname: imap.example.org\ncertificate:\n  acme:\n    terms_agreed: true\n";
        let with = format!("{text}listeners:\n  - address: \"127.0.0.1:443\"\n    tls: implicit\n");
        assert_eq!(acme(&config(&with)), None);
        let without =
            format!("{text}listeners:\n  - address: \"127.0.0.1:993\"\n    tls: implicit\n");
        assert!(acme(&config(&without)).unwrap().words.contains("port 443"));
        assert_eq!(acme(&Config::default()), None);
        for (address, expected) in [("[::]:80", 0), ("127.0.0.1:8080", 0), ("[::]:8080", 1)] {
            let warning = acme(&config(&format!("{text}    http: \"{address}\"\n")));
            assert_eq!(warning.iter().len(), expected, "{warning:?}");
        }
    }

    #[test]
    fn taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let finding = taken_one(taken.local_addr().unwrap()).unwrap();
        assert!(finding.is_failure(), "{finding:?}");
        assert!(finding.remedy.unwrap().contains("another program listens there"));
        let finding = taken_for_challenges(taken.local_addr().unwrap()).unwrap();
        assert!(!finding.is_failure() && finding.words.starts_with("no certificate comes"));
        let finding = taken_for_news(taken.local_addr().unwrap()).unwrap();
        assert!(!finding.is_failure() && finding.words.starts_with("no news of mail servers"));
    }

    fn visit(target: &str, result: VisitResult) -> Visit {
        let listener = "[::]:993".parse().unwrap();
        let target = target.parse().unwrap();
        Visit { listener, tls: ListenerTls::Implicit, is_restricted: false, target, result }
    }

    fn judged(own: &[&str], visits: &[Visit]) -> Finding {
        let name = NameFacts {
            hostname: Hostname::new("push.example.org").unwrap(),
            addresses: Ok(vec![]),
            own: own.iter().map(|text| text.parse().unwrap()).collect(),
            machine: vec![],
        };
        let [finding] = judge(visits, &name).try_into().unwrap();
        finding
    }

    #[test]
    fn port_that_answers_everywhere_is_well() {
        let answers = |target: &str| visit(target, VisitResult::Answers(vec![]));
        let found = judged(&["9.9.9.9"], &[answers("9.9.9.9:993"), answers("[2620:fe::fe]:993")]);
        assert_eq!(
            found,
            Finding::ok("listen", "port 993 (TLS: implicit) answers at 9.9.9.9 and 2620:fe::fe")
        );
    }

    #[test]
    fn remedy_depends_on_where_the_port_is_closed() {
        let unreachable = |kind: ErrorKind| VisitResult::Unreachable(kind.into());
        let refused = || [visit("9.9.9.9:993", unreachable(ErrorKind::ConnectionRefused))];
        let own = judged(&["9.9.9.9"], &refused());
        assert!(own.is_failure() && own.remedy.unwrap().contains("does not listen there"));
        let router = judged(&[], &refused());
        assert_eq!(router.verdict, Verdict::Warn);
        assert!(router.remedy.unwrap().starts_with("forward port 993 from 9.9.9.9"));
        let silent = [visit("9.9.9.9:993", unreachable(ErrorKind::TimedOut))];
        assert!(judged(&["9.9.9.9"], &silent).remedy.unwrap().contains("firewall"));
        let other = [visit("9.9.9.9:993", VisitResult::NoTls(io::Error::other("not TLS")))];
        assert!(judged(&["9.9.9.9"], &other).remedy.unwrap().contains("another program"));
        let [other] = other;
        let refused = [Visit { is_restricted: true, ..other }];
        assert_eq!(judged(&["9.9.9.9"], &refused).verdict, Verdict::Ok);
    }
}
