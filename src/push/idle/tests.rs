//! Dialogues of the watching machine, in virtual time.

use std::time::{Duration, Instant};

use super::testing::*;
use super::*;
use crate::machine::script::{Player, with_literals};
use crate::push::filter::{PushDecision, PushFilter};

#[test]
fn first_watch_notes_where_it_begins_and_announces_nothing() {
    play(
        None,
        "> w1 EXAMINE \"INBOX\"
         S: * 4 EXISTS
         S: * OK [UIDVALIDITY 7] ok
         S: * OK [UIDNEXT 10] ok
         S: w1 OK [READ-ONLY] done
         (noted 7 10)
         > w2 IDLE
         S: + idling
         (watching)",
    );
}

#[test]
fn news_is_fetched_judged_and_announced() {
    after_quiet(
        "S: * 5 EXISTS
         > DONE
         S: * 1 RECENT
         S: w2 OK Idle completed
         > w3 UID FETCH 10:* ITEMS
         S: * 5 FETCH (UID 10 FLAGS (\\Recent) BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {From: bob@b.org||})
         S: w3 OK Fetch completed
         (announced 7 11)
         > w4 IDLE
         S: + idling
         (watching)",
    );
}

#[test]
fn message_without_a_push_only_moves_the_position() {
    after_quiet(
        "S: * 6 EXISTS
         > DONE
         S: w2 OK
         > w3 UID FETCH 10:* ITEMS
         S: * 5 FETCH (UID 10 FLAGS (\\Seen) BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {From: bob@b.org||})
         S: * 6 FETCH (BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {From: Alice@example.org||} UID 12 FLAGS ())
         S: w3 OK
         (noted 7 13)
         > w4 IDLE",
    );
}

#[test]
fn mail_that_came_while_nobody_watched_is_announced() {
    play(
        Some((7, 10)),
        "> w1 EXAMINE \"INBOX\"
         S: * 5 EXISTS
         S: * OK [UIDVALIDITY 7] ok
         S: * OK [UIDNEXT 14] ok
         S: w1 OK done
         > w2 UID FETCH 10:* ITEMS
         S: * 5 FETCH (UID 12 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {|})
         S: w2 OK
         (announced 7 13)
         > w3 IDLE",
    );
}

#[test]
fn news_between_fetch_and_idle_is_not_lost() {
    after_quiet(
        "S: * 5 EXISTS
         > DONE
         S: w2 OK
         > w3 UID FETCH 10:* ITEMS
         S: * 5 FETCH (UID 10 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {|})
         S: * 6 EXISTS
         S: w3 OK
         (announced 7 11)
         > w4 UID FETCH 11:* ITEMS
         S: * 6 FETCH (UID 11 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {|})
         S: w4 OK
         (announced 7 12)
         > w5 IDLE",
    );
}

#[test]
fn news_before_the_continuation_ends_idle_at_once() {
    play(
        Some((7, 10)),
        "> w1 EXAMINE \"INBOX\"
         S: * 4 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: * OK [UIDNEXT 10]
         S: w1 OK
         > w2 IDLE
         S: * 5 EXISTS
         S: +
         (watching)
         > DONE
         S: w2 OK
         > w3 UID FETCH 10:* ITEMS",
    );
}

#[test]
fn nothing_new_at_all_brings_the_last_message_which_is_known() {
    after_quiet(
        "S: * 3 EXPUNGE
         S: * 3 EXISTS
         > DONE
         S: w2 OK
         > w3 UID FETCH 10:* ITEMS
         S: * 3 FETCH (UID 9 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {|})
         S: w3 OK
         > w4 IDLE",
    );
}

#[test]
fn mailbox_emptied_and_refilled_within_one_idle_is_seen() {
    after_quiet(
        "S: * 1 EXPUNGE
         S: * 1 EXPUNGE
         S: * 1 EXPUNGE
         S: * 1 EXPUNGE
         S: * 0 EXISTS
         > DONE
         S: * 1 EXISTS
         S: w2 OK
         > w3 UID FETCH 10:* ITEMS
         S: * 1 FETCH (UID 10 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {|})
         S: w3 OK
         (announced 7 11)
         > w4 IDLE",
    );
}

