//! The schedule in virtual time: known cases, and random histories against the promises.

use super::*;
use proptest::prelude::*;

pub(super) const SETTINGS: ScheduleSettings =
    ScheduleSettings { coalesce: s(10), max_in_flight: 16, per_second: 1000 };
pub(super) const FAILED: PostAnswer =
    PostAnswer::Failed { failure: TransientFailure::Status(500), retry_after: None };
const DOWN: PostAnswer =
    PostAnswer::Failed { failure: TransientFailure::Unreachable, retry_after: None };

pub(super) const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn token(number: usize) -> DeviceToken {
    DeviceToken::new(format!("openpgp:{number}").as_bytes()).unwrap()
}

pub(super) fn account(number: usize) -> AccountId {
    AccountId::new(&format!("user{number}"), "imap.example.org:993")
}

/// A schedule with its clock.
pub(super) struct World {
    pub(super) schedule: PushSchedule,
    pub(super) now: Duration,
    generation: u64,
    /// True if tokens were accepted before.
    pub(super) accepted: bool,
    /// Each account has so many tokens.
    per_account: usize,
}

impl World {
    pub(super) fn new(settings: ScheduleSettings) -> Self {
        Self {
            schedule: PushSchedule::new(settings, 1),
            now: s(1_000_000),
            generation: 0,
            accepted: true,
            per_account: 1,
        }
    }

    pub(super) fn standing(&self, number: usize) -> TokenState {
        TokenState {
            account: account(number / self.per_account),
            accepted: self.accepted,
            since_post: None,
            quarantine: None,
        }
    }

    pub(super) fn notice(&mut self, number: usize) -> Generation {
        self.generation += 1;
        let standing = self.standing(number);
        self.schedule.notice(
            token(number),
            &standing,
            Generation(self.generation),
            Duration::ZERO,
            self.now,
        );
        Generation(self.generation)
    }

    pub(super) fn next(&mut self) -> ScheduleStep {
        self.schedule.next(self.now)
    }

    pub(super) fn posts(&mut self) -> Generation {
        match self.next() {
            ScheduleStep::Post { generation, .. } => generation,
            other => panic!("expected a POST, not {other:?}"),
        }
    }

    pub(super) fn answered(&mut self, number: usize, answer: PostAnswer) -> PostConclusion {
        self.schedule.answered(&token(number), answer, self.now)
    }

    /// Waits as the schedule says. Returns for how long.
    pub(super) fn wait(&mut self) -> Duration {
        match self.next() {
            ScheduleStep::Wait(until) => {
                assert!(until > self.now, "waiting takes time");
                std::mem::replace(&mut self.now, until).abs_diff(until)
            }
            other => panic!("expected to wait, not {other:?}"),
        }
    }
}

#[test]
fn first_news_at_once_and_later_news_once_at_the_windows_end() {
    let mut world = World::new(SETTINGS);
    assert_eq!(world.next(), ScheduleStep::Idle);
    let first = world.notice(1);
    assert_eq!(world.posts(), first);
    assert_eq!(world.next(), ScheduleStep::Idle, "one POST per token in flight");
    world.notice(1);
    world.now += s(2);
    assert_eq!(world.answered(1, PostAnswer::Accepted), PostConclusion::Accepted(first));
    world.now += s(3);
    let last = world.notice(1);
    assert_eq!(world.wait(), s(7), "from the accepted POST on, not from the news");
    assert_eq!(world.posts(), last);
    assert_eq!(world.answered(1, PostAnswer::Accepted), PostConclusion::Accepted(last));
    assert_eq!(world.next(), ScheduleStep::Idle);
    world.now += s(11);
    world.notice(1);
    world.posts();
}

#[test]
fn window_after_another_nodes_post_is_waited_out() {
    for (since, wait) in [(0, 10), (1, 10), (4, 7), (10, 1), (11, 0), (5000, 0)] {
        let mut world = World::new(SETTINGS);
        world.now = s(100);
        let standing = TokenState { since_post: Some(s(since)), ..world.standing(0) };
        let (generation, now) = (Generation(1), world.now);
        world.schedule.notice(token(0), &standing, generation, Duration::ZERO, now);
        match world.next() {
            ScheduleStep::Wait(until) => assert_eq!(until - now, s(wait), "{since} s ago"),
            step => assert!(wait == 0 && matches!(step, ScheduleStep::Post { .. }), "{step:?}"),
        }
    }
}

