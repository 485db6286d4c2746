//! State and settings that all client connections share.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::native_push_cache::Probes;
use super::session;
use crate::admission::connection_slots::Door;
use crate::admission::login_limiter::LoginGate;
use crate::admission::slot_table;
use crate::config::{Allow, Listener, ListenerTls, LiveConfig, SessionLimits};
use crate::http::public::PublicSite;
use crate::push::kept::KeptSessions;
use crate::push::registry::{AccountLimits, Registry};
use crate::push::server_news::NewsReceiver;
use crate::tls::server::ServerTls;
use crate::trace::Tracer;
use crate::upstream::Upstreams;

/// Shared by all connections that began under the same configuration.
pub struct Proxy {
    pub(super) tls: ServerTls,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(super) registry: Registry,
    pub(super) kept: KeptSessions,
    pub(super) news: Option<NewsReceiver>,
    pub(super) session: Arc<session::SessionSettings>,
    /// SCRAM is among what is offered before the login.
    pub(super) offers_scram: bool,
    /// Logins with invented names are refused without asking.
    pub(super) refuses_invented: bool,
    /// For so long pushes wait for other devices.
    pub(super) grace: Duration,
    pub(super) limits: SessionLimits,
    /// Access rules for connections and logins, for all listeners.
    pub(super) allow: Allow,
    pub(super) tracer: Tracer,
    pub(super) probes: Arc<Probes>,
    pub(crate) site: Arc<PublicSite>,
    listeners: Vec<Arc<Listener>>,
    pub(super) gate: Arc<LoginGate>,
    pub(super) door: Arc<Door>,
    /// Room for connections that have not announced their client yet.
    pub(super) unannounced: Arc<Semaphore>,
    pub(super) next_session: Arc<AtomicU64>,
}

impl Proxy {
    /// A proxy as `config` wants it.
    #[must_use]
    pub fn new(
        config: &LiveConfig,
        tls: ServerTls,
        upstreams: Arc<Upstreams>,
        registry: Registry,
        gate: Arc<LoginGate>,
        tracer: Tracer,
    ) -> Self {
        registry.limit(account_limits(&config.limits));
        Self {
            tls,
            upstreams,
            registry,
            kept: KeptSessions::default(),
            news: None,
            session: Arc::new(session_settings(config)),
            offers_scram: config.login.scram,
            refuses_invented: config.login.refuse_invented,
            grace: config.push.grace,
            limits: config.limits.clone(),
            allow: config.allow.clone(),
            tracer,
            probes: Arc::default(),
            site: Arc::new(PublicSite::new(config)),
            listeners: config.listeners.iter().cloned().map(Arc::new).collect(),
            gate,
            door: Arc::new(Door::default()),
            unannounced: Arc::new(Semaphore::new(
                config.limits.before_login.min(Semaphore::MAX_PERMITS),
            )),
            next_session: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Hands clients' sessions over to `kept`.
    #[must_use]
    pub fn with_kept(self, kept: KeptSessions) -> Self {
        Self { kept, ..self }
    }

    /// Shows `news` how far mailboxes go that clients open, where no watch looks for new mail.
    #[must_use]
    pub fn with_news(self, news: NewsReceiver) -> Self {
        Self { news: Some(news), ..self }
    }

    /// The same proxy under another configuration: what is counted and known goes on.
    #[must_use]
    pub fn renewed(&self, config: &LiveConfig, upstreams: Arc<Upstreams>) -> Self {
        let (tls, registry) = (self.tls.clone(), self.registry.clone());
        self.gate.set_limits(config.limits.failed_logins.clone());
        Self {
            probes: Arc::clone(&self.probes),
            door: Arc::clone(&self.door),
            kept: self.kept.clone(),
            news: self.news.clone(),
            next_session: Arc::clone(&self.next_session),
            site: Arc::new(self.site.renewed(config)),
            ..Self::new(
                config,
                tls,
                upstreams,
                registry,
                Arc::clone(&self.gate),
                self.tracer.clone(),
            )
        }
    }
}

impl Proxy {
    /// Reports if a client with this address may connect at all. The address is that of the PROXY header, if there is
    /// one.
    pub(super) fn admits(&self, listener: &Listener, address: IpAddr) -> bool {
        self.allow.admits(address) && listener.allow.admits(address)
    }

    /// Reports if an authority may come to verify a name: its address is not known in advance, so its handshake tells.
    pub(super) fn awaits_authority(&self, listener: &Listener) -> bool {
        listener.tls == ListenerTls::Implicit && self.tls.challenges.are_under_way()
    }

    /// A listener that was opened as `opened`, as the configuration now has it.
    pub(super) fn current(&self, opened: &Arc<Listener>) -> Arc<Listener> {
        Arc::clone(
            self.listeners
                .iter()
                .find(|listener| listener.socket() == opened.socket())
                .unwrap_or(opened),
        )
    }

    /// Reports if this login may be used, whatever the routes say.
    pub(super) fn allows(&self, listener: &Listener, login: &str) -> bool {
        self.allow.allows(login) && listener.allow.allows(login)
    }
}

/// The number of recipients that a message may have, as told to clients: Delta Chat's own default, so that the answer
/// changes nothing but its opinion on push (chatmail/core).
const MAX_RECIPIENTS: (&str, &str) = ("/shared/vendor/deltachat/maxsmtprecipients", "50");

fn account_limits(limits: &SessionLimits) -> AccountLimits {
    AccountLimits {
        accounts: limits.accounts.unwrap_or_else(SessionLimits::accounts_by_memory),
        new_per_address: limits.new_accounts_per_address,
    }
}

fn session_settings(config: &LiveConfig) -> session::SessionSettings {
    let mut entries: Vec<(String, String)> = config
        .metadata
        .iter()
        .map(|(entry, value)| (entry.to_owned(), value.expose().to_owned()))
        .collect();
    if !entries.iter().any(|(entry, _)| entry.eq_ignore_ascii_case(MAX_RECIPIENTS.0)) {
        entries.push((MAX_RECIPIENTS.0.into(), MAX_RECIPIENTS.1.into()));
    }
    session::SessionSettings {
        entries,
        push_status: config.metadata.push_status,
        native: config.push.native,
        keepalive: config.relay.keepalive,
        jmapaccess: config.relay.jmapaccess,
        command_time: config.limits.command_time,
        max_command: config.limits.command.bytes(),
        max_response: config.limits.response.bytes(),
    }
}

impl From<&SessionLimits> for slot_table::SlotLimits {
    fn from(limits: &SessionLimits) -> Self {
        Self {
            connections: limits.connections,
            per_address: limits.per_address,
            before_login: limits.before_login,
            before_login_per_address: limits.before_login_per_address,
        }
    }
}
