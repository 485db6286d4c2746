//! Export of a trace for strangers: the words of the protocol stay, names of people and machines are replaced, each by
//! the same word everywhere.
//!
//! Only what is known to be harmless stays (`vocabulary`); what is not known is replaced, so that a name in an unexpected place
//! does not slip through. Secrets are not in a trace to begin with.

mod address;
mod headers;
mod lines;
mod names;
mod vocabulary;

use std::collections::HashMap;

use lines::{LinePosition, blank, blank_note};
use names::Names;

use super::Speaker;
use super::record::{LinePart, Record, SessionId, TraceEntry};
use crate::account::AccountId;

/// Most bytes of an export: more than rotating files have, and less than fills a memory.
const MAX_LEN: usize = 256 << 20;

/// The size that replaces that of every secret.
const MASKED: u64 = 16;

/// A trace that is being exported.
#[derive(Default)]
pub struct Export {
    records: Vec<Record>,
    len: usize,
}

/// It is more than can be exported at once.
#[derive(Debug, thiserror::Error)]
#[error(
    "more than {} MiB cannot be exported at once: reduce the trace to the sessions in question, by `--session` or \
     with grep",
    MAX_LEN >> 20
)]
pub struct ExportTooLong;

impl Export {
    /// Takes the next line.
    ///
    /// # Errors
    /// [`ExportTooLong`] if it is one too many.
    pub fn take(&mut self, record: Record) -> Result<(), ExportTooLong> {
        self.len = self.len.saturating_add(record.cost());
        self.records.push(record);
        if self.len > MAX_LEN { Err(ExportTooLong) } else { Ok(()) }
    }

    /// The lines as a stranger may see them.
    #[must_use]
    pub fn finish(self) -> Vec<Record> {
        let mut names = Names::default();
        // Twice: that a word is somebody's name may turn out later than its first use.
        pass(&mut names, self.records.clone());
        pass(&mut names, self.records)
    }
}

fn pass(names: &mut Names, mut records: Vec<Record>) -> Vec<Record> {
    let mut streams: HashMap<(Option<SessionId>, usize), PeerStream> = HashMap::new();
    for index in 0..records.len() {
        let Some(record) = records.get_mut(index) else { continue };
        let session = record.session;
        record.account = record.account.take().map(|account| blank_account(names, &account));
        match &mut record.entry {
            TraceEntry::Note(words) => *words = blank_note(names, words),
            TraceEntry::Dropped(_) => {}
            TraceEntry::Said { speaker, parts, .. } => {
                let stream = streams.entry((session, side_of(*speaker))).or_default();
                let resized = stream.blank(names, parts);
                let before = stream.last.replace(index);
                if let (Some(size), Some(before)) =
                    (resized, before.and_then(|before| records.get_mut(before)))
                {
                    announce(before, size);
                }
            }
        }
    }
    records
}

/// Relayed lines and own lines of a side are one stream.
fn side_of(speaker: Speaker) -> usize {
    speaker as usize
}

/// The lines of one peer in one session.
#[derive(Default)]
struct PeerStream {
    context: LinePosition,
    /// Its last line announced a literal.
    announced: bool,
    /// The position of its last line.
    last: Option<usize>,
}

impl PeerStream {
    /// Blanks a line. Returns the size of its literal, if that has changed.
    fn blank(&mut self, names: &mut Names, parts: &mut [LinePart]) -> Option<u64> {
        if !self.announced {
            self.context = LinePosition::default();
        }
        let mut resized = None;
        for part in parts.iter_mut() {
            match part {
                LinePart::Text(text) => *text = blank(names, &mut self.context, text),
                LinePart::Masked(size) => {
                    *size = MASKED;
                    self.context.field();
                }
                LinePart::Literal { size, shown } => {
                    let is_whole = u64::try_from(shown.len()) == Ok(*size);
                    *shown = Some(&*shown)
                        .filter(|_| is_whole)
                        .and_then(|bytes| headers::blank(names, bytes))
                        .unwrap_or_default();
                    if !shown.is_empty() {
                        *size = shown.len() as u64;
                        resized = Some(*size);
                    }
                    self.context.field();
                }
                LinePart::Cut(_) => {}
            }
        }
        self.announced =
            matches!(parts.last(), Some(LinePart::Text(text)) if announcement(text).is_some());
        resized
    }
}

fn blank_account(names: &mut Names, account: &AccountId) -> AccountId {
    let user: Vec<String> = account.user.split('\n').map(|name| names.login(name)).collect();
    let (host, port) = match account.upstream.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (host, format!(":{port}"))
        }
        _ => (&*account.upstream, String::new()),
    };
    let server =
        if host.is_empty() { String::new() } else { format!("{}{port}", names.host(host)) };
    AccountId::new(&user.join("\n"), &server)
}

/// The place of a literal's size in a line that ends with its announcement.
fn announcement(text: &[u8]) -> Option<std::ops::Range<usize>> {
    let inner = text.strip_suffix(b"}")?;
    let inner = inner.strip_suffix(b"+").unwrap_or(inner);
    let digits = inner.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let start = inner.len().checked_sub(digits)?;
    (digits > 0 && inner.get(..start)?.ends_with(b"{")).then_some(start..inner.len())
}

/// Corrects the size of the literal that a line announces.
fn announce(record: &mut Record, size: u64) {
    let TraceEntry::Said { parts, .. } = &mut record.entry else { return };
    if let Some(LinePart::Text(text)) = parts.last_mut()
        && let Some(place) = announcement(text)
    {
        text.splice(place, size.to_string().into_bytes());
    }
}

#[cfg(test)]
mod tests;
