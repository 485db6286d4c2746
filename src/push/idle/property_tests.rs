//! A model of a mail server that pads, widens, reorders and leaves out, and the rule that no announcement is lost: after each
//! message to push, something is announced, whatever the server's inherited. And no look costs too much.

use std::time::Instant;

use proptest::prelude::*;

use super::look::MAX_MESSAGES;
use super::*;
use crate::store::{Look, Position};

/// A server's inherited.
#[derive(Debug, Clone, Copy)]
struct Manners {
    pads: bool,
    is_wide: bool,
    has_uid: bool,
    has_flags: bool,
    /// Headers: as they should be, missing, or NIL.
    headers: u8,
    has_uid_next: bool,
    has_uid_validity: bool,
    /// EXISTS after EXAMINE.
    has_exists: bool,
    /// The number in an EXISTS while the client waits.
    has_count: bool,
    /// EXPUNGE is never said.
    is_silent: bool,
    /// Items in another order, and news of other messages in between.
    is_disorderly: bool,
    /// FETCH responses do not end with a parenthesis.
    is_unclosed: bool,
    has_notify: bool,
}

fn inherited() -> impl Strategy<Value = Manners> {
    (any::<[bool; 12]>(), 0u8..6).prop_map(|(bits, headers)| Manners {
        pads: bits[0],
        is_wide: bits[1],
        has_uid: bits[2],
        has_flags: bits[3],
        headers: headers.saturating_sub(3),
        has_uid_next: bits[4],
        has_uid_validity: bits[5],
        has_exists: bits[6],
        has_count: bits[7],
        is_silent: bits[8],
        is_disorderly: bits[9],
        is_unclosed: bits[10] && bits[0],
        has_notify: bits[11],
    })
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A message arrives while the client waits; the flag: it is to be pushed.
    Arrives(bool),
    /// It arrives while the client's look is under way.
    ArrivesDuringLook,
    /// It arrives while there is no session.
    ArrivesOffline(bool),
    /// The first message is expunged.
    Expunged,
    /// The session is renewed.
    Reconnects,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any::<bool>().prop_map(Step::Arrives),
        1 => Just(Step::ArrivesDuringLook),
        1 => any::<bool>().prop_map(Step::ArrivesOffline),
        1 => Just(Step::Expunged),
        1 => Just(Step::Reconnects),
    ]
}

struct Model {
    inherited: Manners,
    seed: u64,
    /// UID, and true if it is to be pushed.
    messages: Vec<(u64, bool)>,
    uid_next: u64,
    machine: IdleMachine,
    now: Instant,
    position: Option<Position>,
    announcements: usize,
    idle_tag: Option<String>,
    /// Arrives before the next FETCH ends.
    to_arrive: bool,
    /// Messages that arrived since the last look.
    arrived: u64,
}

impl Model {
    fn new(inherited: Manners, old: u64, seed: u64) -> Self {
        let base = if inherited.is_wide { 19_564_493_749 } else { 100 };
        let messages: Vec<_> = (0..old).map(|number| (base + number, true)).collect();
        let now = Instant::now();
        let machine = IdleMachine::new(watch(inherited, None), now);
        let uid_next = base + old;
        let mut model = Self {
            inherited,
            seed,
            messages,
            uid_next,
            machine,
            now,
            position: None,
            announcements: 0,
            idle_tag: None,
            to_arrive: false,
            arrived: 0,
        };
        model.begin();
        model
    }

    fn begin(&mut self) {
        self.machine = IdleMachine::new(watch(self.inherited, self.position), self.now);
        self.idle_tag = None;
        let mut actions = vec![];
        self.machine.handle(IdleInput::Start, self.now, &mut actions);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<IdleAction>) {
        for action in actions {
            match action {
                IdleAction::Send(bytes) => self.answer(&String::from_utf8(bytes).unwrap()),
                IdleAction::Noticed { look: Look { position, .. }, announce, .. } => {
                    self.position = Some(position);
                    self.announcements += usize::from(announce);
                }
                IdleAction::Failed(failure) => panic!("{failure}"),
                _ => {}
            }
        }
    }

