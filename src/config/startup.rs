//! Configuration that is read once: the next start applies a change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;

use super::listeners::ListenerSocket;
use super::{
    Admin, Config, Contact, KeepSettings, LogFormat, NewsSettings, Node, PacingLimits,
    ServerSettings, Storage, Trust,
};

/// Values that a running server cannot change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupConfig {
    /// The sockets of the listeners, in the order of the file. At least one.
    pub sockets: Vec<ListenerSocket>,
    /// The persistent state.
    pub storage: Storage,
    /// This machine among those that share the state.
    pub node: Node,
    /// Ways of the mail server's news.
    pub news: NewsSettings,
    /// Kept sessions, where no password is stored.
    pub keep: KeepSettings,
    /// The admin listener: web page, metrics and health.
    pub admin: Admin,
    /// Format and destination of the log.
    pub log_format: LogFormat,
    /// The notification server and the pace of notifications.
    pub push: PushDelivery,
    /// Time in IDLE before a watch renews it; up to a tenth less, at random.
    pub idle_renewal: Duration,
    /// Pacing of new watch sessions.
    pub pace: PacingLimits,
    /// Settings per mail server; the first match wins, before the built-in ones.
    pub servers: Vec<ServerSettings>,
}

/// Destination and rate of notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushDelivery {
    /// The notification server: https, or http on loopback.
    pub notify_url: Url,
    /// Trusted authorities for its certificate. Default: Mozilla's list and this machine's.
    pub ca: Option<Trust>,
    /// Contact for the people who run the notification server, named in each request.
    pub contact: Option<Contact>,
    /// At most one notification per token in this time.
    pub coalesce: Duration,
    /// Concurrent notifications.
    pub max_in_flight: usize,
    /// The most notifications sent in a second, over all: it is other people's server.
    pub max_per_second: u32,
}

impl Default for StartupConfig {
    fn default() -> Self {
        Config::default().startup
    }
}

impl StartupConfig {
    /// The keys whose values differ in `new`, as a log line names them. Keys that the log names together are one entry.
    #[must_use]
    pub fn changed_keys(&self, new: &Self) -> Vec<&'static str> {
        // Without `..`: a key that is not compared does not compile.
        let Self {
            sockets,
            storage,
            node,
            news,
            keep,
            admin,
            log_format,
            push,
            idle_renewal,
            pace,
            servers,
        } = self;
        [
            ("address or tls of listeners", !are_same(sockets, &new.sockets)),
            ("storage", *storage != new.storage),
            ("node", *node != new.node),
            ("news", *news != new.news),
            ("keep", *keep != new.keep),
            ("admin", *admin != new.admin),
            ("log.format", *log_format != new.log_format),
            (
                "push.notify_url, ca, contact, coalesce, max_in_flight or max_per_second",
                *push != new.push,
            ),
            ("push.idle_renewal", *idle_renewal != new.idle_renewal),
            ("pace", *pace != new.pace),
            ("servers", *servers != new.servers),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// Files that a reload does not read again.
    pub(super) fn resolve_paths(&mut self, base_dir: &Path) {
        let resolve = |path: &mut PathBuf| *path = base_dir.join(&path);
        resolve(&mut self.storage.directory);
        self.storage.key_file.as_mut().map(resolve);
        if let Some(postgres) = &mut self.storage.postgres {
            postgres.ca.resolve(base_dir);
            postgres.password_file.as_mut().map(resolve);
        }
        self.news.socket.as_mut().map(resolve);
        self.admin.password_file.as_mut().map(resolve);
        self.news.dict.as_mut().map(resolve);
        if let Some(ca) = &mut self.push.ca {
            ca.resolve(base_dir);
        }
    }
}

/// Compares sockets in any order.
fn are_same(before: &[ListenerSocket], now: &[ListenerSocket]) -> bool {
    before.len() == now.len() && before.iter().all(|socket| now.contains(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ListenerTls, known_servers};

    #[test]
    fn each_key_that_needs_a_restart_is_named() {
        let before = StartupConfig::default();
        let mut new = before.clone();
        assert!(before.changed_keys(&new).is_empty());
        new.sockets.pop();
        new.storage.directory = Path::new("elsewhere").into();
        new.keep.hand_back = false;
        new.push.coalesce = Duration::from_secs(99);
        new.servers = known_servers();
        assert_eq!(before.changed_keys(&new).len(), 5);
    }

    #[test]
    fn sockets_compare_in_any_order() {
        let before = StartupConfig::default();
        let mut new = before.clone();
        new.sockets.reverse();
        assert!(before.changed_keys(&new).is_empty());
        new.sockets[1].tls = ListenerTls::StartTls;
        assert_eq!(before.changed_keys(&new), ["address or tls of listeners"]);
    }
}
