//! Clients of accounts whose watch is at another node: the account is in memory as long as a client of it is here, and the owner
//! hears of what its client does.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::Registry;
use crate::account::AccountId;
use crate::bounded::Bounded;
use crate::push::account::Account;
use crate::secret::DeviceToken;
use crate::store::{StoreError, StoredEvent, UnixTime, change};

/// For so long a client that logs in waits for the database. Later its account counts as unknown for a while.
pub(super) const CLIENT_LIMIT: Duration = Duration::from_secs(1);

/// Pause until an account that could not be loaded is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A device that fetches is told of at most once in this time, or in half the grace if that is longer.
const LEAST_PAUSE: Duration = Duration::from_secs(5);

/// A device that was woken within this time comes because of it.
const POSTED: Duration = Duration::from_secs(3600);

/// Without a grace, one in so many fetches of such a device is told of: it may have been woken for another account, and the watch
/// of this one be refused.
const SAMPLE: u8 = 16;

/// So many devices are remembered that were told of.
const MAX_TOLD: usize = 10_000;

/// For so long at most.
const TOLD_TIME: Duration = Duration::from_secs(3600);

/// When it was last told of each device that it fetches.
#[derive(Debug)]
pub(super) struct ToldFetches(Mutex<Bounded<(AccountId, u32), Instant>>);

impl Default for ToldFetches {
    fn default() -> Self {
        Self(Mutex::new(Bounded::new(MAX_TOLD, TOLD_TIME)))
    }
}

impl ToldFetches {
    /// Reports if it is to be told now, and remembers that it was.
    fn is_due(&self, account: &AccountId, token: &DeviceToken, pause: Duration) -> bool {
        let now = Instant::now();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (account.clone(), token.short_hash());
        let is_due = told
            .get(&key, now.into_std())
            .is_none_or(|last| now.saturating_duration_since(*last) >= pause);
        if is_due {
            *told.entry(key, now.into_std(), || now) = now;
        }
        is_due
    }
}

/// A client of an account: while it exists, the account stays in memory, wherever its watch is. Nothing without companions.
#[derive(Debug)]
pub struct Visit(Option<Box<(Registry, AccountId)>>);

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some((registry, account)) = self.0.as_deref() {
            registry.change_clients(account, |clients| clients.here -= 1);
        }
    }
}

impl Registry {
    /// A client has logged in to the account. If the account is not in memory, because its watch is at another node, it is loaded.
    pub async fn visit(&self, account: &AccountId) -> Visit {
        if self.ownership().is_sole() {
            return Visit(None);
        }
        self.change_clients(account, |clients| clients.here += 1);
        let visit = Visit(Some(Box::new((self.clone(), account.clone()))));
        if !self.is_known(account) && !self.is_watched_here(account) {
            let loaded = timeout(CLIENT_LIMIT, self.reload(account)).await;
            if !matches!(loaded, Ok(Ok(()))) {
                debug!(%account, "the account of a client could not be loaded in time");
                tokio::spawn(self.clone().load_later(account.clone()));
            }
        }
        visit
    }

    /// Loads an account for a client that stays.
    async fn load_later(self, account: AccountId) {
        loop {
            sleep(RETRY).await;
            let is_over = !self.concerns(&account) || self.is_known(&account);
            if is_over || self.reload(&account).await.is_ok() {
                return;
            }
        }
    }

    /// The device with this token fetches messages of the account by itself. With a grace of pushes, the watch at another node
    /// must know. Without one only a watch that was refused has a use for it: most are told of nothing.
    pub fn device_fetches(&self, known: &Account, token: &DeviceToken, grace: Duration) {
        if self.is_watched_here(&known.id) {
            if !grace.is_zero() {
                known.watch.device_fetches(token);
            }
            return;
        }
        let is_needless = grace.is_zero() && self.is_posted(token) && fastrand::u8(..SAMPLE) > 0;
        if is_needless {
            return;
        }
        if self.0.told_fetches.is_due(&known.id, token, (grace / 2).max(LEAST_PAUSE)) {
            let (registry, account) = (self.clone(), known.id.clone());
            let fetch = DeviceFetch::now(token).to_bytes();
            tokio::spawn(async move {
                let told = registry.tell(StoredEvent::Fetches(account, fetch)).await;
                if let Err(error) = told {
                    debug!("cannot tell the other nodes that a device fetches: {error}");
                }
            });
        }
    }

