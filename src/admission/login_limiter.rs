//! The [limits on failed logins](super::failed_logins) for tasks: it makes logins wait, and counts a login in progress
//! to its end, however it ends.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::Prefix;
use super::failed_logins::{
    Blocked, CredentialDigest, LoginDecision, LoginOutcome, Logins, Room, Strain, Try,
};
use super::key::{AdmissionKey, KeyMaker};
use super::known::{KnownChanges, KnownEntry};
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::ownership::Ownership;
use crate::policy::FailedLogins;
use crate::secret::Secret;
use crate::upstream::permit::Permit;

/// Mail servers that the operator is shown.
const MAX_STRAINED: usize = 32;

/// The longest name of a mail server that the operator is shown: a host name and a port.
const MAX_STRAINED_NAME: usize = 262;

/// Time for which a connection to a server waits for other logins there to end. Less than a server waits for a first
/// command.
const PATIENCE: Duration = Duration::from_secs(10);

/// Shared by all connections.
#[derive(Debug)]
pub struct LoginGate {
    // One lock for all: three limits are compared at one moment, in microseconds, once for each login.
    logins: Mutex<Logins>,
    /// The limits of all nodes together, where several share one state.
    limits: Mutex<FailedLogins>,
    /// The nodes that share the limits.
    ownership: Ownership,
    /// Their number when the limits were last divided.
    nodes: AtomicUsize,
    ended: Notify,
    /// Mail servers at which logins were refused for a limit lately, the latest last: for the operator.
    strained: Mutex<VecDeque<Arc<str>>>,
    /// For names. Kept in the state.
    names: KeyMaker,
    /// For credentials. Of this process alone: without it the hashes say nothing.
    key: hmac::Key,
    /// Bytes of a hash that are stored.
    kept: usize,
}

/// An answer to a login without asking the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// Delay of the answer.
    pub delay: Duration,
    /// Why.
    pub reason: DenialReason,
    /// It is to be told in the log: bounded by the limits.
    pub counted: bool,
}

/// Why the upstream is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialReason {
    /// It has refused these very credentials a moment ago. They are asked about again after this time.
    Repeated(Duration),
    /// Too many logins have failed.
    Limit(Blocked),
}

/// A login that may be tried. Dropped half way it counts as one that the upstream refused without a reason: a crowd must not
/// save its guesses by pushing them out before the answer comes.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<LoginGate>,
    login: Try,
    known: bool,
    at: Mutex<UpstreamIdentity>,
    /// The upstream has got the credentials.
    is_sent: AtomicBool,
    is_done: bool,
}

/// The server of a login.
#[derive(Debug, Clone, Copy, Default)]
enum UpstreamIdentity {
    /// Nowhere yet.
    #[default]
    Nowhere,
    /// At this address of a server's.
    Server(AdmissionKey),
    /// Nowhere: too many have failed at the server's address.
    Closed(Blocked),
}

impl UpstreamIdentity {
    fn server(self) -> Option<AdmissionKey> {
        if let Self::Server(address) = self { Some(address) } else { None }
    }
}

