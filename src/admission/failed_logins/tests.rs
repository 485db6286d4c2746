//! Attackers and owners, in a time of the tests' own.

use super::*;
use crate::account::AccountId;
use crate::admission::key::KeyMaker;

/// A clock and what it is about.
pub(super) struct Lab {
    pub(super) logins: Logins,
    pub(super) now: Instant,
}

/// The result of a login.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    In,
    /// The upstream was asked and said no; the answer waits so many seconds.
    Wrong(u64),
    /// The upstream was not asked.
    NotAsked,
    /// A repetition, answered from memory.
    Again,
}

pub(super) const SECRET: &str = "right";

impl Lab {
    pub(super) fn new() -> Self {
        Self { logins: Logins::new(FailedLogins::default()), now: Instant::now() }
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// A login at a server on which every password but `right` is wrong.
    pub(super) fn log_in(&mut self, address: u16, user: &str, password: &str) -> Got {
        self.log_in_at("mail:993", address, user, password)
    }

    fn log_in_at(&mut self, upstream: &str, address: u16, user: &str, password: &str) -> Got {
        self.try_it(&attempt(upstream, address, user, password), password)
    }

    fn try_it(&mut self, login: &Try, password: &str) -> Got {
        match self.logins.judge(login, self.now) {
            LoginDecision::Pass { known } => {
                let outcome =
                    if password == SECRET { LoginOutcome::Accepted } else { LoginOutcome::Refused };
                match self.logins.done(login, known, None, outcome, self.now) {
                    None => Got::In,
                    Some(delay) => Got::Wrong(delay.as_secs()),
                }
            }
            LoginDecision::Refuse { .. } => Got::NotAsked,
            LoginDecision::Repeated { .. } => Got::Again,
            LoginDecision::Wait => panic!("nothing is under way"),
        }
    }
}

pub(super) fn attempt(upstream: &str, address: u16, user: &str, password: &str) -> Try {
    let [high, low] = address.to_be_bytes();
    let mut digest = CredentialDigest::default();
    let named = format!("{user} {password}");
    digest.iter_mut().zip(named.bytes()).for_each(|(to, from)| *to = from);
    let (maker, prefix) = (KeyMaker::new(b"test"), Prefix::of([10, 0, high, low].into()));
    let keys = maker.login(&AccountId::new(user, upstream), prefix);
    let origin = maker.origin(prefix, keys.upstream, false);
    Try { prefix, origin, keys, digest: Some(digest), stored: false, registered: false }
}

/// The same at a server that the login has named.
fn open_attempt(upstream: &str, address: u16, user: &str, password: &str) -> Try {
    let mut login = attempt(upstream, address, user, password);
    login.origin.is_open = true;
    login
}

#[test]
fn nodes_share_the_limits() {
    let limits = FailedLogins { per_upstream: 100, per_upstream_day: 0, ..FailedLogins::default() };
    assert_eq!(limits.shared_by(1), limits);
    let shared = limits.shared_by(4);
    assert_eq!((shared.per_address, shared.per_account), (3, 2), "of 10 and of 3");
    assert_eq!((shared.per_upstream, shared.per_upstream_day), (25, 0));
    assert_eq!((shared.within, limits.shared_by(1000).per_address), (limits.within, 2));
    let one = FailedLogins { per_account: 1, ..limits };
    assert_eq!((one.shared_by(3).per_account, one.shared_by(0)), (1, one));
}

#[test]
fn person_who_mistypes_at_one_node_of_many_gets_in() {
    for nodes in [2, 3, 10, 100] {
        let mut lab = Lab::new();
        lab.logins.set_limits(FailedLogins::default().shared_by(nodes));
        assert_eq!(lab.log_in(1, "alice", "rihgt"), Got::Wrong(1));
        assert_eq!(lab.log_in(1, "alice", "rihgt"), Got::Again, "the phone tries once more");
        assert_eq!(lab.log_in(1, "alice", SECRET), Got::In, "{nodes} nodes");
    }
}

#[test]
fn person_who_mistypes_gets_in() {
    let mut lab = Lab::new();
    assert_eq!(lab.log_in(1, "alice", "rihgt"), Got::Wrong(1));
    assert_eq!(lab.log_in(1, "alice", "rihgt"), Got::Again, "the phone tries once more by itself");
    assert_eq!(lab.log_in(2, "alice", "irght"), Got::Wrong(2), "on the other phone");
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In);
    assert_eq!(lab.log_in(2, "alice", SECRET), Got::In);
}

