//! A trace as JSON Lines: an object for each line, with all that a person would be shown.

use serde::{Deserialize, Serialize};

use super::record::{LinePart, Record, TraceEntry};
use super::{Mark, Speaker};
use crate::account::AccountId;

/// One line, as docs/trace.md describes it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonLine {
    time: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    who: Option<Who>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    did: Option<Did>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    said: Option<Vec<JsonPart>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
enum Who {
    C,
    S,
    #[serde(rename = "U>")]
    ToUpstream,
    #[serde(rename = "U<")]
    Upstream,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Did {
    Relayed,
    Kept,
    Replaced,
    Changed,
    Own,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum JsonPart {
    Text(String),
    /// Bytes that are no UTF-8.
    Hex {
        hex: String,
    },
    Masked {
        masked: u64,
    },
    Literal {
        literal: u64,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        shown: Vec<SessionRun>,
    },
    Cut {
        cut: u64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SessionRun {
    Text(String),
    Hex { hex: String },
}

/// The reason for which a line is no line of a trace.
#[derive(Debug, thiserror::Error)]
pub enum MalformedLine {
    /// It is not such an object.
    #[error("this is not a line of a trace in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Its time is none.
    #[error("{0:?} is not a time")]
    Time(String),
    /// Its session is none.
    #[error(transparent)]
    Session(#[from] super::record::NoSession),
    /// Bytes are not in hexadecimal digits.
    #[error("{0:?} is not hexadecimal")]
    Hex(String),
    /// It says nothing.
    #[error("this line has neither `said` with `who` and `did`, nor `note`, nor `dropped`")]
    Empty,
}

impl Record {
    /// The line, without a line end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let (account, server) =
            self.account.as_ref().map(|account| (&*account.user, &*account.upstream)).unzip();
        let mut line = JsonLine {
            time: self.time.to_string(),
            session: self.session.map(|session| session.to_string()),
            account: account.map(str::to_owned),
            server: server.map(str::to_owned),
            who: None,
            did: None,
            said: None,
            note: None,
            dropped: None,
        };
        match &self.entry {
            TraceEntry::Said { speaker, mark, parts } => {
                line.who = Some((*speaker).into());
                line.did = Some((*mark).into());
                line.said = Some(parts.iter().flat_map(said).collect());
            }
            TraceEntry::Note(words) => line.note = Some(words.clone()),
            TraceEntry::Dropped(lines) => line.dropped = Some(*lines),
        }
        // Strings and numbers can always be written.
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// Reads a line.
    ///
    /// # Errors
    /// [`MalformedLine`] if it is none.
    pub fn from_json(text: &str) -> Result<Self, MalformedLine> {
        let line: JsonLine = serde_json::from_str(text)?;
        let time = line.time.parse().map_err(|_| MalformedLine::Time(line.time.clone()))?;
        let session = line.session.as_deref().map(str::parse).transpose()?;
        let account = line
            .account
            .map(|user| AccountId::new(&user, line.server.as_deref().unwrap_or_default()));
        let entry = match (line.who, line.did, line.said, line.note, line.dropped) {
            (Some(who), Some(did), Some(said), ..) => {
                TraceEntry::Said { speaker: who.into(), mark: did.into(), parts: parts(said)? }
            }
            (.., Some(words), _) => TraceEntry::Note(words),
            (.., Some(lines)) => TraceEntry::Dropped(lines),
            _ => return Err(MalformedLine::Empty),
        };
        Ok(Self { time, session, account, entry })
    }
}

fn said(part: &LinePart) -> Vec<JsonPart> {
    match part {
        LinePart::Text(bytes) => runs(bytes)
            .map(|run| match run {
                SessionRun::Text(text) => JsonPart::Text(text),
                SessionRun::Hex { hex } => JsonPart::Hex { hex },
            })
            .collect(),
        LinePart::Masked(masked) => vec![JsonPart::Masked { masked: *masked }],
        LinePart::Literal { size, shown } => {
            vec![JsonPart::Literal { literal: *size, shown: runs(shown).collect() }]
        }
        LinePart::Cut(cut) => vec![JsonPart::Cut { cut: *cut }],
    }
}

fn parts(said: Vec<JsonPart>) -> Result<Vec<LinePart>, MalformedLine> {
    let mut parts = Vec::new();
    for said in said {
        let bytes = match said {
            JsonPart::Text(text) => text.into_bytes(),
            JsonPart::Hex { hex } => from_hex(&hex)?,
            JsonPart::Masked { masked } => {
                parts.push(LinePart::Masked(masked));
                continue;
            }
            JsonPart::Literal { literal, shown } => {
                let shown: Result<Vec<_>, _> = shown.iter().map(SessionRun::bytes).collect();
                parts.push(LinePart::Literal { size: literal, shown: shown?.concat() });
                continue;
            }
            JsonPart::Cut { cut } => {
                parts.push(LinePart::Cut(cut));
                continue;
            }
        };
        match parts.last_mut() {
            Some(LinePart::Text(text)) => text.extend(bytes),
            _ => parts.push(LinePart::Text(bytes)),
        }
    }
    Ok(parts)
}

/// UTF-8 as text, the rest in hexadecimal digits.
fn runs(bytes: &[u8]) -> impl Iterator<Item = SessionRun> {
    bytes.utf8_chunks().flat_map(|chunk| {
        let text = Some(chunk.valid())
            .filter(|text| !text.is_empty())
            .map(|text| SessionRun::Text(text.to_owned()));
        let invalid = Some(chunk.invalid()).filter(|bytes| !bytes.is_empty());
        let hex = invalid.map(|bytes| SessionRun::Hex {
            hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        });
        [text, hex].into_iter().flatten()
    })
}

impl SessionRun {
    fn bytes(&self) -> Result<Vec<u8>, MalformedLine> {
        match self {
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::Hex { hex } => from_hex(hex),
        }
    }
}

fn from_hex(hex: &str) -> Result<Vec<u8>, MalformedLine> {
    let wrong = || MalformedLine::Hex(hex.to_owned());
    if !hex.len().is_multiple_of(2) {
        return Err(wrong());
    }
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    pairs
        .map(|pair| u8::from_str_radix(pair.unwrap_or_default(), 16).map_err(|_| wrong()))
        .collect()
}

impl From<Speaker> for Who {
    fn from(speaker: Speaker) -> Self {
        match speaker {
            Speaker::Client => Self::C,
            Speaker::ToClient => Self::S,
            Speaker::ToUpstream => Self::ToUpstream,
            Speaker::Upstream => Self::Upstream,
        }
    }
}

impl From<Who> for Speaker {
    fn from(who: Who) -> Self {
        match who {
            Who::C => Self::Client,
            Who::S => Self::ToClient,
            Who::ToUpstream => Self::ToUpstream,
            Who::Upstream => Self::Upstream,
        }
    }
}

impl From<Mark> for Did {
    fn from(mark: Mark) -> Self {
        match mark {
            Mark::Relayed => Self::Relayed,
            Mark::Kept => Self::Kept,
            Mark::Replaced => Self::Replaced,
            Mark::Changed => Self::Changed,
            Mark::Own => Self::Own,
        }
    }
}

impl From<Did> for Mark {
    fn from(did: Did) -> Self {
        match did {
            Did::Relayed => Self::Relayed,
            Did::Kept => Self::Kept,
            Did::Replaced => Self::Replaced,
            Did::Changed => Self::Changed,
            Did::Own => Self::Own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::SessionId;

    #[test]
    fn line_is_what_the_documentation_says() {
        let record = Record {
            time: "2026-11-28T01:56:40.33Z".parse().unwrap(),
            session: Some(SessionId::Client(1)),
            account: Some(AccountId::new("alice@example.org", "imap.example.org:993")),
            entry: TraceEntry::Said {
                speaker: Speaker::Upstream,
                mark: Mark::Kept,
                parts: vec![
                    LinePart::Literal { size: 4, shown: vec![b'a', 0xff] },
                    LinePart::Text(b"x \"\xc3\xa9\xff\"".to_vec()),
                    LinePart::Masked(7),
                    LinePart::Cut(2),
                ],
            },
        };
        let line = record.to_json();
        assert_eq!(
            line,
            "{\"time\":\"2026-11-28T01:56:40.33Z\",\"session\":\"#1\",\"account\":\"alice@example.org\",\
             \"server\":\"imap.example.org:993\",\"who\":\"U<\",\"did\":\"kept\",\"said\":[\
             {\"literal\":4,\"shown\":[\"a\",{\"hex\":\"ff\"}]},\"x \\\"é\",{\"hex\":\"ff\"},\"\\\"\",\
             {\"masked\":7},{\"cut\":2}]}"
        );
        assert_eq!(Record::from_json(&line).unwrap(), record);
        for entry in [TraceEntry::Note("x".into()), TraceEntry::Dropped(3)] {
            let record = Record { session: None, account: None, entry, ..record.clone() };
            assert_eq!(Record::from_json(&record.to_json()).unwrap(), record);
        }
        for line in
            ["", "{}", "{\"time\":\"x\",\"note\":\"\"}", "{\"time\":\"2026-11-28T01:56:40Z\"}"]
        {
            assert!(Record::from_json(line).is_err(), "{line}");
        }
    }
}