    /// Sends a response; a literal in it stands as it is.
    fn respond(&mut self, line: &str) {
        let line = if self.inherited.pads { self.padded(line) } else { line.to_owned() };
        let mut actions = vec![];
        self.machine.handle(
            IdleInput::Response(format!("{line}\r\n").as_bytes()),
            self.now,
            &mut actions,
        );
        self.act(actions);
    }

    /// With more spaces before, between and behind the words, literals left alone.
    fn padded(&mut self, line: &str) -> String {
        let (head, literal) =
            line.split_once("\r\n").map_or((line, None), |(head, literal)| (head, Some(literal)));
        let mut padded = String::new();
        for (index, word) in head.split(' ').enumerate() {
            let spaces = self.random(4) as usize + usize::from(index > 0);
            padded += &" ".repeat(spaces);
            padded += word;
        }
        match literal {
            Some(literal) => padded + "\r\n" + literal,
            None => padded + &" ".repeat(self.random(3) as usize),
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    fn answer(&mut self, command: &str) {
        let command = command.trim_end();
        if command == "DONE" {
            let tag = self.idle_tag.take().unwrap();
            return self.respond(&format!("{tag} OK done"));
        }
        let (tag, command) = command.split_once(' ').unwrap();
        if command.starts_with("EXAMINE") {
            if self.inherited.has_exists {
                self.respond(&format!("* {} EXISTS", self.messages.len()));
            }
            if self.inherited.has_uid_validity {
                self.respond(if self.inherited.is_wide {
                    "* OK [UIDVALIDITY 1713632002544] ok"
                } else {
                    "* OK [UIDVALIDITY 7] ok"
                });
            }
            if self.inherited.has_uid_next {
                self.respond(&format!("* OK [UIDNEXT {}] ok", self.uid_next));
            }
            self.respond(&format!("{tag} OK [READ-ONLY] done"));
        } else if command == "IDLE" {
            self.idle_tag = Some(tag.to_owned());
            self.respond("+ idling");
        } else if command.starts_with("NOTIFY") {
            self.respond(&format!("{tag} OK done"));
        } else if let Some(fetch) = command.strip_prefix("UID FETCH ") {
            self.fetch(tag, fetch, true);
        } else if let Some(fetch) = command.strip_prefix("FETCH ") {
            self.fetch(tag, fetch, false);
        } else {
            panic!("{command}");
        }
    }

    fn fetch(&mut self, tag: &str, arguments: &str, by_uid: bool) {
        if self.messages.is_empty() {
            return self.respond(&format!("{tag} BAD there are no messages"));
        }
        let (set, items) = arguments.split_once(' ').unwrap();
        let last = self.messages.len() - 1;
        let first = match set.split_once(':').map(|(from, _)| from.parse::<u64>().unwrap()) {
            None => last,
            Some(from) if by_uid => {
                self.messages.iter().position(|(uid, _)| *uid >= from).unwrap_or(last)
            }
            Some(from) => (from as usize).saturating_sub(1).min(last),
        };
        let count = (self.messages.len() - first) as u64;
        assert!(
            count <= MAX_MESSAGES + self.arrived,
            "{arguments}: {count} of {}",
            self.messages.len()
        );
        self.arrived = 0;
        if std::mem::take(&mut self.to_arrive) {
            self.arrive(true);
            self.respond(&format!("* {} EXISTS", self.messages.len()));
        }
        for index in first..=last {
            if self.inherited.is_disorderly {
                self.respond("* 1 FETCH (FLAGS (\\Answered))");
            }
            let answer =
                if items == "(UID)" { self.only_uid(index) } else { self.described(index) };
            self.respond(&answer);
        }
        self.respond(&format!("{tag} OK done"));
    }

    fn only_uid(&self, index: usize) -> String {
        match self.inherited.has_uid {
            true => format!("* {} FETCH (UID {})", index + 1, self.messages[index].0),
            false => format!("* {} FETCH (FLAGS ())", index + 1),
        }
    }

    fn described(&self, index: usize) -> String {
        let (uid, is_pushed) = self.messages[index];
        let text =
            if is_pushed { "From: bob@b.org\r\n\r\n" } else { "From: alice@example.org\r\n\r\n" };
        let uid = if self.inherited.has_uid { format!("UID {uid} ") } else { String::new() };
        let flags = if self.inherited.has_flags { "FLAGS (\\Recent) " } else { "" };
        let headers = match self.inherited.headers {
            0 => {
                format!("BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED)]<0> {{{}}}\r\n{text}", text.len())
            }
            1 => String::new(),
            _ => "BODY[HEADER.FIELDS (FROM AUTO-SUBMITTED)] NIL".into(),
        };
        let end = if self.inherited.is_unclosed { "" } else { ")" };
        let items = if self.inherited.is_disorderly && self.inherited.headers == 0 {
            format!("{headers} {flags}{uid}").trim_end().to_owned()
        } else {
            format!("{uid}{flags}{headers}")
        };
        format!("* {} FETCH ({items}{end}", index + 1)
    }

    fn arrive(&mut self, is_pushed: bool) {
        self.messages.push((self.uid_next, is_pushed));
        self.uid_next += 1;
        self.arrived += 1;
    }

    /// EXISTS, and with NOTIFY the message itself.
    fn announce_arrival(&mut self) {
        let count = if self.inherited.has_count {
            format!("{} ", self.messages.len())
        } else {
            String::new()
        };
        self.respond(&format!("* {count}EXISTS"));
        if self.inherited.has_notify && self.idle_tag.is_some() {
            let answer = self.described(self.messages.len() - 1);
            self.respond(&answer);
        }
        // Data that NOTIFY promises may not come, and a look may have to wait.
        for wait in [NOTIFY_TIME, PAUSE] {
            self.now += wait;
            let mut actions = vec![];
            self.machine.handle(IdleInput::Tick, self.now, &mut actions);
            self.act(actions);
        }
    }

    fn step(&mut self, step: Step) {
        let before = self.announcements;
        match step {
            Step::Arrives(is_pushed) => {
                self.arrive(is_pushed);
                self.announce_arrival();
                assert!(!is_pushed || self.announcements > before, "a message was lost");
            }
            Step::ArrivesDuringLook => {
                self.to_arrive = true;
                self.arrive(false);
                self.announce_arrival();
                // With NOTIFY there may have been no FETCH.
                let has_arrived = !std::mem::take(&mut self.to_arrive);
                assert!(
                    !has_arrived || self.announcements > before,
                    "a message was lost during a look"
                );
            }
            Step::ArrivesOffline(is_pushed) => {
                self.arrive(is_pushed);
                self.begin();
                assert!(
                    !is_pushed || self.announcements > before,
                    "a message was lost between sessions"
                );
            }
            Step::Expunged if !self.messages.is_empty() => {
                self.messages.remove(0);
                if !self.inherited.is_silent {
                    self.respond("* 1 EXPUNGE");
                }
            }
            Step::Expunged => {}
            Step::Reconnects => self.begin(),
        }
        assert!(self.idle_tag.is_some(), "it waits again");
    }
}

fn watch(inherited: Manners, position: Option<Position>) -> WatchTerms {
    let position = position.map(|position| (position.uid_validity, position.uid_next));
    WatchTerms { notify: inherited.has_notify, ..testing::watch(position) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_announcement_is_lost_to_a_servers_manners(
        inherited in inherited(),
        old in prop_oneof![Just(0u64), Just(1), 2u64..30, Just(250)],
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..12),
    ) {
        let mut model = Model::new(inherited, old, seed);
        prop_assert_eq!(model.announcements, 0, "what was there before is old");
        for step in steps {
            model.step(step);
        }
    }
}
