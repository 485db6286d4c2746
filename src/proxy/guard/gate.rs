//! [`logins`](super::logins) for tasks: one that has to wait waits here, and what is under way is counted to its end,
//! whatever ends it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::Prefix;
use super::logins::{Digest, Logins, Outcome, Room, Try, Verdict};
use crate::account::AccountId;
use crate::config::FailedLogins;
use crate::secret::Credentials;
use crate::upstream::permit::Permit;

/// How long a connection to a server waits for others to end their logins there. Less than a server waits for a first word.
const PATIENCE: Duration = Duration::from_secs(10);

/// What all connections share.
#[derive(Debug)]
pub struct LoginGate {
    // One lock for all: three limits are compared at one moment, in microseconds, once for each login.
    logins: Mutex<Logins>,
    ended: Notify,
    /// Of this process alone: the hashes say nothing to whoever does not have it.
    key: hmac::Key,
}

/// What a login is answered with, without asking the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// How long the answer waits.
    pub delay: Duration,
    /// The upstream has refused these very credentials a moment ago; otherwise there were too many failed logins.
    pub repeated: bool,
    /// It is to be told in the log: bounded by the limits.
    pub counted: bool,
}

/// A login that may be tried. Dropped half way it counts as one that the upstream refused without a reason: a crowd must not
/// save its guesses by pushing them out before the answer comes.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<LoginGate>,
    login: Try,
    known: bool,
    at: Mutex<At>,
    is_done: bool,
}

/// Where a login is tried.
#[derive(Debug, Clone, Copy, Default)]
enum At {
    /// Nowhere yet.
    #[default]
    Nowhere,
    /// At this address of a server's.
    Server(IpAddr),
    /// Nowhere: too many have failed at the server's address.
    Closed,
}

impl At {
    fn server(self) -> Option<IpAddr> {
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
        Ok(Self { logins: Mutex::new(Logins::new(limits)), ended: Notify::new(), key })
    }

    /// Other limits from now on.
    pub fn set_limits(&self, limits: FailedLogins) {
        self.logins().set_limits(limits);
    }

    /// What the gate has to know of a login from `prefix` to `account`; `stored`: what the account is watched with, if it is.
    #[must_use]
    pub fn login(&self, prefix: Prefix, account: &AccountId, given: &Credentials, stored: Option<&Credentials>) -> Try {
        // An exchange is another one each time.
        let digest = given.can_be_used_again().then(|| self.digest(account, given.password.expose()));
        // Hashes are compared, not passwords: how long that takes says nothing.
        let stored = stored.is_some_and(|stored| digest == Some(self.digest(account, stored.password.expose())));
        // Whose password is tried, and not for whose mailbox, nor how the name is spelled: a guesser has many of either.
        let guessed = AccountId::new(&given.user.to_lowercase(), &account.upstream);
        Try { prefix, account: guessed, digest, stored }
    }

    fn digest(&self, account: &AccountId, password: &[u8]) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [account.upstream.as_bytes(), account.user.as_bytes(), password] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut digest = Digest::default();
        digest.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        digest
    }

    /// Waits until the login may be tried or is refused.
    ///
    /// # Errors
    /// [`Refusal`]: the upstream is not to be asked.
    pub async fn enter(self: &Arc<Self>, login: Try) -> Result<Pass, Refusal> {
        loop {
            let ended = self.ended.notified();
            let mut ended = std::pin::pin!(ended);
            // From here on an end is not missed.
            ended.as_mut().enable();
            let verdict = self.logins().judge(&login, Instant::now().into_std());
            match verdict {
                Verdict::Pass { known } => {
                    let (gate, at) = (Arc::clone(self), Mutex::default());
                    return Ok(Pass { gate, login, known, at, is_done: false });
                }
                Verdict::Wait => ended.await,
                Verdict::Repeated(delay) => return Err(Refusal { delay, repeated: true, counted: false }),
                Verdict::Refuse { delay, counted } => return Err(Refusal { delay, repeated: false, counted }),
            }
        }
    }

    /// A login for which there is no upstream failed: how long the answer is to wait, and whether it is told in the log.
    pub fn lost(&self, prefix: Prefix) -> (Duration, bool) {
        let mut logins = self.logins();
        let delay = logins.lost(prefix, Instant::now().into_std());
        (delay.unwrap_or_else(|| logins.longest_delay()), delay.is_some())
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        // A panic within would be a bug; counting goes on.
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// The upstream has accepted these credentials before.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// What came of the login. How long its answer is to wait if that was a failed login.
    pub fn done(mut self, outcome: Outcome) -> Option<Duration> {
        self.end(outcome)
    }

    /// It got no [`Permit`]. What that is answered with; `None` if others only went before it.
    pub fn turned_away(mut self) -> Option<Refusal> {
        let is_closed = matches!(*self.at(), At::Closed);
        self.end(Outcome::Nothing);
        if !is_closed {
            return None;
        }
        let delay = self.gate.logins().refuse(&self.login, Instant::now().into_std());
        Some(Refusal { delay, repeated: false, counted: true })
    }

    /// Waits until the login may be tried at `server`.
    async fn enter(&self, server: IpAddr) -> bool {
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
            let room = self.gate.logins().enter_server(server, self.known, Instant::now().into_std());
            match room {
                Room::Some => *self.at() = At::Server(server),
                Room::Later => {
                    ended.await;
                    continue;
                }
                Room::None => *self.at() = At::Closed,
            }
            return room == Room::Some;
        }
    }

    fn at(&self) -> MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&mut self, outcome: Outcome) -> Option<Duration> {
        if std::mem::replace(&mut self.is_done, true) {
            return None;
        }
        let server = self.at().server();
        let delay = self.gate.logins().done(&self.login, self.known, server, outcome, Instant::now().into_std());
        self.gate.ended.notify_waiters();
        delay
    }
}

