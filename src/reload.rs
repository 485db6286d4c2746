//! Reload of the configuration while deltapush runs: checked as a whole, then applied without dropping a session.

use std::io;
use std::sync::Arc;

use tracing::{info, warn};

use crate::config::{Config, ConfigError};
use crate::proxy::listener::Proxy;
use crate::push::watcher::Wishes;
use crate::reloadable::Reloadable;
use crate::tls::certs::reload;
use crate::tls::certs::{CertificateSet, CertificateSettings, Certificates, LoadError};
use crate::tls::client::TrustError;
use crate::trace::Tracer;
use crate::upstream::Upstreams;

/// Failure to apply a configuration. The previous one stays in effect.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A certificate that it names cannot be used.
    #[error(transparent)]
    Certificate(#[from] LoadError),
    /// A list of authorities that it names cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// It is valid only after a restart, because of listeners that cannot be opened or closed before.
    #[error("listeners change only at a restart; restart deltapush to apply this:\n{0}")]
    Listeners(#[source] ConfigError),
    /// The folder that traces go to cannot be made.
    #[error("the trace cannot be written to its folder: {0}")]
    Trace(#[source] io::Error),
    /// Our own fault.
    #[error("reading it panicked, which is a bug in deltapush")]
    Panicked,
}

/// The replaceable parts of a running [`Server`](crate::Server). Clones share them.
#[derive(Clone)]
pub struct Reloader {
    pub(crate) config: Reloadable<Config>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) proxy: Reloadable<Proxy>,
    pub(crate) upstreams: Reloadable<Upstreams>,
    pub(crate) wishes: Reloadable<Wishes>,
    pub(crate) tracer: Tracer,
}

impl Reloader {
    /// Applies `config` to new connections and watches; existing sessions keep their configuration. Keys that need a
    /// restart are logged and stay as they are.
    ///
    /// # Errors
    /// [`ReloadError`] if a file that it names cannot be used; then nothing has changed.
    pub async fn apply(&self, config: Config) -> Result<(), ReloadError> {
        let (before, upstreams) = (self.config.get(), self.upstreams.get());
        let told = fixed(&before, &config);
        let config = with_fixed(config, &before);
        // Without the new listeners, or with those that were to go, it may let strangers in.
        config.recheck("the new configuration").map_err(ReloadError::Listeners)?;
        let (known, wanted) = (Arc::clone(&before), CertificateSettings::from(&config));
        let tracer = self.tracer.clone();
        let read = tokio::task::spawn_blocking(move || {
            let set = CertificateSet::load(&wanted)?;
            let upstreams = upstreams.renewed(&known, &config)?;
            tracer.apply(&config.trace).map_err(ReloadError::Trace)?;
            Ok::<_, ReloadError>((config, wanted, set, upstreams))
        });
        let (config, wanted, set, upstreams) = read.await.map_err(|_| ReloadError::Panicked)??;
        for key in told {
            warn!("`{key}` has changed in the configuration: restart deltapush to apply it");
        }
        self.certificates.replace(wanted, set);
        reload::tell_troubles(&self.certificates);
        self.upstreams.set(upstreams);
        self.wishes.set(Wishes::from(&config));
        self.proxy.set(self.proxy.get().renewed(&config, self.upstreams.get()));
        if before.hostname != config.hostname {
            info!("the IMAP server to enter in Delta Chat is now {}", config.hostname);
        }
        self.config.set(config);
        info!("the configuration was read again and is in effect");
        Ok(())
    }
}

/// The changed keys that need a restart.
fn fixed(before: &Config, now: &Config) -> Vec<&'static str> {
    let push = |config: &Config| {
        let push = &config.push;
        (
            (push.notify_url.clone(), push.ca.clone(), push.contact.clone()),
            (push.coalesce, push.max_in_flight, push.max_per_second),
        )
    };
    [
        ("address or tls of listeners", !have_same_sockets(before, now)),
        ("storage", before.storage != now.storage),
        ("keep", before.keep != now.keep),
        ("admin", before.admin != now.admin),
        ("log.format", before.log.format != now.log.format),
        (
            "push.notify_url, ca, contact, coalesce, max_in_flight or max_per_second",
            push(before) != push(now),
        ),
        ("push.idle_renewal", before.push.idle_renewal != now.push.idle_renewal),
        ("pace", before.pace != now.pace),
        ("servers", before.servers != now.servers),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

fn have_same_sockets(before: &Config, now: &Config) -> bool {
    let (before, now) = (&before.listeners, &now.listeners);
    before.len() == now.len()
        && before.iter().all(|opened| now.iter().any(|listener| listener.is_same_socket(opened)))
}

/// The configuration with the previous values of keys that need a restart, so that the next reload logs them again.
fn with_fixed(mut config: Config, before: &Config) -> Config {
    let now = std::mem::take(&mut config.listeners);
    config.listeners = (before.listeners.iter())
        .map(|opened| {
            now.iter().find(|listener| listener.is_same_socket(opened)).unwrap_or(opened).clone()
        })
        .collect();
    config.storage.clone_from(&before.storage);
    config.keep.clone_from(&before.keep);
    config.admin.clone_from(&before.admin);
    config.log.format = before.log.format;
    config.push.notify_url = before.push.notify_url.clone();
    config.push.ca.clone_from(&before.push.ca);
    config.push.contact.clone_from(&before.push.contact);
    config.push.coalesce = before.push.coalesce;
    config.push.max_in_flight = before.push.max_in_flight;
    config.push.max_per_second = before.push.max_per_second;
    config.push.idle_renewal = before.push.idle_renewal;
    config.pace.clone_from(&before.pace);
    config.servers.clone_from(&before.servers);
    config
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    #[test]
    fn of_listeners_all_but_the_socket_may_change() {
        let before = Config::default();
        let mut now = Config::default();
        now.listeners[0].web = true;
        now.listeners.reverse();
        assert!(fixed(&before, &now).is_empty());
        assert!(with_fixed(now.clone(), &before).listeners[0].web);
        now.listeners[1].tls = crate::config::ListenerTls::StartTls;
        assert_eq!(fixed(&before, &now), ["address or tls of listeners"]);
        assert!(
            !with_fixed(now, &before).listeners[0].web,
            "the socket that is open stays as it was"
        );
    }

    #[test]
    fn open_port_that_was_to_go_makes_no_open_proxy() {
        let parse = |address: &str, domain: &str| {
            let yaml = format!(
                "listeners:\n  - address: {address}\n    tls: implicit\nroutes:\n  - domain: \"{domain}\"\n    \
                 upstream: imaps://imap.{{domain}}\n"
            );
            Config::parse(&yaml, Path::new(""), "test").unwrap()
        };
        let (before, now) = (parse("0.0.0.0:993", "a.example"), parse("127.0.0.1:993", "*"));
        let error = with_fixed(now, &before).recheck("test").unwrap_err().to_string();
        assert!(error.contains("lets strangers use this proxy through 0.0.0.0:993"), "{error}");
    }

    #[test]
    fn keys_that_need_a_restart_are_named_each_time() {
        let before = Config::default();
        let mut now = Config::default();
        now.log.level = "debug".into();
        now.limits.connections = 5;
        now.push.grace = Duration::from_secs(1);
        assert!(fixed(&before, &now).is_empty());
        now.listeners.pop();
        now.storage.directory = Path::new("elsewhere").into();
        now.keep.hand_back = false;
        now.push.coalesce = Duration::from_secs(99);
        now.servers = crate::config::known_servers();
        let told = fixed(&before, &now);
        assert_eq!(told.len(), 5);
        let kept = with_fixed(now.clone(), &before);
        assert_eq!(fixed(&kept, &now), told);
        assert_eq!(kept.limits, now.limits);
    }
}
