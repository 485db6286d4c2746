//! Whole messages, lines and literals together, from a stream: for the few that deltapush reads itself.

use super::framer::{Announcement, Fragment, Framer, LineEnd};

/// A message went over the reader's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message is longer than {limit} bytes")]
pub struct ResponseTooLong {
    /// The limit, in bytes.
    pub limit: usize,
}

/// Gathers the responses of a server: each is a line, or several with the literals between them.
///
/// Status responses end with their line even if the text ends like an announcement (RFC 9051 section 7.1: resp-text has no
/// literals).
#[derive(Debug)]
pub struct ResponseReader {
    framer: Framer,
    held: Vec<u8>,
    limit: usize,
}

impl ResponseReader {
    /// A reader that refuses responses longer than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { framer: Framer::new(), held: Vec::new(), limit }
    }

    /// Reports if no response is incomplete.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The next complete response, with its line end, out of `input`, which moves on to what is left. `Ok(None)` when more
    /// input is needed.
    ///
    /// # Errors
    /// [`ResponseTooLong`] if the response exceeds the limit; the stream cannot be read on after that.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, ResponseTooLong> {
        while let Some((fragment, rest)) = self.framer.next(input) {
            *input = rest;
            if self.held.len().saturating_add(fragment.bytes().len()) > self.limit {
                return Err(ResponseTooLong { limit: self.limit });
            }
            self.held.extend_from_slice(fragment.bytes());
            match fragment {
                Fragment::Line {
                    end: Some(LineEnd::Literal(Announcement { size, .. })), ..
                } if super::response::may_have_literals(&self.held) => {
                    self.framer.begin_literal(size);
                }
                Fragment::Line { end: Some(_), .. } => {
                    return Ok(Some(std::mem::take(&mut self.held)));
                }
                Fragment::Line { end: None, .. } | Fragment::Literal { .. } => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chunks: &[&[u8]], limit: usize) -> Result<Vec<String>, ResponseTooLong> {
        let mut reader = ResponseReader::new(limit);
        let mut responses = vec![];
        for chunk in chunks {
            let mut input = *chunk;
            while let Some(response) = reader.next(&mut input)? {
                responses.push(String::from_utf8(response).unwrap());
            }
        }
        Ok(responses)
    }

    #[test]
    fn responses_come_whole_in_any_chunking() {
        let stream = b"* OK hello {5}\r\n* 1 FETCH (A {4}\r\na\r\nb B {0}\r\n)\r\na1 OK done\r\n";
        let expected = vec![
            "* OK hello {5}\r\n",
            "* 1 FETCH (A {4}\r\na\r\nb B {0}\r\n)\r\n",
            "a1 OK done\r\n",
        ];
        assert_eq!(read(&[stream], 100).unwrap(), expected);
        assert_eq!(read(&stream.chunks(1).collect::<Vec<_>>(), 100).unwrap(), expected);
    }

    #[test]
    fn response_over_the_limit_is_refused_before_it_is_held() {
        assert_eq!(read(&[b"* OK 0123456789\r\n"], 10), Err(ResponseTooLong { limit: 10 }));
        assert_eq!(read(&[b"* X {99}\r\n", &[b'a'; 99]], 50), Err(ResponseTooLong { limit: 50 }));
    }
}
