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

    /// The tokens that the owner of these slots posts: those with something to announce, what is known of them, and when they
    /// were last posted. No accounts.
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

    /// The poster of the token with this hash.
    fn token_post(
        &self,
        token: &[u8],
    ) -> impl Future<Output = Result<TokenPost, StoreError>> + Send;
}
