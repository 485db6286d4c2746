//! The watch of one account: one session after the other, with the waits in between.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch as channel;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, warn};

use super::context::WatchContext;
use super::session::{self, SessionTask, Spare, WatchEnd};
use crate::credentials::{CredentialKind, Credentials};
use crate::mailbox_name::MailboxName;
use crate::push::account::Account;
use crate::push::backoff::Backoff;
use crate::push::idle::{self, IdleFailure};
use crate::push::pacing::Gate;
use crate::push::registry::INBOX;
use crate::push::watch_status::WatchState;
use crate::store::StoreError;
use crate::upstream::Upstreams;
use crate::upstream::connect::ConnectError;
use crate::upstream::login_machine::LoginError;
use crate::upstream::refusal::{LoginRefusal, classify, classify_bye, is_about_expiry};

/// A session that has lasted so long was well: the next wait is a short one again.
const WELL: Duration = Duration::from_secs(300);

/// Time before a refusal without a reason is believed.
const CONFIRMATION: Duration = Duration::from_secs(15 * 60);

/// A watch whose first session begins later than this after its request counts from the stored position.
const LATE: Duration = Duration::from_secs(60);

/// Over this time watches come back when the state can be written again.
const SPREAD: Duration = Duration::from_secs(2);

/// Watches an account until that makes no sense any more.
pub(super) async fn watch(context: Arc<WatchContext>, account: Arc<Account>) {
    let has_watch = context.has_watch(&account);
    if has_watch != account.is_watched() {
        Box::pin(set_watched(&context, &account, has_watch)).await;
    }
    if !has_watch {
        return context.server_tells(&account);
    }
    // Kept sessions are watched elsewhere.
    if context.registry.keeps_sessions() {
        return;
    }
    if account.credentials().is_none() {
        return context.end(&account);
    }
    let mailboxes = context.mailboxes(&account);
    // Boxed: the task is as large as the largest that it waits for, and a server is looked up once.
    let gate = context.pacing.of(&Box::pin(context.host(&account.id)).await);
    let max_detection_delay = idle::max_detection_delay(gate.treatment().idle_renewal);
    context.begin(&account, max_detection_delay);
    account.watch.watches(&mailboxes);
    let (notify, _) = channel::channel(None);
    let (began, has_others) = (Instant::now(), mailboxes.len() > 1);
    let watched = Watched { context: &context, account: &account, gate, notify, began, has_others };
    match mailboxes.as_slice() {
        [only] => watched.run(std::slice::from_ref(only), true).await,
        [] => {}
        all => watched.run_all(all).await,
    }
}

/// Notes that the account is watched from now on, or is not any more and has no credentials. One that has none and needs them gets
/// a push, so that a device logs in.
async fn set_watched(context: &WatchContext, account: &Account, is_watched: bool) {
    let registry = &context.registry;
    while let Err(error) = registry.set_watched(&account.id, is_watched).await {
        debug!(%account, "cannot store how deltapush learns of its new mail: {error}");
        registry.until_writable().await;
        sleep(SPREAD).await;
    }
    if is_watched
        && account.credentials().is_none()
        && let Err(error) = registry.call(account).await
    {
        debug!(%account, "cannot wake the account's devices: {error}");
    }
}

/// An account that is watched.
struct Watched<'a> {
    context: &'a WatchContext,
    account: &'a Account,
    gate: Arc<Gate>,
    /// True if the server has NOTIFY, so that one session serves all mailboxes. `None` before the first login.
    notify: channel::Sender<Option<bool>>,
    began: Instant,
    /// The account has several mailboxes.
    has_others: bool,
}

/// The next step after a session's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Try again, in a time that grows.
    Soon,
    /// Try again, in minutes.
    Later,
    /// Try again once, to see whether the refusal was meant.
    Confirm,
    /// Nothing, until the client logs in again, or a route is there again.
    AwaitLogin,
}

