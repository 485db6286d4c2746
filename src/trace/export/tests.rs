//! The exported form of a trace.

use super::*;
use crate::trace::Mark;

fn said(session: u64, speaker: Speaker, parts: Vec<LinePart>) -> Record {
    let account =
        Some(AccountId::new("alice.smith@private.example.net", "imap.private.example.net:993"));
    let time = "2026-11-28T00:00:00Z".parse().unwrap();
    Record {
        time,
        session: Some(SessionId::Client(session)),
        account,
        entry: TraceEntry::Said { speaker, mark: Mark::Relayed, parts },
    }
}

fn text(text: &str) -> LinePart {
    LinePart::Text(text.as_bytes().to_vec())
}

fn exported(records: Vec<Record>) -> Vec<Record> {
    let mut export = Export::default();
    for record in records {
        export.take(record).unwrap();
    }
    export.finish()
}

/// The lines of an upstream, as a stranger sees them.
fn lines(lines: &[&str]) -> Vec<String> {
    let records = lines.iter().map(|line| said(1, Speaker::Upstream, vec![text(line)])).collect();
    exported(records)
        .into_iter()
        .map(|record| match record.entry {
            TraceEntry::Said { parts, .. } => match parts.as_slice() {
                [] => String::new(),
                [LinePart::Text(text)] => String::from_utf8(text.clone()).unwrap(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn protocol_stays_as_it_is() {
    let protocol = [
        "* OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR X-NEVER-HEARD AUTH=PLAIN] Dovecot (Debian) ready.",
        "A1 OK [READ-WRITE] Select completed (0.002 + 0.000 + 0.001 secs).",
        "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Forwarded)",
        "* OK [PERMANENTFLAGS (\\Answered \\*)] Flags permitted.",
        "* LIST (\\HasNoChildren \\Trash) \"/\" \"Trash\"",
        "* 12 FETCH (UID 7 FLAGS (\\Seen) INTERNALDATE \" 1-Nov-2026 10:00:00 +0100\" RFC822.SIZE 310 BODY[1.2.MIME] NIL)",
        "A2 UID FETCH 5:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (FROM AUTO-SUBMITTED)]<0.16384>)",
        "A3 GETMETADATA (DEPTH infinity) \"\" (/shared/vendor/deltachat/maxsmtprecipients /private/devicetoken)",
        "* BYE [UNAVAILABLE] Too many connections at the moment. Try again later.",
        "A4 SEARCH UID 1,3:5,9:* UNDELETED",
        "+ idling",
        "DONE",
        "* ID (\"name\" \"Dovecot\" \"version\" \"2.3.19.1\")",
    ];
    assert_eq!(lines(&protocol), protocol);
}

#[test]
fn names_are_replaced_and_the_same_name_by_the_same_word() {
    let shown = lines(&[
        "A1 OK Logged in as alice.smith@private.example.net from 203.0.113.9 (imap.private.example.net)",
        "* 1 FETCH (ENVELOPE (\"Sat, 28 Nov 2026 01:00:00 +0000\" \"Trash\" ((\"Bob B.\" NIL \"Bob\" \"Host.example.com\")) NIL NIL \
         ((\"Alice\" NIL \"alice.smith\" \"private.example.net\")) NIL NIL NIL \"<1@host.example.com>\") UID 3)",
        "* LIST () \".\" \"INBOX.Family \\\"Smith\\\"\"",
        "* LIST () \"/\" INBOX/Divorce",
        "A2 SEARCH FROM bob SUBJECT surprise HEADER MESSAGE-ID <1@host.example.com>",
        "A3 SELECT Divorce",
        "* 1 FETCH (BODYSTRUCTURE (\"text\" \"plain\" (\"charset\" \"utf-8\" \"name\" \"payslip.pdf\") NIL NIL \"7bit\" 1 1))",
        "* NO 2001:db8::7 mailbox of Bob is locked by alice.smith's phone",
        "* BYE imap.private.example.net:993 closes",
        "* STATUS \"trash \u{e9}\" (MESSAGES 1)",
    ]);
    assert_eq!(
        shown,
        [
            "A1 OK Logged in as user1@host1.example from host3.example (host2.example)",
            "* 1 FETCH (ENVELOPE (\"Sat, 28 Nov 2026 01:00:00 +0000\" \"word1\" ((\"word2\" NIL \"user2\" \"host4.example\")) NIL NIL \
             ((\"word3\" NIL \"user1\" \"host1.example\")) NIL NIL NIL \"<user3@host4.example>\") UID 3)",
            "* LIST () \".\" \"INBOX.word4\\\"\"",
            "* LIST () \"/\" INBOX/word5",
            "A2 SEARCH FROM user2 SUBJECT word6 HEADER MESSAGE-ID <user3@host4.example>",
            "A3 SELECT word5",
            "* 1 FETCH (BODYSTRUCTURE (\"text\" \"plain\" (\"charset\" \"utf-8\" \"name\" \"host5.example\") NIL NIL \"7bit\" 1 1))",
            "* NO host6.example mailbox of user2 is locked by user1's word7",
            "* BYE host2.example:993 closes",
            "* STATUS \"word8é\" (MESSAGES 1)",
        ]
    );
}

#[test]
fn headers_are_shown_without_names_and_messages_not_at_all() {
    let header = "From: Alice Smith <alice.smith@private.example.net>\r\nSubject: My secret\r\n plan\r\nX-Family: Smith\r\nAuto-Submitted: auto-replied\r\n\r\n";
    let literal = |bytes: &str| LinePart::Literal {
        size: bytes.len() as u64,
        shown: bytes.as_bytes().to_vec(),
    };
    let shown = exported(vec![
        said(
            1,
            Speaker::Upstream,
            vec![text(&format!("* 1 FETCH (BODY[HEADER] {{{}}}", header.len()))],
        ),
        said(2, Speaker::Upstream, vec![text("* 1 EXISTS")]),
        said(1, Speaker::Upstream, vec![literal(header), text(" BODY[TEXT] {8}")]),
        said(1, Speaker::Upstream, vec![literal("Dear Bob"), text(")")]),
        said(1, Speaker::Client, vec![text("A1 LOGIN"), LinePart::Masked(31)]),
    ]);
    let TraceEntry::Said { parts, .. } = &shown[2].entry else { panic!("{shown:?}") };
    let LinePart::Literal { size, shown: header } = &parts[0] else { panic!("{parts:?}") };
    assert_eq!(
        String::from_utf8_lossy(header),
        "From: word1 word2 <user1@host1.example>\r\nSubject: word3 word4\r\n word5\r\nX-word6: word2\r\nAuto-Submitted: auto-replied\r\n\r\n"
    );
    let TraceEntry::Said { parts, .. } = &shown[0].entry else { panic!("{shown:?}") };
    assert_eq!(parts, &[text(&format!("* 1 FETCH (BODY[HEADER] {{{size}}}"))]);
    let TraceEntry::Said { parts, .. } = &shown[3].entry else { panic!("{shown:?}") };
    assert_eq!(parts, &[LinePart::Literal { size: 8, shown: vec![] }, text(")")]);
    let TraceEntry::Said { parts, .. } = &shown[4].entry else { panic!("{shown:?}") };
    assert_eq!(
        parts,
        &[text("A1 LOGIN"), LinePart::Masked(MASKED)],
        "nobody needs to know how long a password is"
    );
}

mod any {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Wherever a name stands, it is gone.
        #[test]
        fn name_is_nowhere(
            pieces in prop::collection::vec("[ ()\"\\[\\]<>{}a-z0-9@./:,=\\\\-]{0,6}|ENVELOPE \\(|\\* OK |\\* 1 FETCH ", 1..8),
            form in 0..5usize,
        ) {
            let name = ["Zxqvkjwy", "zxqvkjwy@example.org", "\"zxqvkjwy\"", "imap.zxqvkjwy.org", "INBOX/Zxqvkjwy"][form];
            let line = pieces.join(&format!(" {name} "));
            let records = vec![
                said(1, Speaker::Upstream, vec![text(&format!("A1 OK {line}"))]),
                Record { entry: TraceEntry::Note(line), ..said(1, Speaker::Client, vec![]) },
            ];
            for record in exported(records) {
                prop_assert!(!record.to_json().to_lowercase().contains("zxqvkjwy"), "{}", record.to_json());
            }
        }
    }
}
