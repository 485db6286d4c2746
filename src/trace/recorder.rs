//! The recorder of one session: makes trace records while a reader follows it.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;

use super::answers::PendingAnswers;
use super::hub::Hub;
use super::record::{LinePart, Record, SessionId, TraceEntry};
use super::selection::{Interest, KnownSession};
use super::{Mark, Piece, Speaker, Transcript};
use crate::account::AccountId;
use crate::parser::command::Disclosure;

/// The longest line that is shown, in bytes of text; what goes beyond is counted.
const MAX_LINE: usize = 4096;

/// Parts of which a line may consist.
const MAX_PARTS: usize = 64;

/// Most bytes of a literal that a follower of literals gets.
const MAX_LITERAL: usize = 64 * 1024;

/// Most bytes from before a login that are held for a follower of its account.
const MAX_HELD: usize = 8 * 1024;

/// Records one session. While nobody follows it, it is a few words that say so.
pub struct Recorder {
    hub: Arc<Hub>,
    session: SessionId,
    /// The account of the session, or of its last login attempt.
    account: Option<AccountId>,
    logged_in: bool,
    /// The hub's state when it was looked at last.
    seen: u64,
    /// Made when somebody follows, given back when nobody does.
    state: Option<Box<RecorderState>>,
}

#[derive(Default)]
struct RecorderState {
    /// True if a follower wants literals.
    literals: bool,
    lines: [OpenLine; 4],
    /// The parts of coming answers that may be shown.
    answers: PendingAnswers,
    /// Lines that may be wanted once the account of the session is known.
    held: VecDeque<Arc<Record>>,
    /// Memory of these lines, in bytes.
    held_bytes: usize,
    /// Lines that exceeded that memory.
    held_lost: u64,
}

#[derive(Default)]
struct OpenLine {
    parts: Vec<LinePart>,
    /// Bytes of text in them.
    text: usize,
    /// Bytes of a literal in them that are shown.
    shown: usize,
    mark: Option<Mark>,
}

impl Recorder {
    pub(super) fn new(hub: Arc<Hub>, session: SessionId, account: Option<AccountId>) -> Self {
        let logged_in = account.is_some();
        hub.begin(session);
        Self { hub, session, account, logged_in, seen: 0, state: None }
    }

    /// The transcript to write to; `None` while nobody follows.
    pub fn transcript(&mut self) -> Option<&mut (dyn Transcript + Send)> {
        let now = self.hub.state();
        if now != self.seen {
            self.look(now);
        }
        if self.state.is_some() { Some(self) } else { None }
    }

    /// Something happened, in words without secrets.
    pub fn note(&mut self, words: impl FnOnce() -> String) {
        if let Some(transcript) = self.transcript() {
            transcript.note(&words());
        }
    }

    /// A login of `account` is tried. All lines of the session count as that account's, until another is tried.
    pub fn tries(&mut self, account: &AccountId) {
        self.becomes(account, false);
    }

    /// `account` is logged in.
    pub fn logged_in(&mut self, account: &AccountId) {
        self.becomes(account, true);
        if let Some(state) = &mut self.state {
            (state.held, state.held_bytes, state.held_lost) = (VecDeque::new(), 0, 0);
        }
    }

    fn becomes(&mut self, account: &AccountId, logged_in: bool) {
        let _ = self.transcript();
        let before = self.account.replace(account.clone());
        let was_logged_in = std::mem::replace(&mut self.logged_in, logged_in);
        if let Some(state) = &self.state {
            let before = KnownSession {
                session: self.session,
                account: before.as_ref(),
                logged_in: was_logged_in,
            };
            let lost = Some(state.held_lost)
                .filter(|lost| *lost > 0)
                .map(|lost| Arc::new(Record::dropped(lost)));
            for record in lost.iter().chain(&state.held) {
                let record =
                    Arc::new(Record { account: Some(account.clone()), ..Record::clone(record) });
                self.hub.send_held(&record, before, self.known());
            }
        }
        // Followers may want it now, or not any more.
        let now = self.hub.state();
        self.look(now);
    }

    fn known(&self) -> KnownSession<'_> {
        KnownSession {
            session: self.session,
            account: self.account.as_ref(),
            logged_in: self.logged_in,
        }
    }

    #[cold]
    fn look(&mut self, now: u64) {
        self.seen = now;
        match self.hub.interest(self.known()) {
            (Interest::No, _) => self.state = None,
            (_, literals) => self.state.get_or_insert_default().literals = literals,
        }
    }

    fn emit(&mut self, entry: TraceEntry) {
        let account = self.account.clone();
        let record = Arc::new(Record {
            time: Timestamp::now(),
            session: Some(self.session),
            account,
            entry,
        });
        if self.hub.send(&record, self.known())
            && let Some(state) = &mut self.state
        {
            state.hold(record);
        }
    }
}

