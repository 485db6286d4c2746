//! Dialogues of sessions that are kept: what their clients hear, and how they come to rest.

use super::keeping::{ChangedState, DrainStep, ObservedEvent};
use super::*;

/// Records what a session says, and what it shows.
#[derive(Default)]
struct Recorded {
    client: Vec<u8>,
    upstream: Vec<u8>,
    seen: Vec<String>,
    looks: bool,
}

impl Output for Recorded {
    fn to_client(&mut self, bytes: &[u8]) {
        self.client.extend_from_slice(bytes);
    }
    fn to_upstream(&mut self, bytes: &[u8]) {
        self.upstream.extend_from_slice(bytes);
    }
    fn compress(&mut self) {}
    fn request(&mut self, _: Request) {}
    fn idles_in(&mut self, _: &str) {}
    fn fetches(&mut self) {}
    fn tokens(&self) -> Vec<DeviceToken> {
        vec![]
    }
    fn push_status(&self) -> String {
        String::new()
    }
    fn sees(&mut self, glimpse: ObservedEvent<'_>) {
        self.seen.push(match glimpse {
            ObservedEvent::Response(line) => String::from_utf8_lossy(line).trim_end().to_owned(),
            other => format!("{other:?}"),
        });
    }
    fn looks_for_mail(&self) -> bool {
        self.looks
    }
    fn transcript(&mut self) -> Option<&mut dyn Transcript> {
        None
    }
}

struct Stage {
    session: Session,
    out: Recorded,
    waiting: Vec<u8>,
    step: usize,
}

impl Stage {
    fn new(step: usize) -> Self {
        let settings = SessionSettings {
            entries: vec![],
            native: Native::Passthrough,
            keepalive: None,
            push_status: false,
            jmapaccess: JmapAccess::Strip,
            max_command: 8192,
            max_response: 8192,
        };
        let session = Session::new(
            Arc::new(settings),
            UpstreamTraits { id: true, ..UpstreamTraits::default() },
        )
        .kept();
        Self { session, out: Recorded::default(), waiting: vec![], step }
    }

    fn client(&mut self, text: &str) -> &mut Self {
        for chunk in text.as_bytes().chunks(self.step) {
            self.waiting.extend_from_slice(chunk);
            self.feed();
        }
        self
    }

    fn feed(&mut self) {
        while self.session.takes_client_input() && !self.waiting.is_empty() {
            let used = self.session.from_client(&self.waiting, &mut self.out);
            self.waiting.drain(..used);
            if used == 0 {
                return;
            }
        }
    }

    fn upstream(&mut self, text: &str) -> &mut Self {
        for chunk in text.as_bytes().chunks(self.step) {
            self.session.from_upstream(chunk, &mut self.out);
            self.feed();
        }
        self
    }

    /// What the upstream got since this was asked last.
    fn sent(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.out.upstream)).unwrap()
    }

    fn heard(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.out.client)).unwrap()
    }

    fn settle(&mut self) -> (DrainStep, String) {
        let settling = self.session.settle(&mut self.out);
        (settling, self.sent())
    }

    /// The upstream says something, and then the session is asked how it is.
    fn says(&mut self, text: &str) -> (DrainStep, String) {
        let mut settling = DrainStep::Waiting;
        for chunk in text.as_bytes().chunks(self.step) {
            self.session.from_upstream(chunk, &mut self.out);
            settling = self.session.settle(&mut self.out);
        }
        (settling, self.sent())
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
        assert!(it.session.is_over());
        // What comes now is nobody's, but is not lost count of.
        it.upstream("* 4 EX");
        assert_eq!((it.heard(), it.sent()), (String::new(), String::new()));
        assert_eq!(it.settle(), waiting(""));
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
        assert!(!it.session.owes_answers());
        it.sent();
        assert_eq!(it.settle(), waiting("DONE\r\n"));
        assert_eq!(it.says("* 2 EXISTS\r\nb OK\r\n"), settled(""));
    });
    // The server has not said yet that it begins.
    in_any_chunks(|mut it| {
        it.client("b IDLE\r\n");
        it.sent();
        assert_eq!(it.settle(), waiting(""));
        assert_eq!(it.says("+ idling\r\n"), waiting("DONE\r\n"));
        assert_eq!(it.says("b OK\r\n"), settled(""));
    });
    // It refuses.
    in_any_chunks(|mut it| {
        it.client("b IDLE\r\n");
        it.sent();
        assert_eq!(it.settle(), waiting(""));
        assert_eq!(it.says("b NO not now\r\n"), settled(""));
    });
    // Half of its end was sent.
    in_any_chunks(|mut it| {
        it.client("b IDLE\r\n").upstream("+ idling\r\n").client("DON");
        it.sent();
        assert_eq!(it.settle(), waiting("DONE\r\n"));
        assert_eq!(it.says("b OK done\r\n"), settled(""));
    });
}

