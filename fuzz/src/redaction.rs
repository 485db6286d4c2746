//! The content of a transcript: in dialogues of peers that know IMAP, with anything else they say, a secret in its place is
//! never seen.

use std::sync::{Arc, LazyLock};

use deltapush::proxy::preauth_dialogue::PreauthDialogue;
use deltapush::proxy::session::{Session, SessionSettings, UpstreamTraits};
use deltapush::proxy::session_log::{self, LoggedSession};
use deltapush::secret::DeviceToken;

use super::events::{self, Shown, events};

/// A token, a password and a SASL message alike: it can stand wherever one of them can.
const SECRET: &str = "Sesame+Oeffne+Dich==";

/// As much of it as nobody says by chance.
const FRAGMENT: usize = 7;

/// Dialogues get no longer than this.
const MAX_EVENTS: usize = 24;

static SETTINGS: LazyLock<[Arc<SessionSettings>; 2]> = LazyLock::new(|| {
    // Every other one has limits that an answer or a command soon goes over.
    [(4000, 4000), (60, 40)].map(|(max_command, max_response)| {
        Arc::new(SessionSettings {
            entries: vec![(
                "/shared/vendor/deltachat/turn".into(),
                format!("turn.example.org:3478:user:{SECRET}"),
            )],
            push_status: true,
            max_command,
            max_response,
            ..session_log::settings()
        })
    })
});

pub(crate) fn check(data: &[u8]) {
    let (settings, script) = events::settings(data);
    let step = if settings & 1 == 0 { usize::MAX } else { usize::from(settings >> 4) + 1 };
    let shown = if settings & 2 == 0 {
        before_login(script, step)
    } else {
        after_login(settings, script, step)
    };
    for fragment in SECRET.as_bytes().windows(FRAGMENT) {
        assert!(!events::contains(&shown, fragment), "{}", shown.escape_ascii());
    }
}

/// Words that a peer may say anywhere in a line: no quote, no brace, and no secret.
fn words(said: &[u8]) -> String {
    let plain = |byte: &&u8| matches!(byte, b' '..=b'~') && !b"\"\\{}()".contains(byte);
    let words: String = said.iter().filter(plain).map(|byte| char::from(*byte)).collect();
    let has_secret = words.len() >= FRAGMENT
        && SECRET
            .as_bytes()
            .windows(FRAGMENT)
            .any(|fragment| events::contains(words.as_bytes(), fragment));
    if has_secret { String::new() } else { words }
}

/// The secret as a client may write it; where a literal waits for the server, the pieces.
fn secret_as(form: u8) -> Vec<Vec<u8>> {
    let len = SECRET.len();
    match form % 4 {
        0 => vec![SECRET.into()],
        1 => vec![format!("\"{SECRET}\"").into()],
        2 => vec![format!("{{{len}+}}\r\n{SECRET}").into()],
        _ => vec![format!("{{{len}}}\r\n").into(), SECRET.into()],
    }
}

/// Before, secret, after: a command in pieces, each of which but the first needs the server's `+`.
fn command(before: &str, form: u8, after: &str) -> Vec<Vec<u8>> {
    let mut pieces = secret_as(form);
    pieces[0].splice(0..0, before.bytes());
    pieces.last_mut().expect("one at least").extend_from_slice(after.as_bytes());
    pieces
}

fn before_login(script: &[u8], step: usize) -> Vec<u8> {
    let mut shown = Shown::default();
    let mut dialogue = PreauthDialogue::begin();
    for (kind, said) in events(script).take(MAX_EVENTS) {
        let words = words(said);
        let form = said.first().copied().unwrap_or_default();
        let pieces = match kind {
            b'l' => command("a LOGIN user ", form, "\r\n"),
            b'L' => command(&format!("b LOGIN {words} "), form, " \r\n"),
            // A mistyped verb, and a password where none belongs.
            b'm' => command(&format!("c LOGN {words} "), form, "\r\n"),
            b'p' => vec![format!("d AUTHENTICATE PLAIN {SECRET}\r\n").into()],
            b'P' => {
                vec![format!("e AUTHENTICATE {words}\r\n").into(), format!("{SECRET}\r\n").into()]
            }
            b'q' => vec!["f AUTHENTICATE PLAIN\r\n".into(), format!("{SECRET}\r\n").into()],
            b'r' => {
                let line = || format!("{SECRET}\r\n").into();
                vec!["h AUTHENTICATE LOGIN\r\n".into(), line(), line()]
            }
            b's' => vec![format!("i AUTHENTICATE XOAUTH2 {SECRET}\r\n").into()],
            _ => vec![format!("g {words}\r\n").into()],
        };
        for piece in pieces {
            let mut said = vec![];
            for chunk in piece.chunks(step.min(piece.len()).max(1)) {
                let Some(answers) = dialogue.client_says(chunk, &mut shown) else {
                    return shown.0;
                };
                said.extend(answers);
            }
            if !said.starts_with(b"+") {
                break;
            }
        }
    }
    shown.0
}

struct SessionWithSecrets {
    it: LoggedSession,
    step: usize,
}

