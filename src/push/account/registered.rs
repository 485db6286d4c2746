//! The registered part of an account: the copy in memory of what the store has committed of it, and what has been learned
//! since.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::unwritten::Unwritten;
use super::{Account, AccountState};
use crate::credentials::{CredentialKind, Credentials};
use crate::mailbox_name::MailboxName;
use crate::push::registry::{INBOX, RECENTLY};
use crate::secret::DeviceToken;
use crate::store::{
    AccountStatus, Announce, FetchLesson, Fetches, Idled, Position, StoredToken, UnixTime, Uptime,
};

/// Registered state, locked as a whole.
pub(super) struct Registered(Mutex<RegisteredState>);

struct RegisteredState {
    /// None if they are not on disk or could not be unsealed: a login of the client brings them. Credentials that cannot be
    /// used again are kept too, for then a login brings nothing.
    credentials: Option<Arc<Credentials>>,
    tokens: Vec<StoredToken>,
    /// The mailboxes that its clients idled in, the latest first.
    idled: Vec<Idled>,
    /// When its devices were last called back.
    called: Option<UnixTime>,
    /// It is watched: if it is not, the mail server's news is all that wakes its devices.
    is_watched: bool,
    /// The server refused these credentials: the next login that succeeds starts the watch again, even with the same ones.
    refused: bool,
    /// New mail that was pushed and could not be written.
    unwritten: Unwritten,
}

/// The effect of other credentials.
pub(in crate::push) struct CredentialsTaken {
    /// There were none before.
    pub(in crate::push) waited: bool,
}

impl Registered {
    pub(super) fn new(state: AccountState) -> Self {
        let AccountState { credentials, tokens, idled, called, is_watched } = state;
        Self(Mutex::new(RegisteredState {
            credentials,
            tokens,
            idled,
            called,
            is_watched,
            refused: false,
            unwritten: Unwritten::default(),
        }))
    }

    /// The last token was removed: no token and no credentials are left.
    pub(super) fn erase(&self) {
        let mut state = self.lock();
        (state.tokens, state.credentials) = (Vec::new(), None);
    }

    fn lock(&self) -> MutexGuard<'_, RegisteredState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thing that an account's watch needs, as far as its registration tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::push) enum WatchNeed {
    /// Nothing: the mail server tells of new mail.
    Nothing,
    /// A login of its client: the password is not known.
    Credentials,
    /// Another login method of its client: what it sends is of no use for another login.
    OtherLogin,
    /// A session at the mail server.
    Session,
}

impl RegisteredState {
    /// The credentials of a watch.
    fn usable(&self) -> Option<&Arc<Credentials>> {
        self.credentials.as_ref().filter(|credentials| credentials.can_be_used_again())
    }
}

impl Account {
    /// Its tokens, the first one registered first.
    #[must_use]
    pub fn tokens(&self) -> Vec<DeviceToken> {
        self.registered.lock().tokens.iter().map(|seen| seen.token.clone()).collect()
    }

    /// The credentials for a watch of the account. None if its client must log in first, or logs in with what cannot be used
    /// again.
    #[must_use]
    pub fn credentials(&self) -> Option<Arc<Credentials>> {
        self.registered.lock().usable().cloned()
    }

    /// The mailboxes that its clients wait for mail in, the latest first, [`MAX_IDLED`](crate::store::MAX_IDLED) at most, and
    /// `INBOX` if none is known.
    #[must_use]
    pub fn mailboxes(&self) -> Vec<MailboxName> {
        names(&self.registered.lock().idled).into_iter().map(MailboxName::from).collect()
    }

    /// Reports if the apps of all its devices are known to fetch encrypted messages only.
    #[must_use]
    pub fn fetches_encrypted_only(&self) -> bool {
        let is_so = |seen: &StoredToken| seen.habit.fetches() == Some(Fetches::EncryptedOnly);
        let state = self.registered.lock();
        !state.tokens.is_empty() && state.tokens.iter().all(is_so)
    }

