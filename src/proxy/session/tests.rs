//! Dialogues: every script is played in whole lines and one byte at a time, with and without a transcript.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::trace::Recorder;
use crate::trace::testing::Shown;

const TOKEN: &str = "openpgp:c2VjcmV0";

/// Plays both peers and keeps what came out.
pub(super) struct Stage {
    pub(super) session: Session,
    out: Recorded,
    /// What the client has sent and the session has not taken.
    waiting: VecDeque<u8>,
    byte_by_byte: bool,
}

struct Recorded {
    client: Vec<u8>,
    upstream: Vec<u8>,
    requests: Vec<Request>,
    tokens: Vec<DeviceToken>,
    idled: Vec<String>,
    fetches: usize,
    compressed: bool,
    trace: Option<Recorder>,
}

impl Output for Recorded {
    fn to_client(&mut self, bytes: &[u8]) {
        self.client.extend_from_slice(bytes);
    }
    fn to_upstream(&mut self, bytes: &[u8]) {
        self.upstream.extend_from_slice(bytes);
    }
    fn compress(&mut self) {
        assert!(!self.compressed, "once is enough");
        self.compressed = true;
        self.client.extend_from_slice(b"(compressed)\r\n");
    }
    fn request(&mut self, request: Request) {
        self.requests.push(request);
    }
    fn idles_in(&mut self, mailbox: &str) {
        self.idled.push(mailbox.to_owned());
    }
    fn fetches(&mut self) {
        self.fetches += 1;
    }
    fn tokens(&self) -> Vec<DeviceToken> {
        self.tokens.clone()
    }
    fn push_status(&self) -> String {
        "push active".into()
    }
    fn transcript(&mut self) -> Option<&mut dyn Transcript> {
        self.trace.as_mut()?.transcript().map(|transcript| transcript as &mut dyn Transcript)
    }
}

fn settings(native: Native) -> Arc<SessionSettings> {
    Arc::new(SessionSettings {
        entries: vec![
            ("/shared/comment".into(), "Push here".into()),
            ("/shared/vendor/deltachat/maxsmtprecipients".into(), "50".into()),
        ],
        push_status: false,
        native,
        keepalive: Some(Duration::from_secs(290)),
        jmapaccess: JmapAccess::Strip,
        max_command: 6000,
        max_response: 2000,
    })
}

impl Stage {
    pub(super) fn new(
        upstream: UpstreamTraits,
        native: Native,
        byte_by_byte: bool,
    ) -> (Self, Shown) {
        let (shown, trace) = Shown::begin();
        let trace = byte_by_byte.then_some(trace);
        let out = Recorded {
            client: vec![],
            upstream: vec![],
            requests: vec![],
            tokens: vec![],
            idled: vec![],
            fetches: 0,
            compressed: false,
            trace,
        };
        let session = Session::new(settings(native), upstream);
        (Self { session, out, waiting: VecDeque::new(), byte_by_byte }, shown)
    }

    fn feed(&mut self, from_client: bool, bytes: &[u8]) {
        let step = if self.byte_by_byte { 1 } else { bytes.len().max(1) };
        for chunk in bytes.chunks(step) {
            if from_client {
                self.waiting.extend(chunk);
            } else {
                self.session.from_upstream(chunk, &mut self.out);
            }
            self.feed_waiting();
        }
    }

    fn feed_waiting(&mut self) {
        while self.session.takes_client_input() && !self.waiting.is_empty() {
            let input: Vec<u8> = self.waiting.iter().copied().collect();
            let used = self.session.from_client(&input, &mut self.out);
            self.waiting.drain(..used);
            if used == 0 {
                break;
            }
        }
    }