#[test]
fn announcement_that_was_loaded_before_its_post_was_accepted_is_not_posted_again() {
    let mut world = World::new(SETTINGS);
    let first = world.notice(0);
    assert_eq!(world.posts(), first);
    world.answered(0, PostAnswer::Accepted);
    let (standing, now) = (world.standing(0), world.now);
    world.schedule.notice(token(0), &standing, first, Duration::ZERO, now);
    assert_eq!(world.next(), ScheduleStep::Idle);
    let second = world.notice(0);
    world.wait();
    assert_eq!(world.posts(), second);
}

#[test]
fn nothing_is_remembered_of_a_token_at_rest() {
    let mut world = World::new(SETTINGS);
    for number in 0..16 {
        world.notice(number);
        world.posts();
        world.answered(number, PostAnswer::Accepted);
    }
    world.now += s(10);
    assert_eq!(world.next(), ScheduleStep::Idle);
    assert!(
        world.schedule.tokens.is_empty()
            && world.schedule.quiet.is_empty()
            && world.schedule.turns.is_empty()
    );
}

#[test]
fn retries_grow_by_powers_of_eight_and_end_after_five_hours() {
    let mut world = World::new(SETTINGS);
    world.accepted = false;
    let news = world.notice(1);
    let began = world.now;
    let mut waits = Vec::new();
    loop {
        assert_eq!(world.posts(), news);
        match world.answered(1, FAILED) {
            PostConclusion::Retry(at) => assert!(at > world.now),
            outcome => {
                assert_eq!(outcome, PostConclusion::GaveUp(news, GiveUpReason::TooLate));
                break;
            }
        }
        waits.push(world.wait());
    }
    for (wait, power) in waits.iter().zip([1, 2, 3, 4, 4, 4]) {
        let middle = s(8_u64.pow(power));
        assert!((middle * 3 / 4..=middle * 5 / 4).contains(wait), "{waits:?}");
    }
    assert!(world.now - began <= PATIENCE && world.now - began > PATIENCE - s(5200), "{waits:?}");
    assert_eq!(world.next(), ScheduleStep::Idle);

    let news = world.notice(1);
    assert_eq!(world.posts(), news, "later news gets its chance at once");
    let PostConclusion::Retry(at) = world.answered(1, FAILED) else { panic!("retried") };
    assert!(at - world.now > s(3000), "but no burst of attempts: it has failed for hours");
}

#[test]
fn news_brings_a_retry_forward_but_not_without_end() {
    let mut world = World::new(SETTINGS);
    world.notice(1);
    for _ in 0..4 {
        world.posts();
        assert!(matches!(world.answered(1, FAILED), PostConclusion::Retry(_)));
        if world.schedule.tokens[&token(1)].failures < 4 {
            world.wait();
        }
    }
    let newer = world.notice(1);
    assert_eq!(world.wait(), NEWS_PAUSE);
    assert_eq!(world.posts(), newer);
}

#[test]
fn refusal_is_believed_once_others_were_accepted_in_between_three_times() {
    let mut world = World::new(SETTINGS);
    let news = world.notice(1);
    let (outcomes, lasted) = fail_with(&mut world, PostAnswer::Refused(403));
    assert!(
        outcomes.len() > 3 && lasted > s(500),
        "an outage of some minutes is survived: {outcomes:?}"
    );
    assert_eq!(outcomes.last(), Some(&PostConclusion::GaveUp(news, GiveUpReason::Refused(403))));
    world.now += s(100);
    let news = world.notice(1);
    world.posts();
    assert_eq!(
        world.answered(1, PostAnswer::Refused(403)),
        PostConclusion::GaveUp(news, GiveUpReason::Refused(403)),
        "one attempt from now on"
    );
}

