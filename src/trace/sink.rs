//! Where transcripts go: a queue, and a thread that writes. A slow terminal slows no session; what does not fit is counted.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Lines that may wait to be written.
const QUEUE: usize = 4096;

/// A place that lines are written to. Clones lead to the same one.
#[derive(Debug, Clone)]
pub struct Sink {
    queue: SyncSender<String>,
    dropped: Arc<Dropped>,
}

/// How many lines did not fit.
#[derive(Debug, Default)]
struct Dropped {
    /// Since this was last told.
    untold: AtomicU64,
    in_all: AtomicU64,
}

impl Sink {
    /// A sink that writes to `out`, on a thread of its own that ends with the last clone.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn new(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let dropped = Arc::<Dropped>::default();
        let counted = Arc::clone(&dropped);
        thread::Builder::new().name("deltapush-trace".into()).spawn(move || write(out, &lines, &counted))?;
        Ok(Self { queue, dropped })
    }

    /// Queues a line, without line end, or counts it as dropped.
    pub fn line(&self, line: String) {
        if self.queue.try_send(line).is_err() {
            self.dropped.untold.fetch_add(1, Ordering::Relaxed);
            self.dropped.in_all.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines were dropped since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.in_all.load(Ordering::Relaxed)
    }
}

/// Writes until all senders are gone, or nobody reads: a closed terminal must not end a session.
fn write(mut out: impl Write, lines: &Receiver<String>, dropped: &Dropped) {
    while let Ok(line) = lines.recv() {
        let lost = dropped.untold.swap(0, Ordering::Relaxed);
        let written = writeln!(out, "{line}").and_then(|()| match lost {
            0 => Ok(()),
            lost => writeln!(out, "({lost} lines of the trace were dropped: whoever reads it is too slow)"),
        });
        if written.and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex, PoisonError};

    use super::*;

    /// Whether the terminal moves, and what it shows.
    type Terminal = (Mutex<(bool, Vec<u8>)>, Condvar);

    /// A terminal that stands still until it is let go.
    struct Stalled(Arc<Terminal>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
            let mut state = self.0.1.wait_while(state, |state| !state.0).unwrap();
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            self.0.1.notify_all();
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_holds_nobody_up_and_learns_what_it_missed() {
        let shared = Arc::new((Mutex::new((false, Vec::new())), Condvar::new()));
        let sink = Sink::new(Stalled(Arc::clone(&shared))).unwrap();
        (0..QUEUE + 100).for_each(|number| sink.line(format!("line {number}")));
        assert!((99..=100).contains(&sink.dropped()), "{}", sink.dropped());
        let mut state = shared.0.lock().unwrap();
        state.0 = true;
        shared.1.notify_all();
        let last = format!("line {}\n", QUEUE - 1);
        let has_all = |text: &[u8]| String::from_utf8_lossy(text).contains(&last);
        let (state, timeout) =
            shared.1.wait_timeout_while(state, std::time::Duration::from_secs(20), |state| !has_all(&state.1)).unwrap();
        assert!(!timeout.timed_out());
        let text = String::from_utf8_lossy(&state.1);
        assert!(text.contains("lines of the trace were dropped"), "{}", text.len());
    }
}
