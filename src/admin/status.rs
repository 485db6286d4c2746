//! How every account is: its watch with the last proof of life, its devices, what is wrong and what helps.

use std::fmt::Write;
use std::time::Duration;

use tokio::time::Instant;

use crate::push::board::{Board, WatchEntry, WatchState};
use crate::push::registry::Registry;
use crate::store::{AccountStatus, TokenStatus, UnixTime};

/// Makes reports.
pub struct Reporter {
    registry: Registry,
    board: Board,
    began: Instant,
}

impl Reporter {
    /// A reporter on the accounts of `registry`, whose watches `board` shows.
    #[must_use]
    pub fn new(registry: Registry, board: Board) -> Self {
        Self { registry, board, began: Instant::now() }
    }

    /// The report, for a person.
    pub async fn report(&self) -> String {
        let accounts = match self.registry.snapshot().await {
            Ok(accounts) => accounts,
            Err(error) => return format!("the state cannot be read: {error}\n"),
        };
        let watched = accounts.iter().filter(|status| self.board.is_watching(&status.account)).count();
        let unusable = accounts.iter().filter(|status| status.unusable.is_some()).count();
        let is_waiting = |status: &&AccountStatus| {
            !status.has_credentials && status.unusable.is_none() && !self.board.is_watching(&status.account)
        };
        let waiting = accounts.iter().filter(is_waiting).count();
        let mut text = format!(
            "deltapush {}, up {}: {} accounts with a device, {watched} watched, {waiting} waiting for their phone to log in\n",
            env!("CARGO_PKG_VERSION"),
            rounded(self.began.elapsed()),
            accounts.len(),
        );
        if unusable > 0 {
            let _ = writeln!(text, "{unusable} of them cannot be watched because of how their clients log in");
        }
        let now = Instant::now();
        for status in &accounts {
            text.push('\n');
            describe(&mut text, status, self.board.get(&status.account).as_ref(), now);
        }
        text
    }
}

/// One account. Writing to a string cannot fail.
fn describe(text: &mut String, status: &AccountStatus, watch: Option<&WatchEntry>, now: Instant) {
    let _ = writeln!(text, "{} at {}", status.account, status.account.upstream);
    let _ = writeln!(text, "  watch    {}", watch_line(status, watch, now));
    // What a client's own session hears is not looked at for that.
    if let Some(watch) =
        watch.filter(|watch| !matches!(watch.state, WatchState::WithClient | WatchState::AwaitingDevice { .. }))
    {
        let proof =
            watch.last_proof.map_or("none yet".into(), |proof| format!("{} ago", rounded(now.duration_since(proof))));
        let blindness = rounded(watch.blindness);
        let _ = writeln!(text, "  alive    last proof of life {proof}; a dead connection is found within {blindness}");
    }
    for (mailbox, position) in &status.mailboxes {
        let _ = writeln!(text, "  mailbox  {} looked through below UID {}", mailbox.escape_debug(), position.uid_next);
    }
    for token in &status.tokens {
        let _ = writeln!(text, "  device   {}", token_line(token));
    }
}

fn watch_line(status: &AccountStatus, watch: Option<&WatchEntry>, now: Instant) -> String {
    match watch.map(|watch| &watch.state) {
        Some(WatchState::WithClient) => {
            return "its own client waits for mail, and what it hears wakes the others".into();
        }
        Some(WatchState::AwaitingDevice { reason }) => {
            return format!("waiting for a device: {reason}; its devices are called back, or open the app");
        }
        // Not by credentials of its own.
        Some(WatchState::Watching) => return "watching".into(),
        _ => {}
    }
    if let Some(mechanism) = status.unusable {
        return format!(
            "cannot be watched: its client logs in with {}, which leaves nothing to log in with again; let it send a \
             password (LOGIN, or AUTHENTICATE PLAIN), and it is watched",
            mechanism.name()
        );
    }
    if !status.has_credentials {
        return "waits for its phone to log in: the password is not known".into();
    }
    match watch.map(|watch| &watch.state) {
        Some(WatchState::Connecting) => "connecting, or waiting for its turn".into(),
        Some(WatchState::Interrupted { reason, next }) => {
            format!("interrupted: {reason}; next attempt in {}", rounded(next.saturating_duration_since(now)))
        }
        Some(WatchState::AwaitingLogin { reason, cure }) => format!("ended: {reason}; {cure}"),
        None if status.refused => {
            "ended: the mail server refused the login; log in with the app to start it again".into()
        }
        _ => "not started yet".into(),
    }
}

