//! Strings as IMAP writes them (RFC 9051 section 4.3).

/// Reports if `value` can be written as a quoted string: no CR, LF or NUL, and ASCII only, since 8-bit quoted strings need
/// `UTF8=ACCEPT` (RFC 9755).
#[must_use]
pub fn is_quotable(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, 1..=9 | 11..=12 | 14..=127))
}

/// Appends `value` as a quoted string. The caller has made sure that it [`is_quotable`].
pub fn push_quoted(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    for &byte in value {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Appends `value` as a server may write it: quoted where that is possible, otherwise as a literal.
pub fn push_server_string(out: &mut Vec<u8>, value: &[u8]) {
    if is_quotable(value) {
        return push_quoted(out, value);
    }
    out.extend_from_slice(format!("{{{}}}\r\n", value.len()).as_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_where_possible() {
        let server_string = |value: &[u8]| {
            let mut out = vec![];
            push_server_string(&mut out, value);
            out
        };
        assert_eq!(server_string(b""), br#""""#);
        assert_eq!(server_string(br#"p w"\x"#), br#""p w\"\\x""#);
        assert_eq!(server_string("grün".as_bytes()), "{5}\r\ngrün".as_bytes());
        assert_eq!(server_string(b"a\r\nb"), b"{4}\r\na\r\nb");
        assert!(!is_quotable(b"\0"));
    }
}
