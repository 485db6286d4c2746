//! The copy in memory of what the store has committed.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use dashmap::mapref::one::Ref;

use super::latest::LatestSender;
use super::unwritten::Unwritten;
use super::waiting::WaitingAccounts;
use super::{AccountEvent, INBOX, News, RECENTLY};
use crate::account::AccountId;
use crate::credentials::{CredentialKind, Credentials};
use crate::push::schedule::{PATIENCE, QUARANTINE, Quarantined, TokenState};
use crate::secret::DeviceToken;
use crate::store::{
    AccountRecord, AccountStatus, Announce, Change, FetchLesson, Fetches, Generation, Idled,
    Loaded, Position, StoredToken, TokenRecord, Unannounced, UnixTime, Uptime,
};

/// For how long at least a token is tried that had something to announce when deltapush ended.
const LAST_TRY: Duration = Duration::from_secs(10 * 60);

/// The copy in memory.
#[derive(Debug)]
pub(super) struct AccountTable {
    map: DashMap<AccountId, AccountEntry>,
    tokens: DashMap<DeviceToken, Token>,
    /// How many have no credentials.
    waiting: WaitingAccounts,
    events: LatestSender<AccountId, AccountEvent>,
    news: LatestSender<DeviceToken, News>,
    pub(super) unwritten: Unwritten,
    /// No account has credentials, and none is waited for.
    keeps_sessions: bool,
}

#[derive(Debug)]
struct AccountEntry {
    /// None if they are not on disk or could not be unsealed: a login of the client brings them. What cannot be used again is
    /// kept too, for then a login brings nothing.
    credentials: Option<Arc<Credentials>>,
    tokens: Vec<StoredToken>,
    /// The mailboxes that its clients idled in, the latest first.
    idled: Vec<Idled>,
    /// The server refused these credentials: the next login that succeeds starts the watch again, even with the same ones.
    refused: bool,
    /// It was found at the start.
    from_before: bool,
    /// When its devices were last called back.
    called: Option<UnixTime>,
}

/// A token that an account has.
#[derive(Debug, Default)]
struct Token {
    /// The accounts that have it, in the order in which they got it.
    owners: Vec<AccountId>,
    record: TokenRecord,
}

impl AccountEntry {
    /// What a watch logs in with.
    fn usable(&self) -> Option<&Arc<Credentials>> {
        self.credentials.as_ref().filter(|credentials| credentials.can_be_used_again())
    }

