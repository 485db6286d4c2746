//! Dialogues of sessions that are kept: what their clients hear, and how they come to rest.

use super::*;
use crate::proxy::session_log::{self, LoggedEvent, LoggedSession};

struct Stage {
    it: LoggedSession,
    /// The observer wants what the client fetches.
    looks: bool,
    step: usize,
}

impl Stage {
    fn new(step: usize) -> Self {
        let upstream = UpstreamTraits { id: true, ..UpstreamTraits::default() };
        let session = Session::new(Arc::new(session_log::settings()), upstream).kept();
        Self { it: LoggedSession::new(session), looks: false, step }
    }

    fn client(&mut self, text: &str) -> &mut Self {
        text.as_bytes().chunks(self.step).for_each(|chunk| self.it.client_says(chunk));
        self
    }

    fn hears(&mut self, chunk: &[u8]) {
        self.it.handle(SessionInput::CopiesFetches(self.looks));
        self.it.upstream_says(chunk);
    }

    fn upstream(&mut self, text: &str) -> &mut Self {
        for chunk in text.as_bytes().chunks(self.step) {
            self.hears(chunk);
            self.it.feed();
        }
        self
    }

    /// Bytes to the upstream since the last call.
    fn sent(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.it.log.upstream)).unwrap()
    }

    fn heard(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.it.log.client)).unwrap()
    }

    fn drain(&mut self) -> (DrainStep, String) {
        (self.it.drain(), self.sent())
    }

    /// The upstream says something, and then the session is asked how it is.
    fn says(&mut self, text: &str) -> (DrainStep, String) {
        let mut step = DrainStep::Waiting;
        for chunk in text.as_bytes().chunks(self.step) {
            self.hears(chunk);
            step = self.it.drain();
        }
        (step, self.sent())
    }

    /// The events for the observer of new mail since the last call.
    fn observed(&mut self) -> Vec<String> {
        let events = std::mem::take(&mut self.it.log.observed).into_iter();
        let text = |event| match event {
            LoggedEvent::Response(line) => String::from_utf8(line).unwrap().trim_end().to_owned(),
            other => format!("{other:?}"),
        };
        events.map(text).collect()
    }
}

fn in_any_chunks(test: impl Fn(Stage)) {
    [1, 3, 4096].into_iter().for_each(|step| test(Stage::new(step)));
}

fn settled(sent: &str) -> (DrainStep, String) {
    (DrainStep::Settled, sent.to_owned())
}

fn waiting(sent: &str) -> (DrainStep, String) {
    (DrainStep::Waiting, sent.to_owned())
}

#[test]
fn logout_is_answered_and_not_sent_upstream() {
    in_any_chunks(|mut it| {
        it.client("a SELECT INBOX\r\nb LOGOUT\r\nc NOOP\r\n");
        assert_eq!(it.sent(), "a SELECT INBOX\r\n");
        assert_eq!(it.heard(), "", "what came before is answered first");
        it.upstream("* 3 EXISTS\r\na OK done\r\n");
        assert_eq!(
            it.heard(),
            "* 3 EXISTS\r\na OK done\r\n* BYE Logging out.\r\nb OK LOGOUT completed\r\n"
        );
        assert!(it.it.session.is_over());
        // What comes now is nobody's, but is not lost count of.
        it.upstream("* 4 EX");
        assert_eq!((it.heard(), it.sent()), (String::new(), String::new()));
        assert_eq!(it.drain(), waiting(""));
        assert_eq!(it.says("ISTS\r\n"), settled(""));
    });
}

#[test]
fn idle_is_ended_and_its_end_awaited() {
    in_any_chunks(|mut it| {
        it.client("a SELECT INBOX\r\n")
            .upstream("a OK\r\n")
            .client("b IDLE\r\n")
            .upstream("+ idling\r\n* 1 EXISTS\r\n");
        assert!(!it.it.session.owes_answers());
        it.sent();
        assert_eq!(it.drain(), waiting("DONE\r\n"));
        assert_eq!(it.says("* 2 EXISTS\r\nb OK\r\n"), settled(""));
    });
    // The server has not said yet that it begins.
    in_any_chunks(|mut it| {
        it.client("b IDLE\r\n");
        it.sent();
        assert_eq!(it.drain(), waiting(""));
        assert_eq!(it.says("+ idling\r\n"), waiting("DONE\r\n"));
        assert_eq!(it.says("b OK\r\n"), settled(""));
    });
    // It refuses.
    in_any_chunks(|mut it| {
        it.client("b IDLE\r\n");
        it.sent();
        assert_eq!(it.drain(), waiting(""));
        assert_eq!(it.says("b NO not now\r\n"), settled(""));
    });
    // Half of its end was sent.
    in_any_chunks(|mut it| {
        it.client("b IDLE\r\n").upstream("+ idling\r\n").client("DON");
        it.sent();
        assert_eq!(it.drain(), waiting("DONE\r\n"));
        assert_eq!(it.says("b OK done\r\n"), settled(""));
    });
}