#[test]
fn empty_mailbox_is_not_fetched_from() {
    after_quiet("S: * 0 EXISTS\n > DONE\n S: w2 OK\n > w3 IDLE");
}

#[test]
fn flags_and_keepalives_are_no_news() {
    after_quiet(
        "S: * OK Still here
         S: * 2 FETCH (FLAGS (\\Seen))
         S: * 4 EXPUNGE
         S: * 1 RECENT",
    );
}

#[test]
fn server_without_uidnext_is_asked_for_its_last_uid() {
    play(
        None,
        "> w1 EXAMINE \"INBOX\"
         S: * 4 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: w1 OK
         > w2 UID FETCH * (UID)
         S: * 4 FETCH (UID 41)
         S: w2 OK
         (noted 7 42)
         > w3 IDLE",
    );
    play(
        Some((7, 42)),
        "> w1 EXAMINE \"INBOX\"
         S: * 4 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: w1 OK
         > w2 UID FETCH 42:* ITEMS
         S: * 4 FETCH (UID 41 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {|})
         S: w2 OK
         > w3 IDLE",
    );
    play(
        None,
        "> w1 EXAMINE \"INBOX\"\n S: * 0 EXISTS\n S: * OK [UIDVALIDITY 7]\n S: w1 OK\n (noted 7 1)\n > w2 IDLE",
    );
}

#[test]
fn with_another_uidvalidity_the_newest_messages_are_looked_at() {
    play(
        Some((6, 500)),
        "> w1 EXAMINE \"INBOX\"
         S: * 40 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: * OK [UIDNEXT 90]
         S: w1 OK
         > w2 FETCH 9:* ITEMS
         S: * 39 FETCH (UID 88 FLAGS (\\Seen) BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {|})
         S: * 40 FETCH (UID 89 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {|})
         S: w2 OK
         (announced 7 90)
         > w3 IDLE",
    );
}

#[test]
fn idle_is_renewed_and_its_answer_has_a_deadline() {
    let failure = after_quiet(
        "(later 8m)
         (later 1m)
         > DONE
         S: w2 OK
         > w3 IDLE
         S: + idling
         (watching)
         (later 9m)
         > DONE
         (later 59s)
         (later 1s)
         (failed)
         S: w3 OK too late",
    );
    assert_eq!(failure, Some(IdleFailure::Silent));
}

/// GMX and mail.com forget an IDLE after 10 to 15 minutes without a word. The renewal may come before or after that: if no
/// answer comes to it, a minute shows it.
#[test]
fn idle_dropped_in_silence_is_found_within_the_detection_delay() {
    for renewal in [30, 540, 12 * 60, 29 * 60 - 1] {
        let watch = WatchTerms { renewal: Duration::from_secs(renewal), ..watch(Some((7, 10))) };
        let script = format!(
            "{QUIET}(later {}s)
             (later 1s)
             > DONE
             (later 59s)
             (later 1s)
             (failed)",
            renewal - 1
        );
        assert_eq!(play_watch(watch, &script), Some(IdleFailure::Silent));
        assert_eq!(
            max_detection_delay(Duration::from_secs(renewal)),
            Duration::from_secs(renewal + 60)
        );
    }
}

#[test]
fn every_command_has_a_deadline() {
    assert_eq!(
        play(None, "> w1 EXAMINE \"INBOX\"\n (later 1m)\n (failed)"),
        Some(IdleFailure::Silent)
    );
}

#[test]
fn server_that_ends_idle_by_itself_is_idled_again() {
    after_quiet(
        "S: w2 OK timeout\n > w3 IDLE\n S: * 5 EXISTS\n S: w3 OK timeout\n > w4 UID FETCH 10:* ITEMS",
    );
}

