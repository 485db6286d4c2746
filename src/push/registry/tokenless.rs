//! Clients that logged in to an account without a device: the operator sees who they are, and why no push will come.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Registry;
use crate::account::AccountId;
use crate::bounded::Bounded;
use crate::store::UnixTime;

/// Maximum number of accounts in the table. Each login name in it was accepted by its mail server.
const CAPACITY: usize = 1000;

/// Time after the last login for which an account stays in the table.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Maximum number of clients of one account that are counted.
const MAX_CLIENTS: usize = 100;

/// The clients without a token, by account.
#[derive(Debug)]
pub(super) struct TokenlessClients(Mutex<Bounded<AccountId, Clients>>);

#[derive(Debug)]
struct Clients {
    /// The sessions that are connected now.
    sessions: Vec<u64>,
    last_login: UnixTime,
}

/// An account without a device to which a client logged in within the last day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenlessAccount {
    /// The account.
    pub account: AccountId,
    /// The number of its clients that are connected now, 100 at most.
    pub clients: usize,
    /// The time of the last login.
    pub last_login: UnixTime,
}

impl Default for TokenlessClients {
    fn default() -> Self {
        Self(Mutex::new(Bounded::new(CAPACITY, LIFETIME)))
    }
}

impl TokenlessClients {
    /// Adds a client, and reports if it is the first one of its account.
    fn logged_in(&self, account: &AccountId, session: u64) -> bool {
        let (mut table, now) = (self.lock(), Instant::now());
        let is_first = table.get(account, now).is_none();
        let new = || Clients { sessions: vec![], last_login: UnixTime::now() };
        let clients = table.entry(account.clone(), now, new);
        clients.last_login = UnixTime::now();
        if clients.sessions.len() < MAX_CLIENTS {
            clients.sessions.push(session);
        }
        is_first
    }

    fn logged_out(&self, account: &AccountId, session: u64) {
        if let Some(clients) = self.lock().get_mut(account) {
            clients.sessions.retain(|connected| *connected != session);
        }
    }

    fn all(&self) -> Vec<TokenlessAccount> {
        let table = self.lock();
        let found = table.iter(Instant::now()).map(|(account, clients)| TokenlessAccount {
            account: account.clone(),
            clients: clients.sessions.len(),
            last_login: clients.last_login,
        });
        found.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Bounded<AccountId, Clients>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// Notes that a client logged in to an account without a device, and reports if the account was not noted before.
    #[must_use]
    pub fn tokenless_login(&self, account: &AccountId, session: u64) -> bool {
        self.0.tokenless.logged_in(account, session)
    }

    /// Notes that this session of a client is over.
    pub fn client_gone(&self, account: &AccountId, session: u64) {
        self.0.tokenless.logged_out(account, session);
    }

    /// The accounts without a device to which clients logged in within the last day: those with a connected client first, then
    /// by name.
    #[must_use]
    pub fn tokenless_accounts(&self) -> Vec<TokenlessAccount> {
        let mut found = self.0.tokenless.all();
        found.retain(|found| !self.is_known(&found.account));
        found.sort_by(|one, other| {
            (one.clients == 0, &one.account).cmp(&(other.clients == 0, &other.account))
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> AccountId {
        AccountId::new(name, "imap.example.org:993")
    }

    #[test]
    fn clients_are_counted_until_they_are_gone() {
        let table = TokenlessClients::default();
        assert!(table.logged_in(&account("bob"), 1));
        assert!(!table.logged_in(&account("bob"), 2));
        table.logged_out(&account("bob"), 1);
        table.logged_out(&account("bob"), 1);
        table.logged_out(&account("eve"), 2);
        assert_eq!(table.all().iter().map(|found| found.clients).collect::<Vec<_>>(), [1]);
        table.logged_out(&account("bob"), 2);
        assert_eq!(table.all().iter().map(|found| found.clients).collect::<Vec<_>>(), [0]);
        assert!(!table.logged_in(&account("bob"), 3), "one line in the log is enough");
    }

    #[test]
    fn crowds_take_bounded_memory() {
        let table = TokenlessClients::default();
        for number in 0..CAPACITY * 2 {
            assert!(table.logged_in(&account(&number.to_string()), 1));
        }
        for session in 0..MAX_CLIENTS as u64 * 2 {
            let _ = table.logged_in(&account("bob"), session);
        }
        let all = table.all();
        assert!(all.len() <= CAPACITY, "{}", all.len());
        let bob = all.iter().find(|found| found.account == account("bob")).unwrap();
        assert_eq!(bob.clients, MAX_CLIENTS);
    }
}
