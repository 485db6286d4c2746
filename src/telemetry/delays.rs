//! Delays from a message to the device that fetches it, put together from events of several modules.

use std::time::Instant;

use dashmap::DashMap;

use super::histogram::Histogram;
use super::series::Series;
use super::{LoginResult, PostResult, TelemetryEvent, WatchEvent};
use crate::account::AccountId;

/// Accounts for which something is under way, at most. Beyond it nothing is measured, and nothing else is lost.
const MAX_ACCOUNTS: usize = 100_000;

/// The two delays of each account, and what was measured.
#[derive(Debug, Default)]
pub struct Delays {
    under_way: DashMap<AccountId, DelaysInProgress>,
    /// From the notice of a message to the first POST that was accepted for its account.
    pub noticed_to_posted: Histogram,
    /// From there to the next login of a client of that account.
    pub posted_to_connected: Histogram,
}

#[derive(Debug, Default)]
struct DelaysInProgress {
    /// When a message was judged that deserves a push, until it is told that this is on disk: the POST may come before.
    judged: Option<Instant>,
    noticed: Option<Instant>,
    posted: Option<Instant>,
}

impl DelaysInProgress {
    fn is_over(&self) -> bool {
        self.judged.is_none() && self.noticed.is_none() && self.posted.is_none()
    }
}

impl Delays {
    /// Measures what ends with this event; pushes are noted in `series`, at `time` in seconds since 1970.
    pub(super) fn measure(
        &self,
        event: &TelemetryEvent<'_>,
        now: Instant,
        series: &Series,
        time: u64,
    ) {
        match event {
            TelemetryEvent::Judged { account, skipped: None, .. } => self.judged(account, now),
            // The first of several messages counts: it waits longest.
            TelemetryEvent::Noticed { account, announce, since, .. } => {
                self.change(account, |under_way| {
                    if let (Some(judged), true) = (under_way.judged.take(), announce) {
                        under_way.noticed.get_or_insert(since.unwrap_or(judged));
                    }
                })
            }
            TelemetryEvent::Posted { accounts, result: PostResult::Accepted, .. } => {
                for account in *accounts {
                    self.posted(account, now, series, time);
                }
            }
            TelemetryEvent::Posted { .. } => {}
            TelemetryEvent::GaveUp { accounts, .. } => {
                // The next one is about another message.
                accounts
                    .iter()
                    .for_each(|account| self.change(account, |under_way| under_way.noticed = None));
            }
            TelemetryEvent::Login {
                account: Some(account), result: LoginResult::Accepted, ..
            } => {
                self.change(account, |under_way| {
                    if let Some(posted) = under_way.posted.take() {
                        self.posted_to_connected.observe(now.saturating_duration_since(posted));
                    }
                });
            }
            TelemetryEvent::Watch { account, state: WatchEvent::Ended } => {
                drop(self.under_way.remove(*account))
            }
            _ => {}
        }
    }

    fn judged(&self, account: &AccountId, now: Instant) {
        if self.under_way.len() < MAX_ACCOUNTS || self.under_way.contains_key(account) {
            self.under_way.entry(account.clone()).or_default().judged.get_or_insert(now);
        }
    }

    /// What was noticed before the start has no beginning here.
    fn posted(&self, account: &AccountId, now: Instant, series: &Series, time: u64) {
        self.change(account, |under_way| {
            if let Some(noticed) = under_way.noticed.take().or_else(|| under_way.judged.take()) {
                let delay = now.saturating_duration_since(noticed);
                self.noticed_to_posted.observe(delay);
                series.pushed(time, delay);
                under_way.posted.get_or_insert(now);
            }
        });
    }