#[test]
fn causes_of_failure_are_distinguished() {
    let beginning = "> w1 EXAMINE \"INBOX\"\n S: * 1 EXISTS\n S: * OK [UIDVALIDITY 7]\n S: * OK [UIDNEXT 10]\n ";
    let failure = |script: &str| play(Some((7, 10)), &format!("{beginning}{script}")).unwrap();
    assert_eq!(
        failure("S: w1 NO not there\n (failed)"),
        IdleFailure::NoMailbox("not there".into())
    );
    assert_eq!(
        failure("S: w1 OK\n > w2 IDLE\n S: w2 BAD [CLIENTBUG] what\n (failed)"),
        IdleFailure::NoIdle("what".into())
    );
    assert_eq!(
        failure("S: w1 OK\n > w2 IDLE\n S: w2 NO later\n (failed)"),
        IdleFailure::IdleRefused("later".into())
    );
    assert_eq!(failure("S: * BYE\n (failed)"), IdleFailure::Bye(String::new()));
    let not_connected = "User is authenticated but not connected.";
    let refused = IdleFailure::IdleRefused(not_connected.into());
    assert_eq!(
        failure(&format!("S: w1 OK\n > w2 IDLE\n S: w2 BAD {not_connected}\n (failed)")),
        refused
    );
    let later =
        after_quiet("(later 9m)\n > DONE\n S: w2 OK\n > w3 IDLE\n S: w3 BAD what\n (failed)");
    assert_eq!(
        later,
        Some(IdleFailure::IdleRefused("what".into())),
        "IDLE has worked in this session"
    );
}

#[test]
fn message_that_cannot_be_read_counts_as_news() {
    after_quiet(
        "S: * 5 EXISTS
         > DONE
         S: w2 OK
         > w3 UID FETCH 10:* ITEMS
         S: * 5 FETCH (UID 10 FLAGS (\\Recent BODY[HEADER.FIELDS (FROM)] NIL)
         S: w3 OK
         (odd Unclear)
         (announced 7 11)
         > w4 IDLE",
    );
}

#[test]
fn server_that_ends_idle_at_once_is_not_asked_for_ever() {
    let failure = after_quiet(
        "S: w2 OK done
         > w3 IDLE
         S: +
         (watching)
         S: w3 OK done
         > w4 IDLE
         S: w4 OK done
         (failed)",
    );
    assert_eq!(failure, Some(IdleFailure::IdleRefused("it ends IDLE at once".into())));
}

#[test]
fn long_fetch_may_go_on_as_long_as_it_brings_something() {
    let message = "S: * 5 FETCH (UID 10 FLAGS (\\Seen) BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)]<0> {|})\n(later 59s)\n";
    let beginning = "S: * 99 EXISTS\n > DONE\n S: w2 OK\n > w3 UID FETCH 10:* ITEMS\n";
    after_quiet(&format!("{beginning}{}S: w3 OK\n (noted 7 11)\n > w4 IDLE", message.repeat(9)));
    let failure = after_quiet(&format!("{beginning}{}(later 10s)\n(failed)", message.repeat(10)));
    assert_eq!(failure, Some(IdleFailure::Silent));
}

#[test]
fn news_within_examine_is_looked_at() {
    play(
        Some((7, 10)),
        "> w1 EXAMINE \"INBOX\"
         S: * 4 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: * OK [UIDNEXT 10]\u{e4}
         S: * 5 EXISTS
         S: w1 OK
         > w2 UID FETCH 10:* ITEMS",
    );
}

#[test]
fn mail_that_came_and_went_is_noted() {
    play(
        Some((7, 10)),
        "> w1 EXAMINE \"INBOX\"
         S: * 0 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: * OK [UIDNEXT 12]
         S: w1 OK
         (noted 7 12)
         > w2 IDLE",
    );
}

#[test]
fn first_look_that_comes_late_looks_back() {
    play_watch(
        WatchTerms { late: true, ..watch(None) },
        "> w1 EXAMINE \"INBOX\"
         S: * 4 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: * OK [UIDNEXT 10]
         S: w1 OK
         > w2 FETCH 1:* ITEMS
         S: * 4 FETCH (UID 9 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)]<0> {|})
         S: w2 OK
         (announced 7 10)
         > w3 IDLE",
    );
}

