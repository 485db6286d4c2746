//! History entry of an event: small, and without secrets.

use jiff::Timestamp;
use tokio::time::Instant;

use crate::telemetry::{Pause, PostResult};

/// The time of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryTime {
    /// In milliseconds of the monotonic clock, counted from the start: what delays are measured with.
    pub since_start: u64,
    /// Wall clock time, in milliseconds since 1970.
    pub wall: i64,
}

impl HistoryTime {
    /// Now, in a process that began at `began`.
    pub(super) fn now(began: Instant) -> Self {
        Self { since_start: milliseconds(began.elapsed()), wall: Timestamp::now().as_millisecond() }
    }

    /// Wall clock time.
    #[must_use]
    pub fn time(self) -> Timestamp {
        Timestamp::from_millisecond(self.wall).unwrap_or_default()
    }

    /// The time `milliseconds` earlier, but not before the start.
    #[must_use]
    pub fn earlier(self, milliseconds: u32) -> Self {
        let by = self.since_start.min(milliseconds.into());
        Self {
            since_start: self.since_start - by,
            wall: self.wall.saturating_sub(i64::try_from(by).unwrap_or_default()),
        }
    }

    /// Milliseconds from `earlier` to this.
    #[must_use]
    pub fn after(self, earlier: Self) -> u64 {
        self.since_start.saturating_sub(earlier.since_start)
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The time.
    pub at: HistoryTime,
    /// The event.
    pub what: What,
}

/// An event. Devices are identified by the short hash of their token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A client logged in.
    Connected {
        /// Its connection.
        session: u64,
        /// The device, once it has handed over its token.
        device: Option<u32>,
        /// First appearance since the start: the device may be new.
        first: bool,
        /// Number of further ones since the previous entry.
        skipped: u16,
        /// Background fetch, in which a device hands over no token.
        background: bool,
    },
    /// A client, having heard of news, asked for messages.
    Fetched {
        /// Its connection.
        session: u64,
        /// The device, if it has handed over its token.
        device: Option<u32>,
    },
    /// The watch does something else.
    Watch {
        /// The new state.
        state: WatchNote,
        /// Why, in words.
        words: Box<str>,
        /// So often in a row.
        times: u16,
    },
    /// A message was judged.
    Judged {
        /// Number of the mailbox, for [`Timeline::mailbox`](super::Timeline::mailbox).
        mailbox: u8,
        /// Its UID; zero if it is not known.
        uid: u64,
        /// The reason for no push; `None` if the message is pushed.
        skipped: Option<&'static str>,
    },
    /// A mailbox was looked through, and what was found is on disk.
    Noticed {
        /// Number of the mailbox, as in `Judged`.
        mailbox: u8,
        /// Some device is to be woken.
        announce: bool,
        /// Milliseconds since the mail server's notification; `None` if catch-up found the mail.
        heard: Option<u32>,
    },
    /// A POST has ended.
    Posted {
        /// The token's short hash.
        device: u32,
        /// The outcome.
        result: PostResult,
        /// Duration in milliseconds.
        took: u32,
    },
    /// A push waits for its time.
    Waits {
        /// The token's short hash.
        device: u32,
        /// Why.
        pause: Pause,
        /// Time to wait, in milliseconds.
        next: u32,
    },
    /// A push is not tried any more.
    GaveUp {
        /// The token's short hash. With the reason in one box: it is rare.
        device: u32,
        /// Why, in words.
        words: Box<str>,
    },
    /// An operator asked for a push.
    Tested {
        /// Of which device.
        device: u32,
    },
}

/// The state of a watch, without the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchNote {
    /// Waits for a permit of the pacing, or is logging in.
    Connecting,
    /// The mailbox is watched.
    Watching,
    /// Interrupted; retries.
    Interrupted,
    /// Ended until a client logs in.
    AwaitingLogin,
}

/// Whole milliseconds.
pub(super) fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole milliseconds, 49 days at most.
pub(super) fn short(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_is_small() {
        // 48 bytes by rustc 1.95: layouts are the compiler's.
        assert!(size_of::<HistoryEntry>() <= 60, "{}", size_of::<HistoryEntry>());
    }
}
