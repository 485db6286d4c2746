//! Attackers and owners, in a time of the tests' own.

use super::*;

/// A clock and what it is about.
struct Lab {
    logins: Logins,
    now: Instant,
}

/// What a login came to.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    In,
    /// The upstream was asked and said no; the answer waits so many seconds.
    Wrong(u64),
    /// The upstream was not asked.
    NotAsked,
    /// A repetition, answered from memory.
    Again,
}

const SECRET: &str = "right";

impl Lab {
    fn new() -> Self {
        Self { logins: Logins::new(FailedLogins::default()), now: Instant::now() }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// A login at a server on which every password but `right` is wrong.
    fn log_in(&mut self, address: u16, user: &str, password: &str) -> Got {
        self.log_in_at("mail:993", address, user, password)
    }

    fn log_in_at(&mut self, upstream: &str, address: u16, user: &str, password: &str) -> Got {
        let login = attempt(upstream, address, user, password);
        match self.logins.judge(&login, self.now) {
            Verdict::Pass { known } => {
                let outcome = if password == SECRET { Outcome::Accepted } else { Outcome::Refused };
                match self.logins.done(&login, known, None, outcome, self.now) {
                    None => Got::In,
                    Some(delay) => Got::Wrong(delay.as_secs()),
                }
            }
            Verdict::Refuse { .. } => Got::NotAsked,
            Verdict::Repeated(_) => Got::Again,
            Verdict::Wait => panic!("nothing is under way"),
        }
    }
}

fn attempt(upstream: &str, address: u16, user: &str, password: &str) -> Try {
    let [high, low] = address.to_be_bytes();
    let mut digest = Digest::default();
    let named = format!("{user} {password}");
    digest.iter_mut().zip(named.bytes()).for_each(|(to, from)| *to = from);
    Try {
        prefix: Prefix::of([10, 0, high, low].into()),
        account: AccountId::new(user, upstream),
        digest: Some(digest),
        stored: false,
    }
}

#[test]
fn a_person_who_mistypes_gets_in() {
    let mut lab = Lab::new();
    assert_eq!(lab.log_in(1, "alice", "rihgt"), Got::Wrong(1));
    assert_eq!(lab.log_in(1, "alice", "rihgt"), Got::Again, "the phone tries once more by itself");
    assert_eq!(lab.log_in(2, "alice", "irght"), Got::Wrong(2), "on the other phone");
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In);
    assert_eq!(lab.log_in(2, "alice", SECRET), Got::In);
}

#[test]
fn one_account_is_guessed_at_from_many_addresses() {
    let mut lab = Lab::new();
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In);
    let mut asked = 0;
    for n in 0..10_000 {
        lab.pass(1);
        asked += usize::from(matches!(lab.log_in(100 + n % 5000, "alice", &format!("guess{n}")), Got::Wrong(_)));
    }
    // 10,000 seconds are 17 times ten minutes.
    assert!((3..=17 * 3).contains(&asked), "{asked}");
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In, "the owner, at home");
    assert_eq!(lab.log_in(9999, "alice", SECRET), Got::NotAsked, "this could be one more guess");
    lab.pass(600);
    assert_eq!(lab.log_in(9999, "alice", SECRET), Got::In);
}

#[test]
fn the_owner_gets_in_from_anywhere_while_few_guess() {
    let mut lab = Lab::new();
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In);
    for n in 0..50 {
        lab.log_in(100 + n, "alice", &format!("guess{n}"));
    }
    assert_eq!(lab.log_in(2, "alice", SECRET), Got::In, "from the train");
    let mut stored = attempt("mail:993", 3, "alice", "another password that a watch knows");
    assert_eq!(lab.logins.judge(&stored, lab.now), Verdict::Refuse { delay: Duration::from_secs(4), counted: true });
    stored.stored = true;
    assert_eq!(lab.logins.judge(&stored, lab.now), Verdict::Pass { known: true });
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
        // Others of the server's users come and go all the time.
        assert!(n % 100 != 0 || lab.log_in(60_000, "bob", SECRET) == Got::In || n == 0);
    }
    let within = |time: u64| {
        let in_time = |from: &Instant| {
            failed.iter().filter(|at| **at >= *from && **at - *from < Duration::from_secs(time)).count()
        };
        failed.iter().map(in_time).max().unwrap()
    };
    assert_eq!((within(600), within(24 * 3600)), (4, 90));
}

