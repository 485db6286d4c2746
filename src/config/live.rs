//! Configuration that a reload replaces.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{
    AccountSettingsByName, Allow, Certificate, Config, DnsSettings, Hostname, Listener,
    LoginSettings, Messages, Metadata, Native, RelaySettings, Route, SessionLimits, TraceSettings,
};

/// Values that SIGHUP replaces: new connections and watches take the new ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveConfig {
    /// The name that people enter in Delta Chat as IMAP server.
    pub hostname: Hostname,
    /// The listeners. At least one. `address` and `tls` are those of the open sockets: see [`LiveConfig::on_open_sockets`].
    pub listeners: Vec<Listener>,
    /// The certificate that clients see.
    pub certificate: Certificate,
    /// The routes. At least one, no two with the same conditions.
    pub routes: Vec<Route>,
    /// Restrictions of access, in addition to the routes.
    pub allow: Allow,
    /// Name resolution.
    pub dns: DnsSettings,
    /// Changes to the traffic between client and mail server.
    pub relay: RelaySettings,
    /// Messages that wake a device.
    pub push: PushRules,
    /// Settings per account, by login name.
    pub accounts: AccountSettingsByName,
    /// Server metadata that deltapush answers itself.
    pub metadata: Metadata,
    /// Login mechanisms and refusals for clients.
    pub login: LoginSettings,
    /// Limits on connections, commands and accounts.
    pub limits: SessionLimits,
    /// A level, or a list of them per part: `info,deltapush::push=debug`.
    pub log_level: String,
    /// Outputs of the trace.
    pub trace: TraceSettings,
}

/// Decisions about pushes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushRules {
    /// Behaviour at an upstream with push of its own.
    pub native: Native,
    /// Messages that wake a device.
    pub messages: Messages,
    /// The grace: time in which another device may fetch a message before a push is sent; zero for none.
    pub grace: Duration,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Config::default().live
    }
}

impl LiveConfig {
    /// The addresses of the ports that others come to: clients, and authorities over HTTP.
    pub fn public_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let http = self.certificate.acme.as_ref().and_then(|acme| acme.http.as_deref().copied());
        self.listeners.iter().map(|listener| *listener.address).chain(http)
    }

    /// The same with the listeners of the sockets that `before` has open: a listener of another socket waits for the next start,
    /// and one that is gone from the file keeps its previous settings.
    #[must_use]
    pub fn on_open_sockets(self, before: &Self) -> Self {
        let current = |opened: &Listener| {
            let found = self.listeners.iter().find(|new| new.socket() == opened.socket());
            found.unwrap_or(opened).clone()
        };
        let listeners = before.listeners.iter().map(current).collect();
        Self { listeners, ..self }
    }

    /// Files that each reload reads again.
    pub(super) fn resolve_paths(&mut self, base_dir: &Path) {
        let resolve = |path: &mut PathBuf| *path = base_dir.join(&path);
        resolve(&mut self.certificate.directory);
        self.certificate.chain.as_deref_mut().map(resolve);
        self.certificate.key.as_deref_mut().map(resolve);
        self.certificate
            .more
            .iter_mut()
            .flat_map(|files| [&mut files.chain, &mut files.key])
            .for_each(resolve);
        self.trace.files.as_mut().map(|files| &mut files.directory).map(resolve);
        let acme = self.certificate.acme.as_deref_mut().and_then(|acme| acme.ca.as_mut());
        let routes = self.routes.iter_mut().map(|route| &mut *route.ca);
        routes.chain(acme).for_each(|trust| trust.resolve(base_dir));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ListenerTls;

    #[test]
    fn of_open_listeners_all_but_the_socket_changes() {
        let before = LiveConfig::default();
        let mut new = before.clone();
        new.listeners[0].web = true;
        new.listeners.reverse();
        assert!(new.clone().on_open_sockets(&before).listeners[0].web);
        new.listeners[1].tls = ListenerTls::StartTls;
        assert_eq!(new.on_open_sockets(&before).listeners, before.listeners);
    }
}
