//! History of one account: the latest entries, and a few facts that outlive them.

use super::entry::{HistoryEntry, HistoryTime, WatchNote, What};
use super::{DeviceConnection, HistorySummary, Timeline};
use crate::telemetry::PostResult;

/// Maximum number of entries: a message makes six, so these cover about eight messages.
pub const MAX_ENTRIES: usize = 48;

/// Room is made for so many entries at a time.
const GROWTH: usize = 8;

/// Words and names of mailboxes are cut to so many bytes.
const MAX_WORDS: usize = 160;

/// Maximum size of the texts of one account, in bytes; the oldest entries are dropped first.
const MAX_ALL_WORDS: usize = 2048;

/// Maximum number of mailbox names. Further ones are not named.
const MAX_MAILBOXES: usize = 8;

/// Maximum number of devices: an account has no more tokens at once.
const MAX_DEVICES: usize = crate::store::MAX_TOKENS;

/// The history of one account.
#[derive(Debug, Default)]
pub(crate) struct HistoryRing {
    /// The oldest first.
    pub(super) entries: Vec<HistoryEntry>,
    /// Older ones were dropped.
    pub(super) full: bool,
    pub(super) mailboxes: Vec<Box<str>>,
    /// Time at which each device last handed over its token, the latest last.
    pub(super) connected: Vec<DeviceConnection>,
    /// Time of the last background fetch.
    pub(super) background: Option<HistoryTime>,
    pub(super) last_message: Option<HistoryTime>,
    pub(super) last_push: Option<LastPush>,
    /// Number of entries ever made.
    pub(super) count: u64,
}

/// A POST that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastPush {
    /// The time.
    pub at: HistoryTime,
    /// The token's short hash.
    pub device: u32,
    /// The outcome.
    pub result: PostResult,
    /// Delay since the discovery of the message, in milliseconds, if the message is known.
    pub delay: Option<u64>,
}

impl HistoryRing {
    pub(in crate::telemetry) fn summary(&self) -> HistorySummary {
        HistorySummary {
            last_message: self.last_message,
            last_push: self.last_push,
            connected: self.connected.clone(),
            background: self.background,
        }
    }

    pub(in crate::telemetry) fn timeline(&self) -> Timeline {
        let (entries, mailboxes) = (self.entries.clone(), self.mailboxes.clone());
        Timeline { entries, full: self.full, count: self.count, mailboxes }
    }

