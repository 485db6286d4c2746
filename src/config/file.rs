//! The shape of `config.yaml`, and which of its keys a reload changes. The conversion names every key, so that a new one does not
//! compile until it is sorted into [`StartupConfig`] or [`LiveConfig`].

use serde::Deserialize;

use super::live::{LiveConfig, PushRules};
use super::log::LogSettings;
use super::push::Push;
use super::startup::{PushDelivery, StartupConfig};
use super::{
    AccountSettingsByName, Acme, Admin, Allow, Certificate, Config, DnsSettings, Hostname,
    KeepSettings, Listener, Located, LoginSettings, Metadata, NewsSettings, Node, PacingLimits,
    RelaySettings, Route, ServerSettings, SessionLimits, Storage, TraceSettings,
};

/// A section per field, as it stands in the file.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ConfigFile {
    hostname: Hostname,
    listeners: Vec<Listener>,
    certificate: Certificate,
    routes: Vec<Route>,
    allow: Allow,
    dns: DnsSettings,
    relay: RelaySettings,
    push: Push,
    pace: PacingLimits,
    servers: Vec<ServerSettings>,
    accounts: AccountSettingsByName,
    metadata: Metadata,
    storage: Storage,
    node: Node,
    news: NewsSettings,
    keep: KeepSettings,
    login: LoginSettings,
    limits: SessionLimits,
    admin: Admin,
    log: LogSettings,
    trace: TraceSettings,
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self {
            hostname: Hostname::localhost(),
            listeners: Listener::defaults(),
            certificate: Certificate::default(),
            routes: Route::defaults(),
            allow: Allow::default(),
            dns: DnsSettings::default(),
            relay: RelaySettings::default(),
            push: Push::default(),
            pace: PacingLimits::default(),
            servers: Vec::new(),
            accounts: AccountSettingsByName::new(),
            metadata: Metadata::default(),
            storage: Storage::default(),
            node: Node::default(),
            news: NewsSettings::default(),
            keep: KeepSettings::default(),
            login: LoginSettings::default(),
            limits: SessionLimits::default(),
            admin: Admin::default(),
            log: LogSettings::default(),
            trace: TraceSettings::default(),
        }
    }
}

impl ConfigFile {
    /// The file that variables of the environment stand for.
    pub(super) fn of_environment(
        hostname: Hostname,
        listeners: Vec<Listener>,
        routes: Vec<Route>,
        acme: Option<Located<Acme>>,
    ) -> Self {
        let certificate = Certificate { acme, ..Certificate::default() };
        Self { hostname, listeners, routes, certificate, ..Self::default() }
    }
}

impl From<ConfigFile> for Config {
    fn from(file: ConfigFile) -> Self {
        let ConfigFile {
            hostname,
            listeners,
            certificate,
            routes,
            allow,
            dns,
            relay,
            push:
                Push {
                    notify_url,
                    ca,
                    contact,
                    native,
                    coalesce,
                    messages,
                    grace,
                    idle_renewal,
                    max_in_flight,
                    max_per_second,
                },
            pace,
            servers,
            accounts,
            metadata,
            storage,
            node,
            news,
            keep,
            login,
            limits,
            admin,
            log: LogSettings { level: log_level, format: log_format },
            trace,
        } = file;
        Self {
            startup: StartupConfig {
                sockets: listeners.iter().map(Listener::socket).collect(),
                storage,
                node,
                news,
                keep,
                admin,
                log_format,
                push: PushDelivery {
                    notify_url,
                    ca,
                    contact,
                    coalesce,
                    max_in_flight,
                    max_per_second,
                },
                idle_renewal,
                pace,
                servers,
            },
            live: LiveConfig {
                hostname,
                listeners,
                certificate,
                routes,
                allow,
                dns,
                relay,
                push: PushRules { native, messages, grace },
                accounts,
                metadata,
                login,
                limits,
                log_level,
                trace,
            },
        }
    }
}
