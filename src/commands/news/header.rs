//! The header of the message on standard input.

use std::io::{self, BufRead, Read};

use crate::admin::control::MAX_HEADER;

/// Reads up to the empty line after the header. Empty if there is no header, or if it is longer than [`MAX_HEADER`]: half a header
/// would mislead the push filter, and without one the message is pushed.
///
/// # Errors
/// If the input cannot be read.
pub(super) fn read(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    let mut limited = input.take(MAX_HEADER as u64 + 1);
    loop {
        let start = header.len();
        limited.read_until(b'\n', &mut header)?;
        match header.get(start..) {
            // The envelope of mbox, as procmail and others hand messages over.
            Some(line) if start == 0 && line.starts_with(b"From ") => header.clear(),
            Some(b"" | b"\n" | b"\r\n") => {
                header.truncate(start);
                break;
            }
            _ => {}
        }
    }
    if header.len() > MAX_HEADER {
        header.clear();
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Vec<u8> {
        super::read(&mut &*input).unwrap()
    }

    #[test]
    fn header_ends_at_the_empty_line() {
        assert_eq!(read(b"From: a\nTo: b\n\nbody\n\n"), b"From: a\nTo: b\n");
        assert_eq!(read(b"From: a\r\n\tb\r\n\r\nbody"), b"From: a\r\n\tb\r\n");
        assert_eq!(read(b"From: a\nTo: b"), b"From: a\nTo: b");
        assert_eq!(read(b""), b"");
        assert_eq!(read(b"\nFrom: a\n"), b"");
    }

    #[test]
    fn envelope_of_mbox_is_no_header() {
        assert_eq!(read(b"From a@b Mon Nov 30\nFrom: a\n\n"), b"From: a\n");
        assert_eq!(read(b"From a@b Mon Nov 30\n"), b"");
    }

    #[test]
    fn header_that_is_too_long_is_none() {
        let longest = [b"A: ".to_vec(), vec![b'b'; MAX_HEADER - 4], b"\n\nbody".to_vec()].concat();
        assert_eq!(read(&longest).len(), MAX_HEADER);
        let longer = [b"A: ".to_vec(), vec![b'b'; MAX_HEADER], b"\n\nbody".to_vec()].concat();
        assert_eq!(read(&longer), b"");
    }

    #[test]
    fn endless_input_is_not_read_to_its_end() {
        let mut input = io::BufReader::new(io::repeat(b'a'));
        assert_eq!(super::read(&mut input).unwrap(), b"");
    }
}
