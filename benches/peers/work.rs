//! The work that a session repeats, and the figures in which it counts.

use super::options::Extent;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The work that a session repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A message from the server, of so many bytes.
    Fetch(u64),
    /// A message to the server, of so many bytes.
    Append(u64),
    Noop,
    /// The headers of 50 messages.
    Headers,
    /// Connect, log in, log out; TLS sessions are resumed or not.
    Login {
        resumed: bool,
    },
}

/// The work of one measurement: by so many sessions at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measurement {
    pub(crate) work: Work,
    pub(crate) sessions: usize,
}

impl Measurement {
    pub(crate) fn name(&self) -> String {
        let work = match self.work {
            Work::Fetch(size) => format!("FETCH {}", readable(size)),
            Work::Append(size) => format!("APPEND {}", readable(size)),
            Work::Noop => "NOOP".to_owned(),
            Work::Headers => "headers of 50".to_owned(),
            Work::Login { resumed: false } => "login, full handshakes".to_owned(),
            Work::Login { resumed: true } => "login, TLS resumed".to_owned(),
        };
        let plural = if self.sessions == 1 { "" } else { "s" };
        format!("{work}, {} session{plural}", self.sessions)
    }

    /// All of one extent.
    pub(crate) fn all(extent: Extent) -> Vec<Self> {
        let (sizes, crowds): (&[u64], &[usize]) = match extent {
            Extent::Full => (&[64 * KIB, MIB, 64 * MIB], &[1, 8]),
            Extent::Short => (&[64 * KIB, MIB], &[1, 8]),
            Extent::Shortest => (&[64 * KIB], &[1, 8]),
        };
        let mut all = Vec::new();
        for work in [Work::Fetch, Work::Append] {
            for size in sizes {
                all.extend(
                    crowds.iter().map(|sessions| Self { work: work(*size), sessions: *sessions }),
                );
            }
        }
        let small = [
            (Work::Noop, 1),
            (Work::Noop, 16),
            (Work::Headers, 8),
            (Work::Login { resumed: false }, 8),
            (Work::Login { resumed: true }, 8),
        ];
        all.extend(small.map(|(work, sessions)| Self { work, sessions }));
        all
    }
}

fn readable(size: u64) -> String {
    if size < MIB { format!("{} KiB", size / KIB) } else { format!("{} MiB", size / MIB) }
}
