//! The source of new mail: deltapush's configuration for it, and clients that come where nobody watches.

use super::super::support::client::Client;
use super::super::support::deltapush::Options;
use super::super::support::dovecot::Dovecot;
use super::super::support::news::{self, Hook, Way};
use super::Source;
use super::ledger::Account;

/// The state's disk: room for all that a long run writes.
const DISK: &str = "32m";

/// Options for a mail server that is reached through `port`.
pub(super) fn options(source: Source, dovecot: &Dovecot, port: u16, hook: &Hook) -> Options {
    let more = "limits:\n  upstream_time: 5s\nkeep:\n  call_again: 3s\n  wait_for_fetch: 2s\n";
    match source {
        Source::Idle(credentials) => Options {
            upstream: format!("imaps://localhost:{port}"),
            credentials,
            more: more.to_owned(),
            ..Options::dovecot(dovecot)
        },
        Source::News(news) => {
            let options = news::options_through(port, dovecot, hook.section(Way::Lua), news);
            Options { more: options.more.clone() + more, disk: Some(DISK), ..options }
        }
    }
}

/// A client without a token opens the mailbox of each account.
pub(super) async fn clients_come(accounts: &[Account], port: u16) {
    for account in accounts {
        let mut client = Client::plain(port).await;
        client.log_in(&account.user).await;
        let reply = client.command("c2 SELECT INBOX").await;
        assert!(reply.result.starts_with("OK"), "{reply:?}");
        client.command("c3 LOGOUT").await;
    }
}
