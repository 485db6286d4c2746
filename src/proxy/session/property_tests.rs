//! Properties of any dialogue in any chunking.

use proptest::prelude::*;

use super::testing::{METADATA, PLAIN, session};
use crate::proxy::session_log::LoggedSession;

/// A line in which a command that must not cross may stand, in a spelling that some server may read.
fn mangled() -> impl Strategy<Value = String> {
    let tag = prop_oneof![
        Just("a".to_owned()),
        Just("a+1".to_owned()),
        Just("x".repeat(600)),
        "[a-z+ \\t\"(]{0,3}"
    ];
    let separator = prop::sample::select(vec![" ", "  ", "\t", " \t", "(", "\"", "\0", ""]);
    let verb = prop::sample::select(vec![
        "UNAUTHENTICATE",
        "login",
        "StartTLS",
        "compress",
        "NOOP",
        "XHEARD",
        "IDLE",
        "UID X",
    ]);
    let after = prop::sample::select(vec!["", " x", "\t", "(", "\"", " {18+}", " {3}", " {40+}"]);
    (tag, separator, verb, after)
        .prop_map(|(tag, separator, verb, after)| format!("{tag}{separator}{verb}{after}\r\n"))
}

/// The upstream sends bytes, and then the session takes what waits of the client's.
fn upstream_says(it: &mut LoggedSession, bytes: &[u8]) {
    it.upstream_says(bytes);
    it.feed();
}

proptest! {
    /// Of any dialogue, in any chunks: nothing panics, and a stream without what deltapush reads comes out as it went in;
    /// and garbage is held within the limits.
    #[test]
    fn foreign_dialogues_pass_unchanged(
        lines in proptest::collection::vec("[ -~&&[^+*]]{0,60}", 0..12),
        chunk in 1usize..40,
        garbage in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut it = session(PLAIN);
        let stream = lines.iter().map(|line| format!("x1 FETCH {line}x\r\n")).collect::<String>();
        for part in stream.as_bytes().chunks(chunk) {
            it.client_says(part);
            upstream_says(&mut it, part);
        }
        prop_assert_eq!(&it.log.upstream, stream.as_bytes());
        prop_assert_eq!(&it.log.client, stream.as_bytes());
        for part in garbage.chunks(chunk) {
            upstream_says(&mut it, part);
            it.client_says(part);
        }
        let (from_server, from_client) = (it.session.server.held.len(), it.session.client.held.len());
        prop_assert!(from_server.saturating_sub(chunk) <= 2000 && from_client.saturating_sub(chunk) <= 6000);
    }

    /// A lenient server may read much of the client's lines, but no command that must not cross.
    #[test]
    fn lenient_server_reads_no_forbidden_command(
        lines in proptest::collection::vec(mangled(), 1..12),
        chunk in prop::sample::select(vec![1usize, 3, 17, 4000]),
    ) {
        let mut it = session(METADATA);
        for line in &lines {
            line.as_bytes().chunks(chunk).for_each(|part| it.client_says(part));
            // No literal is agreed to: there is no data among what goes up.
            while !it.session.takes_client_input() {
                let tag = String::from_utf8(it.session.client.tag.clone()).unwrap();
                upstream_says(&mut it, format!("{tag} NO no\r\n").as_bytes());
            }
        }
        let upstream = String::from_utf8_lossy(&it.log.upstream).to_ascii_uppercase();
        for line in upstream.split(['\n', '\r']) {
            // As Dovecot, Cyrus, Courier and UW imapd do between them: any white space, quotes and parentheses end a word.
            let mut words = line.split([' ', '\t', '(', ')', '"', '\0']).filter(|word| !word.is_empty());
            let verb = words.nth(1).unwrap_or_default();
            prop_assert!(!["UNAUTHENTICATE", "LOGIN", "STARTTLS", "COMPRESS"].contains(&verb), "{line:?} of {lines:?}");
        }
    }

    #[test]
    fn any_chunking_gives_the_same_output(
        chunk in 1usize..50,
        script in proptest::collection::vec(prop_oneof![
            Just("a GETMETADATA \"\" (/shared/comment)\r\n"),
            Just("b SETMETADATA INBOX (/private/devicetoken {16+}\r\nopenpgp:c2VjcmV0)\r\n"),
            Just("c APPEND x {20+}\r\na IDLE\r\nb COMPRESS\r\n\r\n"),
            Just("d COMPRESS LZ4\r\n"),
            Just("DONE\r\n"),
            Just("e NOOP\r\n"),
        ], 0..8),
    ) {
        let stream = script.concat();
        let run = |step: usize| {
            let mut it = session(PLAIN);
            for part in stream.as_bytes().chunks(step) {
                it.client_says(part);
            }
            (it.log.upstream, it.log.client, it.log.requests)
        };
        prop_assert_eq!(run(chunk), run(stream.len().max(1)));
    }
}
