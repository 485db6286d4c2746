//! A snapshot of PostgreSQL, as far as the reader of the event log needs it.

/// The transactions whose rows a read of the log could not see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unseen {
    /// The first of those that began later.
    pub(super) next: i64,
    /// Those that were under way.
    pub(super) running: Vec<i64>,
}

impl Unseen {
    /// From PostgreSQL's text of a snapshot: the oldest transaction under way, the next one, and all that are under way.
    pub(super) fn parse(snapshot: &str) -> Option<Self> {
        let mut parts = snapshot.split(':').skip(1);
        let next = parts.next()?.parse().ok()?;
        let running = parts.next()?.split(',').filter(|number| !number.is_empty());
        Some(Self { next, running: running.map(str::parse).collect::<Result<_, _>>().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_read() {
        let unseen = |next, running: &[i64]| Some(Unseen { next, running: running.to_vec() });
        assert_eq!(Unseen::parse("10:20:10,14,15"), unseen(20, &[10, 14, 15]));
        assert_eq!(Unseen::parse("10:10:"), unseen(10, &[]));
        for broken in ["", "10", "10:20", "10:x:", "10:20:y"] {
            assert_eq!(Unseen::parse(broken), None, "{broken}");
        }
    }
}
