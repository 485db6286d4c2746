//! The notification server's table of answers, played in virtual time: each answer, for one token and for all, for a minute and
//! for good. Nothing that lives is lost, and nobody waits for a neighbour's failure.

use std::collections::BTreeSet;

use super::tests::{account, s, token};
use super::*;

pub(super) const DEFAULTS: ScheduleSettings =
    ScheduleSettings { coalesce: s(10), max_in_flight: 16, per_second: 50 };
const LATENCY: Duration = Duration::from_millis(50);

/// A server's reaction to a POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    Answers(PostAnswer),
    Hangs,
}

pub(super) const fn status(status: u16) -> Does {
    Does::Answers(PostAnswer::Failed {
        failure: TransientFailure::Status(status),
        retry_after: None,
    })
}

pub(super) const ACCEPTS: Does = Does::Answers(PostAnswer::Accepted);

fn table() -> Vec<Does> {
    let mut table: Vec<Does> = [400, 401, 403, 404, 413, 451]
        .map(|status| Does::Answers(PostAnswer::Refused(status)))
        .to_vec();
    table.extend([301, 408, 425, 429, 500, 502, 503, 504].map(status));
    let asks =
        PostAnswer::Failed { failure: TransientFailure::Status(503), retry_after: Some(s(30)) };
    let broken = PostAnswer::Failed { failure: TransientFailure::Unreachable, retry_after: None };
    table.extend([
        Does::Answers(PostAnswer::Gone),
        Does::Answers(asks),
        Does::Answers(broken),
        Does::Hangs,
    ]);
    table
}

/// Tokens, each of an account, and a server.
pub(super) struct Play<'a> {
    pub(super) schedule: PushSchedule,
    now: Duration,
    generation: u64,
    /// The server's reaction to a token at a time since the beginning.
    server: &'a dyn Fn(usize, Duration) -> Does,
    /// Answers to come, and those whose POST failed so.
    flying: BTreeSet<(Duration, u64, usize)>,
    answers: HashMap<u64, PostAnswer>,
    posts: u64,
    /// News that is not announced yet, and from when on it could have been.
    pub(super) owed: HashMap<usize, Duration>,
    accepted: HashMap<usize, Duration>,
    /// The longest wait of each token.
    pub(super) waits: HashMap<usize, Duration>,
    quarantined: Vec<usize>,
    given_up: Vec<(usize, GiveUpReason)>,
}

impl<'a> Play<'a> {
    pub(super) fn new(server: &'a dyn Fn(usize, Duration) -> Does) -> Self {
        Self {
            schedule: PushSchedule::new(DEFAULTS, 1),
            now: Duration::ZERO,
            generation: 0,
            server,
            flying: BTreeSet::new(),
            answers: HashMap::new(),
            posts: 0,
            owed: HashMap::new(),
            accepted: HashMap::new(),
            waits: HashMap::new(),
            quarantined: Vec::new(),
            given_up: Vec::new(),
        }
    }

    pub(super) fn notice(&mut self, number: usize, owner: usize, accepted: bool) {
        self.generation += 1;
        let accepted = accepted || self.accepted.contains_key(&number);
        let standing =
            TokenState { account: account(owner), accepted, since_post: None, quarantine: None };
        self.schedule.notice(
            token(number),
            &standing,
            Generation(self.generation),
            Duration::ZERO,
            self.now,
        );
        let window =
            self.accepted.get(&number).map_or(Duration::ZERO, |at| *at + DEFAULTS.coalesce);
        self.owed.entry(number).or_insert(window.max(self.now));
    }

    /// Plays until this time.
    pub(super) fn until(&mut self, end: Duration) {
        loop {
            let wake = match self.schedule.next(self.now) {
                ScheduleStep::Post { token: posted, limit, .. } => {
                    self.post(&posted, limit);
                    continue;
                }
                ScheduleStep::GiveUp { token: posted, reason, .. } => {
                    self.given_up.push((number_of(&posted), reason));
                    continue;
                }
                ScheduleStep::Wait(until) => until,
                ScheduleStep::Idle => end,
            };
            let answer = self.flying.first().map_or(end, |(at, ..)| *at);
            if wake.min(answer) >= end {
                self.now = end;
                return;
            }
            self.now = wake.min(answer);
            if answer <= self.now {
                self.answer();
            }
        }
    }

