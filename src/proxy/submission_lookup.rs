//! Periodic look-up of mail submission servers for the public page.

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::shared::Proxy;
use crate::http::public::{KNOWN, UNKNOWN};
use crate::reloadable::Reloadable;

/// Looks up where the served domains submit mail, until `stop` is cancelled; at once where the configuration changes.
pub async fn keep_known(proxy: Reloadable<Proxy>, stop: CancellationToken) {
    let mut changes = proxy.changes();
    let mut again = false;
    loop {
        let site = proxy.get();
        let pause = if !site.site.is_shown {
            KNOWN
        } else {
            match stop.run_until_cancelled(site.site.look_up(&site.upstreams, again)).await {
                Some(true) => KNOWN,
                Some(false) => UNKNOWN,
                None => return,
            }
        };
        drop(site);
        tokio::select! {
            () = sleep(pause) => again = pause == KNOWN,
            () = changes.next() => again = false,
            () = stop.cancelled() => return,
        }
    }
}