#[test]
fn login_that_another_node_has_accepted_is_known_here() {
    let (mut one, mut other) = (Lab::new(), Lab::new());
    assert_eq!(one.log_in(1, "alice", SECRET), Got::In);
    let known = one.logins.take_changes(one.now).used;
    let alice = attempt("mail:993", 1, "alice", SECRET);
    assert!(!known.is_empty() && !other.logins.is_known_name(&alice, other.now));
    other.logins.learn(&known, other.now);
    assert!(other.logins.is_known_name(&alice, other.now));
    assert!(other.logins.take_changes(other.now).used.is_empty(), "it is stored already");
}

#[test]
fn one_account_is_guessed_at_from_many_addresses() {
    let mut lab = Lab::new();
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In);
    let mut asked = 0;
    for n in 0..10_000 {
        lab.pass(1);
        asked += usize::from(matches!(
            lab.log_in(100 + n % 5000, "alice", &format!("guess{n}")),
            Got::Wrong(_)
        ));
    }
    // 10,000 seconds are 17 times ten minutes.
    assert!((3..=17 * 3).contains(&asked), "{asked}");
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In, "the owner, at home");
    assert_eq!(lab.log_in(9999, "alice", SECRET), Got::NotAsked, "this could be one more guess");
    lab.pass(600);
    assert_eq!(lab.log_in(9999, "alice", SECRET), Got::In);
}

#[test]
fn owner_gets_in_from_anywhere_while_few_guess() {
    let mut lab = Lab::new();
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In);
    for n in 0..50 {
        lab.log_in(100 + n, "alice", &format!("guess{n}"));
    }
    assert_eq!(lab.log_in(2, "alice", SECRET), Got::In, "from the train");
    let mut stored = attempt("mail:993", 3, "alice", "another password that a watch knows");
    let blocked = Blocked { limit: LoginLimit::Account, wait: Duration::from_secs(600) };
    let refused = LoginDecision::Refuse { delay: Duration::from_secs(4), counted: true, blocked };
    assert_eq!(lab.logins.judge(&stored, lab.now), refused);
    stored.stored = true;
    assert_eq!(lab.logins.judge(&stored, lab.now), LoginDecision::Pass { known: true });
}

#[test]
fn one_address_tries_many_accounts() {
    let mut lab = Lab::new();
    for n in 0..10 {
        // At servers of their own, so that only the address counts.
        let wrong = lab.log_in_at(&format!("mail{n}:993"), 1, &format!("user{n}"), "123456");
        assert_eq!(wrong, Got::Wrong(16.min(1 << n)));
    }
    assert_eq!(lab.log_in(1, "user10", "123456"), Got::NotAsked);
    assert_eq!(lab.log_in(1, "user10", SECRET), Got::NotAsked);
    assert_eq!(lab.log_in(2, "user10", SECRET), Got::In);
    lab.pass(600);
    assert_eq!(lab.log_in(1, "user11", "123456"), Got::Wrong(1));
}

#[test]
fn no_server_sees_what_fail2ban_or_stalwart_would_ban() {
    let mut lab = Lab::new();
    let mut failed: Vec<Instant> = Vec::new();
    for n in 0..30_000_u16 {
        lab.pass(7);
        if let Got::Wrong(_) = lab.log_in(n, &format!("user{}", n % 997), &format!("guess{n}")) {
            failed.push(lab.now);
        }
    }
    assert_eq!((most_within(600, &failed), most_within(24 * 3600, &failed)), (4, 90));
}

/// The most of them within so many seconds.
fn most_within(time: u64, moments: &[Instant]) -> usize {
    let in_time = |from: &Instant| {
        moments
            .iter()
            .filter(|at| **at >= *from && **at - *from < Duration::from_secs(time))
            .count()
    };
    moments.iter().map(in_time).max().unwrap_or_default()
}