    /// Reports if it is watched. If it is not, the mail server's news is all that wakes its devices.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.registered.lock().is_watched
    }

    /// The need of its watch, and the number of its tokens.
    pub(in crate::push) fn watch_need(&self) -> (WatchNeed, usize) {
        let state = self.registered.lock();
        let need = match &state.credentials {
            _ if !state.is_watched => WatchNeed::Nothing,
            None => WatchNeed::Credentials,
            Some(credentials) if credentials.can_be_used_again() => WatchNeed::Session,
            Some(_) => WatchNeed::OtherLogin,
        };
        (need, state.tokens.len())
    }

    /// Reports if it is to be watched, and waits for a client that brings credentials.
    pub(in crate::push) fn is_waiting(&self) -> bool {
        let state = self.registered.lock();
        state.is_watched && state.credentials.is_none()
    }

    /// It is watched from now on, or is not and has no credentials any more. Returns whether it waited for credentials.
    pub(in crate::push) fn set_watched(&self, is_watched: bool) -> bool {
        let mut state = self.registered.lock();
        let waited = state.is_watched && state.credentials.is_none();
        state.is_watched = is_watched;
        if !is_watched {
            state.credentials = None;
        }
        waited && !is_watched
    }

    /// The time since its devices were last called back.
    #[must_use]
    pub fn since_call(&self) -> Option<Duration> {
        self.registered.lock().called.map(|at| at.age(UnixTime::now()))
    }

    pub(in crate::push) fn called(&self, now: UnixTime) {
        self.registered.lock().called = Some(now);
    }

    /// The watch's login was refused: nothing more is tried until a client logs in. Not on disk: after a restart the
    /// credentials are tried once.
    pub fn login_refused(&self) {
        self.registered.lock().refused = true;
    }

    /// Reports if the mail server refused the present credentials.
    pub(in crate::push) fn is_refused(&self) -> bool {
        self.registered.lock().refused
    }

    /// The present credentials are tried once more. Returns whether there are any.
    pub(in crate::push) fn try_again(&self) -> bool {
        let mut state = self.registered.lock();
        let is_usable = state.usable().is_some();
        state.refused &= !is_usable;
        is_usable
    }

    pub(in crate::push) fn stored_tokens(&self) -> Vec<StoredToken> {
        self.registered.lock().tokens.clone()
    }

    /// Takes other tokens over, and returns those before.
    pub(in crate::push) fn replace_tokens(&self, tokens: Vec<StoredToken>) -> Vec<StoredToken> {
        std::mem::replace(&mut self.registered.lock().tokens, tokens)
    }

    /// Takes credentials over. None if these were known and well.
    pub(in crate::push) fn take_credentials(
        &self,
        credentials: Arc<Credentials>,
    ) -> Option<CredentialsTaken> {
        let mut state = self.registered.lock();
        if state.credentials.as_ref() == Some(&credentials) && !state.refused {
            return None;
        }
        state.refused = false;
        Some(CredentialsTaken { waited: state.credentials.replace(credentials).is_none() })
    }

    /// Takes the mailboxes over that its clients idled in. Returns whether these are others than before.
    pub(in crate::push) fn replace_idled(&self, mailboxes: Vec<Idled>) -> bool {
        let mut state = self.registered.lock();
        let before = std::mem::replace(&mut state.idled, mailboxes);
        !same_names(names(&before), names(&state.idled))
    }

    /// Reports if there are credentials that the server has not refused.
    pub(in crate::push) fn can_be_watched(&self) -> bool {
        let state = self.registered.lock();
        state.usable().is_some() && !state.refused
    }

    pub(in crate::push) fn must_note_idle(&self, mailbox: &str, since: Uptime) -> bool {
        let noted = |idled: &Idled| idled.name == mailbox && idled.last > since;
        !self.registered.lock().idled.iter().any(noted)
    }

    pub(in crate::push) fn must_note_lesson(
        &self,
        token: &DeviceToken,
        lesson: &FetchLesson,
        now: UnixTime,
    ) -> bool {
        let state = self.registered.lock();
        let seen = state.tokens.iter().find(|seen| seen.token == *token);
        seen.is_some_and(|seen| seen.habit.clone().learn(token, lesson, now, RECENTLY))
    }

    /// The credentials to store of `new`, with which a client has just logged in: none that last less long than the
    /// stored ones, because another device of the account may have a password.
    pub(in crate::push) fn lasting(&self, new: Credentials) -> Credentials {
        let state = self.registered.lock();
        match state.usable().filter(|_| !state.refused) {
            Some(known) if lasts(known.kind) > lasts(new.kind) => Credentials::clone(known),
            _ => new,
        }
    }

    /// Reports if these credentials of a login are known and were not refused.
    pub(in crate::push) fn is_current(&self, credentials: Option<&Credentials>) -> bool {
        let state = self.registered.lock();
        !state.refused && state.credentials.as_deref() == credentials
    }

    /// Reports if the token was handed over a moment ago. A time in the future was noted before the clock was set back: that
    /// is put right at once.
    pub(in crate::push) fn was_just_seen(&self, token: &DeviceToken, now: UnixTime) -> bool {
        self.registered.lock().tokens.iter().any(|seen| {
            seen.token == *token && seen.last_seen <= now && seen.last_seen.age(now) < RECENTLY
        })
    }

    /// Adds what is in memory only.
    pub(in crate::push) fn complete(&self, status: &mut AccountStatus) {
        let state = self.registered.lock();
        status.has_credentials = state.usable().is_some();
        status.unusable = match state.credentials.as_ref().map(|credentials| credentials.kind) {
            Some(CredentialKind::Exchange(mechanism)) => Some(mechanism),
            Some(CredentialKind::Password | CredentialKind::Token) | None => None,
        };
        status.refused = state.refused;
    }

    /// New mail up to `position` could not be written. Returns whether it is to be pushed now.
    pub(in crate::push) fn push_unwritten(&self, mailbox: &str, position: Position) -> bool {
        self.registered.lock().unwritten.push(mailbox, position)
    }

    /// A POST of the token was accepted.
    pub(in crate::push) fn accepted(&self, token: &DeviceToken) {
        self.registered.lock().unwritten.accepted(token);
    }

    /// The tokens that new mail up to `position` is still to be announced to.
    pub(in crate::push) fn left_to_announce(
        &self,
        mailbox: &str,
        position: Position,
        announce: Announce,
    ) -> Announce {
        self.registered.lock().unwritten.left(mailbox, position, announce)
    }

    /// New mail of the mailbox was written.
    pub(in crate::push) fn written(&self, mailbox: &str) {
        self.registered.lock().unwritten.written(mailbox);
    }
}

/// For how long, in no unit.
fn lasts(kind: CredentialKind) -> u8 {
    match kind {
        CredentialKind::Exchange(_) => 0,
        CredentialKind::Token => 1,
        CredentialKind::Password => 2,
    }
}

/// The mailboxes to be watched.
fn names(idled: &[Idled]) -> Vec<&str> {
    if idled.is_empty() { vec![INBOX] } else { idled.iter().map(|idled| &*idled.name).collect() }
}

/// Reports if the names are the same, in any order.
fn same_names(mut some: Vec<&str>, mut others: Vec<&str>) -> bool {
    some.sort_unstable();
    others.sort_unstable();
    some == others
}