    pub(super) fn push(&mut self, at: HistoryTime, what: What) {
        while self.entries.len() >= MAX_ENTRIES || self.words() > MAX_ALL_WORDS {
            self.entries.remove(0);
            self.full = true;
        }
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(GROWTH);
        }
        self.entries.push(HistoryEntry { at, what });
        self.count += 1;
    }

    fn words(&self) -> usize {
        let words = self.entries.iter().map(|entry| match &entry.what {
            What::Watch { words, .. } | What::GaveUp { words, .. } => words.len(),
            _ => 0,
        });
        words.sum()
    }

    /// A client logged in. Of a client that does nothing but come again, the first and the latest time are kept.
    pub(super) fn login(&mut self, at: HistoryTime, session: u64) {
        let mut skipped = 0;
        if let [.., before, last] = self.entries.as_slice()
            && let (
                What::Connected { .. },
                What::Connected { skipped: more, background: false, .. },
            ) = (&before.what, &last.what)
        {
            skipped = more.saturating_add(1);
            self.entries.pop();
        }
        self.push(
            at,
            What::Connected { session, device: None, first: false, skipped, background: false },
        );
    }

    /// A client without a token came for a background fetch.
    pub(super) fn background_fetch(&mut self, at: HistoryTime, connection: u64) {
        self.background = Some(at);
        match self.connection(connection) {
            Some(What::Connected { background, .. }) => {
                *background = true;
                self.count += 1;
            }
            _ => {
                let (session, background) = (connection, true);
                self.push(
                    at,
                    What::Connected { session, device: None, first: false, skipped: 0, background },
                );
            }
        }
    }

    /// The entry of this connection's login.
    fn connection(&mut self, connection: u64) -> Option<&mut What> {
        let is_its = |entry: &&mut HistoryEntry| matches!(entry.what, What::Connected { session, .. } if session == connection);
        self.entries.iter_mut().rev().find(is_its).map(|entry| &mut entry.what)
    }

    /// A client handed over its token.
    pub(super) fn registered(&mut self, at: HistoryTime, connection: u64, token: u32) {
        let known = self.connected.iter().position(|known| known.device == token);
        if let Some(known) = known {
            self.connected.remove(known);
        } else if self.connected.len() >= MAX_DEVICES {
            self.connected.remove(0);
        }
        self.connected.reserve_exact(1);
        self.connected.push(DeviceConnection {
            device: token,
            at,
            session: connection,
            online: true,
        });
        match self.connection(connection) {
            Some(What::Connected { device, first, background, .. }) => {
                *background = false;
                *first |= known.is_none();
                *device = Some(token);
                self.count += 1;
            }
            _ => {
                let first = known.is_none();
                self.push(
                    at,
                    What::Connected {
                        session: connection,
                        device: Some(token),
                        first,
                        skipped: 0,
                        background: false,
                    },
                );
            }
        }
    }

    pub(super) fn logged_out(&mut self, session: u64) {
        self.connected
            .iter_mut()
            .filter(|known| known.session == session)
            .for_each(|known| known.online = false);
    }

    /// The watch does something else. A state that comes again and again while a server is away is one entry.
    pub(super) fn watch(&mut self, at: HistoryTime, state: WatchNote, words: &str) {
        let words = cut(words);
        if let Some(HistoryEntry {
            what: What::Watch { state: last, words: before, times }, ..
        }) = self.entries.last_mut()
            && *last == WatchNote::Interrupted
            && matches!(state, WatchNote::Interrupted | WatchNote::Connecting)
        {
            if state == WatchNote::Interrupted {
                (*before, *times) = (words, times.saturating_add(1));
            }
            self.count += 1;
            return;
        }
        self.push(at, What::Watch { state, words, times: 1 });
    }

    pub(super) fn mailbox(&mut self, name: &str) -> u8 {
        let known = self.mailboxes.iter().position(|known| **known == *cut(name));
        let index = known.unwrap_or(self.mailboxes.len());
        if known.is_none() && index < MAX_MAILBOXES {
            self.mailboxes.reserve_exact(1);
            self.mailboxes.push(cut(name));
        }
        u8::try_from(index).unwrap_or(u8::MAX)
    }

    pub(super) fn posted(&mut self, at: HistoryTime, device: u32, result: PostResult, took: u32) {
        let delay = self.news_of(device, at.earlier(took)).map(|news| at.after(news));
        self.last_push = Some(LastPush { at, device, result, delay });
        self.push(at, What::Posted { device, result, took });
    }

    /// Discovery of the oldest message that a POST begun at `began` covers for this device.
    fn news_of(&self, device: u32, began: HistoryTime) -> Option<HistoryTime> {
        let told = self.entries.iter().rev().find_map(|entry| match entry.what {
            What::Posted { device: whose, result: PostResult::Accepted, took }
                if whose == device =>
            {
                Some(entry.at.earlier(took))
            }
            _ => None,
        });
        let is_told = |at: HistoryTime| told.is_some_and(|told| at.since_start <= told.since_start);
        let mut new = self
            .entries
            .iter()
            .filter(|entry| !is_told(entry.at) && entry.at.since_start <= began.since_start);
        let noticed = new.clone().find_map(|entry| match entry.what {
            What::Noticed { announce: true, heard, .. } => {
                Some(entry.at.earlier(heard.unwrap_or(0)))
            }
            _ => None,
        });
        // The POST may have begun, even ended, before the finder of the message says so.
        noticed.or_else(|| {
            new.find_map(|entry| {
                matches!(entry.what, What::Judged { skipped: None, .. }).then_some(entry.at)
            })
        })
    }
}

/// Words of others, not longer than need be.
pub(super) fn cut(words: &str) -> Box<str> {
    let end = words.char_indices().map(|(start, char)| start + char.len_utf8());
    let end = end.take_while(|end| *end <= MAX_WORDS).last().unwrap_or(0);
    words.get(..end).unwrap_or_default().into()
}
