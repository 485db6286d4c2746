//! Builds the status report of all accounts: watch with the last sign of life, devices, problems and remedies.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::clock::DisplayClock;
use super::fetching;
use super::format::{self, short_hash};
use super::latency_report::explain;
use super::report::{
    AccountCounts, AccountProblem, AccountReport, DeviceReport, ErasedReport, GivenUpReport,
    LimitedServer, MailboxReport, Notifications, PushReport, QuarantineReport, StatusReport,
    WatchKind, WatchReport,
};
use super::timeline::{self, AccountHistory};
use crate::account::AccountId;
use crate::admission::failed_logins::Strain;
use crate::admission::login_limiter::LoginGate;
use crate::config::Messages;
use crate::push::registry::Registry;
use crate::push::watch_status::{Board, SkippedMailbox, WatchEntry, WatchState};
use crate::push::watcher::Wishes;
use crate::reloadable::Reloadable;
use crate::store::{AccountStatus, Erased, StoreError, TokenStatus};
use crate::telemetry::PostResult;
use crate::telemetry::history::{DeviceConnection, History, HistorySummary, HistoryTime, LastPush};

/// Makes reports.
pub struct Reporter {
    registry: Registry,
    board: Board,
    wishes: Reloadable<Wishes>,
    gate: Option<Arc<LoginGate>>,
}

impl Reporter {
    /// Creates a reporter on the accounts of `registry`, with their watches in `board` and the configured `wishes`.
    #[must_use]
    pub fn new(registry: Registry, board: Board, wishes: Reloadable<Wishes>) -> Self {
        Self { registry, board, wishes, gate: None }
    }

    /// Adds the mail servers at which logins of unknown accounts are refused.
    #[must_use]
    pub fn with_gate(self, gate: Arc<LoginGate>) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// Mail servers at which logins of unknown accounts are refused now, because of failed logins there.
    fn limited(&self, clock: DisplayClock) -> Vec<LimitedServer> {
        let strained = self.gate.as_ref().map(|gate| gate.strained()).unwrap_or_default();
        let limited = |(server, strain): (Arc<str>, Strain)| LimitedServer {
            server: server.escape_debug().to_string(),
            failed: strain.failed,
            limit: strain.limit,
            within_seconds: strain.within.as_secs(),
            until: clock
                .wall()
                .saturating_add(SignedDuration::from_secs(
                    i64::try_from(strain.wait.as_secs()).unwrap_or_default(),
                ))
                .unwrap_or(clock.wall()),
        };
        strained.into_iter().map(limited).collect()
    }

    /// The status report.
    ///
    /// # Errors
    /// [`StoreError`]: the state cannot be read.
    pub async fn report(&self) -> Result<StatusReport, StoreError> {
        let found = self.registry.snapshot().await?;
        let (clock, history, messages) =
            (DisplayClock::now(), self.history(), self.wishes.get().messages());
        let describe = |status: &AccountStatus| {
            let account = &status.account;
            describe(
                status,
                self.board.get(account).as_ref(),
                &history.summary(account),
                messages,
                clock,
            )
        };
        let mut accounts: Vec<AccountReport> = found.iter().map(describe).collect();
        // Stable: by name among those that are alike.
        accounts.sort_by_key(|account| account.problem.is_none());
        Ok(StatusReport {
            version: env!("CARGO_PKG_VERSION").into(),
            at: clock.wall(),
            started: clock.time_of(history.began()),
            connections: self.board.telemetry().metrics().connections(),
            limited: self.limited(clock),
            counts: count(&accounts),
            refused_accounts: self.registry.refused_accounts(),
            notifications: Notifications {
                down_since: history.down_since().map(HistoryTime::time),
            },
            accounts,
            erased: self.registry.erased().await?.iter().map(erased).collect(),
        })
    }

    /// Describes the account of this name that deltapush erased without a command lately; `None` if there is none.
    pub(super) async fn erased(&self, name: &str) -> Option<String> {
        let erased = self.registry.erased().await.ok()?;
        let found = erased
            .iter()
            .find(|erased| *erased.account.user == *name || erased.account.to_string() == name)?;
        Some(format!(
            "{} was erased {}, because {}. It is registered again when its app connects through deltapush",
            found.account,
            format::moment(format::timestamp(found.at)),
            found.reason
        ))
    }

