//! The observer: what a client fetches, and what is noted of it.

use super::*;

fn eye(noted: Option<(u64, u64)>) -> (NewMailObserver, Vec<Seen>) {
    let mut eye = NewMailObserver::default();
    for line in ["* 3 EXISTS", "* OK [UIDVALIDITY 7] x", "* OK [UIDNEXT 4] x"] {
        assert_eq!(says(&mut eye, line), []);
    }
    assert_eq!(handle(&mut eye, ObserverInput::Opened("INBOX")), [Seen::Compare]);
    let noted = noted.map(|(uid_validity, uid_next)| Position { uid_validity, uid_next });
    let actions = handle(&mut eye, ObserverInput::Noted(noted));
    (eye, actions)
}

/// An action in short.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Compare,
    Wait,
    /// UIDNEXT, whether it is announced, and whether the client has fetched.
    Note(u64, bool, bool),
}

fn outcomes(eye: &mut NewMailObserver, input: ObserverInput<'_>) -> Vec<ObserverAction> {
    let mut actions = vec![];
    eye.handle(input, Instant::now(), &mut actions);
    actions
}

fn handle(eye: &mut NewMailObserver, input: ObserverInput<'_>) -> Vec<Seen> {
    let seen = |action| match action {
        ObserverAction::Compare => Seen::Compare,
        ObserverAction::Wait => Seen::Wait,
        ObserverAction::Note(outcome) => {
            Seen::Note(outcome.position.uid_next, outcome.announce, outcome.is_fetched)
        }
    };
    outcomes(eye, input).into_iter().map(seen).collect()
}

fn says(eye: &mut NewMailObserver, line: &str) -> Vec<Seen> {
    let filter = PushFilter { addresses: vec!["me@lab.test".into()], ..PushFilter::default() };
    let line = format!("{line}\r\n");
    handle(eye, ObserverInput::Response { line: line.as_bytes(), filter: &filter })
}

fn fetched(eye: &mut NewMailObserver, from: Option<u64>) -> Vec<Seen> {
    handle(eye, ObserverInput::Fetched(from))
}

fn waited(eye: &mut NewMailObserver) -> Vec<Seen> {
    handle(eye, ObserverInput::Waited)
}

/// The only action, a note.
fn noted(eye: &mut NewMailObserver, input: ObserverInput<'_>) -> ObserverOutcome {
    match outcomes(eye, input).as_slice() {
        [ObserverAction::Note(outcome)] => outcome.clone(),
        other => panic!("{other:?}"),
    }
}

fn fetch(uid: u64, headers: &str) -> String {
    format!(
        "* 4 FETCH (UID {uid} FLAGS () BODY[HEADER.FIELDS (FROM)] {{{}}}\r\n{headers})",
        headers.len()
    )
}

#[test]
fn news_that_the_client_fetches_is_judged_by_what_it_fetches() {
    let (mut eye, actions) = eye(Some((7, 4)));
    assert_eq!(actions, [], "nothing is new");
    assert!(!eye.looks());
    assert_eq!(says(&mut eye, "* 4 EXISTS"), [Seen::Wait]);
    assert_eq!(says(&mut eye, "* 5 EXISTS"), []);
    says(&mut eye, &fetch(4, "From: bob@lab.test\r\n\r\n"));
    says(&mut eye, &fetch(5, "From: me@lab.test\r\n\r\n"));
    assert_eq!(fetched(&mut eye, None), [], "of which messages is not known");
    assert_eq!(fetched(&mut eye, Some(4)), [Seen::Note(6, true, true)]);
    assert_eq!(waited(&mut eye), []);
    // Its own mail wakes nobody.
    assert_eq!(says(&mut eye, "* 6 EXISTS"), [Seen::Wait]);
    says(&mut eye, &fetch(6, "From: me@lab.test\r\n\r\n"));
    assert_eq!(fetched(&mut eye, Some(6)), [Seen::Note(7, false, true)]);
}

#[test]
fn without_a_fetch_it_is_announced_once_and_stays_to_be_looked_at() {
    let (mut eye, _) = eye(Some((7, 4)));
    says(&mut eye, "* 4 EXISTS");
    assert_eq!(waited(&mut eye), [Seen::Note(4, true, false)]);
    assert_eq!(waited(&mut eye), []);
    // The client comes later.
    says(&mut eye, &fetch(4, "From: bob@lab.test\r\n\r\n"));
    assert_eq!(fetched(&mut eye, Some(4)), [Seen::Note(5, false, true)]);
}

