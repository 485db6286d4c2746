//! Index of accounts by the local part of their login names, for news that names an account by its address, its login name or
//! the mail server's user.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::push::account::Account;

/// Accounts by a hash of their local part in lower case: names that have the same one are told apart by the caller.
#[derive(Debug, Default)]
pub(super) struct NameIndex(DashMap<u64, Vec<Weak<Account>>>);

impl NameIndex {
    pub(super) fn add(&self, account: &Arc<Account>) {
        self.0
            .entry(key(&account.id.user))
            .or_insert_with(|| Vec::with_capacity(1))
            .push(Arc::downgrade(account));
    }

    pub(super) fn remove(&self, account: &Arc<Account>) {
        let Entry::Occupied(mut found) = self.0.entry(key(&account.id.user)) else { return };
        found.get_mut().retain(|known| !std::ptr::eq(known.as_ptr(), Arc::as_ptr(account)));
        if found.get().is_empty() {
            found.remove();
        }
    }

    /// The accounts whose login name may have the local part of `name`.
    pub(super) fn with_local_part_of(&self, name: &str) -> Vec<Arc<Account>> {
        let found = self.0.get(&key(name));
        found.map(|found| found.iter().filter_map(Weak::upgrade).collect()).unwrap_or_default()
    }
}

/// The part before the last `@`.
pub(in crate::push) fn local_part(name: &str) -> &str {
    name.rsplit_once('@').map_or(name, |(local, _)| local)
}

fn key(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    local_part(name).to_lowercase().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::AccountId;
    use crate::push::account::AccountState;

    #[test]
    fn accounts_are_found_by_their_local_part() {
        let account = |user: &str| {
            let (credentials, called, is_watched) = (None, None, true);
            let (tokens, idled) = (vec![], vec![]);
            let state = AccountState { credentials, tokens, idled, called, is_watched };
            Arc::new(Account::new(AccountId::new(user, "imap.example.org:993"), state, false))
        };
        let (index, alice, bare, bob) =
            (NameIndex::default(), account("Alice@example.org"), account("alice"), account("bob"));
        [&alice, &bare, &bob].into_iter().for_each(|account| index.add(account));
        assert_eq!(index.with_local_part_of("ALICE@example.net").len(), 2);
        index.remove(&alice);
        assert_eq!(index.with_local_part_of("alice").len(), 1);
        drop(bare);
        assert!(index.with_local_part_of("alice").is_empty(), "it is gone");
        assert!(index.with_local_part_of("").is_empty());
    }
}
