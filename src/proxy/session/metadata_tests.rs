//! Dialogues about metadata: tokens, the entries that deltapush knows, and upstreams that know the extension.

use super::testing::{
    METADATA, PLAIN, RELAY, TOKEN, in_lines, play, play_with, session, settings, traced,
};
use super::*;
use crate::proxy::session_log::LoggedSession;
use crate::secret::DeviceToken;

#[test]
fn token_is_taken_in_every_form() {
    play(
        "C: A1 SETMETADATA \"INBOX\" (/private/devicetoken \"openpgp:c2VjcmV0\")
         (add)
         (stored)
         < A1 OK SETMETADATA completed
         C: A2 setmetadata inbox (/Private/DeviceToken {16+}
         C: openpgp:c2VjcmV0)
         (add)
         (failed)
         < A2 NO [UNAVAILABLE] The device token cannot be stored at the moment. Try again later.
         C: A3 SETMETADATA {5}
         < + OK
         C: INBOX (/private/devicetoken ~{16}
         < + OK
         C: openpgp:c2VjcmV0)
         (add)
         C: A4 NOOP
         (stored)
         < A3 OK SETMETADATA completed
         > A4 NOOP
         C: A5 SETMETADATA INBOX (/private/devicetoken NIL)
         (remove)
         (stored)
         < A5 OK SETMETADATA completed",
    );
}