impl Transcript for Recorder {
    fn piece(&mut self, speaker: Speaker, mark: Mark, piece: Piece<'_>) {
        let Some(state) = &mut self.state else { return };
        let Some(line) = state.lines.get_mut(speaker as usize) else { return };
        line.mark = Some(mark);
        match piece {
            Piece::Masked(bytes) => line.mask(bytes),
            Piece::Literal(bytes) => line.push_literal(bytes, state.literals),
            Piece::Text(text) => {
                line.push_text(text);
                if text.ends_with(b"\n") {
                    line.end();
                    let mut parts = std::mem::take(line).parts;
                    state.mask(speaker, mark, &mut parts);
                    self.emit(TraceEntry::Said { speaker, mark, parts });
                }
            }
        }
    }

    fn command(&mut self, tag: &[u8], disclosure: Disclosure) {
        if let Some(state) = &mut self.state {
            state.answers.command(tag, disclosure);
        }
    }

    fn note(&mut self, words: &str) {
        self.emit(TraceEntry::Note(words.to_owned()));
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
        self.hub.over(self.session);
    }
}

impl Recorder {
    /// Shows an unfinished line as far as it came, and lines without a later login to those who follow these.
    fn flush(&mut self) {
        // Nobody may follow any more.
        if self.state.is_none() || self.transcript().is_none() {
            return;
        }
        for speaker in [Speaker::Client, Speaker::ToClient, Speaker::ToUpstream, Speaker::Upstream]
        {
            let line = self
                .state
                .as_mut()
                .and_then(|state| state.lines.get_mut(speaker as usize))
                .map(std::mem::take);
            if let Some(OpenLine { mark: Some(mark), mut parts, .. }) = line {
                if let Some(state) = &mut self.state {
                    state.mask(speaker, mark, &mut parts);
                }
                self.emit(TraceEntry::Said { speaker, mark, parts });
            }
        }
        let held = self
            .state
            .take()
            .filter(|_| !self.logged_in)
            .map(|state| state.held)
            .unwrap_or_default();
        held.iter().for_each(|record| self.hub.send_lost(record));
    }
}

impl RecorderState {
    /// Masks what may repeat a client's command. The answers to deltapush's own commands are [`Mark::Kept`].
    fn mask(&mut self, speaker: Speaker, mark: Mark, parts: &mut Vec<LinePart>) {
        match speaker {
            Speaker::ToClient => self.answers.mask(mark, true, parts),
            Speaker::Upstream if mark == Mark::Replaced => self.answers.mask(mark, false, parts),
            Speaker::Upstream | Speaker::Client | Speaker::ToUpstream => {}
        }
    }

    fn hold(&mut self, record: Arc<Record>) {
        self.held_bytes = self.held_bytes.saturating_add(record.cost());
        self.held.push_back(record);
        while self.held_bytes > MAX_HELD
            && let Some(oldest) = self.held.pop_front()
        {
            self.held_bytes = self.held_bytes.saturating_sub(oldest.cost());
            self.held_lost = self.held_lost.saturating_add(1);
        }
    }
}

impl OpenLine {
    fn push_text(&mut self, text: &[u8]) {
        let text =
            text.strip_suffix(b"\n").map_or(text, |text| text.strip_suffix(b"\r").unwrap_or(text));
        let room = if self.has_room() { MAX_LINE.saturating_sub(self.text) } else { 0 };
        let (shown, cut) = text.split_at_checked(room).unwrap_or((text, &[]));
        self.text = self.text.saturating_add(shown.len());
        if !shown.is_empty() {
            match self.parts.last_mut() {
                Some(LinePart::Text(last)) => last.extend_from_slice(shown),
                _ => self.parts.push(LinePart::Text(shown.to_vec())),
            }
        }
        self.cut(cut.len());
    }

    /// Its line end may have come in two pieces.
    fn end(&mut self) {
        if let Some(LinePart::Text(text)) = self.parts.last_mut()
            && text.ends_with(b"\r")
        {
            text.pop();
        }
    }

    fn mask(&mut self, bytes: usize) {
        let has_room = self.has_room();
        match self.parts.last_mut() {
            Some(LinePart::Masked(masked)) => *masked = masked.saturating_add(bytes as u64),
            _ if bytes == 0 => {}
            _ if has_room => self.parts.push(LinePart::Masked(bytes as u64)),
            _ => self.cut(bytes),
        }
    }

    fn push_literal(&mut self, bytes: &[u8], show: bool) {
        if !matches!(self.parts.last(), Some(LinePart::Literal { .. })) {
            if bytes.is_empty() {
                return;
            }
            if !self.has_room() {
                return self.cut(bytes.len());
            }
            self.parts.push(LinePart::Literal { size: 0, shown: Vec::new() });
        }
        let room = if show { MAX_LITERAL.saturating_sub(self.shown) } else { 0 };
        if let Some(LinePart::Literal { size, shown }) = self.parts.last_mut() {
            *size = size.saturating_add(bytes.len() as u64);
            let more = bytes.get(..room).unwrap_or(bytes);
            shown.extend_from_slice(more);
            self.shown = self.shown.saturating_add(more.len());
        }
    }

