//! Compresses deltapush's output: bytes to deflate.

use std::fmt;

use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, TDEFLStatus, compress_to_output};

use super::pool::{self, Owner};
use super::window::DeflateWindow;

/// Bytes of recent output that a session keeps for the next compressor. IMAP repeats itself: more makes next to no
/// difference (docs/performance.md).
pub const HISTORY: usize = 1024;

/// The compressor did not do what was asked for: an error of deltapush's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("deltapush could not compress its data")]
pub struct DeflateError;

/// Makes one stream of raw deflate.
#[derive(Default)]
pub struct Deflater {
    owner: Owner,
    /// There from the first byte to the flush after it.
    compressor: Option<Box<CompressorOxide>>,
    /// The end of what was said: a compressor that knows nothing learns it before it goes on.
    history: DeflateWindow,
}

impl Deflater {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Compresses `bytes`. Ready output goes to `out`, the rest when more comes, or with [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`DeflateError`]: the stream cannot go on after that.
    pub fn write(&mut self, bytes: &[u8], out: &mut impl FnMut(&[u8])) -> Result<(), DeflateError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut compressor = match self.compressor.take() {
            Some(compressor) => compressor,
            None => self.lent()?,
        };
        compress(&mut compressor, bytes, TDEFLFlush::None, out)?;
        self.compressor = Some(compressor);
        self.history.push(bytes, HISTORY).map_err(|_| DeflateError)
    }

    /// Reports if some output may not have been sent yet.
    #[must_use]
    pub fn is_unflushed(&self) -> bool {
        self.compressor.is_some()
    }

    /// Has all that was written go out, up to a byte's end, so that the other side can inflate it, and gives the compressor
    /// back. Nothing is said if nothing was written.
    ///
    /// # Errors
    /// [`DeflateError`]: the stream cannot go on after that.
    pub fn flush(&mut self, out: &mut impl FnMut(&[u8])) -> Result<(), DeflateError> {
        let Some(mut compressor) = self.compressor.take() else { return Ok(()) };
        compress(&mut compressor, &[], TDEFLFlush::Sync, out)?;
        pool::give_back(&self.owner, compressor);
        Ok(())
    }

    /// Bytes that it holds on the heap between two flushes.
    #[must_use]
    pub fn held(&self) -> usize {
        self.history.held()
    }

    /// A compressor that stands where the last flush ended.
    fn lent(&self) -> Result<Box<CompressorOxide>, DeflateError> {
        let (mut compressor, is_ours) = pool::lend(&self.owner);
        if !is_ours && self.history.len() > 0 {
            let mut history = vec![0; self.history.len()];
            self.history.unfold_into(&mut history).map_err(|_| DeflateError)?;
            // The client has this already: only the compressor has to see it.
            compress(&mut compressor, &history, TDEFLFlush::Sync, &mut |_| {})?;
        }
        Ok(compressor)
    }

    /// Reports if [`fold`](Self::fold) may save anything.
    #[must_use]
    pub fn can_fold(&self) -> bool {
        self.compressor.is_none() && self.history.can_fold()
    }

    /// For when nothing is said for a while: what is kept takes less from now on, and a little longer with the next word.
    pub fn fold(&mut self) {
        self.history.fold();
    }
}

fn compress(
    compressor: &mut CompressorOxide,
    bytes: &[u8],
    flush: TDEFLFlush,
    out: &mut impl FnMut(&[u8]),
) -> Result<(), DeflateError> {
    let (status, used) = compress_to_output(compressor, bytes, flush, |deflated| {
        out(deflated);
        true
    });
    if status == TDEFLStatus::Okay && used == bytes.len() { Ok(()) } else { Err(DeflateError) }
}

impl Drop for Deflater {
    fn drop(&mut self) {
        if let Some(compressor) = &mut self.compressor {
            pool::wipe(compressor);
        }
    }
}

/// Without what was said.
impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").field("owner", &self.owner).finish_non_exhaustive()
    }
}