#[test]
fn strangers_use_up_half_and_all_together_no_more_than_the_server_takes() {
    let mut lab = Lab::new();
    // Forty people have logged in, each from a network of their own.
    for n in 0..40 {
        assert_eq!(lab.log_in(60_000 + 1 - n * 256, &format!("known{n}"), SECRET), Got::In);
    }
    lab.pass(600);
    let (mut strangers, mut all): (Vec<Instant>, Vec<Instant>) = (Vec::new(), Vec::new());
    for n in 0..30_000_u16 {
        lab.pass(7);
        let stranger = n % 2 == 0;
        // The others know the names, and sit in the networks of their owners.
        let (address, user) = match stranger {
            true => (n, format!("user{}", n % 997)),
            false => (60_000 + 2 - (n % 40) * 256, format!("known{}", n % 40)),
        };
        if let Got::Wrong(_) = lab.log_in(address, &user, &format!("guess{n}")) {
            all.push(lab.now);
            strangers.extend(stranger.then_some(lab.now));
        }
        // The server's users come and go all the time.
        assert!(n % 100 != 0 || lab.log_in(60_001, "known0", SECRET) == Got::In);
    }
    let most = |moments: &[Instant]| (most_within(600, moments), most_within(24 * 3600, moments));
    assert_eq!(most(&all), (4, 90));
    assert!(most(&strangers).0 <= 2 && most(&strangers).1 <= 45, "{:?}", most(&strangers));
}

#[test]
fn logins_at_once_are_counted_as_if_they_failed() {
    let mut lab = Lab::new();
    let tries: Vec<Try> =
        (0..5).map(|n| attempt("mail:993", n, &format!("user{n}"), "x")).collect();
    for login in &tries[..4] {
        assert_eq!(lab.logins.judge(login, lab.now), LoginDecision::Pass { known: false });
    }
    assert_eq!(lab.logins.judge(&tries[4], lab.now), LoginDecision::Wait);
    assert_eq!(lab.logins.done(&tries[0], false, None, LoginOutcome::Accepted, lab.now), None);
    assert_eq!(lab.logins.judge(&tries[4], lab.now), LoginDecision::Pass { known: false });
    for login in &tries[1..] {
        assert!(lab.logins.done(login, false, None, LoginOutcome::Refused, lab.now).is_some());
    }
    assert_eq!(lab.log_in(9, "user9", SECRET), Got::NotAsked);
    assert_eq!(lab.log_in(9, "user0", "y"), Got::NotAsked);
}

#[test]
fn outage_is_no_failed_login() {
    let mut lab = Lab::new();
    for n in 0..100 {
        let login = attempt("mail:993", 1, "alice", &n.to_string());
        assert_eq!(lab.logins.judge(&login, lab.now), LoginDecision::Pass { known: false });
        assert_eq!(lab.logins.done(&login, false, None, LoginOutcome::Nothing, lab.now), None);
    }
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In);
    // A bare NO to what was right before is an outage too.
    let right = attempt("mail:993", 1, "alice", SECRET);
    for _ in 0..100 {
        assert_eq!(lab.logins.judge(&right, lab.now), LoginDecision::Pass { known: true });
        assert_eq!(lab.logins.done(&right, true, None, LoginOutcome::Unclear, lab.now), None);
    }
    // To what was never right it may be a wrong password.
    let unknown = attempt("mail:993", 1, "alice", "?");
    assert_eq!(lab.logins.judge(&unknown, lab.now), LoginDecision::Pass { known: false });
    assert!(lab.logins.done(&unknown, false, None, LoginOutcome::Unclear, lab.now).is_some());
}

#[test]
fn password_that_was_changed_is_known_no_more() {
    let mut lab = Lab::new();
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In);
    let old = attempt("mail:993", 1, "alice", SECRET);
    assert_eq!(lab.logins.judge(&old, lab.now), LoginDecision::Pass { known: true });
    assert!(lab.logins.done(&old, true, None, LoginOutcome::Refused, lab.now).is_some());
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::Again);
    lab.pass(600);
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In);
}

