//! Dialogues of sessions that are kept: what their clients get, and how they are drained.

use std::time::Instant;

use crate::machine::script::{Done, Playable, Player, Said};
use crate::proxy::session::testing::{Unheard, write_log};
use crate::proxy::session::*;
use crate::proxy::session_log::{self, LoggedAction, LoggedEvent, LoggedSession};

/// A session in a script that is drained once its client is gone.
struct KeptSession {
    it: LoggedSession,
    drained: Option<DrainStep>,
}

/// A session that may be kept.
fn kept() -> LoggedSession {
    let upstream = UpstreamTraits { id: true, ..UpstreamTraits::default() };
    LoggedSession::new(Session::new(Arc::new(session_log::settings()), upstream).kept())
}

/// As all sessions, and `(hangs up)`: the client is gone. Then the session is `(settled)` or `(lost)` at last.
impl Playable for KeptSession {
    type End = ();

    const RELAYS: bool = true;

    fn play(&mut self, said: Said<'_>, now: Instant, done: &mut Done<()>) -> bool {
        match (said, self.drained) {
            (Said::Event("hangs up"), None) => {}
            (Said::Server(bytes), Some(_)) => self.it.upstream_says(bytes),
            (said, None) => return self.it.play(said, now, done),
            (_, Some(_)) => return false,
        }
        let step = self.it.drain();
        // Nobody hears it any more.
        self.it.log.order.retain(|action| !matches!(action, LoggedAction::ToClient(_)));
        write_log(&mut self.it, done);
        if self.drained != Some(step) {
            match step {
                DrainStep::Waiting => {}
                DrainStep::Settled => done.did("settled"),
                DrainStep::Lost(_) => done.did("lost"),
            }
        }
        self.drained = Some(step);
        true
    }
}

/// Plays a script in pieces of several lengths.
fn play(script: &str) {
    play_where(script, |_| true, "");
}

/// The same with a property that the session must have between the two parts of a script.
fn play_where(script: &str, is: impl Fn(&Session) -> bool, rest: &str) {
    for step in [1, 3, 4096] {
        let it = kept();
        let now = it.now;
        let mut player = Player::new(KeptSession { it, drained: None }, now).in_pieces(step);
        player.play(script);
        assert!(is(&player.machine.it.session), "after {script}");
        player.play(rest);
        player.end();
    }
}

#[test]
fn logout_is_answered_and_not_sent_upstream() {
    // Commands from before are answered first. Later ones are nobody's, and are counted all the same.
    play_where(
        "C: a SELECT INBOX
         > a SELECT INBOX
         C: b LOGOUT
         C: c NOOP
         S: * 3 EXISTS
         < * 3 EXISTS
         S: a OK done
         < a OK done
         < * BYE Logging out.
         < b OK LOGOUT completed",
        Session::is_over,
        "S: * 4 EX\\
         (hangs up)
         S: ISTS
         (settled)",
    );
}

#[test]
fn idle_is_ended_and_its_end_awaited() {
    play_where(
        "C: a SELECT INBOX
         > a SELECT INBOX
         S: a OK
         < a OK
         C: b IDLE
         > b IDLE
         S: + idling
         (idles in INBOX)
         < + idling
         S: * 1 EXISTS
         < * 1 EXISTS",
        |session| !session.owes_answers(),
        "(hangs up)
         > DONE
         S: * 2 EXISTS
         S: b OK
         (settled)",
    );
    // The server has not said yet that it begins.
    play(
        "C: b IDLE
         > b IDLE
         (hangs up)
         S: + idling
         > DONE
         S: b OK
         (settled)",
    );
    // It refuses.
    play(
        "C: b IDLE
         > b IDLE
         (hangs up)
         S: b NO not now
         (settled)",
    );
    // Half of its end was sent.
    play(
        "C: b IDLE
         > b IDLE
         S: + idling
         < + idling
         C: DON\\
         (hangs up)
         > DONE
         S: b OK done
         (settled)",
    );
}