impl Watched<'_> {
    /// Several mailboxes: the first session has all of them if the server has NOTIFY, otherwise each has its own.
    async fn run_all(&self, mailboxes: &[MailboxName]) {
        let mut sessions = FuturesUnordered::new();
        sessions.push(self.run(mailboxes, true).boxed());
        for mailbox in mailboxes.get(1..).unwrap_or_default() {
            sessions.push(self.run(std::slice::from_ref(mailbox), false).boxed());
        }
        // The end of one is the end of all: the login is refused, or the server cannot be watched.
        sessions.next().await;
    }

    /// Session after session.
    async fn run(&self, mailboxes: &[MailboxName], is_first: bool) {
        let mut backoff = Backoff::default();
        let mut was_refused = false;
        let mut refusals: u32 = 0;
        let failed_fetches = AtomicU32::new(0);
        loop {
            if !is_first {
                self.until_needed().await;
            }
            let Some(credentials) = self.account.credentials() else { return };
            let (end, lasted) =
                self.session(mailboxes, is_first, &credentials, &failed_fetches).await;
            let is_over = matches!(end, WatchEnd::Shutdown | WatchEnd::Store(StoreError::NotOwner));
            if is_over || self.context.shutdown.is_cancelled() {
                // Not the end of the watch, which would cut the account's other sessions off. Another node that has got the
                // account: this task ends with its place in the registry.
                return std::future::pending().await;
            }
            if lasted >= WELL {
                backoff = Backoff::default();
                was_refused = false;
                refusals = 0;
            }
            if let Some((mailbox, words)) = self.left_out(mailboxes, &end) {
                refusals += 1;
                self.context.left_out(self.account, mailbox, words).await;
                sleep(idle::retry_after(refusals)).await;
                continue;
            }
            let wait = match next_step(&end, credentials.kind) {
                Next::Soon => backoff.next(),
                Next::Later => backoff.longest(),
                Next::Confirm if !was_refused => {
                    was_refused = true;
                    CONFIRMATION
                }
                Next::Confirm | Next::AwaitLogin => {
                    match end {
                        _ if !self.gave_up(&end, &credentials) => {}
                        WatchEnd::NoRoute => self.until_routed(&credentials).await,
                        _ => return,
                    }
                    continue;
                }
            };
            self.interrupted(&end, wait, credentials.kind);
            match end {
                // A full disk: nothing to wait for once there is room again.
                WatchEnd::Store(error) if error.is_about_the_disk() => {
                    // Its end is the reason to go on, whichever it is.
                    let _ = timeout(wait, self.until_writable()).await;
                }
                _ => sleep(wait).await,
            }
        }
    }

    /// The mailbox that this session could not open, with the server's words, where other sessions watch the account's others.
    /// INBOX is never left out: without it the account counts as not watched.
    fn left_out<'e>(
        &self,
        mailboxes: &'e [MailboxName],
        end: &'e WatchEnd,
    ) -> Option<(&'e str, &'e str)> {
        let WatchEnd::Failed(IdleFailure::NoMailbox(words)) = end else { return None };
        let mailbox = mailboxes.first().filter(|mailbox| **mailbox != *INBOX)?;
        let has_others = self.has_others && *self.notify.borrow() == Some(false);
        has_others.then_some((&**mailbox, words.as_str()))
    }

    /// One session, from its place in the queue to whatever ends it, and how long it lasted from the moment it had its place.
    async fn session(
        &self,
        mailboxes: &[MailboxName],
        is_first: bool,
        credentials: &Credentials,
        failed_fetches: &AtomicU32,
    ) -> (WatchEnd, Duration) {
        // One of several must not hide that the others watch.
        if !self.has_others || !self.account.watch.is_watching() {
            self.context.show(self.account, WatchState::Connecting);
        }
        let place = self.gate.enter().await;
        let began = Instant::now();
        let task = SessionTask {
            context: self.context,
            account: self.account,
            mailboxes,
            spare: if is_first { Spare::Inbox } else { Spare::None },
            treatment: *self.gate.treatment(),
            notify: is_first.then_some(&self.notify),
            late: self.account.is_from_before() || self.began.elapsed() > LATE,
            failed_fetches,
            logout: self.context.shutdown.clone(),
            when_watching: None,
            return_requests: None,
        };
        // Boxed: what a login needs is given back after it.
        let session =
            AssertUnwindSafe(Box::pin(session::run(task, credentials, place))).catch_unwind();
        let end = tokio::select! {
            end = session => match end {
                Ok(Err(end)) => end,
                Err(_) => WatchEnd::Panicked,
            },
            () = self.account.watch.asked_to_give_way() => WatchEnd::Yielded,
        };
        (end, began.elapsed())
    }

    /// Waits until the state can be written, and a moment more, so that not all watches come back together.
    async fn until_writable(&self) {
        sleep(SPREAD.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.context.registry.until_writable().await;
        sleep(SPREAD.mul_f64(fastrand::f64())).await;
    }

    /// Waits until it is known that the first session cannot do for all mailboxes.
    async fn until_needed(&self) {
        let mut notify = self.notify.subscribe();
        // The sender is there as long as this is.
        let _ = notify.wait_for(|has_notify| *has_notify == Some(false)).await;
    }

    /// Waits until the configuration leads to the account's server again.
    async fn until_routed(&self, credentials: &Credentials) {
        let mut changes = self.context.upstreams.changes();
        let is_routed = |upstreams: &Upstreams| {
            upstreams.routes.find_again(&self.account.id.upstream, credentials.owner()).is_some()
        };
        while !is_routed(&self.context.upstreams.get()) {
            changes.next().await;
        }
    }

    /// The watch ends. Not if other credentials came meanwhile: returns whether it really does.
    fn gave_up(&self, end: &WatchEnd, credentials: &Credentials) -> bool {
        let Self { context, account, .. } = self;
        if account.credentials().is_some_and(|newer| *newer != *credentials) {
            return false;
        }
        let until =
            if matches!(end, WatchEnd::NoRoute) { "one does" } else { "the client logs in again" };
        warn!(%account, upstream = %account.id.upstream, "{end}; account not watched until {until}");
        account.login_refused();
        context.show(
            account,
            WatchState::AwaitingLogin {
                reason: end.to_string(),
                cure: cure(end, credentials.kind),
            },
        );
        true
    }

    /// A server that drops a session is everyday life; one that cannot be watched is the operator's to know.
    fn interrupted(&self, end: &WatchEnd, wait: Duration, kind: CredentialKind) {
        let account = self.account;
        let seconds = wait.as_secs_f32();
        match end {
            WatchEnd::Panicked => {
                error!(%account, "account not watched: {end}; next attempt in {seconds:.0}s")
            }
            WatchEnd::Failed(IdleFailure::Chatter(_)) => warn!(
                %account, upstream = %account.id.upstream, "watch interrupted: {end}; next attempt in {seconds:.1}s"
            ),
            // That the state cannot be written is said where it happens, once for all.
            _ if next_step(end, kind) == Next::Soon => {
                debug!(
                    %account, upstream = %account.id.upstream,
                    "watch interrupted: {end}; next attempt in {seconds:.1}s"
                );
            }
            _ => {
                warn!(
                    %account, upstream = %account.id.upstream,
                    "account not watched: {end}; next attempt in {seconds:.0}s"
                )
            }
        }
        if matches!(end, WatchEnd::Failed(IdleFailure::Silent) | WatchEnd::Broken(_)) {
            account.watch.note_loss();
        }
        let next = Instant::now().checked_add(wait).unwrap_or_else(Instant::now);
        self.context.show(account, WatchState::Interrupted { reason: end.to_string(), next });
    }
}