#[test]
fn logins_at_once_are_counted_as_if_they_failed() {
    let mut lab = Lab::new();
    let tries: Vec<Try> = (0..5).map(|n| attempt("mail:993", n, &format!("user{n}"), "x")).collect();
    for login in &tries[..4] {
        assert_eq!(lab.logins.judge(login, lab.now), Verdict::Pass { known: false });
    }
    assert_eq!(lab.logins.judge(&tries[4], lab.now), Verdict::Wait);
    assert_eq!(lab.logins.done(&tries[0], false, None, Outcome::Accepted, lab.now), None);
    assert_eq!(lab.logins.judge(&tries[4], lab.now), Verdict::Pass { known: false });
    for login in &tries[1..] {
        assert!(lab.logins.done(login, false, None, Outcome::Refused, lab.now).is_some());
    }
    assert_eq!(lab.log_in(9, "user9", SECRET), Got::NotAsked);
    assert_eq!(lab.log_in(9, "user0", "y"), Got::NotAsked);
}

#[test]
fn an_outage_is_no_failed_login() {
    let mut lab = Lab::new();
    for n in 0..100 {
        let login = attempt("mail:993", 1, "alice", &n.to_string());
        assert_eq!(lab.logins.judge(&login, lab.now), Verdict::Pass { known: false });
        assert_eq!(lab.logins.done(&login, false, None, Outcome::Nothing, lab.now), None);
    }
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In);
    // A bare NO to what was right before is an outage too.
    let right = attempt("mail:993", 1, "alice", SECRET);
    for _ in 0..100 {
        assert_eq!(lab.logins.judge(&right, lab.now), Verdict::Pass { known: true });
        assert_eq!(lab.logins.done(&right, true, None, Outcome::Unclear, lab.now), None);
    }
    // To what was never right it may be a wrong password.
    let unknown = attempt("mail:993", 1, "alice", "?");
    assert_eq!(lab.logins.judge(&unknown, lab.now), Verdict::Pass { known: false });
    assert!(lab.logins.done(&unknown, false, None, Outcome::Unclear, lab.now).is_some());
}

#[test]
fn a_password_that_was_changed_is_known_no_more() {
    let mut lab = Lab::new();
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In);
    let old = attempt("mail:993", 1, "alice", SECRET);
    assert_eq!(lab.logins.judge(&old, lab.now), Verdict::Pass { known: true });
    assert!(lab.logins.done(&old, true, None, Outcome::Refused, lab.now).is_some());
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::Again);
    lab.pass(600);
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In);
}

#[test]
fn what_strangers_make_it_remember_is_bounded() {
    let mut lab = Lab::new();
    for n in 0..30_000_u32 {
        let address = u16::try_from(n % 65_536).unwrap();
        lab.log_in_at(&format!("mail{n}:993"), address, &format!("user{n}"), "x");
    }
    let logins = &lab.logins;
    let lengths = [logins.addresses.len(), logins.accounts.len(), logins.upstreams.len(), logins.refused.len()];
    assert!(lengths.iter().all(|length| *length <= CAPACITY), "{lengths:?}");
}

#[test]
fn a_longer_memory_counts_from_the_reload_on() {
    let mut lab = Lab::new();
    lab.logins.set_limits(FailedLogins { within: Duration::from_secs(3600), ..FailedLogins::default() });
    for n in 0..3 {
        assert!(matches!(lab.log_in(n, "alice", &format!("guess{n}")), Got::Wrong(_)));
    }
    lab.pass(1800);
    assert_eq!(lab.log_in(9, "alice", "guess9"), Got::NotAsked);
    assert_eq!(lab.log_in(0, "alice", "guess0"), Got::Again);
}
