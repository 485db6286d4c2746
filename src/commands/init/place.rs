//! Listen addresses, host name and certificate of a new configuration. Facts are collected from this machine; the
//! decision is pure.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use super::super::findings::name::{is_of_this_machine, public_addresses};
use crate::admin::control;
use crate::config::{Config, Hostname};
use crate::dns::is_public;
use crate::dns::{DnsResolver, Reach};

/// Ports for phones, the usual one first; and for a first try on this machine.
const PUBLIC: [u16; 4] = [993, 1993, 9993, 19_993];
const LOCAL: [u16; 3] = [1993, 2993, 3993];
/// The port that networks let through, for browsers and ACME validation.
const WEB: u16 = 443;
/// The other port of ACME validation.
const HTTP: u16 = 80;

/// Availability of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Free,
    Taken,
    /// Ports below 1024 need privileges that this process does not have.
    Forbidden,
}

/// The target of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leads {
    /// To an address of this machine.
    Here,
    /// To another public address, presumably of a router or load balancer.
    Elsewhere,
    /// Into the local network, or to this machine alone.
    Inside,
    /// Nowhere yet.
    Nowhere,
}

/// The certificate for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// From an authority.
    Acme {
        /// The address at which it asks over HTTP; `None`: at the port for browsers.
        http: Option<SocketAddr>,
    },
    Files {
        chain: PathBuf,
        key: PathBuf,
    },
    /// Created by deltapush.
    SelfSigned,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InitPlan {
    pub(super) hostname: Hostname,
    /// The address part of listeners.
    pub(super) address: IpAddr,
    pub(super) imaps: u16,
    /// The second listener, for the page and for networks that block the first port.
    pub(super) web: Option<u16>,
    pub(super) proof: Proof,
    /// Notes for the user.
    pub(super) notes: Vec<String>,
}

/// Facts before the decision.
pub(super) struct Facts {
    pub(super) hostname: Hostname,
    pub(super) leads: Leads,
    pub(super) files: Option<(PathBuf, PathBuf)>,
    pub(super) terms_agreed: bool,
    /// True if this machine has IPv6 at all.
    pub(super) has_ipv6: bool,
}

impl Facts {
    /// True if it serves this machine only.
    pub(super) fn is_local(&self) -> bool {
        crate::config::is_loopback(self.hostname.as_str())
    }

    /// True if a certificate authority could issue a certificate for the name.
    pub(super) fn could_be_certified(&self) -> bool {
        let name = self.hostname.as_str();
        let is_public_name = match self.hostname.address() {
            Some(address) => is_public(address),
            None => name.contains('.') && !name.contains('_'),
        };
        !self.is_local() && is_public_name && self.files.is_none() && self.leads != Leads::Inside
    }
}

/// Decides, with `port` as the check of a port's availability. `None` if no port is free.
pub(super) fn decide(facts: &Facts, mut port: impl FnMut(IpAddr, u16) -> Port) -> Option<InitPlan> {
    let any: IpAddr =
        if facts.has_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { [0, 0, 0, 0].into() };
    let (address, candidates): (IpAddr, &[u16]) =
        if facts.is_local() { ([127, 0, 0, 1].into(), &LOCAL) } else { (any, &PUBLIC) };
    let mut notes = Vec::new();
    let mut imaps = None;
    for candidate in candidates {
        match port(address, *candidate) {
            Port::Free => {
                imaps = Some(*candidate);
                break;
            }
            Port::Taken => notes.push(format!("Port {candidate} is in use by another program.")),
            Port::Forbidden => notes.push(format!(
                "Port {candidate} needs privileges: run this command as root, or with the capabilities that the systemd unit grants."
            )),
        }
    }
    let imaps = imaps?;
    let hostname = facts.hostname.clone();
    if facts.is_local() {
        notes.push(format!(
            "Phones cannot reach {hostname}: give a public host name with --hostname."
        ));
        return Some(InitPlan {
            hostname,
            address,
            imaps,
            web: None,
            proof: Proof::SelfSigned,
            notes,
        });
    }
    let web = port(address, WEB);
    let proof = match &facts.files {
        Some((chain, key)) => Proof::Files { chain: chain.clone(), key: key.clone() },
        None if web == Port::Free => proof(facts, None, &mut notes),
        None => {
            let http = port(address, HTTP);
            proof(facts, Some((http, SocketAddr::new(address, HTTP))), &mut notes)
        }
    };
    notes.extend(about_name(facts));
    let web = (web == Port::Free).then_some(WEB);
    Some(InitPlan { hostname, address, imaps, web, proof, notes })
}

