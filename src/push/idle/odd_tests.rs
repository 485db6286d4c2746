//! Dialogues with servers that pad, leave out, and refuse.

use super::testing::*;
use super::*;

#[test]
fn padded_lines_are_read() {
    play(
        Some((7, 10)),
        "> w1 EXAMINE \"INBOX\"
         S: *   4 EXISTS
         S: *  OK  [UIDVALIDITY  7]  ok
         S:  * OK [UIDNEXT   10 ] ok
         S:   w1   OK   [READ-ONLY] done\u{20}\u{20}
         > w2 IDLE
         S:  +  idling
         (watching)
         S: *   953 EXISTS\u{20}
         > DONE
         S:  w2  OK
         > w3 FETCH 854:* ITEMS
         S: *  953  FETCH  ( UID  10  FLAGS  ( )  BODY[HEADER.FIELDS  (FROM)]  {From: bob@b.org||} )
         S: w3  OK
         (announced 7 11)
         > w4 IDLE",
    );
}

#[test]
fn count_that_was_not_heard_is_not_zero() {
    for exists in ["", "S: * EXISTS\n", "S: * 99999999999999999999 EXISTS\n"] {
        play(
            Some((7, 10)),
            &format!(
                "> w1 EXAMINE \"INBOX\"
                 {exists}S: * OK [UIDVALIDITY 7]
                 S: * OK [UIDNEXT 11]
                 S: w1 OK
                 > w2 UID FETCH 10:* ITEMS
                 S: * 5 FETCH (UID 10 FLAGS () BODY[HEADER.FIELDS (FROM)] {{|}})
                 S: w2 OK
                 (announced 7 11)
                 > w3 IDLE"
            ),
        );
    }
    // It may be zero: some servers refuse to fetch from an empty mailbox.
    play(
        Some((7, 10)),
        "> w1 EXAMINE \"INBOX\"
         S: * OK [UIDVALIDITY 7]
         S: w1 OK
         > w2 FETCH * ITEMS
         S: w2 BAD no messages
         > w3 IDLE",
    );
}

#[test]
fn numbers_beyond_32_bits_are_kept() {
    play(
        Some((1_713_632_002_544, 19_564_493_749)),
        "> w1 EXAMINE \"INBOX\"
         S: * 5 EXISTS
         S: * OK [UIDVALIDITY 1713632002544]
         S: * OK [UIDNEXT 19564493750]
         S: w1 OK
         > w2 UID FETCH 19564493749:* ITEMS
         S: * 5 FETCH (UID 19564493749 FLAGS () BODY[HEADER.FIELDS (FROM)] {|})
         S: w2 OK
         (announced 1713632002544 19564493750)
         > w3 IDLE",
    );
    // Another one is another one.
    play(
        Some((1_713_632_002_544, 3)),
        "> w1 EXAMINE \"INBOX\"
         S: * 5 EXISTS
         S: * OK [UIDVALIDITY 1713632002545]
         S: * OK [UIDNEXT 9]
         S: w1 OK
         > w2 FETCH 1:* ITEMS",
    );
}

#[test]
fn without_uidvalidity_a_uidnext_that_falls_tells_that_uids_began_again() {
    play(
        Some((0, 500)),
        "> w1 EXAMINE \"INBOX\"
         S: * 2 EXISTS
         S: * OK [UIDNEXT 3]
         S: w1 OK
         > w2 FETCH 1:* ITEMS
         S: * 2 FETCH (UID 2 FLAGS () BODY[HEADER.FIELDS (FROM)] {|})
         S: w2 OK
         (announced 0 3)
         > w3 IDLE",
    );
}

#[test]
fn position_far_beyond_the_mailbox_is_wrong() {
    play(
        Some((7, 5000)),
        "> w1 EXAMINE \"INBOX\"
         S: * 2 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: * OK [UIDNEXT 12]
         S: w1 OK
         > w2 FETCH 1:* ITEMS
         S: * 2 FETCH (UID 11 FLAGS () BODY[HEADER.FIELDS (FROM)] {|})
         S: w2 OK
         (announced 7 12)
         > w3 IDLE",
    );
    // The mail server may have told of some messages that the answer does not count yet.
    play(
        Some((7, 15)),
        "> w1 EXAMINE \"INBOX\"
         S: * 2 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: * OK [UIDNEXT 12]
         S: w1 OK
         > w2 IDLE",
    );
}

