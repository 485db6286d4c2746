//! The last bytes of one direction, which inflating and compressing refer back to: stored as they are, or compressed
//! themselves.

use std::sync::{Mutex, PoisonError};

use miniz_oxide::DataFormat;
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, TDEFLStatus, compress_to_output};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::pool;

/// The client sent no deflate stream, or data behind its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client sent data that is not compressed correctly (RFC 4978)")]
pub struct InflateError;

/// Smallest window that is worth folding.
const MIN_FOLDED: usize = 512;

/// The level of zlib's: commands are mostly words that come again, which the lowest finds.
const LEVEL: u8 = 1;

/// One for the process, a third of a megabyte: those of the pool know what sessions said last, and must go on doing so.
static COMPRESSOR: Mutex<Option<Box<CompressorOxide>>> = Mutex::new(None);

/// The last bytes that were said.
#[derive(Default)]
pub(super) struct DeflateWindow {
    /// Their number.
    len: usize,
    bytes: Vec<u8>,
    form: Form,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Form {
    #[default]
    Plain,
    Folded,
    /// Folded it would take no less.
    Unfoldable,
}

impl DeflateWindow {
    /// The number of bytes that it represents.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The memory that it takes.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Writes it to the beginning of `work`.
    pub(super) fn unfold_into(&self, work: &mut [u8]) -> Result<(), InflateError> {
        let work = work.get_mut(..self.len).ok_or(InflateError)?;
        if self.form != Form::Folded {
            work.copy_from_slice(&self.bytes);
            return Ok(());
        }
        // Boxed: 10 KiB are much for a stack.
        let mut decoder = Box::<DecompressorOxide>::default();
        let (status, _, written) = decompress(
            &mut decoder,
            &self.bytes,
            work,
            0,
            TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
        );
        if status == TINFLStatus::Done && written == self.len { Ok(()) } else { Err(InflateError) }
    }

    /// Keeps these bytes from now on.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        if bytes.len() == self.bytes.len() {
            self.bytes.copy_from_slice(bytes);
        } else {
            // A new one, of exactly this size.
            self.bytes = bytes.to_vec();
        }
        self.len = bytes.len();
        self.form = Form::Plain;
    }

    /// Keeps the last `limit` bytes of these and those that follow them.
    pub(super) fn push(&mut self, bytes: &[u8], limit: usize) -> Result<(), InflateError> {
        if self.form == Form::Folded || self.bytes.capacity() < limit {
            // A new one, as in `keep`.
            let mut plain = vec![0; limit.max(self.len)];
            self.unfold_into(&mut plain)?;
            plain.truncate(self.len);
            self.bytes = plain;
        }
        let bytes = bytes.get(bytes.len().saturating_sub(limit)..).unwrap_or_default();
        let surplus = self.len.saturating_add(bytes.len()).saturating_sub(limit);
        self.bytes.drain(..surplus);
        self.bytes.extend_from_slice(bytes);
        self.len = self.bytes.len();
        self.form = Form::Plain;
        Ok(())
    }

    /// Reports if folding may make it smaller.
    pub(super) fn can_fold(&self) -> bool {
        self.form == Form::Plain && self.len >= MIN_FOLDED
    }

    /// Takes less from now on, if it can.
    pub(super) fn fold(&mut self) {
        if !self.can_fold() {
            return;
        }
        self.form = Form::Unfoldable;
        if let Some(folded) = folded(&self.bytes) {
            self.bytes = folded;
            self.form = Form::Folded;
        }
    }
}

/// `bytes` compressed; `None` if that saves nothing to speak of.
fn folded(bytes: &[u8]) -> Option<Vec<u8>> {
    let limit = bytes.len().saturating_mul(3).div_euclid(4);
    let mut folded = Vec::with_capacity(limit);
    let mut compressor = COMPRESSOR.lock().unwrap_or_else(PoisonError::into_inner);
    let compressor = compressor.get_or_insert_with(|| {
        let mut new = Box::<CompressorOxide>::default();
        new.set_format_and_level(DataFormat::Raw, LEVEL);
        new
    });
    let (status, _) = compress_to_output(compressor, bytes, TDEFLFlush::Finish, |piece| {
        let fits = folded.len().saturating_add(piece.len()) <= limit;
        if fits {
            folded.extend_from_slice(piece);
        }
        fits
    });
    pool::wipe(compressor);
    (status == TDEFLStatus::Done).then(|| {
        // Exactly as much as it takes.
        folded.to_vec()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacted_window_is_restored() {
        let commands: Vec<u8> = (0..200)
            .flat_map(|number| {
                format!("a{number} UID STORE {number} +FLAGS (\\Seen)\r\n").into_bytes()
            })
            .collect();
        let mut window = DeflateWindow::default();
        for bytes in [&commands[..600], &commands, &commands[7..607]] {
            window.keep(bytes);
            assert!(window.can_fold());
            window.fold();
            assert!(
                window.len() == bytes.len() && window.held() < bytes.len() / 3,
                "{}",
                window.held()
            );
            assert!(!window.can_fold());
            let mut work = vec![1; 10_000];
            for _ in 0..2 {
                window.unfold_into(&mut work).unwrap();
                assert!(
                    work[..bytes.len()] == *bytes
                        && work[bytes.len()..].iter().all(|byte| *byte == 1)
                );
            }
        }
        window.unfold_into(&mut [0; 599]).unwrap_err();
    }

    #[test]
    fn pushed_bytes_are_kept_up_to_the_limit() {
        let text: Vec<u8> =
            (0..400).flat_map(|number| format!("* {number} EXISTS\r\n").into_bytes()).collect();
        let mut window = DeflateWindow::default();
        for (number, part) in text.chunks(70).enumerate() {
            window.push(part, 1024).unwrap();
            if number % 3 == 0 {
                window.fold();
            }
            let said = &text[..(number * 70 + part.len())];
            let kept = &said[said.len().saturating_sub(1024)..];
            let mut work = [0; 1024];
            window.unfold_into(&mut work).unwrap();
            assert!(
                window.len() == kept.len() && work[..kept.len()] == *kept && window.held() <= 1024
            );
        }
        window.push(&text, 1024).unwrap();
        let mut work = [0; 1024];
        window.unfold_into(&mut work).unwrap();
        assert!(work == text[text.len() - 1024..]);
    }

    #[test]
    fn incompressible_or_small_data_is_stored_as_it_is() {
        let random: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(32 * 1024).collect();
        let mut window = DeflateWindow::default();
        for bytes in [random.as_slice(), &[b'a'; MIN_FOLDED - 1]] {
            window.keep(bytes);
            window.fold();
            assert_eq!(window.held(), bytes.len());
            assert!(!window.can_fold(), "it is not tried again");
            let mut work = vec![0; bytes.len()];
            window.unfold_into(&mut work).unwrap();
            assert!(work == bytes);
        }
    }
}
