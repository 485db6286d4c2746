//! From a target to an authenticated session: TCP, TLS, and the driver of the [login machine](super::login_machine).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Upstreams;
pub use super::connect_error::ConnectError;

use super::id::Introduction;
pub use super::login::{Connected, LoginStage, UpstreamLogin};

use super::login::{ConnectionTarget, within};
use super::login_machine::{LoginMachine, Purpose};
use super::login_progress::LoginProgress;
use super::mechanism::Hints;
use super::originating::ClientOrigin;
use super::permit::Permit;
use super::route::{Endpoint, Target};
use super::{happy_eyeballs, proxy_header};
use crate::config::Security;
use crate::credentials::Credentials;
use crate::tls::stream::{self, Stream};
use crate::trace::Transcript;

/// Servers of one domain that are tried.
const MAX_SERVERS: usize = 4;

/// Time of an address for TLS and the greeting, up to the login, if there are others to try.
const ATTEMPT: Duration = Duration::from_secs(6);

/// A login to make.
pub struct LoginRequest<'a> {
    /// The mail server.
    pub target: &'a Target,
    /// The means of reaching it.
    pub upstreams: &'a Upstreams,
    /// The credentials of the login.
    pub credentials: Credentials,
    /// The purpose.
    pub purpose: Purpose,
    /// On whose behalf; `None` for a session of deltapush's own.
    pub origin: Option<ClientOrigin>,
    /// The client's identification.
    pub introduction: Introduction,
    /// The permit that it takes; `None` if failed logins are not counted.
    pub permit: Option<&'a dyn Permit>,
}

/// Checks that a server is there: connects, with TLS where it begins with that, and disconnects after the greeting. Nobody
/// logs in.
///
/// # Errors
/// [`ConnectError`]: it is not.
pub async fn reach(target: &Target, upstreams: &Upstreams) -> Result<(), ConnectError> {
    within(upstreams.time, async {
        let mut failure = ConnectError::Unreachable(io::ErrorKind::AddrNotAvailable.into());
        for server in upstreams.servers(target).await?.iter().take(MAX_SERVERS) {
            let found = upstreams.dns.addresses(&server.host, target.reach).await;
            let addresses = match found {
                Ok(addresses) => addresses,
                Err(error) => {
                    failure = ConnectError::Unreachable(error.into());
                    continue;
                }
            };
            match happy_eyeballs::race(&mut happy_eyeballs::interleaved(&addresses, server.port))
                .await
            {
                Ok(tcp) => match greeting(tcp, target, upstreams, server).await {
                    Ok(()) => return Ok(()),
                    Err(error) => failure = error,
                },
                Err(error) => failure = ConnectError::Unreachable(error),
            }
        }
        Err(failure)
    })
    .await
}

