//! Text as editors, shells and web servers write it: with a byte order mark, or in UTF-16 (Windows PowerShell's `>`).

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))] // bytes from outside

use std::borrow::Cow;

/// The byte order mark of UTF-8.
pub(crate) const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF16_LITTLE_ENDIAN_MARK: &[u8] = b"\xff\xfe";
const UTF16_BIG_ENDIAN_MARK: &[u8] = b"\xfe\xff";

/// Removes a byte order mark, and converts UTF-16 that has one to UTF-8. Other bytes are returned as they are, valid UTF-8 or not.
pub(crate) fn utf8(bytes: &[u8]) -> Cow<'_, [u8]> {
    if let Some(rest) = bytes.strip_prefix(UTF8_MARK) {
        return rest.into();
    }
    let from_utf16 = |rest: &[u8], unit| utf16(rest, unit).into_bytes().into();
    match (bytes.strip_prefix(UTF16_LITTLE_ENDIAN_MARK), bytes.strip_prefix(UTF16_BIG_ENDIAN_MARK))
    {
        (Some(rest), _) => from_utf16(rest, u16::from_le_bytes),
        (_, Some(rest)) => from_utf16(rest, u16::from_be_bytes),
        _ => bytes.into(),
    }
}

/// The text in UTF-16 code units that `unit` makes of two bytes each. Replaces what is not valid; ignores an odd last byte.
pub(crate) fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    // Sized at once: a string that grows would leave copies of a key behind.
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    let units = bytes.chunks_exact(2).filter_map(|pair| <[u8; 2]>::try_from(pair).ok()).map(unit);
    text.extend(char::decode_utf16(units).map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_removed_and_utf16_becomes_utf8() {
        let text = "Länder 🙂\r\n";
        let with_mark = |mark: &[u8], rest: Vec<u8>| [mark, &rest].concat();
        let little = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [
            text.into(),
            with_mark(UTF8_MARK, text.into()),
            with_mark(UTF16_LITTLE_ENDIAN_MARK, little),
            with_mark(UTF16_BIG_ENDIAN_MARK, big),
        ] {
            assert_eq!(*utf8(&bytes), *text.as_bytes(), "{bytes:x?}");
        }
    }

    #[test]
    fn other_bytes_stay_as_they_are() {
        for bytes in [&b""[..], b"L\xe4nder", b"\xef\xbb", b"a\xef\xbb\xbf", b"\0\xff\xfe"] {
            assert_eq!(*utf8(bytes), *bytes);
        }
        assert_eq!(*utf8(b"\xff\xfea\0\x00\xd8b\0c"), *"a\u{fffd}b".as_bytes());
    }
}
