//! What every byte, command and capability list goes through, with inputs that never change.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use deltapush::config::{JmapAccess, Native};
use deltapush::parser::capability::{self, Added};
use deltapush::parser::framer::{Fragment, Framer, LineEnd};
use deltapush::parser::reader::ResponseReader;
use deltapush::parser::{command, data, response};
use deltapush::proxy::session::{Output, Request, Session, SessionSettings, UpstreamTraits};
use deltapush::secret::DeviceToken;
use deltapush::trace::{Recorder, Tracer, Transcript};

/// How much comes at once from a busy connection.
const CHUNK: usize = 64 * 1024;

/// A message in one literal.
const MESSAGE: usize = 1024 * 1024;

/// What is done again and again; each time the same.
pub(crate) type Work = Box<dyn FnMut()>;

/// A name, and what prepares the work.
type Scenario = (&'static str, fn() -> Work);

/// All of it.
pub(crate) const ALL: [Scenario; 13] = [
    ("framer_1000_lines", framer_lines),
    ("framer_literal_of_1_mib", framer_literal),
    ("command_heads", command_heads),
    ("command_arguments", command_arguments),
    ("capability_rewriting", capability_rewriting),
    ("response_reader", response_reader),
    ("relay_100_noops", relay_noops::<true>),
    ("relay_headers_of_50_messages", relay_headers::<true>),
    ("relay_fetch_of_1_mib", relay_fetch::<true>),
    ("relay_append_of_1_mib", relay_append),
    // The same in a program that has no trace, for comparison.
    ("without_trace_100_noops", relay_noops::<false>),
    ("without_trace_headers_of_50_messages", relay_headers::<false>),
    ("without_trace_fetch_of_1_mib", relay_fetch::<false>),
];

/// Both peers, who do nothing. Somebody may follow, and nobody does; or there is not even a place for that.
struct Peers<const HAS_PLACE: bool> {
    bytes: usize,
    recorder: Recorder,
}

impl<const HAS_PLACE: bool> Default for Peers<HAS_PLACE> {
    fn default() -> Self {
        Self { bytes: 0, recorder: Tracer::default().client(1) }
    }
}

impl<const HAS_PLACE: bool> Output for Peers<HAS_PLACE> {
    fn to_client(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.wrapping_add(black_box(bytes).len());
    }
    fn to_upstream(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.wrapping_add(black_box(bytes).len());
    }
    fn compress(&mut self) {}
    fn request(&mut self, _: Request) {}
    fn idles_in(&mut self, _: &str) {}
    fn fetches(&mut self) {}
    fn tokens(&self) -> Vec<DeviceToken> {
        Vec::new()
    }
    fn push_status(&self) -> String {
        String::new()
    }
    fn transcript(&mut self) -> Option<&mut dyn Transcript> {
        if !HAS_PLACE {
            return None;
        }
        // That there is none is not known beforehand.
        black_box(&mut self.recorder)
            .transcript()
            .map(|transcript| transcript as &mut dyn Transcript)
    }
}

fn session() -> Session {
    let settings = SessionSettings {
        push_status: false,
        entries: vec![("/shared/vendor/deltachat/maxsmtprecipients".into(), "50".into())],
        native: Native::Takeover,
        keepalive: Some(Duration::from_secs(290)),
        jmapaccess: JmapAccess::Strip,
        max_command: 64 * 1024,
        max_response: 64 * 1024,
    };
    Session::new(Arc::new(settings), UpstreamTraits::default())
}

fn framer_lines() -> Work {
    let line = b"* 1234 FETCH (UID 56789 FLAGS (\\Seen) RFC822.SIZE 4321)\r\n";
    let input = line.repeat(1000);
    Box::new(move || {
        let mut framer = Framer::new();
        let mut rest = input.as_slice();
        while let Some((fragment, after)) = framer.next(rest) {
            black_box(fragment);
            rest = after;
        }
    })
}

fn framer_literal() -> Work {
    let chunk = vec![b'\n'; CHUNK];
    Box::new(move || {
        let mut framer = Framer::new();
        if let Some((Fragment::Line { end: Some(LineEnd::Literal(literal)), .. }, _)) =
            framer.next(b"* 1 FETCH (BODY[] {1048576}\r\n")
        {
            framer.begin_literal(literal.size);
        }
        for _ in 0..MESSAGE / CHUNK {
            let mut rest = chunk.as_slice();
            while let Some((fragment, after)) = framer.next(rest) {
                black_box(fragment);
                rest = after;
            }
        }
    })
}

fn command_heads() -> Work {
    const COMMANDS: [&[u8]; 8] = [
        b"A0001 NOOP\r\n",
        b"A0002 UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (FROM TO SUBJECT)])\r\n",
        b"A0003 IDLE\r\n",
        b"A0004 SELECT INBOX\r\n",
        b"A0005 SETMETADATA \"INBOX\" (/private/devicetoken \"x\")\r\n",
        b"A0006 UID STORE 17 +FLAGS (\\Seen)\r\n",
        b"A0007 LIST \"\" \"*\"\r\n",
        b"A0008 GETMETADATA \"\" /shared/comment\r\n",
    ];
    Box::new(|| {
        for command in COMMANDS {
            black_box(command::head(black_box(command)));
        }
    })
}

fn command_arguments() -> Work {
    Box::new(|| {
        black_box(command::login(black_box(
            b"A1 LOGIN alice@example.org \"open \\\"sesame\\\"\"\r\n",
        )));
        black_box(command::authenticate(black_box(
            b"A1 AUTHENTICATE PLAIN AGFsaWNlQGxhYi50ZXN0AHNlc2FtZQ==\r\n",
        )));
        black_box(command::mailbox(black_box(b"A2 SELECT \"INBOX/Delta Chat\" (CONDSTORE)\r\n")));
    })
}

/// Dovecot's, and a line that says nothing of capabilities.
fn capability_rewriting() -> Work {
    const LINES: [&[u8]; 3] = [
        b"* CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE SORT SORT=DISPLAY THREAD=REFERENCES THREAD=REFS \
          THREAD=ORDEREDSUBJECT MULTIAPPEND URL-PARTIAL CATENATE UNSELECT CHILDREN NAMESPACE UIDPLUS LIST-EXTENDED I18NLEVEL=1 \
          CONDSTORE QRESYNC ESEARCH ESORT SEARCHRES WITHIN CONTEXT=SEARCH LIST-STATUS BINARY MOVE SNIPPET=FUZZY PREVIEW=FUZZY \
          PREVIEW STATUS=SIZE SAVEDATE LITERAL+ NOTIFY SPECIAL-USE COMPRESS=DEFLATE QUOTA\r\n",
        b"A1 OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE IDLE NAMESPACE UIDPLUS CONDSTORE QRESYNC LITERAL+ NOTIFY] Logged in\r\n",
        b"A2 OK [READ-WRITE] Select completed (0.001 + 0.000 secs).\r\n",
    ];
    Box::new(|| {
        for line in LINES {
            black_box(capability::rewrite(
                black_box(line),
                Added { push: true, compress: true },
                JmapAccess::Strip,
            ));
            black_box(response::without_referral(black_box(line)));
        }
    })
}

/// What a watching session reads of a new message.
fn response_reader() -> Work {
    const NEWS: &[u8] = b"* 18 EXISTS\r\n* 1 RECENT\r\n* 18 FETCH (UID 17 FLAGS (\\Recent) BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED)]<0> \
          {27}\r\nFrom: bob@elsewhere.test\r\n\r\n)\r\nw3 OK done\r\n";
    Box::new(|| {
        let mut reader = ResponseReader::new(CHUNK);
        let mut input = black_box(NEWS);
        while let Ok(Some(response)) = reader.next(&mut input) {
            black_box(data::data(&response));
        }
    })
}

fn relay_noops<const TRACE: bool>() -> Work {
    let (mut session, mut out) = (session(), Peers::<TRACE>::default());
    Box::new(move || {
        for _ in 0..100 {
            session.from_client(black_box(b"A0001 NOOP\r\n"), &mut out);
            session.from_upstream(
                black_box(b"A0001 OK NOOP completed (0.001 + 0.000 secs).\r\n"),
                &mut out,
            );
        }
    })
}

fn relay_headers<const TRACE: bool>() -> Work {
    let (mut session, mut out) = (session(), Peers::<TRACE>::default());
    let headers =
        b"Subject: a subject of some length\r\nFrom: Alice <alice@example.org>\r\n".repeat(8);
    let mut answer = Vec::new();
    for number in 1000..1050 {
        let head = format!(
            "* {number} FETCH (UID {number} FLAGS (\\Seen) BODY[HEADER.FIELDS (SUBJECT FROM)] {{{}}}\r\n",
            headers.len()
        );
        answer.extend_from_slice(head.as_bytes());
        answer.extend_from_slice(&headers);
        answer.extend_from_slice(b")\r\n");
    }
    answer.extend_from_slice(b"A1 OK Fetch completed.\r\n");
    Box::new(move || {
        let command =
            b"A1 UID FETCH 1000:1049 (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT FROM)])\r\n";
        session.from_client(black_box(command), &mut out);
        session.from_upstream(black_box(&answer), &mut out);
    })
}

fn relay_fetch<const TRACE: bool>() -> Work {
    let (mut session, mut out, chunk) = (session(), Peers::<TRACE>::default(), vec![b'\n'; CHUNK]);
    Box::new(move || {
        session.from_client(black_box(b"A1 UID FETCH 1 BODY.PEEK[]\r\n"), &mut out);
        session.from_upstream(black_box(b"* 1 FETCH (UID 1 BODY[] {1048576}\r\n"), &mut out);
        for _ in 0..MESSAGE / CHUNK {
            session.from_upstream(black_box(&chunk), &mut out);
        }
        session.from_upstream(black_box(b")\r\nA1 OK Fetch completed.\r\n"), &mut out);
    })
}

fn relay_append() -> Work {
    let (mut session, mut out, chunk) = (session(), Peers::<true>::default(), vec![b'\n'; CHUNK]);
    Box::new(move || {
        session.from_client(black_box(b"A1 APPEND INBOX {1048576}\r\n"), &mut out);
        session.from_upstream(black_box(b"+ OK\r\n"), &mut out);
        for _ in 0..MESSAGE / CHUNK {
            session.from_client(black_box(&chunk), &mut out);
        }
        session.from_client(black_box(b"\r\n"), &mut out);
        session.from_upstream(black_box(b"A1 OK [APPENDUID 1 2] Append completed.\r\n"), &mut out);
    })
}