#[test]
fn commands_under_way_are_awaited_with_all_their_responses() {
    // Half a STORE may mean anything.
    play_where(
        "C: a UID FETCH 1 BODY[]
         > a UID FETCH 1 BODY[]
         C: b NOOP
         > b NOOP
         C: c STORE 1 FL\\
         > c STORE 1 FL\\
         S: * 1 FETCH (BODY[] {10}
         < * 1 FETCH (BODY[] {10}
         S: b O\\
         < b O\\",
        Session::owes_answers,
        "(hangs up)
         (lost)",
    );
    // A literal ends no command.
    play(
        "C: a UID FETCH 1 BODY[]
         > a UID FETCH 1 BODY[]
         C: b NOOP
         > b NOOP
         S: * 1 FETCH (BODY[] {10}
         < * 1 FETCH (BODY[] {10}
         S: b O\\
         < b O\\
         (hangs up)
         S: K x
         S: a OK)
         S: b OK done
         S: a OK done
         (settled)",
    );
}

#[test]
fn half_a_message_is_never_appended() {
    play(
        "C: a APPEND INBOX {20+}
         > a APPEND INBOX {20+}
         C: From: bob\\
         > From: bob\\
         (hangs up)
         (lost)",
    );
    // The server may still refuse it.
    play(
        "C: a APPEND INBOX {20}
         > a APPEND INBOX {20}
         (hangs up)
         S: a NO [OVERQUOTA] no
         (settled)",
    );
    play(
        "C: a APPEND INBOX {20}
         > a APPEND INBOX {20}
         (hangs up)
         S: + go on
         (lost)",
    );
}

#[test]
fn query_is_ended_by_any_answer() {
    play(
        "C: a UID SEARCH SUBJECT {5}
         > a UID SEARCH SUBJECT {5}
         S: +
         < +
         C: ab\\
         > ab\\
         (hangs up)
         > xxx
         S: * SEARCH
         S: a OK
         (settled)",
    );
}

#[test]
fn command_that_deltapush_holds_leaves_no_trace() {
    play(
        "C: a SETMETADATA INBOX (/private/devicetoken {20}
         < + OK
         C: abc\\
         (hangs up)
         (settled)",
    );
    play("C: a NO\\\n (hangs up)\n (settled)");
}

#[test]
fn set_state_is_known() {
    let set = |script: &str| {
        let mut player = Player::new(Unheard(kept()), Instant::now()).in_pieces(5);
        player.play(script);
        player.end().0.0.session.changed_state()
    };
    let fresh = ChangedState::default();
    assert_eq!(set("C: a SELECT INBOX\n S: a OK\n C: b UID FETCH 1:* (FLAGS)\n S: b OK"), fresh);
    assert_eq!(set("C: a ID NIL\n S: a OK\n C: b IDLE\n S: +\n C: DONE\n S: b OK"), fresh);
    let anything = ChangedState { anything: true, ..fresh };
    assert_eq!(set("C: a SELECT INBOX (CONDSTORE)\n S: a OK"), anything);
    assert_eq!(set("C: a UID FETCH 1:* (FLAGS) (CHANGEDSINCE 7)\n S: a OK"), anything);
    assert_eq!(set("C: a ENABLE QRESYNC\n S: a OK"), anything);
    assert_eq!(set("C: a ENABLE UTF8=ACCEPT\n S: a OK"), ChangedState { utf8: true, ..anything });
    assert_eq!(set("C: a ENABLE UTF8=ACCEPT\n S: a BAD"), anything);
    assert_eq!(set("C: a NOTIFY NONE\n S: a OK"), ChangedState { notify: true, ..anything });
    assert_eq!(set("C: a XYZZY\n S: a OK"), anything);
}

#[test]
fn new_mail_is_seen_as_it_passes() {
    for step in [1, 3, 4096] {
        let mut player = Player::new(Unheard(kept()), Instant::now()).in_pieces(step);
        let mut observed = |script: &str, copies_fetches: bool| {
            player.machine.0.handle(SessionInput::CopiesFetches(copies_fetches));
            player.play(script);
            let text = |event| match event {
                LoggedEvent::Response(line) => {
                    String::from_utf8(line).unwrap().trim_end().to_owned()
                }
                other => format!("{other:?}"),
            };
            let events = std::mem::take(&mut player.machine.0.log.observed);
            events.into_iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(
            observed(
                "C: a SELECT INBOX
                 S: * 3 EXISTS
                 S: * OK [UIDVALIDITY 7] x
                 S: * OK [UIDNEXT 4] x
                 S: * FLAGS ()
                 S: a OK [READ-WRITE] x",
                false
            ),
            [
                "Opening",
                "* 3 EXISTS",
                "* OK [UIDVALIDITY 7] x",
                "* OK [UIDNEXT 4] x",
                "Opened(\"INBOX\")"
            ]
        );
        assert_eq!(
            observed("C: b UID FETCH 1:3 FLAGS\n S: * 1 FETCH (UID 1)\n S: b OK", false),
            ["Fetched { from: None }"]
        );
        assert_eq!(observed("S: * 4 EXISTS", false), ["* 4 EXISTS"]);
        assert_eq!(
            observed(
                "C: c UID FETCH 4:* (FLAGS BODY.PEEK[HEADER])
                 S: * 4 FETCH (UID 4 BODY[HEADER] {A: b|})
                 S: c OK",
                true
            ),
            ["* 4 FETCH (UID 4 BODY[HEADER] {6}\r\nA: b\r\n)", "Fetched { from: Some(4) }"]
        );
        assert_eq!(observed("C: d CLOSE\n S: d OK", true), ["Closed"]);
    }
}
