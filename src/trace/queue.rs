//! The queue of one reader of the trace. A reader that is too slow misses lines and gets their number;
//! sessions never wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::record::Record;
use super::selection::TraceSelection;

/// Lines that may wait for a reader.
const MAX_LINES: usize = 8192;

/// Most memory of a queue, in bytes.
const MAX_MEMORY: usize = 8 << 20;

/// Counts that both ends of a queue share.
#[derive(Default)]
struct QueueCounts {
    /// Lines that were dropped, and not yet told of.
    dropped: AtomicU64,
    /// Memory that the queue takes.
    held: AtomicUsize,
}

/// A line, and how many are missing before it.
struct Queued {
    missing: u64,
    record: Arc<Record>,
}

/// The end that lines go in.
pub(super) struct LineSender {
    queue: mpsc::Sender<Queued>,
    counts: Arc<QueueCounts>,
    /// The lines that all readers together have missed.
    missed: Arc<AtomicU64>,
}

/// The end that lines come out of.
pub(super) struct LineReceiver {
    queue: mpsc::Receiver<Queued>,
    counts: Arc<QueueCounts>,
    wanted: TraceSelection,
    /// The next record, after the report of the lines missing before it.
    next: Option<Arc<Record>>,
}

impl LineSender {
    /// Queues a line, or counts it.
    pub(super) fn send(&self, record: &Arc<Record>) {
        let cost = record.cost();
        let held = self.counts.held.fetch_add(cost, Ordering::Relaxed);
        let missing = self.counts.dropped.swap(0, Ordering::Relaxed);
        let fits = held.saturating_add(cost) <= MAX_MEMORY;
        if !fits || self.queue.try_send(Queued { missing, record: Arc::clone(record) }).is_err() {
            self.counts.held.fetch_sub(cost, Ordering::Relaxed);
            self.counts.dropped.fetch_add(missing.saturating_add(1), Ordering::Relaxed);
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A queue for what is `wanted`. Lines that do not fit are counted in `missed`.
pub(super) fn channel(
    wanted: &TraceSelection,
    missed: Arc<AtomicU64>,
) -> (LineSender, LineReceiver) {
    let (sender, queue) = mpsc::channel(MAX_LINES);
    let counts = Arc::new(QueueCounts::default());
    let sender = LineSender { queue: sender, counts: Arc::clone(&counts), missed };
    (sender, LineReceiver { queue, counts, wanted: wanted.clone(), next: None })
}

impl LineReceiver {
    /// Waits for the next line; `None` when there is nothing more to follow. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Option<Record> {
        if let Some(record) = self.try_next() {
            return Some(record);
        }
        let queued = self.queue.recv().await?;
        Some(self.take(queued))
    }

    /// The same, for a thread that may wait.
    pub(super) fn wait(&mut self) -> Option<Record> {
        if let Some(record) = self.try_next() {
            return Some(record);
        }
        let queued = self.queue.blocking_recv()?;
        Some(self.take(queued))
    }

    /// The next line, if there is one.
    pub(super) fn try_next(&mut self) -> Option<Record> {
        if let Some(record) = self.next.take() {
            return Some(self.shown(&record));
        }
        match self.queue.try_recv() {
            Ok(queued) => Some(self.take(queued)),
            Err(_) => match self.counts.dropped.swap(0, Ordering::Relaxed) {
                0 => None,
                dropped => Some(Record::dropped(dropped)),
            },
        }
    }

    fn take(&mut self, queued: Queued) -> Record {
        self.counts.held.fetch_sub(queued.record.cost(), Ordering::Relaxed);
        if queued.missing > 0 {
            self.next = Some(queued.record);
            return Record::dropped(queued.missing);
        }
        self.shown(&queued.record)
    }

    fn shown(&self, record: &Arc<Record>) -> Record {
        let record = Record::clone(record);
        let record = match self.wanted.side {
            Some(side) => record.clone().on(side).unwrap_or(record),
            None => record,
        };
        if self.wanted.literals { record } else { record.without_literals() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Audience, Mark, Piece, Speaker, TraceEntry, Tracer};
    use super::*;

    #[test]
    fn reader_that_stands_still_holds_nobody_up_and_learns_what_it_missed() {
        let tracer = Tracer::default();
        let mut slow = tracer
            .follow(TraceSelection { audience: Audience::Everyone, side: None, literals: false })
            .expect("a place");
        let mut session = tracer.client(1);
        let mut record = |count: usize, line: &[u8]| {
            for _ in 0..count {
                let transcript = session.transcript().expect("somebody follows");
                transcript.piece(Speaker::Client, Mark::Relayed, Piece::Text(line));
            }
        };
        record(MAX_LINES + 100, b"a NOOP\r\n");
        let mut lines = Vec::new();
        // One has been read, and there is room for one more: what is missing stands before it.
        lines.extend(slow.wait());
        record(1, b"b NOOP\r\n");
        lines.extend(std::iter::from_fn(|| slow.try_next()));
        assert_eq!(lines.len(), MAX_LINES + 2);
        assert_eq!(lines[MAX_LINES].entry, TraceEntry::Dropped(100));
        // And what is missing at the end is told too.
        record(MAX_LINES + 3, b"c NOOP\r\n");
        let lines: Vec<_> = std::iter::from_fn(|| slow.try_next()).collect();
        assert_eq!(lines.last().expect("lines").entry, TraceEntry::Dropped(3));
        // Long lines have a bound of their own.
        record(MAX_LINES, &[[b'x'; 4000].as_slice(), b"\r\n"].concat());
        let lines: Vec<_> = std::iter::from_fn(|| slow.try_next()).collect();
        assert!(
            lines.len() < 2200
                && matches!(lines.last().expect("lines").entry, TraceEntry::Dropped(_)),
            "{}",
            lines.len()
        );
        assert_eq!(slow.lines.counts.held.load(Ordering::Relaxed), 0);
    }
}
