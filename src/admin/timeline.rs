//! The recent history of an account as a chain: new mail → push decision → POST → answer → the device connects → it
//! fetches, with the time between the steps.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::format::{answer, counted, delay, short_hash};
use super::report::AccountReport;
use crate::telemetry::history::{HistoryEntry, HistoryTime, Timeline, WatchNote, What};
use crate::telemetry::{Pause, PostResult};

/// An account and what happened to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountHistory {
    /// Its present status.
    pub account: AccountReport,
    /// The time of the report.
    pub at: Timestamp,
    /// The start of the process: earlier events are unknown.
    pub started: Timestamp,
    /// The oldest events since the start were dropped.
    pub dropped: bool,
    /// Start of the notification server's outage, if there is one.
    pub down_since: Option<Timestamp>,
    /// The events, the oldest first.
    pub happened: Vec<Happened>,
    /// The latency report of the last pushed message, as text; empty if there was none.
    pub explanation: Vec<String>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// The time.
    pub at: Timestamp,
    /// The kind of event.
    pub kind: TimelineKind,
    /// Time since the previous link of its chain, in milliseconds, if it belongs to a chain.
    pub after_milliseconds: Option<u64>,
    /// The event, as text.
    pub words: String,
}

/// The kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimelineKind {
    /// The mail server announced new mail.
    News,
    /// A push decision on a message.
    Judged,
    /// New mail was recorded on disk.
    Noticed,
    /// A POST has begun.
    Post,
    /// A POST has ended.
    Answer,
    /// A push waits for its time.
    Waits,
    /// A push was given up.
    GaveUp,
    /// A client has connected.
    Connected,
    /// A client has asked for messages.
    Fetched,
    /// The watch changed its state.
    Watch,
    /// An operator requested a test push.
    Test,
}

/// Builds the chain of events.
pub(super) fn events(timeline: &Timeline) -> Vec<Happened> {
    let mut links = links(timeline);
    // Stable: what happened in the same millisecond stays in its order, but that a verdict follows the news.
    links.sort_by_key(|link| (link.at.since_start, link.kind != TimelineKind::News));
    noted_before_posted(&mut links);
    let mut chain = Chain::default();
    links.iter().map(|link| chain.describe(link, timeline)).collect()
}

/// Puts new mail before its POST, or before the pause that the POST waits for: both begin while the disk still writes, and nobody
/// asks in which order these ended.
fn noted_before_posted(links: &mut [Link<'_>]) {
    let mut post: Option<usize> = None;
    for index in 0..links.len() {
        let Some(link) = links.get(index) else { return };
        match link.kind {
            TimelineKind::Judged => post = None,
            TimelineKind::Post | TimelineKind::Waits => post = post.or(Some(index)),
            TimelineKind::Noticed => {
                if let Some(first) = post.take()
                    && let Some(at) = links.get(first).map(|link| link.at)
                    && let Some(moved) = links.get_mut(first..=index)
                {
                    moved.rotate_right(1);
                    if let Some(noticed) = moved.first_mut() {
                        noticed.at = at;
                    }
                }
            }
            _ => {}
        }
    }
}

/// An entry, or an earlier event that an entry contains.
struct Link<'a> {
    at: HistoryTime,
    kind: TimelineKind,
    entry: &'a HistoryEntry,
}

fn links(timeline: &Timeline) -> Vec<Link<'_>> {
    let mut links = Vec::new();
    let mut before = None;
    for entry in &timeline.entries {
        let at = entry.at;
        let kind = match &entry.what {
            What::Connected { .. } => TimelineKind::Connected,
            What::Fetched { .. } => TimelineKind::Fetched,
            // A state that was entered twice is one event.
            What::Watch { state, words, .. } => {
                if before.replace((*state, words)) == Some((*state, words)) {
                    continue;
                }
                TimelineKind::Watch
            }
            What::Judged { .. } => TimelineKind::Judged,
            What::Noticed { heard, .. } => {
                if let Some(heard) = heard {
                    links.push(Link { at: at.earlier(*heard), kind: TimelineKind::News, entry });
                }
                TimelineKind::Noticed
            }
            What::Posted { took, .. } => {
                links.push(Link { at: at.earlier(*took), kind: TimelineKind::Post, entry });
                TimelineKind::Answer
            }
            What::Waits { .. } => TimelineKind::Waits,
            What::GaveUp { .. } => TimelineKind::GaveUp,
            What::Tested { .. } => TimelineKind::Test,
        };
        links.push(Link { at, kind, entry });
    }
    links
}

/// Progress of building the chain.
#[derive(Default)]
struct Chain {
    /// The previous link.
    before: Option<HistoryTime>,
    /// The oldest new mail that no device has fetched.
    news: Option<HistoryTime>,
    /// The accepted pushes of devices that have not connected since.
    woken: HashMap<u32, HistoryTime>,
}