#[test]
fn retry_after_is_honoured_whatever_comes() {
    let mut world = World::new(SETTINGS);
    world.notice(1);
    world.posts();
    let answer =
        PostAnswer::Failed { failure: TransientFailure::Status(500), retry_after: Some(s(300)) };
    assert_eq!(world.answered(1, answer), PostConclusion::Retry(world.now + s(300)));
    world.notice(1);
    world.notice(2);
    world.posts();
    world.answered(2, PostAnswer::Accepted);
    assert_eq!(world.wait(), s(300));
}

#[test]
fn retry_after_of_a_day_is_believed_for_an_hour() {
    for status in [500, 503] {
        let mut world = World::new(SETTINGS);
        world.notice(1);
        world.posts();
        let answer = PostAnswer::Failed {
            failure: TransientFailure::Status(status),
            retry_after: Some(s(86_400)),
        };
        assert_eq!(
            world.answered(1, answer),
            PostConclusion::Retry(world.now + s(3600)),
            "{status}"
        );
        assert_eq!(world.wait(), s(3600));
        world.posts();
    }
}

/// A world in which token 1 fails with a 500 whenever it is posted, and token 2 has news every ten minutes, all accepted.
/// Returns the outcomes of token 1 until one is no retry, and how long that took.
fn fail_beside_another(world: &mut World) -> (Vec<PostConclusion>, Duration) {
    fail_with(world, FAILED)
}

/// The same with another answer.
fn fail_with(world: &mut World, answer: PostAnswer) -> (Vec<PostConclusion>, Duration) {
    let began = world.now;
    let mut outcomes = Vec::new();
    let mut news = world.now;
    loop {
        match world.next() {
            ScheduleStep::Post { token: posted, .. } if posted == token(1) => {
                outcomes.push(world.answered(1, answer));
                if !matches!(outcomes.last(), Some(PostConclusion::Retry(_))) {
                    return (outcomes, world.now - began);
                }
            }
            ScheduleStep::Post { .. } => {
                world.answered(2, PostAnswer::Accepted);
            }
            ScheduleStep::Wait(until) if until < news => world.now = until,
            ScheduleStep::Wait(_) | ScheduleStep::Idle => {
                world.now = world.now.max(news);
                news += s(600);
                world.notice(2);
            }
            ScheduleStep::GiveUp { .. } => panic!("not while the server is well"),
        }
    }
}

#[test]
fn token_that_alone_fails_gets_one_attempt_per_announcement_until_it_is_accepted() {
    let mut world = World::new(SETTINGS);
    let news = world.notice(1);
    let (outcomes, _) = fail_beside_another(&mut world);
    assert!(outcomes.len() > 5, "it has had its chances: {outcomes:?}");
    assert_eq!(outcomes.last(), Some(&PostConclusion::GaveUp(news, GiveUpReason::TooLate)));
    // For days, and each is recorded.
    for _ in 0..10 {
        world.now += s(100_000);
        let news = world.notice(1);
        let (outcomes, _) = fail_beside_another(&mut world);
        assert_eq!(
            outcomes,
            [PostConclusion::GaveUp(news, GiveUpReason::Hopeless(TransientFailure::Status(500)))]
        );
    }
    // News that comes during the POST is an announcement of its own.
    world.now += s(20);
    let first = world.notice(1);
    while world.posts() != first {
        world.answered(2, PostAnswer::Accepted);
    }
    let second = world.notice(1);
    assert_eq!(
        world.answered(1, FAILED),
        PostConclusion::GaveUp(first, GiveUpReason::Hopeless(TransientFailure::Status(500)))
    );
    world.wait();
    assert_eq!(world.posts(), second);
    assert_eq!(world.answered(1, PostAnswer::Accepted), PostConclusion::Accepted(second));
    world.now += s(20);
    world.notice(1);
    let (outcomes, _) = fail_beside_another(&mut world);
    assert!(matches!(outcomes[0], PostConclusion::Retry(_)), "accepted once, it is like any other");
}

