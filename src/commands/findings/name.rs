//! The host name: the addresses to which DNS leads with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use super::super::Fault;
use super::{Finding, listed};
use crate::config::{Hostname, is_loopback};
use crate::dns::is_public;
use crate::dns::{DnsError, DnsResolver, Reach};

const SUBJECT: &str = "hostname";

/// Addresses of the public Internet whose way shows this machine's own: those of the DNS root server `l`. Nothing is sent.
const AFAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(199, 7, 83, 42)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x500, 0x9f, 0, 0, 0, 0, 0x42)),
];

/// Facts about a name.
#[derive(Debug)]
pub(in super::super) struct NameFacts {
    pub(in super::super) hostname: Hostname,
    pub(in super::super) addresses: Result<Vec<IpAddr>, DnsError>,
    /// Those of them that this machine has.
    pub(in super::super) own: Vec<IpAddr>,
    /// The public addresses from which this machine reaches the Internet, one for each family.
    pub(in super::super) machine: Vec<IpAddr>,
}

impl NameFacts {
    /// Looks the name up.
    pub(in super::super) async fn look(hostname: &Hostname, dns: &DnsResolver) -> Self {
        let addresses = dns.addresses(hostname.as_str(), Reach::Anywhere).await;
        let found = addresses.iter().flatten().copied();
        let own = found.filter(|address| is_of_this_machine(*address)).collect();
        Self { hostname: hostname.clone(), addresses, own, machine: public_addresses() }
    }

    /// The addresses; none if DNS has none.
    pub(in super::super) fn addresses(&self) -> &[IpAddr] {
        self.addresses.as_deref().unwrap_or_default()
    }
}

/// Reports if this machine has the address: only such a one can be listened on.
pub(in super::super) fn is_of_this_machine(address: IpAddr) -> bool {
    TcpListener::bind((address, 0)).is_ok()
}

