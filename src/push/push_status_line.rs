//! The state of push for an account in one line for its owner: the app shows it as the server's comment.

use tokio::time::Instant;

use super::account::Account;
use super::registry::Registry;
use super::watch_status::WatchState;
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::telemetry::PostResult;

/// So long the line may be, in bytes: words of a mail server may be in it.
const MAX_LINE: usize = 300;

/// The state of push for `account`, whose client has logged in with `credentials`; none where its session is kept. A client
/// that asks before it hands over its token gets the text that push begins then. Delta Chat keeps the text for as long as
/// the app runs: a state that may pass has its time.
#[must_use]
pub fn standing(
    registry: &Registry,
    account: &AccountId,
    credentials: Option<&Credentials>,
) -> String {
    let known = registry.get(account);
    let can_watch = match (credentials, &known) {
        (None, _) => true,
        (Some(_), Some(known)) => known.credentials().is_some(),
        (Some(credentials), None) => credentials.can_be_used_again(),
    };
    let line = match (can_watch, known) {
        (false, _) => "no push: deltapush cannot use this app's login again to watch for messages; log in with a \
                       password (PLAIN or LOGIN)"
            .into(),
        (true, None) => "push is ready and begins when this app has handed over its push token".into(),
        (true, Some(known)) => watched(registry, &known),
    };
    cut(line)
}

fn watched(registry: &Registry, account: &Account) -> String {
    let Some(watch) = account.watch.status() else {
        return "push active, about to watch the mailbox".into();
    };
    let line = match watch.state {
        WatchState::Watching => format!("push active, watching since {}", minute(watch.since)),
        WatchState::Connecting => "push active, about to watch the mailbox".into(),
        WatchState::Interrupted { reason, next } => {
            let next = next.saturating_duration_since(Instant::now()).as_secs();
            format!(
                "push was late at {}: watching was interrupted ({reason}); next attempt in {next} s",
                now()
            )
        }
        WatchState::WithClient => {
            format!(
                "push active, this app or another one waits for messages itself since {}",
                minute(watch.since)
            )
        }
        WatchState::ServerTells => "push active, the mail server tells of new mail".into(),
        WatchState::AwaitingDevice { reason } => {
            format!(
                "push stopped at {}: {reason}; it goes on now that this app is connected",
                minute(watch.since)
            )
        }
        // No more words: they could be taken for a state that is well.
        WatchState::AwaitingLogin { reason, cure } => {
            return format!("no push since {}: {reason}; {cure}", minute(watch.since));
        }
    };
    line + &trouble(registry, account)
}

/// The problem with pushes themselves.
fn trouble(registry: &Registry, account: &Account) -> String {
    if registry.telemetry().history().down_since().is_some() {
        return format!("; but at {} the notification server was down, and pushes waited", now());
    }
    let words = match account.telemetry.summary().last_push.map(|push| push.result) {
        None | Some(PostResult::Accepted) => return String::new(),
        Some(PostResult::Gone) => "the app's push token is not valid any more".into(),
        Some(PostResult::Refused(status) | PostResult::Failed(status)) => {
            format!("status {status}")
        }
        Some(PostResult::TimedOut | PostResult::Unreachable) => {
            "the notification server cannot be reached".into()
        }
    };
    format!("; but at {} the last push was not accepted: {words}", now())
}

fn now() -> String {
    minute(Instant::now())
}

fn minute(moment: Instant) -> String {
    let time = jiff::Timestamp::now().checked_sub(moment.elapsed()).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// On one line, and not too long.
fn cut(line: String) -> String {
    let mut line: String =
        line.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    while line.len() > MAX_LINE {
        line.pop();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::credentials::Mechanism;
    use crate::secret::DeviceToken;
    use crate::store::StoreSettings;
    use crate::telemetry::TelemetryEvent;

    #[tokio::test]
    async fn push_status_line_is_true_at_each_moment() {
        let directory = tempfile::tempdir().unwrap();
        let (registry, _events, _news) =
            Registry::open(&StoreSettings::memory(directory.path())).unwrap();
        let account = AccountId::new("alice", "imap.example.org:993");
        let (password, token) =
            (Credentials::new("alice", "sesame"), DeviceToken::new(b"openpgp:x").unwrap());
        let scram = Credentials::exchange(Mechanism::ScramSha256, "alice", "n,,n=alice,r=x");
        let expect = |wanted: &str| {
            let said = standing(&registry, &account, Some(&password));
            assert!(said.contains(wanted) && !said.contains("sesame"), "no {wanted:?} in {said:?}");
        };
        expect("push is ready and begins when this app has handed over");
        assert!(
            standing(&registry, &account, Some(&scram))
                .starts_with("no push: deltapush cannot use this app's login again")
        );

        registry.register(&account, &password, &token).await.unwrap();
        expect("push active, about to watch");
        let known = registry.get(&account).unwrap();
        known.watch.begin(Duration::ZERO);
        expect("push active, about to watch the mailbox");
        known.watch.set(WatchState::Watching);
        expect("push active, watching since 20");
        expect(" UTC");
        let next = Instant::now() + Duration::from_secs(1000);
        known.watch.set(WatchState::Interrupted { reason: "it said\r\n* BYE".into(), next });
        expect("push was late at 20");
        expect(" UTC: watching was interrupted (it said  * BYE); next attempt in ");
        known.watch.set(WatchState::AwaitingLogin { reason: "ü".repeat(200), cure: "" });
        expect("no push since 20");
        assert!(standing(&registry, &account, Some(&password)).len() <= MAX_LINE);

        known.watch.set(WatchState::Watching);
        let accounts = &[&known.telemetry];
        let (result, took) = (PostResult::Refused(403), Duration::ZERO);
        let telemetry = registry.telemetry();
        telemetry.record(&TelemetryEvent::Posted { accounts, token: &token, result, took });
        expect(" UTC the last push was not accepted: status 403");
        telemetry.record(&TelemetryEvent::Outage { down: true });
        expect(" UTC the notification server was down, and pushes waited");
        registry.close().await;
    }
}
