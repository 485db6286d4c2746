//! No secret of a dialogue is in what anybody gets to see of it: not as text, not as JSON, not in files, not in an export, and
//! not among literals for who asks for those.

use std::fs;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::*;

use super::export::Export;
use super::files::TraceFolder;
use super::*;
use crate::account::AccountId;
use crate::config::{Native, TraceFiles, TraceFormat};
use crate::proxy::preauth_dialogue::PreauthDialogue;
use crate::proxy::session::{Session, SessionSettings, UpstreamTraits};
use crate::proxy::session_log::{self, LoggedSession};
use crate::secret::DeviceToken;

/// A token, a password and a SASL message alike: it can stand wherever one of them can.
const SECRET: &str = "Sesame+Oeffne+Dich==";

/// The same in the form of a tag, or of a verb.
const SECRET_TAG: &str = "SesameOeffneDich";

/// As much of it as nobody says by chance.
const FRAGMENT: usize = 7;

/// Text that only followers of literals may get.
const BODY: &str = "Treasure-in-the-cave";

static SETTINGS: LazyLock<[Arc<SessionSettings>; 4]> = LazyLock::new(|| {
    [
        (4000, Native::Passthrough),
        (60, Native::Passthrough),
        (4000, Native::Takeover),
        (60, Native::Takeover),
    ]
    .map(|(max, native)| {
        Arc::new(SessionSettings {
            entries: vec![(
                "/shared/vendor/deltachat/turn".into(),
                format!("turn.example.org:3478:u:{SECRET}"),
            )],
            push_status: true,
            native,
            keepalive: Some(Duration::from_secs(290)),
            max_command: max,
            max_response: max,
            ..session_log::settings()
        })
    })
});

/// All who see something of a session.
struct Audiences {
    tracer: Tracer,
    with_literals: Followed,
    one_side: Followed,
    written: Vec<(TraceFiles, Followed)>,
    folder: tempfile::TempDir,
}

impl Audiences {
    fn gather() -> Self {
        let (tracer, folder) = (Tracer::default(), tempfile::tempdir().unwrap());
        let follow = |audience, side, literals| {
            tracer.follow(TraceSelection { audience, side, literals }).unwrap()
        };
        let with_literals = follow(Audience::Everyone, None, true);
        let one_side =
            follow(Audience::Account("alice".into()), Some(ConnectionSide::Upstream), false);
        let written =
            [(TraceFormat::Json, true), (TraceFormat::Json, false), (TraceFormat::Text, false)];
        let written = written.into_iter().enumerate().map(|(number, (format, literals))| {
            let directory = folder.path().join(number.to_string());
            let settings = TraceFiles { directory, format, literals, ..TraceFiles::default() };
            (settings, follow(Audience::LoggedIn(Vec::new()), None, literals))
        });
        let written = written.collect();
        Self { tracer, with_literals, one_side, written, folder }
    }

    /// All that was shown: without literals, and with them.
    fn shown(self) -> (String, String) {
        let Self { tracer, with_literals, one_side, written, folder } = self;
        drop(tracer);
        let all = |mut followed: Followed| {
            std::iter::from_fn(move || followed.try_next()).collect::<Vec<_>>()
        };
        let (with_literals, one_side) = (all(with_literals), all(one_side));
        let (mut without, mut with) = (String::new(), String::new());
        let mut export = Export::default();
        let (mut coloured, mut plain) = (Renderer::new().colours(true), Renderer::new());
        for record in with_literals {
            with += &record.to_json();
            with += &coloured.render(&record);
            without += &record.clone().without_literals().to_json();
            export.take(record).unwrap();
        }
        for record in export.finish().iter().chain(&one_side) {
            without += &record.to_json();
            without += &plain.render(record);
        }
        for (settings, followed) in written {
            let out = if settings.literals { &mut with } else { &mut without };
            TraceFolder::new(settings.clone()).unwrap().write_all(followed);
            for entry in fs::read_dir(&settings.directory).unwrap() {
                *out += &fs::read_to_string(entry.unwrap().path()).unwrap();
            }
        }
        drop(folder);
        (without, with)
    }
}