    fn has_room(&self) -> bool {
        self.parts.len() < MAX_PARTS
    }

    fn cut(&mut self, bytes: usize) {
        match self.parts.last_mut() {
            _ if bytes == 0 => {}
            Some(LinePart::Cut(cut)) => *cut = cut.saturating_add(bytes as u64),
            _ => self.parts.push(LinePart::Cut(bytes as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Shown, record};
    use super::super::{Audience, ConnectionSide, TraceSelection, Tracer};
    use super::*;

    fn recorded(pieces: &[(Speaker, Mark, Piece<'_>)]) -> Vec<String> {
        let (shown, mut recorder) = Shown::begin();
        for (speaker, mark, piece) in pieces {
            recorder.transcript().unwrap().piece(*speaker, *mark, *piece);
        }
        drop(recorder);
        shown
            .text()
            .lines()
            .skip(1)
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect()
    }

    fn follow(tracer: &Tracer, audience: Audience) -> super::super::Followed {
        tracer.follow(TraceSelection { audience, side: None, literals: false }).unwrap()
    }

    fn said(followed: &mut super::super::Followed) -> Vec<String> {
        let mut renderer = super::super::Renderer::new();
        let lines =
            std::iter::from_fn(|| followed.try_next()).map(|record| renderer.render(&record));
        lines
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|line| !line.ends_with("(UTC)"))
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect()
    }

    #[test]
    fn line_stands_together_whatever_the_pieces() {
        use Speaker::{Client, ToClient};
        let lines = recorded(&[
            (Client, Mark::Relayed, Piece::Text(b"a AP")),
            (ToClient, Mark::Own, Piece::Text(b"* OK hi\r\n")),
            (Client, Mark::Relayed, Piece::Text(b"PEND x {5}\r\n")),
            (Client, Mark::Relayed, Piece::Literal(b"ab")),
            (Client, Mark::Relayed, Piece::Literal(b"cde")),
            (Client, Mark::Relayed, Piece::Text(b"\r\n")),
            (Client, Mark::Kept, Piece::Text(b"b LOGIN ")),
            (Client, Mark::Kept, Piece::Masked(3)),
            (Client, Mark::Kept, Piece::Masked(4)),
            (Client, Mark::Kept, Piece::Text(b"\r\n")),
            (Client, Mark::Kept, Piece::Text(b"c NO")),
        ]);
        assert_eq!(
            lines,
            [
                "#1 S: * OK hi   [sent by deltapush]",
                "#1 C: a APPEND x {5}",
                "#1 C: <5 bytes> ",
                "#1 C: b LOGIN <7 bytes masked>   [kept by deltapush]",
                "#1 C: c NO   [kept by deltapush]",
            ]
        );
    }

    #[test]
    fn line_is_bounded() {
        let (long, short) = ([b'x'; 5000], [b'y'; 2]);
        let mut pieces = vec![
            (Speaker::Client, Mark::Relayed, Piece::Text(&long)),
            (Speaker::Client, Mark::Relayed, Piece::Text(b"\n")),
        ];
        for _ in 0..100 {
            pieces.push((Speaker::Client, Mark::Kept, Piece::Text(&short)));
            pieces.push((Speaker::Client, Mark::Kept, Piece::Masked(1)));
        }
        pieces.push((Speaker::Client, Mark::Kept, Piece::Text(b"\n")));
        let lines = recorded(&pieces);
        assert!(lines[0].ends_with("x<904 bytes more>"), "{}", lines[0]);
        assert!(
            lines[1].ends_with("yy<1 bytes masked><204 bytes more>   [kept by deltapush]"),
            "{}",
            lines[1]
        );
    }

    #[test]
    fn follower_of_an_account_sees_its_login_and_nothing_of_others() {
        let (alice, bob) =
            (AccountId::new("alice@x.example", "x"), AccountId::new("bob@x.example", "x"));
        let tracer = Tracer::default();
        let mut followed = follow(&tracer, Audience::Account("Alice@x.example".into()));
        let (mut first, mut second, mut watch) =
            (tracer.client(1), tracer.client(2), tracer.watch(&bob));
        record(&mut first, "a NOOP");
        record(&mut second, "b NOOP");
        assert!(watch.transcript().is_none(), "whose it is is known");
        assert_eq!(said(&mut followed), [""; 0]);
        first.tries(&alice);
        second.tries(&bob);
        // The wrong password is a part of the story.
        record(&mut first, "c LOGIN");
        second.logged_in(&bob);
        assert!(second.transcript().is_none());
        first.tries(&alice);
        first.logged_in(&alice);
        record(&mut first, "d SELECT INBOX");
        let kept = "alice@x.example C:";
        assert_eq!(
            said(&mut followed),
            [
                format!("#1 {kept} a NOOP   [kept by deltapush]"),
                format!("#1 {kept} c LOGIN   [kept by deltapush]"),
                format!("#1 {kept} d SELECT INBOX   [kept by deltapush]")
            ]
        );
    }

    #[test]
    fn sessions_that_run_already_are_followed_and_left_again() {
        let tracer = Tracer::default();
        let mut session = tracer.client(7);
        record(&mut session, "a NOOP");
        assert!(session.transcript().is_none() && session.state.is_none());
        let mut followed = follow(&tracer, Audience::Session(SessionId::Client(7)));
        let mut other = follow(&tracer, Audience::Session(SessionId::Client(8)));
        record(&mut session, "b NOOP");
        assert_eq!(said(&mut followed), ["#7 C: b NOOP   [kept by deltapush]"]);
        assert_eq!(said(&mut other), [""; 0]);
        drop(followed);
        record(&mut session, "c NOOP");
        assert!(session.state.is_none(), "it costs nothing again");
        assert!(other.try_next().is_none());
    }

    #[tokio::test]
    async fn follower_of_a_session_gets_its_last_line_and_its_end() {
        let tracer = Tracer::default();
        let mut session = tracer.client(7);
        let mut followed = follow(&tracer, Audience::Session(SessionId::Client(7)));
        let mut all = follow(&tracer, Audience::Everyone);
        session.transcript().unwrap().piece(Speaker::Client, Mark::Kept, Piece::Text(b"a NO"));
        assert!(tracer.has(SessionId::Client(7)) && !tracer.has(SessionId::Client(8)));
        drop(session);
        assert!(!tracer.has(SessionId::Client(7)));
        assert!(matches!(followed.next().await.unwrap().entry, TraceEntry::Said { .. }));
        assert_eq!(followed.next().await, None);
        drop(followed);
        assert!(all.try_next().is_some(), "others follow on");
        record(&mut tracer.client(8), "b NOOP");
        assert_eq!(said(&mut all), ["#8 C: b NOOP   [kept by deltapush]"]);
    }

    #[test]
    fn connection_without_a_login_is_shown_to_followers_of_logins() {
        let alice = AccountId::new("alice@x.example", "x");
        let tracer = Tracer::default();
        let mut all = follow(&tracer, Audience::LoggedIn(Vec::new()));
        let mut some = follow(&tracer, Audience::LoggedIn(vec!["alice@x.example".into()]));
        let (mut stranger, mut session) = (tracer.client(1), tracer.client(2));
        record(&mut stranger, "a NOOP");
        stranger.tries(&alice);
        record(&mut session, "b NOOP");
        session.tries(&alice);
        session.logged_in(&alice);
        drop(stranger);
        let login = "#2 alice@x.example C: b NOOP   [kept by deltapush]";
        assert_eq!(said(&mut all), [login, "#1 C: a NOOP   [kept by deltapush]"]);
        assert_eq!(said(&mut some), [login], "whoever only tried is not alice");
        // Without end it is not kept.
        let mut talker = tracer.client(3);
        (0..1000).for_each(|_| record(&mut talker, "c NOOP"));
        assert!(talker.state.as_ref().unwrap().held_bytes <= MAX_HELD);
        talker.logged_in(&alice);
        assert!(matches!(all.try_next().unwrap().entry, TraceEntry::Dropped(900..)));
    }

    #[test]
    fn literals_and_sides_are_for_who_asks() {
        let tracer = Tracer::default();
        let wanted =
            |literals, side| TraceSelection { audience: Audience::Everyone, side, literals };
        let mut with = tracer.follow(wanted(true, None)).unwrap();
        let mut without = tracer.follow(wanted(false, Some(ConnectionSide::Upstream))).unwrap();
        let mut session = tracer.client(1);
        let transcript = session.transcript().unwrap();
        transcript.piece(Speaker::Client, Mark::Relayed, Piece::Literal(b"body"));
        transcript.piece(Speaker::Client, Mark::Relayed, Piece::Text(b"\r\n"));
        transcript.lines(Speaker::ToClient, Mark::Own, b"* OK\r\n");
        assert_eq!(said(&mut with), ["#1 C: <4 bytes: body> ", "#1 S: * OK   [sent by deltapush]"]);
        assert_eq!(said(&mut without), ["#1 U> <4 bytes> "]);
    }

    #[test]
    fn it_is_small_while_nobody_follows() {
        // 80 bytes by rustc 1.95: layouts are the compiler's.
        assert!(size_of::<Recorder>() <= 100, "{}", size_of::<Recorder>());
    }
}