    /// Reports if the device was woken lately, so that its accounts are watched, most probably.
    fn is_posted(&self, token: &DeviceToken) -> bool {
        let age = self.0.accounts.recent_posts.age(token, UnixTime::now());
        age.is_some_and(|age| age < POSTED)
    }

    /// The mail server has no session left for the account's client: the watch leaves it its own, at whichever node it is.
    /// Returns whether there may be a session to leave.
    pub async fn yield_session(&self, account: &AccountId) -> bool {
        if self.is_watched_here(account) {
            return self.get(account).is_some_and(|known| known.watch.yield_session());
        }
        let told = timeout(CLIENT_LIMIT, self.tell(StoredEvent::Yield(account.clone()))).await;
        matches!(told, Ok(Ok(())))
    }

    /// Tells the other nodes.
    ///
    /// # Errors
    /// [`StoreError`]: they do not hear of it.
    pub async fn tell(&self, event: StoredEvent) -> Result<(), StoreError> {
        self.commit(change::tell(event)).await
    }
}

/// A device that fetches messages by itself, as nodes tell each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFetch {
    /// The hash of its token.
    hash: Vec<u8>,
    /// When, in milliseconds since 1970 by the wall clock of the node that tells.
    at: u64,
}

impl DeviceFetch {
    fn now(token: &DeviceToken) -> Self {
        Self { hash: token_hash(token), at: unix_millis() }
    }

    fn to_bytes(&self) -> Vec<u8> {
        [self.hash.as_slice(), &self.at.to_be_bytes()].concat()
    }

    /// From the bytes that another node has written.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (hash, at) = bytes.split_last_chunk()?;
        Some(Self { hash: hash.to_vec(), at: u64::from_be_bytes(*at) })
    }

    /// Reports if it is the device with this token.
    #[must_use]
    pub fn is_of(&self, token: &DeviceToken) -> bool {
        token_hash(token) == self.hash
    }

    /// The time since. Nothing if the other node's clock is ahead.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_millis(unix_millis().saturating_sub(self.at))
    }
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The hash by which the state names a token.
pub(in crate::push) fn token_hash(token: &DeviceToken) -> Vec<u8> {
    let text = token.expose().as_bytes();
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> DeviceToken {
        DeviceToken::new(b"openpgp:x").unwrap()
    }

    #[test]
    fn fetch_survives_the_log() {
        let fetch = DeviceFetch::now(&token());
        let read = DeviceFetch::from_bytes(&fetch.to_bytes()).unwrap();
        assert!(read == fetch && read.is_of(&token()) && read.age() < Duration::from_secs(60));
        assert!(!read.is_of(&DeviceToken::new(b"openpgp:y").unwrap()));
        let ahead = DeviceFetch { at: u64::MAX, ..fetch };
        assert_eq!(ahead.age(), Duration::ZERO);
        assert_eq!(DeviceFetch::from_bytes(b"short"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn fetches_are_told_now_and_then() {
        let (told, account) =
            (ToldFetches::default(), AccountId::new("alice", "imap.example.org:993"));
        let pause = Duration::from_secs(10);
        let is_due = || told.is_due(&account, &token(), pause);
        assert!(is_due() && !is_due());
        tokio::time::advance(pause).await;
        assert!(is_due() && !is_due());
        assert!(told.is_due(&account, &DeviceToken::new(b"openpgp:y").unwrap(), pause));
    }
}