    /// `C:` and `S:` are sent by client and upstream, `>` is what the upstream got, `<` what the client got. `(stored)` and
    /// `(failed)` end a request; `(add)` and `(remove)` expect one. A line that ends in `\` has no line end.
    pub(super) fn play(&mut self, script: &str) {
        for line in script.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
            let (kind, text) = line.split_once(' ').unwrap_or((line, ""));
            let bytes = match text.strip_suffix('\\') {
                Some(text) => text.to_owned(),
                None => format!("{text}\r\n"),
            };
            match kind {
                "C:" => self.feed(true, bytes.as_bytes()),
                "S:" => self.feed(false, bytes.as_bytes()),
                ">" => take(&mut self.out.upstream, &bytes, line),
                "<" => take(&mut self.out.client, &bytes, line),
                "(add)" => assert!(
                    matches!(self.out.requests.pop(), Some(Request::AddToken(token)) if token.expose() == TOKEN)
                ),
                "(remove)" => assert_eq!(self.out.requests.pop(), Some(Request::RemoveTokens)),
                "(stored)" | "(failed)" => {
                    self.session.answered(kind == "(stored)", &mut self.out);
                    self.feed_waiting();
                }
                "(idles" => assert_eq!(
                    self.out.idled.pop().as_deref(),
                    Some(text.trim_start_matches("in ").trim_end_matches(')'))
                ),
                "(keepalive)" => self.session.keep_alive(&mut self.out),
                "(closed)" => self.session.upstream_closed(&mut self.out),
                _ => panic!("what is {line:?}?"),
            }
        }
        let left = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(left(&self.out.upstream), "", "unexpected for the upstream");
        assert_eq!(left(&self.out.client), "", "unexpected for the client");
        assert_eq!(self.out.requests, vec![]);
        assert_eq!(self.out.idled, Vec::<String>::new());
    }
}

fn take(from: &mut Vec<u8>, expected: &str, line: &str) {
    let got = String::from_utf8_lossy(from).into_owned();
    let Some(rest) = from.strip_prefix(expected.as_bytes()) else {
        panic!("at {line:?}: there is {got:?}")
    };
    *from = rest.to_vec();
}

pub(super) const PLAIN: UpstreamTraits =
    UpstreamTraits { metadata: false, id: true, pushes: false };
const METADATA: UpstreamTraits = UpstreamTraits { metadata: true, ..PLAIN };
const RELAY: UpstreamTraits = UpstreamTraits { pushes: true, ..METADATA };

pub(super) fn play_with(upstream: UpstreamTraits, native: Native, script: &str) {
    for byte_by_byte in [false, true] {
        let (mut stage, transcript) = Stage::new(upstream, native, byte_by_byte);
        stage.out.tokens = vec![];
        stage.play(script);
        drop(stage);
        let transcript = transcript.text();
        assert!(!transcript.contains("c2VjcmV0") && !transcript.contains("sesame"), "{transcript}");
    }
}

pub(super) fn play(script: &str) {
    play_with(PLAIN, Native::Passthrough, script);
}

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
         C: A3 XUNHEARD_OF-1.0 {}(\0
         > A3 XUNHEARD_OF-1.0 {}(\0
         C:
         >",
    );
}

#[test]
fn that_the_client_fetches_is_told() {
    let (mut stage, _) = Stage::new(PLAIN, Native::Passthrough, true);
    stage.play(
        "C: A1 FETCH 1 FLAGS
         > A1 FETCH 1 FLAGS
         S: * 2 EXISTS
         < * 2 EXISTS
         C: A3 UID STORE 1 FLAGS ()
         > A3 UID STORE 1 FLAGS ()",
    );
    assert_eq!(stage.out.fetches, 0);
    let (mut stage, _) = Stage::new(PLAIN, Native::Passthrough, false);
    stage.play(
        "S: * 2 EXISTS
         < * 2 EXISTS
         C: A2 uid fetch 1 FLAGS
         > A2 uid fetch 1 FLAGS
         C: A3 FETCH 1 FLAGS
         > A3 FETCH 1 FLAGS",
    );
    assert_eq!(stage.out.fetches, 1);
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
         S: A1 OK done
         < A2 BAD [CLIENTBUG] STARTTLS is possible only before the login.
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
         C: A2 IDLE
         > A1 SELECT \"DeltaChat\" (CONDSTORE)
         > A2 IDLE
         S: A1 OK selected
         < A1 OK selected
         S: + idling
         < + idling
         (idles in DeltaChat)
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
         C: a2 UNAUTHENTICATE\\
         C: x
         > A3 XHEARD {19}
         S: A3 BAD unknown command
         < A3 BAD unknown command
         C: A4 XHEARD {4+}
         C: ab c (x)
         > A4 XHEARD {4}
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
    for byte_by_byte in [false, true] {
        let (mut stage, _) = Stage::new(PLAIN, Native::Passthrough, byte_by_byte);
        stage.play(
            "C: A1 IDLE\n > A1 IDLE\n S: * OK [INPROGRESS] x\n < * OK [INPROGRESS] x\n C: DONE",
        );
        let (_, patience) = stage.session.patience().expect("the client's next line waits");
        assert!(patience <= Duration::from_secs(10), "{patience:?}");
        assert!(stage.session.overdue(&mut stage.out), "the session goes on");
        stage.feed_waiting();
        stage.play("> DONE\n S: A1 OK done\n < A1 OK done\n C: A2 IDLE\n > A2 IDLE");
        assert!(stage.session.overdue(&mut stage.out));
        // A command is read as one.
        stage.play("C: A3 STARTTLS\n > DONE\n < A3 BAD [CLIENTBUG] STARTTLS is possible only before the login.");
        assert!(stage.session.patience().is_none());
    }
}

