//! The observer: what a client fetches, and what is noted of it.

use super::*;

fn observer(noted: Option<(u64, u64)>) -> (NewMailObserver, Vec<Seen>) {
    let mut observer = NewMailObserver::default();
    for line in ["* 3 EXISTS", "* OK [UIDVALIDITY 7] x", "* OK [UIDNEXT 4] x"] {
        assert_eq!(respond(&mut observer, line), []);
    }
    assert_eq!(handle(&mut observer, ObserverInput::Opened("INBOX")), [Seen::Compare]);
    let noted = noted.map(|(uid_validity, uid_next)| Position { uid_validity, uid_next });
    let actions = handle(&mut observer, ObserverInput::Noted(noted));
    (observer, actions)
}

/// An action in short.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Compare,
    Wait,
    /// UIDNEXT, whether it is announced, and whether the client has fetched.
    Note(u64, bool, bool),
}

fn outcomes(observer: &mut NewMailObserver, input: ObserverInput<'_>) -> Vec<ObserverAction> {
    let mut actions = vec![];
    observer.handle(input, Instant::now(), &mut actions);
    actions
}

fn handle(observer: &mut NewMailObserver, input: ObserverInput<'_>) -> Vec<Seen> {
    let seen = |action| match action {
        ObserverAction::Compare => Seen::Compare,
        ObserverAction::Wait => Seen::Wait,
        ObserverAction::Note(outcome) => {
            Seen::Note(outcome.position.uid_next, outcome.announce, outcome.is_fetched)
        }
    };
    outcomes(observer, input).into_iter().map(seen).collect()
}

fn respond(observer: &mut NewMailObserver, line: &str) -> Vec<Seen> {
    let filter = PushFilter { addresses: vec!["me@lab.test".into()], ..PushFilter::default() };
    let line = format!("{line}\r\n");
    handle(observer, ObserverInput::Response { line: line.as_bytes(), filter: &filter })
}

fn fetched(observer: &mut NewMailObserver, from: Option<u64>) -> Vec<Seen> {
    handle(observer, ObserverInput::Fetched(from))
}

fn waited(observer: &mut NewMailObserver) -> Vec<Seen> {
    handle(observer, ObserverInput::Waited)
}

/// The only action, a note.
fn noted(observer: &mut NewMailObserver, input: ObserverInput<'_>) -> ObserverOutcome {
    match outcomes(observer, input).as_slice() {
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
    let (mut observer, actions) = observer(Some((7, 4)));
    assert_eq!(actions, [], "nothing is new");
    assert!(!observer.wants_fetches());
    assert_eq!(respond(&mut observer, "* 4 EXISTS"), [Seen::Wait]);
    assert_eq!(respond(&mut observer, "* 5 EXISTS"), []);
    respond(&mut observer, &fetch(4, "From: bob@lab.test\r\n\r\n"));
    respond(&mut observer, &fetch(5, "From: me@lab.test\r\n\r\n"));
    assert_eq!(fetched(&mut observer, None), [], "of which messages is not known");
    assert_eq!(fetched(&mut observer, Some(4)), [Seen::Note(6, true, true)]);
    assert_eq!(waited(&mut observer), []);
    // Its own mail wakes nobody.
    assert_eq!(respond(&mut observer, "* 6 EXISTS"), [Seen::Wait]);
    respond(&mut observer, &fetch(6, "From: me@lab.test\r\n\r\n"));
    assert_eq!(fetched(&mut observer, Some(6)), [Seen::Note(7, false, true)]);
}

#[test]
fn without_a_fetch_it_is_announced_once_and_stays_to_be_looked_at() {
    let (mut observer, _) = observer(Some((7, 4)));
    respond(&mut observer, "* 4 EXISTS");
    assert_eq!(waited(&mut observer), [Seen::Note(4, true, false)]);
    assert_eq!(waited(&mut observer), []);
    // The client comes later.
    respond(&mut observer, &fetch(4, "From: bob@lab.test\r\n\r\n"));
    assert_eq!(fetched(&mut observer, Some(4)), [Seen::Note(5, false, true)]);
}

#[test]
fn fetched_messages_without_a_readable_uid_are_announced() {
    for answer in [
        "* 4 FETCH (FLAGS () BODY[HEADER.FIELDS (FROM)] {2}\r\n\r\n)",
        "* 4 FETCH (UID 99999999999999999999 FLAGS () BODY[] {2}\r\n\r\n)",
        "* 4 FETCH (UID",
    ] {
        let (mut observer, _) = observer(Some((7, 4)));
        assert_eq!(respond(&mut observer, "*   4 EXISTS  "), [Seen::Wait]);
        respond(&mut observer, answer);
        let outcome = noted(&mut observer, ObserverInput::Fetched(Some(4)));
        assert!(outcome.announce && outcome.news().is_none(), "{answer}");
        // Once.
        assert!(!waited(&mut observer).iter().any(|seen| matches!(seen, Seen::Note(_, true, _))));
    }
    let (mut observer, _) = observer(Some((7, 4)));
    respond(&mut observer, "*  4  EXISTS");
    respond(&mut observer, "*  4  FETCH ( UID  19564493749  FLAGS ( )  BODY[]  {2}\r\n\r\n )");
    assert_eq!(fetched(&mut observer, Some(4)), [Seen::Note(19_564_493_750, true, true)]);
}

#[test]
fn fetch_that_began_before_the_news_is_not_of_all_of_it() {
    let (mut observer, _) = observer(Some((7, 4)));
    respond(&mut observer, "* 4 EXISTS");
    respond(&mut observer, &fetch(4, "From: bob@lab.test\r\n\r\n"));
    respond(&mut observer, "* 5 EXISTS");
    assert_eq!(fetched(&mut observer, Some(5)), [], "there is one below");
    assert_eq!(waited(&mut observer), [Seen::Note(4, true, false)]);
}

#[test]
fn announcement_names_the_devices_that_know_the_message() {
    let shown = |uid| ShownPosition { mailbox: "inbox".into(), uid_validity: 7, uid };
    let (mut observer, _) = observer(Some((7, 4)));
    respond(&mut observer, "* 4 EXISTS");
    respond(&mut observer, &fetch(4, "From: bob@lab.test\r\n\r\n"));
    assert_eq!(observer.shown().unwrap().uid, 4);
    // Its fetch may be as late as it wants: of this one it has not heard.
    respond(&mut observer, "* 5 EXISTS");
    let outcome = noted(&mut observer, ObserverInput::Waited);
    assert!(outcome.news().is_none(), "nobody is known to know it");
    respond(&mut observer, &fetch(5, "From: bob@lab.test\r\n\r\n"));
    fetched(&mut observer, Some(4));
    respond(&mut observer, "* 6 EXISTS");
    respond(&mut observer, &fetch(6, "From: me@lab.test\r\n\r\n"));
    let news = noted(&mut observer, ObserverInput::Fetched(Some(4))).news().unwrap();
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
    let (mut observer, actions) = observer(Some((7, 2)));
    assert_eq!(actions, [Seen::Wait]);
    respond(&mut observer, &fetch(2, "From: bob@lab.test\r\n\r\n"));
    respond(&mut observer, &fetch(3, "From: bob@lab.test\r\n\r\n"));
    assert_eq!(fetched(&mut observer, Some(1)), [Seen::Note(4, true, true)]);
}

#[test]
fn first_look_notes_where_it_begins() {
    assert_eq!(observer(None).1, [Seen::Note(4, false, false)]);
    assert_eq!(observer(Some((6, 99))).1, [Seen::Note(4, true, false)], "another UIDVALIDITY");
}
