//! Checks across routes: consistency, and no open proxy for strangers.

use super::error::ConfigProblem;
use super::located::Located;
use super::{Config, DOMAIN_PLACEHOLDER, Domain, Listener, Route, Security};

/// All problems of routes and listeners' names.
pub(super) fn problems(config: &Config) -> impl Iterator<Item = ConfigProblem> {
    config
        .live
        .routes
        .iter()
        .enumerate()
        .flat_map(|(index, route)| {
            let before = config.live.routes.iter().take(index);
            let place = route.place();
            [
                duplicate(route, before, &config.live.listeners),
                conditions(route),
                listener(route, &config.live.listeners),
                destination(route),
                discovery(route),
                open_relay(route, config),
                plain(route),
                placeholder(route),
                submission(route),
            ]
            .into_iter()
            .flatten()
            .map(move |problem| {
                if problem.place == Default::default() {
                    ConfigProblem::new(place, problem.message)
                } else {
                    problem
                }
            })
        })
        .chain(names(&config.live.listeners))
}

/// A problem of the route as a whole.
fn whole(message: impl Into<String>) -> Option<ConfigProblem> {
    Some(ConfigProblem::new(Default::default(), message))
}

fn duplicate<'a>(
    route: &Route,
    mut before: impl Iterator<Item = &'a Route>,
    listeners: &[Listener],
) -> Option<ConfigProblem> {
    let met_on = |route: &Route| {
        let name = route.listener.as_deref()?;
        listeners.iter().position(|listener| listener.is_called(name))
    };
    let domain = |route: &Route| route.named_domain().map(str::to_owned);
    let is_same = |other: &&Route| {
        other.address == route.address
            && domain(other) == domain(route)
            && other.host == route.host
            && other.listener.is_some() == route.listener.is_some()
            && met_on(other) == met_on(route)
    };
    let _ = before.find(is_same)?;
    whole(format!("there are two routes for `{route}`: remove one of them"))
}

fn conditions(route: &Route) -> Option<ConfigProblem> {
    let is_empty = route.address.is_none()
        && route.domain.is_none()
        && route.host.is_none()
        && route.listener.is_none();
    if is_empty {
        return whole(
            "this route matches no login: add `domain: example.org`, or `domain: \"*\"` for all others",
        );
    }
    let (address, domain) = (route.address.as_ref()?, route.domain.as_ref()?);
    let misfit = matches!(&**domain, Domain::Named(domain) if *domain != address.domain());
    misfit.then(|| {
        ConfigProblem::new(
            domain.place(),
            format!("`{}` is not in this domain: remove `domain`", **address),
        )
    })
}

fn listener(route: &Route, listeners: &[Listener]) -> Option<ConfigProblem> {
    let name = route.listener.as_ref()?;
    let is_known = listeners.iter().any(|listener| listener.is_called(name));
    (!is_known).then(|| {
        ConfigProblem::new(
            name.place(),
            format!("no listener is called `{}`: give the `name` or the `address` of one", **name),
        )
    })
}

fn destination(route: &Route) -> Option<ConfigProblem> {
    match (&route.upstream, route.discover) {
        (None, false) => whole(
            "this route has no server: add `upstream: imaps://imap.example.org`, or `discover: true`",
        ),
        (Some(upstream), true) => Some(ConfigProblem::new(
            upstream.place(),
            "`upstream` and `discover: true` exclude each other: remove one of them",
        )),
        _ => None,
    }
}

fn discovery(route: &Route) -> Option<ConfigProblem> {
    if !route.discover {
        let url = route.autoconfig.as_ref().map(Located::place);
        let place = url.or_else(|| (!route.targets.is_empty()).then(Default::default))?;
        return Some(ConfigProblem::new(
            place,
            "`targets` and `autoconfig` have no effect without `discover: true`: add it, or remove them",
        ));
    }
    let domain = route.named_domain().filter(|domain| !super::is_dns_name(domain))?;
    whole(format!(
        "the server of `{domain}` cannot be looked up: write the domain in ASCII, as `xn--…`"
    ))
}

/// A route that names no domain is for strangers, if these can reach it and nothing else keeps them out.
fn open_relay(route: &Route, config: &Config) -> Option<ConfigProblem> {
    if route.open || route.named_domain().is_some() || config.live.allow.is_restrictive() {
        return None;
    }
    let is_met =
        |listener: &&Listener| route.listener.as_ref().is_none_or(|name| listener.is_called(name));
    let is_open =
        |listener: &&Listener| !listener.is_on_loopback() && !listener.allow.is_restrictive();
    let listener = config.live.listeners.iter().filter(is_met).find(is_open)?;
    if route.place() == Default::default() {
        return whole(format!(
            "no `routes` are given, and the default for tests on one machine would let strangers use this proxy through {}: \
             add `routes:`, and below it `- domain: example.org` with `upstream: imaps://imap.example.org`",
            listener.address
        ));
    }
    whole(format!(
        "a \"*\" route lets strangers use this proxy through {}: \
         name the domains instead, restrict the logins under `allow`, listen on loopback only, \
         or add `open: true`",
        listener.address
    ))
}

fn plain(route: &Route) -> Option<ConfigProblem> {
    let upstream = route.upstream.as_ref()?;
    let in_clear =
        upstream.security == Security::Plain && !upstream.is_on_loopback() && !route.insecure;
    in_clear.then(|| {
        ConfigProblem::new(
            upstream.place(),
            format!(
                "passwords would cross the network in clear to {}: \
                 use `imaps://` or `imap://`, or add `insecure: true`",
                upstream.host
            ),
        )
    })
}

fn placeholder(route: &Route) -> Option<ConfigProblem> {
    let (upstream, domain) = (route.upstream.as_ref()?, route.named_domain()?);
    let misfit = upstream.has_placeholder() && !super::is_dns_name(domain);
    misfit.then(|| {
        ConfigProblem::new(
            upstream.place(),
            format!("`{domain}` cannot stand for {DOMAIN_PLACEHOLDER} in a host name: write the host out"),
        )
    })
}

fn submission(route: &Route) -> Option<ConfigProblem> {
    let (smtp, domain) = (route.smtp.as_ref()?, route.named_domain()?);
    let misfit = smtp.host.contains(DOMAIN_PLACEHOLDER) && !super::is_dns_name(domain);
    misfit.then(|| {
        ConfigProblem::new(
            smtp.place(),
            format!("`{domain}` cannot stand for {DOMAIN_PLACEHOLDER} in a host name: write the host out"),
        )
    })
}

fn names(listeners: &[Listener]) -> impl Iterator<Item = ConfigProblem> {
    listeners.iter().enumerate().filter_map(|(index, listener)| {
        let name = listener.name.as_ref()?;
        let mut before = listeners.iter().take(index);
        let is_taken = before.any(|other| other.name.as_deref() == Some(&**name));
        is_taken.then(|| {
            ConfigProblem::new(
                name.place(),
                format!("two listeners are called `{}`: rename one of them", **name),
            )
        })
    })
}