fn after_login(settings: u8, script: &[u8], step: usize) -> Vec<u8> {
    let upstream =
        UpstreamTraits { metadata: settings & 4 != 0, pushes: false, id: settings & 16 != 0 };
    let session = Session::new(SETTINGS[usize::from(settings >> 3 & 1)].clone(), upstream);
    let mut stage = SessionWithSecrets { it: LoggedSession::new(session), step };
    stage.it.tokens = vec![DeviceToken::new(SECRET.as_bytes()).expect("a token")];
    stage.it.trace_in(None);
    for (kind, said) in events(script).take(MAX_EVENTS) {
        stage.act(kind, said);
        stage.settle(said);
    }
    stage.it.log.shown
}

impl SessionWithSecrets {
    fn act(&mut self, kind: u8, said: &[u8]) {
        let words = words(said);
        let form = said.first().copied().unwrap_or_default();
        let token = "/private/devicetoken";
        let pieces = match kind {
            b's' => command(&format!("a SETMETADATA INBOX ({token} "), form, ")\r\n"),
            b'S' => command(
                &format!("b SETMETADATA \"inbox\" (/shared/comment \"{words}\" {token} "),
                form,
                ")\r\n",
            ),
            b't' => command(
                &format!("c setmetadata inbox ({token} "),
                form,
                " /private/x {3}\r\nabc)\r\n",
            ),
            // Not well-formed.
            b'u' => command(&format!("d SETMETADATA INBOX {words} "), form, "\r\n"),
            b'g' => vec![format!("e GETMETADATA INBOX {token}\r\n").into()],
            b'h' => vec![
                "f GETMETADATA (DEPTH infinity) \"\" (/shared/vendor /shared/comment)\r\n".into(),
            ],
            b'A' => command("g APPEND x ", 2 + form % 2, &format!(" {words}\r\n")),
            b'p' => vec![format!("h AUTHENTICATE PLAIN {SECRET}\r\n").into()],
            b'q' => vec!["i AUTHENTICATE PLAIN\r\n".into(), format!("{SECRET}\r\n").into()],
            b'l' => command(&format!("j LOGIN {words} "), form, "\r\n"),
            b'I' => vec!["k IDLE\r\n".into(), "DONE\r\n".into()],
            // An unasked response of an upstream.
            b'0' => {
                return self
                    .upstream_says(&format!("* METADATA \"INBOX\" ({token} \"{SECRET}\")\r\n"));
            }
            b'1' => {
                return self
                    .upstream_says(&format!("* METADATA INBOX ({words} {token} {SECRET})\r\n"));
            }
            b'2' => {
                let len = SECRET.len();
                return self.upstream_says(&format!(
                    "* METADATA INBOX ({token} {{{len}}}\r\n{SECRET})\r\n"
                ));
            }
            b'3' => {
                let len = SECRET.len();
                return self.upstream_says(&format!(
                    "* 1 FETCH ({words} BODY[] {{{len}}}\r\n{SECRET})\r\n"
                ));
            }
            b'4' => return self.upstream_says(&format!("* {words}\r\n")),
            _ => vec![format!("l {words}\r\n").into()],
        };
        self.client_says(pieces, said);
    }

    /// The client sends what it has to, and what comes after a `+` only then.
    fn client_says(&mut self, pieces: Vec<Vec<u8>>, variation: &[u8]) {
        for (index, piece) in pieces.into_iter().enumerate() {
            if index > 0 && !std::mem::take(&mut self.it.log.client).starts_with(b"+") {
                return;
            }
            self.it.log.client.clear();
            for chunk in piece.chunks(self.step.min(piece.len()).max(1)) {
                self.it.client_says(chunk);
            }
            if self.it.log.client.is_empty() {
                self.settle(variation);
            }
        }
    }

    fn upstream_says(&mut self, said: &str) {
        for chunk in said.as_bytes().chunks(self.step.min(said.len()).max(1)) {
            self.it.upstream_says(chunk);
        }
        self.it.feed();
    }

    /// The upstream answers what it got, the store does what it was asked for.
    fn settle(&mut self, variation: &[u8]) {
        let agrees = !variation.len().is_multiple_of(3);
        for _ in 0..4 {
            let got = std::mem::take(&mut self.it.log.upstream);
            let line = got.strip_suffix(b"\r\n").unwrap_or_default();
            let tag = char::from(*got.first().unwrap_or(&b'x'));
            let is_asked = line.ends_with(b"}") && !line.ends_with(b"+}")
                || [&b"k IDLE"[..], b"i AUTHENTICATE PLAIN"]
                    .iter()
                    .any(|command| line.ends_with(command));
            if !std::mem::take(&mut self.it.log.requests).is_empty() {
                self.it.request_done(agrees);
            } else if got.is_empty() {
                return;
            } else if is_asked && agrees {
                self.upstream_says(&format!("+ {}\r\n", if tag == 'i' { SECRET } else { "go on" }));
            } else {
                if tag == 'e' {
                    self.upstream_says(&format!(
                        "* METADATA INBOX (/private/devicetoken \"{SECRET}\")\r\n"
                    ));
                }
                let condition = if agrees { "OK" } else { "NO" };
                // Whichever it was: an end of a command that is not there is relayed and means nothing.
                let begins =
                    got.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.first());
                let mut tags: Vec<char> = begins.copied().chain(*b"gk").map(char::from).collect();
                tags.retain(|tag| ('a'..='l').contains(tag));
                tags.sort_unstable();
                tags.dedup();
                for tag in tags {
                    self.upstream_says(&format!("{tag} {condition} done\r\n"));
                }
            }
            self.it.feed();
        }
    }
}