impl LoginGate {
    /// A gate with these limits.
    ///
    /// # Errors
    /// If the operating system has no random numbers.
    pub fn new(limits: FailedLogins) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new())?;
        let mut names = [0; 32];
        aws_lc_rs::rand::fill(&mut names)?;
        Ok(Self {
            logins: Mutex::new(Logins::new(limits.clone())),
            limits: Mutex::new(limits),
            ownership: Ownership::sole(),
            nodes: AtomicUsize::new(1),
            ended: Notify::new(),
            strained: Mutex::default(),
            names: KeyMaker::new(&names),
            key,
            kept: usize::MAX,
        })
    }

    /// The same gate, which hashes names with the key of the state and knows what is there.
    #[must_use]
    pub fn restored(self, key: &Secret, entries: &[KnownEntry]) -> Self {
        self.logins().restore(entries, Instant::now().into_std());
        Self { names: KeyMaker::new(key.expose()), ..self }
    }

    /// Takes in what became known at other nodes.
    pub fn learn(&self, entries: &[KnownEntry]) {
        self.logins().learn(entries, Instant::now().into_std());
    }

    /// Changes of known logins since the last call, for the state.
    pub fn take_changes(&self) -> KnownChanges {
        self.logins().take_changes(Instant::now().into_std())
    }

    /// The same limiter, which keeps too little of its hashes for a reader of its memory, key and all, to find passwords by
    /// them: of a list of likely ones too many fit. One of 65536 wrong passwords is then taken for one that was right
    /// before, which the mail server will not do.
    #[must_use]
    pub fn brief(self) -> Self {
        Self { kept: 2, ..self }
    }

    /// The same gate, whose limits are divided by the number of living nodes.
    #[must_use]
    pub fn sharing(self, ownership: Ownership) -> Self {
        Self { ownership, ..self }
    }

    /// Other limits from now on.
    pub fn set_limits(&self, limits: FailedLogins) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
        self.divide(self.ownership.nodes());
    }

    /// Divides the limits by the number of nodes.
    fn divide(&self, nodes: usize) {
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner).shared_by(nodes);
        self.nodes.store(nodes, Ordering::Relaxed);
        self.logins().set_limits(limits);
    }

    /// Asks for a permit for a login from `prefix` to `account`; `stored`: the credentials of its watch, if there is
    /// one.
    #[must_use]
    pub fn login(
        &self,
        prefix: Prefix,
        account: &AccountId,
        given: &Credentials,
        stored: Option<&Credentials>,
    ) -> Try {
        // An exchange is another one each time.
        let digest =
            given.can_be_used_again().then(|| self.digest(account, given.password.expose()));
        // Hashes are compared, not passwords: how long that takes says nothing.
        let stored = stored
            .is_some_and(|stored| digest == Some(self.digest(account, stored.password.expose())));
        // The account of the password counts, not that of the mailbox, nor the spelling of the name: a guesser has many of
        // either.
        let guessed = AccountId::new(&given.user.to_lowercase(), &account.upstream);
        let keys = self.names.login(&guessed, prefix);
        let origin = self.names.origin(prefix, keys.upstream, false);
        Try { prefix, origin, keys, digest, stored, registered: false }
    }

    fn digest(&self, account: &AccountId, password: &[u8]) -> CredentialDigest {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [account.upstream.as_bytes(), account.user.as_bytes(), password] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        // A block that takes the place of the end of the password in the context, which stands on the stack.
        context.update(&[0; 64]);
        let mut digest = CredentialDigest::default();
        digest
            .iter_mut()
            .zip(context.sign().as_ref().iter().take(self.kept))
            .for_each(|(to, from)| *to = *from);
        digest
    }

    /// Waits until the login may be tried or is refused.
    ///
    /// # Errors
    /// [`Denial`]: the upstream is not to be asked.
    pub async fn enter(self: &Arc<Self>, login: Try) -> Result<Pass, Denial> {
        let nodes = self.ownership.nodes();
        if self.nodes.load(Ordering::Relaxed) != nodes {
            self.divide(nodes);
        }
        loop {
            let ended = self.ended.notified();
            let mut ended = std::pin::pin!(ended);
            // From here on an end is not missed.
            ended.as_mut().enable();
            let verdict = self.logins().judge(&login, Instant::now().into_std());
            match verdict {
                LoginDecision::Pass { known } => {
                    let (gate, at) = (Arc::clone(self), Mutex::default());
                    let is_sent = AtomicBool::new(false);
                    return Ok(Pass { gate, login, known, at, is_sent, is_done: false });
                }
                LoginDecision::Wait => ended.await,
                LoginDecision::Repeated { delay, wait } => {
                    return Err(Denial {
                        delay,
                        reason: DenialReason::Repeated(wait),
                        counted: false,
                    });
                }
                LoginDecision::Refuse { delay, counted, blocked } => {
                    return Err(Denial { delay, reason: DenialReason::Limit(blocked), counted });
                }
            }
        }
    }

    /// A login for which there is no upstream failed: how long the answer is to wait, and whether it is told in the log.
    pub fn lost(&self, prefix: Prefix) -> (Duration, bool) {
        // No server has a part in it.
        let origin = self.names.origin(prefix, self.names.key("none", &[]), true);
        let mut logins = self.logins();
        let delay = logins.lost(prefix, origin, Instant::now().into_std());
        (delay.unwrap_or_else(|| logins.longest_delay()), delay.is_some())
    }

    /// Tells whether a login with an invented name is to be refused without asking: the name was never accepted, its account
    /// has no token, and the mail server is known not to make accounts on login. Each is counted against its address.
    pub fn refuse_invented(&self, login: &Try) -> Option<Invented> {
        let (now, mut logins) = (Instant::now().into_std(), self.logins());
        if logins.is_known_name(login, now) || !logins.is_ordinary(login, now) {
            return None;
        }
        let delay = logins.longest_delay();
        let blocked = logins.invented(login, now);
        Some(blocked.map_or(Invented::AtOnce, |blocked| {
            Invented::TooMany(Denial {
                delay,
                reason: DenialReason::Limit(blocked),
                counted: false,
            })
        }))
    }

    /// Notes, after an accepted login, whether the mail server makes accounts on login.
    pub fn note_server(&self, login: &Try, makes_accounts: bool) {
        self.logins().note_server(login, makes_accounts, Instant::now().into_std());
    }

    /// Remembers a mail server whose limit has refused a login. Returns true if it was not remembered before.
    pub fn note_strained(&self, upstream: &Arc<str>) -> bool {
        if upstream.len() > MAX_STRAINED_NAME {
            return false;
        }
        let still: Vec<Arc<str>> = self.strained().into_iter().map(|(name, _)| name).collect();
        let mut strained = self.strained.lock().unwrap_or_else(PoisonError::into_inner);
        strained.retain(|name| name != upstream && still.contains(name));
        while strained.len() >= MAX_STRAINED {
            strained.pop_front();
        }
        strained.push_back(Arc::clone(upstream));
        !still.contains(upstream)
    }

    /// Mail servers at which logins of strangers are refused now for what failed there.
    #[must_use]
    pub fn strained(&self) -> Vec<(Arc<str>, Strain)> {
        let names = self.strained.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (logins, now) = (self.logins(), Instant::now().into_std());
        let strain = |name: Arc<str>| {
            logins.strain(self.names.upstream(&name), now).map(|strain| (name, strain))
        };
        names.into_iter().filter_map(strain).collect()
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        // A panic within would be a bug; counting goes on.
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handling of a login with an invented name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invented {
    /// At once.
    AtOnce,
    /// There are too many from its address.
    TooMany(Denial),
}

impl Try {
    /// The same, at a mail server that the login has named or that the configuration has.
    #[must_use]
    pub fn at_open_server(mut self, is_open: bool) -> Self {
        self.origin.is_open = is_open;
        self
    }

    /// The same, of an account that has a token or of one that has none.
    #[must_use]
    pub fn registered(self, registered: bool) -> Self {
        Self { registered, ..self }
    }
}

impl Pass {
    /// The upstream has got the credentials.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.is_sent.load(Ordering::Relaxed)
    }

    /// Notes, after an accepted login, whether the mail server makes accounts on login.
    pub fn note_server(&self, makes_accounts: bool) {
        self.gate.note_server(&self.login, makes_accounts);
    }

    /// The upstream has accepted these credentials before.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Ends the login with its outcome. Returns the delay of the answer if the login failed.
    pub fn done(mut self, outcome: LoginOutcome) -> Option<Duration> {
        self.end(outcome)
    }

    /// The login got no [`Permit`]. Returns its denial; `None` if others only went before it.
    pub fn turned_away(mut self) -> Option<Denial> {
        let UpstreamIdentity::Closed(blocked) = *self.at() else {
            self.end(LoginOutcome::Nothing);
            return None;
        };
        self.end(LoginOutcome::Nothing);
        let (delay, counted) = self.gate.logins().refuse(&self.login, Instant::now().into_std());
        Some(Denial { delay, reason: DenialReason::Limit(blocked), counted })
    }

    /// Waits until the login may be tried at `server`.
    async fn enter(&self, server: IpAddr) -> bool {
        let server = self.gate.names.server(server);
        // Another address of the server's may have been of no use.
        if let Some(before) = std::mem::take(&mut *self.at()).server() {
            self.gate.logins().leave_server(before, self.known);
            self.gate.ended.notify_waiters();
        }
        loop {
            let ended = self.gate.ended.notified();
            let mut ended = std::pin::pin!(ended);
            // From here on an end is not missed.
            ended.as_mut().enable();
            let room = self.gate.logins().enter_server(
                &self.login,
                server,
                self.known,
                Instant::now().into_std(),
            );
            match room {
                Room::Some => *self.at() = UpstreamIdentity::Server(server),
                Room::Later => {
                    ended.await;
                    continue;
                }
                Room::None(blocked) => *self.at() = UpstreamIdentity::Closed(blocked),
            }
            return room == Room::Some;
        }
    }

    fn at(&self) -> MutexGuard<'_, UpstreamIdentity> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&mut self, outcome: LoginOutcome) -> Option<Duration> {
        if std::mem::replace(&mut self.is_done, true) {
            return None;
        }
        let server = self.at().server();
        let delay = self.gate.logins().done(
            &self.login,
            self.known,
            server,
            outcome,
            Instant::now().into_std(),
        );
        self.gate.ended.notify_waiters();
        delay
    }
}

impl Permit for Pass {
    fn ask(&self, server: IpAddr) -> BoxFuture<'_, bool> {
        Box::pin(async move { timeout(PATIENCE, self.enter(server)).await.unwrap_or(false) })
    }

    fn credentials_sent(&self) {
        self.is_sent.store(true, Ordering::Relaxed);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // The server has said nothing of the credentials.
        self.end(LoginOutcome::Broken);
    }
}

#[cfg(test)]
#[path = "login_limiter_tests.rs"]
mod tests;