#[test]
fn outage_of_the_server_is_no_fault_of_a_hopeless_token() {
    let mut world = World::new(SETTINGS);
    world.notice(1);
    fail_beside_another(&mut world);
    for answer in
        [DOWN, PostAnswer::Failed { failure: TransientFailure::Status(503), retry_after: None }]
    {
        world.now += s(20);
        world.notice(2);
        world.posts();
        assert!(matches!(world.answered(2, answer), PostConclusion::Retry(_)));
        let failed = world.now;
        world.notice(1);
        while world.schedule.tokens[&token(1)].failures > 0
            && !matches!(world.schedule.tokens[&token(1)].place, QueuePlace::InFlight { .. })
        {
            if matches!(world.next(), ScheduleStep::Wait(_)) {
                world.wait();
            }
        }
        assert!(
            matches!(world.answered(1, answer), PostConclusion::Retry(_)),
            "another account has failed as well"
        );
        assert!(world.now - failed < s(200));
        // Both find the server well.
        world.now += s(10_000);
        for _ in 0..2 {
            let ScheduleStep::Post { token: posted, .. } = world.next() else { continue };
            let is_bad = posted == token(1);
            if is_bad {
                let outcome = world.answered(1, FAILED);
                assert!(
                    matches!(outcome, PostConclusion::Retry(_) | PostConclusion::GaveUp(..)),
                    "{outcome:?}"
                );
            } else {
                world.answered(2, PostAnswer::Accepted);
            }
        }
    }
}

#[test]
fn news_again_and_again_does_not_put_the_end_off_for_ever() {
    let mut world = World::new(SETTINGS);
    let began = world.now;
    loop {
        world.notice(1);
        world.notice(2);
        let mut gave_up = false;
        while let ScheduleStep::Post { token: posted, .. } = world.next() {
            let is_bad = posted == token(1);
            let outcome = world.answered(
                if is_bad { 1 } else { 2 },
                if is_bad { FAILED } else { PostAnswer::Accepted },
            );
            gave_up |= matches!(outcome, PostConclusion::GaveUp(_, GiveUpReason::TooLate));
        }
        if gave_up {
            break;
        }
        world.now += s(100);
        assert!(world.now - began < PATIENCE + s(200), "repeated for ever");
    }
    assert!(world.now - began > PATIENCE - s(5200));
}

/// A 500 for everybody is the server's fault, whatever it says: nobody is hopeless after it.
#[test]
fn nobody_is_hopeless_after_a_500_for_all() {
    let mut world = World::new(SETTINGS);
    for number in 0..3 {
        world.notice(number);
    }
    let mut given_up = 0;
    while given_up < 3 {
        match world.next() {
            ScheduleStep::Post { token, .. } => {
                let outcome = world.schedule.answered(&token, FAILED, world.now);
                given_up += usize::from(matches!(
                    outcome,
                    PostConclusion::GaveUp(_, GiveUpReason::TooLate)
                ));
            }
            ScheduleStep::GiveUp { .. } => given_up += 1,
            ScheduleStep::Wait(until) => world.now = until,
            ScheduleStep::Idle => panic!("something is still pending"),
        }
    }
    world.notice(1);
    world.posts();
    world.answered(1, PostAnswer::Accepted);
    world.notice(2);
    world.posts();
    assert!(matches!(world.answered(2, FAILED), PostConclusion::Retry(_)));
}

#[test]
fn hopeless_token_that_is_removed_leaves_nothing_behind() {
    let mut world = World::new(SETTINGS);
    world.notice(1);
    fail_beside_another(&mut world);
    world.now += FAILURE_MEMORY * 100;
    assert_eq!(world.next(), ScheduleStep::Idle);
    assert!(world.schedule.tokens.contains_key(&token(1)));
    world.schedule.forget(&token(1), world.now);
    world.now += s(11);
    assert_eq!(world.next(), ScheduleStep::Idle);
    assert!(world.schedule.tokens.is_empty());
}