/// `http`: if port 443 is not free, the availability and the address of port 80.
fn proof(facts: &Facts, http: Option<(Port, SocketAddr)>, notes: &mut Vec<String>) -> Proof {
    let name = &facts.hostname;
    if name.as_str().starts_with('_') {
        notes.push(format!(
            "{name} starts with an underscore: Delta Chat accepts a self-signed certificate for it."
        ));
        return Proof::SelfSigned;
    }
    let cannot = match http {
        _ if !facts.could_be_certified() => {
            "a certificate authority issues none for this name or address"
        }
        Some((Port::Taken | Port::Forbidden, _)) => {
            "the certificate authority connects to port 443 or 80, and both are in use or need privileges"
        }
        _ if !facts.terms_agreed => {
            "you did not agree to the terms of Let's Encrypt (--agree-to-terms)"
        }
        None => return Proof::Acme { http: None },
        Some((Port::Free, address)) => {
            notes.push(
                "Port 443 cannot be used: the certificate authority connects to port 80 instead, and no page for browsers is there."
                    .to_owned(),
            );
            return Proof::Acme { http: Some(address) };
        }
    };
    notes.push(format!(
        "The certificate will be self-signed, because {cannot}. Users have to choose \"accept invalid certificates\"; \
         docs/certificates.md describes better ways, such as a name that starts with an underscore."
    ));
    Proof::SelfSigned
}

fn about_name(facts: &Facts) -> Option<String> {
    let name = &facts.hostname;
    match facts.leads {
        Leads::Here => None,
        Leads::Elsewhere if name.address().is_some() => Some(format!(
            "This machine does not have the address {name}: forward the ports from there (your router) to this machine."
        )),
        Leads::Elsewhere => Some(format!(
            "{name} resolves to an address that this machine does not have: forward the ports from that address (your router) to this machine."
        )),
        Leads::Inside if name.address().is_some() => Some(format!(
            "{name} is an address in a local network: phones reach it only from there."
        )),
        Leads::Inside => Some(format!(
            "{name} resolves to an address in a local network: phones reach it only from there."
        )),
        Leads::Nowhere => Some(format!(
            "DNS has no address for {name} yet: create a record (A, AAAA) with the address of this machine."
        )),
    }
}

/// The name of this machine, if it is fully qualified and resolves to a public address of this machine.
pub(super) async fn own_name(dns: &DnsResolver) -> Option<Hostname> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = Hostname::new(name.trim()).filter(|name| name.as_str().contains('.'))?;
    (leads(dns, &name).await == Leads::Here).then_some(name)
}

/// A name that the provider of this machine has given to its public address, if it leads back to it.
pub(super) async fn name_by_address(dns: &DnsResolver) -> Option<Hostname> {
    for address in public_addresses() {
        for name in dns.names_of(address).await {
            let name = Hostname::new(&name).filter(|name| name.as_str().contains('.'));
            if let Some(name) = name
                && leads(dns, &name).await == Leads::Here
            {
                return Some(name);
            }
        }
    }
    None
}

/// The target of a name.
pub(super) async fn leads(dns: &DnsResolver, name: &Hostname) -> Leads {
    let Ok(addresses) = dns.addresses(name.as_str(), Reach::Anywhere).await else {
        return Leads::Nowhere;
    };
    if addresses.iter().all(|address| !is_public(*address)) {
        return Leads::Inside;
    }
    let is_here = |address: &IpAddr| is_public(*address) && is_of_this_machine(*address);
    if addresses.iter().any(is_here) { Leads::Here } else { Leads::Elsewhere }
}

/// The ports of the deltapush that runs with the configuration in `file`: they are free for the one that replaces it.
pub(super) fn ports_of_running(file: &Path) -> Vec<u16> {
    match Config::load(file) {
        Ok(config) if control::is_served(&config.startup.storage.directory) => {
            config.live.public_addresses().map(|address| address.port()).collect()
        }
        _ => vec![],
    }
}

/// The state of a port: free, in use, or forbidden.
pub(super) fn port(address: IpAddr, port: u16) -> Port {
    match TcpListener::bind(SocketAddr::new(address, port)) {
        Ok(_) => Port::Free,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Port::Forbidden,
        Err(_) => Port::Taken,
    }
}

