//! A trace that a test reads.

use std::io::{Result, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Sink;

/// What was shown so far.
#[derive(Clone, Default)]
pub(crate) struct Shown(Arc<Mutex<Vec<u8>>>);

impl Shown {
    /// A sink that leads here.
    pub(crate) fn sink(&self) -> Sink {
        Sink::new(self.clone()).unwrap()
    }

    /// All that was shown, once every sink and printer is dropped: its thread holds a clone until it is through.
    pub(crate) fn text(&self) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Arc::strong_count(&self.0) > 1 {
            assert!(Instant::now() < deadline, "the trace's thread does not end");
            std::thread::yield_now();
        }
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