#[test]
fn forgotten_token_is_not_posted_wherever_it_stands() {
    let mut world = World::new(SETTINGS);
    world.notice(1);
    world.schedule.forget(&token(1), world.now);
    assert_eq!(world.next(), ScheduleStep::Idle);

    world.notice(2);
    world.posts();
    world.schedule.forget(&token(2), world.now);
    assert_eq!(world.answered(2, FAILED), PostConclusion::Dropped);
    assert_eq!(world.next(), ScheduleStep::Idle);

    world.notice(3);
    world.posts();
    world.answered(3, FAILED);
    world.schedule.forget(&token(3), world.now);
    assert_eq!(world.next(), ScheduleStep::Idle);

    world.notice(4);
    world.posts();
    world.schedule.forget(&token(4), world.now);
    let again = world.notice(4);
    assert_eq!(
        world.answered(4, PostAnswer::Accepted),
        PostConclusion::Accepted(Generation(again.0 - 1))
    );
    world.wait();
    assert_eq!(world.posts(), again, "a token that came back has its news announced");
}

#[test]
fn pending_push_after_a_restart_has_only_the_rest_of_its_time() {
    let mut world = World::new(SETTINGS);
    for (number, age) in [(1, PATIENCE - s(5)), (2, PATIENCE * 2)] {
        let standing = world.standing(number);
        world.schedule.notice(
            token(number),
            &standing,
            Generation(u64::try_from(number).unwrap()),
            age,
            world.now,
        );
    }
    world.posts();
    assert_eq!(
        world.answered(1, FAILED),
        PostConclusion::GaveUp(Generation(1), GiveUpReason::TooLate)
    );
    world.posts();
    assert_eq!(
        world.answered(2, PostAnswer::Accepted),
        PostConclusion::Accepted(Generation(2)),
        "one attempt at least"
    );
}

/// While the server is down only probes go out; when it is back everything drains within its limits, nothing is lost.
#[test]
fn ten_thousand_tokens_are_one_probe_and_then_a_paced_drain() {
    let mut world = World::new(ScheduleSettings { per_second: 50, ..SETTINGS });
    for number in 0..10_000 {
        world.notice(number);
    }
    let began = world.now;
    let back = began + s(3600);
    let mut posts_while_down = 0;
    let (mut accepted, mut flying, mut most) = (0, Vec::new(), 0);
    let mut drained = began;
    while accepted < 10_000 {
        match world.next() {
            ScheduleStep::Post { token, .. } => flying.push(token),
            ScheduleStep::GiveUp { .. } => panic!("nothing is five hours old"),
            step => {
                if world.now >= back {
                    most = most.max(flying.len());
                }
                let answer = if world.now < back { DOWN } else { PostAnswer::Accepted };
                for token in flying.drain(..) {
                    match world.schedule.answered(&token, answer, world.now) {
                        PostConclusion::Accepted(_) => accepted += 1,
                        _ => posts_while_down += 1,
                    }
                }
                drained = world.now;
                if let ScheduleStep::Wait(until) = step {
                    world.now = world.now.max(until);
                }
            }
        }
    }
    assert!(
        posts_while_down < 16 + 3600 / 96 + 10,
        "{posts_while_down} POSTs to a server that is down"
    );
    assert!(most <= 16);
    let taken = drained - back;
    assert!(taken >= s(199), "the rate is capped: {taken:?}");
    assert!(taken < s(200 + 160 + 10), "it recovers by itself: {taken:?}");
}

#[test]
fn news_older_than_five_hours_is_given_up_when_the_server_comes_back() {
    let mut world = World::new(SETTINGS);
    for number in 0..100 {
        world.notice(number);
    }
    let begin = world.now;
    let mut given_up = 0;
    while given_up < 100 {
        match world.next() {
            ScheduleStep::Post { token, .. } => {
                if let PostConclusion::GaveUp(..) = world.schedule.answered(&token, DOWN, world.now)
                {
                    given_up += 1;
                }
            }
            ScheduleStep::GiveUp { .. } => given_up += 1,
            ScheduleStep::Wait(until) => world.now = until,
            ScheduleStep::Idle => panic!("something is still pending"),
        }
    }
    assert!(world.now - begin >= PATIENCE - s(5200) && world.now - begin < PATIENCE + s(200));
    assert_eq!(world.next(), ScheduleStep::Idle);
    assert_eq!(world.schedule.pending(), 0);
}

