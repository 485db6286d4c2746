//! The parts that every byte, command and capability list goes through, with inputs that never change.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltapush::config::{JmapAccess, Native};
use deltapush::machine::Machine;
use deltapush::parser::capability::{self, Added};
use deltapush::parser::framer::{Fragment, Framer, LineEnd};
use deltapush::parser::reader::ResponseReader;
use deltapush::parser::{command, data, response};
use deltapush::proxy::session::{
    Session, SessionAction, SessionInput, SessionSettings, UpstreamTraits,
};
use deltapush::trace::{Recorder, Tracer};

/// Bytes that come at once from a busy connection.
const CHUNK: usize = 64 * 1024;

/// A message in one literal.
const MESSAGE: usize = 1024 * 1024;

/// Work that is done again and again; each time the same.
pub(crate) type Work = Box<dyn FnMut()>;

/// A name, and what prepares the work.
type Scenario = (&'static str, fn() -> Work);

/// All of it.
pub(crate) const ALL: [Scenario; 10] = [
    ("framer_1000_lines", framer_lines),
    ("framer_literal_of_1_mib", framer_literal),
    ("command_heads", command_heads),
    ("command_arguments", command_arguments),
    ("capability_rewriting", capability_rewriting),
    ("response_reader", response_reader),
    ("relay_100_noops", relay_noops),
    ("relay_headers_of_50_messages", relay_headers),
    ("relay_fetch_of_1_mib", relay_fetch),
    ("relay_append_of_1_mib", relay_append),
];

/// Bytes that a relay reads in one turn.
const TURN: usize = 256 * 1024;

/// A session between two peers that do nothing. Somebody may follow its trace, and nobody does.
struct Relayed {
    session: Session,
    bytes: usize,
    recorder: Recorder,
    now: Instant,
}

impl Relayed {
    fn new() -> Self {
        let recorder = Tracer::default().client(1);
        Self { session: session(), bytes: 0, recorder, now: Instant::now() }
    }

    /// As each turn of a relay begins.
    fn turn(&mut self) {
        // That there is no follower is not known beforehand.
        let traced = black_box(&mut self.recorder).transcript().is_some();
        if traced != self.session.is_traced() {
            self.handle(SessionInput::Traced(traced));
        }
    }

    #[inline]
    fn handle(&mut self, input: SessionInput<'_>) {
        let bytes = &mut self.bytes;
        let mut actions = |action: SessionAction<'_>| {
            if let SessionAction::ToClient(relayed) | SessionAction::ToUpstream(relayed) = action {
                *bytes = bytes.wrapping_add(black_box(relayed).len());
            }
        };
        self.session.handle(input, self.now, &mut actions);
    }

    fn client(&mut self, bytes: &[u8]) {
        self.handle(SessionInput::Client { bytes: black_box(bytes), pieces: usize::MAX });
    }

    fn upstream(&mut self, bytes: &[u8]) {
        self.handle(SessionInput::Upstream { bytes: black_box(bytes), pieces: usize::MAX });
    }
}

fn session() -> Session {
    let settings = SessionSettings {
        push_status: false,
        entries: vec![("/shared/vendor/deltachat/maxsmtprecipients".into(), "50".into())],
        native: Native::Takeover,
        keepalive: Some(Duration::from_secs(290)),
        jmapaccess: JmapAccess::Strip,
        command_time: Duration::from_secs(30),
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

/// The responses about a new message that a watching session reads.
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

fn relay_noops() -> Work {
    let mut relayed = Relayed::new();
    Box::new(move || {
        for _ in 0..100 {
            relayed.turn();
            relayed.client(b"A0001 NOOP\r\n");
            relayed.turn();
            relayed.upstream(b"A0001 OK NOOP completed (0.001 + 0.000 secs).\r\n");
        }
    })
}

fn relay_headers() -> Work {
    let mut relayed = Relayed::new();
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
        relayed.turn();
        relayed.client(command);
        relayed.turn();
        relayed.upstream(&answer);
    })
}

fn relay_fetch() -> Work {
    let (mut relayed, chunk) = (Relayed::new(), vec![b'\n'; CHUNK]);
    Box::new(move || {
        relayed.turn();
        relayed.client(b"A1 UID FETCH 1 BODY.PEEK[]\r\n");
        relayed.turn();
        relayed.upstream(b"* 1 FETCH (UID 1 BODY[] {1048576}\r\n");
        for _ in 0..MESSAGE / TURN {
            relayed.turn();
            for _ in 0..TURN / CHUNK {
                relayed.upstream(&chunk);
            }
        }
        relayed.turn();
        relayed.upstream(b")\r\nA1 OK Fetch completed.\r\n");
    })
}

fn relay_append() -> Work {
    let (mut relayed, chunk) = (Relayed::new(), vec![b'\n'; CHUNK]);
    Box::new(move || {
        relayed.turn();
        relayed.client(b"A1 APPEND INBOX {1048576}\r\n");
        relayed.turn();
        relayed.upstream(b"+ OK\r\n");
        for _ in 0..MESSAGE / TURN {
            relayed.turn();
            for _ in 0..TURN / CHUNK {
                relayed.client(&chunk);
            }
        }
        relayed.turn();
        relayed.client(b"\r\n");
        relayed.turn();
        relayed.upstream(b"A1 OK [APPENDUID 1 2] Append completed.\r\n");
    })
}
