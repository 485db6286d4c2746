//! Tokens that were accepted once and whose POSTs then get no answer: other accounts' fresh news is posted all the same.

use super::table_tests::{ACCEPTS, Does, Play};
use super::tests::s;
use super::*;
use proptest::prelude::*;

/// The first number of a neighbour's token.
const NEIGHBOURS: usize = 100_000;

/// So many accounts with so many tokens, whose POSTs hang for a while and are accepted for a while.
#[derive(Debug, Clone, Copy)]
struct Hanging {
    accounts: usize,
    tokens: usize,
    accepted: bool,
    hangs: u64,
    answers: u64,
    /// Their news comes every so many seconds.
    news: u64,
    /// Each account does all that so many seconds before the next.
    phase: u64,
}

/// The longest wait of other accounts' news: of accounts that were accepted before or not, with one message or with many.
fn longest_wait(hanging: Hanging, neighbours_accepted: bool, end: u64) -> Duration {
    let shift = |number: usize| u64::try_from(number % hanging.accounts).unwrap() * hanging.phase;
    let is_hanging = |number, now: Duration| {
        (now.as_secs() + shift(number)) % (hanging.hangs + hanging.answers) < hanging.hangs
    };
    let server = |number, now| match number < NEIGHBOURS && is_hanging(number, now) {
        true => Does::Hangs,
        false => ACCEPTS,
    };
    let mut play = Play::new(&server);
    for second in 0..end {
        play.until(s(second));
        for number in 0..hanging.accounts * hanging.tokens {
            if (second + shift(number)) % hanging.news == 0 {
                play.notice(number, number % hanging.accounts, hanging.accepted);
            }
        }
        // Between the seconds, too.
        play.until(s(second) + Duration::from_millis(second * 37 % 1000));
        play.notice(NEIGHBOURS, NEIGHBOURS, neighbours_accepted);
        if second % 3 == 0 {
            let new = NEIGHBOURS + usize::try_from(second).unwrap();
            play.notice(new, new, neighbours_accepted);
        }
    }
    play.until(s(end + 60));
    assert!(play.owed.keys().all(|number| *number < NEIGHBOURS), "{hanging:?}: {:?}", play.owed);
    play.waits
        .iter()
        .filter(|(number, _)| **number >= NEIGHBOURS)
        .map(|(_, wait)| *wait)
        .max()
        .unwrap()
}

#[test]
fn accounts_whose_posts_hang_delay_no_neighbour() {
    let mut longest = Duration::ZERO;
    for (accounts, tokens) in [(1, 32), (3, 4), (8, 1), (8, 2), (8, 32), (12, 2), (16, 1), (16, 32)]
    {
        for (hangs, answers) in [(10_000, 1), (300, 60), (20, 5), (100, 1)] {
            for neighbours_accepted in [true, false] {
                let hanging =
                    Hanging { accounts, tokens, accepted: true, hangs, answers, news: 7, phase: 0 };
                let wait = longest_wait(hanging, neighbours_accepted, 1_000);
                longest = longest.max(wait);
                assert!(
                    wait < s(2),
                    "{hanging:?}, neighbours accepted before: {neighbours_accepted}: {wait:?}"
                );
            }
        }
    }
    println!("longest wait: {longest:?}");
}

#[test]
fn new_accounts_whose_posts_hang_delay_no_neighbour() {
    for (accounts, tokens) in [(1, 32), (2, 2), (2, 32), (8, 32), (30, 2)] {
        for neighbours_accepted in [true, false] {
            // Tokens that were never accepted have a quarter of the slots, whatever their account.
            if accounts > 2 && !neighbours_accepted {
                continue;
            }
            let hanging = Hanging {
                accounts,
                tokens,
                accepted: false,
                hangs: 10_000,
                answers: 1,
                news: 7,
                phase: 0,
            };
            let wait = longest_wait(hanging, neighbours_accepted, 1_000);
            assert!(
                wait < s(2),
                "{hanging:?}, neighbours accepted before: {neighbours_accepted}: {wait:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_pattern_of_hanging_posts_delays_no_neighbour(
        accounts in 1..=16_usize,
        tokens in 1..=6_usize,
        hangs in 1..400_u64,
        answers in 1..100_u64,
        news in 1..60_u64,
        phase in 0..50_u64,
    ) {
        let hanging = Hanging { accounts, tokens, accepted: true, hangs, answers, news, phase };
        let wait = longest_wait(hanging, true, 600);
        // The POSTs of eight accounts are as many as there are slots. Each further account has two before it is slow.
        let further = u32::try_from(accounts.saturating_sub(8)).unwrap();
        prop_assert!(wait < s(2) + SHORT_LIMIT / 2 * further, "{wait:?}");
    }
}

/// A token that is slow only once is posted again soon, and its account is like any other after that.
#[test]
fn short_limit_costs_a_slow_token_seconds() {
    let server = |number, now: Duration| match number {
        _ if number < NEIGHBOURS => Does::Hangs,
        _ if now < s(11) => Does::Hangs,
        _ => ACCEPTS,
    };
    let mut play = Play::new(&server);
    (0..12).for_each(|number| play.notice(number, number, true));
    play.until(s(10));
    play.notice(NEIGHBOURS, NEIGHBOURS, true);
    play.until(s(40));
    assert!(play.waits[&NEIGHBOURS] < s(12), "{:?}", play.waits[&NEIGHBOURS]);
    play.notice(NEIGHBOURS, NEIGHBOURS, true);
    play.until(s(42));
    assert!(play.owed.keys().all(|number| *number < NEIGHBOURS));
}

/// A server that is slow for everybody is no server that is down, and all are posted.
#[test]
fn slots_with_a_short_limit_are_no_evidence_against_a_slow_server() {
    let mut schedule = PushSchedule::new(
        ScheduleSettings { coalesce: s(10), max_in_flight: 16, per_second: 1000 },
        1,
    );
    let mut limits = Vec::new();
    for number in 0..16 {
        let account = tests::account(number);
        let standing = TokenState { account, accepted: true, since_post: None, quarantine: None };
        schedule.notice(
            tests::token(number),
            &standing,
            Generation(1),
            Duration::ZERO,
            Duration::ZERO,
        );
        let ScheduleStep::Post { limit, .. } = schedule.next(Duration::ZERO) else {
            panic!("there is room")
        };
        limits.push(limit);
    }
    assert_eq!(limits, [[FIRST_LIMIT; 12].as_slice(), &[SHORT_LIMIT; 4]].concat());
    for number in 12..16 {
        let timed_out =
            PostAnswer::Failed { failure: TransientFailure::TimedOut, retry_after: None };
        let outcome = schedule.answered(&tests::token(number), timed_out, SHORT_LIMIT);
        assert!(matches!(outcome, PostConclusion::Retry(_)), "{outcome:?}");
    }
    assert!(!schedule.is_down());
}
