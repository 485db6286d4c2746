//! From SRV records to servers in the order in which they are tried. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::DiscoveredServer;
use crate::config::Security;
use crate::dns::Srv;

/// A domain's records for one service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// It is there.
    Offered(Vec<DiscoveredServer>),
    /// The domain says that it has none: the target is the root (RFC 2782, RFC 6186 section 3.4).
    NotOffered,
}

/// The meaning of `records` for a service with `security`.
pub(super) fn service(records: &[Srv], security: Security) -> Service {
    let offers: Vec<_> = records
        .iter()
        .filter(|record| crate::config::is_dns_name(&record.target) && record.port > 0)
        .map(|record| DiscoveredServer {
            host: record.target.as_str().into(),
            port: record.port,
            security,
            priority: record.priority,
            weight: record.weight,
            by_local_part: false,
        })
        .collect();
    if offers.is_empty() { Service::NotOffered } else { Service::Offered(offers) }
}

/// Lower priorities first; among equals at random, the heavier the sooner (RFC 2782). `random(n)` gives a number from 0 to n.
pub(super) fn in_order(
    offers: &[DiscoveredServer],
    mut random: impl FnMut(u32) -> u32,
) -> Vec<DiscoveredServer> {
    let mut by_priority: BTreeMap<u16, Vec<&DiscoveredServer>> = BTreeMap::new();
    for offer in offers {
        by_priority.entry(offer.priority).or_default().push(offer);
    }
    let mut order = Vec::new();
    for mut equals in by_priority.into_values() {
        // Those of no weight first, so that they have a small chance at all.
        equals.sort_by_key(|offer| Reverse(offer.weight == 0));
        while !equals.is_empty() {
            let total =
                equals.iter().map(|offer| u32::from(offer.weight)).fold(0, u32::saturating_add);
            let drawn = random(total);
            let mut sum = 0_u32;
            let chosen = equals.iter().position(|offer| {
                sum = sum.saturating_add(u32::from(offer.weight));
                sum >= drawn
            });
            order.push(equals.remove(chosen.unwrap_or(0)).clone());
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, target: &str) -> Srv {
        Srv { priority, weight, port: 993, target: target.to_owned() }
    }

    fn offers(records: &[Srv]) -> Vec<DiscoveredServer> {
        match service(records, Security::Tls) {
            Service::Offered(offers) => offers,
            Service::NotOffered => panic!("not offered"),
        }
    }

    #[test]
    fn priorities_come_in_order_and_weights_by_lot() {
        let offers = offers(&[
            record(20, 0, "backup.example"),
            record(10, 30, "light.example"),
            record(10, 70, "heavy.example"),
            record(10, 0, "never.example"),
        ]);
        let order = |draws: &[u32]| {
            let mut draws = draws.iter().copied();
            let order = in_order(&offers, |most| draws.next().unwrap_or(0).min(most));
            order.iter().map(|offer| offer.host.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(order(&[1, 1]), "light.example heavy.example never.example backup.example");
        assert_eq!(order(&[31, 1]), "heavy.example light.example never.example backup.example");
        assert_eq!(order(&[0, 100]), "never.example heavy.example light.example backup.example");
        let first = |offer: &str| {
            (0..1000)
                .filter(|_| &*in_order(&offers, |most| fastrand::u32(0..=most))[0].host == offer)
                .count()
        };
        assert!((600..800).contains(&first("heavy.example")));
        assert_eq!(first("backup.example"), 0);
    }

    #[test]
    fn dot_means_that_there_is_none() {
        assert_eq!(service(&[record(0, 0, "")], Security::Tls), Service::NotOffered);
        assert_eq!(service(&[record(0, 0, "127.0.0.1")], Security::Tls), Service::NotOffered);
        assert_eq!(offers(&[record(0, 0, ""), record(0, 0, "a.example")]).len(), 1);
    }
}