/// Checks the fetch after one more message has come, and its outcome.
fn answered(answers: &str, outcome: &str) {
    after_quiet(&format!(
        "S: * 5 EXISTS
         > DONE
         S: w2 OK
         > w3 UID FETCH 10:* ITEMS
         {answers}
         S: w3 OK
         {outcome}
         > w4 IDLE"
    ));
}

#[test]
fn answer_that_lacks_something_is_announced_and_moves_the_position() {
    for (answer, outcome) in [
        ("S: * 5 FETCH (FLAGS () BODY[HEADER.FIELDS (FROM)] {|})", "(odd NoUid)\n(announced 7 11)"),
        ("S: * 5 FETCH (UID 10 FLAGS ())", "(odd NoHeaders)\n(announced 7 11)"),
        (
            "S: * 5 FETCH (UID 10 FLAGS () BODY[HEADER.FIELDS (FROM)] NIL)",
            "(odd NoHeaders)\n(announced 7 11)",
        ),
        ("S: * 5 FETCH (UID 10 BODY[HEADER.FIELDS (FROM)] {|})", "(announced 7 11)"),
        ("S: * 5 FETCH (FLAGS ())", "(odd NoHeaders)\n(announced 7 11)"),
        (
            "S: * 5 FETCH (UID 99999999999999999999 FLAGS () BODY[] {|})",
            "(odd Unclear)\n(announced 7 11)",
        ),
        ("S: * 5 FETCH (UID FLAGS () BODY[] {|})", "(odd Unclear)\n(announced 7 11)"),
        ("S: * 5 FETCH", "(odd Unclear)\n(announced 7 11)"),
        ("", "(odd NoAnswer)\n(announced 7 10)"),
    ] {
        answered(answer, outcome);
    }
}

#[test]
fn answers_about_other_messages_and_in_pieces_are_told_apart() {
    // Flags of an old message, of the new one, its headers, and the last one again.
    answered(
        "S: * 2 FETCH (FLAGS (\\Seen))
         S: * 3 FETCH (UID 8 FLAGS (\\Seen))
         S: * 5 FETCH (UID 10 FLAGS (\\Recent))
         S: * 5 FETCH (BODY[HEADER.FIELDS (FROM)] {From: alice@example.org||} FLAGS () UID 10)
         S: * 5 FETCH (UID 10 FLAGS (\\Answered))",
        "(noted 7 11)",
    );
    // It was read by another device: flags rule it out.
    answered("S: * 5 FETCH (UID 10 FLAGS (\\Seen))", "(noted 7 11)");
    // An old message goes in between, and numbers shift.
    answered(
        "S: * 1 EXPUNGE
         S: * 4 FETCH (FLAGS () BODY[HEADER.FIELDS (FROM)] {From: alice@example.org||})",
        "(odd NoUid)\n(noted 7 11)",
    );
    // The new one itself is gone.
    answered("S: * 5 EXPUNGE\n S: * 4 FETCH (UID 9 FLAGS () BODY[HEADER.FIELDS (FROM)] {|})", "");
}

#[test]
fn without_uids_one_new_message_costs_one_answer() {
    play(
        None,
        "> w1 EXAMINE \"INBOX\"
         S: * 200 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: w1 OK
         > w2 UID FETCH * (UID)
         S: * 200 FETCH (FLAGS ())
         S: w2 OK
         (noted 7 201)
         > w3 IDLE
         S: +
         (watching)
         S: * 201 EXISTS
         > DONE
         S: w3 OK
         > w4 FETCH 201:* ITEMS
         S: * 201 FETCH (FLAGS () BODY[HEADER.FIELDS (FROM)] {|})
         S: w4 OK
         (odd NoUid)
         (announced 7 202)
         > w5 IDLE
         S: +
         (watching)
         S: * 202 EXISTS
         > DONE
         S: w5 OK
         > w6 FETCH 202:* ITEMS",
    );
}

#[test]
fn look_is_bounded_and_announces_what_it_leaves_out() {
    play(
        Some((7, 10)),
        "> w1 EXAMINE \"INBOX\"
         S: * 5000 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: * OK [UIDNEXT 5010]
         S: w1 OK
         > w2 FETCH 4901:* ITEMS
         S: * 5000 FETCH (UID 5009 FLAGS (\\Seen) BODY[HEADER.FIELDS (FROM)] {|})
         S: w2 OK
         (announced 7 5010)
         > w3 IDLE",
    );
}