impl Permit for Pass {
    fn ask(&self, server: IpAddr) -> BoxFuture<'_, bool> {
        Box::pin(async move { timeout(PATIENCE, self.enter(server)).await.unwrap_or(false) })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.end(Outcome::Unclear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Arc<LoginGate> {
        Arc::new(LoginGate::new(FailedLogins { per_account: 1, ..FailedLogins::default() }).unwrap())
    }

    fn login(gate: &LoginGate, password: &str) -> Try {
        let account = AccountId::new("alice", "mail:993");
        let stored = Credentials::new("alice", "stored");
        gate.login(Prefix::of([192, 0, 2, 1].into()), &account, &Credentials::new("alice", password), Some(&stored))
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_on_when_the_one_before_has_ended_however_that_was() {
        let gate = gate();
        let first = gate.enter(login(&gate, "a")).await.unwrap();
        let second = gate.enter(login(&gate, "b"));
        let mut second = std::pin::pin!(second);
        assert!(timeout(Duration::from_secs(9), second.as_mut()).await.is_err());
        assert_eq!(first.done(Outcome::Nothing), None);
        let second = second.await.unwrap();
        let third = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter(login(&gate, "c")).await.map(drop) }
        });
        tokio::task::yield_now().await;
        drop(second);
        let refused = third.await.unwrap().unwrap_err();
        assert_eq!((refused.repeated, refused.counted), (false, true));
        tokio::time::advance(Duration::from_secs(600)).await;
        let again = gate.enter(login(&gate, "b")).await.unwrap();
        assert_eq!(again.done(Outcome::Refused), Some(Duration::from_secs(1)));
        assert!(gate.enter(login(&gate, "b")).await.unwrap_err().repeated);
        assert!(gate.enter(login(&gate, "stored")).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn names_of_one_server_share_what_may_fail_there() {
        let gate = Arc::new(LoginGate::new(FailedLogins { per_upstream: 2, ..FailedLogins::default() }).unwrap());
        let enter = async |n: u8, address: u8| {
            let account = AccountId::new("alice", &format!("mail{n}:993"));
            let login = gate.login(Prefix::of([192, 0, 2, n].into()), &account, &Credentials::new("alice", "x"), None);
            let pass = gate.enter(login).await.unwrap();
            let permitted = pass.ask([203, 0, 113, address].into()).await;
            (pass, permitted)
        };
        let ((first, _), (second, is_in)) = (enter(1, 1).await, enter(2, 1).await);
        assert!(is_in);
        let (third, is_in) = enter(3, 1).await;
        assert!(!is_in, "two are under way, and both may fail");
        assert_eq!(third.turned_away(), None);
        // Another address of the server's, because this one was of no use, makes room.
        assert!(first.ask([203, 0, 113, 2].into()).await && enter(4, 1).await.1);
        assert_eq!(first.done(Outcome::Nothing), None);
        assert!(second.done(Outcome::Refused).is_some());
        // The one before was dropped half way, and counts.
        let (fifth, is_in) = enter(5, 1).await;
        assert!(!is_in);
        let refusal = fifth.turned_away().unwrap();
        assert!(refusal.counted && !refusal.repeated);
        assert!(enter(6, 2).await.1, "nothing has failed there");
        tokio::time::advance(Duration::from_secs(600)).await;
        assert!(enter(7, 1).await.1);
    }

    #[test]
    fn one_password_has_one_count_however_it_is_asked_for() {
        let gate = gate();
        let counted = |given: Credentials| {
            let account = AccountId::of(&given, "mail:993");
            let login = gate.login(Prefix::of([192, 0, 2, 1].into()), &account, &given, None);
            (login.account, login.digest)
        };
        let plain = counted(Credentials::new("alice", "x"));
        let other = counted(Credentials::new("alice", "x").on_behalf_of("bob".into()));
        assert_eq!(plain.0, other.0, "in the name of as many others as one likes");
        assert_ne!(plain.1, other.1, "who may log in for oneself may not do it for others");
        assert_eq!(plain.0, counted(Credentials::new("ALICE", "x")).0);
        assert_ne!(plain.0, counted(Credentials::new("bob", "x").on_behalf_of("alice".into())).0);
    }

    #[test]
    fn credentials_are_told_apart_without_being_kept() {
        let gate = gate();
        let other = Arc::new(LoginGate::new(FailedLogins::default()).unwrap());
        assert_eq!(login(&gate, "a").digest, login(&gate, "a").digest);
        assert_ne!(login(&gate, "a").digest, login(&gate, "b").digest);
        assert_ne!(login(&gate, "a").digest, login(&other, "a").digest, "each process has a key of its own");
        assert!(login(&gate, "stored").stored && !login(&gate, "Stored").stored);
    }
}