/// The secret as a client may write it; where a literal waits for the server, the pieces.
fn secret_as(form: u8) -> Vec<String> {
    let len = SECRET.len();
    match form % 4 {
        0 => vec![SECRET.into()],
        1 => vec![format!("\"{SECRET}\"")],
        2 => vec![format!("{{{len}+}}\r\n{SECRET}")],
        _ => vec![format!("{{{len}}}\r\n"), SECRET.into()],
    }
}

/// Before, secret, after: a command in pieces, each of which but the first waits for the server's `+`.
fn command(before: &str, form: u8, after: &str) -> Vec<String> {
    let mut pieces = secret_as(form);
    pieces[0].insert_str(0, before);
    pieces.last_mut().unwrap().push_str(after);
    pieces
}

fn before_login(trace: &mut Recorder, kind: u8, form: u8, words: &str) {
    let mut dialogue = PreauthDialogue::begin();
    let pieces = match kind % 14 {
        // A secret as arguments of a command without any, and in place of a command.
        8 => vec![format!("a NOOP {SECRET}\r\n")],
        9 => vec![format!("a STARTTLS {SECRET}\r\n"), format!("a CAPABILITY {SECRET}\r\n")],
        10 => vec![format!("{SECRET} {SECRET}\r\n")],
        11 => vec![format!("{SECRET_TAG} {SECRET_TAG}\r\n"), format!("{SECRET_TAG}\r\n")],
        // The data of a literal that is refused.
        12 => vec!["a LOGIN user {4000}\r\n".into(), format!("{SECRET_TAG} {SECRET_TAG}\r\n")],
        13 => vec![format!("a+1 LOGIN user {SECRET}\r\n"), format!(" a LOGIN user {SECRET}\r\n")],
        0 => command("a LOGIN user ", form, "\r\n"),
        1 => command("a LOGIN ", form, &[" ", &secret_as(form % 3).concat(), "\r\n"].concat()),
        2 => command(&format!("a LOGN {words} "), form, "\r\n"),
        3 => command(&format!("a APPEND {words} "), form, "\r\n"),
        4 => vec![format!("a AUTHENTICATE PLAIN {SECRET}\r\n")],
        5 => vec![
            "a AUTHENTICATE LOGIN\r\n".into(),
            format!("{SECRET}\r\n"),
            format!("{SECRET}\r\n"),
        ],
        6 => vec![format!("a AUTHENTICATE XOAUTH2 {SECRET}\r\n"), format!("{SECRET}\r\n")],
        _ => vec!["a AUTHENTICATE OAUTHBEARER\r\n".into(), format!("{SECRET}\r\n")],
    };
    let transcript = trace.transcript().expect("the trace has followers");
    for piece in &pieces {
        // A secret that the server does not ask for is not said.
        let answers = dialogue.client_says(piece.as_bytes(), transcript);
        if !answers.is_some_and(|answers| answers.starts_with(b"+")) {
            break;
        }
    }
}

struct TracedSession {
    it: LoggedSession,
    step: usize,
}

impl TracedSession {
    fn new(session: Session, trace: Recorder, step: usize) -> Self {
        let mut it = LoggedSession::new(session);
        it.tokens = vec![DeviceToken::new(SECRET.as_bytes()).unwrap()];
        it.trace_in(Some(trace));
        Self { it, step }
    }