#[test]
fn one_token_alone_is_probed_while_the_server_is_down() {
    let mut world = World::new(SETTINGS);
    world.notice(1);
    let began = world.now;
    while world.now - began < s(3600) {
        world.posts();
        assert!(matches!(world.answered(1, DOWN), PostConclusion::Retry(_)));
        assert!(world.wait() <= s(160), "it is found out within minutes that the server is back");
    }
}

/// Each of a few tokens has failed often in an outage: none of them waits for its own retry once it is over.
#[test]
fn after_an_outage_nobody_waits_for_a_retry() {
    let mut world = World::new(SETTINGS);
    for number in 0..5 {
        world.notice(number);
    }
    let back = world.now + s(3600);
    let mut accepted = 0;
    while accepted < 5 {
        match world.next() {
            ScheduleStep::Post { token, .. } => {
                let answer = if world.now < back { DOWN } else { PostAnswer::Accepted };
                let outcome = world.schedule.answered(&token, answer, world.now);
                accepted += usize::from(matches!(outcome, PostConclusion::Accepted(_)));
            }
            ScheduleStep::Wait(until) => world.now = until,
            other => panic!("{other:?}"),
        }
    }
    assert!(world.now < back + s(161), "{:?} after its end", world.now - back);
}

/// Years on the clock, and no news, cost one step.
#[test]
fn ten_thousand_tokens_for_years_take_no_time() {
    let mut world = World::new(SETTINGS);
    for day in 0..1000 {
        for number in 0..10 {
            world.notice(day % 10 * 1000 + number);
        }
        for _ in 0..10 {
            let ScheduleStep::Post { token, .. } = world.next() else { panic!("due") };
            world.schedule.answered(&token, PostAnswer::Accepted, world.now);
        }
        assert_eq!(world.next(), ScheduleStep::Idle);
        world.now += s(86_400);
    }
}

#[derive(Debug, Clone)]
enum Happens {
    News(usize),
    Forget(usize),
    Time(u64),
    Answer(usize, PostAnswer),
}

fn answers() -> impl Strategy<Value = PostAnswer> {
    let retry_after = proptest::option::of((0_u64..5000).prop_map(Duration::from_secs));
    let failure = prop_oneof![
        Just(TransientFailure::Status(500)),
        Just(TransientFailure::Status(503)),
        Just(TransientFailure::TimedOut),
        Just(TransientFailure::Unreachable)
    ];
    prop_oneof![
        4 => Just(PostAnswer::Accepted),
        1 => Just(PostAnswer::Gone),
        1 => Just(PostAnswer::Refused(400)),
        4 => (failure, retry_after).prop_map(|(failure, retry_after)| PostAnswer::Failed { failure, retry_after }),
    ]
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (0_usize..8).prop_map(Happens::News),
        1 => (0_usize..8).prop_map(Happens::Forget),
        3 => (0_u64..20_000).prop_map(Happens::Time),
        1 => (0_u64..7_200_000).prop_map(Happens::Time),
        6 => (any::<usize>(), answers()).prop_map(|(index, answer)| Happens::Answer(index, answer)),
    ]
}

/// The expected outcome of a history, computed in the plainest way.
#[derive(Default)]
struct Model {
    owed: HashMap<DeviceToken, Generation>,
    flying: Vec<(DeviceToken, Generation)>,
    accepted: HashMap<DeviceToken, Duration>,
}

impl Model {
    fn step(&mut self, world: &mut World, settings: ScheduleSettings) -> Option<Duration> {
        loop {
            match world.next() {
                ScheduleStep::Post { token, generation, .. } => {
                    assert!(
                        !self.flying.iter().any(|(flying, _)| *flying == token),
                        "one POST per token"
                    );
                    assert_eq!(
                        self.owed.get(&token),
                        Some(&generation),
                        "only what is owed, and all of it"
                    );
                    if let Some(accepted) = self.accepted.get(&token) {
                        assert!(world.now >= *accepted + settings.coalesce, "once in a window");
                    }
                    self.flying.push((token, generation));
                    assert!(self.flying.len() <= settings.max_in_flight);
                    let accounts = self
                        .flying
                        .iter()
                        .map(|(flying, _)| world.schedule.tokens[flying].account.clone());
                    let mut counts = HashMap::<AccountId, usize>::new();
                    accounts.for_each(|account| *counts.entry(account).or_default() += 1);
                    assert!(
                        counts.values().all(|count| *count <= turns::PER_ACCOUNT),
                        "{counts:?}"
                    );
                }
                ScheduleStep::GiveUp { token, generation, .. } => self.settle(&token, generation),
                ScheduleStep::Wait(until) => {
                    assert!(until > world.now);
                    return Some(until);
                }
                ScheduleStep::Idle => return None,
            }
        }
    }