#[test]
fn memory_filled_by_strangers_is_bounded() {
    let mut lab = Lab::new();
    for n in 0..30_000_u32 {
        let address = u16::try_from(n % 65_536).unwrap();
        lab.log_in_at(&format!("mail{n}:993"), address, &format!("user{n}"), "x");
        lab.log_in_at(&format!("mail{n}:993"), address, &format!("owner{n}"), SECRET);
        let invented = attempt("mail:993", address, "x", "y");
        lab.logins.invented(&invented, lab.now);
    }
    let logins = &lab.logins;
    let lengths = [
        logins.addresses.len(),
        logins.accounts.len(),
        logins.upstreams.len(),
        logins.refused.len(),
        logins.accepted.len(),
        logins.invented.len(),
    ];
    assert!(lengths.iter().all(|length| *length <= CAPACITY), "{lengths:?}");
    assert!(logins.known.len() <= 2 * 40_000 && logins.under_way.0.is_empty());
    assert!(lab.logins.take_changes(lab.now).used.len() <= 4096);
}

#[test]
fn longer_memory_counts_from_the_reload_on() {
    let mut lab = Lab::new();
    lab.logins
        .set_limits(FailedLogins { within: Duration::from_secs(3600), ..FailedLogins::default() });
    for n in 0..3 {
        assert!(matches!(lab.log_in(n, "alice", &format!("guess{n}")), Got::Wrong(_)));
    }
    lab.pass(1800);
    assert_eq!(lab.log_in(9, "alice", "guess9"), Got::NotAsked);
    assert_eq!(lab.log_in(0, "alice", "guess0"), Got::Again);
}

/// An attack at the attacker's own servers, repeated many times, to displace others' entries.
fn flood(lab: &mut Lab, of: impl Fn(u16) -> Try, outcome: LoginOutcome) {
    for n in 0..20_500 {
        let login = of(n);
        if let LoginDecision::Pass { known } = lab.logins.judge(&login, lab.now) {
            lab.logins.done(&login, known, None, outcome, lab.now);
        }
    }
}

#[test]
fn no_flood_makes_the_guard_forget_counts_and_known_credentials_of_others() {
    let own_server = |n: u16| open_attempt("evil:993", 200, &format!("x{n}"), "x");
    let from_everywhere = |n: u16| open_attempt("evil:993", n, &format!("x{n}"), "x");
    let own_servers =
        |n: u16| open_attempt(&format!("evil{n}:993"), 200 + n % 256, &format!("x{n}"), "x");
    let everything = |n: u16| open_attempt(&format!("evil{n}:993"), n, &format!("x{n}"), "x");
    for outcome in
        [LoginOutcome::Nothing, LoginOutcome::Broken, LoginOutcome::Refused, LoginOutcome::Accepted]
    {
        for (number, of) in
            [own_server, from_everywhere, own_servers, everything].into_iter().enumerate()
        {
            let mut lab = Lab::new();
            let victim =
                |address, password: &str| open_attempt("mail:993", address, "alice", password);
            assert_eq!(lab.try_it(&victim(50_000, SECRET), SECRET), Got::In);
            for n in 0..3 {
                let guess = format!("guess{n}");
                assert!(matches!(lab.try_it(&victim(51_000, &guess), &guess), Got::Wrong(_)));
            }
            flood(&mut lab, of, outcome);
            let told = format!("{outcome:?}, flood {number}");
            assert_eq!(lab.try_it(&victim(51_000, "guess9"), "guess9"), Got::NotAsked, "{told}");
            assert_eq!(lab.try_it(&victim(50_000, SECRET), SECRET), Got::In, "{told}");
            assert_eq!(
                lab.try_it(&victim(52_000, SECRET), SECRET),
                Got::In,
                "from elsewhere: {told}"
            );
        }
    }
}

