//! Test support: real servers, scripted peers, clients.

pub(crate) mod accessibility;
pub(crate) mod authority;
pub(crate) mod browser;
pub(crate) mod certs;
pub(crate) mod client;
pub(crate) mod core;
pub(crate) mod courier;
pub(crate) mod cyrus;
pub(crate) mod deltapush;
pub(crate) mod dns;
pub(crate) mod dovecot;
pub(crate) mod dovecot_24;
pub(crate) mod emailproxy;
pub(crate) mod forward;
pub(crate) mod guarded;
pub(crate) mod lmtp;
pub(crate) mod network;
pub(crate) mod news;
pub(crate) mod notify;
pub(crate) mod notify_wire;
pub(crate) mod pebble;
pub(crate) mod ports;
pub(crate) mod postgres;
pub(crate) mod python;
pub(crate) mod recipe;
pub(crate) mod replay;
pub(crate) mod scene;
pub(crate) mod scripted;
pub(crate) mod server;
pub(crate) mod small_disk;
pub(crate) mod smoothing;
pub(crate) mod tls;
pub(crate) mod token_slot;
pub(crate) mod tunnel;

use std::time::Duration;

use tokio::time::Instant;

/// Asks again and again until `condition` holds; false if it does not within `timeout`.
pub(crate) async fn poll(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