/// The remedy for a watch that has ended.
fn cure(end: &WatchEnd, kind: CredentialKind) -> &'static str {
    match end {
        WatchEnd::Failed(IdleFailure::NoIdle(_)) => "deltapush tries again when the app logs in",
        WatchEnd::NoRoute => "add a route to its mail server to the configuration",
        _ if kind == CredentialKind::Token => {
            "its access token has expired or was withdrawn; push goes on when a client has logged in with a new one"
        }
        _ => "log in with the app and the right password to start it again",
    }
}

/// Reports if the connection ended before the TLS handshake had failed for a reason of its own.
fn is_cut_off(handshake: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(handshake.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

fn next_step(end: &WatchEnd, kind: CredentialKind) -> Next {
    match end {
        WatchEnd::Connect(ConnectError::Login(error)) => match error {
            LoginError::Refused { answer, untagged } => match classify(answer, untagged) {
                LoginRefusal::Credentials => Next::AwaitLogin,
                // Access tokens expire, and what has expired will not come back: trying it again would look like guessing.
                LoginRefusal::Unclear if kind == CredentialKind::Token => Next::AwaitLogin,
                LoginRefusal::Unclear => Next::Confirm,
                LoginRefusal::Temporary => Next::Soon,
                LoginRefusal::TooManySessions
                | LoginRefusal::Throttled
                | LoginRefusal::Disabled => Next::Later,
            },
            LoginError::Bye(words)
                if matches!(
                    classify_bye(words),
                    LoginRefusal::TooManySessions
                        | LoginRefusal::Throttled
                        | LoginRefusal::Disabled
                ) =>
            {
                Next::Later
            }
            LoginError::Bye(words) if kind == CredentialKind::Token && is_about_expiry(words) => {
                Next::AwaitLogin
            }
            LoginError::Bye(_) => Next::Soon,
            _ => Next::Later,
        },
        // A server that restarts hangs up in the middle of a handshake.
        WatchEnd::Connect(ConnectError::Tls(error)) if is_cut_off(error) => Next::Soon,
        // A certificate that cannot be verified is the operator's to mend, and a complaint the account's owner's.
        WatchEnd::Connect(
            ConnectError::Tls(_) | ConnectError::NotFound(_) | ConnectError::Complaint { .. },
        )
        | WatchEnd::Panicked
        | WatchEnd::Yielded
        | WatchEnd::Resumed
        | WatchEnd::Shutdown => Next::Later,
        WatchEnd::Failed(IdleFailure::NoIdle(_)) | WatchEnd::NoRoute => Next::AwaitLogin,
        WatchEnd::Failed(
            IdleFailure::NoMailbox(_)
            | IdleFailure::IdleRefused(_)
            | IdleFailure::NoFetch(_)
            | IdleFailure::Complaint { has_worked: false, .. },
        ) => Next::Later,
        WatchEnd::Failed(
            IdleFailure::Bye(_)
            | IdleFailure::Silent
            | IdleFailure::Chatter(_)
            | IdleFailure::Complaint { .. },
        )
        | WatchEnd::Connect(_)
        | WatchEnd::Broken(_)
        | WatchEnd::TooLong(_)
        | WatchEnd::Store(_) => Next::Soon,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moment_ends_no_watch_and_a_refused_password_does() {
        let refused = |answer: &str| {
            let error = LoginError::Refused { answer: answer.into(), untagged: vec![] };
            next_step(&WatchEnd::Connect(error.into()), CredentialKind::Password)
        };
        assert_eq!(refused("NO [AUTHENTICATIONFAILED] no"), Next::AwaitLogin);
        assert_eq!(refused("NO [EXPIRED] no"), Next::AwaitLogin);
        assert_eq!(refused("NO [LIMIT] too many"), Next::Later);
        assert_eq!(refused("NO [UNAVAILABLE] later"), Next::Soon);
        assert_eq!(refused("NO [OVERQUOTA] too much"), Next::Later);
        assert_eq!(refused("NO LOGIN failed."), Next::Confirm);
        assert_eq!(refused("BAD [ALERT] Please enable IMAP access in your settings"), Next::Later);
        let expired =
            LoginError::Refused { answer: b"NO AUTHENTICATE failed.".to_vec(), untagged: vec![] };
        assert_eq!(
            next_step(&WatchEnd::Connect(expired.into()), CredentialKind::Token),
            Next::AwaitLogin
        );
        let expired = || {
            WatchEnd::Connect(
                LoginError::Bye("Session invalidated - AccessTokenExpired".into()).into(),
            )
        };
        assert_eq!(next_step(&expired(), CredentialKind::Token), Next::AwaitLogin);
        assert_eq!(next_step(&expired(), CredentialKind::Password), Next::Soon);
        let next_step = |end: &WatchEnd| next_step(end, CredentialKind::Password);
        assert_eq!(
            next_step(&WatchEnd::Connect(LoginError::Bye("overloaded".into()).into())),
            Next::Soon
        );
        assert_eq!(
            next_step(&WatchEnd::Connect(LoginError::Bye("Too many connections".into()).into())),
            Next::Later
        );
        let guessed = "Too many invalid logon attempts.";
        assert_eq!(
            next_step(&WatchEnd::Connect(LoginError::Bye(guessed.into()).into())),
            Next::Later
        );
        assert_eq!(next_step(&WatchEnd::Failed(IdleFailure::Silent)), Next::Soon);
        let handshake =
            |kind: io::ErrorKind| next_step(&WatchEnd::Connect(ConnectError::Tls(kind.into())));
        assert_eq!(handshake(io::ErrorKind::UnexpectedEof), Next::Soon, "the server restarts");
        assert_eq!(
            handshake(io::ErrorKind::InvalidData),
            Next::Later,
            "its certificate is not trusted"
        );
        for (has_worked, expected) in [(false, Next::Later), (true, Next::Soon)] {
            let complaint = IdleFailure::Complaint {
                words: "enable IMAP".into(),
                end: "it closed the connection".into(),
                has_worked,
            };
            assert_eq!(next_step(&WatchEnd::Failed(complaint)), expected);
        }
        let disabled = LoginError::Bye("Please enable IMAP access in your settings".into());
        assert_eq!(next_step(&WatchEnd::Connect(disabled.into())), Next::Later);
        assert_eq!(
            next_step(&WatchEnd::Failed(IdleFailure::NoIdle("BAD".into()))),
            Next::AwaitLogin
        );
    }
}
