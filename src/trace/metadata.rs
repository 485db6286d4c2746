//! Metadata (RFC 5464) in a trace: of its values some are secrets.

use super::{Mark, Piece, Speaker, Transcript};
use crate::parser::metadata::{Pair, Values};
use crate::parser::quote::is_quotable;

/// Entries of the server (mailbox `""`) whose values are the same for everybody who uses it. All other values are somebody's own, as
/// notes and tokens are, or secret, as the password of a TURN server is.
const SHOWN_ENTRIES: [&[u8]; 5] = [
    b"/shared/comment",
    b"/shared/admin",
    b"/shared/vendor/deltachat/irohrelay",
    b"/shared/vendor/deltachat/maxsmtprecipients",
    b"/shared/vendor/deltachat/appversions",
];

/// Shows a whole response.
pub(super) fn show_values(
    transcript: &mut (impl Transcript + ?Sized),
    speaker: Speaker,
    mark: Mark,
    values: &Values<'_>,
) {
    transcript.piece(speaker, mark, Piece::Text(b"* METADATA"));
    show_pairs(
        transcript,
        speaker,
        mark,
        &values.mailbox,
        &values.entries,
        values.mailbox.is_empty(),
    );
    transcript.piece(speaker, mark, Piece::Text(b"\r\n"));
}

/// Shows mailbox and entries of a SETMETADATA, without the values.
pub fn show_metadata(
    transcript: &mut (impl Transcript + ?Sized),
    speaker: Speaker,
    mark: Mark,
    mailbox: &[u8],
    pairs: &[Pair<'_>],
) {
    show_pairs(transcript, speaker, mark, mailbox, pairs, false);
}

/// Shows a mailbox and its entries as they stand in SETMETADATA and in a response; of the values those that are the server's.
fn show_pairs(
    transcript: &mut (impl Transcript + ?Sized),
    speaker: Speaker,
    mark: Mark,
    mailbox: &[u8],
    pairs: &[Pair<'_>],
    is_servers: bool,
) {
    let mut show = |piece| transcript.piece(speaker, mark, piece);
    for text in [&b" \""[..], mailbox, b"\" ("] {
        show(Piece::Text(text));
    }
    for (index, (entry, value)) in pairs.iter().enumerate() {
        show(Piece::Text(if index > 0 { b" " } else { b"" }));
        show(Piece::Text(entry));
        show(Piece::Text(b" "));
        match value {
            None => show(Piece::Text(b"NIL")),
            Some(value)
                if !is_servers
                    || !SHOWN_ENTRIES.iter().any(|shown| shown.eq_ignore_ascii_case(entry)) =>
            {
                show(Piece::Masked(value.len()));
            }
            Some(value) if is_quotable(value) => {
                for text in [&b"\""[..], &**value, b"\""] {
                    show(Piece::Text(text));
                }
            }
            // It may have a line end in it, which is none of the response's.
            Some(value) => show(Piece::Literal(value)),
        }
    }
    show(Piece::Text(b")"));
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shown;
    use super::*;

    #[test]
    fn tokens_are_masked_whoever_says_them_unasked() {
        for (response, shown) in [
            ("* METADATA \"\" (/shared/comment \"hi\")\r\n", "\"\" (/shared/comment \"hi\")"),
            (
                "* METADATA INBOX (/private/devicetoken \"sesame\")\r\n",
                "(/private/devicetoken <6 bytes masked>)",
            ),
            (
                "* METADATA INBOX (/private/DeviceToken {6}\r\nsesame)\r\n",
                "(/private/DeviceToken <6 bytes masked>)",
            ),
            (
                "* METADATA INBOX (/shared/comment \"sesame\")\r\n",
                "(/shared/comment <6 bytes masked>)",
            ),
            (
                "* METADATA \"\" (/private/comment \"sesame\")\r\n",
                "(/private/comment <6 bytes masked>)",
            ),
            ("* METADATA INBOX (/private/devicetoken sesame)\r\n", " <46 bytes masked>"),
        ] {
            let (trace, mut recorder) = Shown::begin();
            let transcript = recorder.transcript().unwrap();
            transcript.response(Speaker::Upstream, Mark::Kept, response.as_bytes());
            drop(recorder);
            let text = trace.text();
            assert!(text.contains(shown) && !text.contains("sesame"), "{text}");
        }
    }
}
