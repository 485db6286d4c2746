//! A trace that `deltapush trace export` wrote, played again: its upstream as a [`Scripted`] server, its client against a real
//! deltapush between them. So a report becomes a test.
//!
//! Masked parts are said with the credentials of the scripted server and a token of this file's; literals that were not shown
//! are as many `x`. Relayed lines have to come out byte for byte, of deltapush's own words the first two.

use std::collections::BTreeMap;

use deltapush::trace::{ConnectionSide, LinePart, Mark, Record, SessionId, Speaker, TraceEntry};

use super::client::{Client, quoted};
use super::deltapush::{Deltapush, Options};
use super::scripted::{PASSWORD, Scripted, USER};

/// The token that a replayed client hands over.
pub(crate) const TOKEN: &str = "openpgp:replayed";

/// One peer's words, as a line of a trace has them.
struct Line<'a> {
    speaker: Speaker,
    mark: Mark,
    parts: &'a [LinePart],
}

/// A trace, session by session.
pub(crate) struct Replay {
    sessions: BTreeMap<usize, (SessionId, Vec<Record>)>,
}

impl Replay {
    /// Reads JSON Lines.
    pub(crate) fn read(text: &str) -> Self {
        let mut order: Vec<SessionId> = Vec::new();
        let mut sessions: BTreeMap<usize, (SessionId, Vec<Record>)> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let record = Record::from_json(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(
                !matches!(record.entry, TraceEntry::Dropped(_)),
                "lines are missing: this cannot be replayed"
            );
            let Some(id) = record.session else { continue };
            let place = order.iter().position(|known| *known == id).unwrap_or_else(|| {
                order.push(id);
                order.len() - 1
            });
            sessions.entry(place).or_insert_with(|| (id, Vec::new())).1.push(record);
        }
        Self { sessions }
    }

    /// Plays all sessions that came to an upstream, in the order in which they began, and returns what is still running.
    pub(crate) async fn play(&self, change: impl FnOnce(&mut Options)) -> (Scripted, Deltapush) {
        let dialogues: Vec<String> =
            self.sessions.values().map(|(_, records)| dialogue(records)).collect();
        let dialogues: Vec<&str> =
            dialogues.iter().map(String::as_str).filter(|dialogue| !dialogue.is_empty()).collect();
        let upstream = Scripted::start(&dialogues).await;
        let mut options = Options::plain(upstream.port);
        change(&mut options);
        let deltapush = Deltapush::start(&options);
        for (id, records) in self.sessions.values() {
            if let SessionId::Client(_) = id {
                play_client(&deltapush, records).await;
            }
        }
        (upstream, deltapush)
    }
}

fn lines(records: &[Record]) -> impl Iterator<Item = Line<'_>> {
    records.iter().filter_map(|record| match &record.entry {
        TraceEntry::Said { speaker, mark, parts } => {
            Some(Line { speaker: *speaker, mark: *mark, parts })
        }
        _ => None,
    })
}

impl Line<'_> {
    /// The text before anything that is not shown.
    fn start(&self) -> String {
        match self.parts.first() {
            Some(LinePart::Text(text)) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        }
    }

    fn is_masked(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, LinePart::Masked(_)))
    }

    fn word(&self, index: usize) -> String {
        self.start().split(' ').nth(index).unwrap_or_default().to_owned()
    }

    fn is_login(&self) -> bool {
        ["LOGIN", "AUTHENTICATE"].contains(&self.word(1).to_ascii_uppercase().as_str())
    }

    /// The bytes, with `masked` in place of what is masked.
    fn bytes(&self, masked: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in self.parts {
            match part {
                LinePart::Text(text) => bytes.extend_from_slice(text),
                LinePart::Masked(_) => bytes.extend_from_slice(masked.as_bytes()),
                LinePart::Literal { size, shown } if shown.is_empty() => {
                    bytes.resize(bytes.len() + usize::try_from(*size).unwrap(), b'x');
                }
                LinePart::Literal { size, shown } => {
                    assert_eq!(
                        u64::try_from(shown.len()).unwrap(),
                        *size,
                        "a part of a literal cannot be replayed"
                    );
                    bytes.extend_from_slice(shown);
                }
                LinePart::Cut(_) => panic!("a line that was cut cannot be replayed"),
            }
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

/// Returns the upstream's dialogue of one session, as [`Scripted`] wants it.
fn dialogue(records: &[Record]) -> String {
    let mut script = String::new();
    let mut login: Option<String> = None;
    let mut logs_out = false;
    for line in lines(records) {
        let Some(speaker) = ConnectionSide::Upstream.speaker(line.speaker, line.mark) else {
            continue;
        };
        // `LOGIN` handles the lines of an exchange under way.
        if login
            .as_ref()
            .is_some_and(|tag| speaker == Speaker::ToUpstream || line.word(0) == "+" && *tag != "+")
        {
            continue;
        }
        if speaker == Speaker::Upstream {
            login = login.filter(|tag| line.word(0) != *tag);
            script += &format!("S= {}\n", escaped(&line.bytes("")));
        } else if line.is_login() {
            login = Some(line.word(0));
            script += "LOGIN\n";
        } else if let Some((start, _)) = line.start().split_once("\"deltapush") {
            // This one may have another version.
            script += &format!("C~ {start}\n");
        } else if line.is_masked() {
            script += &format!("C~ {}\n", line.start());
        } else {
            logs_out |= line.word(1).eq_ignore_ascii_case("LOGOUT");
            script += &format!("C= {}\n", escaped(&line.bytes("")));
        }
    }
    if logs_out {
        script += "CLOSE\n";
    }
    script
}

fn escaped(bytes: &[u8]) -> String {
    let escape = |byte: &u8| match byte {
        b' '..=b'~' if *byte != b'\\' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    bytes.iter().map(escape).collect()
}

/// Says what the client of one session said, and expects what it heard.
async fn play_client(deltapush: &Deltapush, records: &[Record]) {
    let mut client = Client::plain(deltapush.plain).await;
    for line in lines(records) {
        match ConnectionSide::Client.speaker(line.speaker, line.mark) {
            Some(Speaker::Client) if line.is_login() => {
                client.send(&format!("{} LOGIN {USER} {PASSWORD}", line.word(0))).await;
            }
            Some(Speaker::Client) => client.send_raw(&line.bytes(&quoted(TOKEN))).await,
            Some(Speaker::ToClient) => expect(&mut client, &line).await,
            _ => {}
        }
    }
}

async fn expect(client: &mut Client, line: &Line<'_>) {
    if line.mark == Mark::Relayed && !line.is_masked() {
        let wanted = line.bytes("");
        let got = client.bytes(wanted.len()).await;
        assert!(
            got == wanted,
            "{} instead of {}\n{}",
            got.escape_ascii(),
            wanted.escape_ascii(),
            client.dialogue()
        );
    } else {
        let got = client.response().await;
        let words: Vec<&str> = got.split(' ').take(2).collect();
        assert_eq!(words, [line.word(0), line.word(1)], "{got}\n{}", client.dialogue());
    }
}
