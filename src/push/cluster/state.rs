//! The state that nodes share, as far as their accounts in memory are concerned.

use std::future::Future;

use crate::account::AccountId;
use crate::ownership::Slot;
use crate::store::{ForwardedFact, Loaded, StoreError, TokenPost};

/// Reads of the shared state.
pub trait SharedState: Clone + Send + Sync + 'static {
    /// The accounts of these slots, what is known of their tokens, and when other nodes last posted these.
    fn load_slots(&self, slots: &[Slot])
    -> impl Future<Output = Result<Loaded, StoreError>> + Send;

    /// The tokens of the accounts of these slots: those of which their owner has something to announce, what may have become
    /// known of any lately, and when they were last posted. No accounts.
    fn pending(&self, slots: &[Slot]) -> impl Future<Output = Result<Loaded, StoreError>> + Send;

    /// One account, if it is there, with what is known of its tokens.
    fn load_account(
        &self,
        account: &AccountId,
    ) -> impl Future<Output = Result<Loaded, StoreError>> + Send;

    /// The facts that wait for the owner of these slots, the oldest first.
    fn forwarded(
        &self,
        slots: &[Slot],
    ) -> impl Future<Output = Result<Vec<ForwardedFact>, StoreError>> + Send;

    /// The posters of the tokens with these hashes, as far as an account has them.
    fn token_posts(
        &self,
        tokens: &[Vec<u8>],
    ) -> impl Future<Output = Result<Vec<TokenPost>, StoreError>> + Send;
}
