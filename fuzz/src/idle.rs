//! `push::idle`: what a server may say to a watching session, and when.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use deltapush::config::Messages;
use deltapush::machine::Machine;
use deltapush::push::filter::PushFilter;
use deltapush::push::idle::{
    IdleAction, IdleInput, IdleMachine, WatchTerms, WatchedMailbox, max_detection_delay,
};
use deltapush::store::Position;

use super::events::{self, events};

const RENEWAL: Duration = Duration::from_secs(540);

/// The longest that a FETCH may take.
const FETCH_TIME: Duration = Duration::from_secs(600);

/// The most actions of one response or one moment.
const MAX_ACTIONS: usize = 8;

pub(crate) fn check(data: &[u8]) {
    let (settings, script) = events::settings(data);
    let mut now = Instant::now();
    let mut run = Run {
        machine: IdleMachine::new(watch(settings), now),
        tag: 0,
        noted: HashMap::new(),
        is_over: false,
        has_left: false,
    };
    run.step(now, |machine, actions| machine.handle(IdleInput::Start, now, actions));
    for (kind, said) in events(script) {
        if kind == b'L' {
            run.step(now, |machine, actions| machine.handle(IdleInput::Leave, now, actions));
        } else if kind == b'T' {
            now += Duration::from_secs(u64::from(said.first().copied().unwrap_or(1)) * 4);
            run.step(now, |machine, actions| machine.handle(IdleInput::Tick, now, actions));
        } else {
            // `@` stands for the tag of the last command, which a fuzzer would be long to guess.
            let tag = format!("w{}", run.tag);
            let line: Vec<u8> = said
                .iter()
                .flat_map(
                    |byte| if *byte == b'@' { tag.as_bytes() } else { std::slice::from_ref(byte) },
                )
                .copied()
                .collect();
            run.step(now, |machine, actions| {
                machine.handle(IdleInput::Response(&line), now, actions)
            });
        }
    }
    run.a_silent_server_is_given_up(now);
}

fn watch(settings: u8) -> WatchTerms {
    let has = |bit: u8| settings >> bit & 1 == 1;
    let position = has(0).then_some(Position { uid_validity: 7, uid_next: 10 });
    let mailbox =
        |name: &str, position| WatchedMailbox { name: name.into(), position, is_left_out: false };
    let mut mailboxes = vec![mailbox("INBOX", position)];
    let mut spare = vec![];
    if has(1) {
        mailboxes.push(mailbox("a \"b\\c", None));
        mailboxes.push(mailbox("DeltaChat", position));
        spare.push(mailbox("Archive", None));
    }
    let messages = if has(2) { Messages::Chat } else { Messages::All };
    WatchTerms {
        mailboxes,
        spare,
        judge: PushFilter {
            addresses: vec!["alice@example.org".into()],
            messages,
            encrypted_only: false,
        },
        renewal: RENEWAL,
        notify: has(3),
        blindly: has(4),
        late: has(5),
        grace: if has(6) { Duration::from_secs(20) } else { Duration::ZERO },
    }
}

struct Run {
    machine: IdleMachine,
    /// The number of the last command.
    tag: u32,
    /// The noted position of each mailbox.
    noted: HashMap<String, Position>,
    is_over: bool,
    has_left: bool,
}

impl Run {
    fn step(&mut self, now: Instant, act: impl FnOnce(&mut IdleMachine, &mut Vec<IdleAction>)) {
        let mut actions = vec![];
        act(&mut self.machine, &mut actions);
        assert!(!self.has_left || actions.is_empty(), "it has left: {actions:?}");
        self.has_left |= actions.iter().any(
            |action| matches!(action, IdleAction::Send(bytes) if bytes.ends_with(b" LOGOUT\r\n")),
        );
        assert!(actions.len() <= MAX_ACTIONS, "{actions:?}");
        let mut sent = 0;
        for action in actions {
            assert!(!self.is_over, "nothing comes after the end: {action:?}");
            match action {
                IdleAction::Send(bytes) => {
                    sent += 1;
                    self.sends(&bytes);
                }
                IdleAction::Noticed { mailbox, look, .. } => {
                    assert!(look.news_next <= look.position.uid_next, "{look:?}");
                    self.notes(mailbox.to_string(), look.position)
                }
                IdleAction::Failed(failure) => {
                    assert!(!failure.to_string().is_empty());
                    self.is_over = true;
                }
                // `Run` never asks for the session.
                IdleAction::Released => unreachable!("nobody wants it"),
                IdleAction::Judged { .. }
                | IdleAction::Watching
                | IdleAction::OnlyFirst
                | IdleAction::Odd(_)
                | IdleAction::Opened(_)
                | IdleAction::LeftOut(..) => {}
            }
        }
        // Leaving ends IDLE and says LOGOUT at once.
        assert!(sent <= if self.has_left { 2 } else { 1 }, "one command at a time");
        if !self.is_over && !self.has_left {
            assert!(self.deadline() <= now + RENEWAL.max(FETCH_TIME), "it would wait too long");
        }
    }

    /// One line, and commands in their order: never SELECT, never a literal.
    fn sends(&mut self, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).expect("text");
        let line = text.strip_suffix("\r\n").expect("a whole line");
        assert!(!line.contains(['\r', '\n', '\0']) && !line.ends_with('}'));
        if line == "DONE" {
            return;
        }
        self.tag += 1;
        let command = line.strip_prefix(&format!("w{} ", self.tag)).expect("the next tag");
        let verbs = ["EXAMINE ", "UID FETCH ", "FETCH ", "NOTIFY SET ", "IDLE", "LOGOUT"];
        assert!(verbs.iter().any(|verb| command.starts_with(verb)), "{command:?}");
    }

    /// A noted position never goes back.
    fn notes(&mut self, mailbox: String, position: Position) {
        if let Some(before) = self.noted.insert(mailbox, position)
            && before.uid_validity == position.uid_validity
            // Without UIDVALIDITY a lower UIDNEXT means that UIDs began again.
            && position.uid_validity != 0
        {
            assert!(position.uid_next >= before.uid_next, "{before:?} then {position:?}");
        }
    }

    fn deadline(&self) -> Instant {
        self.machine.deadline().expect("something is awaited")
    }

    fn a_silent_server_is_given_up(&mut self, mut now: Instant) {
        let began = now;
        for _ in 0..3 {
            if self.is_over || self.has_left {
                return;
            }
            now = now.max(self.deadline());
            self.step(now, |machine, actions| machine.handle(IdleInput::Tick, now, actions));
        }
        assert!(self.is_over, "it waits for a server that is silent");
        assert!(
            now - began <= max_detection_delay(RENEWAL).max(FETCH_TIME) + Duration::from_secs(60)
        );
    }
}