    fn answer(&mut self, world: &mut World, index: usize, answer: PostAnswer) {
        if self.flying.is_empty() {
            return;
        }
        let (token, posted) = self.flying.remove(index % self.flying.len());
        let conclusion = world.schedule.answered(&token, answer, world.now);
        assert_eq!(world.schedule.flying.all, self.flying.len());
        let again = world.schedule.answered(&token, answer, world.now);
        assert_eq!(again, PostConclusion::Dropped, "a POST ends once");
        match conclusion {
            PostConclusion::Accepted(generation) => {
                assert_eq!((answer, generation), (PostAnswer::Accepted, posted));
                self.accepted.insert(token.clone(), world.now);
                self.settle(&token, generation);
            }
            PostConclusion::Quarantined { gave_up, until, .. } => {
                assert_eq!(answer, PostAnswer::Gone);
                assert!(until > world.now);
                gave_up.into_iter().for_each(|generation| self.settle(&token, generation));
            }
            PostConclusion::GaveUp(generation, _) => self.settle(&token, generation),
            PostConclusion::Retry(at) => assert!(at > world.now),
            PostConclusion::Dropped => assert_eq!(self.owed.get(&token), None),
        }
    }

    fn settle(&mut self, token: &DeviceToken, generation: Generation) {
        self.owed.retain(|owed, newest| owed != token || *newest > generation);
    }
}

proptest! {
    /// In any history, each announcement that is owed is posted in the end, once per window, within the limits.
    #[test]
    fn every_announcement_is_accepted_or_accounted_for(
        history in proptest::collection::vec(happens(), 0..200),
        max_in_flight in 1_usize..5,
    ) {
        let settings = ScheduleSettings { coalesce: s(10), max_in_flight, per_second: 5 };
        let mut world = World::new(settings);
        world.per_account = 3;
        let mut model = Model::default();
        for event in history {
            match event {
                Happens::News(number) => {
                    let generation = world.notice(number);
                    model.owed.insert(token(number), generation);
                }
                Happens::Forget(number) => {
                    world.schedule.forget(&token(number), world.now);
                    model.owed.remove(&token(number));
                }
                Happens::Time(milliseconds) => world.now += Duration::from_millis(milliseconds),
                Happens::Answer(index, answer) => model.answer(&mut world, index, answer),
            }
            model.step(&mut world, settings);
        }
        // From now on everything goes well.
        let limit = world.now + QUARANTINE * 2;
        loop {
            let until = model.step(&mut world, settings);
            if !model.flying.is_empty() {
                model.answer(&mut world, 0, PostAnswer::Accepted);
            } else if let Some(until) = until {
                world.now = until;
            } else {
                break;
            }
            prop_assert!(world.now < limit);
        }
        prop_assert!(model.owed.is_empty(), "never announced: {:?}", model.owed);
        prop_assert_eq!(world.schedule.pending(), 0);
        prop_assert_eq!(format!("{:?}", world.schedule.flying), format!("{:?}", Flying::default()));
        // Hopeless ones are, until they are forgotten by everybody.
        (0..8).for_each(|number| world.schedule.forget(&token(number), world.now));
        world.now += FAILURE_MEMORY * 2;
        prop_assert_eq!(world.next(), ScheduleStep::Idle);
        prop_assert!(world.schedule.tokens.is_empty(), "nothing is remembered for ever");
        prop_assert!(world.schedule.turns.is_empty());
    }
}