/// The public addresses from which this machine reaches the Internet, IPv4 first; none behind a router that translates them.
pub(in super::super) fn public_addresses() -> Vec<IpAddr> {
    let own = |afar: &IpAddr| {
        let any: IpAddr = if afar.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
        // Of a datagram socket this only looks up the way.
        socket.connect(SocketAddr::new(*afar, 53)).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    AFAR.iter().filter_map(own).filter(|address| is_public(*address)).collect()
}

/// Judges the name.
pub(in super::super) fn judge(facts: &NameFacts) -> Finding {
    let name = &facts.hostname;
    if is_loopback(name.as_str()) {
        return Finding::warn(
            SUBJECT,
            format!("{name} is for this machine only: phones cannot reach it"),
            "set `hostname` to a name that leads to this machine",
        );
    }
    let addresses = match &facts.addresses {
        Ok(addresses) => addresses,
        Err(DnsError::Absent { .. }) => {
            let remedy = records(facts, "create a record");
            return Finding::fail(
                Fault::Unavailable,
                SUBJECT,
                format!("DNS has no address for {name}"),
                remedy,
            );
        }
        Err(error) => {
            return Finding::fail(
                Fault::Unavailable,
                SUBJECT,
                error.to_string(),
                "check that this machine is online and reaches its DNS server",
            );
        }
    };
    judge_addresses(facts, addresses)
}

fn judge_addresses(facts: &NameFacts, addresses: &[IpAddr]) -> Finding {
    let name = &facts.hostname;
    let leads = match name.as_str().parse::<IpAddr>() {
        Ok(_) => format!("clients connect to {name}"),
        Err(_) => format!("{name} leads to {}", listed(addresses)),
    };
    let inside: Vec<_> = addresses.iter().filter(|address| !is_public(**address)).collect();
    if inside.len() == addresses.len() {
        return Finding::warn(
            SUBJECT,
            format!("{leads}, in a local network"),
            "phones reach it only from there: give the name a public address",
        );
    }
    let others: Vec<_> = addresses.iter().filter(|address| !facts.own.contains(address)).collect();
    if others.len() == addresses.len() {
        return Finding::warn(
            SUBJECT,
            format!("{leads}, which this machine does not have"),
            "right if a router or load balancer there forwards the ports to this machine; else correct the record",
        );
    }
    if !others.is_empty() {
        return Finding::warn(
            SUBJECT,
            format!("{leads}; this machine does not have {}", listed(&others)),
            records(
                facts,
                "correct the record: phones, and the certificate authority, may try that address first",
            ),
        );
    }
    let lacks_ipv4 = !addresses.iter().any(IpAddr::is_ipv4);
    if lacks_ipv4 && facts.machine.iter().any(IpAddr::is_ipv4) {
        return Finding::warn(
            SUBJECT,
            format!("{leads}, without IPv4: some networks have nothing else"),
            records(facts, "create a record"),
        );
    }
    Finding::ok(SUBJECT, format!("{leads}, of this machine"))
}

/// The remedy with the records that are right, as far as this machine knows its addresses.
fn records(facts: &NameFacts, action: &str) -> String {
    let kind = |address: &IpAddr| if address.is_ipv4() { "A" } else { "AAAA" };
    let records = facts
        .machine
        .iter()
        .map(|address| format!("{} {} {address}", facts.hostname, kind(address)));
    let records: Vec<_> = records.collect();
    if records.is_empty() {
        return format!("{action} (A, AAAA) with the public address of this machine or its router");
    }
    format!("{action}: {}", records.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::findings::Verdict;

    fn judged(addresses: &[&str], own: &[&str], machine: &[&str]) -> Finding {
        let parse =
            |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let hostname = Hostname::new("push.example.org").unwrap();
        let (own, machine) = (parse(own), parse(machine));
        let absent = DnsError::Absent { what: "address", name: "push.example.org".into() };
        let addresses = if addresses.is_empty() { Err(absent) } else { Ok(parse(addresses)) };
        judge(&NameFacts { hostname, addresses, own, machine })
    }

    #[test]
    fn name_leads_to_this_machine_with_both_families() {
        let both = ["9.9.9.9", "2620:fe::fe"];
        let found = judged(&both, &both, &both);
        assert_eq!(
            found,
            Finding::ok(
                "hostname",
                "push.example.org leads to 9.9.9.9 and 2620:fe::fe, of this machine"
            )
        );
        // A name without IPv6 is reached from everywhere.
        assert_eq!(judged(&both[..1], &both[..1], &both).verdict, Verdict::Ok);
    }

    #[test]
    fn wrong_records_are_named_with_the_right_ones() {
        let none = judged(&[], &[], &["9.9.9.9", "2620:fe::fe"]);
        assert!(none.is_failure());
        assert_eq!(
            none.remedy.as_deref(),
            Some("create a record: push.example.org A 9.9.9.9, push.example.org AAAA 2620:fe::fe")
        );
        let behind_a_router = judged(&[], &[], &[]).remedy.unwrap();
        assert!(behind_a_router.contains("or its router"), "{behind_a_router}");
        let wrong = judged(&["9.9.9.9", "2620:fe::1"], &["9.9.9.9"], &["9.9.9.9"]);
        assert!(wrong.words.ends_with("; this machine does not have 2620:fe::1"), "{wrong:?}");
        let elsewhere = judged(&["9.9.9.9"], &[], &[]);
        assert!(elsewhere.remedy.unwrap().starts_with("right if a router"));
        let inside = judged(&["10.0.0.1"], &["10.0.0.1"], &[]);
        assert!(inside.words.ends_with("in a local network"));
        let only_ipv6 = judged(&["2620:fe::fe"], &["2620:fe::fe"], &["9.9.9.9"]);
        assert_eq!(only_ipv6.verdict, Verdict::Warn);
        assert!(only_ipv6.remedy.unwrap().ends_with("push.example.org A 9.9.9.9"));
    }
}