#[test]
fn years_pass_in_silence_without_harm() {
    let began = Instant::now();
    let mut machine = IdleMachine::new(watch(Some((1, 1))), began);
    let mut actions = vec![];
    machine.handle(IdleInput::Start, began, &mut actions);
    for line in ["* 0 EXISTS", "* OK [UIDVALIDITY 1]", "* OK [UIDNEXT 1]", "w1 OK"] {
        machine.handle(IdleInput::Response(format!("{line}\r\n").as_bytes()), began, &mut actions);
    }
    let (mut now, mut renewals, mut tag) = (began, 0, 2);
    while now.duration_since(began) < Duration::from_secs(5 * 365 * 86400) {
        machine.handle(IdleInput::Response(b"+ idling\r\n"), now, &mut actions);
        now = machine.deadline().unwrap();
        machine.handle(IdleInput::Tick, now, &mut actions);
        machine.handle(IdleInput::Response(format!("w{tag} OK\r\n").as_bytes()), now, &mut actions);
        tag += 1;
        renewals += 1;
        assert!(
            !actions
                .iter()
                .any(|action| matches!(action, IdleAction::Failed(_) | IdleAction::Noticed { .. }))
        );
        actions.clear();
    }
    assert_eq!(renewals, 5 * 365 * 86400 / 540);
}

/// The beginning of a session with NOTIFY.
const NOTIFIED: &str = "> w1 EXAMINE \"INBOX\"
    S: * 4 EXISTS
    S: * OK [UIDVALIDITY 7] ok
    S: * OK [UIDNEXT 10] ok
    S: w1 OK [READ-ONLY] done
    > w2 NOTIFY SET (SELECTED (MessageNew ITEMS MessageExpunge))
    S: w2 OK
    > w3 IDLE
    S: + idling
    (watching)
    ";

fn with_notify(script: &str) {
    play_watch(WatchTerms { notify: true, ..watch(Some((7, 10))) }, &format!("{NOTIFIED}{script}"));
}

#[test]
fn notify_brings_flags_and_headers_without_a_round() {
    with_notify(
        "S: * 5 EXISTS
         S: * 1 RECENT
         S: * 5 FETCH (UID 10 FLAGS (\\Recent) BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {From: bob@b.org||})
         (announced 7 11)
         S: * 7 EXISTS
         S: * 6 FETCH (UID 11 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {From: alice@example.org||})
         S: * 6 FETCH (FLAGS (\\Seen))
         S: * 7 FETCH (UID 13 FLAGS (\\Seen) BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {From: bob@b.org||})
         (noted 7 14)
         (later 8m)
         (later 1m)
         > DONE
         S: w3 OK
         > w4 IDLE",
    );
}

#[test]
fn messages_that_notify_does_not_bring_are_fetched() {
    with_notify(
        "S: * 6 EXISTS
         S: * 6 FETCH (UID 11 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {|})
         (later 1s)
         (later 1s)
         > DONE
         S: w3 OK
         > w4 UID FETCH 10:* ITEMS
         S: * 5 FETCH (UID 10 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {|})
         S: * 6 FETCH (UID 11 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {|})
         S: w4 OK
         (announced 7 12)
         > w5 IDLE",
    );
}

#[test]
fn overflow_of_notify_leads_back_to_idle_alone() {
    with_notify(
        "S: * OK [NOTIFICATIONOVERFLOW] too much
         > DONE
         S: w3 OK
         > w4 UID FETCH 10:* ITEMS
         S: w4 OK
         > w5 IDLE
         S: +
         (watching)
         S: * 5 EXISTS
         > DONE",
    );
}