    /// What to keep of `new`, which a client has just logged in with: nothing that lasts less long than what is known and
    /// well, for another device of the account may have a password.
    fn lasting(&self, new: Credentials) -> Credentials {
        match self.usable().filter(|_| !self.refused) {
            Some(known) if lasts(known.kind) > lasts(new.kind) => Credentials::clone(known),
            _ => new,
        }
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

/// How a login compares with what is known.
pub(super) enum LoginComparison {
    Same,
    Changed,
}

impl AccountTable {
    pub(super) fn new(
        events: LatestSender<AccountId, AccountEvent>,
        news: LatestSender<DeviceToken, News>,
        keeps_sessions: bool,
    ) -> Self {
        let (map, tokens, waiting) = (DashMap::new(), DashMap::new(), WaitingAccounts::default());
        Self { map, tokens, waiting, events, news, unwritten: Unwritten::default(), keeps_sessions }
    }

    /// Takes over what was found at the start.
    pub(super) fn restore(&self, loaded: Loaded) {
        let now = UnixTime::now();
        if !self.keeps_sessions {
            self.waiting.begin(
                loaded.accounts.iter().filter(|record| record.credentials.is_none()).count(),
            );
        }
        loaded.accounts.into_iter().for_each(|record| self.insert(record));
        loaded.tokens.into_iter().for_each(|(token, record)| self.apply_token(&token, record));
        loaded.unannounced.into_iter().for_each(|token| self.resume(token, now));
    }

    pub(super) fn is_from_before(&self, account: &AccountId) -> bool {
        self.map.get(account).is_some_and(|account| account.from_before)
    }

    fn insert(&self, record: AccountRecord) {
        let AccountRecord { account, credentials, tokens, idled, called } = record;
        self.now_has(&account, &[], &tokens);
        let watchable =
            credentials.as_ref().is_some_and(|credentials| credentials.can_be_used_again());
        self.map.insert(
            account.clone(),
            AccountEntry { credentials, tokens, idled, refused: false, from_before: true, called },
        );
        if watchable {
            self.events.send(account, AccountEvent::Watch);
        }
    }

    fn resume(&self, found: Unannounced, now: UnixTime) {
        // However old the wall clock makes it: after an outage of whatever kind it is tried once more.
        let age = found.since.age(now).min(PATIENCE.saturating_sub(LAST_TRY));
        self.news.send(found.token, News::Pending { generation: found.generation, age });
    }

    /// Runs on the store's thread.
    pub(super) fn apply(&self, change: Change) {
        match change {
            Change::Tokens { account, tokens, .. } if tokens.is_empty() => {
                if let Some((_, erased)) = self.map.remove(&account) {
                    self.unwritten.forget(&account);
                    self.now_has(&account, &erased.tokens, &[]);
                    self.events.send(account, AccountEvent::Unwatch);
                    if erased.credentials.is_none() && !self.keeps_sessions {
                        self.waiting.ended();
                    }
                }
            }
            Change::Tokens { account, credentials, tokens } => {
                self.apply_tokens(account, credentials, tokens)
            }
            Change::Credentials { account, credentials } => {
                self.apply_credentials(&account, credentials)
            }
            Change::Pending { tokens, generation } => {
                let news = News::Pending { generation, age: Duration::ZERO };
                tokens.into_iter().for_each(|token| self.news.send(token, news));
            }
            Change::Idled { account, mailboxes } => self.apply_idled(account, mailboxes),
            Change::Token { token, record } => self.apply_token(&token, record),
            Change::Gone { token } => self.news.send(token, News::Gone),
        }
    }

    fn apply_tokens(
        &self,
        account: AccountId,
        credentials: Option<Arc<Credentials>>,
        tokens: Vec<StoredToken>,
    ) {
        match self.map.entry(account.clone()) {
            Entry::Vacant(vacant) => {
                self.now_has(&account, &[], &tokens);
                let (idled, called) = (Vec::new(), None);
                vacant.insert(AccountEntry {
                    credentials,
                    tokens,
                    idled,
                    refused: false,
                    from_before: false,
                    called,
                });
                self.events.send(account, AccountEvent::Watch);
            }
            Entry::Occupied(mut known) => {
                let before = std::mem::replace(&mut known.get_mut().tokens, tokens);
                self.now_has(&account, &before, &known.get().tokens);
                drop(known);
                credentials
                    .into_iter()
                    .for_each(|credentials| self.apply_credentials(&account, credentials));
            }
        }
    }

    /// News that could not be written is pushed from memory, once.
    pub(super) fn push_unwritten(
        &self,
        account: &AccountId,
        mailbox: &str,
        position: Position,
        announce: &Announce,
    ) {
        if *announce == Announce::Nothing
            || !self.is_known(account)
            || !self.unwritten.push(account, mailbox, position)
        {
            return;
        }
        let news = News::Pending { generation: Generation::default(), age: Duration::ZERO };
        let tokens = self.tokens(account).into_iter().filter(|token| announce.includes(token));
        tokens.for_each(|token| self.news.send(token, news));
    }

    fn apply_token(&self, token: &DeviceToken, record: TokenRecord) {
        if let Some(mut known) = self.tokens.get_mut(token) {
            known.record = record;
        }
    }

    pub(super) fn quarantined_tokens(&self) -> usize {
        self.tokens.iter().filter(|known| known.record.quarantine.is_some()).count()
    }

    pub(super) fn standing(&self, token: &DeviceToken, now: UnixTime) -> Option<TokenState> {
        let known = self.tokens.get(token)?;
        let quarantine = known.record.quarantine.map(|quarantine| Quarantined {
            answers: quarantine.answers,
            // A wall clock that was set back makes no wait longer than it ever is.
            wait: now.age(quarantine.until).min(QUARANTINE),
        });
        Some(TokenState {
            account: known.owners.first()?.clone(),
            accepted: known.record.accepted,
            quarantine,
        })
    }

    fn apply_credentials(&self, account: &AccountId, credentials: Arc<Credentials>) {
        let Some(mut known) = self.map.get_mut(account) else { return };
        let same = known.credentials.as_ref() == Some(&credentials);
        if !same || known.refused {
            let waited = known.credentials.replace(credentials).is_none();
            known.refused = false;
            drop(known);
            self.events.send(account.clone(), AccountEvent::CredentialsChanged);
            if waited {
                self.waiting.ended();
            }
        }
    }

    fn apply_idled(&self, account: AccountId, mailboxes: Vec<Idled>) {
        let Some(mut known) = self.map.get_mut(&account) else { return };
        let before = std::mem::replace(&mut known.idled, mailboxes);
        let changed = !same_names(names(&before), names(&known.idled));
        let watched = self.keeps_sessions || known.usable().is_some() && !known.refused;
        drop(known);
        if changed && watched {
            self.events.send(account, AccountEvent::MailboxesChanged);
        }
    }

    pub(super) fn tokens(&self, account: &AccountId) -> Vec<DeviceToken> {
        let found = self.map.get(account);
        found
            .map(|account| account.tokens.iter().map(|seen| seen.token.clone()).collect())
            .unwrap_or_default()
    }

    pub(super) fn owners(&self, token: &DeviceToken) -> Vec<AccountId> {
        self.tokens.get(token).map(|known| known.owners.clone()).unwrap_or_default()
    }

    /// The tokens of an account have changed from `before` to `now`.
    fn now_has(&self, account: &AccountId, before: &[StoredToken], now: &[StoredToken]) {
        for seen in now {
            let mut token = self.tokens.entry(seen.token.clone()).or_default();
            if !token.owners.contains(account) {
                token.owners.push(account.clone());
            }
        }
        for seen in before.iter().filter(|seen| !now.iter().any(|kept| kept.token == seen.token)) {
            if let Entry::Occupied(mut token) = self.tokens.entry(seen.token.clone()) {
                token.get_mut().owners.retain(|owner| owner != account);
                if token.get().owners.is_empty() {
                    token.remove();
                }
            }
        }
    }

    pub(super) fn is_known(&self, account: &AccountId) -> bool {
        self.map.contains_key(account)
    }

    pub(super) fn called(&self, account: &AccountId, now: UnixTime) {
        if let Some(mut account) = self.map.get_mut(account) {
            account.called = Some(now);
        }
    }

    pub(super) fn since_call(&self, account: &AccountId, now: UnixTime) -> Option<Duration> {
        self.map.get(account)?.called.map(|at| at.age(now))
    }

    pub(super) fn credentials(&self, account: &AccountId) -> Option<Arc<Credentials>> {
        self.map.get(account)?.usable().cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn at_upstream(&self, upstream: &str) -> usize {
        self.map.iter().filter(|known| *known.key().upstream == *upstream).count()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.count()
    }

    pub(super) fn refused(&self, account: &AccountId) {
        if let Some(mut account) = self.map.get_mut(account) {
            account.refused = true;
        }
    }

    pub(super) fn rewatch(&self, account: &AccountId) -> bool {
        let Some(mut known) = self.map.get_mut(account) else { return false };
        if known.usable().is_none() {
            return false;
        }
        known.refused = false;
        drop(known);
        self.events.send(account.clone(), AccountEvent::Watch);
        true
    }

    pub(super) fn all(&self) -> Vec<AccountId> {
        let mut accounts: Vec<AccountId> =
            self.map.iter().map(|entry| entry.key().clone()).collect();
        accounts.sort_unstable();
        accounts
    }

    pub(super) fn must_note_idle(&self, account: &AccountId, mailbox: &str, since: Uptime) -> bool {
        let noted = |idled: &Idled| idled.name == mailbox && idled.last > since;
        self.map.get(account).is_some_and(|known| !known.idled.iter().any(noted))
    }

    pub(super) fn must_note_lesson(
        &self,
        account: &AccountId,
        token: &DeviceToken,
        lesson: &FetchLesson,
        now: UnixTime,
    ) -> bool {
        let Some(known) = self.map.get(account) else { return false };
        let seen = known.tokens.iter().find(|seen| seen.token == *token);
        seen.is_some_and(|seen| seen.habit.clone().learn(token, lesson, now, RECENTLY))
    }

    pub(super) fn fetches_encrypted_only(&self, account: &AccountId) -> bool {
        self.map.get(account).is_some_and(|known| {
            let is_so = |seen: &StoredToken| seen.habit.fetches() == Some(Fetches::EncryptedOnly);
            !known.tokens.is_empty() && known.tokens.iter().all(is_so)
        })
    }

    pub(super) fn mailboxes(&self, account: &AccountId) -> Vec<String> {
        let known = self.map.get(account);
        let idled = known.as_ref().map(|known| known.idled.as_slice()).unwrap_or_default();
        names(idled).into_iter().map(str::to_owned).collect()
    }

    /// What is in memory only.
    pub(super) fn complete(&self, status: &mut AccountStatus) {
        let known = self.map.get(&status.account);
        // Where clients' sessions are kept, none are needed.
        status.has_credentials =
            self.keeps_sessions || known.as_ref().is_some_and(|known| known.usable().is_some());
        let kind = known
            .as_ref()
            .and_then(|known| known.credentials.as_ref())
            .map(|credentials| credentials.kind);
        status.unusable = match kind {
            Some(CredentialKind::Exchange(mechanism)) => Some(mechanism),
            Some(CredentialKind::Password | CredentialKind::Token) | None => None,
        };
        status.refused = known.is_some_and(|known| known.refused);
    }

    /// What to keep of credentials that a client of the account has just logged in with.
    pub(super) fn lasting(&self, account: &AccountId, new: &Credentials) -> Credentials {
        let new = new.to_keep();
        match self.map.get(account) {
            Some(known) => known.lasting(new),
            None => new,
        }
    }

    pub(super) fn compare(
        &self,
        account: &AccountId,
        credentials: &Credentials,
    ) -> LoginComparison {
        let known = self.map.get(account);
        let same = known.is_none_or(|known| {
            !known.refused && known.credentials.as_deref() == Some(credentials)
        });
        if same { LoginComparison::Same } else { LoginComparison::Changed }
    }

    pub(super) fn is_current(
        &self,
        account: &AccountId,
        credentials: Option<&Credentials>,
        token: &DeviceToken,
        now: UnixTime,
    ) -> bool {
        let Some(known) = self.map.get(account) else { return false };
        // What was seen in the future was seen before the clock was set back: that is put right at once.
        let recent = |seen: &StoredToken| {
            seen.token == *token && seen.last_seen <= now && seen.last_seen.age(now) < RECENTLY
        };
        // A token in quarantine is written again, once after each answer: the app is there.
        let waits = |known: Ref<'_, DeviceToken, Token>| {
            known.record.quarantine.is_some_and(|found| found.until > now)
        };
        let is_quarantined = self.tokens.get(token).is_some_and(waits);
        let is_known = !known.refused && known.credentials.as_deref() == credentials;
        is_known && !is_quarantined && known.tokens.iter().any(recent)
    }
}

/// The mailboxes to be watched.
fn names(idled: &[Idled]) -> Vec<&str> {
    if idled.is_empty() {
        vec![INBOX]
    } else {
        idled.iter().map(|idled| idled.name.as_str()).collect()
    }
}

/// Whether the names are the same, in whatever order.
fn same_names(mut some: Vec<&str>, mut others: Vec<&str>) -> bool {
    some.sort_unstable();
    others.sort_unstable();
    some == others
}