#[test]
fn fetched_messages_without_a_readable_uid_are_announced() {
    for answer in [
        "* 4 FETCH (FLAGS () BODY[HEADER.FIELDS (FROM)] {2}\r\n\r\n)",
        "* 4 FETCH (UID 99999999999999999999 FLAGS () BODY[] {2}\r\n\r\n)",
        "* 4 FETCH (UID",
    ] {
        let (mut eye, _) = eye(Some((7, 4)));
        assert_eq!(says(&mut eye, "*   4 EXISTS  "), [Seen::Wait]);
        says(&mut eye, answer);
        let outcome = noted(&mut eye, ObserverInput::Fetched(Some(4)));
        assert!(outcome.announce && outcome.news().is_none(), "{answer}");
        // Once.
        assert!(!waited(&mut eye).iter().any(|seen| matches!(seen, Seen::Note(_, true, _))));
    }
    let (mut eye, _) = eye(Some((7, 4)));
    says(&mut eye, "*  4  EXISTS");
    says(&mut eye, "*  4  FETCH ( UID  19564493749  FLAGS ( )  BODY[]  {2}\r\n\r\n )");
    assert_eq!(fetched(&mut eye, Some(4)), [Seen::Note(19_564_493_750, true, true)]);
}

#[test]
fn fetch_that_began_before_the_news_is_not_of_all_of_it() {
    let (mut eye, _) = eye(Some((7, 4)));
    says(&mut eye, "* 4 EXISTS");
    says(&mut eye, &fetch(4, "From: bob@lab.test\r\n\r\n"));
    says(&mut eye, "* 5 EXISTS");
    assert_eq!(fetched(&mut eye, Some(5)), [], "there is one below");
    assert_eq!(waited(&mut eye), [Seen::Note(4, true, false)]);
}

#[test]
fn announcement_names_the_devices_that_know_the_message() {
    let shown = |uid| ShownPosition { mailbox: "inbox".into(), uid_validity: 7, uid };
    let (mut eye, _) = eye(Some((7, 4)));
    says(&mut eye, "* 4 EXISTS");
    says(&mut eye, &fetch(4, "From: bob@lab.test\r\n\r\n"));
    assert_eq!(eye.shown().unwrap().uid, 4);
    // Its fetch may be as late as it wants: of this one it has not heard.
    says(&mut eye, "* 5 EXISTS");
    let outcome = noted(&mut eye, ObserverInput::Waited);
    assert!(outcome.news().is_none(), "nobody is known to know it");
    says(&mut eye, &fetch(5, "From: bob@lab.test\r\n\r\n"));
    fetched(&mut eye, Some(4));
    says(&mut eye, "* 6 EXISTS");
    says(&mut eye, &fetch(6, "From: me@lab.test\r\n\r\n"));
    let news = noted(&mut eye, ObserverInput::Fetched(Some(4))).news().unwrap();
    assert_eq!((shown(4).covers(&news), shown(5).covers(&news)), (false, true));
}

#[test]
fn of_two_outcomes_nothing_is_lost() {
    let position = |uid_next| Position { uid_validity: 7, uid_next };
    let outcome = |uid_next, announce, deserving| ObserverOutcome {
        mailbox: "INBOX".into(),
        position: position(uid_next),
        announce,
        is_fetched: true,
        deserving,
        since: None,
    };
    let both = outcome(5, true, 4).and(outcome(6, false, 4));
    assert_eq!((both.position, both.announce, both.deserving), (position(6), true, 4));
}

#[test]
fn mail_that_came_meanwhile_is_found_when_the_mailbox_is_opened() {
    let (mut eye, actions) = eye(Some((7, 2)));
    assert_eq!(actions, [Seen::Wait]);
    says(&mut eye, &fetch(2, "From: bob@lab.test\r\n\r\n"));
    says(&mut eye, &fetch(3, "From: bob@lab.test\r\n\r\n"));
    assert_eq!(fetched(&mut eye, Some(1)), [Seen::Note(4, true, true)]);
}

#[test]
fn first_look_notes_where_it_begins() {
    assert_eq!(eye(None).1, [Seen::Note(4, false, false)]);
    assert_eq!(eye(Some((6, 99))).1, [Seen::Note(4, true, false)], "another UIDVALIDITY");
}
