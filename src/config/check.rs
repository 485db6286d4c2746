//! What each key alone cannot know: whether they fit together, and whether they endanger anyone.

use std::collections::HashSet;

use super::error::Problem;
use super::{Config, Domain, Listener, ListenerTls, Route, Security};

/// All that is wrong in a configuration whose values are each well-formed, in the order of the file.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut problems: Vec<_> = listeners(&config.listeners)
        .chain(super::certificate::problems(config))
        .chain(routes(config))
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
        } else if listener.web && listener.tls != ListenerTls::Implicit {
            format!("`web: true` at {address} needs `tls: implicit`: browsers speak TLS from the first byte")
        } else {
            return None;
        };
        Some(Problem::new(address.place(), message))
    })
}

fn routes(config: &Config) -> impl Iterator<Item = Problem> {
    let public = config.listeners.iter().find(|listener| !listener.is_on_loopback());
    let mut seen = HashSet::new();
    config.routes.iter().flat_map(move |route| {
        let duplicate = (!seen.insert(&*route.domain)).then(|| {
            Problem::new(
                route.domain.place(),
                format!("there are two routes for `{}`: remove one of them", route.domain),
            )
        });
        duplicate.into_iter().chain(open_relay(route, public)).chain(plain(route)).chain(placeholder(route))
    })
}

fn open_relay(route: &Route, public: Option<&Listener>) -> Option<Problem> {
    let listener = public.filter(|_| *route.domain == Domain::Any && !route.open)?;
    let message = format!(
        "a \"*\" route lets strangers use this proxy through {}: \
         name the domains instead, listen on loopback only, or say `open: true` beside it",
        listener.address
    );
    Some(Problem::new(route.domain.place(), message))
}

fn plain(route: &Route) -> Option<Problem> {
    let upstream = &route.upstream;
    let in_clear = upstream.security == Security::Plain && !upstream.is_on_loopback() && !route.insecure;
    in_clear.then(|| {
        Problem::new(
            upstream.place(),
            format!(
                "passwords would cross the network in clear to {}: \
                 use `imaps://` or `imap://`, or say `insecure: true` beside it",
                upstream.host
            ),
        )
    })
}

fn placeholder(route: &Route) -> Option<Problem> {
    let Domain::Named(domain) = &*route.domain else { return None };
    let misfit = route.upstream.has_placeholder() && !super::is_dns_name(domain);
    misfit.then(|| {
        Problem::new(
            route.upstream.place(),
            format!("`{domain}` cannot stand for {{domain}} in a host name: write the host out"),
        )
    })
}
