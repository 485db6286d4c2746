//! Phones that repeat the same credentials for days, in a time of the tests' own.

use super::tests::{Got, Lab, SECRET, attempt};
use super::*;

const MINUTE: u64 = 60;
const DAY_OF_MINUTES: u64 = 24 * 60;

/// A login every minute whose outcome at the server is this, if the server is asked.
fn tries(lab: &mut Lab, login: &Try, outcome: LoginOutcome) -> bool {
    match lab.logins.judge(login, lab.now) {
        LoginDecision::Pass { known } => {
            lab.logins.done(login, known, None, outcome, lab.now);
            true
        }
        LoginDecision::Wait => panic!("nothing is under way"),
        LoginDecision::Repeated { .. } | LoginDecision::Refuse { .. } => false,
    }
}

/// Number of questions to the server about an old password on each of three days, while others log in at this interval in minutes.
fn failures_a_day(outcome: LoginOutcome, others: Option<u64>) -> Vec<usize> {
    let mut lab = Lab::new();
    let mut days = vec![0; 3];
    let phone = attempt("mail:993", 1, "alice", "last year's");
    for minute in 0..3 * DAY_OF_MINUTES {
        lab.pass(MINUTE);
        if others.is_some_and(|every| minute % every == 0) {
            assert_eq!(lab.log_in(2, "bob", SECRET), Got::In);
        }
        let day = usize::try_from(minute / DAY_OF_MINUTES).unwrap();
        days[day] += usize::from(tries(&mut lab, &phone, outcome));
    }
    days
}

#[test]
fn phone_with_an_old_password_fails_some_ten_times_a_day() {
    for others in [1, 7, 60] {
        let days = failures_a_day(LoginOutcome::Refused, Some(others));
        assert!(days[0] <= 16 && days[1..].iter().all(|day| *day <= 7), "{others}: {days:?}");
    }
    // Nobody else shows that the server is well.
    let alone = failures_a_day(LoginOutcome::Refused, None);
    assert!(alone[0] <= 16 && alone[1..].iter().all(|day| *day <= 7), "{alone:?}");
    for others in [Some(1), Some(60), None] {
        let bare = failures_a_day(LoginOutcome::Unclear, others);
        assert!(
            bare[0] <= 30 && bare[1..].iter().all(|day| *day <= 7),
            "a bare NO, {others:?}: {bare:?}"
        );
    }
}

#[test]
fn phones_with_old_passwords_leave_the_servers_limit_to_others() {
    let mut lab = Lab::new();
    let mut waiting = None;
    for minute in 0..3 * DAY_OF_MINUTES {
        lab.pass(MINUTE);
        for phone in 0..2 {
            lab.log_in(10 + phone, &format!("user{phone}"), "last year's");
        }
        // From a network and with a name that the server has never accepted.
        if minute % 240 == 60 {
            waiting = Some(minute);
        }
        if let Some(since) = waiting {
            let newcomer = u16::try_from(since / 240).unwrap();
            match lab.log_in(1000 + newcomer, &format!("newcomer{newcomer}"), SECRET) {
                Got::In => waiting = None,
                got => assert!(minute - since < 15, "{got:?} from {since} to {minute}"),
            }
        }
    }
}

#[test]
fn corrected_password_is_tried_at_once() {
    let mut lab = Lab::new();
    for _ in 0..DAY_OF_MINUTES {
        lab.pass(MINUTE);
        lab.log_in(1, "alice", "last year's");
        lab.log_in(2, "bob", SECRET);
    }
    assert_eq!(lab.log_in(1, "alice", SECRET), Got::In);
    assert_eq!(lab.log_in(1, "alice", "last year's"), Got::Again);
}

/// The server refuses everybody for two hours, as if all passwords were wrong. Phones try once a minute. Returns how long after the end
/// of that each of them gets in, in minutes.
fn after_an_outage(phones: u16) -> Vec<u64> {
    let mut lab = Lab::new();
    let logins: Vec<Try> =
        (0..phones).map(|n| attempt("mail:993", n, &format!("user{n}"), SECRET)).collect();
    for login in &logins {
        assert!(tries(&mut lab, login, LoginOutcome::Accepted));
    }
    let mut waits = vec![None; logins.len()];
    for minute in 0..4 * 60 {
        lab.pass(MINUTE);
        for (login, wait) in logins.iter().zip(&mut waits).filter(|(_, wait)| wait.is_none()) {
            let outcome = if minute < 120 { LoginOutcome::Refused } else { LoginOutcome::Accepted };
            if tries(&mut lab, login, outcome) && outcome == LoginOutcome::Accepted {
                *wait = Some(minute - 120);
            }
        }
    }
    waits.into_iter().map(Option::unwrap).collect()
}

#[test]
fn outage_that_looks_like_wrong_passwords_makes_nobody_wait_for_hours() {
    let alone = after_an_outage(1);
    assert!(alone[0] <= 40, "{alone:?}");
    // The first that is tried again shows that the server is well. The server's limit lets some more wait.
    let several = after_an_outage(3);
    assert!(several.iter().all(|wait| *wait <= 40), "{several:?}");
    println!("minutes after the outage: {alone:?}, {several:?}");
}

#[test]
fn waits_double_to_four_hours_and_are_forgotten_after_a_day() {
    let mut lab = Lab::new();
    let phone = attempt("mail:993", 1, "alice", "last year's");
    let (mut asked, mut since, mut waits) = (0, 0, Vec::new());
    while asked < 8 {
        assert_eq!(lab.log_in(2, "bob", SECRET), Got::In);
        lab.pass(MINUTE);
        since += 1;
        if tries(&mut lab, &phone, LoginOutcome::Refused) {
            asked += 1;
            waits.push(std::mem::take(&mut since));
        }
    }
    assert_eq!(waits[1..], [10, 20, 40, 80, 160, 240, 240]);
    lab.pass(25 * 3600);
    assert!(tries(&mut lab, &phone, LoginOutcome::Refused));
    let LoginDecision::Repeated { wait, .. } = lab.logins.judge(&phone, lab.now) else {
        panic!("asked again at once")
    };
    assert_eq!(wait, Duration::from_secs(600));
}
