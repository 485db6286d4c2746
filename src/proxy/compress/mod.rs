//! COMPRESS=DEFLATE (RFC 4978) between client and deltapush: raw deflate (RFC 1951) in both directions, without I/O.
//!
//! An idle session keeps little of it. Each of deltapush's flushes ends at a byte, from where any compressor can go on: it
//! belongs to the process, and only the last [`HISTORY`] bytes are kept for it. A decompressor that stands between two
//! blocks is rebuilt from what it may be pointed back to: as much as the client has sent, up to [`WINDOW`] bytes, and that folded
//! if the session says nothing for a while.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

mod deflater;
mod inflater;
mod pool;
#[cfg(test)]
mod tests;
mod window;

pub use deflater::{DeflateError, Deflater, HISTORY};

pub use inflater::{Inflater, MIN_WORK, WINDOW};

pub use window::InflateError;

/// Both directions of a connection that is compressed.
#[derive(Debug, Default)]
pub(super) struct CompressedLayer {
    pub(super) inflater: Inflater,
    pub(super) deflater: Deflater,
    /// Received bytes that are not inflated yet.
    received: Vec<u8>,
    /// Number of bytes at its beginning that are inflated.
    used: usize,
}

impl CompressedLayer {
    /// Takes in what the connection brought.
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// Reports if something can be inflated without receiving more.
    pub(super) fn has_input(&self) -> bool {
        self.used < self.received.len() || self.inflater.has_more()
    }

    /// The next piece of what the client said, in `work`; it may be empty.
    pub(super) fn inflate<'w>(&mut self, work: &'w mut [u8]) -> Result<&'w [u8], InflateError> {
        let mut input = self.received.get(self.used..).unwrap_or_default();
        let output = self.inflater.inflate(&mut input, work);
        self.used = self.received.len().saturating_sub(input.len());
        if input.is_empty() {
            self.received = Vec::new();
            self.used = 0;
        }
        output
    }
}
