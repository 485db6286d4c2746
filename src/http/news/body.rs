//! Reads the body of a request, with limits on its length, its time, and on large ones at once.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// The longest body that needs no permit, in bytes: more than any but mox's, which has the text of the message in it.
const SMALL: usize = 64 * 1024;

/// The longest body. mox sends the first MiB of the text, and of its form in HTML, and JSON escapes some characters.
const LONGEST: usize = 4 * 1024 * 1024;

/// Large bodies at once: they bound the memory of all.
const LARGE_AT_ONCE: usize = 2;

/// Time limit for a body to arrive.
const TIME: Duration = Duration::from_secs(10);

/// A reader of bodies.
#[derive(Debug)]
pub(super) struct BodyReader {
    large: Semaphore,
}

/// A body, and the permit for a large one.
#[derive(Debug)]
pub(super) struct ReadBody<'a> {
    pub(super) bytes: Vec<u8>,
    _permit: Option<SemaphorePermit<'a>>,
}

/// Failure to read a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadProblem {
    #[error("the body is longer than 4 MiB")]
    TooLong,
    #[error("the body did not arrive within {}s", TIME.as_secs())]
    TooSlow,
    #[error("the body ended early")]
    Broken,
}

impl Default for BodyReader {
    fn default() -> Self {
        Self { large: Semaphore::new(LARGE_AT_ONCE) }
    }
}

impl BodyReader {
    /// Reads a whole body.
    pub(super) async fn read<B>(&self, body: B) -> Result<ReadBody<'_>, ReadProblem>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let declared = body.size_hint().lower();
        if usize::try_from(declared).is_ok_and(|length| length > LONGEST) {
            return Err(ReadProblem::TooLong);
        }
        timeout(TIME, self.collect(body)).await.unwrap_or(Err(ReadProblem::TooSlow))
    }

    async fn collect<B>(&self, mut body: B) -> Result<ReadBody<'_>, ReadProblem>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (mut bytes, mut permit) = (Vec::new(), None);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ReadProblem::Broken)?;
            let Ok(data) = frame.into_data() else { continue };
            let length = bytes.len().saturating_add(data.len());
            if length > LONGEST {
                return Err(ReadProblem::TooLong);
            }
            if length > SMALL && permit.is_none() {
                // The semaphore is never closed.
                permit = self.large.acquire().await.ok();
            }
            bytes.extend_from_slice(&data);
        }
        Ok(ReadBody { bytes, _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    fn body(length: usize) -> Full<Bytes> {
        Full::new(vec![b'x'; length].into())
    }

    #[tokio::test(start_paused = true)]
    async fn two_large_bodies_are_read_at_once_and_small_ones_always() {
        let reader = BodyReader::default();
        let first = reader.read(body(SMALL + 1)).await.unwrap();
        let _second = reader.read(body(LONGEST)).await.unwrap();
        assert_eq!(reader.read(body(SMALL + 1)).await.unwrap_err(), ReadProblem::TooSlow);
        assert_eq!(reader.read(body(SMALL)).await.unwrap().bytes.len(), SMALL);
        drop(first);
        assert_eq!(reader.read(body(SMALL + 1)).await.unwrap().bytes.len(), SMALL + 1);
        assert_eq!(reader.read(body(LONGEST + 1)).await.unwrap_err(), ReadProblem::TooLong);
    }

    #[tokio::test(start_paused = true)]
    async fn body_of_unknown_length_is_bounded_in_length_and_time() {
        let reader = BodyReader::default();
        let chunk = || Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; 1000])));
        let endless = StreamBody::new(stream::repeat_with(chunk));
        assert_eq!(reader.read(endless).await.unwrap_err(), ReadProblem::TooLong);
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        assert_eq!(reader.read(silent).await.unwrap_err(), ReadProblem::TooSlow);
        let broken = stream::iter([chunk().map_err(|_| ()), Err(())]);
        assert_eq!(reader.read(StreamBody::new(broken)).await.unwrap_err(), ReadProblem::Broken);
    }
}
