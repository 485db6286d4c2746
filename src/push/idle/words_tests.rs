//! The server's own words as the reason why a session ends.

use super::testing::*;
use super::*;

/// The end of a session that begins with `script`, as the status shows it.
fn ends(script: &str) -> String {
    end_of(script).to_string()
}

fn end_of(script: &str) -> IdleFailure {
    let beginning = "> w1 EXAMINE \"INBOX\"\n S: * OK [UIDVALIDITY 7]\n S: * OK [UIDNEXT 10]\n";
    play(Some((7, 10)), &format!("{beginning} {script}\n (failed)")).unwrap()
}

#[test]
fn server_words_are_the_reason() {
    let bad = "* BAD [ALERT] Please enable IMAP access in your settings";
    assert_eq!(
        ends(&format!("S: {bad}")),
        "the mailbox cannot be opened: Please enable IMAP access in your settings",
        "an untagged BAD is the answer to the command under way"
    );
    assert_eq!(
        ends("S: * NO [ALERT] Please enable IMAP\n (later 1m)"),
        "the mail server said \"Please enable IMAP\"; then: the mail server did not answer within 60s"
    );
    assert_eq!(
        ends("S: * NO Please enable IMAP\n S: * BYE"),
        "the mail server said \"Please enable IMAP\"; then: the mail server closed the session: "
    );
    assert_eq!(
        ends("S: * BYE [ALERT] Please enable IMAP"),
        "the mail server said \"Please enable IMAP\"; then: it closed the session"
    );
    assert_eq!(
        ends("S: * OK [ALERT] Go to our page\n S: w1 NO"),
        "the mailbox cannot be opened: Go to our page"
    );
    assert_eq!(
        ends("S: * NO [ALERT] Go to our page\n S: w1 NO failed"),
        "the mailbox cannot be opened: failed (before it: Go to our page)"
    );
    assert!(
        end_of("S: w1 OK\n > w2 IDLE\n S: * BAD [ALERT] not you")
            == IdleFailure::IdleRefused("not you".into())
    );
    let long = ends(&format!("S: * BAD {}\u{1b}[31m", "x".repeat(5000)));
    assert!(long.len() < 400, "{long}");
}

#[test]
fn words_before_a_success_are_no_reason() {
    assert_eq!(
        ends("S: * NO [ALERT] quota nearly full\n S: w1 OK\n > w2 IDLE\n (later 1m)"),
        "the mail server did not answer within 60s"
    );
    let ended = end_of(
        "S: w1 OK\n > w2 IDLE\n S: +\n (watching)\n S: * BAD [ALERT] maintenance\n S: * BYE",
    );
    assert!(matches!(&ended, IdleFailure::Complaint { has_worked: true, .. }), "{ended:?}");
}

#[test]
fn words_are_part_of_every_end() {
    let idle = "S: w1 OK\n > w2 IDLE\n S: +\n (watching)\n";
    assert_eq!(
        ends(
            "S: * OK [ALERT] Go to our page\n S: w1 OK\n > w2 IDLE\n S: * NO maintenance\n S: w2 BAD unknown command"
        ),
        "the mail server does not support IDLE, and deltapush does not poll: unknown command (before it: maintenance)"
    );
    let short = |number| {
        format!("S: w{number} NO maintenance\n > w{} IDLE\n S: +\n (watching)\n", number + 1)
    };
    assert_eq!(
        ends(&format!("{idle}{}{}S: w4 NO maintenance", short(2), short(3))),
        "the mail server refused IDLE: it ends IDLE at once: maintenance"
    );
    let fetch = "S: * 5 EXISTS\n > DONE\n S: w2 OK\n > w3 UID FETCH 10:* ITEMS\n";
    assert_eq!(
        ends(&format!("{idle}{fetch}S: * NO [ALERT] disk trouble\n S: w3 NO sorry")),
        "the mail server refused the FETCH of new messages: sorry (before it: disk trouble)"
    );
    let chatter = "S: * 9 EXPUNGE\n".repeat(MAX_CHATTER as usize - 1);
    assert_eq!(
        ends(&format!("{idle}S: * NO disk trouble\n{chatter}")),
        "the mail server sent more than 20000 lines without a new message: disk trouble"
    );
}

/// The server's words are added to an end that the driver notices, and to one after a refusal.
#[test]
fn words_are_added_to_an_end_that_the_driver_noticed() {
    let now = Instant::now();
    let mut machine = IdleMachine::new(watch(Some((7, 10))), now);
    let mut actions = vec![];
    machine.handle(IdleInput::Start, now, &mut actions);
    let broke = || "the connection broke".to_owned();
    assert_eq!(machine.explain_break(broke()), None);
    assert_eq!(machine.explain(IdleFailure::Silent), IdleFailure::Silent);
    machine.handle(IdleInput::Response(b"* NO [ALERT] disk trouble\r\n"), now, &mut actions);
    let explained = machine.explain_break(broke()).unwrap();
    assert_eq!(
        explained.to_string(),
        "the mail server said \"disk trouble\"; then: the connection broke"
    );
    assert_eq!(machine.explain(explained.clone()), explained, "once");
    machine.handle(IdleInput::Response(b"w1 NO not now\r\n"), now, &mut actions);
    let Some(IdleAction::Failed(failure)) = actions.pop() else { panic!("{actions:?}") };
    machine.handle(IdleInput::Response(b"* BYE come back tomorrow\r\n"), now, &mut actions);
    assert_eq!(
        machine.explain(failure),
        IdleFailure::NoMailbox(
            "not now (before it: disk trouble); the mail server also said: come back tomorrow"
                .into()
        )
    );
}
