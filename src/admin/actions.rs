//! Actions on an account by the operator's command: erase it, restart its watch, wake its devices.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};
use tracing::info;

use super::format::{answer, counted, delay, short_hash};
use super::question::{LONGEST_WAIT, TaskProgress};
use super::reply::{reply_no, reply_ok};
use super::status::Reporter;
use crate::account::AccountId;
use crate::push::push_test::Tester;
use crate::secret::DeviceToken;
use crate::store::{StoredEvent, change};
use crate::telemetry::history::{HistoryEntry, HistoryTime, WatchNote, What};
use crate::telemetry::{PostResult, TelemetryEvent};

/// Time limit for reporting the outcome of a restarted watch.
const WATCH_WAIT: Duration = Duration::from_secs(60);

/// Erases an account with its tokens, credentials, watch and history.
pub(super) async fn forget(
    reporter: &Reporter,
    account: &AccountId,
    stream: &mut UnixStream,
) -> io::Result<()> {
    let devices = reporter.registry().tokens(account).len();
    match reporter.registry().commit(change::remove_account(account)).await {
        Ok(()) => {
            info!(%account, upstream = %account.upstream, devices, "account erased by the operator's command");
            let words = format!(
                "{account} at {} is erased: {}, its stored credentials and its watch. A device that \
                 still uses this account registers again with its next login\n",
                account.upstream,
                counted(devices as u64, "token")
            );
            reply_ok(stream, &words).await
        }
        Err(error) => reply_no(stream, format!("nothing was erased: {error}")).await,
    }
}

/// Restarts the watch of an account and reports the outcome.
pub(super) async fn rewatch(
    reporter: &Reporter,
    account: &AccountId,
    stream: &mut UnixStream,
) -> io::Result<()> {
    let before = count(reporter, account);
    if !reporter.registry().is_watched_here(account) {
        return rewatch_elsewhere(reporter, account, stream).await;
    }
    if reporter.registry().get(account).is_some_and(|known| !known.is_watched()) {
        let words = format!(
            "{account} has no watch: its route has `news: server`, and the mail server tells of new mail"
        );
        return reply_no(stream, words).await;
    }
    if !reporter.registry().rewatch(account) {
        let words = format!(
            "{account} cannot be watched now: deltapush has no usable credentials for it; log in with its app"
        );
        return reply_no(stream, words).await;
    }
    info!(%account, upstream = %account.upstream, "watch restarted by the operator's command");
    reply_ok(stream, "").await?;
    send_progress(stream, format!("the watch of {account} at {} restarts", account.upstream), None)
        .await?;
    let came =
        until(reporter, stream, WATCH_WAIT, || watch_since(reporter, account, before)).await?;
    let (words, done) = match came {
        Some(HistoryEntry { what: What::Watch { state: WatchNote::Watching, .. }, .. }) => {
            ("it is watched".into(), true)
        }
        Some(HistoryEntry {
            what: What::Watch { state: WatchNote::AwaitingLogin, words, .. },
            ..
        }) => (format!("the watch ended again: {words}"), false),
        Some(HistoryEntry { what: What::Watch { words, .. }, .. }) => {
            (format!("the watch was interrupted, deltapush retries automatically: {words}"), false)
        }
        _ => ("the watch has not started yet: `deltapush status` shows the reason".into(), false),
    };
    send_progress(stream, words, Some(done)).await
}

/// Asks the node that watches the account.
async fn rewatch_elsewhere(
    reporter: &Reporter,
    account: &AccountId,
    stream: &mut UnixStream,
) -> io::Result<()> {
    if let Err(error) = reporter.registry().tell(StoredEvent::Rewatch(account.clone())).await {
        return reply_no(stream, format!("the other nodes were not told: {error}")).await;
    }
    info!(%account, upstream = %account.upstream, "restart of the watch at another node requested by the operator's command");
    reply_ok(stream, "").await?;
    let words = format!(
        "the node that watches {account} restarts the watch; `deltapush account {account}` shows the outcome"
    );
    send_progress(stream, words, Some(true)).await
}

/// The number of history entries of an account.
fn count(reporter: &Reporter, account: &AccountId) -> u64 {
    reporter.timeline(account).map_or(0, |timeline| timeline.count)
}