impl Chain {
    fn describe(&mut self, link: &Link<'_>, timeline: &Timeline) -> Happened {
        let at = link.at;
        let (after, words) = match (&link.entry.what, link.kind) {
            (What::Noticed { mailbox, .. }, TimelineKind::News) => {
                self.news.get_or_insert(at);
                self.before = Some(at);
                (
                    None,
                    format!("the mail server announced new mail in {}", timeline.mailbox(*mailbox)),
                )
            }
            (What::Judged { mailbox, uid, skipped }, _) => {
                let verdict =
                    skipped.map_or("to be pushed".into(), |reason| format!("no push: {reason}"));
                let message = if *uid > 0 { format!(" with UID {uid}") } else { String::new() };
                let mailbox = timeline.mailbox(*mailbox);
                (self.follow(at), format!("message{message} in {mailbox}: {verdict}"))
            }
            (What::Noticed { announce, heard, mailbox }, _) => {
                (self.follow(at), self.noticed(at, *announce, *heard, timeline.mailbox(*mailbox)))
            }
            (What::Posted { device, .. }, TimelineKind::Post) => {
                (self.follow(at), format!("POST for device {}", short_hash(*device)))
            }
            (What::Posted { device, result, .. }, _) => {
                if *result == PostResult::Accepted {
                    self.woken.insert(*device, at);
                }
                (
                    self.follow(at),
                    format!(
                        "the answer to the POST for device {}: {}",
                        short_hash(*device),
                        answer(*result)
                    ),
                )
            }
            (What::Waits { device, pause, next }, _) => (None, waits(*device, *pause, *next)),
            (What::GaveUp { device, words }, _) => {
                (None, format!("the push of device {} was given up: {words}", short_hash(*device)))
            }
            (What::Connected { session, background: true, .. }, _) => {
                self.background_fetch(at, *session)
            }
            (What::Connected { session, device, first, skipped, background: false }, _) => {
                self.connected(at, *session, *device, *first, *skipped)
            }
            (What::Fetched { session, device }, _) => self.fetched(at, *session, *device),
            (What::Watch { state, words, times }, _) => (None, watch(*state, words, *times)),
            (What::Tested { device }, _) => {
                self.before = Some(at);
                (None, format!("a test push of device {} was requested", short_hash(*device)))
            }
        };
        Happened { at: at.time(), kind: link.kind, after_milliseconds: after, words }
    }

    /// The next link: how long after the one before.
    fn follow(&mut self, at: HistoryTime) -> Option<u64> {
        let before = self.before.replace(at);
        before.map(|before| at.after(before))
    }

    fn noticed(
        &mut self,
        at: HistoryTime,
        announce: bool,
        heard: Option<u32>,
        mailbox: &str,
    ) -> String {
        let how = if heard.is_some() { "" } else { ", found by catch-up after a new connection" };
        if announce {
            self.news.get_or_insert(at);
            format!("new mail in {mailbox} noted{how}: deltapush wakes the account's devices")
        } else {
            // The next fetch has another reason.
            self.news = None;
            format!("{mailbox} was checked{how}: no device to wake")
        }
    }

    fn connected(
        &mut self,
        at: HistoryTime,
        session: u64,
        device: Option<u32>,
        first: bool,
        skipped: u16,
    ) -> (Option<u64>, String) {
        let more = if skipped > 0 {
            format!(" (and {} in between)", counted(skipped.into(), "time"))
        } else {
            String::new()
        };
        let Some(device) = device else {
            return (None, format!("a client without a token connected (session {session}){more}"));
        };
        let new = if first { ", for the first time since the start" } else { "" };
        let words =
            format!("device {} connected (session {session}){new}{more}", short_hash(device));
        match self.woken.remove(&device) {
            Some(woken) => {
                self.before = Some(at);
                (
                    Some(at.after(woken)),
                    format!("{words}, {} after its push", delay(at.after(woken))),
                )
            }
            None => (None, words),
        }
    }

    /// A background fetch has no token: it is attributed to the woken device, if only one was woken.
    fn background_fetch(&mut self, at: HistoryTime, session: u64) -> (Option<u64>, String) {
        let words = format!(
            "one of the account's devices connected for a background fetch (session {session})"
        );
        let woken: Vec<HistoryTime> = self.woken.values().copied().collect();
        match woken.as_slice() {
            [woken] => {
                let after = at.after(*woken);
                self.woken.clear();
                self.before = Some(at);
                (Some(after), format!("{words}, {} after the push", delay(after)))
            }
            _ => (None, words),
        }
    }

    fn fetched(
        &mut self,
        at: HistoryTime,
        session: u64,
        device: Option<u32>,
    ) -> (Option<u64>, String) {
        let who = match device {
            Some(device) => format!("device {}", short_hash(device)),
            None => "a client without a token".into(),
        };
        let words = format!("{who} requested new messages (session {session})");
        match self.news.take() {
            Some(news) => {
                (self.follow(at), format!("{words}, {} after the new mail", delay(at.after(news))))
            }
            None => (None, words),
        }
    }
}

fn waits(device: u32, pause: Pause, next: u32) -> String {
    let (device, next) = (short_hash(device), delay(next.into()));
    match pause {
        Pause::Coalescing => {
            format!(
                "device {device} was woken a moment ago: one more push in {next} covers the mail since then (push.coalesce)"
            )
        }
        Pause::Failed => format!("the push of device {device} is tried again in {next}"),
        Pause::Outage => {
            format!(
                "the push of device {device} waits: the notification server is down and is probed regularly"
            )
        }
    }
}

fn watch(state: WatchNote, words: &str, times: u16) -> String {
    let often = if times > 1 { format!("; {times} times in a row") } else { String::new() };
    match state {
        WatchNote::Connecting => "the watch connects to the mail server".into(),
        WatchNote::Watching => "the mailbox is watched from now on".into(),
        WatchNote::Interrupted => format!("the watch was interrupted: {words}{often}"),
        WatchNote::AwaitingLogin => format!("the watch ended: {words}"),
    }
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