#[test]
fn nothing_is_entered_before_something_failed() {
    let mut lab = Lab::new();
    for n in 0..100 {
        let login = attempt("mail:993", 1, &format!("user{n}"), "x");
        assert_eq!(lab.logins.judge(&login, lab.now), LoginDecision::Pass { known: false });
        assert_eq!(lab.logins.done(&login, false, None, LoginOutcome::Nothing, lab.now), None);
    }
    let logins = &lab.logins;
    assert_eq!(
        (logins.accounts.len(), logins.upstreams.len(), logins.addresses.len(), logins.known.len()),
        (0, 0, 0, 0)
    );
    assert!(logins.under_way.0.is_empty());
}

#[test]
fn mail_servers_that_one_address_brings_up_are_bounded() {
    let mut lab = Lab::new();
    let at = |n: usize| open_attempt(&format!("evil{n}:993"), 1, "x", SECRET);
    for n in 0..MAX_SERVERS {
        assert_eq!(lab.try_it(&at(n), SECRET), Got::In);
    }
    assert_eq!(lab.try_it(&at(MAX_SERVERS), SECRET), Got::NotAsked);
    assert_eq!(lab.try_it(&at(3), SECRET), Got::In, "a server that it has brought up before");
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In, "a server of the configuration");
    lab.pass(24 * 3600);
    assert_eq!(lab.try_it(&at(MAX_SERVERS), SECRET), Got::In);
}

#[test]
fn broken_connection_counts_unless_the_credentials_are_known() {
    let mut lab = Lab::new();
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In);
    let known = attempt("mail:993", 1, "alice", SECRET);
    for _ in 0..50 {
        assert_eq!(lab.logins.judge(&known, lab.now), LoginDecision::Pass { known: true });
        assert_eq!(lab.logins.done(&known, true, None, LoginOutcome::Broken, lab.now), None);
    }
    for n in 0..4 {
        let login = attempt("mail:993", 2, &format!("user{n}"), "x");
        assert_eq!(lab.logins.judge(&login, lab.now), LoginDecision::Pass { known: false });
        let delay = lab.logins.done(&login, false, None, LoginOutcome::Broken, lab.now);
        assert_eq!(delay, Some(Duration::from_secs(1 << n)));
    }
    assert_eq!(lab.log_in(2, "user9", "x"), Got::NotAsked);
}

/// Strangers, each from a network of their own, until no more are let through.
fn use_up(lab: &mut Lab) -> usize {
    let guess = |lab: &mut Lab, n: u16| lab.log_in(20_000 + n * 256, &format!("stranger{n}"), "x");
    (0..20).filter(|n| matches!(guess(lab, *n), Got::Wrong(_))).count()
}

#[test]
fn known_login_gets_in_after_a_restart_although_strangers_used_up_their_part() {
    let mut before = Lab::new();
    assert_eq!(before.log_in(1, "alice", SECRET), Got::In);
    let known = before.logins.take_changes(before.now);
    assert!(before.logins.take_changes(before.now).used.is_empty(), "written once");
    let restarted = || {
        let mut lab = Lab::new();
        lab.logins.restore(&known.used, lab.now);
        assert_eq!(use_up(&mut lab), 2);
        lab
    };
    assert_eq!(restarted().log_in(40_000, "alice", SECRET), Got::In, "her name, from the train");
    assert_eq!(restarted().log_in(1, "bob", SECRET), Got::In, "another name, in her network");
    assert_eq!(restarted().log_in(40_000, "bob", SECRET), Got::NotAsked, "a stranger");
    let mut registered = attempt("mail:993", 40_000, "carol", SECRET);
    registered.registered = true;
    assert_eq!(restarted().try_it(&registered, SECRET), Got::In, "an account with a token");

    // A name that is known gives no more tries than before, and one of what is reserved in ten minutes.
    let mut lab = restarted();
    let tries = (0..30_u16).filter(|n| {
        matches!(lab.log_in(41_000 + n * 256, "alice", &format!("g{n}")), Got::Wrong(_))
    });
    assert_eq!(tries.count(), 1);
    // So does a network: neither its names nor its addresses add up.
    let mut lab = restarted();
    let tries = (0..30_u16)
        .filter(|n| matches!(lab.log_in(1, &format!("x{n}"), &format!("g{n}")), Got::Wrong(_)));
    assert_eq!(tries.count(), 1);
    assert_eq!(lab.log_in(40_000, "alice", SECRET), Got::In, "the rest is for others");
    // With no failures of others, a name is guessed at three times, as ever.
    let mut lab = Lab::new();
    lab.logins.restore(&known.used, lab.now);
    let tries = (0..30_u16).filter(|n| {
        matches!(lab.log_in(41_000 + n * 256, "alice", &format!("g{n}")), Got::Wrong(_))
    });
    assert_eq!(tries.count(), 3);
}

