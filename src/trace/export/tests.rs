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
        "A5 SEARCH SINCE 17-Nov-2026",
        "* 12 FETCH (X-GM-MSGID 1278455344230334865 MODSEQ (12121231000))",
        "* OK [UIDVALIDITY 1795991234] UIDs valid",
        "* OK [HIGHESTMODSEQ 12121231000] Highest",
        "* STATUS INBOX (MESSAGES 3 UIDNEXT 1234567)",
        "A6 UID COPY 1234567 INBOX",
        "A7 UID FETCH 1234567:* (BODY.PEEK[TEXT])",
        "* CAPABILITY IMAP4rev1 X-NEVER-HEARD",
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
fn word_capability_in_a_sentence_uncovers_no_name() {
    let words = "unknown CAPABILITY zxqvkjwy, and 203-0-113-3";
    let mut note = said(1, Speaker::Client, vec![]);
    note.entry = TraceEntry::Note(words.into());
    let note = exported(vec![note]).remove(0).to_json();
    let shown = lines(&[
        &format!("A1 BAD {words}"),
        &format!("* NO [CANNOT] {words}"),
        &format!("A2 OK [{words}"),
        "* CAPABILITY IMAP4rev1 XZXQVKJWY1701234567",
    ]);
    for line in shown.iter().chain([&note]) {
        let line = line.to_lowercase();
        assert!(!line.contains("zxqvkjwy") && !line.contains("203-0"), "{line}");
    }
}

#[test]
fn telephone_number_is_no_number_of_the_protocol() {
    let number = "4915123456789";
    let mut shown = lines(&[
        "A1 UID SEARCH OR FROM 4915123456789 SUBJECT 4915123456789",
        "A2 SEARCH HEADER Message-ID 4915123456789 TEXT 01512345678",
        "A3 STATUS 4915123456789 (MESSAGES)",
        "A4 COPY 5 4915123456789",
        "* LIST () \"/\" 4915123456789",
        "* STATUS 4915123456789 (MESSAGES 1)",
        "A5 OK [UIDNEXT 7] customer 4915123456789, or 0151.2345.6789",
        "* BYE [4915123456789]",
        "+ 4915123456789",
    ]);
    let header =
        format!("Subject: 0151 23456789, {number}\r\n 0151 2345 6789\r\n\r\n").into_bytes();
    let mut note = said(1, Speaker::Client, vec![]);
    note.entry = TraceEntry::Note(format!("the server said: {number} is locked"));
    let header = vec![LinePart::Literal { size: header.len() as u64, shown: header }];
    shown.extend(
        exported(vec![note, said(1, Speaker::Upstream, header)]).iter().map(Record::to_json),
    );
    for line in shown {
        let line = line.split_once("Z\"").map_or(&*line, |(_, said)| said);
        let is_gone = [number, "0151", "2345"].iter().all(|trace| !line.contains(trace));
        assert!(is_gone, "{line}");
    }
}