    fn change(&self, account: &AccountId, what: impl FnOnce(&mut DelaysInProgress)) {
        if let Some(mut under_way) = self.under_way.get_mut(account) {
            what(&mut under_way);
        }
        self.under_way.remove_if(account, |_, under_way| under_way.is_over());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::secret::DeviceToken;

    #[test]
    fn message_is_followed_from_the_notice_to_the_client() {
        let (delays, series) = (Delays::default(), Series::default());
        let (start, account) = (Instant::now(), AccountId::new("alice@example.org", "imap:993"));
        let token = DeviceToken::new(b"token").unwrap();
        let accounts = [account.clone()];
        let at = |seconds| start + Duration::from_secs(seconds);
        let tell = |event: &TelemetryEvent<'_>, seconds| {
            delays.measure(event, at(seconds), &series, seconds)
        };
        let noticed = |since| TelemetryEvent::Noticed {
            account: &account,
            mailbox: "INBOX",
            announce: true,
            since,
        };
        let posted = |result| TelemetryEvent::Posted {
            accounts: &accounts,
            token: &token,
            result,
            took: Duration::ZERO,
        };
        let login = TelemetryEvent::Login {
            session: 1,
            account: Some(&account),
            result: LoginResult::Accepted,
        };

        let judged =
            TelemetryEvent::Judged { account: &account, mailbox: "INBOX", uid: 1, skipped: None };
        tell(&login, 0);
        tell(&judged, 1);
        tell(&noticed(Some(start)), 1);
        tell(&judged, 2);
        tell(&noticed(None), 2);
        tell(&posted(PostResult::Failed(500)), 3);
        tell(&posted(PostResult::Accepted), 4);
        tell(&posted(PostResult::Accepted), 9);
        let counted = delays.noticed_to_posted.get();
        assert_eq!(
            (counted.count, counted.sum),
            (1, 4.0),
            "from when the server told of the first message"
        );
        tell(&login, 10);
        tell(&login, 11);
        let counted = delays.posted_to_connected.get();
        assert_eq!((counted.count, counted.sum), (1, 6.0));
        assert!(delays.under_way.is_empty());
        assert_eq!(series.get(0).last().unwrap().pushes, 1);
    }

    #[test]
    fn post_that_is_faster_than_the_notice_is_measured_too_and_once() {
        let (delays, series) = (Delays::default(), Series::default());
        let (start, account) = (Instant::now(), AccountId::new("alice@example.org", "imap:993"));
        let token = DeviceToken::new(b"token").unwrap();
        let accounts = [account.clone()];
        let tell = |event: &TelemetryEvent<'_>, seconds| {
            delays.measure(event, start + Duration::from_secs(seconds), &series, seconds);
        };
        let posted = TelemetryEvent::Posted {
            accounts: &accounts,
            token: &token,
            result: PostResult::Accepted,
            took: Duration::ZERO,
        };
        let judged = |skipped| TelemetryEvent::Judged {
            account: &account,
            mailbox: "INBOX",
            uid: 1,
            skipped,
        };
        let noticed = |announce| TelemetryEvent::Noticed {
            account: &account,
            mailbox: "INBOX",
            announce,
            since: Some(start),
        };
        tell(&judged(None), 1);
        tell(&posted, 3);
        tell(&noticed(true), 3);
        tell(&posted, 500);
        let counted = delays.noticed_to_posted.get();
        assert_eq!((counted.count, counted.sum), (1, 2.0));
        // What wakes nobody, or nobody but those who have it already, begins nothing.
        tell(&judged(Some("junk")), 600);
        tell(&judged(None), 600);
        tell(&noticed(false), 600);
        tell(&posted, 700);
        assert_eq!(delays.noticed_to_posted.get().count, 1);
    }

    #[test]
    fn given_up_messages_and_erased_accounts_leave_nothing() {
        let (delays, series) = (Delays::default(), Series::default());
        let (now, account) = (Instant::now(), AccountId::new("alice@example.org", "imap:993"));
        let token = DeviceToken::new(b"token").unwrap();
        let accounts = [account.clone()];
        let tell = |event: &TelemetryEvent<'_>| delays.measure(event, now, &series, 0);
        let noticed = TelemetryEvent::Noticed {
            account: &account,
            mailbox: "INBOX",
            announce: true,
            since: None,
        };
        for end in [
            TelemetryEvent::GaveUp { accounts: &accounts, token: &token, reason: "too old" },
            TelemetryEvent::Watch { account: &account, state: WatchEvent::Ended },
        ] {
            tell(&TelemetryEvent::Judged {
                account: &account,
                mailbox: "INBOX",
                uid: 1,
                skipped: None,
            });
            tell(&noticed);
            assert_eq!(delays.under_way.len(), 1);
            tell(&end);
            assert!(delays.under_way.is_empty());
        }
    }
}
