//! Reload of the configuration while deltapush runs: checked as a whole, then applied without dropping a session.

use std::io;
use std::sync::Arc;

use tracing::{info, warn};

use crate::config::{Config, ConfigError, LiveConfig, StartupConfig};
use crate::proxy::Proxy;
use crate::push::watcher::WatchSettings;
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
    pub(crate) startup: Arc<StartupConfig>,
    pub(crate) live: Reloadable<LiveConfig>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) proxy: Reloadable<Proxy>,
    pub(crate) upstreams: Reloadable<Upstreams>,
    pub(crate) watch_settings: Reloadable<WatchSettings>,
    pub(crate) tracer: Tracer,
}

impl Reloader {
    /// Applies `config` to new connections and watches; existing sessions keep their configuration. Keys that need a
    /// restart are logged and stay as they are.
    ///
    /// # Errors
    /// [`ReloadError`] if a file that it names cannot be used; then nothing has changed.
    pub async fn apply(&self, config: Config) -> Result<(), ReloadError> {
        let (before, upstreams) = (self.live.get(), self.upstreams.get());
        let unapplied = self.startup.changed_keys(&config.startup);
        let live = in_effect(config.live, &self.startup, &before)?;
        let (known, wanted) = (Arc::clone(&before), CertificateSettings::from(&live));
        let tracer = self.tracer.clone();
        let read = tokio::task::spawn_blocking(move || {
            let set = CertificateSet::load(&wanted)?;
            let upstreams = upstreams.renewed(&known, &live)?;
            tracer.apply(&live.trace).map_err(ReloadError::Trace)?;
            Ok::<_, ReloadError>((live, wanted, set, upstreams))
        });
        let (live, wanted, set, upstreams) = read.await.map_err(|_| ReloadError::Panicked)??;
        for key in unapplied {
            warn!("`{key}` has changed in the configuration: restart deltapush to apply it");
        }
        self.certificates.replace(wanted, set);
        reload::log_troubles(&self.certificates);
        self.upstreams.set(upstreams);
        self.watch_settings.set(WatchSettings::new(&self.startup, &live));
        self.proxy.set(self.proxy.get().renewed(&live, self.upstreams.get()));
        if before.hostname != live.hostname {
            info!("the IMAP server to enter in Delta Chat is now {}", live.hostname);
        }
        self.live.set(live);
        info!("the configuration was read again and is in effect");
        Ok(())
    }
}

/// `new` on the sockets that are open, checked together with the values that stay.
fn in_effect(
    new: LiveConfig,
    startup: &StartupConfig,
    before: &LiveConfig,
) -> Result<LiveConfig, ReloadError> {
    let config = Config { startup: startup.clone(), live: new.on_open_sockets(before) };
    // Without the new listeners, or with those that were to go, it may let strangers in.
    config.recheck("the new configuration").map_err(ReloadError::Listeners)?;
    Ok(config.live)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

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
        let error = in_effect(now.live, &before.startup, &before.live).unwrap_err().to_string();
        assert!(error.contains("lets strangers use this proxy through 0.0.0.0:993"), "{error}");
    }
}
