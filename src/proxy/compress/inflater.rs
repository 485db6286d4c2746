//! Inflates the client's input: deflate to bytes, in pieces of bounded size.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY,
    TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress};

use super::window::{DeflateWindow, InflateError};

/// Longest distance of a reference in deflate (RFC 1951 section 2), in bytes.
pub const WINDOW: usize = 32 * 1024;

/// The least room that [`Inflater::inflate`] needs to get on: a window, and as much again for its output.
pub const MIN_WORK: usize = 2 * WINDOW;

const FLAGS: u32 = TINFL_FLAG_HAS_MORE_INPUT
    | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY
    | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;

/// Inflates one stream of raw deflate.
#[derive(Default)]
pub struct Inflater {
    place: StreamPosition,
    /// The end of what was inflated: the stream may point back to it. Of the client's words, which may be secret.
    window: DeflateWindow,
    /// The last output was cut short by the room there was for it.
    has_more: bool,
}

/// The position in the stream.
enum StreamPosition {
    /// Between two blocks. A sync or full flush ends here: so many bits of the next block were in the last byte.
    BetweenBlocks { bits: u8, bit_buffer: u8 },
    /// Within a block, with its code tables.
    WithinBlock(Box<DecompressorOxide>),
    /// Behind the last block, or at a fault.
    Ended,
}

impl Default for StreamPosition {
    fn default() -> Self {
        Self::BetweenBlocks { bits: 0, bit_buffer: 0 }
    }
}

impl Inflater {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Inflates from `input`, which moves on to what was not used, into `work`, of which a part is returned. At least
    /// [`MIN_WORK`] bytes of `work` are needed, and no more than its length minus what is kept comes out: call it again while
    /// there is input, or [`has_more`](Self::has_more) says so.
    ///
    /// # Errors
    /// [`InflateError`] if the stream is broken: it cannot be read on after that. All that came before the fault comes out first.
    pub fn inflate<'w>(
        &mut self,
        input: &mut &[u8],
        work: &'w mut [u8],
    ) -> Result<&'w [u8], InflateError> {
        debug_assert!(work.len() >= MIN_WORK, "there is room to get on");
        if input.is_empty() && !self.has_more {
            return Ok(&[]);
        }
        let mut decoder = match std::mem::replace(&mut self.place, StreamPosition::Ended) {
            StreamPosition::WithinBlock(decoder) => decoder,
            StreamPosition::BetweenBlocks { bits, bit_buffer } => resumed(bits, bit_buffer),
            StreamPosition::Ended => return Err(InflateError),
        };
        let start = self.window.len();
        self.window.unfold_into(work)?;
        let mut end = start;
        self.place = loop {
            let (status, used, written) = decompress(&mut decoder, input, work, end, FLAGS);
            *input = input.get(used..).unwrap_or_default();
            end = end.saturating_add(written);
            self.has_more = status == TINFLStatus::HasMoreOutput;
            match status {
                TINFLStatus::BlockBoundary if !input.is_empty() => {}
                TINFLStatus::BlockBoundary => {
                    let state = decoder.block_boundary_state().ok_or(InflateError)?;
                    break StreamPosition::BetweenBlocks {
                        bits: state.num_bits,
                        bit_buffer: state.bit_buf,
                    };
                }
                TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => {
                    break StreamPosition::WithinBlock(decoder);
                }
                TINFLStatus::Done if input.is_empty() => break StreamPosition::Ended,
                _ if end > start => {
                    // First what came before the fault, however the stream was cut; the next call says so.
                    self.has_more = true;
                    break StreamPosition::Ended;
                }
                _ => return Err(InflateError),
            }
        };
        let inflated = work.get(..end).unwrap_or_default();
        self.window.keep(inflated.get(inflated.len().saturating_sub(WINDOW)..).unwrap_or_default());
        Ok(inflated.get(start..).unwrap_or_default())
    }

    /// Reports if there is output without further input.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Bytes that it holds on the heap.
    #[must_use]
    pub fn held(&self) -> usize {
        let decoder = if let StreamPosition::WithinBlock(decoder) = &self.place {
            size_of_val(&**decoder)
        } else {
            0
        };
        self.window.held().saturating_add(decoder)
    }

    /// Reports if [`fold`](Self::fold) may save anything.
    #[must_use]
    pub fn can_fold(&self) -> bool {
        self.window.can_fold()
    }

    /// For when nothing comes for a while: what is kept takes less from now on, and a little longer with the next input.
    pub fn fold(&mut self) {
        self.window.fold();
    }
}

/// A decoder that goes on between two blocks.
fn resumed(bits: u8, bit_buffer: u8) -> Box<DecompressorOxide> {
    let state =
        BlockBoundaryState { num_bits: bits, bit_buf: bit_buffer, ..BlockBoundaryState::default() };
    Box::new(DecompressorOxide::from_block_boundary_state(&state))
}

/// Without what was said.
impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").field("window", &self.window.len()).finish_non_exhaustive()
    }
}