#[test]
fn commands_under_way_are_awaited_with_all_their_responses() {
    in_any_chunks(|mut it| {
        it.client("a UID FETCH 1 BODY[]\r\nb NOOP\r\nc STORE 1 FL");
        it.upstream("* 1 FETCH (BODY[] {10}\r\nb O");
        assert!(it.it.session.owes_answers());
        it.sent();
        assert!(matches!(it.drain().0, DrainStep::Lost(_)), "half a STORE may mean anything");
    });
    in_any_chunks(|mut it| {
        it.client("a UID FETCH 1 BODY[]\r\nb NOOP\r\n");
        it.upstream("* 1 FETCH (BODY[] {10}\r\nb O");
        it.sent();
        assert_eq!(it.drain(), waiting(""));
        assert_eq!(
            it.says("K x\r\na OK)\r\nb OK done\r\n"),
            waiting(""),
            "a literal ends no command"
        );
        assert_eq!(it.says("a OK done\r\n"), settled(""));
    });
}

#[test]
fn half_a_message_is_never_appended() {
    in_any_chunks(|mut it| {
        it.client("a APPEND INBOX {20+}\r\nFrom: bob");
        assert!(matches!(it.drain().0, DrainStep::Lost(_)));
        assert_eq!(it.sent(), "");
    });
    // The server may still refuse it.
    in_any_chunks(|mut it| {
        it.client("a APPEND INBOX {20}\r\n");
        it.sent();
        assert_eq!(it.drain(), waiting(""));
        assert_eq!(it.says("a NO [OVERQUOTA] no\r\n"), settled(""));
    });
    in_any_chunks(|mut it| {
        it.client("a APPEND INBOX {20}\r\n");
        it.drain();
        assert!(matches!(it.says("+ go on\r\n").0, DrainStep::Lost(_)));
    });
}

#[test]
fn query_is_ended_by_any_answer() {
    in_any_chunks(|mut it| {
        it.client("a UID SEARCH SUBJECT {5}\r\n").upstream("+\r\n").client("ab");
        it.sent();
        assert_eq!(it.drain(), waiting("xxx\r\n"));
        assert_eq!(it.says("* SEARCH\r\na OK\r\n"), settled(""));
    });
}

#[test]
fn command_that_deltapush_holds_leaves_no_trace() {
    in_any_chunks(|mut it| {
        it.client("a SETMETADATA INBOX (/private/devicetoken {20}\r\nabc");
        assert_eq!(it.drain(), settled(""));
    });
    in_any_chunks(|mut it| {
        it.client("a NO");
        assert_eq!(it.drain(), settled(""));
    });
}

#[test]
fn set_state_is_known() {
    let set = |dialogue: &[(&str, &str)]| {
        let mut it = Stage::new(5);
        for (said, answer) in dialogue {
            it.client(said).upstream(answer);
        }
        it.it.session.set()
    };
    let fresh = ChangedState::default();
    assert_eq!(
        set(&[("a SELECT INBOX\r\n", "a OK\r\n"), ("b UID FETCH 1:* (FLAGS)\r\n", "b OK\r\n")]),
        fresh
    );
    assert_eq!(
        set(&[("a ID NIL\r\n", "a OK\r\n"), ("b IDLE\r\n", "+\r\n"), ("DONE\r\n", "b OK\r\n")]),
        fresh
    );
    let anything = ChangedState { anything: true, ..fresh };
    assert_eq!(set(&[("a SELECT INBOX (CONDSTORE)\r\n", "a OK\r\n")]), anything);
    assert_eq!(set(&[("a UID FETCH 1:* (FLAGS) (CHANGEDSINCE 7)\r\n", "a OK\r\n")]), anything);
    assert_eq!(set(&[("a ENABLE QRESYNC\r\n", "a OK\r\n")]), anything);
    assert_eq!(
        set(&[("a ENABLE UTF8=ACCEPT\r\n", "a OK\r\n")]),
        ChangedState { utf8: true, ..anything }
    );
    assert_eq!(set(&[("a ENABLE UTF8=ACCEPT\r\n", "a BAD\r\n")]), anything);
    assert_eq!(
        set(&[("a NOTIFY NONE\r\n", "a OK\r\n")]),
        ChangedState { notify: true, ..anything }
    );
    assert_eq!(set(&[("a XYZZY\r\n", "a OK\r\n")]), anything);
}

#[test]
fn new_mail_is_seen_as_it_passes() {
    in_any_chunks(|mut it| {
        it.client("a SELECT INBOX\r\n");
        it.upstream(
            "* 3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 4] x\r\n* FLAGS ()\r\na OK [READ-WRITE] x\r\n",
        );
        assert_eq!(
            it.observed(),
            [
                "Opening",
                "* 3 EXISTS",
                "* OK [UIDVALIDITY 7] x",
                "* OK [UIDNEXT 4] x",
                "Opened(\"INBOX\")"
            ]
        );
        it.client("b UID FETCH 1:3 FLAGS\r\n").upstream("* 1 FETCH (UID 1)\r\nb OK\r\n");
        assert_eq!(it.observed(), ["Fetched { from: None }"]);
        it.upstream("* 4 EXISTS\r\n");
        it.looks = true;
        it.client("c UID FETCH 4:* (FLAGS BODY.PEEK[HEADER])\r\n");
        it.upstream("* 4 FETCH (UID 4 BODY[HEADER] {6}\r\nA: b\r\n)\r\nc OK\r\n");
        assert_eq!(
            it.observed(),
            [
                "* 4 EXISTS",
                "* 4 FETCH (UID 4 BODY[HEADER] {6}\r\nA: b\r\n)",
                "Fetched { from: Some(4) }"
            ]
        );
        it.client("d CLOSE\r\n").upstream("d OK\r\n");
        assert_eq!(it.observed(), ["Closed"]);
    });
}