    /// The recent history of an account; `None` if it has no device.
    ///
    /// # Errors
    /// [`StoreError`]: the state cannot be read.
    pub async fn account(&self, account: &AccountId) -> Result<Option<AccountHistory>, StoreError> {
        let found = self.registry.snapshot().await?;
        let Some(status) = found.iter().find(|status| status.account == *account) else {
            return Ok(None);
        };
        let (clock, history, messages) =
            (DisplayClock::now(), self.history(), self.wishes.get().messages());
        let timeline = history.timeline(account).unwrap_or_default();
        Ok(Some(AccountHistory {
            account: describe(
                status,
                self.board.get(account).as_ref(),
                &history.summary(account),
                messages,
                clock,
            ),
            at: clock.wall(),
            started: clock.time_of(history.began()),
            dropped: timeline.full,
            down_since: history.down_since().map(HistoryTime::time),
            happened: timeline::told(&timeline),
            explanation: explain(&timeline, status.tokens.len(), history.now()),
        }))
    }

    pub(super) fn history(&self) -> &History {
        self.board.telemetry().history()
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn board(&self) -> &Board {
        &self.board
    }
}

fn count(accounts: &[AccountReport]) -> AccountCounts {
    let devices = || accounts.iter().flat_map(|account| &account.devices);
    let in_state = |state| accounts.iter().filter(|account| account.watch.state == state).count();
    AccountCounts {
        accounts: accounts.len(),
        watched: in_state(WatchKind::Watching).saturating_add(in_state(WatchKind::WithClient)),
        problems: accounts.iter().filter(|account| account.problem.is_some()).count(),
        waiting: in_state(WatchKind::WaitingForLogin)
            .saturating_add(in_state(WatchKind::WaitingForDevice)),
        unusable: in_state(WatchKind::Unusable),
        devices: devices().count(),
        pending: devices().filter(|device| device.pending).count(),
        quarantined: devices().filter(|device| device.quarantine.is_some()).count(),
    }
}

/// One account.
fn describe(
    status: &AccountStatus,
    watch: Option<&WatchEntry>,
    summary: &HistorySummary,
    messages: Messages,
    clock: DisplayClock,
) -> AccountReport {
    let (watch, watch_problem) = describe_watch(status, watch, clock);
    let is_only = status.tokens.len() == 1;
    let devices: Vec<DeviceReport> =
        status.tokens.iter().map(|token| device(token, is_only, summary)).collect();
    let problem = watch_problem.or_else(|| devices.iter().find_map(push_problem));
    AccountReport {
        name: status.account.user.to_string(),
        server: status.account.upstream.to_string(),
        watch,
        devices,
        messages: fetching::messages(messages, &status.tokens).into(),
        background_fetch: summary.background.map(|at| at.time()),
        mailboxes: status
            .mailboxes
            .iter()
            .map(|(name, position)| MailboxReport {
                name: name.clone(),
                uid_next: position.uid_next,
            })
            .collect(),
        last_message: summary.last_message.map(|at| at.time()),
        last_push: summary.last_push.map(push),
        problem,
    }
}

fn describe_watch(
    status: &AccountStatus,
    watch: Option<&WatchEntry>,
    clock: DisplayClock,
) -> (WatchReport, Option<AccountProblem>) {
    let (state, next, words, problem) = step(status, watch, clock);
    let report = WatchReport {
        state,
        since: watch.map(|watch| clock.time_of(watch.since)),
        last_proof: watch.and_then(|watch| watch.last_proof).map(|proof| clock.time_of(proof)),
        // What a client's own session hears is not looked at for that.
        blindness_seconds: watch
            .map(|watch| watch.blindness.as_secs())
            .filter(|seconds| *seconds > 0),
        next_step: words,
        next,
        notes: watch.map(notes).unwrap_or_default(),
    };
    (report, problem)
}

/// The limits of a watch.
fn notes(watch: &WatchEntry) -> Vec<String> {
    let left_out = watch.left_out.iter().map(|SkippedMailbox { mailbox, reason, .. }| {
        let words = if reason.is_empty() { "the mail server gives no reason" } else { reason.as_str() };
        format!("mailbox {mailbox:?} is not watched: it cannot be opened ({words}); deltapush retries regularly")
    });
    let uw_imapd = watch.is_uw_imapd.then(|| {
        "the mail server seems to be UW imapd, which does not announce new mail to an idle session: pushes may come \
         late or not at all; another server program for the same mailboxes, such as Dovecot, helps"
            .to_owned()
    });
    left_out.chain(uw_imapd).collect()
}

/// The state of a watch, its next step with the time, and its problem.
fn step(
    status: &AccountStatus,
    watch: Option<&WatchEntry>,
    clock: DisplayClock,
) -> (WatchKind, Option<Timestamp>, String, Option<AccountProblem>) {
    let problem =
        |words: &str, cure: &str| Some(AccountProblem { words: words.into(), cure: cure.into() });
    // Where clients' sessions are kept, what they log in with does not matter.
    match watch.map(|watch| &watch.state) {
        Some(WatchState::WithClient) => {
            return (
                WatchKind::WithClient,
                None,
                "the client's own session reports new mail, and deltapush wakes the other devices"
                    .into(),
                None,
            );
        }
        Some(WatchState::AwaitingDevice { reason }) => {
            let next = "deltapush wakes its devices, and the watch starts when one of them logs in";
            return (
                WatchKind::WaitingForDevice,
                None,
                next.into(),
                problem(reason, "deltapush wakes its devices; or open the app"),
            );
        }
        _ => {}
    }
    if let Some(mechanism) = status.unusable {
        let words = format!(
            "its client logs in with {}, which gives deltapush no credentials for a login of its own",
            mechanism.name()
        );
        let cure = "make the client send a password (LOGIN, or AUTHENTICATE PLAIN)";
        return (
            WatchKind::Unusable,
            None,
            "nothing, until its client logs in with a password".into(),
            problem(&words, cure),
        );
    }
    if !status.has_credentials {
        let (words, cure) =
            ("the password is not known", "open the app: the watch starts when its phone logs in");
        return (
            WatchKind::WaitingForLogin,
            None,
            "the watch starts when its phone logs in".into(),
            problem(words, cure),
        );
    }
    match watch.map(|watch| &watch.state) {
        Some(WatchState::Watching) => {
            (WatchKind::Watching, None, "waits for new mail; renews IDLE regularly".into(), None)
        }
        Some(WatchState::Connecting) => (
            WatchKind::Connecting,
            None,
            "logs in when the pacing of its server permits it".into(),
            None,
        ),
        Some(WatchState::Interrupted { reason, next }) => {
            let cure =
                "deltapush retries automatically, and then finds the mail that arrived meanwhile";
            let at = clock.time_of(*next);
            (WatchKind::Interrupted, Some(at), "next attempt".into(), problem(reason, cure))
        }
        Some(WatchState::AwaitingLogin { reason, cure }) => {
            (WatchKind::Ended, None, format!("nothing, until: {cure}"), problem(reason, cure))
        }
        None if status.refused => {
            let (words, cure) =
                ("the mail server refused the login", "log in with the app to start it again");
            (WatchKind::Ended, None, format!("nothing, until: {cure}"), problem(words, cure))
        }
        _ => (WatchKind::NotStarted, None, "starts soon".into(), None),
    }
}

fn device(token: &TokenStatus, is_only: bool, summary: &HistorySummary) -> DeviceReport {
    let is_it = |connection: &&DeviceConnection| short_hash(connection.device) == token.fingerprint;
    let connection = summary.connected.iter().find(is_it);
    DeviceReport {
        token: token.fingerprint.clone(),
        first_seen: format::timestamp(token.first_seen),
        last_seen: format::timestamp(token.last_seen),
        // In a background fetch an app does not tell which device it is: the account's only one, if it has one.
        connected: [
            connection.map(|connection| connection.at),
            summary.background.filter(|_| is_only),
        ]
        .into_iter()
        .flatten()
        .max_by_key(|at| at.since_start)
        .map(HistoryTime::time),
        fetches: fetching::evidence(&token.habit),
        online: connection.is_some_and(|connection| connection.online),
        pending: token.pending,
        accepted: token.accepted.map(format::timestamp),
        given_up: token.given_up.as_ref().map(|(at, reason)| GivenUpReport {
            at: format::timestamp(*at),
            reason: reason.clone(),
        }),
        quarantine: token.quarantine.map(|found| QuarantineReport {
            answers: found.answers,
            since: format::timestamp(found.since),
            until: format::timestamp(found.until),
        }),
    }
}

fn erased(erased: &Erased) -> ErasedReport {
    ErasedReport {
        name: erased.account.user.to_string(),
        server: erased.account.upstream.to_string(),
        at: format::timestamp(erased.at),
        reason: erased.reason.clone(),
    }
}

fn push_problem(device: &DeviceReport) -> Option<AccountProblem> {
    if device.quarantine.is_some() {
        let words = format!(
            "the notification server rejected the token of device {} as gone (410)",
            device.token
        );
        let cure = "if the app is still installed there, open it once; otherwise deltapush removes the device after some days";
        return Some(AccountProblem { words, cure: cure.into() });
    }
    let given_up = device.given_up.as_ref()?;
    let words =
        format!("deltapush gave up the last push of device {}: {}", device.token, given_up.reason);
    let cure = "the next message causes a new push; if that fails too, open the app on that device, which renews its \
                token, and check that push.notify_url is correct and reachable";
    Some(AccountProblem { words, cure: cure.into() })
}

fn push(last: LastPush) -> PushReport {
    PushReport {
        at: last.at.time(),
        token: short_hash(last.device),
        accepted: last.result == PostResult::Accepted,
        answer: format::answer(last.result),
        delay_milliseconds: last.delay,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::admin::table::{self, Layout};
    use crate::credentials::Mechanism;
    use crate::store::UnixTime;
    use crate::store::{FetchHabit, Position, QuarantineRecord};

    #[tokio::test]
    async fn limits_of_a_watch_are_named() {
        let (board, account) =
            (Board::default(), AccountId::new("alice@example.org", "imap.example.org:993"));
        board.begin(&account, Duration::ZERO);
        assert_eq!(board.left_out(&account, "DeltaChat", "no such mailbox"), None);
        board.is_uw_imapd(&account, true);
        // It lasts until the mailbox can be opened, also in another watch.
        board.begin(&account, Duration::ZERO);
        board.is_uw_imapd(&account, true);
        let named = notes(&board.get(&account).unwrap());
        assert!(
            named[0].starts_with(
                "mailbox \"DeltaChat\" is not watched: it cannot be opened (no such mailbox)"
            ),
            "{named:?}"
        );
        assert!(named[1].starts_with("the mail server seems to be UW imapd"), "{named:?}");
        let report = describe(
            &status(),
            board.get(&account).as_ref(),
            &HistorySummary::default(),
            Messages::All,
            DisplayClock::now(),
        );
        assert_eq!(report.watch.notes, named);
        board.no_longer_left_out(&account, "DeltaChat");
        assert_eq!(notes(&board.get(&account).unwrap()), named[1..]);
    }

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
                quarantine: None,
                habit: FetchHabit::default(),
            }],
            mailboxes: vec![("INBOX".into(), Position { uid_validity: 1, uid_next: 42 })],
            has_credentials: true,
            unusable: None,
            refused: false,
        }
    }

    fn told(accounts: &[AccountStatus], board: &Board, layout: Layout) -> String {
        let clock = DisplayClock::now();
        let describe = |status| {
            describe(
                status,
                board.get(&status.account).as_ref(),
                &HistorySummary::default(),
                Messages::Auto,
                clock,
            )
        };
        let accounts: Vec<AccountReport> = accounts.iter().map(describe).collect();
        let report = StatusReport {
            version: "1".into(),
            at: clock.wall(),
            started: clock.wall(),
            connections: 0,
            limited: vec![],
            counts: count(&accounts),
            refused_accounts: 0,
            notifications: Notifications::default(),
            accounts,
            erased: vec![erased(&Erased {
                account: AccountId::new("erin", "imap.example.org:993"),
                at: UnixTime(0),
                reason: "of a reason".into(),
            })],
        };
        // What comes over the socket is the same.
        let report: StatusReport =
            serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        table::status(&report, layout)
    }

    #[tokio::test(start_paused = true)]
    async fn account_is_described_with_its_proof_of_life() {
        let board = Board::default();
        let status = status();
        board.begin(&status.account, Duration::from_secs(600));
        board.proof(&status.account);
        board.set(&status.account, WatchState::Watching);
        tokio::time::advance(Duration::from_secs(75)).await;
        let since =
            format::moment(DisplayClock::now().time_of(board.get(&status.account).unwrap().since));
        let text = told(&[status], &board, Layout::default());
        let (_, account) = text.split_once("\n\n").unwrap();
        assert_eq!(
            account,
            format!(
                "alice@example.org at imap.example.org:993\n  \
                 watch    watching since {since}\n  \
                 alive    last sign of life 1m 15s ago; a dead connection is detected within 10m\n  \
                 mailbox  INBOX checked below UID 42\n  \
                 pushes   all messages: deltapush does not know yet which ones its apps fetch\n  \
                 device   1a2b3c4d since 1970-01-01, last seen 1970-01-02; a push is pending; \
                 last push accepted 1970-01-02 01:00:00 UTC\n"
            )
        );
    }

    #[tokio::test(start_paused = true)]
    async fn problems_are_shown_with_their_remedy() {
        let mut status = status();
        let board = Board::default();
        board.begin(&status.account, Duration::from_secs(600));
        let says = |status: &AccountStatus, wanted: &str| {
            let text = told(std::slice::from_ref(status), &board, Layout::default());
            assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
        };
        let next = Instant::now() + Duration::from_secs(120);
        board.set(
            &status.account,
            WatchState::Interrupted { reason: "it hung up\x1b[2J".into(), next },
        );
        says(&status, "  watch    interrupted: it hung up\\u{1b}[2J; next attempt in 2m\n");
        board.set(
            &status.account,
            WatchState::AwaitingLogin { reason: "wrong password".into(), cure: "log in" },
        );
        says(&status, "  watch    ended: wrong password; log in\n");
        // Where sessions are kept, what its client logs in with does not matter.
        board.set(&status.account, WatchState::AwaitingDevice { reason: "it hung up".into() });
        says(
            &status,
            "  watch    waiting for a device: it hung up; deltapush wakes its devices; or open the app\n",
        );
        board.set(&status.account, WatchState::WithClient);
        says(
            &status,
            "  watch    the client's own session reports new mail, and deltapush wakes the other devices\n",
        );
        board.set(&status.account, WatchState::Connecting);
        status.unusable = Some(Mechanism::ScramSha256);
        says(&status, "cannot be watched: its client logs in with SCRAM-SHA-256, which");
        status.unusable = None;
        status.has_credentials = false;
        says(&status, "waits for its phone to log in: the password is not known; open the app");
        status.has_credentials = true;
        board.set(&status.account, WatchState::Watching);
        status.tokens[0].quarantine = Some(QuarantineRecord {
            answers: 2,
            since: UnixTime(90_000),
            until: UnixTime(4_000_000_000),
        });
        says(&status, "in quarantine since 1970-01-02");
        says(&status, "1 devices in quarantine");
        says(&status, "(410, 2 times), tried again with new mail after 2096-");
        says(&status, "erin at imap.example.org:993: of a reason");
        status.tokens[0].quarantine = None;
        status.tokens[0].given_up =
            Some((UnixTime(90_000), "not accepted within five hours".into()));
        says(
            &status,
            "  problem  deltapush gave up the last push of device 1a2b3c4d: not accepted within five hours; ",
        );
    }

    #[tokio::test(start_paused = true)]
    async fn many_accounts_are_a_table_as_wide_as_the_terminal_with_what_is_wrong_first() {
        let board = Board::default();
        let mut accounts: Vec<AccountStatus> = (0..1000)
            .map(|number| AccountStatus {
                account: AccountId::new(
                    &format!("user-{number:04}@example.org"),
                    "imap.example.org:993",
                ),
                ..status()
            })
            .collect();
        for status in &accounts {
            board.begin(&status.account, Duration::from_secs(600));
            board.proof(&status.account);
            board.set(&status.account, WatchState::Watching);
        }
        accounts[500].has_credentials = false;
        for width in [40, 80, 200] {
            let text = told(&accounts, &board, Layout { width: Some(width), ..Layout::default() });
            let (_, tables) = text.split_once("\n\n").unwrap();
            let too_wide = tables
                .lines()
                .find(|line| !line.starts_with('`') && line.chars().count() > usize::from(width));
            assert_eq!(too_wide, None, "{width}");
        }
        let text = told(&accounts, &board, Layout::default());
        assert!(text.lines().count() < 1020, "a line for each account");
        let first = |words: &str| text.find(words).unwrap();
        assert!(first("user-0500@example.org") < first("user-0000@example.org"), "{text}");
        assert!(text.contains("999 watched, 1 waiting"), "{text}");
        let long = told(&accounts, &board, Layout { long: true, ..Layout::default() });
        assert_eq!(long.matches("\n  device   1a2b3c4d").count(), 1000);
    }
}
