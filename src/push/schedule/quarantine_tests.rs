//! Tokens of which the server says that they are gone.

use super::tests::{SETTINGS, World, s, token};
use super::*;

const HOUR: Duration = s(3600);

/// Another account's token is accepted now.
fn accept_another(world: &mut World) {
    world.notice(2);
    while let ScheduleStep::Post { token: posted, .. } = world.next() {
        let answer = if posted == token(1) { PostAnswer::Gone } else { PostAnswer::Accepted };
        world.schedule.answered(&posted, answer, world.now);
    }
}

/// Goes on until token 1 is posted, with another account's token accepted now and then. Returns after how long.
fn until_posted(world: &mut World) -> Duration {
    let (began, mut news) = (world.now, world.now);
    loop {
        match world.next() {
            ScheduleStep::Post { token: posted, .. } if posted == token(1) => {
                return world.now - began;
            }
            ScheduleStep::Post { token: posted, .. } => {
                world.schedule.answered(&posted, PostAnswer::Accepted, world.now);
            }
            ScheduleStep::Wait(until) if until < news => world.now = until,
            _ => {
                world.now = world.now.max(news);
                assert!(world.now - began < s(10 * 24 * 3600), "never posted");
                news += s(30);
                world.notice(2);
            }
        }
    }
}

#[test]
fn token_that_is_gone_is_tried_after_a_minute_an_hour_and_a_day() {
    let mut world = World::new(SETTINGS);
    let news = world.notice(1);
    assert_eq!(until_posted(&mut world), Duration::ZERO);
    assert!(
        matches!(world.answered(1, PostAnswer::Gone), PostConclusion::Retry(_)),
        "once is no proof"
    );
    let confirmed = until_posted(&mut world);
    assert!((s(40)..s(90)).contains(&confirmed), "{confirmed:?}");
    let mut waits = Vec::new();
    for answers in 1..=3 {
        let gave_up = (answers == 3).then_some(news);
        let outcome = world.answered(1, PostAnswer::Gone);
        let PostConclusion::Quarantined { answers: said, until, gave_up: given } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!((said, given), (answers, gave_up));
        waits.push(until - world.now);
        if answers < 3 {
            // News does not bring it forward.
            let wait = until - world.now;
            assert!(until_posted(&mut world) >= wait);
        }
    }
    assert_eq!(waits, [HOUR, QUARANTINE, QUARANTINE]);
    assert_eq!(world.schedule.next_post(&token(1)), None, "nothing more without news");
    world.notice(1);
    assert_eq!(world.schedule.next_post(&token(1)), Some((world.now + QUARANTINE, true)));
    until_posted(&mut world);
    assert!(matches!(world.answered(1, PostAnswer::Accepted), PostConclusion::Accepted(_)));
    world.now += s(20);
    world.notice(1);
    assert_eq!(until_posted(&mut world), Duration::ZERO, "accepted once, it is like any other");
}

#[test]
fn news_of_a_quarantined_token_is_not_posted_before_its_time_and_not_given_up() {
    let mut world = World::new(SETTINGS);
    let mut standing = world.standing(1);
    standing.quarantine = Some(Quarantined { answers: 2, wait: 20 * HOUR });
    world.schedule.notice(token(1), &standing, Generation(1), Duration::ZERO, world.now);
    for _ in 0..10 {
        world.schedule.notice(token(1), &standing, Generation(2), Duration::ZERO, world.now);
    }
    assert_eq!(world.wait(), 20 * HOUR);
    assert_eq!(world.posts(), Generation(2));
}

#[test]
fn token_that_is_handed_over_again_is_tried_soon_and_its_count_stays() {
    let mut world = World::new(SETTINGS);
    let mut standing = world.standing(1);
    standing.quarantine = Some(Quarantined { answers: 2, wait: 20 * HOUR });
    world.schedule.notice(token(1), &standing, Generation(1), Duration::ZERO, world.now);
    standing.quarantine = Some(Quarantined { answers: 2, wait: s(60) });
    world.schedule.notice(token(1), &standing, Generation(2), Duration::ZERO, world.now);
    assert_eq!(world.wait(), s(60));
    world.posts();
    assert!(matches!(
        world.answered(1, PostAnswer::Gone),
        PostConclusion::Quarantined { answers: 3, .. }
    ));
    // A state from before that answer opens nothing.
    world.schedule.notice(token(1), &standing, Generation(3), Duration::ZERO, world.now);
    assert_eq!(world.schedule.next_post(&token(1)), Some((world.now + QUARANTINE, true)));
}

#[test]
fn many_tokens_that_are_gone_at_once_are_an_outage() {
    let mut world = World::new(SETTINGS);
    for number in 0..100 {
        world.notice(number);
    }
    let (began, mut accepted) = (world.now, 0);
    while accepted < 100 {
        match world.next() {
            ScheduleStep::Post { token, .. } => {
                let answer = if world.now - began < s(3 * 3600) {
                    PostAnswer::Gone
                } else {
                    PostAnswer::Accepted
                };
                match world.schedule.answered(&token, answer, world.now) {
                    PostConclusion::Accepted(_) => accepted += 1,
                    outcome => assert!(matches!(outcome, PostConclusion::Retry(_)), "{outcome:?}"),
                }
            }
            ScheduleStep::Wait(until) => world.now = until,
            other => panic!("{other:?}"),
        }
    }
    assert!(world.now - began < s(3 * 3600 + 200), "{:?}", world.now - began);
}

#[test]
fn accepted_test_ends_the_quarantine() {
    let mut world = World::new(SETTINGS);
    let mut standing = world.standing(1);
    standing.quarantine = Some(Quarantined { answers: 2, wait: 20 * HOUR });
    world.schedule.notice(token(1), &standing, Generation(1), Duration::ZERO, world.now);
    world.schedule.proved(&token(1), world.now);
    assert_eq!(world.posts(), Generation(1));
    world.answered(1, PostAnswer::Accepted);
    accept_another(&mut world);
}
