//! Admission of new accounts to the registry, within the limits of [`Newcomers`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::Registry;
use super::newcomers::{AccountLimits, AccountOrigin, AccountsFull, Newcomers};
use crate::account::AccountId;

/// A new account that may be stored, until this is dropped.
#[derive(Debug)]
pub struct Admission(Arc<Mutex<Newcomers>>);

impl Drop for Admission {
    fn drop(&mut self) {
        lock(&self.0).stored();
    }
}

fn lock(newcomers: &Mutex<Newcomers>) -> MutexGuard<'_, Newcomers> {
    newcomers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// From now on there may be so many accounts.
    pub fn limit(&self, limits: AccountLimits) {
        lock(&self.0.newcomers).limits = limits;
    }

    /// Reports if the account may get a token: it is known, or there may be one more. To be asked before
    /// [`register`](Self::register), and kept until that is done.
    ///
    /// # Errors
    /// [`AccountsFull`], for the client; the operator is warned.
    pub fn admit(
        &self,
        account: &AccountId,
        origin: AccountOrigin,
    ) -> Result<Option<Admission>, AccountsFull> {
        if self.is_known(account) {
            return Ok(None);
        }
        let now = Instant::now().into_std();
        let mut newcomers = lock(&self.0.newcomers);
        let accounts = &self.0.accounts;
        let at_upstream = || accounts.in_all(accounts.at_upstream(&account.upstream));
        if let Err(full) = newcomers.admit(origin, accounts.estimated_len(), at_upstream, now) {
            if let Some(refused) = newcomers.is_news(now) {
                tracing::warn!(
                    accounts = accounts.estimated_len(),
                    refused,
                    "new account refused: {full}; see limits.accounts and limits.new_accounts_per_address"
                );
            }
            return Err(full);
        }
        Ok(Some(Admission(Arc::clone(&self.0.newcomers))))
    }

    /// Number of refused new accounts since the start.
    #[must_use]
    pub fn refused_accounts(&self) -> u64 {
        lock(&self.0.newcomers).refused
    }
}