#[test]
fn commands_under_way_are_awaited_with_all_their_responses() {
    in_any_chunks(|mut it| {
        it.client("a UID FETCH 1 BODY[]\r\nb NOOP\r\nc STORE 1 FL");
        it.upstream("* 1 FETCH (BODY[] {10}\r\nb O");
        assert!(it.session.owes_answers());
        it.sent();
        assert!(matches!(it.settle().0, DrainStep::Lost(_)), "half a STORE may mean anything");
    });
    in_any_chunks(|mut it| {
        it.client("a UID FETCH 1 BODY[]\r\nb NOOP\r\n");
        it.upstream("* 1 FETCH (BODY[] {10}\r\nb O");
        it.sent();
        assert_eq!(it.settle(), waiting(""));
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
        assert!(matches!(it.settle().0, DrainStep::Lost(_)));
        assert_eq!(it.sent(), "");
    });
    // The server may still refuse it.
    in_any_chunks(|mut it| {
        it.client("a APPEND INBOX {20}\r\n");
        it.sent();
        assert_eq!(it.settle(), waiting(""));
        assert_eq!(it.says("a NO [OVERQUOTA] no\r\n"), settled(""));
    });
    in_any_chunks(|mut it| {
        it.client("a APPEND INBOX {20}\r\n");
        it.settle();
        assert!(matches!(it.says("+ go on\r\n").0, DrainStep::Lost(_)));
    });
}

#[test]
fn query_is_ended_by_any_answer() {
    in_any_chunks(|mut it| {
        it.client("a UID SEARCH SUBJECT {5}\r\n").upstream("+\r\n").client("ab");
        it.sent();
        assert_eq!(it.settle(), waiting("xxx\r\n"));
        assert_eq!(it.says("* SEARCH\r\na OK\r\n"), settled(""));
    });
}

#[test]
fn command_that_deltapush_holds_leaves_no_trace() {
    in_any_chunks(|mut it| {
        it.client("a SETMETADATA INBOX (/private/devicetoken {20}\r\nabc");
        assert_eq!(it.settle(), settled(""));
    });
    in_any_chunks(|mut it| {
        it.client("a NO");
        assert_eq!(it.settle(), settled(""));
    });
}

#[test]
fn set_state_is_known() {
    let set = |dialogue: &[(&str, &str)]| {
        let mut it = Stage::new(5);
        for (said, answer) in dialogue {
            it.client(said).upstream(answer);
        }
        it.session.set()
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
            std::mem::take(&mut it.out.seen),
            [
                "Opening",
                "* 3 EXISTS",
                "* OK [UIDVALIDITY 7] x",
                "* OK [UIDNEXT 4] x",
                "Opened(\"INBOX\")"
            ]
        );
        it.client("b UID FETCH 1:3 FLAGS\r\n").upstream("* 1 FETCH (UID 1)\r\nb OK\r\n");
        assert_eq!(std::mem::take(&mut it.out.seen), ["Fetched { from: None }"]);
        it.upstream("* 4 EXISTS\r\n");
        it.out.looks = true;
        it.client("c UID FETCH 4:* (FLAGS BODY.PEEK[HEADER])\r\n");
        it.upstream("* 4 FETCH (UID 4 BODY[HEADER] {6}\r\nA: b\r\n)\r\nc OK\r\n");
        assert_eq!(
            std::mem::take(&mut it.out.seen),
            [
                "* 4 EXISTS",
                "* 4 FETCH (UID 4 BODY[HEADER] {6}\r\nA: b\r\n)",
                "Fetched { from: Some(4) }"
            ]
        );
        it.client("d CLOSE\r\n").upstream("d OK\r\n");
        assert_eq!(it.out.seen, ["Closed"]);
    });
}
