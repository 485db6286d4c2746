//! One record of a trace, independent of its format.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use super::{Mark, Speaker};
use crate::account::AccountId;

/// One line of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When its last byte was seen.
    pub time: Timestamp,
    /// The session; `None` for what concerns the trace itself.
    pub session: Option<SessionId>,
    /// The session's account, as soon as it is known.
    pub account: Option<AccountId>,
    /// The content.
    pub entry: TraceEntry,
}

/// The content of a trace line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceEntry {
    /// Something was said.
    Said {
        /// Sender and receiver.
        speaker: Speaker,
        /// deltapush's treatment of it.
        mark: Mark,
        /// The line, without its line end.
        parts: Vec<LinePart>,
    },
    /// Something happened.
    Note(String),
    /// So many lines are missing here, because the reader was too slow.
    Dropped(u64),
}

/// Part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinePart {
    /// Plain text.
    Text(Vec<u8>),
    /// So many bytes that are secret.
    Masked(u64),
    /// A literal, or as much of it as had come.
    Literal {
        /// Its bytes.
        size: u64,
        /// The first of them, if somebody asked for literals.
        shown: Vec<u8>,
    },
    /// So many bytes more than are shown of a line.
    Cut(u64),
}

/// Names a session for as long as deltapush runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionId {
    /// A client's: `#7`, with the number that the log calls `session`.
    Client(u64),
    /// One of deltapush's own that watches: `watch-7`.
    Watch(u64),
}

/// One of a session's two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionSide {
    /// The connection between client and deltapush.
    Client,
    /// The connection between deltapush and the upstream.
    Upstream,
}

impl Record {
    /// A record of missing lines, as of now.
    pub(super) fn dropped(lines: u64) -> Self {
        Self {
            time: Timestamp::now(),
            session: None,
            account: None,
            entry: TraceEntry::Dropped(lines),
        }
    }

    /// The line as it stands on one side: what was relayed was said there too. `None` if nothing of it was.
    #[must_use]
    pub fn on(mut self, side: ConnectionSide) -> Option<Self> {
        if let TraceEntry::Said { speaker, mark, .. } = &mut self.entry {
            *speaker = side.speaker(*speaker, *mark)?;
        }
        Some(self)
    }

    /// The line without what stands in literals.
    #[must_use]
    pub fn without_literals(mut self) -> Self {
        if let TraceEntry::Said { parts, .. } = &mut self.entry {
            for part in parts {
                if let LinePart::Literal { shown, .. } = part {
                    *shown = Vec::new();
                }
            }
        }
        self
    }

    /// About how much memory it takes, in bytes.
    pub(super) fn cost(&self) -> usize {
        let inner = match &self.entry {
            TraceEntry::Said { parts, .. } => {
                parts.iter().map(LinePart::held).fold(0, usize::saturating_add)
            }
            TraceEntry::Note(words) => words.len(),
            TraceEntry::Dropped(_) => 0,
        };
        inner.saturating_add(size_of::<Self>())
    }
}

impl LinePart {
    /// About how much memory it takes, in bytes.
    pub(super) fn held(&self) -> usize {
        let bytes = match self {
            Self::Text(bytes) | Self::Literal { shown: bytes, .. } => bytes.len(),
            Self::Masked(_) | Self::Cut(_) => 0,
        };
        bytes.saturating_add(size_of::<Self>())
    }
}

impl ConnectionSide {
    /// The speaker on this side of a line that `speaker` sent, if it has one.
    #[must_use]
    pub fn speaker(self, speaker: Speaker, mark: Mark) -> Option<Speaker> {
        match (self, speaker, mark) {
            (Self::Client, Speaker::Client | Speaker::ToClient, _) => Some(speaker),
            (Self::Upstream, Speaker::ToUpstream | Speaker::Upstream, _) => Some(speaker),
            (Self::Upstream, Speaker::Client, Mark::Relayed) => Some(Speaker::ToUpstream),
            (Self::Upstream, Speaker::ToClient, Mark::Relayed) => Some(Speaker::Upstream),
            _ => None,
        }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(number) => write!(f, "#{number}"),
            Self::Watch(number) => write!(f, "watch-{number}"),
        }
    }
}

/// The text is no [`SessionId`].
#[derive(Debug, thiserror::Error)]
#[error("a session is named #7, 7 or watch-7, as the trace shows it")]
pub struct NoSession;

impl FromStr for SessionId {
    type Err = NoSession;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A shell takes `#7` for a comment.
        let (make, number): (fn(u64) -> Self, _) = match text.strip_prefix("watch-") {
            Some(number) => (Self::Watch, number),
            None => (Self::Client, text.strip_prefix('#').unwrap_or(text)),
        };
        number.parse().map(make).map_err(|_| NoSession)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_called_as_they_are_shown() {
        for id in [SessionId::Client(7), SessionId::Watch(12)] {
            assert_eq!(id.to_string().parse::<SessionId>().unwrap(), id);
        }
        assert_eq!("7".parse::<SessionId>().unwrap(), SessionId::Client(7));
        assert!("seven".parse::<SessionId>().is_err());
    }

    #[test]
    fn relayed_bytes_count_for_both_sides() {
        use Speaker::{Client, ToClient, ToUpstream, Upstream};
        let on = |side: ConnectionSide| move |(speaker, mark)| side.speaker(speaker, mark);
        let said = [
            (Client, Mark::Relayed),
            (Client, Mark::Kept),
            (ToClient, Mark::Relayed),
            (ToClient, Mark::Changed),
        ];
        assert_eq!(
            said.map(on(ConnectionSide::Client)),
            [Some(Client), Some(Client), Some(ToClient), Some(ToClient)]
        );
        assert_eq!(
            said.map(on(ConnectionSide::Upstream)),
            [Some(ToUpstream), None, Some(Upstream), None]
        );
        let said = [(ToUpstream, Mark::Own), (Upstream, Mark::Kept)];
        assert_eq!(said.map(on(ConnectionSide::Client)), [None, None]);
        assert_eq!(said.map(on(ConnectionSide::Upstream)), [Some(ToUpstream), Some(Upstream)]);
    }
}