#[test]
fn notify_refused_is_no_harm() {
    play_watch(
        WatchTerms { notify: true, ..watch(Some((7, 10))) },
        "> w1 EXAMINE \"INBOX\"
         S: * 4 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: * OK [UIDNEXT 10]
         S: w1 OK
         > w2 NOTIFY SET (SELECTED (MessageNew ITEMS MessageExpunge))
         S: w2 NO [BADEVENT (MessageNew)] no
         > w3 IDLE
         S: +
         (watching)
         S: * 5 EXISTS
         > DONE",
    );
}

#[test]
fn mailbox_that_notify_gave_up_while_it_was_opened_is_left_out_once() {
    let mailboxes = vec![mailbox("INBOX", Some((7, 10))), mailbox("Gone", None)];
    play_watch(
        WatchTerms { notify: true, mailboxes, ..watch(None) },
        "> w1 EXAMINE \"Gone\"
         S: * OK [NOTIFICATIONOVERFLOW] too much
         (only the first)
         S: w1 NO not there
         > w2 EXAMINE \"INBOX\"",
    );
}

#[test]
fn one_session_watches_several_mailboxes_with_notify() {
    let mailboxes = vec![
        mailbox("INBOX", Some((7, 10))),
        mailbox("DeltaChat", Some((3, 5))),
        mailbox("Gone", None),
    ];
    play_watch(
        WatchTerms { notify: true, mailboxes, ..watch(None) },
        "> w1 EXAMINE \"Gone\"
         S: w1 NO not there
         (left out Gone: not there)
         > w2 EXAMINE \"DeltaChat\"
         S: * 4 EXISTS
         S: * OK [UIDVALIDITY 3]
         S: * OK [UIDNEXT 5]
         S: w2 OK
         > w3 EXAMINE \"INBOX\"
         S: * 4 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: * OK [UIDNEXT 10]
         S: w3 OK
         > w4 NOTIFY SET STATUS (SELECTED (MessageNew ITEMS MessageExpunge)) (MAILBOXES (\"DeltaChat\") (MessageNew MessageExpunge))
         S: w4 OK
         > w5 IDLE
         S: +
         (watching)
         S: * STATUS DeltaChat (MESSAGES 3 UIDNEXT 5 UIDVALIDITY 3)
         S: * STATUS DeltaChat (MESSAGES 5 UIDNEXT 6 UIDVALIDITY 3)
         > DONE
         S: w5 OK
         > w6 EXAMINE \"DeltaChat\"
         S: * 5 EXISTS
         S: * OK [UIDVALIDITY 3]
         S: * OK [UIDNEXT 6]
         S: w6 OK
         > w7 UID FETCH 5:* ITEMS
         S: * 5 FETCH (UID 5 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {|})
         S: w7 OK
         (announced 3 6 of DeltaChat)
         > w8 EXAMINE \"INBOX\"
         S: * 5 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: * OK [UIDNEXT 11]
         S: w8 OK
         > w9 UID FETCH 10:* ITEMS
         S: w9 OK
         (odd NoAnswer)
         (announced 7 11)
         > w10 IDLE",
    );
}

#[test]
fn where_notify_fails_the_other_mailboxes_are_given_up() {
    let mailboxes = || vec![mailbox("INBOX", Some((7, 10))), mailbox("DeltaChat", Some((3, 5)))];
    let beginning = "> w1 EXAMINE \"DeltaChat\"
         S: * 4 EXISTS
         S: * OK [UIDVALIDITY 3]
         S: * OK [UIDNEXT 5]
         S: w1 OK
         > w2 EXAMINE \"INBOX\"
         S: * 4 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: * OK [UIDNEXT 10]
         S: w2 OK
         > w3 NOTIFY SET STATUS (SELECTED (MessageNew ITEMS MessageExpunge)) (MAILBOXES (\"DeltaChat\") (MessageNew MessageExpunge))
         ";
    let play = |script: &str| {
        play_watch(
            WatchTerms { notify: true, mailboxes: mailboxes(), ..watch(None) },
            &format!("{beginning}{script}"),
        )
    };
    play("S: w3 NO no\n (only the first)\n > w4 IDLE");
    play(
        "S: * STATUS DeltaChat (MESSAGES 5 UIDNEXT 6 UIDVALIDITY 3)\n S: w3 OK\n > w4 EXAMINE \"DeltaChat\"",
    );
    play(
        "S: w3 OK
         > w4 IDLE
         S: +
         (watching)
         S: * OK [NOTIFICATIONOVERFLOW] too much
         (only the first)
         > DONE
         S: w4 OK
         > w5 UID FETCH 10:* ITEMS",
    );
}

#[test]
fn headers_that_no_exists_has_announced_count_too() {
    with_notify(
        "S: * 4 FETCH (UID 10 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)]<0> {|})
         (announced 7 11)",
    );
}

#[test]
fn refused_fetch_counts_for_its_responses_and_a_hopeless_one_is_not_tried() {
    let failure = after_quiet(
        "S: * 6 EXISTS
         > DONE
         S: w2 OK
         > w3 UID FETCH 10:* ITEMS
         S: * 5 FETCH (UID 10 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)]<0> {|})
         S: w3 NO [EXPUNGEISSUED] some are gone
         (announced 7 11)
         (failed)",
    );
    assert_eq!(failure, Some(IdleFailure::NoFetch("some are gone".into())));
    play_watch(
        WatchTerms { blindly: true, ..watch(Some((7, 10))) },
        "> w1 EXAMINE \"INBOX\"
         S: * 9 EXISTS
         S: * OK [UIDVALIDITY 7]
         S: * OK [UIDNEXT 14]
         S: w1 OK
         (announced 7 14)
         > w2 IDLE",
    );
}

#[test]
fn without_notify_one_session_watches_one_mailbox() {
    let mailboxes = vec![mailbox("DeltaChat", Some((7, 10))), mailbox("INBOX", None)];
    play_watch(WatchTerms { mailboxes, ..watch(None) }, "> w1 EXAMINE \"DeltaChat\"");
}

#[test]
fn with_a_grace_another_device_may_read_first() {
    play_watch(
        WatchTerms { grace: Duration::from_secs(20), ..watch(Some((7, 10))) },
        &format!(
            "{QUIET}S: * 5 EXISTS
             (later 10s)
             S: * 6 EXISTS
             (later 9s)
             (later 1s)
             > DONE
             S: w2 OK
             > w3 UID FETCH 10:* ITEMS
             S: * 5 FETCH (UID 10 FLAGS (\\Seen) BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {{|}})
             S: * 6 FETCH (UID 11 FLAGS (\\Seen) BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)] {{|}})
             S: w3 OK
             (noted 7 12)
             > w4 IDLE"
        ),
    );
}