    fn post(&mut self, posted: &DeviceToken, limit: Duration) {
        let number = number_of(posted);
        self.posts += 1;
        let (after, answer) = match (self.server)(number, self.now) {
            Does::Answers(answer) => (LATENCY, answer),
            Does::Hangs => (
                limit,
                PostAnswer::Failed { failure: TransientFailure::TimedOut, retry_after: None },
            ),
        };
        self.flying.insert((self.now + after, self.posts, number));
        self.answers.insert(self.posts, answer);
    }

    fn answer(&mut self) {
        let (_, post, number) = self.flying.pop_first().unwrap();
        let answer = self.answers.remove(&post).unwrap();
        match self.schedule.answered(&token(number), answer, self.now) {
            PostConclusion::Accepted(generation) => {
                self.accepted.insert(number, self.now);
                let since = self.owed.remove(&number).unwrap_or(self.now);
                let wait = self.waits.entry(number).or_default();
                *wait = (*wait).max(self.now.saturating_sub(since));
                if self.schedule.next_post(&token(number)).is_some() {
                    self.owed.insert(number, self.now + DEFAULTS.coalesce);
                }
                assert!(generation.0 <= self.generation);
            }
            PostConclusion::Quarantined { .. } => self.quarantined.push(number),
            PostConclusion::GaveUp(_, reason) => self.given_up.push((number, reason)),
            PostConclusion::Retry(_) | PostConclusion::Dropped => {}
        }
    }
}

fn number_of(token: &DeviceToken) -> usize {
    token.expose().trim_start_matches("openpgp:").parse().unwrap()
}

/// A minute in which the server gives one answer to everybody: afterwards all are pushed, and none is in quarantine.
#[test]
fn minute_of_any_answer_for_everybody_loses_no_push() {
    let outage = s(100)..s(160);
    for accounts in [1, 2, 5, 11, 40] {
        for accepted in [true, false] {
            for does in table() {
                let server = |_, now| if outage.contains(&now) { does } else { ACCEPTS };
                let mut play = Play::new(&server);
                // The last of them have their news within the outage.
                for (news, second) in (0..accounts * 3).zip((95..).step_by(1)) {
                    play.until(s(second));
                    play.notice(news % accounts, news % accounts, accepted);
                }
                play.until(outage.end + s(700));
                let case = format!("{does:?}, {accounts} accounts, accepted before: {accepted}");
                assert_eq!(play.owed, HashMap::new(), "{case}");
                assert_eq!((play.quarantined, play.given_up), (vec![], vec![]), "{case}");
                assert!(!play.schedule.is_down(), "{case}");
            }
        }
    }
}

/// The same for one token: it is pushed afterwards, and nobody else waits.
#[test]
fn minute_of_any_answer_for_one_token_delays_nobody_else() {
    let outage = s(100)..s(160);
    for accounts in [2, 5, 40] {
        for does in table() {
            let server =
                |number, now| if number == 0 && outage.contains(&now) { does } else { ACCEPTS };
            let mut play = Play::new(&server);
            for second in 95..4_000 {
                play.until(s(second));
                let number = usize::try_from(second).unwrap() * 7 % accounts;
                play.notice(number, number, true);
            }
            play.until(s(8_000));
            let case = format!("{does:?}, {accounts} accounts");
            assert_eq!(play.owed, HashMap::new(), "{case}");
            assert_eq!(play.given_up, vec![], "{case}");
            let others = (1..accounts).filter_map(|number| play.waits.get(&number)).max().unwrap();
            assert!(*others < s(2), "{case}: {others:?}");
            assert!(play.waits[&0] < s(3_800), "{case}: {:?}", play.waits[&0]);
        }
    }
}

