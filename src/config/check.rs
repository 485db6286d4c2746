//! What each key alone cannot know: whether they fit together, and whether they endanger anyone.

use std::collections::HashSet;

use super::error::Problem;
use super::{Config, Listener, ListenerTls};

/// All that is wrong in a configuration whose values are each well-formed, in the order of the file.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut problems: Vec<_> = listeners(&config.listeners)
        .chain(certificate(config))
        .chain(super::check_routes::problems(config))
        .chain(empty_lists(config))
        .collect();
    problems.sort_by_key(|problem| problem.place);
    problems
}

fn empty_lists(config: &Config) -> impl Iterator<Item = Problem> {
    let empty = |is_empty: bool, key| {
        is_empty.then(|| {
            Problem::new(
                Default::default(),
                format!("`{key}` is an empty list: add one, or remove the key to have the default"),
            )
        })
    };
    empty(config.listeners.is_empty(), "listeners").into_iter().chain(empty(config.routes.is_empty(), "routes"))
}

fn listeners(listeners: &[Listener]) -> impl Iterator<Item = Problem> {
    let mut seen = HashSet::new();
    listeners.iter().filter_map(move |listener| {
        let address = &listener.address;
        let message = if !seen.insert(**address) {
            format!("{address} is listened on twice: remove one of the two")
        } else if listener.tls == ListenerTls::None && !listener.insecure && !listener.is_on_loopback() {
            format!(
                "with `tls: none` passwords would cross the network in clear at {address}: \
                 use `tls: implicit` or `starttls`, an address on loopback, \
                 or say `insecure: true` beside it"
            )
        } else {
            return None;
        };
        Some(Problem::new(address.place(), message))
    })
}

fn certificate(config: &Config) -> Option<Problem> {
    match (&config.certificate.chain, &config.certificate.key) {
        (Some(chain), None) => Some(Problem::new(
            chain.place(),
            "`chain` without `key`: name the private key's file too, or remove both to have a self-signed certificate",
        )),
        (None, Some(key)) => Some(Problem::new(
            key.place(),
            "`key` without `chain`: name the certificate's file too, or remove both to have a self-signed certificate",
        )),
        _ => None,
    }
}