/// The outcome of the watch that started after this many history entries.
fn watch_since(reporter: &Reporter, account: &AccountId, before: u64) -> Option<HistoryEntry> {
    let timeline = reporter.timeline(account)?;
    let new = usize::try_from(timeline.count.saturating_sub(before)).unwrap_or(usize::MAX);
    let start = timeline.entries.len().saturating_sub(new);
    let is = |entry: &HistoryEntry, wanted: WatchNote| matches!(entry.what, What::Watch { state, .. } if state == wanted);
    let mut entries = timeline.entries.into_iter().skip(start);
    // Entries of the previous watch's end come before the first `Connecting`.
    entries.by_ref().find(|entry| is(entry, WatchNote::Connecting))?;
    entries
        .find(|entry| matches!(entry.what, What::Watch { .. }) && !is(entry, WatchNote::Connecting))
}

/// A test of one account's devices.
pub(super) struct PushTest<'a> {
    pub(super) reporter: &'a Reporter,
    pub(super) tester: &'a Tester,
    pub(super) account: &'a AccountId,
    /// The device; `None` for all.
    pub(super) device: Option<&'a str>,
    /// Time to wait for it.
    pub(super) wait: Duration,
}

impl PushTest<'_> {
    /// Wakes the devices, and waits for each until it connects.
    pub(super) async fn run(self, stream: &mut UnixStream) -> io::Result<()> {
        let tokens = match self.tokens() {
            Ok(tokens) => tokens,
            Err(words) => return reply_no(stream, words).await,
        };
        reply_ok(stream, "").await?;
        let mut woken = Vec::new();
        for token in tokens {
            woken.extend(self.push(token, stream).await?);
        }
        if woken.is_empty() {
            return send_progress(stream, "no device could be woken", Some(false)).await;
        }
        let wait = self.wait.min(LONGEST_WAIT);
        let what = if woken.len() == 1 { "the device" } else { "the devices" };
        send_progress(
            stream,
            format!("waiting up to {} for {what} to connect", humantime::format_duration(wait)),
            None,
        )
        .await?;
        self.wait_for(woken, wait, stream).await
    }

    fn tokens(&self) -> Result<Vec<DeviceToken>, String> {
        let all = self.reporter.registry().tokens(self.account);
        let Some(device) = self.device else { return Ok(all) };
        let wanted: Vec<DeviceToken> = all
            .iter()
            .filter(|token| token.fingerprint().starts_with(&device.to_lowercase()))
            .cloned()
            .collect();
        if !wanted.is_empty() {
            return Ok(wanted);
        }
        let names: Vec<String> = all.iter().map(DeviceToken::fingerprint).collect();
        Err(format!("{} has no device {device}; it has {}", self.account, names.join(", ")))
    }

    /// Posts one token. Returns the device and when it was woken, if it was.
    async fn push(
        &self,
        token: DeviceToken,
        stream: &mut UnixStream,
    ) -> io::Result<Option<(u32, HistoryTime)>> {
        let (device, name) = (token.short_hash(), token.fingerprint());
        info!(account = %self.account, %token, "test push made by the operator's command");
        let registry = self.reporter.registry();
        if let Some(known) = registry.get(self.account) {
            let account = &known.telemetry;
            registry.telemetry().record(&TelemetryEvent::PushTest { account, token: &token });
        }
        let began = self.reporter.history().now();
        let Some(result) = self.tester.push(token).await else {
            send_progress(stream, "deltapush is shutting down", Some(false)).await?;
            return Ok(None);
        };
        let took = delay(self.reporter.history().now().after(began));
        send_progress(stream, format!("device {name}: POST, {} ({took})", answer(result)), None)
            .await?;
        if self.is_online(device) {
            let words = format!(
                "device {name} is connected now, so this test cannot show whether the push wakes it; put the app into \
                 the background or close it, then test again"
            );
            send_progress(stream, words, None).await?;
        }
        Ok((result == PostResult::Accepted).then_some((device, began)))
    }

    fn is_online(&self, device: u32) -> bool {
        let connected = self.reporter.summary(self.account).connected;
        connected.iter().any(|connection| connection.device == device && connection.online)
    }

    async fn wait_for(
        &self,
        mut woken: Vec<(u32, HistoryTime)>,
        wait: Duration,
        stream: &mut UnixStream,
    ) -> io::Result<()> {
        let deadline = Instant::now().checked_add(wait).unwrap_or_else(Instant::now);
        while !woken.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let found = until(self.reporter, stream, left, || {
                self.first(&woken).or_else(|| self.in_background(&woken))
            });
            let Some(Arrival { index, took, how }) = found.await? else { break };
            let (device, _) = woken.remove(index);
            let words = format!(
                "device {} {how} {} after the push was made",
                short_hash(device),
                delay(took)
            );
            send_progress(stream, words, woken.is_empty().then_some(true)).await?;
        }
        let background = self.background_fetches(&woken);
        if !woken.is_empty() && background > 0 {
            let words = format!(
                "{background} background fetches of the account's devices arrived since; a background fetch does not identify its device"
            );
            // Each of the devices may have come.
            send_progress(stream, words, (background >= woken.len()).then_some(true)).await?;
            if background >= woken.len() {
                return Ok(());
            }
        }
        let has_companions = !self.reporter.registry().ownership().is_sole();
        let elsewhere = if has_companions { " to this node" } else { "" };
        for (index, (device, _)) in woken.iter().enumerate() {
            let device = short_hash(*device);
            let words = if background > 0 {
                format!(
                    "device {device} has not connected, unless one of these background fetches was its own"
                )
            } else {
                format!(
                    "device {device} has not connected{elsewhere}: the push service has not reached it, or the phone does not let the app run \
                     (battery saving, no network, notifications switched off), or the app was removed"
                )
            };
            let is_last = index + 1 == woken.len();
            send_progress(stream, words, is_last.then_some(false)).await?;
        }
        Ok(())
    }

    /// Returns the connection of the account's only device for a background fetch since it was woken.
    fn in_background(&self, woken: &[(u32, HistoryTime)]) -> Option<Arrival> {
        let [(_, at)] = woken else { return None };
        let is_only_device = self.reporter.registry().tokens(self.account).len() == 1;
        let came = self.reporter.summary(self.account).background?;
        (is_only_device && came.since_start >= at.since_start).then(|| Arrival {
            index: 0,
            took: came.after(*at),
            how: "connected for a background fetch",
        })
    }

    /// Counts the background fetches since all of these devices were woken.
    fn background_fetches(&self, woken: &[(u32, HistoryTime)]) -> usize {
        let since = woken.iter().map(|(_, at)| at.since_start).max().unwrap_or_default();
        let timeline = self.reporter.timeline(self.account).unwrap_or_default();
        let is_one = |entry: &&HistoryEntry| {
            matches!(entry.what, What::Connected { background: true, .. })
                && entry.at.since_start >= since
        };
        timeline.entries.iter().filter(is_one).count()
    }

    /// Finds a device that has connected since it was woken, and the time in between.
    fn first(&self, woken: &[(u32, HistoryTime)]) -> Option<Arrival> {
        let connected = self.reporter.summary(self.account).connected;
        woken.iter().enumerate().find_map(|(index, (device, at))| {
            let came = |seen: &&crate::telemetry::history::DeviceConnection| {
                seen.device == *device && seen.at.since_start >= at.since_start
            };
            let came = connected.iter().find(came)?;
            Some(Arrival { index, took: came.at.after(*at), how: "connected" })
        })
    }
}

