//! A token that is known to fail by itself is no evidence: neither that the server is down, nor that it is well.

use super::tests::{SETTINGS, World, account, s, token};
use super::*;

const FAILURES: [PostAnswer; 5] = [
    PostAnswer::Gone,
    PostAnswer::Refused(403),
    PostAnswer::Failed { failure: TransientFailure::Status(500), retry_after: None },
    PostAnswer::Failed { failure: TransientFailure::Status(503), retry_after: None },
    PostAnswer::Failed { failure: TransientFailure::TimedOut, retry_after: None },
];

/// Somebody whose POSTs are always accepted, and somebody else who fails with the server alone.
const WELL: usize = 1_000;
const WITNESS: usize = 2_000;

/// So many accounts, each with a token that is known to fail, and a server that is well.
fn known_to_fail(accounts: usize, answer: PostAnswer) -> World {
    let mut world = World::new(SETTINGS);
    for number in 0..accounts {
        world.notice(number);
    }
    let mut news = world.now;
    while !(0..accounts).all(|number| world.schedule.tokens[&token(number)].is_known_to_fail()) {
        if news <= world.now {
            world.notice(WELL);
            news = world.now + s(11);
        }
        step(
            &mut world,
            news,
            |number| if number < accounts { answer } else { PostAnswer::Accepted },
        );
    }
    assert!(!world.schedule.is_down());
    world
}

/// Posts and answers, or waits no longer than `until`. Returns the number of the token that was posted.
fn step(world: &mut World, until: Duration, server: impl Fn(usize) -> PostAnswer) -> Option<usize> {
    match world.next() {
        ScheduleStep::Post { token: posted, .. } => {
            let number = posted.expose().trim_start_matches("openpgp:").parse().unwrap();
            world.answered(number, server(number));
            return Some(number);
        }
        ScheduleStep::Wait(at) => world.now = at.min(until),
        ScheduleStep::Idle => world.now = until,
        ScheduleStep::GiveUp { .. } => {}
    }
    None
}

/// Nothing is accepted any more, because nobody else has news; the tokens go on failing, each of another account.
#[test]
fn tokens_that_are_known_to_fail_do_not_show_that_the_server_is_down() {
    for answer in FAILURES {
        let mut world = known_to_fail(20, answer);
        let (end, mut failed) = (world.now + s(3 * 24 * 3600), 0);
        for day in 0..72 {
            let until = end - s((71 - day) * 3600);
            for number in 0..20 {
                world.notice(number);
            }
            while world.now < until {
                failed += usize::from(step(&mut world, until, |_| answer).is_some());
                assert!(!world.schedule.is_down(), "{answer:?}: after {failed} failures");
                assert!(!world.schedule.breaker(true).blames_others(&account(WELL)), "{answer:?}");
            }
        }
        assert!(failed >= 20, "{answer:?}: they were tried: {failed}");
        // And fresh news goes out at once.
        world.notice(WELL);
        assert!(
            matches!(world.next(), ScheduleStep::Post { token: posted, .. } if posted == token(WELL)),
            "{answer:?}"
        );
    }
}

/// Two accounts blame the server; tokens that are known to fail answer in between. The third account tips the scale all the same.
#[test]
fn tokens_that_are_known_to_fail_do_not_show_that_the_server_is_well() {
    let down = PostAnswer::Failed { failure: TransientFailure::Unreachable, retry_after: None };
    for answer in FAILURES {
        let mut world = known_to_fail(3, answer);
        for witness in 0..3 {
            assert!(!world.schedule.is_down(), "{answer:?}: {witness}");
            world.notice(WITNESS + witness);
            for number in 0..3 {
                world.notice(number);
            }
            let until = world.now + s(60);
            while world.now < until {
                let is_asked =
                    step(&mut world, until, |number| if number < 3 { answer } else { down });
                assert!(is_asked != Some(WELL), "nobody is accepted");
                if world.schedule.is_down() {
                    break;
                }
            }
        }
        assert!(world.schedule.is_down(), "{answer:?}");
        // Nor do their failures end the outage.
        let until = world.now + s(4);
        while world.now < until {
            step(&mut world, until, |number| if number < 3 { answer } else { down });
            assert!(world.schedule.is_down(), "{answer:?}");
        }
    }
}