#[test]
fn star_of_a_url_is_no_name() {
    let shown = lines(&["* NO [REFERRAL imap://bob;AUTH=*@imap.example.org/] moved", "* 5 EXISTS"]);
    assert_eq!(shown[1], "* 5 EXISTS", "{shown:?}");
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

#[test]
fn same_address_is_the_same_host_in_every_notation() {
    let mut note = said(1, Speaker::Client, vec![]);
    note.entry = TraceEntry::Note(
        "a client connects from [::ffff:203.0.113.3]:36870 to [::]:993, then from 203.0.113.3:5"
            .into(),
    );
    let TraceEntry::Note(shown) = exported(vec![note]).remove(0).entry else { panic!() };
    let (_, rest) = shown.split_once('[').unwrap();
    let (host, rest) = rest.split_once(']').unwrap();
    assert!(
        rest.starts_with(":36870") && rest.ends_with(&format!("then from {host}:5")),
        "{shown}"
    );
}

mod any {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const NOTATIONS: usize = 17;

    /// The address or the number in one of the ways in which people and programs write it.
    fn notation(form: usize, four: Ipv4Addr, [a, b, c, d]: [u16; 4], number: &str) -> String {
        let mapped = four.to_ipv6_mapped();
        let six = Ipv6Addr::new(a, b, 0, 0, 0, 0, c, d);
        let [one, two, three, last] = four.octets();
        match form {
            0 => four.to_string(),
            1 => format!("{four}:993"),
            2 => format!("{mapped}"),
            3 => format!("[{mapped}]:36870"),
            4 => format!("::ffff:{one:02x}{two:02x}:{three:02x}{last:02x}"),
            5 => format!("{one}-{two}-{three}-{last}"),
            6 => format!("{one}-{two}-{three}-{last}.dsl.example.net"),
            7 => format!("{last}.{three}.{two}.{one}.in-addr.arpa"),
            8 => format!("{four}/24"),
            9 => format!("ip={four}"),
            10 => format!("{six}"),
            11 => format!("[{six}]:143"),
            12 => format!("[IPv6:{}]", six.to_string().to_uppercase()),
            13 => format!("{six}%eth0"),
            14 => number.to_owned(),
            15 => format!("+{number}@example.net"),
            _ => {
                let (country, rest) = number.split_at(3);
                format!("+{country}-{rest}")
            }
        }
    }

    /// Remains that an incomplete replacement would leave.
    fn traces(four: Ipv4Addr, six: [u16; 4], number: &str) -> [String; 7] {
        let [one, two, three, last] = four.octets();
        [
            format!("{one}.{two}.{three}.{last}"),
            format!("{one}-{two}-{three}-{last}"),
            format!("{last}.{three}.{two}.{one}"),
            format!("{one:02x}{two:02x}:{three:02x}{last:02x}"),
            format!("{three}.{last}"),
            format!("{:x}:{:x}", six[2], six[3]),
            number.chars().skip(3).take(6).collect(),
        ]
    }

    proptest! {
        /// Wherever a name stands, it is gone.
        #[test]
        fn name_is_nowhere(
            pieces in prop::collection::vec("[ ()\"\\[\\]<>{}a-z0-9@./:,=\\\\-]{0,6}|ENVELOPE \\(|\\* OK |\\* 1 FETCH |capability ", 1..8),
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

        /// An address is gone in whatever notation, wherever it stands, and so is a telephone number.
        #[test]
        fn address_and_number_are_nowhere(
            pieces in prop::collection::vec("[ ()\"\\[\\]<>{},;=']{0,3}|ENVELOPE \\(|\\* OK |[a-z]{1,4} |Date: ", 2..8),
            four in (11..=126_u8, 11..=255_u8, 100..=255_u8, 101..=255_u8),
            six in (0x2001..=0x2fff_u16, 0x1111..=0xffff_u16, 0x1111..=0xffff_u16, 0x1111..=0xffff_u16),
            number in "[1-9]{11}",
            form in 0..NOTATIONS,
            as_header: bool,
        ) {
            let four = Ipv4Addr::from(<[u8; 4]>::from(four));
            let six = <[u16; 4]>::from(six);
            let shown = notation(form, four, six, &number);
            let line = pieces.join(&format!(" {shown} "));
            let mut records = vec![
                said(1, Speaker::Upstream, vec![text(&format!("A1 OK {line}"))]),
                said(2, Speaker::Client, vec![text(&line)]),
                Record { entry: TraceEntry::Note(line.clone()), ..said(1, Speaker::Client, vec![]) },
            ];
            if as_header {
                let header = format!("Date: {line}\r\nMIME-Version: {shown}\r\nX-{number}: {line}\r\n\r\n").into_bytes();
                records.push(said(3, Speaker::Upstream, vec![LinePart::Literal { size: header.len() as u64, shown: header }]));
            }
            for record in &mut records {
                record.account = Some(AccountId::new(&number, "imap.example.net:993"));
            }
            for record in exported(records) {
                let json = record.to_json().to_lowercase();
                // The time of a record is no part of what was said.
                let json = json.split_once("z\"").unwrap().1;
                for trace in traces(four, six, &number) {
                    prop_assert!(!json.contains(&trace), "{trace} of {shown} in {json}");
                }
            }
        }
    }
}