/// A device that connected after it was woken.
struct Arrival {
    /// Its index among the awaited devices.
    index: usize,
    /// Time since the push, in milliseconds.
    took: u64,
    how: &'static str,
}

/// Waits until `condition` returns a value; `None` after `wait`.
///
/// # Errors
/// If the operator's command has hung up.
async fn until<T>(
    reporter: &Reporter,
    stream: &mut UnixStream,
    wait: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> io::Result<Option<T>> {
    let deadline = Instant::now().checked_add(wait).unwrap_or_else(Instant::now);
    loop {
        let changed = reporter.history().changed();
        tokio::pin!(changed);
        // Before looking, so that nothing is missed in between.
        changed.as_mut().enable();
        if let Some(found) = condition() {
            return Ok(Some(found));
        }
        let mut byte = [0];
        tokio::select! {
            woken = timeout_at(deadline, changed) => if woken.is_err() { return Ok(None) },
            read = stream.read(&mut byte) => if read? == 0 { return Err(io::ErrorKind::BrokenPipe.into()) },
        }
    }
}

async fn send_progress(
    stream: &mut UnixStream,
    words: impl Into<String>,
    done: Option<bool>,
) -> io::Result<()> {
    let mut line = serde_json::to_string(&TaskProgress { words: words.into(), done })?;
    line.push('\n');
    stream.write_all(line.as_bytes()).await
}