    fn act(&mut self, kind: u8, form: u8, words: &str) {
        let token = "/private/devicetoken";
        let len = SECRET.len();
        let pieces = match kind % 24 {
            // A server repeats what it did not understand, tagged and untagged.
            16 => return self.echoed(&format!("b LOGN user {SECRET_TAG}\r\n"), "b"),
            17 => return self.echoed(&format!("{SECRET_TAG} {SECRET_TAG} user\r\n"), SECRET_TAG),
            18 => {
                return self.echoed(
                    &format!("b SETMETADATA x (/private/comment \"{SECRET_TAG}\")\r\n"),
                    "b",
                );
            }
            // The data of a literal that the server refuses.
            19 => {
                self.client_says("b CREATE {16}\r\n");
                self.upstream_says("b NO [TOOBIG] no\r\n");
                return self.echoed(&format!("{SECRET_TAG} {SECRET_TAG}\r\n"), SECRET_TAG);
            }
            20 => vec![format!("b NOOP {SECRET}\r\n"), format!("b STARTTLS {SECRET}\r\n")],
            21 => {
                return self.upstream_says(&format!(
                    "* METADATA \"\" (/private/comment \"{SECRET}\")\r\n"
                ));
            }
            22 => vec![
                format!("a+1 LOGIN user {SECRET}\r\n"),
                format!("{SECRET}\r\n"),
                format!("\t{SECRET} b\r\n"),
            ],
            23 => vec![format!("b SETMETADATA INBOX (/shared/comment \"{SECRET}\")\r\n")],
            0 => command(&format!("b SETMETADATA INBOX ({token} "), form, ")\r\n"),
            1 => command(
                &format!("b SETMETADATA \"inbox\" (/shared/comment \"{words}\" {token} "),
                form,
                ")\r\n",
            ),
            2 => command(&format!("b SETMETADATA INBOX {words} "), form, "\r\n"),
            3 => vec![format!("b GETMETADATA INBOX {token}\r\n")],
            4 => vec![
                "b GETMETADATA (DEPTH infinity) \"\" (/shared/vendor /shared/comment)\r\n".into(),
            ],
            5 => command(&format!("b LOGIN {words} "), form, "\r\n"),
            6 => vec!["b AUTHENTICATE PLAIN\r\n".into(), format!("{SECRET}\r\n")],
            // Mistyped: nobody knows that this is a password.
            7 => command("b LOGN user ", 2 + form % 2, "\r\n"),
            8 => {
                return self
                    .upstream_says(&format!("* METADATA \"INBOX\" ({token} \"{SECRET}\")\r\n"));
            }
            9 => {
                return self.upstream_says(&format!(
                    "* METADATA INBOX ({token} {{{len}}}\r\n{SECRET})\r\n"
                ));
            }
            10 => {
                return self.upstream_says(&format!(
                    "* 1 FETCH ({words} BODY[] {{{}}}\r\n{BODY})\r\n",
                    BODY.len()
                ));
            }
            11 => vec![format!("b APPEND x {{{}}}\r\n", BODY.len()), format!("{BODY}\r\n")],
            12 => vec!["b IDLE\r\n".into(), "DONE\r\n".into()],
            13 => vec!["b COMPRESS DEFLATE\r\n".into()],
            14 => vec![format!("b ID (\"name\" \"{words}\")\r\n")],
            _ => vec![format!("b {words}\r\n")],
        };
        for piece in &pieces {
            self.client_says(piece);
            // A secret that the server does not ask for is not said.
            if !self.answer(form) {
                return;
            }
        }
    }

    fn client_says(&mut self, said: &str) {
        for chunk in said.as_bytes().chunks(self.step) {
            if self.it.session.takes_client_input() {
                self.it.give_client(chunk);
            }
        }
    }

    /// A command of a client, and a server that repeats it in every way that it has.
    fn echoed(&mut self, command: &str, tag: &str) {
        self.client_says(command);
        self.it.log.client.clear();
        if !std::mem::take(&mut self.it.log.upstream).is_empty() {
            let said = command.trim_end();
            self.upstream_says(&format!(
                "* BAD what is {said}?\r\n* NO {said}\r\n{tag} BAD [X {said}] {said}\r\n"
            ));
        }
    }

