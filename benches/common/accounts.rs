//! Accounts with a device each, registered beforehand in a state in a file.

use anyhow::{Context as _, Result};
use deltapush::account::AccountId;
use deltapush::credentials::Credentials;
use deltapush::push::registry::Registry;
use deltapush::secret::DeviceToken;
use deltapush::store::StoreSettings;
use tokio::task::JoinSet;

/// Accounts that are registered at the same time.
const AT_ONCE: usize = 256;

/// The token of an account.
pub(crate) fn token(account: usize) -> String {
    format!("openpgp:device-of-account-{account}")
}

/// Registers the accounts `0..accounts`, whose IDs `id` gives. Any password is right.
///
/// # Errors
/// If the state cannot be written.
pub(crate) async fn register(
    settings: &StoreSettings,
    accounts: usize,
    id: impl Fn(usize) -> AccountId,
) -> Result<()> {
    let (registry, _events, _news) = Registry::open(settings)?;
    let mut registering = JoinSet::new();
    for account in 0..accounts {
        if registering.len() >= AT_ONCE {
            registering.join_next().await.context("none is left")???;
        }
        registering.spawn(register_one(registry.clone(), id(account), token(account)));
    }
    while let Some(registered) = registering.join_next().await {
        registered??;
    }
    registry.close().await;
    Ok(())
}

async fn register_one(registry: Registry, id: AccountId, token: String) -> Result<()> {
    let credentials = Credentials::new(&*id.user, b"sesame".to_vec());
    let token = DeviceToken::new(token.as_bytes())?;
    Ok(registry.register(&id, &credentials, &token).await?)
}