#[test]
fn known_names_expire() {
    let mut lab = Lab::new();
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In);
    let mut known = lab.logins.take_changes(lab.now).used;
    let knows = |entries: &[KnownEntry]| {
        let mut lab = Lab::new();
        lab.logins.restore(entries, lab.now);
        let login = attempt("mail:993", 9, "alice", SECRET);
        lab.logins.is_known_name(&login, lab.now)
    };
    assert!(knows(&known));
    known.iter_mut().for_each(|entry| entry.age = Duration::from_secs(91 * 24 * 3600));
    assert!(!knows(&known));
}

#[test]
fn refused_phone_that_repeats_its_password_does_not_lock_its_network() {
    let mut lab = Lab::new();
    for n in 0..4 {
        assert!(matches!(
            lab.log_in(20_000 + n * 256, &format!("stranger{n}"), "x"),
            Got::Wrong(_)
        ));
    }
    // Each minute, as the app does.
    for _ in 0..9 {
        assert_eq!(lab.log_in(1, "alice", SECRET), Got::NotAsked);
        assert_eq!(lab.log_in(1, "bob", SECRET), Got::NotAsked);
        lab.pass(60);
    }
    lab.pass(60);
    assert_eq!((lab.log_in(1, "alice", SECRET), lab.log_in(1, "bob", SECRET)), (Got::In, Got::In));
}

#[test]
fn refusal_gives_the_true_waiting_time() {
    let mut lab = Lab::new();
    let blocked = |lab: &mut Lab, login: &Try| match lab.logins.judge(login, lab.now) {
        LoginDecision::Refuse { blocked, .. } => (blocked.limit, blocked.wait.as_secs()),
        other => panic!("{other:?}"),
    };
    for n in 0..4 {
        assert!(matches!(
            lab.log_in(20_000 + n * 256, &format!("stranger{n}"), "x"),
            Got::Wrong(_)
        ));
        lab.pass(30);
    }
    let login = attempt("mail:993", 1, "alice", SECRET);
    assert_eq!(blocked(&mut lab, &login), (LoginLimit::Upstream, 480));
    let strain = lab.logins.strain(login.keys.upstream, lab.now).unwrap();
    assert_eq!((strain.failed, strain.limit, strain.wait.as_secs()), (4, 4, 480));
    lab.pass(480);
    assert_eq!(lab.logins.strain(login.keys.upstream, lab.now), None);
    // The limit of the day.
    let mut failed = 4;
    while failed < 90 {
        lab.pass(151);
        failed += u16::from(matches!(
            lab.log_in(failed * 256, &format!("u{failed}"), "x"),
            Got::Wrong(_)
        ));
    }
    lab.pass(600);
    let (limit, wait) = blocked(&mut lab, &login);
    assert!(limit == LoginLimit::Upstream && wait > 3600, "{wait}");
    lab.pass(wait);
    assert_eq!(lab.try_it(&login, SECRET), Got::In);
}

#[test]
fn invented_names_are_bounded_by_address() {
    let mut lab = Lab::new();
    let login = attempt("mail:993", 1, "ci7x0a9bq", "x");
    for _ in 0..10 {
        assert_eq!(lab.logins.invented(&login, lab.now), None);
        lab.pass(1);
    }
    assert_eq!(lab.logins.invented(&login, lab.now).unwrap().wait, Duration::from_secs(590));
    assert_eq!(lab.logins.invented(&attempt("mail:993", 2, "x", "x"), lab.now), None);
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In, "nothing has failed");
}