#[test]
fn literal_that_is_not_answered_ends_the_session() {
    let (mut stage, _) = Stage::new(METADATA, Native::Passthrough, false);
    stage.play("C: A1 APPEND x {4}\n > A1 APPEND x {4}");
    assert!(stage.session.patience().is_some() && !stage.session.overdue(&mut stage.out));
    let (mut stage, _) = Stage::new(METADATA, Native::Passthrough, false);
    stage.play("C: A1 GETMETADATA {5}\n < + OK\n C: INBOX /private/comment\n > A1 GETMETADATA {5}");
    assert!(stage.session.patience().is_some() && !stage.session.overdue(&mut stage.out));
    let (mut stage, _) = Stage::new(METADATA, Native::Passthrough, false);
    for _ in 0..MAX_PENDING {
        stage
            .play("C: A1 GETMETADATA \"\" /shared/comment\n > A1 GETMETADATA \"\" /shared/comment");
    }
    assert!(!stage.session.takes_client_input());
    assert!(stage.session.patience().is_some() && !stage.session.overdue(&mut stage.out));
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
         < (compressed)
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
         < (compressed)
         > A4 NOOP
         S: A1 OK
         < A1 OK",
    );
}

#[test]
fn bytes_behind_the_command_are_left_to_be_inflated() {
    let (mut stage, _) = Stage::new(PLAIN, Native::Passthrough, false);
    let input = b"A1 NOOP\r\nA2 COMPRESS DEFLATE\r\nA3 NOOP\r\n";
    assert_eq!(stage.session.from_client(input, &mut stage.out), 30);
    assert_eq!(stage.out.upstream, b"A1 NOOP\r\n");
    assert!(stage.out.compressed && stage.session.takes_client_input());
    // The same where the OK has to wait.
    let (mut stage, _) = Stage::new(PLAIN, Native::Passthrough, false);
    stage.session.from_upstream(b"* 1 EX", &mut stage.out);
    assert_eq!(stage.session.from_client(input, &mut stage.out), 30);
    assert!(!stage.out.compressed && !stage.session.takes_client_input());
    stage.session.from_upstream(b"ISTS\r\n* 2 EXISTS\r\n", &mut stage.out);
    let said = "* 1 EXISTS\r\nA2 OK compression begins now\r\n(compressed)\r\n* 2 EXISTS\r\n";
    assert_eq!(String::from_utf8_lossy(&stage.out.client), said);
    assert!(stage.session.takes_client_input());
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
         C: A4 NOOP
         (add)
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

fn with_push_status(entries: &[(&str, &str)], upstream: UpstreamTraits) -> Stage {
    let (mut stage, _) = Stage::new(upstream, Native::Passthrough, false);
    let entries =
        entries.iter().map(|(entry, value)| ((*entry).to_owned(), (*value).to_owned())).collect();
    let settings = SessionSettings {
        push_status: true,
        entries,
        ..SessionSettings::clone(&settings(Native::Passthrough))
    };
    stage.session = Session::new(Arc::new(settings), upstream);
    stage
}

#[test]
fn comment_says_how_push_is() {
    with_push_status(&[], PLAIN).play(
        "C: A1 GETMETADATA \"\" (/shared/Comment /shared/admin)
         < * METADATA \"\" (/shared/comment \"push active\" /shared/admin NIL)
         < A1 OK GETMETADATA completed
         C: A2 GETMETADATA \"\" /shared/admin
         < * METADATA \"\" (/shared/admin NIL)
         < A2 OK GETMETADATA completed
         C: A3 GETMETADATA (MAXSIZE 5) \"\" /shared/comment
         < A3 OK [METADATA LONGENTRIES 11] completed",
    );
    with_push_status(&[("/shared/comment", "Family")], PLAIN).play(
        "C: A1 GETMETADATA \"\" /shared/comment
         < * METADATA \"\" (/shared/comment \"Family | push active\")
         < A1 OK GETMETADATA completed",
    );
}

#[test]
fn how_push_is_stands_behind_the_upstreams_comment() {
    with_push_status(&[("/shared/comment", "Family")], METADATA).play(
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
    let (mut stage, _) = Stage::new(PLAIN, Native::Passthrough, false);
    stage.out.tokens = vec![DeviceToken::new(b"one").unwrap(), DeviceToken::new(b"two").unwrap()];
    stage.play(
        "C: A1 GETMETADATA INBOX (/private/devicetoken)
         < * METADATA \"INBOX\" (/private/devicetoken \"one two\")
         < A1 OK GETMETADATA completed",
    );
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
fn own_lines_that_wait_are_masked_too() {
    let (mut stage, transcript) = Stage::new(PLAIN, Native::Passthrough, true);
    stage.out.tokens = vec![DeviceToken::new(TOKEN.as_bytes()).unwrap()];
    stage.play(
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
    drop(stage);
    let transcript = transcript.text();
    assert!(
        transcript.contains("/private/devicetoken") && !transcript.contains("c2VjcmV0"),
        "{transcript}"
    );
}

#[test]
fn small_questions_with_large_answers_are_taken_at_the_clients_pace() {
    let (mut stage, _) = Stage::new(PLAIN, Native::Passthrough, false);
    stage.out.tokens = (0..32).map(|_| DeviceToken::new(&[b'x'; 4096]).unwrap()).collect();
    let questions = "a GETMETADATA INBOX /private/devicetoken\r\n".repeat(1000);
    let used = stage.session.from_client(questions.as_bytes(), &mut stage.out);
    assert!(used < 100 && stage.out.client.len() < 300_000, "{used} {}", stage.out.client.len());
    assert!(stage.session.takes_client_input(), "once there is room again");
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

proptest! {
    /// Whatever both peers say, in whatever chunks: nothing panics, and a stream without what deltapush reads comes out as
    /// it went in; and garbage is held within the limits.
    #[test]
    fn foreign_dialogues_pass_unchanged(
        lines in proptest::collection::vec("[ -~&&[^+*]]{0,60}", 0..12),
        chunk in 1usize..40,
        garbage in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let (mut stage, _) = Stage::new(PLAIN, Native::Passthrough, false);
        let stream = lines.iter().map(|line| format!("x1 FETCH {line}x\r\n")).collect::<String>();
        for part in stream.as_bytes().chunks(chunk) {
            stage.feed(true, part);
            stage.feed(false, part);
        }
        prop_assert_eq!(&stage.out.upstream, stream.as_bytes());
        prop_assert_eq!(&stage.out.client, stream.as_bytes());
        for part in garbage.chunks(chunk) {
            stage.feed(false, part);
            stage.feed(true, part);
        }
        let (from_server, from_client) = (stage.session.server.held.len(), stage.session.client.held.len());
        prop_assert!(from_server.saturating_sub(chunk) <= 2000 && from_client.saturating_sub(chunk) <= 6000);
    }

    /// Whatever a lenient server reads of the client's lines, it reads no command that must not cross.
    #[test]
    fn lenient_server_reads_no_forbidden_command(
        lines in proptest::collection::vec(mangled(), 1..12),
        chunk in prop::sample::select(vec![1usize, 3, 17, 4000]),
    ) {
        let (mut stage, _) = Stage::new(METADATA, Native::Passthrough, false);
        for line in &lines {
            line.as_bytes().chunks(chunk).for_each(|part| stage.feed(true, part));
            // No literal is agreed to: there is no data among what goes up.
            while !stage.session.takes_client_input() {
                let tag = String::from_utf8(stage.session.client.tag.clone()).unwrap();
                stage.feed(false, format!("{tag} NO no\r\n").as_bytes());
            }
        }
        let upstream = String::from_utf8_lossy(&stage.out.upstream).to_ascii_uppercase();
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
            let (mut stage, _) = Stage::new(PLAIN, Native::Passthrough, false);
            for part in stream.as_bytes().chunks(step) {
                stage.feed(true, part);
            }
            (stage.out.upstream, stage.out.client, stage.out.requests)
        };
        prop_assert_eq!(run(chunk), run(stream.len().max(1)));
    }
}