fn token_line(token: &TokenStatus) -> String {
    let mut line =
        format!("{} since {}, last seen {}", token.fingerprint, date(token.first_seen), date(token.last_seen));
    if token.pending {
        line.push_str("; something is to be announced");
    }
    match (&token.given_up, token.accepted) {
        (Some((when, reason)), _) => {
            let _ = write!(line, "; last push given up {}: {reason}", moment(*when));
        }
        (None, Some(when)) => {
            let _ = write!(line, "; last push accepted {}", moment(when));
        }
        (None, None) => line.push_str("; no push yet"),
    }
    line
}

fn date(time: UnixTime) -> String {
    formatted(time, "%Y-%m-%d")
}

fn moment(time: UnixTime) -> String {
    formatted(time, "%Y-%m-%d %H:%M:%S UTC")
}

fn formatted(time: UnixTime, format: &str) -> String {
    jiff::Timestamp::from_second(time.0).map_or("?".into(), |time| time.strftime(format).to_string())
}

/// A duration with as much precision as a person wants.
fn rounded(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::AccountId;
    use crate::store::Position;

    fn status() -> AccountStatus {
        AccountStatus {
            account: AccountId::new("alice@example.org", "imap.example.org:993"),
            tokens: vec![TokenStatus {
                fingerprint: "1a2b3c4d".into(),
                first_seen: UnixTime(0),
                last_seen: UnixTime(86_400),
                pending: true,
                accepted: Some(UnixTime(90_000)),
                given_up: None,
            }],
            mailboxes: vec![("INBOX".into(), Position { uid_validity: 1, uid_next: 42 })],
            has_credentials: true,
            unusable: None,
            refused: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_is_described_with_its_proof_of_life() {
        let board = Board::default();
        let status = status();
        board.begin(&status.account, Duration::from_secs(600));
        board.proof(&status.account);
        board.set(&status.account, WatchState::Watching);
        tokio::time::advance(Duration::from_secs(75)).await;
        let mut text = String::new();
        describe(&mut text, &status, board.get(&status.account).as_ref(), Instant::now());
        assert_eq!(
            text,
            "alice@example.org at imap.example.org:993\n  \
             watch    watching\n  \
             alive    last proof of life 1m 15s ago; a dead connection is found within 10m\n  \
             mailbox  INBOX looked through below UID 42\n  \
             device   1a2b3c4d since 1970-01-01, last seen 1970-01-02; something is to be announced; \
             last push accepted 1970-01-02 01:00:00 UTC\n"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_is_said_with_what_helps() {
        let mut status = status();
        let board = Board::default();
        board.begin(&status.account, Duration::from_secs(600));
        let line = |status: &AccountStatus| watch_line(status, board.get(&status.account).as_ref(), Instant::now());
        let next = Instant::now() + Duration::from_secs(120);
        board.set(&status.account, WatchState::Interrupted { reason: "it hung up".into(), next });
        assert_eq!(line(&status), "interrupted: it hung up; next attempt in 2m");
        board.set(&status.account, WatchState::AwaitingLogin { reason: "wrong password".into(), cure: "log in" });
        assert_eq!(line(&status), "ended: wrong password; log in");
        // Where sessions are kept, what its client logs in with does not matter.
        board.set(&status.account, WatchState::AwaitingDevice { reason: "it hung up".into() });
        assert_eq!(line(&status), "waiting for a device: it hung up; its devices are called back, or open the app");
        board.set(&status.account, WatchState::WithClient);
        assert_eq!(line(&status), "its own client waits for mail, and what it hears wakes the others");
        board.set(&status.account, WatchState::Connecting);
        status.unusable = Some(crate::parser::sasl::Mechanism::ScramSha256);
        assert!(line(&status).starts_with("cannot be watched: its client logs in with SCRAM-SHA-256, which"));
        status.unusable = None;
        status.has_credentials = false;
        assert_eq!(line(&status), "waits for its phone to log in: the password is not known");
    }
}
