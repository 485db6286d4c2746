//! The request of a command: a line of JSON, and the header of a message where the line announces one.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use super::super::question::ControlQuestion;
use super::MAX_LINE;

/// The maximum length of a message's header, in bytes.
pub const MAX_HEADER: usize = 64 * 1024;

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Request {
    pub(in super::super) question: ControlQuestion,
    /// The header of a message; empty for most questions.
    pub(in super::super) header: Vec<u8>,
}

impl Request {
    /// Reads a request. `None` if it is none that this version knows.
    ///
    /// # Errors
    /// If the command hangs up before its end.
    pub(super) async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let mut line = Vec::new();
        (&mut *stream).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        let Ok(question) = serde_json::from_slice::<ControlQuestion>(&line) else {
            return Ok(None);
        };
        let length = question.header_bytes();
        if length > MAX_HEADER {
            return Ok(None);
        }
        let mut header = vec![0; length];
        stream.read_exact(&mut header).await?;
        Ok(Some(Self { question, header }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::question::AskedNews;
    use super::*;

    fn news(header_bytes: usize) -> Vec<u8> {
        let question = ControlQuestion::News(AskedNews { header_bytes, ..AskedNews::of("alice") });
        let mut line = serde_json::to_vec(&question).unwrap();
        line.push(b'\n');
        line
    }

    async fn read(mut bytes: &[u8]) -> io::Result<Option<Request>> {
        Request::read(&mut bytes).await
    }

    #[tokio::test]
    async fn header_follows_the_line() {
        let read = read(&[&news(6)[..], b"A: b\n\xff..."].concat()).await.unwrap().unwrap();
        assert_eq!(read.header, b"A: b\n\xff");
    }

    #[tokio::test]
    async fn nothing_is_read_without_bound() {
        assert_eq!(read(&news(MAX_HEADER + 1)).await.unwrap(), None);
        assert_eq!(read(&vec![b' '; 1 << 20]).await.unwrap(), None);
        let short = read(&news(6)).await.unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        let longest = [news(MAX_HEADER), vec![b'a'; MAX_HEADER]].concat();
        assert_eq!(read(&longest).await.unwrap().unwrap().header.len(), MAX_HEADER);
    }
}
