//! Checks across keys: consistency, and combinations that are not safe.

use std::collections::HashSet;

use super::error::ConfigProblem;
use super::{Config, Listener, ListenerTls};

/// All problems of a configuration whose values are each well-formed, in the order of the file.
pub(super) fn problems(config: &Config) -> Vec<ConfigProblem> {
    let mut problems: Vec<_> = listeners(&config.live.listeners)
        .chain(super::certificate::problems(config))
        .chain(super::check_routes::problems(config))
        .chain(super::admin::problems(config))
        .chain(super::news::problems(config))
        .chain(super::postgres::problems(config))
        .chain(empty_lists(config))
        .collect();
    problems.sort_by_key(|problem| problem.place);
    problems
}

fn empty_lists(config: &Config) -> impl Iterator<Item = ConfigProblem> {
    let empty = |is_empty: bool, key| {
        is_empty.then(|| {
            ConfigProblem::new(
                Default::default(),
                format!(
                    "`{key}` is an empty list: add an entry, or remove the key to use the default"
                ),
            )
        })
    };
    empty(config.live.listeners.is_empty(), "listeners")
        .into_iter()
        .chain(empty(config.live.routes.is_empty(), "routes"))
}

fn listeners(listeners: &[Listener]) -> impl Iterator<Item = ConfigProblem> {
    let mut seen = HashSet::new();
    listeners.iter().filter_map(move |listener| {
        let address = &listener.address;
        let message = if !seen.insert(**address) {
            format!("two listeners have the address {address}: remove one of them")
        } else if listener.tls == ListenerTls::None && !listener.insecure && !listener.is_on_loopback() {
            format!(
                "with `tls: none` passwords would cross the network in clear at {address}: \
                 use `tls: implicit` or `starttls`, an address on loopback, \
                 or add `insecure: true`"
            )
        } else if listener.web && listener.tls != ListenerTls::Implicit {
            format!("`web: true` at {address} needs `tls: implicit`: browsers speak TLS from the first byte")
        } else {
            return None;
        };
        Some(ConfigProblem::new(address.place(), message))
    })
}
