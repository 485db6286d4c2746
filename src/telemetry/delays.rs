//! Delays from a message to the device that fetches it, measured between events of several modules.

use std::time::Instant;

use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::histogram::duration_histogram;
use super::series::Series;
use super::{AccountTelemetry, LoginResult, PostResult, TelemetryEvent, WatchEvent};

/// The two delays, as they were measured.
#[derive(Debug)]
pub(super) struct Delays {
    /// From the discovery of a message to the first accepted POST for its account.
    noticed_to_posted: Histogram,
    /// From there to the next login of a client of that account.
    posted_to_connected: Histogram,
}

impl Default for Delays {
    fn default() -> Self {
        Self { noticed_to_posted: duration_histogram(), posted_to_connected: duration_histogram() }
    }
}

/// The delays in progress of one account.
#[derive(Debug, Default)]
pub(super) struct DelaysInProgress {
    /// Time of the decision to push a message, until [`TelemetryEvent::Noticed`] reports that it is on disk: the POST may come
    /// before.
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
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "deltapush_noticed_to_posted_seconds",
            "Time from the discovery of a message to the first accepted POST for its account",
            self.noticed_to_posted.clone(),
        );
        registry.register(
            "deltapush_posted_to_connected_seconds",
            "Time from that POST to the next login of a client of that account",
            self.posted_to_connected.clone(),
        );
    }

    /// Measures the delays that end with this event; adds pushes to `series`, at `time` in seconds since 1970.
    pub(super) fn measure(
        &self,
        event: &TelemetryEvent<'_>,
        now: Instant,
        series: &Series,
        time: u64,
    ) {
        match event {
            TelemetryEvent::Judged { account, skipped: None, .. } => {
                let mut notes = account.lock();
                notes.delays.get_or_insert_default().judged.get_or_insert(now);
            }
            // The first of several messages counts: it waits longest.
            TelemetryEvent::Noticed { account, announce, since, .. } => {
                change(account, |under_way| {
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
                    .for_each(|account| change(account, |under_way| under_way.noticed = None));
            }
            TelemetryEvent::Login {
                account: Some(account), result: LoginResult::Accepted, ..
            } => {
                change(account, |under_way| {
                    if let Some(posted) = under_way.posted.take() {
                        let delay = now.saturating_duration_since(posted);
                        self.posted_to_connected.observe(delay.as_secs_f64());
                    }
                });
            }
            TelemetryEvent::Watch { account, state: WatchEvent::Ended } => {
                account.lock().delays = None;
            }
            _ => {}
        }
    }

    /// Messages of an earlier run have no start time and are not measured.
    fn posted(&self, account: &AccountTelemetry, now: Instant, series: &Series, time: u64) {
        change(account, |under_way| {
            if let Some(noticed) = under_way.noticed.take().or_else(|| under_way.judged.take()) {
                let delay = now.saturating_duration_since(noticed);
                self.noticed_to_posted.observe(delay.as_secs_f64());
                series.pushed(time, delay);
                under_way.posted.get_or_insert(now);
            }
        });
    }
}

fn change(account: &AccountTelemetry, what: impl FnOnce(&mut DelaysInProgress)) {
    let mut notes = account.lock();
    if let Some(under_way) = &mut notes.delays {
        what(under_way);
    }
    notes.delays.take_if(|under_way| under_way.is_over());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::secret::DeviceToken;

    #[test]
    fn message_is_followed_from_the_notice_to_the_client() {
        let (delays, series) = (Delays::default(), Series::default());
        let (start, account) = (Instant::now(), AccountTelemetry::default());
        let token = DeviceToken::new(b"token").unwrap();
        let accounts = [&account];
        let at = |seconds| start + Duration::from_secs(seconds);
        let record = |event: &TelemetryEvent<'_>, seconds| {
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
        record(&login, 0);
        record(&judged, 1);
        record(&noticed(Some(start)), 1);
        record(&judged, 2);
        record(&noticed(None), 2);
        record(&posted(PostResult::Failed(500)), 3);
        record(&posted(PostResult::Accepted), 4);
        record(&posted(PostResult::Accepted), 9);
        let counted = &delays.noticed_to_posted;
        assert_eq!(
            (counted.count(), counted.sum()),
            (1, 4.0),
            "from when the server told of the first message"
        );
        record(&login, 10);
        record(&login, 11);
        let counted = &delays.posted_to_connected;
        assert_eq!((counted.count(), counted.sum()), (1, 6.0));
        assert!(account.lock().delays.is_none());
        assert_eq!(series.get(0).last().unwrap().pushes, 1);
    }

    #[test]
    fn post_that_is_faster_than_the_notice_is_measured_too_and_once() {
        let (delays, series) = (Delays::default(), Series::default());
        let (start, account) = (Instant::now(), AccountTelemetry::default());
        let token = DeviceToken::new(b"token").unwrap();
        let accounts = [&account];
        let record = |event: &TelemetryEvent<'_>, seconds| {
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
        record(&judged(None), 1);
        record(&posted, 3);
        record(&noticed(true), 3);
        record(&posted, 500);
        let counted = &delays.noticed_to_posted;
        assert_eq!((counted.count(), counted.sum()), (1, 2.0));
        // A message that wakes no device starts no delay.
        record(&judged(Some("junk")), 600);
        record(&judged(None), 600);
        record(&noticed(false), 600);
        record(&posted, 700);
        assert_eq!(delays.noticed_to_posted.count(), 1);
    }

    #[test]
    fn given_up_messages_and_erased_accounts_leave_nothing() {
        let (delays, series) = (Delays::default(), Series::default());
        let (now, account) = (Instant::now(), AccountTelemetry::default());
        let token = DeviceToken::new(b"token").unwrap();
        let accounts = [&account];
        let record = |event: &TelemetryEvent<'_>| delays.measure(event, now, &series, 0);
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
            record(&TelemetryEvent::Judged {
                account: &account,
                mailbox: "INBOX",
                uid: 1,
                skipped: None,
            });
            record(&noticed);
            assert!(account.lock().delays.is_some());
            record(&end);
            assert!(account.lock().delays.is_none());
        }
    }
}