/// One account's 32 tokens fail for good, whether they were accepted before or not: a neighbour's push comes at once.
#[test]
fn junk_of_one_account_delays_no_neighbour() {
    let mut posts = Vec::new();
    for junk_accepted in [false, true] {
        for neighbour_accepted in [false, true] {
            for does in table() {
                let server = |number, _| if number < 32 { does } else { ACCEPTS };
                let mut play = Play::new(&server);
                for second in 0..7_200 {
                    play.until(s(second));
                    let junk = usize::try_from(second).unwrap() % 32;
                    play.notice(junk, 0, junk_accepted);
                    if second == 0 {
                        (0..32).for_each(|junk| play.notice(junk, 0, junk_accepted));
                    }
                    // In turn: a neighbour who is new each time, and one with news all the time.
                    if second % 5 == 0 {
                        let number = 100 + usize::try_from(second).unwrap();
                        play.notice(number, number, neighbour_accepted);
                        play.notice(99, 99, neighbour_accepted);
                    }
                }
                play.until(s(7_300));
                let case = format!(
                    "{does:?}, accepted before: {junk_accepted}, neighbour's: {neighbour_accepted}"
                );
                let longest = play
                    .waits
                    .iter()
                    .filter(|(number, _)| **number >= 32)
                    .map(|(_, wait)| *wait)
                    .max();
                assert!(longest.unwrap() < s(1), "{case}: {longest:?}");
                assert!(play.owed.keys().all(|number| *number < 32), "{case}");
                posts.push(play.posts);
            }
        }
    }
    println!("POSTs in two hours: {posts:?}");
}

/// A neighbour's first news while sixty accounts with 32 tokens each have news, at the default rate.
#[test]
fn sixty_accounts_with_32_tokens_delay_another_by_less_than_a_second() {
    let mut longest = Duration::ZERO;
    for accepted in [true, false] {
        for neighbour in [true, false] {
            for after in [0, 30, 200, 500, 900, 1_500, 5_000, 20_000] {
                let server = |_, _| ACCEPTS;
                let mut play = Play::new(&server);
                play.until(s(100));
                for number in 0..60 * 32 {
                    play.notice(number, number % 60, accepted);
                }
                play.until(s(100) + Duration::from_millis(after));
                play.notice(99_999, 99_999, neighbour);
                play.until(s(300));
                assert_eq!(play.owed, HashMap::new());
                longest = longest.max(play.waits[&99_999]);
            }
        }
    }
    println!("longest wait: {longest:?}");
    assert!(longest < s(1), "{longest:?}");
}

/// Dead endpoints of eleven accounts, all accepted before, at a server with little news.
#[test]
fn dead_endpoints_of_several_accounts_delay_nobody_and_become_hopeless() {
    for does in [Does::Hangs, status(503)] {
        let server = |number, _| if number < 11 { does } else { ACCEPTS };
        let mut play = Play::new(&server);
        for step in 0..6 * 24 {
            play.until(s(600 * step));
            (0..11).for_each(|number| play.notice(number, number, true));
            play.until(s(600 * step + 120));
            play.notice(50, 50, true);
        }
        play.until(s(25 * 3600));
        assert!(play.waits[&50] < s(2), "{:?}", play.waits[&50]);
        let hopeless = play
            .given_up
            .iter()
            .filter(|(_, reason)| matches!(reason, GiveUpReason::Hopeless(_)))
            .count();
        assert!(hopeless > 11, "{:?}", play.given_up.len());
    }
}

/// Nothing but tokens that were never accepted, and a server that is down: it is probed, and all are pushed afterwards.
#[test]
fn fresh_installation_survives_an_outage() {
    let outage = Duration::ZERO..s(3600);
    for does in [Does::Hangs, status(503), status(500), Does::Answers(PostAnswer::Gone)] {
        let server = |_, now| if outage.contains(&now) { does } else { ACCEPTS };
        let mut play = Play::new(&server);
        (0..100).for_each(|number| play.notice(number, number, false));
        play.until(outage.end);
        assert!(play.schedule.is_down(), "{does:?}");
        assert!(play.posts < 400, "{does:?}: {} POSTs", play.posts);
        play.until(outage.end + s(600));
        assert_eq!(play.owed, HashMap::new(), "{does:?}");
    }
}
