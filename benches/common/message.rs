//! A message of any size that is never in memory: its bytes follow from their place in it, and are checked by it.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// A line of base64 as mail has them. Its length is no divisor of any buffer's.
const LINE: &[u8; 78] =
    b"RGVsdGFwdXNoIHBhc3NlcyBvbiB3aGF0IGl0IG5lZWQgbm90IGhvbGQsIGxpbmUgYnkgbGluZS4h\r\n";

/// Time for which a slow reader waits before it begins: long enough to write all to somebody who would hold it.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// Bytes that are written at once.
const CHUNK: usize = 840 * LINE.len();

/// Some lines one after the other: one more than is written at once, to start anywhere in a line.
static LINES: LazyLock<Vec<u8>> = LazyLock::new(|| LINE.repeat(CHUNK / LINE.len() + 1));

/// Writes the first `size` bytes of a message, without a flush.
pub(crate) async fn write(size: u64, out: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
    let mut left = size;
    while left > 0 {
        let chunk = LINES.get(..CHUNK.min(usize::try_from(left)?)).unwrap_or_default();
        out.write_all(chunk).await?;
        left -= u64::try_from(chunk.len())?;
    }
    Ok(())
}

/// Reads `size` bytes of a message; fails if one is not as it was written.
pub(crate) async fn read(size: u64, input: &mut (impl AsyncBufRead + Unpin)) -> Result<()> {
    let mut done = 0;
    while done < size {
        let got = input.fill_buf().await?;
        ensure!(!got.is_empty(), "the message ends after {done} bytes");
        let start = usize::try_from(done)? % LINE.len();
        let len = got.len().min(CHUNK).min(usize::try_from(size - done)?);
        let expected = LINES.get(start..start + len);
        ensure!(got.get(..len) == expected, "the message is altered after {done} bytes");
        input.consume(len);
        done += u64::try_from(len)?;
    }
    Ok(())
}
