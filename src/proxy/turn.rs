//! The share of a thread's time that a session may use before others run: a bound on the bytes and lines of one turn.
//!
//! The runtime's own budget counts reads, and one read brings up to 64 KiB: thousands of short lines.

/// Bytes read in one turn, after which it ends.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// Lines, or parts of literals, handled in one turn.
pub(super) const MAX_PIECES: usize = 250;

/// A compressed byte costs as much time as so many others.
const COMPRESSED: usize = 4;

/// Removes from `left` what was used, and gives memory back that the rest does not need.
pub(super) fn consume(left: &mut Vec<u8>, used: usize) {
    left.drain(..used.min(left.len()));
    if left.len() < left.capacity() / 4 {
        left.shrink_to_fit();
    }
}

/// The rest of one turn's budget.
#[derive(Debug, Clone, Copy)]
pub(super) struct TurnBudget {
    bytes: usize,
    /// Counted down by the session.
    pub(super) pieces: usize,
}

impl TurnBudget {
    pub(super) const fn new() -> Self {
        Self { bytes: MAX_BYTES, pieces: MAX_PIECES }
    }

    /// Counts bytes that were read. Bytes that are inflated, or will be deflated, count for more.
    pub(super) fn count(&mut self, bytes: usize, is_compressed: bool) {
        let weight = if is_compressed { COMPRESSED } else { 1 };
        self.bytes = self.bytes.saturating_sub(bytes.saturating_mul(weight));
    }

    pub(super) fn is_over(self) -> bool {
        self.bytes == 0 || self.pieces == 0
    }
}
