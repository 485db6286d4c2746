//! Runs all parts of the server, from the open listeners to the end of the last session.

mod node;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::activation::Sockets;
use crate::admin::control::ControlSocket;
use crate::admin::control_server::ControlServer;
use crate::admin::format::counted;
use crate::admin::status::Reporter;
use crate::admission::login_limiter::LoginGate;
use crate::admission::remember::{from_state, keep_known_logins};
use crate::cluster::shared::SharedError;
use crate::config::{self, Config, DOMAIN_PLACEHOLDER, ListenerTls, PushDelivery};
use crate::dict;
use crate::dns::HttpDns;
use crate::http::admin::password::{Password, PasswordError};
use crate::http::admin::{self, site};
use crate::http::challenge::ChallengePort;
use crate::http::listening::Listening;
use crate::http::metrics::{Exposition, MetricSources};
use crate::http::news;
use crate::logging::LogLimit;
use crate::proxy::Proxy;
use crate::proxy::listener;
use crate::proxy::server_facts::FactExchange;
use crate::proxy::submission_lookup::keep_known;
use crate::push::kept::KeptSessions;
use crate::push::notifier::{ClientError, Notifier};
use crate::push::registry::{AccountEvents, Registry, upkeep};
use crate::push::server_news::NewsReceiver;
use crate::push::watcher::{WatchSettings, Watchers};
use crate::push::{notifier, schedule};
use crate::reload::Reloader;
use crate::reloadable::Reloadable;
use crate::store::{self, OpenError, UnixTime};
use crate::tls::acme;
use crate::tls::certs::CertificateSettings;
use crate::tls::certs::identity::CertificateOrigin;
use crate::tls::certs::reload;
use crate::tls::client::{TrustError, https_roots};
use crate::tls::server::{ServerTls, ServerTlsError};
use crate::trace::Tracer;
use crate::upstream::Upstreams;
use node::{Joining, Node};

/// Time limit for sessions to end after the start of a shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// Time limit for notifications in flight after that.
const PUSH_GRACE: Duration = Duration::from_secs(5);