    fn upstream_says(&mut self, said: &str) {
        for chunk in said.as_bytes().chunks(self.step) {
            self.it.upstream_says(chunk);
        }
    }

    /// Answers what came; whether it asks for more.
    fn answer(&mut self, form: u8) -> bool {
        let got = std::mem::take(&mut self.it.log.upstream);
        let waits =
            got.ends_with(b"}\r\n") || got.ends_with(b"IDLE\r\n") || got.ends_with(b"PLAIN\r\n");
        // deltapush itself asks for more.
        let is_asked = memchr::memmem::find(&self.it.log.client, b"+ OK").is_some();
        let asks = is_asked || waits && form % 5 != 4;
        self.it.log.client.clear();
        if !std::mem::take(&mut self.it.log.requests).is_empty() {
            self.it.request_done(form.is_multiple_of(2));
        } else if waits && form % 5 != 4 {
            self.upstream_says(if got.ends_with(b"PLAIN\r\n") {
                "+ Sesame+Oeffne+Dich==\r\n"
            } else {
                "+ go on\r\n"
            });
        } else if !got.is_empty() {
            self.upstream_says(&format!(
                "* METADATA INBOX (/private/devicetoken \"{SECRET}\")\r\nb OK done\r\n"
            ));
        }
        asks
    }
}

fn has_any_of(shown: &str, secret: &str) -> bool {
    secret
        .as_bytes()
        .windows(FRAGMENT)
        .any(|part| memchr::memmem::find(shown.as_bytes(), part).is_some())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_secret_is_shown_to_anybody(
        settings in 0..8usize,
        step in prop::sample::select(vec![1usize, 3, 17, usize::MAX]),
        login in prop::collection::vec((any::<u8>(), any::<u8>(), "[a-z *+]{0,8}"), 0..4),
        dialogue in prop::collection::vec((any::<u8>(), any::<u8>(), "[a-z *+]{0,12}"), 0..12),
        late in any::<bool>(),
    ) {
        let audiences = Audiences::gather();
        let mut trace = audiences.tracer.client(1);
        for (kind, form, words) in &login {
            before_login(&mut trace, *kind, *form, words);
        }
        if late {
            trace.tries(&AccountId::new("alice", "imap.example.org:993"));
        }
        trace.logged_in(&AccountId::new("alice", "imap.example.org:993"));
        let upstream = UpstreamTraits { metadata: settings & 4 != 0, pushes: settings & 1 != 0, id: true };
        let session = Session::new(SETTINGS[settings % 4].clone(), upstream);
        let mut session = TracedSession::new(session, trace, step);
        for (kind, form, words) in &dialogue {
            session.act(*kind, *form, words);
        }
        drop(session);
        let (without, with) = audiences.shown();
        prop_assert!(!has_any_of(&without, SECRET_TAG) && !has_any_of(&with, SECRET_TAG), "{without}\n{with}");
        prop_assert!(!has_any_of(&without, SECRET) && !has_any_of(&without, BODY), "{without}");
        prop_assert!(!has_any_of(&with, SECRET), "{with}");
    }
}

#[test]
fn body_is_shown_to_who_asks_for_it() {
    let audiences = Audiences::gather();
    let mut trace = audiences.tracer.client(1);
    trace.logged_in(&AccountId::new("alice", "imap.example.org:993"));
    let session = Session::new(SETTINGS[0].clone(), UpstreamTraits::default());
    let mut session = TracedSession::new(session, trace, 5);
    [10, 11].into_iter().for_each(|kind| session.act(kind, 0, "UID 3"));
    drop(session);
    let (without, with) = audiences.shown();
    assert!(with.matches(BODY).count() >= 6 && !without.contains(BODY), "{with}");
    assert!(without.contains("<20 bytes>") && without.contains("{\"literal\":20}"), "{without}");
}