#[test]
fn session_that_is_wanted_back_is_as_it_was_after_its_login() {
    after_quiet(
        "(wanted)
         > DONE
         S: w2 OK
         > w3 CLOSE
         S: w3 OK
         (released)
         S: * 5 EXISTS",
    );
    // News is looked at first.
    after_quiet(
        "(wanted)
         > DONE
         S: * 5 EXISTS
         S: w2 OK
         > w3 UID FETCH 10:* ITEMS
         S: * 5 FETCH (UID 10 FLAGS () BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)]<0> {From: bob@example.org||})
         S: w3 OK
         (announced 7 11)
         > w4 CLOSE
         S: w4 OK
         (released)",
    );
    // Before it waits.
    play(
        Some((7, 10)),
        "> w1 EXAMINE \"INBOX\"
         (wanted)
         S: * 4 EXISTS
         S: * OK [UIDVALIDITY 7] ok
         S: * OK [UIDNEXT 10] ok
         S: w1 OK [READ-ONLY] done
         > w2 CLOSE
         S: w2 OK
         (released)",
    );
    let mut quiet = QUIET.replace("S: + idling", "(wanted)\nS: + idling");
    quiet += "> DONE\nS: w2 OK\n> w3 CLOSE\nS: w3 OK\n(released)";
    play(Some((7, 10)), &quiet);
}