/// Waits for a server's first words.
async fn greeting(
    mut tcp: TcpStream,
    target: &Target,
    upstreams: &Upstreams,
    server: &Endpoint,
) -> Result<(), ConnectError> {
    if let Some(version) = target.terms.proxy_protocol {
        tcp.write_all(&proxy_header::header(version, None)).await.map_err(ConnectError::Broken)?;
    }
    let way = ConnectionTarget { target, upstreams, server: server.clone() };
    let mut stream = match server.security {
        Security::Tls => way.handshake(tcp).await?,
        Security::StartTls | Security::Plain => Stream::Plain(tcp),
    };
    let mut received = Vec::new();
    while !received.ends_with(b"\n") && received.len() < 8192 {
        if stream::receive(&mut stream, &mut received).await.map_err(ConnectError::Broken)? == 0 {
            return Err(ConnectError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    if received.starts_with(b"* OK") || received.starts_with(b"* PREAUTH") {
        return Ok(());
    }
    Err(ConnectError::Broken(io::Error::other("its greeting refuses every client")))
}

/// Why one server could not be logged in to.
struct ServerFailure {
    error: ConnectError,
    /// Others are not to be tried.
    is_final: bool,
}

impl ServerFailure {
    /// Before anything was said that must not be said twice.
    fn before(error: ConnectError) -> Self {
        Self { error, is_final: false }
    }
}

impl<'a> LoginRequest<'a> {
    /// Connects and logs in. Cancelling it closes the connection.
    ///
    /// # Errors
    /// [`ConnectError`], which says whose fault it was.
    pub async fn connect(
        self,
        transcript: Option<&mut (dyn Transcript + Send)>,
    ) -> Result<Connected, ConnectError> {
        match self.begin(transcript).await? {
            LoginStage::LoggedIn(connected) => Ok(*connected),
            // The dialogue hands a challenge on only where there is a client.
            LoginStage::Challenge { .. } => Err(ConnectError::TooMuch),
        }
    }

    /// Connects and logs in, as far as it goes without the client. Cancelling it closes the connection.
    ///
    /// # Errors
    /// [`ConnectError`], which says whose fault it was.
    pub async fn begin(
        self,
        transcript: Option<&mut (dyn Transcript + Send)>,
    ) -> Result<LoginStage<'a>, ConnectError> {
        let time = self.upstreams.time;
        let progress = Arc::<LoginProgress>::default();
        let (target, outages) = (self.target, &self.upstreams.outages);
        let ended = within(time, self.connect_unbounded(transcript, &progress)).await;
        let ended = ended.map_err(|error| error.after(progress.complaint()));
        outages.record(target, &ended);
        ended
    }

    /// One server after the other, one address after the other, until one can be talked to. Once the credentials were sent, its
    /// word counts.
    async fn connect_unbounded(
        self,
        mut transcript: Option<&mut (dyn Transcript + Send)>,
        progress: &Arc<LoginProgress>,
    ) -> Result<LoginStage<'a>, ConnectError> {
        let servers = self.upstreams.servers(self.target).await?;
        let mut failure = None;
        let count = servers.len().min(MAX_SERVERS);
        for (number, server) in servers.iter().take(MAX_SERVERS).enumerate() {
            let is_last = number + 1 == count;
            match self.connect_to(server, is_last, &mut transcript, progress).await {
                Ok(progress) => return Ok(progress),
                Err(ServerFailure { error, is_final: true }) => return Err(error),
                Err(ServerFailure { error, is_final: false }) => failure = Some(error),
            }
        }
        self.upstreams.doubt(self.target).await;
        Err(failure
            .unwrap_or_else(|| ConnectError::Unreachable(io::ErrorKind::AddrNotAvailable.into())))
    }

    async fn connect_to(
        &self,
        server: &Endpoint,
        is_last: bool,
        transcript: &mut Option<&mut (dyn Transcript + Send)>,
        progress: &Arc<LoginProgress>,
    ) -> Result<LoginStage<'a>, ServerFailure> {
        let found = self.upstreams.dns.addresses(&server.host, self.target.reach).await;
        let addresses = found
            .map_err(|error| ServerFailure::before(ConnectError::Unreachable(error.into())))?;
        let mut candidates = happy_eyeballs::interleaved(&addresses, server.port);
        self.upstreams.late.sort(&mut candidates);
        let all = candidates.clone();
        let preferred = self.upstreams.methods.find(server, self.credentials.kind, Instant::now());
        let mut hints = Hints { preferred, refused: Vec::new() };
        loop {
            let tcp = happy_eyeballs::race(&mut candidates)
                .await
                .map_err(|error| ServerFailure::before(ConnectError::Unreachable(error)))?;
            let address = tcp
                .peer_addr()
                .map_err(|error| ServerFailure::before(ConnectError::Broken(error)))?;
            let shown = transcript
                .as_mut()
                .map(|transcript| &mut **transcript as &mut (dyn Transcript + Send));
            let mut session = Box::pin(self.session(tcp, server, shown, &hints, progress));
            let patience = if candidates.is_empty() && is_last {
                None
            } else {
                Some(self.upstreams.time.min(ATTEMPT))
            };
            let in_time = match patience {
                None => None,
                Some(patience) => timeout(patience, &mut session).await.ok(),
            };
            let ended = match in_time {
                Some(ended) => ended,
                // The time for an attempt is over; not for a login that was begun.
                None if patience.is_some() && !progress.has_committed() => {
                    Err(ConnectError::TimedOut(patience.unwrap_or_default()))
                }
                None => session.as_mut().await,
            };
            drop(session);
            let error = match ended {
                Ok(progress) => {
                    let before = all.iter().take_while(|candidate| **candidate != address).copied();
                    self.upstreams.late.used(address, &before.collect::<Vec<_>>());
                    return Ok(progress);
                }
                Err(error) => error,
            };
            // It hangs up on a method that it does not know: the next one has a connection of its own. Each leaves out more.
            let is_cut_off = error.is_cut_off();
            let refused = progress
                .take_refused()
                .filter(|refused| is_cut_off && refused.len() > hints.refused.len());
            if let Some(refused) = refused {
                hints = Hints { preferred: None, refused };
                candidates = all.clone();
            } else if progress.has_committed() || !error.is_about_the_way() {
                return Err(ServerFailure { error, is_final: true });
            } else if candidates.is_empty() {
                return Err(ServerFailure::before(error));
            }
        }
    }

    async fn session(
        &self,
        mut tcp: TcpStream,
        server: &Endpoint,
        transcript: Option<&mut (dyn Transcript + Send)>,
        hints: &Hints,
        progress: &Arc<LoginProgress>,
    ) -> Result<LoginStage<'a>, ConnectError> {
        stream::prepare(&tcp).map_err(ConnectError::Unreachable)?;
        // A further connection for the next method is part of the same login.
        if let Some(permit) = self.permit.filter(|_| hints.refused.is_empty()) {
            let address = tcp.peer_addr().map_err(ConnectError::Broken)?.ip().to_canonical();
            if !permit.ask(address).await {
                return Err(ConnectError::NoPermit);
            }
        }
        if let Some(version) = self.target.terms.proxy_protocol {
            let header = proxy_header::header(version, self.origin.as_ref());
            tcp.write_all(&header).await.map_err(ConnectError::Broken)?;
        }
        let way = ConnectionTarget {
            target: self.target,
            upstreams: self.upstreams,
            server: server.clone(),
        };
        let stream = match server.security {
            Security::Tls => way.handshake(tcp).await?,
            Security::StartTls | Security::Plain => Stream::Plain(tcp),
        };
        let machine = LoginMachine::new(self.credentials.clone(), server.security, self.purpose)
            .introducing(self.introduction())
            .with_hints(hints.clone());
        UpstreamLogin::new(way, stream, machine, self.credentials.kind, Arc::clone(progress))
            .go_on(None, transcript, self.permit)
            .await
    }

    /// The client's identification; a server that trusts deltapush gets the client's address too (`originating_ip` of
    /// the route).
    fn introduction(&self) -> Introduction {
        let origin = self.origin.filter(|_| self.target.terms.originating_ip);
        let extra = origin.map(|origin| origin.id_fields()).into_iter().flatten().collect();
        Introduction { extra, ..self.introduction.clone() }
    }
}