/// Reports if this machine has IPv6 at all.
pub(super) fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;

    fn facts(hostname: &str) -> Facts {
        let hostname = Hostname::new(hostname).unwrap();
        Facts { hostname, leads: Leads::Here, files: None, terms_agreed: true, has_ipv6: true }
    }

    fn choose_text(facts: &Facts, taken: &[u16], forbidden: &[u16]) -> String {
        let place = decide(facts, |_, port| match port {
            port if taken.contains(&port) => Port::Taken,
            port if forbidden.contains(&port) => Port::Forbidden,
            _ => Port::Free,
        });
        let Some(place) = place else { return "nowhere".into() };
        format!(
            "{} {} {:?} {:?} | {}",
            place.address,
            place.imaps,
            place.web,
            place.proof,
            place.notes.join(" ")
        )
    }

    #[test]
    fn public_name_with_both_ports_gets_a_certificate_by_itself() {
        assert_eq!(
            choose_text(&facts("push.example.org"), &[], &[]),
            ":: 993 Some(443) Acme { http: None } | "
        );
        let behind_a_router = Facts { leads: Leads::Elsewhere, ..facts("9.9.9.9") };
        assert!(choose_text(&behind_a_router, &[], &[]).contains("not have the address 9.9.9.9"));
        let refused = Facts { terms_agreed: false, ..facts("push.example.org") };
        assert!(
            choose_text(&refused, &[], &[])
                .starts_with(":: 993 Some(443) SelfSigned | The certificate will be self-signed")
        );
        let without_ipv6 = Facts { has_ipv6: false, ..facts("push.example.org") };
        assert!(choose_text(&without_ipv6, &[], &[]).starts_with("0.0.0.0 993"));
        let nowhere = Facts { leads: Leads::Nowhere, ..facts("push.example.org") };
        assert!(
            choose_text(&nowhere, &[], &[])
                .contains("Acme { http: None } | DNS has no address for push.example.org yet")
        );
    }

    #[test]
    fn ports_that_cannot_be_had_are_left_to_others() {
        let web_is_taken = choose_text(&facts("push.example.org"), &[443], &[]);
        assert!(
            web_is_taken.starts_with(":: 993 None Acme { http: Some([::]:80) } | Port 443 cannot"),
            "{web_is_taken}"
        );
        let busy = choose_text(&facts("push.example.org"), &[993, 443, 80], &[]);
        assert!(
            busy.starts_with(":: 1993 None SelfSigned | Port 993 is in use")
                && busy.contains("port 443 or 80"),
            "{busy}"
        );
        let unprivileged = choose_text(&facts("push.example.org"), &[], &[993, 443, 80]);
        assert!(
            unprivileged.starts_with(":: 1993 None SelfSigned | Port 993 needs privileges"),
            "{unprivileged}"
        );
        assert_eq!(choose_text(&facts("push.example.org"), &PUBLIC, &[]), "nowhere");
    }

    #[test]
    fn other_names_get_the_certificate_that_fits_them() {
        let underscore = choose_text(&facts("_imap.example.org"), &[], &[]);
        assert!(
            underscore.contains("SelfSigned | _imap.example.org starts with an underscore"),
            "{underscore}"
        );
        let of_nobody = choose_text(&facts("192.0.2.1"), &[], &[]);
        assert!(of_nobody.contains("SelfSigned | The certificate will be self-signed"));
        assert_eq!(
            choose_text(&facts("9.9.9.9"), &[], &[]),
            ":: 993 Some(443) Acme { http: None } | "
        );
        let local = choose_text(&facts("localhost"), &[1993], &[]);
        assert!(
            local.starts_with("127.0.0.1 2993 None SelfSigned | Port 1993 is in use"),
            "{local}"
        );
        let files = Facts { files: Some(("a".into(), "b".into())), ..facts("push.example.org") };
        assert!(choose_text(&files, &[443], &[]).starts_with(":: 993 None Files"));
        let inside = Facts { leads: Leads::Inside, ..facts("push.lan.example") };
        assert!(
            choose_text(&inside, &[], &[]).contains("resolves to an address in a local network")
        );
    }

    #[test]
    fn socket_units_of_the_document_fit_the_listeners() {
        let page = include_str!("../../../docs/operation.md");
        let ports: Vec<u16> = page
            .split("deltapush@")
            .skip(1)
            .filter_map(|rest| rest.split_once(".socket")?.0.parse().ok())
            .collect();
        let plan =
            decide(&facts("push.example.org"), |_, _| Port::Free).expect("both ports are free");
        let listeners = [Some(plan.imaps), plan.web].map(Option::unwrap);
        assert!(!ports.is_empty() && ports.chunks(2).all(|two| two == listeners), "{ports:?}");
        // A number alone is the port of `[::]`, or of `0.0.0.0` without IPv6 (systemd.socket(5)).
        let unit = include_str!("../../../contrib/systemd/deltapush@.socket");
        assert!(unit.contains("\nListenStream=%i\nBindIPv6Only=both\n"), "{unit}");
        assert!(plan.address.is_unspecified());
    }

    #[test]
    fn ports_of_the_own_deltapush_are_known_while_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        assert!(ports_of_running(&file).is_empty());
        let text =
            "listeners:\n  - {address: 127.0.0.1:4711, tls: implicit}\nadmin: {address: off}\n";
        std::fs::write(&file, text).unwrap();
        assert!(ports_of_running(&file).is_empty(), "it does not run");
        let state = folder.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let _serving = std::os::unix::net::UnixListener::bind(control::path(&state)).unwrap();
        assert_eq!(ports_of_running(&file), [4711]);
    }

    #[tokio::test]
    async fn port_in_use_is_seen() {
        // Nobody else gets the port, and until it listens it may be opened by its number.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.set_reuseaddr(true).unwrap();
        let address = socket.local_addr().unwrap();
        assert_eq!(port(address.ip(), address.port()), Port::Free);
        let _listener = socket.listen(8).unwrap();
        assert_eq!(port(address.ip(), address.port()), Port::Taken);
    }
}