#[test]
fn state_set_earlier_in_the_session_is_respected() {
    let utf8 = InheritedState { utf8: true, notify: false };
    let draft =
        WatchTerms { mailboxes: vec![mailbox("Entw&APw-rfe", Some((7, 10)))], ..watch(None) };
    let opened = "S: * 4 EXISTS
         S: * OK [UIDVALIDITY 7] ok
         S: * OK [UIDNEXT 10] ok
         S: w1 OK [READ-ONLY] done
         > w2 IDLE
         S: + idling
         (watching)";
    play_in(utf8, draft.clone(), &format!("> w1 EXAMINE \"Entwürfe\"\n{opened}"));
    play_in(InheritedState::default(), draft, &format!("> w1 EXAMINE \"Entw&APw-rfe\"\n{opened}"));
    // Mailboxes that an earlier NOTIFY has silenced would stay silent.
    let notify = InheritedState { utf8: false, notify: true };
    let script = format!(
        "> w1 EXAMINE \"INBOX\"\n{}\n> w2 NOTIFY SET (SELECTED (MessageNew {ITEMS} MessageExpunge))\nS: w2 NO\n(failed)",
        opened.split("\n         > w2").next().unwrap()
    );
    assert!(
        play_in(notify, WatchTerms { notify: true, ..watch(Some((7, 10))) }, &script).is_some()
    );
}

#[test]
fn server_that_talks_without_news_is_given_up() {
    let now = Instant::now();
    let mut player = Player::new(IdleMachine::new(watch(Some((7, 10))), now), now);
    player.play(&QUIET.replace("4 EXISTS", "9 EXISTS"));
    // Somebody marks and deletes thousands of messages.
    for _ in 1..MAX_CHATTER / 2 {
        player.play("S: * 9 FETCH (FLAGS (\\Seen))\n S: * 9 EXPUNGE");
    }
    player.play("S: * 9 EXPUNGE\n S: * OK still here\n (failed)");
    assert_eq!(player.end().1, Some(IdleFailure::Chatter(String::new())));
    assert_eq!(
        IdleFailure::Chatter(String::new()).to_string(),
        "the mail server sent more than 20000 lines without a new message"
    );
}

#[test]
fn new_messages_and_new_commands_are_no_chatter() {
    let now = Instant::now();
    let mut player = Player::new(IdleMachine::new(watch(Some((7, 10))), now), now);
    player.play(
        &"> w1 EXAMINE \"INBOX\"
          S: * 9 EXISTS
          S: * OK [UIDVALIDITY 7]
          S: * OK [UIDNEXT 50000]
          S: w1 OK done
          > w2 UID FETCH 10:* ITEMS"
            .replace("ITEMS", ITEMS),
    );
    for uid in 10..50_000 {
        player.play(&format!("S: * 9 FETCH (UID {uid} FLAGS () BODY[HEADER.FIELDS (FROM)] {{}})"));
    }
    player.play(
        "S: w2 OK done
         (announced 7 50000)
         > w3 IDLE
         S: + idling
         (watching)",
    );
    player.end();
}