#[test]
fn setmetadata_of_anything_else_is_refused_without_an_upstream_that_knows_it() {
    play(
        "C: A1 SETMETADATA INBOX (/private/comment \"x\")
         < A1 NO [METADATA NOPRIVATE] Only /private/devicetoken can be set here.
         C: A2 SETMETADATA INBOX (/private/devicetoken \"openpgp:c2VjcmV0\" /private/comment \"x\")
         < A2 NO [METADATA NOPRIVATE] Only /private/devicetoken can be set here.
         C: A3 SETMETADATA INBOX /private/devicetoken
         < A3 BAD [CLIENTBUG] The syntax of this command is wrong (RFC 5464 section 5).
         C: A4 SETMETADATA INBOX (/private/devicetoken \"two words\")
         < A4 NO [CANNOT] The device token is empty or has characters other than printable ASCII.",
    );
}

#[test]
fn getmetadata_is_answered_as_every_core_needs_it() {
    play(
        "C: A1 GETMETADATA \"\" (/shared/comment /shared/admin /shared/vendor/deltachat/maxsmtprecipients)
         < * METADATA \"\" (/shared/comment \"Push here\" /shared/vendor/deltachat/maxsmtprecipients \"50\" /shared/admin NIL)
         < A1 OK GETMETADATA completed
         C: A2 GETMETADATA (MAXSIZE 3) \"\" (/shared/comment /shared/vendor/deltachat/maxsmtprecipients)
         < * METADATA \"\" (/shared/vendor/deltachat/maxsmtprecipients \"50\")
         < A2 OK [METADATA LONGENTRIES 9] completed
         C: A3 GETMETADATA INBOX /private/devicetoken
         < * METADATA \"INBOX\" (/private/devicetoken NIL)
         < A3 OK GETMETADATA completed
         C: A5 GETMETADATA (DEPTH infinity) \"\" (/shared/vendor /shared/admin)
         < * METADATA \"\" (/shared/vendor/deltachat/maxsmtprecipients \"50\" /shared/admin NIL)
         < A5 OK GETMETADATA completed
         C: A4 GETMETADATA INBOX
         < A4 BAD [CLIENTBUG] The syntax of this command is wrong (RFC 5464 section 5).",
    );
}

/// Plays a script of whole lines where the comment says how push is.
fn play_with_push_status(entries: &[(&str, &str)], upstream: UpstreamTraits, script: &str) {
    let entries =
        entries.iter().map(|(entry, value)| ((*entry).to_owned(), (*value).to_owned())).collect();
    let settings = SessionSettings {
        push_status: true,
        entries,
        ..SessionSettings::clone(&settings(Native::Passthrough))
    };
    let mut player = in_lines(LoggedSession::new(Session::new(Arc::new(settings), upstream)));
    player.play(script);
    player.end();
}

#[test]
fn comment_says_how_push_is() {
    play_with_push_status(
        &[],
        PLAIN,
        "C: A1 GETMETADATA \"\" (/shared/Comment /shared/admin)
         < * METADATA \"\" (/shared/comment \"push active\" /shared/admin NIL)
         < A1 OK GETMETADATA completed
         C: A2 GETMETADATA \"\" /shared/admin
         < * METADATA \"\" (/shared/admin NIL)
         < A2 OK GETMETADATA completed
         C: A3 GETMETADATA (MAXSIZE 5) \"\" /shared/comment
         < A3 OK [METADATA LONGENTRIES 11] completed",
    );
    play_with_push_status(
        &[("/shared/comment", "Family")],
        PLAIN,
        "C: A1 GETMETADATA \"\" /shared/comment
         < * METADATA \"\" (/shared/comment \"Family | push active\")
         < A1 OK GETMETADATA completed",
    );
}

#[test]
fn how_push_is_stands_behind_the_upstreams_comment() {
    play_with_push_status(
        &[("/shared/comment", "Family")],
        METADATA,
        "C: A1 GETMETADATA \"\" (/shared/comment /shared/admin)
         > A1 GETMETADATA \"\" (/shared/comment /shared/admin)
         S: * METADATA \"\" (/shared/comment \"Mail by Bob\" /shared/admin NIL)
         < * METADATA \"\" (/shared/comment \"Mail by Bob | push active\" /shared/admin NIL)
         S: A1 OK done
         < A1 OK done
         C: A2 GETMETADATA \"\" (/shared/comment)
         > A2 GETMETADATA \"\" (/shared/comment)
         S: * METADATA \"\" (/shared/comment NIL)
         < * METADATA \"\" (/shared/comment \"Family | push active\")
         S: A2 OK done
         < A2 OK done
         C: A3 GETMETADATA (MAXSIZE 11) \"\" (/shared/comment)
         > A3 GETMETADATA (MAXSIZE 11) \"\" (/shared/comment)
         S: * METADATA \"\" (/shared/comment \"Mail by Bob\")
         < * METADATA \"\" (/shared/comment \"Mail by Bob\")
         S: A3 OK done
         < A3 OK done
         C: A4 GETMETADATA \"\" /shared/comment
         > A4 GETMETADATA \"\" /shared/comment
         C: A5 GETMETADATA \"\" /shared/comment
         > A5 GETMETADATA \"\" /shared/comment
         S: * METADATA \"\" (/shared/comment \"Mail by Bob\")
         < * METADATA \"\" (/shared/comment \"Mail by Bob | push active\")
         S: * METADATA \"\" (/shared/comment \"Mail by Bob\")
         < * METADATA \"\" (/shared/comment \"Mail by Bob | push active\")
         S: A4 OK done
         < A4 OK done
         S: A5 OK done
         < A5 OK done",
    );
}

#[test]
fn tokens_of_an_account_can_be_read_back() {
    let mut player = in_lines(session(PLAIN));
    player.machine.tokens =
        vec![DeviceToken::new(b"one").unwrap(), DeviceToken::new(b"two").unwrap()];
    player.play(
        "C: A1 GETMETADATA INBOX (/private/devicetoken)
         < * METADATA \"INBOX\" (/private/devicetoken \"one two\")
         < A1 OK GETMETADATA completed",
    );
    player.end();
}

#[test]
fn upstream_with_metadata_answers_what_it_knows() {
    play_with(
        METADATA,
        Native::Passthrough,
        "C: A1 GETMETADATA \"\" (/shared/comment /shared/vendor/deltachat/maxsmtprecipients)
         > A1 GETMETADATA \"\" (/shared/comment /shared/vendor/deltachat/maxsmtprecipients)
         S: * METADATA \"\" (/shared/comment {3}
         S: his /shared/vendor/deltachat/maxsmtprecipients NIL)
         < * METADATA \"\" (/shared/comment \"his\" /shared/vendor/deltachat/maxsmtprecipients \"50\")
         S: A1 OK done
         < A1 OK done
         C: A2 GETMETADATA \"\" (/shared/comment /shared/admin)
         > A2 GETMETADATA \"\" (/shared/comment /shared/admin)
         S: A2 OK done
         < * METADATA \"\" (/shared/comment \"Push here\")
         < A2 OK done
         C: A3 GETMETADATA \"\" /shared/comment
         > A3 GETMETADATA \"\" /shared/comment
         S: A3 NO broken
         < * METADATA \"\" (/shared/comment \"Push here\")
         < A3 OK GETMETADATA completed
         C: A4 GETMETADATA INBOX /private/comment
         > A4 GETMETADATA INBOX /private/comment
         S: * METADATA INBOX (/private/comment \"mine\")
         < * METADATA INBOX (/private/comment \"mine\")
         S: A4 OK done
         < A4 OK done",
    );
}

#[test]
fn upstream_with_metadata_sets_the_other_entries() {
    play_with(
        METADATA,
        Native::Passthrough,
        "C: A1 SETMETADATA INBOX (/private/comment {3}
         < + OK
         C: a\tb /private/devicetoken \"openpgp:c2VjcmV0\" /private/x {3+}
         C: c\u{fc})
         > A1 SETMETADATA \"INBOX\" (/private/comment \"a\tb\" /private/x {3}
         C: A2 NOOP
         S: + ok
         > c\u{fc})
         > A2 NOOP
         S: A1 OK set
         (add)
         (stored)
         < A1 OK set
         C: A3 SETMETADATA INBOX (/private/comment {1}
         < + OK
         C: x /private/devicetoken NIL)
         > A3 SETMETADATA \"INBOX\" (/private/comment \"x\")
         S: A3 NO [OVERQUOTA] full
         < A3 NO [OVERQUOTA] full
         C: A4 SETMETADATA x (/private/comment {1}
         < + OK
         C: x)
         > A4 SETMETADATA x (/private/comment {1}
         S: A4 NO no such mailbox
         < A4 NO no such mailbox
         C: A5 NOOP
         > A5 NOOP",
    );
}

#[test]
fn takeover_keeps_the_token_from_an_upstream_that_pushes() {
    play_with(
        RELAY,
        Native::Takeover,
        "C: A1 SETMETADATA INBOX (/private/devicetoken \"openpgp:c2VjcmV0\")
         (add)
         (stored)
         < A1 OK SETMETADATA completed",
    );
}

#[test]
fn own_lines_that_wait_are_masked_too() {
    let (mut player, transcript) = traced(session(PLAIN));
    player.machine.tokens = vec![DeviceToken::new(TOKEN.as_bytes()).unwrap()];
    player.play(
        "S: * 1 FETCH (BODY[] {10}
         < * 1 FETCH (BODY[] {10}
         C: A1 STARTTLS
         C: A2 GETMETADATA INBOX /private/devicetoken
         S: 0123456789)
         < 0123456789)
         < A1 BAD [CLIENTBUG] STARTTLS is possible only before the login.
         < * METADATA \"INBOX\" (/private/devicetoken \"openpgp:c2VjcmV0\")
         < A2 OK GETMETADATA completed",
    );
    player.end();
    let transcript = transcript.text();
    assert!(
        transcript.contains("/private/devicetoken") && !transcript.contains("c2VjcmV0"),
        "{transcript}"
    );
}

#[test]
fn small_questions_with_large_answers_are_taken_at_the_clients_pace() {
    let mut it = session(PLAIN);
    it.tokens = (0..32).map(|_| DeviceToken::new(&[b'x'; 4096]).unwrap()).collect();
    let questions = "a GETMETADATA INBOX /private/devicetoken\r\n".repeat(1000);
    let used = it.give_client(questions.as_bytes());
    assert!(used < 100 && it.log.client.len() < 300_000, "{used} {}", it.log.client.len());
    assert!(it.session.takes_client_input(), "once there is room again");
}
