//! Dialogues of the watch machine, in virtual time: its words in a script, and the beginning of most of them.

use std::time::{Duration, Instant};

use super::*;
use crate::machine::script::{Done, Player, Said, Scripted};
use crate::push::filter::PushFilter;
use crate::store::{Look, Position};

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

/// Plays a mail server and a clock in the language of [`machine::script`](crate::machine::script). Actions: `(noted VALIDITY
/// NEXT)`, `(announced VALIDITY NEXT)`, `(watching)`, `(failed)`, `(released)` … `(wanted)`: somebody else wants the
/// session. `ITEMS` stands for what is fetched.
pub(super) fn play_watch(watch: WatchTerms, script: &str) -> Option<IdleFailure> {
    play_in(InheritedState::default(), watch, script)
}

/// The same in a session in which something was set before.
pub(super) fn play_in(
    inherited: InheritedState,
    watch: WatchTerms,
    script: &str,
) -> Option<IdleFailure> {
    let began = Instant::now();
    let mut player = Player::new(IdleMachine::new(watch, began).in_session(inherited), began);
    player.play(&script.replace("ITEMS", ITEMS));
    let now = player.now;
    let (machine, failure) = player.end();
    let is_over = machine.deadline().is_none();
    assert!(
        is_over || machine.deadline().is_some_and(|deadline| deadline > now),
        "something is always awaited"
    );
    failure
}

impl Scripted for IdleMachine {
    type End = IdleFailure;

    fn give(&mut self, said: Said<'_>, now: Instant, done: &mut Done<IdleFailure>) -> bool {
        let input = match said {
            Said::Begin => IdleInput::Start,
            Said::Server(line) => IdleInput::Response(line),
            Said::Later => IdleInput::Tick,
            Said::Event("wanted") => IdleInput::Release,
            Said::Client(_) | Said::Event(_) => return false,
        };
        self.handle(input, now, done);
        true
    }

    fn write(action: IdleAction, done: &mut Done<IdleFailure>) {
        match action {
            IdleAction::Send(bytes) => done.sent(">", &bytes),
            IdleAction::Noticed { mailbox, look: Look { position, .. }, announce, .. } => {
                let word = if announce { "announced" } else { "noted" };
                let of = if mailbox == "INBOX" { String::new() } else { format!(" of {mailbox}") };
                done.did(&format!("{word} {} {}{of}", position.uid_validity, position.uid_next));
            }
            IdleAction::Judged { .. } => {}
            IdleAction::OnlyFirst => done.did("only the first"),
            IdleAction::LeftOut(mailbox, words) => {
                done.did(&format!("left out {mailbox}: {words}"))
            }
            IdleAction::Opened(mailbox) => done.did(&format!("opened {mailbox}")),
            IdleAction::Odd(oddity) => done.did(&format!("odd {oddity:?}")),
            IdleAction::Watching => done.did("watching"),
            IdleAction::Released => done.did("released"),
            IdleAction::Failed(error) => {
                done.did("failed");
                done.ends(error);
            }
        }
    }
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

/// The server's answer to the EXAMINE with this number, in a mailbox of four messages.
pub(super) fn opened(number: u32, validity: u64, next: u64) -> String {
    format!(
        "S: * 4 EXISTS\nS: * OK [UIDVALIDITY {validity}]\nS: * OK [UIDNEXT {next}]\nS: w{number} OK\n"
    )
}
