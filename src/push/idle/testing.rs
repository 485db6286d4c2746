//! Dialogues of the watching machine, in virtual time: how they are played, and how most of them begin.

use std::time::{Duration, Instant};

use super::*;
use crate::push::filter::PushFilter;
use crate::store::Position;

pub(super) const ITEMS: &str =
    "(UID FLAGS BODY.PEEK[HEADER.FIELDS (FROM AUTO-SUBMITTED MESSAGE-ID)]<0.16384>)";

pub(super) fn watch(position: Option<(u64, u64)>) -> WatchTerms {
    WatchTerms {
        mailboxes: vec![mailbox("INBOX", position)],
        spare: vec![],
        judge: PushFilter { addresses: vec!["alice@example.org".into()], ..PushFilter::default() },
        renewal: Duration::from_secs(540),
        notify: false,
        blindly: false,
        late: false,
        grace: Duration::ZERO,
    }
}

pub(super) fn mailbox(name: &str, position: Option<(u64, u64)>) -> WatchedMailbox {
    let position = position.map(|(uid_validity, uid_next)| Position { uid_validity, uid_next });
    WatchedMailbox { name: name.into(), position, is_left_out: false }
}

pub(super) fn play(position: Option<(u64, u64)>, script: &str) -> Option<IdleFailure> {
    play_watch(watch(position), script)
}

/// Plays an upstream and a clock: `S:` is said by the server, `>` must be sent, `(later 9m)` lets time pass, and what else is
/// done must stand in parentheses: `(noted VALIDITY NEXT)`, `(announced VALIDITY NEXT)`, `(watching)`, `(failed)`,
/// `(released)`. `(wanted)`: somebody else wants the session. A literal is written as `{text}`, with `|` for a line end; `ITEMS`
/// stands for what is fetched.
pub(super) fn play_watch(watch: WatchTerms, script: &str) -> Option<IdleFailure> {
    play_in(InheritedState::default(), watch, script)
}

/// The same in a session in which something was set before.
pub(super) fn play_in(
    manners: InheritedState,
    watch: WatchTerms,
    script: &str,
) -> Option<IdleFailure> {
    let began = Instant::now();
    let mut machine = IdleMachine::new(watch, began).in_session(manners);
    let mut is_released = false;
    let mut now = began;
    let mut actions = vec![];
    let mut failure = None;
    machine.handle(IdleInput::Start, now, &mut actions);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (kind, text) = line.split_once(' ').unwrap_or((line, ""));
        if matches!(kind, "S:" | "(later" | "(wanted)") {
            assert_eq!(actions, [], "before {line:?}");
        }
        match kind {
            "S:" => {
                machine.handle(
                    IdleInput::Response(with_literals(text).as_bytes()),
                    now,
                    &mut actions,
                );
                actions.retain(|action| !matches!(action, IdleAction::Judged { .. }));
            }
            "(later" => {
                now += humantime::parse_duration(text.trim_end_matches(')')).unwrap();
                machine.handle(IdleInput::Tick, now, &mut actions);
            }
            "(wanted)" => machine.handle(IdleInput::Release, now, &mut actions),
            _ => {
                assert!(!actions.is_empty(), "nothing was done at {line:?}");
                let expected = line.replace("ITEMS", ITEMS);
                match actions.remove(0) {
                    IdleAction::Send(bytes) => {
                        assert_eq!(
                            format!("> {}", String::from_utf8_lossy(&bytes).trim_end()),
                            expected
                        )
                    }
                    IdleAction::Noticed { mailbox, position, announce, .. } => {
                        let word = if announce { "announced" } else { "noted" };
                        let of = if mailbox == "INBOX" {
                            String::new()
                        } else {
                            format!(" of {mailbox}")
                        };
                        assert_eq!(
                            format!("({word} {} {}{of})", position.uid_validity, position.uid_next),
                            expected
                        );
                    }
                    IdleAction::OnlyFirst => assert_eq!("(only the first)", expected),
                    IdleAction::LeftOut(mailbox, words) => {
                        assert_eq!(format!("(left out {mailbox}: {words})"), expected)
                    }
                    IdleAction::Opened(mailbox) => {
                        assert_eq!(format!("(opened {mailbox})"), expected)
                    }
                    IdleAction::Odd(oddity) => assert_eq!(format!("(odd {oddity:?})"), expected),
                    IdleAction::Watching => assert_eq!("(watching)", expected),
                    IdleAction::Released => {
                        assert_eq!("(released)", expected);
                        is_released = true;
                    }
                    IdleAction::Failed(error) => {
                        assert_eq!("(failed)", expected);
                        failure = Some(error);
                    }
                    IdleAction::Judged { .. } => unreachable!("taken out above"),
                }
            }
        }
    }
    assert_eq!(actions, [], "at the end");
    assert!(
        is_released
            || failure.is_some()
            || machine.deadline().is_some_and(|deadline| deadline > now),
        "something is always awaited"
    );
    failure
}

pub(super) fn with_literals(text: &str) -> String {
    let mut line = String::new();
    for (index, part) in text.split(['{', '}']).enumerate() {
        let part = part.replace('|', "\r\n");
        if index % 2 == 1 {
            line += &format!("{{{}}}\r\n", part.len());
        }
        line += &part;
    }
    line + "\r\n"
}

/// The beginning of a session on a mailbox that was looked through up to UID 10.
pub(super) const QUIET: &str = "> w1 EXAMINE \"INBOX\"
    S: * 4 EXISTS
    S: * OK [UIDVALIDITY 7] ok
    S: * OK [UIDNEXT 10] ok
    S: w1 OK [READ-ONLY] done
    > w2 IDLE
    S: + idling
    (watching)
    ";

pub(super) fn after_quiet(script: &str) -> Option<IdleFailure> {
    play(Some((7, 10)), &format!("{QUIET}{script}"))
}

/// What the server says to the EXAMINE with this number, in a mailbox of four messages.
pub(super) fn opened(number: u32, validity: u64, next: u64) -> String {
    format!(
        "S: * 4 EXISTS\nS: * OK [UIDVALIDITY {validity}]\nS: * OK [UIDNEXT {next}]\nS: w{number} OK\n"
    )
}
