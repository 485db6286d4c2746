//! The accounts that a report shows: all of a state file, a bounded number of a state that nodes share.
//!
//! With several nodes a report costs by the number of nodes and of accounts that are shown, however many accounts there are.

use super::cluster_report::ClusterReport;
use super::lookup;
use super::report::AccountCounts;
use super::status::Reporter;
use crate::account::AccountId;
use crate::cluster::AccountOwner;
use crate::store::{AccountStatus, Erased, FoundAccounts, Store, StoreError};

/// Most accounts that are shown at once, where nodes share the state.
pub(crate) const MAX_SHOWN: usize = 100;

/// The part of the state that a report shows.
#[derive(Default)]
pub(super) struct Shown {
    /// By name.
    pub(super) accounts: Vec<AccountStatus>,
    pub(super) erased: Vec<Erased>,
    /// The search may have left some out.
    pub(super) is_cut: bool,
    /// The reason why the database cannot be read.
    pub(super) unreadable: Option<String>,
}

impl Reporter {
    /// The accounts to show. While a database is away, the report is of the nodes alone.
    pub(super) async fn shown(&self, names: &[String]) -> Result<Shown, StoreError> {
        let Some(cluster) = self.cluster() else {
            let accounts = self.registry().snapshot().await?;
            let erased = self.registry().erased().await?;
            return Ok(Shown { accounts, erased, ..Shown::default() });
        };
        // Known to be away: it is not waited for once more.
        if let Some(trouble) = cluster.status().trouble {
            return Ok(Shown { unreadable: Some(trouble.reason), ..Shown::default() });
        }
        let shown = self.shown_of_many(names).await;
        Ok(shown.unwrap_or_else(|error| Shown {
            unreadable: Some(error.to_string()),
            ..Shown::default()
        }))
    }

    async fn shown_of_many(&self, names: &[String]) -> Result<Shown, StoreError> {
        let store = self.registry().store();
        let FoundAccounts { accounts, is_cut } = if names.is_empty() {
            self.most_important(store).await?
        } else {
            store.accounts_like(names.to_vec(), MAX_SHOWN).await?
        };
        let mut accounts = store.status_of(accounts).await?;
        accounts.iter_mut().for_each(|status| self.registry().complete(status));
        let (erased, is_cut) = (self.registry().erased().await?, is_cut && !names.is_empty());
        Ok(Shown { accounts, erased, is_cut, unreadable: None })
    }

    /// The accounts of this node that need attention, then the first by name.
    async fn most_important(&self, store: &Store) -> Result<FoundAccounts, StoreError> {
        let mut accounts = self.registry().troubled(MAX_SHOWN);
        let first = store.first_accounts(MAX_SHOWN).await?;
        for account in first.accounts {
            if accounts.len() < MAX_SHOWN && !accounts.contains(&account) {
                accounts.push(account);
            }
        }
        Ok(FoundAccounts { accounts, is_cut: first.is_cut })
    }

    /// One account, if it is there.
    pub(super) async fn status_of(
        &self,
        account: &AccountId,
    ) -> Result<Option<AccountStatus>, StoreError> {
        if self.cluster().is_none() {
            let found = self.registry().snapshot().await?;
            return Ok(found.into_iter().find(|status| status.account == *account));
        }
        let mut found = self.registry().store().status_of(vec![account.clone()]).await?;
        found.iter_mut().for_each(|status| self.registry().complete(status));
        Ok(found.pop())
    }

    /// The owner of the account, if that is not this node.
    pub(super) fn elsewhere(&self, account: &AccountId) -> Option<AccountOwner> {
        let cluster = self.cluster()?;
        if self.registry().ownership().has(account) {
            return None;
        }
        let owner = cluster.owner_of(account);
        let is_own = owner == AccountOwner::Node(cluster.me().name.clone());
        // Without a lease, watches of this node go on.
        let is_held = self.registry().is_watched_here(account);
        let is_taken = matches!(&owner, AccountOwner::Node(_)) && !is_own;
        (is_taken || !is_held).then_some(owner)
    }

    pub(super) fn cluster_report(&self) -> Option<ClusterReport> {
        let cluster = self.cluster()?;
        Some(ClusterReport::new(cluster, self.registry().count_accounts()))
    }

    /// The accounts of all nodes, counted by these.
    pub(super) async fn count_all(
        &self,
        cluster: &ClusterReport,
        is_readable: bool,
    ) -> AccountCounts {
        let (all, own) = (cluster.counts(), cluster.own_accounts());
        let pending = match is_readable {
            true => self.registry().store().count_pending().await.unwrap_or_default(),
            false => 0,
        };
        AccountCounts {
            accounts: all.accounts,
            watched: all.watched,
            elsewhere: all.accounts.saturating_sub(own),
            told: all.told,
            problems: all.troubled + all.waiting + all.unusable,
            waiting: all.waiting,
            unusable: all.unusable,
            devices: all.devices,
            pending,
            quarantined: all.quarantined,
        }
    }

    /// The accounts among which `lookup` finds the one that is called `name`: all, or those that may be meant.
    pub(super) async fn candidates(
        &self,
        name: &str,
        server: Option<&str>,
    ) -> Result<Vec<AccountId>, StoreError> {
        if self.cluster().is_none() {
            return Ok(self.registry().names());
        }
        let store = self.registry().store();
        let mut found = store.accounts_named(lookup::spellings(name)).await?;
        if lookup::find(found.clone(), name, server).is_err() {
            let like = store.accounts_like(vec![lookup::stem(name).to_owned()], MAX_SHOWN).await?;
            found.extend(like.accounts);
            found.sort_unstable();
            found.dedup();
        }
        Ok(found)
    }
}
