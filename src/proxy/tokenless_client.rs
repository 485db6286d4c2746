//! A client of an account without a device: noted for the status, and logged once, unless it hands over its token.

use std::time::Duration;

use tokio::time::sleep;
use tracing::info;

use crate::account::AccountId;
use crate::push::registry::Registry;

/// Time for a client to hand over its token after the login. Delta Chat does it before it opens a mailbox.
const HANDING_OVER: Duration = Duration::from_secs(15);

/// Notes the client of this session, if its account has no device. Its end must be reported to [`Registry::client_gone`].
pub(super) fn note(registry: &Registry, account: &AccountId, session: u64) {
    if registry.is_known(account) || !registry.tokenless_login(account, session) {
        return;
    }
    let (registry, account) = (registry.clone(), account.clone());
    tokio::spawn(async move {
        sleep(HANDING_OVER).await;
        if !registry.is_known(&account) {
            info!(
                %account,
                upstream = %account.upstream,
                "a client logged in, and no push token was handed over: this app has none, so no push will come. Delta Chat \
                 Desktop, Delta Chat from F-Droid and other mail programs have no token"
            );
        }
    });
}
