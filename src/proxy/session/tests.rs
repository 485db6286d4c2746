//! Dialogues: every script is played in whole lines and one byte at a time, with and without a transcript.

use super::testing::{
    METADATA, PLAIN, RELAY, in_lines, play, play_with, session, settings, traced,
};
use super::*;
use crate::machine::script::Player;
use crate::proxy::session_log::LoggedSession;
use crate::store::Position;

#[test]
fn everything_else_passes_byte_for_byte() {
    play(
        "C: A1 select inbox
         > A1 select inbox
         S: * 3 EXISTS
         < * 3 EXISTS
         S: A1 OK [READ-WRITE] done
         < A1 OK [READ-WRITE] done
         C: A2 UID FETCH 1 (BODY.PEEK[])
         > A2 UID FETCH 1 (BODY.PEEK[])
         S: * 1 FETCH (UID 1 BODY[] {12}
         < * 1 FETCH (UID 1 BODY[] {12}
         S: * CAPABILITY\\
         < * CAPABILITY\\
         S:  X)
         <  X)
         S: A2 OK
         < A2 OK
         C: A3 XUNHEARD_OF-1.0 }{(\0
         > A3 XUNHEARD_OF-1.0 }{(\0
         C:
         >",
    );
}

#[test]
fn that_the_client_fetches_is_told() {
    let (mut player, _) = traced(session(PLAIN));
    player.play(
        "C: A1 FETCH 1 FLAGS
         > A1 FETCH 1 FLAGS
         S: * 2 EXISTS
         < * 2 EXISTS
         C: A3 UID STORE 1 FLAGS ()
         > A3 UID STORE 1 FLAGS ()",
    );
    assert_eq!(player.end().0.log.fetches, 0);
    let mut player = in_lines(session(PLAIN));
    player.play(
        "S: * 2 EXISTS
         < * 2 EXISTS
         C: A2 uid fetch 1 FLAGS
         > A2 uid fetch 1 FLAGS
         C: A3 FETCH 1 FLAGS
         > A3 FETCH 1 FLAGS",
    );
    assert_eq!(player.end().0.log.fetches, 1);
}

#[test]
fn literal_refused_is_no_data() {
    play(
        "C: A1 APPEND INBOX {16}
         > A1 APPEND INBOX {16}
         C: A2 GETMETADATA \"\" /shared/admin
         S: A1 NO [TOOBIG] no
         < A1 NO [TOOBIG] no
         < * METADATA \"\" (/shared/admin NIL)
         < A2 OK GETMETADATA completed
         C: A3 APPEND INBOX {5}
         > A3 APPEND INBOX {5}
         S: * 1 EXISTS
         < * 1 EXISTS
         S: + go on {7}
         < + go on {7}
         C: A4 I!
         > A4 I!
         C: A5 NOOP
         > A5 NOOP",
    );
}

#[test]
fn literals_in_every_form_stream_through() {
    play(
        "C: A1 APPEND x (\\Seen) {12+}
         > A1 APPEND x (\\Seen) {12+}
         C: A9 COMPRESS\\
         > A9 COMPRESS\\
         C:  UTF8 (~{3+}
         >  UTF8 (~{3+}
         C: abc)
         > abc)
         C: A2 APPEND x ~{0}
         > A2 APPEND x ~{0}
         S: + ok
         < + ok
         C:
         >
         C: A3 NOOP
         > A3 NOOP",
    );
}

#[test]
fn idle_is_done_once_and_may_be_refused() {
    play(
        "C: A1 IDLE
         > A1 IDLE
         S: * 2 EXISTS
         < * 2 EXISTS
         S: + idling
         < + idling
         C: DONE
         > DONE
         C: A2 STARTTLS
         < A2 BAD [CLIENTBUG] STARTTLS is possible only before the login.
         S: A1 OK done
         < A1 OK done
         C: A3 IDLE
         > A3 IDLE
         C: A4 NOOP
         S: A3 BAD [CLIENTBUG] no
         < A3 BAD [CLIENTBUG] no
         > A4 NOOP
         C: A5 IDLE
         > A5 IDLE
         S: +
         < +
         S: A5 NO timeout
         < A5 NO timeout
         C: DONE
         < DONE BAD [CLIENTBUG] A command needs a tag, a space and a name.
         C: A6 NOOP
         > A6 NOOP",
    );
}

#[test]
fn name_too_long_to_be_noted_is_not_noted_in_part() {
    let name = "x".repeat(1100);
    play(&format!(
        "C: A1 SELECT {name}
         > A1 SELECT {name}
         S: A1 OK selected
         < A1 OK selected
         C: A2 IDLE
         > A2 IDLE
         S: + idling
         < + idling"
    ));
}

#[test]
fn mailbox_in_which_the_client_idles_is_known() {
    play(
        "C: A1 SELECT \"DeltaChat\" (CONDSTORE)
         > A1 SELECT \"DeltaChat\" (CONDSTORE)
         C: A2 IDLE
         > A2 IDLE
         S: A1 OK selected
         < A1 OK selected
         S: + idling
         (idles in DeltaChat)
         < + idling
         C: DONE
         > DONE
         S: A2 OK
         < A2 OK
         C: A3 SELECT {5+}
         > A3 SELECT {5+}
         C: INBOX
         > INBOX
         S: A3 OK
         < A3 OK
         C: A4 SELECT nowhere
         > A4 SELECT nowhere
         S: A4 NO no such mailbox
         < A4 NO no such mailbox
         C: A5 IDLE
         > A5 IDLE
         S: +
         < +
         C: DONE
         > DONE
         S: A5 OK
         < A5 OK
         C: A6 EXAMINE INBOX
         > A6 EXAMINE INBOX
         S: A6 OK
         < A6 OK
         C: A7 IDLE
         > A7 IDLE
         S: A7 BAD no
         < A7 BAD no
         C: A8 UNSELECT
         > A8 UNSELECT
         C: A9 IDLE
         > A9 IDLE
         S: +
         < +",
    );
}

#[test]
fn logins_after_the_login_are_refused_here() {
    play(
        "C: A1 AUTHENTICATE PLAIN
         < A1 BAD [CLIENTBUG] You are logged in already.
         C: c2VzYW1l
         < c2VzYW1l BAD [CLIENTBUG] A command needs a tag, a space and a name.
         C: A2 login x sesame
         < A2 BAD [CLIENTBUG] You are logged in already.
         C: A3 LOGIN {1}
         < A3 BAD [CLIENTBUG] You are logged in already.
         C: A4 LOGIN {1+}
         C: x {6+}
         C: sesame
         < A4 BAD [CLIENTBUG] You are logged in already.
         C: A5 NOOP
         > A5 NOOP",
    );
}

#[test]
fn line_that_some_server_may_read_as_a_command_is_refused_here() {
    const BAD: &str = "BAD [CLIENTBUG] A command needs a tag, a space and a name.";
    for (line, tag) in [
        ("a+1 UNAUTHENTICATE", "*"),
        ("a+1 ID (\"x-originating-ip\" \"192.0.2.1\")", "*"),
        ("a+1 SETMETADATA INBOX (/private/devicetoken \"openpgp:c2VjcmV0\")", "*"),
        (" a1 UNAUTHENTICATE", "*"),
        ("a1\tUNAUTHENTICATE", "*"),
        ("a1 \tUNAUTHENTICATE", "a1"),
        ("a1 UNAUTHENTICATE\t", "a1"),
        ("a1 \"UNAUTHENTICATE\"", "a1"),
        ("a1 ID(\"x-originating-ip\" \"192.0.2.1\")", "a1"),
        ("a1 {14}", "a1"),
        ("{2}", "*"),
        ("a1", "a1"),
        ("\0", "*"),
    ] {
        play(&format!("C: {line}\n < {tag} {BAD}\n C: z NOOP\n > z NOOP"));
    }
    for (line, tag) in [
        (format!("{} UNAUTHENTICATE", "x".repeat(600)), "*".to_owned()),
        (format!("a1 {}", "UNAUTHENTICATE".repeat(50)), "a1".to_owned()),
        (format!("{} UNAUTHENTICATE", "x".repeat(500)), "x".repeat(500)),
        (format!("a1 {}UNAUTHENTICATE", " ".repeat(600)), "a1".to_owned()),
    ] {
        play(&format!("C: {line}\n < {tag} {BAD}\n C: z NOOP\n > z NOOP"));
    }
    // The data of a literal that comes in any case is skipped.
    play(&format!("C: a1 {{14+}}\n C: UNAUTHENTICATE\n < a1 {BAD}\n C: z NOOP\n > z NOOP"));
    play("C: a1   unAuthenticate\n < a1 BAD This command is not available here.");
}

#[test]
fn data_of_a_literal_is_never_left_for_the_server_to_read_as_a_command() {
    // Dovecot skips the line of a command without arguments, and of one that it does not know, and reads on behind it.
    play(
        "C: A1 NOOP {19+}
         C: a2 UNAUTHENTICATE\\
         C: x
         < A1 BAD This command takes no literal, or it is too long.
         C: A2 NAMESPACE {3+}
         C: x y
         < A2 BAD This command takes no literal, or it is too long.
         C: A3 XHEARD {19+}
         > A3 XHEARD {19}
         C: a2 UNAUTHENTICATE\\
         C: x
         S: A3 BAD unknown command
         < A3 BAD unknown command
         C: A4 XHEARD {4+}
         > A4 XHEARD {4}
         C: ab c (x)
         S: + go on
         > ab c (x)
         C: A5 UID XHEARD {4}
         > A5 UID XHEARD {4}
         S: + go on
         < + go on
         C: ab c
         > ab c
         S: A4 OK done
         < A4 OK done
         C: A6 UID FETCH 1 BODY[HEADER.FIELDS ({4+}
         > A6 UID FETCH 1 BODY[HEADER.FIELDS ({4+}
         C: Date)]
         > Date)]
         C: A7 NOOP
         > A7 NOOP",
    );
}

#[test]
fn idle_is_ended_by_nothing_but_done() {
    play(
        "C: A1 IDLE
         > A1 IDLE
         S: + idling
         < + idling
         C: A2 UNAUTHENTICATE
         > DONE
         < A2 BAD This command is not available here.
         S: A1 OK done
         < A1 OK done
         C: A3 IDLE
         > A3 IDLE
         S: + idling
         < + idling
         C: done
         > done
         S: A3 OK done
         < A3 OK done
         C: A4 IDLE
         > A4 IDLE
         S: + idling
         < + idling
         C: DO\\
         S: A4 OK time is over
         < A4 OK time is over
         C: NE
         < DONE BAD [CLIENTBUG] A command needs a tag, a space and a name.",
    );
}

#[test]
fn continuation_in_any_form_is_one() {
    for continuation in ["+", "+ idling", "+idling", "A1 + idling", "A1 +"] {
        play(&format!(
            "C: A1 IDLE\n > A1 IDLE\n S: {continuation}\n < {continuation}\n C: DONE\n > DONE"
        ));
        play(&format!(
            "C: A1 APPEND x {{4}}\n > A1 APPEND x {{4}}\n C: ab\n S: {continuation}\n < {continuation}\n > ab"
        ));
    }
    // That of another command is none.
    play("C: A1 IDLE\n > A1 IDLE\n S: A0 + idling\n < A0 + idling\n C: DONE");
}

#[test]
fn idle_that_is_not_answered_is_ended_all_the_same() {
    for mut player in [in_lines(session(PLAIN)), traced(session(PLAIN)).0] {
        player.play(
            "C: A1 IDLE\n > A1 IDLE\n S: * OK [INPROGRESS] x\n < * OK [INPROGRESS] x\n C: DONE",
        );
        let patience = player.machine.waits().expect("the client's next line waits");
        assert!(patience <= Duration::from_secs(10), "{patience:?}");
        player.later(patience);
        player.play("> DONE\n S: A1 OK done\n < A1 OK done\n C: A2 IDLE\n > A2 IDLE");
        player.later(patience);
        // A command is read as one.
        player.play("C: A3 STARTTLS\n > DONE\n < A3 BAD [CLIENTBUG] STARTTLS is possible only before the login.");
        assert_eq!(player.end().0.waits(), None);
    }
}

/// The upstream says nothing, and the session ends in words.
fn is_given_up(mut player: Player<LoggedSession>) {
    let patience = player.machine.waits().expect("the client's next bytes wait");
    player.later(patience);
    player.play(
        "< * BYE [UNAVAILABLE] The mail server did not answer in time. Your app connects again by itself.
         (ends Unanswered)",
    );
    assert!(player.end().0.session.is_over());
}

#[test]
fn literal_that_is_not_answered_ends_the_session() {
    let begun = |script: &str| {
        let mut player = in_lines(session(METADATA));
        player.play(script);
        player
    };
    is_given_up(begun("C: A1 APPEND x {4}\n > A1 APPEND x {4}"));
    is_given_up(begun(
        "C: A1 GETMETADATA {5}\n < + OK\n C: INBOX /private/comment\n > A1 GETMETADATA {5}",
    ));
    let question =
        "C: A1 GETMETADATA \"\" /shared/comment\n > A1 GETMETADATA \"\" /shared/comment\n";
    let full = begun(&question.repeat(MAX_PENDING));
    assert!(!full.machine.session.takes_client_input());
    is_given_up(full);
}

#[test]
fn commands_that_cannot_cross_are_refused() {
    play(
        "C: A2 UNAUTHENTICATE
         < A2 BAD This command is not available here.
         C: A3 STARTTLS
         < A3 BAD [CLIENTBUG] STARTTLS is possible only before the login.
         C: A4 GETJMAPACCESS
         < A4 NO [CANNOT] JMAP is not available here.
         C: A5 RLIST \"\" *
         < A5 BAD This command is not available here.
         C: A6 RLSUB \"\" *
         < A6 BAD This command is not available here.",
    );
}

#[test]
fn compression_begins_behind_its_ok_and_once() {
    play(
        "C: A1 COMPRESS
         < A1 BAD [CLIENTBUG] COMPRESS needs one mechanism.
         C: A2 COMPRESS DEFLATE now
         < A2 BAD [CLIENTBUG] COMPRESS needs one mechanism.
         C: A3 COMPRESS LZ4
         < A3 BAD This mechanism is not available here. Use DEFLATE.
         S: * CAPABILITY IMAP4rev1
         < * CAPABILITY IMAP4rev1 METADATA XDELTAPUSH COMPRESS=DEFLATE
         C: A4 compress deflate
         < A4 OK compression begins now
         (compressed)
         S: * CAPABILITY IMAP4rev1 COMPRESS=DEFLATE
         < * CAPABILITY IMAP4rev1 METADATA XDELTAPUSH
         C: A5 COMPRESS DEFLATE
         < A5 NO [COMPRESSIONACTIVE] Compression is active already.
         C: A6 NOOP
         > A6 NOOP",
    );
}

#[test]
fn compression_waits_for_a_responses_end() {
    play(
        "C: A1 FETCH 1 BODY[]
         > A1 FETCH 1 BODY[]
         S: * 1 FETCH (BODY[] {6}
         < * 1 FETCH (BODY[] {6}
         C: A2 UNAUTHENTICATE
         C: A3 COMPRESS DEFLATE
         C: A4 NOOP
         S: abcdef)
         < abcdef)
         < A2 BAD This command is not available here.
         < A3 OK compression begins now
         (compressed)
         > A4 NOOP
         S: A1 OK
         < A1 OK",
    );
}

#[test]
fn bytes_behind_the_command_are_left_to_be_inflated() {
    let mut it = session(PLAIN);
    let input = b"A1 NOOP\r\nA2 COMPRESS DEFLATE\r\nA3 NOOP\r\n";
    assert_eq!(it.give_client(input), 30);
    assert_eq!(it.log.upstream, b"A1 NOOP\r\n");
    assert!(it.log.compressed_from.is_some() && it.session.takes_client_input());
    // The same where the OK has to wait.
    let mut it = session(PLAIN);
    it.upstream_says(b"* 1 EX");
    assert_eq!(it.give_client(input), 30);
    assert!(it.log.compressed_from.is_none() && !it.session.takes_client_input());
    it.upstream_says(b"ISTS\r\n* 2 EXISTS\r\n");
    let said = "* 1 EXISTS\r\nA2 OK compression begins now\r\n* 2 EXISTS\r\n";
    assert_eq!(String::from_utf8_lossy(&it.log.client), said);
    assert_eq!(it.log.compressed_from, Some(said.len() - "* 2 EXISTS\r\n".len()));
    assert!(it.session.takes_client_input());
}

#[test]
fn capability_lists_are_rewritten_wherever_they_stand() {
    play(
        "S: * CAPABILITY IMAP4rev1 COMPRESS=DEFLATE IDLE
         < * CAPABILITY IMAP4rev1 IDLE METADATA XDELTAPUSH COMPRESS=DEFLATE
         S: A1 OK [CAPABILITY IMAP4rev1] Logged in
         < A1 OK [CAPABILITY IMAP4rev1 METADATA XDELTAPUSH COMPRESS=DEFLATE] Logged in
         S: * ok [capability IMAP4rev2 METADATA] hi
         < * ok [capability IMAP4rev2 METADATA XDELTAPUSH COMPRESS=DEFLATE] hi
         S: * OK text [CAPABILITY X]
         < * OK text [CAPABILITY X]",
    );
    play_with(
        RELAY,
        Native::Passthrough,
        "S: * CAPABILITY IMAP4rev1 METADATA XDELTAPUSH STARTTLS
         < * CAPABILITY IMAP4rev1 METADATA XDELTAPUSH COMPRESS=DEFLATE
         C: A1 SETMETADATA INBOX (/private/devicetoken \"openpgp:c2VjcmV0\")
         > A1 SETMETADATA INBOX (/private/devicetoken \"openpgp:c2VjcmV0\")
         C: A2 SETMETADATA INBOX (/private/devicetoken {16+}
         > A2 SETMETADATA INBOX (/private/devicetoken {16+}
         C: openpgp:c2VjcmV0)
         > openpgp:c2VjcmV0)",
    );
}

#[test]
fn command_over_its_limit_is_refused_and_costs_nothing() {
    let long = "x".repeat(7000);
    play(&format!(
        "C: A1 SETMETADATA INBOX (/private/devicetoken {{5000}}
         < + OK
         C: {}\\
         C: )
         < A1 NO [METADATA MAXSIZE 4096] The device token is longer than 4096 bytes.
         C: A2 SETMETADATA INBOX (/private/devicetoken {{4294967296}}
         < A2 NO [METADATA MAXSIZE 4096] The value is longer than 4096 bytes.
         C: A3 SETMETADATA INBOX (/private/devicetoken {{7000+}}
         C: {long}\\
         C: )
         < A3 NO [METADATA MAXSIZE 4096] The value is longer than 4096 bytes.
         C: A4 GETMETADATA {long}
         < A4 BAD [TOOBIG] The command is too long.
         C: A5 NOOP
         > A5 NOOP",
        "x".repeat(5000)
    ));
}

#[test]
fn nothing_of_its_own_is_said_within_a_response() {
    play(
        "S: * 1 FETCH (BODY[] {6}
         < * 1 FETCH (BODY[] {6}
         S: abc\\
         < abc\\
         C: A1 STARTTLS
         S: d\\
         < d\\
         S: ef)\\
         < ef)\\
         S:
         <
         < A1 BAD [CLIENTBUG] STARTTLS is possible only before the login.
         C: A2 STARTTLS
         < A2 BAD [CLIENTBUG] STARTTLS is possible only before the login.",
    );
}

#[test]
fn upstream_that_goes_is_said_once() {
    play(
        "(closed)\n < * BYE [UNAVAILABLE] The mail server closed the connection. Your app connects again by itself.\n (closed)",
    );
    play("S: * BYE\n < * BYE\n (closed)");
    play("S: * 1 FETCH (BODY[] {9}\n < * 1 FETCH (BODY[] {9}\n (closed)");
}

#[test]
fn capability_list_over_the_limit_goes_on_as_it_is() {
    let long = "X".repeat(2500);
    play(&format!("S: * CAPABILITY {long}\n < * CAPABILITY {long}\n S: * 1 EXISTS\n < * 1 EXISTS"));
}

#[test]
fn position_of_an_opened_mailbox_is_read_where_it_is_wanted() {
    let script = "C: A1 SELECT INBOX
         > A1 SELECT INBOX
         S: * 3 EXISTS
         < * 3 EXISTS
         S: * OK [UIDVALIDITY 7] UIDs valid
         < * OK [UIDVALIDITY 7] UIDs valid
         S: * OK [UIDNEXT 42] Predicted next UID
         < * OK [UIDNEXT 42] Predicted next UID
         S: A1 OK [READ-WRITE] done
         < A1 OK [READ-WRITE] done
         C: A2 EXAMINE other
         > A2 EXAMINE other
         S: * OK [UIDNEXT 43] Predicted next UID
         < * OK [UIDNEXT 43] Predicted next UID
         S: A2 OK done
         < A2 OK done
         C: A3 SELECT third
         > A3 SELECT third
         S: * OK [UIDVALIDITY 7] UIDs valid
         < * OK [UIDVALIDITY 7] UIDs valid
         S: * OK [UIDNEXT 44] Predicted next UID
         < * OK [UIDNEXT 44] Predicted next UID
         S: A3 NO not today
         < A3 NO not today";
    play(script);
    let reading = || {
        let session = Session::new(settings(Native::Passthrough), PLAIN);
        LoggedSession::new(session.reading_positions())
    };
    for mut player in [in_lines(reading()), traced(reading()).0] {
        player.play(script);
        let opened = player.end().0.log.opened;
        assert_eq!(opened.len(), 1, "the second has no UIDVALIDITY, the third was not opened");
        let position = Position { uid_validity: 7, uid_next: 42 };
        assert_eq!((&*opened[0].mailbox, opened[0].position), ("INBOX", position));
    }
    let mut player = in_lines(session(PLAIN));
    player.play(script);
    assert!(player.end().0.log.opened.is_empty(), "nobody wants to know");
}