/// The stored positions, and the push decision on each message, after these responses to the first fetch.
fn found(
    judge: PushFilter,
    encrypted_only: bool,
    messages: &[&str],
) -> (Vec<bool>, bool, Vec<u64>) {
    let now = Instant::now();
    let mut machine = IdleMachine::new(WatchTerms { judge, ..watch(Some((7, 10))) }, now);
    let mut actions = vec![];
    machine.handle(IdleInput::Start, now, &mut actions);
    let says = |machine: &mut IdleMachine, line: &str, actions: &mut Vec<IdleAction>| {
        machine.handle(IdleInput::Response(&with_literals(line)), now, actions);
    };
    for line in ["* 5 EXISTS", "* OK [UIDVALIDITY 7] x", "* OK [UIDNEXT 20] x", "w1 OK x"] {
        says(&mut machine, line, &mut actions);
    }
    machine.handle(IdleInput::EncryptedOnly(encrypted_only), now, &mut actions);
    for (uid, headers) in (10..).zip(messages) {
        says(
            &mut machine,
            &format!("* 1 FETCH (UID {uid} FLAGS () BODY[HEADER.FIELDS (FROM)] {{{headers}||}})"),
            &mut actions,
        );
    }
    says(&mut machine, "w2 OK x", &mut actions);
    let judged = actions.iter().filter_map(|action| match action {
        IdleAction::Judged { verdict, .. } => Some(*verdict == PushDecision::Push),
        _ => None,
    });
    let judged = judged.collect();
    let noticed = actions.iter().find_map(|action| match action {
        IdleAction::Noticed { announce, ids, .. } => Some((*announce, ids.clone())),
        _ => None,
    });
    let (announce, ids) = noticed.unwrap();
    (judged, announce, ids)
}

#[test]
fn learned_habit_counts_in_the_middle_of_a_session() {
    let judge = PushFilter { messages: crate::policy::Messages::Auto, ..PushFilter::default() };
    let plain = ["From: bob@b.org"];
    assert_eq!(found(judge.clone(), false, &plain).0, [true]);
    assert_eq!(found(judge.clone(), true, &plain), (vec![false], false, vec![]));
    assert_eq!(
        found(judge, true, &["From: bob@b.org|Content-Type: multipart/encrypted"]).0,
        [true]
    );
}

#[test]
fn look_says_where_the_messages_that_wake_a_device_end() {
    let news_next = |messages: &[&str], uid: &str| {
        let now = Instant::now();
        let mut machine = IdleMachine::new(watch(Some((7, 10))), now);
        let mut actions = vec![];
        machine.handle(IdleInput::Start, now, &mut actions);
        let answers = (10..).zip(messages).map(|(number, headers)| {
            let uid = uid.replace('N', &number.to_string());
            format!("* {number} FETCH ({uid}FLAGS () BODY[HEADER.FIELDS (FROM)] {{{headers}||}})")
        });
        let opened = ["* 9 EXISTS", "* OK [UIDVALIDITY 7] x", "* OK [UIDNEXT 20] x", "w1 OK x"];
        let opened = opened.iter().map(ToString::to_string);
        for line in opened.chain(answers).chain(["w2 OK x".to_owned()]) {
            machine.handle(IdleInput::Response(&with_literals(&line)), now, &mut actions);
        }
        actions.iter().find_map(|action| match action {
            IdleAction::Noticed { look, .. } => Some((look.news_next, look.position.uid_next)),
            _ => None,
        })
    };
    let (news, own) = ("From: bob@b.org", "From: alice@example.org");
    assert_eq!(news_next(&[news, own, own], "UID N "), Some((11, 13)));
    assert_eq!(news_next(&[own, news, own], "UID N "), Some((12, 13)));
    assert_eq!(news_next(&[own, own], "UID N "), Some((12, 12)), "there are none");
    let unknown = news_next(&[news, own], "").unwrap();
    assert_eq!(unknown.0, unknown.1, "where is not known");
}

#[test]
fn messages_that_wake_a_device_are_told_apart_if_all_have_ids() {
    let id = |number| format!("From: bob@b.org|Message-ID: <{number}@b.org>");
    let (one, two) = (id(1), id(2));
    let all = found(PushFilter::default(), false, &[&one, &two]).2;
    assert_eq!(all.len(), 2);
    assert_eq!(found(PushFilter::default(), false, &[&two]).2, all[1..]);
    assert!(
        found(PushFilter::default(), false, &[&one, "From: bob@b.org"]).2.is_empty(),
        "of one it is not known"
    );
}
