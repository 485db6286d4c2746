//! Logins that wait for each other, and names that are recognized.

use std::collections::HashSet;

use super::*;
use crate::admission::failed_logins::LoginLimit;

fn gate() -> Arc<LoginGate> {
    Arc::new(LoginGate::new(FailedLogins { per_account: 1, ..FailedLogins::default() }).unwrap())
}

fn login(gate: &LoginGate, password: &str) -> Try {
    let account = AccountId::new("alice", "mail:993");
    let stored = Credentials::new("alice", "stored");
    gate.login(
        Prefix::of([192, 0, 2, 1].into()),
        &account,
        &Credentials::new("alice", password),
        Some(&stored),
    )
}

#[tokio::test(start_paused = true)]
async fn waiter_goes_on_however_the_one_before_ended() {
    let gate = gate();
    let first = gate.enter(login(&gate, "a")).await.unwrap();
    let second = gate.enter(login(&gate, "b"));
    let mut second = std::pin::pin!(second);
    assert!(timeout(Duration::from_secs(9), second.as_mut()).await.is_err());
    assert_eq!(first.done(LoginOutcome::Nothing), None);
    let second = second.await.unwrap();
    let third = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move { gate.enter(login(&gate, "c")).await.map(drop) }
    });
    tokio::task::yield_now().await;
    drop(second);
    let refused = third.await.unwrap().unwrap_err();
    assert!(
        matches!(refused.reason, DenialReason::Limit(Blocked { limit: LoginLimit::Account, .. }))
            && refused.counted
    );
    tokio::time::advance(Duration::from_secs(600)).await;
    let again = gate.enter(login(&gate, "b")).await.unwrap();
    assert_eq!(again.done(LoginOutcome::Refused), Some(Duration::from_secs(1)));
    let repeated = gate.enter(login(&gate, "b")).await.unwrap_err();
    assert_eq!(repeated.reason, DenialReason::Repeated(Duration::from_secs(600)));
    assert!(gate.enter(login(&gate, "stored")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn names_of_one_server_share_what_may_fail_there() {
    let gate = Arc::new(
        LoginGate::new(FailedLogins { per_upstream: 2, ..FailedLogins::default() }).unwrap(),
    );
    let enter = async |n: u8, address: u8| {
        let account = AccountId::new("alice", &format!("mail{n}:993"));
        let login = gate.login(
            Prefix::of([192, 0, 2, n].into()),
            &account,
            &Credentials::new("alice", "x"),
            None,
        );
        let pass = gate.enter(login).await.unwrap();
        let permitted = pass.ask([203, 0, 113, address].into()).await;
        (pass, permitted)
    };
    let ((first, _), (second, is_in)) = (enter(1, 1).await, enter(2, 1).await);
    assert!(is_in);
    let (third, is_in) = enter(3, 1).await;
    assert!(!is_in, "two are under way, and both may fail");
    assert_eq!(third.turned_away(), None);
    // Another address of the server's, because this one was of no use, makes room.
    assert!(first.ask([203, 0, 113, 2].into()).await && enter(4, 1).await.1);
    assert_eq!(first.done(LoginOutcome::Nothing), None);
    assert!(second.done(LoginOutcome::Refused).is_some());
    // The one before was dropped half way, and counts.
    let (fifth, is_in) = enter(5, 1).await;
    assert!(!is_in);
    let refusal = fifth.turned_away().unwrap();
    assert!(
        refusal.counted
            && matches!(
                refusal.reason,
                DenialReason::Limit(Blocked { limit: LoginLimit::Upstream, .. })
            )
    );
    assert!(enter(6, 2).await.1, "nothing has failed there");
    tokio::time::advance(Duration::from_secs(600)).await;
    assert!(enter(7, 1).await.1);
}

#[test]
fn one_password_has_one_count_however_it_is_asked_for() {
    let gate = gate();
    let counted = |given: Credentials| {
        let account = AccountId::of(&given, "mail:993");
        let login = gate.login(Prefix::of([192, 0, 2, 1].into()), &account, &given, None);
        (login.keys.account, login.digest)
    };
    let plain = counted(Credentials::new("alice", "x"));
    let other = counted(Credentials::new("alice", "x").on_behalf_of("bob".into()));
    assert_eq!(plain.0, other.0, "in the name of as many others as one likes");
    assert_ne!(plain.1, other.1, "who may log in for oneself may not do it for others");
    assert_eq!(plain.0, counted(Credentials::new("ALICE", "x")).0);
    assert_ne!(plain.0, counted(Credentials::new("bob", "x").on_behalf_of("alice".into())).0);
}

#[test]
fn brief_gate_keeps_too_little_to_find_a_password_by() {
    let gate = Arc::new(LoginGate::new(FailedLogins::default()).unwrap().brief());
    let digest = |password: &str| login(&gate, password).digest.unwrap();
    assert_eq!(digest("a"), digest("a"));
    let digests: HashSet<CredentialDigest> = (0..100).map(|n| digest(&n.to_string())).collect();
    assert!(digests.len() > 90, "{} of 100 are told apart", digests.len());
    assert!(digests.iter().all(|digest| digest[2..] == CredentialDigest::default()[2..]));
}

#[test]
fn credentials_are_told_apart_without_being_kept() {
    let gate = gate();
    let other = Arc::new(LoginGate::new(FailedLogins::default()).unwrap());
    assert_eq!(login(&gate, "a").digest, login(&gate, "a").digest);
    assert_ne!(login(&gate, "a").digest, login(&gate, "b").digest);
    assert_ne!(
        login(&gate, "a").digest,
        login(&other, "a").digest,
        "each process has a key of its own"
    );
    assert!(login(&gate, "stored").stored && !login(&gate, "Stored").stored);
}

/// A login with this name.
fn invented(gate: &LoginGate, user: &str) -> Try {
    let account = AccountId::new(user, "mail:993");
    gate.login(Prefix::of([192, 0, 2, 1].into()), &account, &Credentials::new(user, "x"), None)
}

#[tokio::test]
async fn invented_names_are_refused_at_a_server_that_makes_no_accounts() {
    let gate = Arc::new(LoginGate::new(FailedLogins::default()).unwrap());
    let (stranger, real) = (invented(&gate, "k3v9x0a2b@x"), invented(&gate, "real00000@x"));
    let accept = async |login: Try, makes_accounts: bool| {
        let pass = gate.enter(login).await.unwrap();
        pass.note_server(makes_accounts);
        assert_eq!(pass.done(LoginOutcome::Accepted), None);
    };
    assert_eq!(gate.refuse_invented(&stranger), None, "nobody knows what this server is");
    accept(real, true).await;
    assert_eq!(gate.refuse_invented(&stranger), None, "a relay");
    accept(real, false).await;
    assert_eq!(gate.refuse_invented(&stranger), Some(Invented::AtOnce));
    assert_eq!(gate.refuse_invented(&real), None, "it was accepted");
    assert_eq!(gate.refuse_invented(&stranger.registered(true)), None, "it has a token");
    accept(real, true).await;
    assert_eq!(gate.refuse_invented(&stranger), None, "it has become a relay");
}

#[tokio::test]
async fn known_names_come_back_with_the_key_of_the_state_only() {
    let (key, other) = (Secret::new(vec![1; 32]), Secret::new(vec![2; 32]));
    let gate = |key: &Secret, entries: &[KnownEntry]| {
        Arc::new(LoginGate::new(FailedLogins::default()).unwrap().restored(key, entries))
    };
    let before = gate(&key, &[]);
    let pass = before.enter(invented(&before, "real00000@x")).await.unwrap();
    pass.note_server(false);
    assert_eq!(pass.done(LoginOutcome::Accepted), None);
    let entries = before.take_changes().used;
    let (after, stranger) = (gate(&key, &entries), gate(&other, &entries));
    let knows = |gate: &LoginGate| {
        gate.logins().is_known_name(&invented(gate, "real00000@x"), Instant::now().into_std())
    };
    assert!(knows(&after) && !knows(&stranger));
    assert_eq!(after.refuse_invented(&invented(&after, "k3v9x0a2b@x")), Some(Invented::AtOnce));
}