/// Failure to start deltapush.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener's address cannot be opened.
    #[error("cannot listen on {address}: {error}; {}", crate::file_access::listen_remedy(error))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// No certificate for clients.
    #[error(transparent)]
    Certificate(#[from] ServerTlsError),
    /// No certificate authorities for upstream servers, or for the notification server.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The state cannot be opened.
    #[error(transparent)]
    State(#[from] OpenError),
    /// The things that all nodes show to clients cannot be taken over.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// No password for the web page.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The outputs of the trace cannot be made.
    #[error("the trace cannot be written to its folder: {0}; see `trace` in the configuration")]
    Trace(#[source] io::Error),
    /// No random numbers.
    #[error("the operating system has no random numbers")]
    Random,
    /// Our own fault.
    #[error("{0}, which is a bug in deltapush")]
    Internal(&'static str),
    /// No client for the notification server.
    #[error(transparent)]
    Notifier(#[from] ClientError),
}

/// A listening socket and its configuration.
#[derive(Debug)]
pub struct BoundListener {
    /// The socket.
    pub socket: TcpListener,
    /// Its configuration.
    pub listener: Arc<config::Listener>,
}

/// Opens the listeners of `config`; sockets in `passed` are used where they match.
///
/// # Errors
/// [`RunError::Listen`] with the address that cannot be opened.
pub async fn bind(config: &Config, mut passed: Sockets) -> Result<Vec<BoundListener>, RunError> {
    let mut bound = Vec::new();
    for listener in &config.live.listeners {
        let address = *listener.address;
        let error = |error| RunError::Listen { address, error };
        let socket = match passed.take(address) {
            Some(socket) => {
                socket.set_nonblocking(true).map_err(error)?;
                TcpListener::from_std(socket).map_err(error)?
            }
            None => TcpListener::bind(address).await.map_err(error)?,
        };
        bound.push(BoundListener { socket, listener: Arc::new(listener.clone()) });
    }
    passed.finish();
    Ok(bound)
}

/// A deltapush that is ready to serve: certificate, state and routes are there.
pub struct Server {
    config: Config,
    tls: ServerTls,
    reloader: Reloader,
    registry: Registry,
    gate: Arc<LoginGate>,
    watchers: Watchers,
    kept: KeptSessions,
    account_events: AccountEvents,
    notifier: Notifier,
    /// One of several that share the state, where they do.
    node: Option<Node>,
    /// The password of the web page, if there is one.
    password: Option<Password>,
    log: LogLimit,
    /// The socket for challenges of an authority, if systemd passed it on.
    challenge_socket: Option<(SocketAddr, StdListener)>,
    /// The socket of the news hook, if systemd passed it on.
    news_socket: Option<StdListener>,
}

impl Server {
    /// Loads or creates what `config` names: certificates, the state, lists of authorities, the outputs of the trace.
    /// Blocks on the disk; awaits a database.
    ///
    /// # Errors
    /// [`RunError`], the operator's to mend.
    pub async fn prepare(config: Config) -> Result<Self, RunError> {
        let state = store::StoreSettings::new(&config.startup.storage);
        let joining = Joining::open(&state, &config).await?;
        let tls = ServerTls::load(&CertificateSettings::from(&config.live))?;
        let tls = joining.iter().fold(tls, |tls, joining| joining.with_tls(tls));
        let upstreams = Reloadable::new(Upstreams::new(&config.live)?);
        let (opened, joining) = match joining {
            Some(Joining { opened, parts }) => (opened, Some(parts)),
            None => (Registry::open(&state)?, None),
        };
        let (registry, account_events, token_news) = opened;
        let password = config
            .startup
            .admin
            .address
            .is_some()
            .then(|| Password::load(&config.startup))
            .transpose()?;
        let notifier =
            Notifier::new(notifier_settings(&config.startup.push)?, registry.clone(), token_news)?;
        let gate = LoginGate::new(config.live.limits.failed_logins.clone())
            .map_err(|_| RunError::Random)?
            .sharing(registry.ownership().clone());
        let memory = registry.take_login_memory();
        let gate = match &memory.key {
            Some(key) => gate.restored(key, &from_state(&memory.entries, UnixTime::now())),
            None => gate,
        };
        let gate = Arc::new(if registry.keeps_sessions() { gate.brief() } else { gate });
        let watch_settings = Reloadable::new(WatchSettings::new(&config.startup, &config.live));
        let tracer = Tracer::default();
        tracer.apply(&config.live.trace).map_err(RunError::Trace)?;
        let watchers = Watchers::new(
            &config.startup,
            registry.clone(),
            upstreams.clone(),
            watch_settings.clone(),
            tracer.clone(),
        );
        let node = joining.map(|parts| Node::new(parts, &registry, &watchers, &notifier));
        let kept = KeptSessions::new(&watchers, &config.startup.keep);
        let proxy = Proxy::new(
            &config.live,
            tls.clone(),
            upstreams.get(),
            registry.clone(),
            Arc::clone(&gate),
            tracer.clone(),
        )
        .with_kept(kept.clone())
        .with_news(NewsReceiver::new(&watchers));
        let reloader = Reloader {
            startup: Arc::new(config.startup.clone()),
            live: Reloadable::new(config.live.clone()),
            certificates: Arc::clone(&tls.certificates),
            proxy: Reloadable::new(proxy),
            upstreams,
            watch_settings,
            tracer,
        };
        let log = LogLimit::default();
        Ok(Self {
            config,
            tls,
            reloader,
            registry,
            gate,
            watchers,
            kept,
            account_events,
            notifier,
            node,
            password,
            log,
            challenge_socket: None,
            news_socket: None,
        })
    }

    /// Adds the lines that `limit` has left out of the log to the metrics.
    #[must_use]
    pub fn counting_log(self, limit: LogLimit) -> Self {
        Self { log: limit, ..self }
    }

    /// Takes the sockets for challenges of an authority and for news of mail servers from `sockets`, if they are among them.
    #[must_use]
    pub fn taking_sockets(self, sockets: &mut Sockets) -> Self {
        let acme = self.config.live.certificate.acme.as_ref();
        let address = acme.and_then(|acme| acme.http.as_deref().copied());
        let passed = address.and_then(|address| Some((address, sockets.take(address)?)));
        let news = self.config.startup.news.listen.as_deref().copied();
        let news = news.and_then(|address| sockets.take(address));
        Self { challenge_socket: passed, news_socket: news, ..self }
    }

    /// The handle that applies another configuration while the server runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// The configuration that it starts with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Serves clients on `listeners` until `shutdown` resolves, then shuts down in order. Calls `ready` as soon as clients and
    /// the commands that ask for the state may come.
    ///
    /// # Errors
    /// [`RunError::Internal`] if a part without which there are no pushes ended by itself: the process is best started again.
    pub async fn run(
        self,
        listeners: Vec<BoundListener>,
        ready: impl FnOnce(),
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), RunError> {
        let control = ControlSocket::open(&self.config.startup.storage.directory);
        let news = self.config.startup.news.socket.as_deref();
        let commands = [control, news.and_then(ControlSocket::open_for_news)];
        ready();
        introduce(&self.config, &listeners, &self.tls, &self.registry);
        raise_file_limit(&self.config, self.registry.len());
        let Self {
            config: Config { startup, live },
            tls,
            reloader,
            registry,
            gate,
            watchers,
            kept,
            account_events,
            notifier,
            node,
            password,
            log,
            challenge_socket,
            news_socket,
        } = self;
        let stop = CancellationToken::new();
        // Listeners and clients end before a node leaves its companions.
        let stop_clients = stop.child_token();
        let tasks = TaskTracker::new();
        let Reloader { proxy, tracer, watch_settings, .. } = reloader;
        let listening = Listening::default();
        let reporter = Reporter::new(registry.clone(), watch_settings)
            .with_gate(Arc::clone(&gate))
            .with_certificates(Arc::clone(&tls.certificates))
            .with_cluster(node.as_ref().map(Node::view))
            .with_questions(node.as_ref().map(Node::questions));
        let reporter = Arc::new(reporter);
        if let Some(password) = password {
            let metrics = Exposition::new(MetricSources {
                registry: registry.clone(),
                certificates: Arc::clone(&tls.certificates),
                listening: listening.clone(),
                log,
                tracer: tracer.clone(),
                cluster: node.as_ref().map(Node::view),
            });
            let sources = site::Sources {
                reporter: Arc::clone(&reporter),
                registry: registry.clone(),
                listening: listening.clone(),
                metrics,
            };
            admin::start(&startup.admin, &live.hostname, password, sources, &tls, &tasks, &stop)
                .await;
        }
        let news_receiver = NewsReceiver::new(&watchers);
        let taker = (news_receiver.clone(), registry.telemetry().clone());
        if let Some(path) = startup.news.dict.clone() {
            dict::start(path, taker.clone(), &tasks, &stop);
        }
        news::start(&startup.news, news_socket, taker, &tls, &tasks, &stop);
        let (watches, waker) = (watchers.run(account_events, stop.clone()), kept.run(stop.clone()));
        let mut watching = tasks.spawn(async move { tokio::join!(watches, waker) });
        let answers = Arc::new(ControlServer::new(
            Arc::clone(&reporter),
            notifier.tester(),
            tracer.clone(),
            news_receiver,
        ));
        for socket in commands.into_iter().flatten() {
            tasks.spawn(socket.serve(Arc::clone(&answers), stop.clone()));
        }
        if node.is_some() {
            tasks.spawn(FactExchange::begin(proxy.clone()).await.run(stop.clone()));
        }
        for BoundListener { socket, listener } in listeners {
            let serving = listener::serve(
                proxy.clone(),
                socket,
                listener,
                tasks.clone(),
                stop_clients.clone(),
            );
            tasks.spawn(listening.begin().during(serving));
        }
        tasks.spawn(keep_known(proxy.clone(), stop.clone()));
        tasks.spawn(reload::keep_current(Arc::clone(&tls.certificates), stop.clone()));
        let challenges = tls.challenges;
        let port =
            ChallengePort::new(challenges.clone(), challenge_socket, tasks.clone(), stop.clone());
        let services = acme::OrderServices {
            challenges,
            port: Box::new(port),
            resolver: Arc::new(HttpDns::of_system()),
            companions: node.as_ref().map(Node::companions),
        };
        tasks.spawn(acme::keep_issued(tls.certificates, services, stop.clone()));
        tasks.spawn(upkeep(registry.clone(), stop.clone()));
        tasks.spawn(keep_known_logins(gate, registry.clone(), stop.clone()));
        let stop_pushing = CancellationToken::new();
        let mut pushing = tokio::spawn(notifier.run(stop_pushing.clone().cancelled_owned()));
        let mut member = node.map(|node| node.join(reporter, &stop));

        let member_ended = async {
            match &mut member {
                Some(member) => member.ended().await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            () = shutdown => None,
            () = member_ended => Some("the membership among the nodes ended by itself"),
            _ = &mut pushing => Some("the notifier ended by itself"),
            _ = &mut watching => Some("the watches ended by themselves"),
        };
        info!("shutting down");
        stop_clients.cancel();
        if let Some(member) = &mut member {
            member.leave().await;
        }
        stop.cancel();
        tasks.close();
        if timeout(GRACE, tasks.wait()).await.is_err() {
            warn!("some sessions did not end within {}s and were aborted", GRACE.as_secs());
        }
        stop_pushing.cancel();
        if !pushing.is_finished() && pushing.await.is_err() {
            error!("the notifier ended by a panic");
        }
        registry.close().await;
        tracer.finish();
        ended.map_or(Ok(()), |what| Err(RunError::Internal(what)))
    }
}

fn notifier_settings(push: &PushDelivery) -> Result<notifier::NotifierSettings, TrustError> {
    let schedule = schedule::ScheduleSettings {
        coalesce: push.coalesce,
        max_in_flight: push.max_in_flight,
        per_second: push.max_per_second,
    };
    let roots = https_roots(push.ca.as_ref())?;
    let (url, contact) = (push.notify_url.clone(), push.contact.clone());
    Ok(notifier::NotifierSettings { url, roots, contact, schedule, grace: PUSH_GRACE })
}

/// Descriptors in addition to those of connections: the state, listeners, the log, notifications.
const OTHER_FILES: u64 = 100;

/// Raises the limit of open files to the configured connections: two descriptors per client, one per account that is
/// watched now.
fn raise_file_limit(config: &Config, accounts: usize) {
    let clients = (config.live.limits.connections as u64).saturating_mul(2);
    let needed = clients.saturating_add(accounts as u64).saturating_add(OTHER_FILES);
    match rlimit::increase_nofile_limit(u64::MAX) {
        // Few need that many; where they do, the listener names the limit and the remedy.
        Ok(limit) if limit < needed => info!(
            "{limit} open files are allowed, enough for {} connections of limits.connections: {}; to have more, raise the limit \
             (systemd: LimitNOFILE=)",
            limit.saturating_sub(OTHER_FILES).div_euclid(2),
            config.live.limits.connections
        ),
        Ok(_) => {}
        Err(error) => warn!("cannot raise the limit of open files: {error}"),
    }
}

/// Logs the settings for Delta Chat and the paths in use.
fn introduce(config: &Config, listeners: &[BoundListener], tls: &ServerTls, registry: &Registry) {
    info!("deltapush {} is ready", env!("CARGO_PKG_VERSION"));
    for BoundListener { socket, listener } in listeners {
        let Ok(address) = socket.local_addr() else { continue };
        let security = match listener.tls {
            ListenerTls::Implicit => "SSL/TLS",
            ListenerTls::StartTls => "STARTTLS",
            ListenerTls::None => "off",
        };
        info!(
            "in Delta Chat: IMAP server {}, port {}, security {security}",
            config.live.hostname,
            address.port()
        );
    }
    let certificates = tls.certificates.get();
    let certificate = certificates.summary();
    let is_from_an_authority =
        matches!(certificate.origin, CertificateOrigin::Files | CertificateOrigin::Issued);
    if !is_from_an_authority
        && config.live.certificate.acme.is_none()
        && !config.live.hostname.as_str().starts_with('_')
    {
        info!(
            "the certificate is self-signed: choose \"accept invalid certificates\" in Delta Chat, or see certs/README.md"
        );
    }
    info!("certificate: {}", certificate.path.display());
    for route in &config.live.routes {
        let note = if route.upstream.as_ref().is_some_and(|upstream| upstream.has_placeholder()) {
            format!(" ({DOMAIN_PLACEHOLDER} is what follows the @ of the login)")
        } else {
            String::new()
        };
        info!("logins of {route} go to {}{note}", route.destination());
    }
    match &config.startup.storage.postgres {
        Some(postgres) => info!("state: {}, which several nodes may share", *postgres.url),
        None => info!(
            "state: {} ({} with a token)",
            config.startup.storage.directory.display(),
            counted(registry.len() as u64, "account")
        ),
    }
    info!("notifications go to {}", config.startup.push.notify_url);
    if let Some(files) = &config.live.trace.files {
        info!("trace: the protocol of sessions is written to {}", files.directory.display());
    }
}