#[test]
fn server_that_tells_of_news_without_end_is_looked_at_now_and_then() {
    let mut script = String::new();
    for round in 0..MAX_LOOKS {
        let (idle, fetch) = (round * 2 + 2, round * 2 + 3);
        script += &format!(
            "S: * 4 EXISTS
             > DONE
             S: w{idle} OK
             > w{fetch} UID FETCH 10:* ITEMS
             S: * 4 FETCH (UID 9 FLAGS () BODY[HEADER.FIELDS (FROM)] {{|}})
             S: w{fetch} OK
             > w{} IDLE
             S: +
             (watching)
            ",
            fetch + 1
        );
    }
    let idle = MAX_LOOKS * 2 + 2;
    after_quiet(&format!(
        "{script}S: * 4 EXISTS
         (later 29s)
         S: * 4 EXISTS
         (later 1s)
         > DONE
         S: w{idle} OK
         > w{} UID FETCH 10:* ITEMS",
        idle + 1
    ));
}

#[test]
fn unknown_response_with_a_number_is_looked_into() {
    after_quiet("S: * 5 EXIST\n > DONE\n S: w2 OK\n > w3 UID FETCH 10:* ITEMS");
}

const REFUSED: &str = "> w1 EXAMINE \"DeltaChat\"
     S: w1 NO no such mailbox
     (left out DeltaChat: no such mailbox)
     > w2 EXAMINE \"INBOX\"
     ";

#[test]
fn mailbox_that_is_gone_does_not_stop_the_others() {
    // With NOTIFY; the first one is visited last.
    let mailboxes = vec![mailbox("DeltaChat", Some((3, 5))), mailbox("INBOX", Some((7, 10)))];
    let [one, three, eight] = [1, 3, 8].map(|number| opened(number, 7, 10));
    let chats = opened(7, 3, 5);
    play_watch(
        WatchTerms { mailboxes, notify: true, ..watch(None) },
        &format!(
            "> w1 EXAMINE \"INBOX\"
         {one}
         > w2 EXAMINE \"DeltaChat\"
         S: w2 NO no such mailbox
         (left out DeltaChat: no such mailbox)
         > w3 EXAMINE \"INBOX\"
         {three}
         > w4 NOTIFY SET (SELECTED (MessageNew ITEMS MessageExpunge))
         S: w4 OK
         > w5 IDLE
         S: +
         (watching)
         (later 9m)
         > DONE
         S: w5 OK
         > w6 IDLE
         S: +
         (watching)
         (later 9m)
         > DONE
         S: w6 OK
         > w7 EXAMINE \"DeltaChat\"
         {chats}
         (opened DeltaChat)
         > w8 EXAMINE \"INBOX\"
         {eight}
         > w9 NOTIFY SET STATUS (SELECTED (MessageNew ITEMS MessageExpunge)) (MAILBOXES (\"DeltaChat\") (MessageNew MessageExpunge))"
        ),
    );
}

#[test]
fn without_notify_the_spare_mailbox_is_watched_until_the_first_is_back() {
    let spare = vec![mailbox("INBOX", Some((7, 10)))];
    let idle = "S: +
         (watching)
         (later 9m)
         > DONE
        ";
    let watch =
        WatchTerms { mailboxes: vec![mailbox("DeltaChat", Some((3, 5)))], spare, ..watch(None) };
    let (first, back, inbox) = (opened(2, 7, 10), opened(5, 3, 5), opened(6, 7, 11));
    let script = format!(
        "{REFUSED}{first}> w3 IDLE\n{idle}S: w3 OK\n> w4 IDLE\n{idle}S: w4 OK\n> w5 EXAMINE \"DeltaChat\"\n"
    );
    play_watch(
        watch.clone(),
        &format!(
            "{script}{back}
             (opened DeltaChat)
             > w6 IDLE"
        ),
    );
    // It is refused again: back to the spare one, whose position was kept.
    play_watch(
        watch.clone(),
        &format!(
            "{script}S: w5 NO no such mailbox
             (left out DeltaChat: no such mailbox)
             > w6 EXAMINE \"INBOX\"
             {inbox}
             > w7 UID FETCH 10:* ITEMS"
        ),
    );
    // Nothing is left.
    let refused = "> w1 EXAMINE \"DeltaChat\"
         S: w1 NO no
         (left out DeltaChat: no)
         > w2 EXAMINE \"INBOX\"
         S: w2 NO not this either
         (failed)";
    assert_eq!(play_watch(watch, refused), Some(IdleFailure::NoMailbox("not this either".into())));
}
