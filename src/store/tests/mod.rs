//! The store as its callers see it, and the files as a thief does.

mod credentials;
mod disk;
mod home;
mod server_news;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::credentials::Credentials;
use crate::secret::DeviceToken;
use home::{Home, in_both};

const NOW: UnixTime = UnixTime(1_700_000_000);
const MOMENT: DualTime = DualTime { wall: NOW, served: Uptime(0) };
const POSITION: Position = at(42);

/// A position up to which nothing has been looked through yet.
const fn at(uid_next: u64) -> Position {
    Position { uid_validity: 7, uid_next }
}

type Changes = Arc<Mutex<Vec<Change>>>;

fn settings(directory: &Path) -> StoreSettings {
    StoreSettings::sealed(directory.join("state"))
}

fn open(directory: &Path) -> (Store, Loaded, Changes) {
    let changes = Changes::default();
    let seen = Arc::clone(&changes);
    let (store, loaded) =
        Store::open(&settings(directory), move |change| seen.lock().unwrap().push(change)).unwrap();
    (store, loaded, changes)
}

fn account(user: &str) -> AccountId {
    AccountId::new(user, "imap.example.org:993")
}

fn credentials(user: &str) -> Arc<Credentials> {
    Arc::new(Credentials::new(user, format!("sesame-of-{user}")))
}

fn token(name: &str) -> DeviceToken {
    DeviceToken::new(format!("openpgp:{name}").as_bytes()).unwrap()
}

async fn register(store: &Store, user: &str, name: &str) {
    store
        .commit(change::register(
            &account(user),
            Some(credentials(user)),
            &token(name),
            true,
            MOMENT,
        ))
        .await
        .unwrap();
}

/// The content of the disk if the process were killed now.
fn killed(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("state")).unwrap();
    for entry in fs::read_dir(directory.join("state")).unwrap() {
        let entry = entry.unwrap();
        // The shared memory of the journal is the process's own and not to be relied on.
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            fs::copy(entry.path(), copy.path().join("state").join(entry.file_name())).unwrap();
        }
    }
    copy
}

fn holds(directory: &Path, needle: &[u8]) -> bool {
    fs::read_dir(directory.join("state")).unwrap().any(|entry| {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

in_both!(acknowledged_changes_survive_a_kill);
async fn acknowledged_changes_survive_a_kill(home: &Home) {
    let (store, loaded, _) = home.open().await;
    assert!(loaded.login_key.is_some());
    assert_eq!(Loaded { login_key: None, ..loaded }, Loaded::default());
    register(&store, "alice", "one").await;
    register(&store, "alice", "two").await;
    store
        .commit(change::noticed(&account("alice"), "INBOX", POSITION, Announce::All, NOW))
        .await
        .unwrap();

    let copy = home.killed();
    let (reopened, loaded, _) = copy.open().await;
    let expected = AccountRecord {
        account: account("alice"),
        credentials: Some(credentials("alice")),
        tokens: ["one", "two"]
            .map(|name| StoredToken {
                token: token(name),
                last_seen: NOW,
                habit: FetchHabit::default(),
            })
            .to_vec(),
        idled: vec![],
        called: None,
        is_watched: true,
    };
    assert_eq!(loaded.accounts, [expected]);
    let pending: Vec<_> =
        loaded.unannounced.iter().map(|found| (found.token.clone(), found.since)).collect();
    assert_eq!(pending.len(), 2);
    assert!(pending.contains(&(token("one"), NOW)) && pending.contains(&(token("two"), NOW)));
    assert_eq!(
        reopened.positions(&account("alice")).await.unwrap(),
        [(MailboxName::inbox(), POSITION)]
    );
}

in_both!(known_logins_and_their_key_come_back_until_they_are_old_or_forgotten);
async fn known_logins_and_their_key_come_back_until_they_are_old_or_forgotten(home: &Home) {
    let (store, loaded, _) = home.open().await;
    let (key, day) = (loaded.login_key.unwrap(), 24 * 3600);
    let row = |number: u8, seen: i64| KnownLogin {
        key: [number; 16],
        is_place: number.is_multiple_of(2),
        network: -7,
        upstream: i64::MIN,
        is_open: true,
        seen: UnixTime(seen),
    };
    store
        .commit(change::know_logins(
            vec![row(1, NOW.0), row(2, NOW.0 - day), row(3, NOW.0)],
            vec![],
            NOW,
        ))
        .await
        .unwrap();
    let later = UnixTime(NOW.0 + 90 * day - 1);
    store.commit(change::know_logins(vec![row(1, NOW.0 + day)], vec![[3; 16]], NOW)).await.unwrap();
    store.commit(change::know_logins(vec![row(4, NOW.0 + 2 * day)], vec![], later)).await.unwrap();
    store.close().await;
    let (_, loaded, _) = home.open().await;
    assert_eq!(
        loaded.known_logins,
        [row(1, NOW.0 + day), row(4, NOW.0 + 2 * day)],
        "the oldest first"
    );
    assert_eq!(loaded.login_key, Some(key));
}

in_both!(last_token_takes_the_account_with_it_and_leaves_no_trace);
async fn last_token_takes_the_account_with_it_and_leaves_no_trace(home: &Home) {
    let (store, _, changes) = home.open().await;
    register(&store, "alice", "one").await;
    register(&store, "alice", "two").await;
    store
        .commit(change::noticed(&account("alice"), "INBOX", POSITION, Announce::Nothing, NOW))
        .await
        .unwrap();
    changes.lock().unwrap().clear();
    store.commit(change::remove_token(&account("alice"), &token("one"))).await.unwrap();
    store.commit(change::remove_token(&account("alice"), &token("one"))).await.unwrap();
    store.commit(change::remove_token(&account("alice"), &token("two"))).await.unwrap();
    let left = |names: &[&str]| Change::Tokens {
        account: account("alice"),
        credentials: None,
        tokens: names
            .iter()
            .map(|name| StoredToken {
                token: token(name),
                last_seen: NOW,
                habit: FetchHabit::default(),
            })
            .collect(),
    };
    let gone = |name| Change::Gone { token: token(name) };
    assert_eq!(*changes.lock().unwrap(), [gone("one"), left(&["two"]), gone("two"), left(&[])]);
    for needle in ["alice", "openpgp:one", "INBOX"] {
        assert!(!home.holds(needle.as_bytes()), "{needle} is still there");
    }
    assert_eq!(store.positions(&account("alice")).await.unwrap(), []);
}

in_both!(token_that_is_gone_goes_from_every_account_after_a_day_and_three_answers);
async fn token_that_is_gone_goes_from_every_account_after_a_day_and_three_answers(home: &Home) {
    let (store, _, changes) = home.open().await;
    register(&store, "alice", "shared").await;
    register(&store, "bob", "shared").await;
    register(&store, "bob", "bobs").await;
    store.commit(change::remove_token(&account("bob"), &token("shared"))).await.unwrap();
    assert!(
        !changes.lock().unwrap().contains(&Change::Gone { token: token("shared") }),
        "alice still has it"
    );
    register(&store, "bob", "shared").await;
    register(&store, "carol", "carols").await;
    let gone = |answers, hours: i64| {
        let seconds = 10 + hours * 3600;
        let now = DualTime { wall: UnixTime(seconds), served: Uptime(seconds) };
        let store = store.clone();
        async move {
            store
                .commit(change::quarantined(
                    &token("shared"),
                    answers,
                    UnixTime(seconds + 3600),
                    now,
                ))
                .await
                .unwrap()
        }
    };
    let accepted = |hours: i64| {
        let store = store.clone();
        async move {
            store
                .commit(change::announced(
                    &token("carols"),
                    Generation(0),
                    UnixTime(10 + hours * 3600),
                ))
                .await
                .unwrap()
        }
    };
    accepted(0).await;
    assert!(!gone(1, 0).await && !gone(2, 1).await);
    accepted(2).await;
    assert!(!gone(3, 23).await, "not a day yet");
    assert!(!gone(4, 26).await, "nothing was accepted since the last time");
    let status = store.status().await.unwrap();
    let quarantine =
        QuarantineRecord { answers: 4, since: UnixTime(10), until: UnixTime(10 + 27 * 3600) };
    assert_eq!(status[0].tokens[0].quarantine, Some(quarantine));
    store.close().await;
    let (store, loaded, changes) = home.open().await;
    let record = TokenRecord { accepted: false, quarantine: Some(quarantine) };
    assert!(loaded.tokens.contains(&(token("shared"), record)), "it survives a restart");
    store
        .commit(change::announced(&token("carols"), Generation(0), UnixTime(30 * 3600)))
        .await
        .unwrap();
    let now = DualTime { wall: UnixTime(40 * 3600), served: Uptime(40 * 3600) };
    assert!(
        store
            .commit(change::quarantined(&token("shared"), 5, UnixTime(50 * 3600), now))
            .await
            .unwrap()
    );
    let erased = store.erased(now.wall).await.unwrap();
    assert_eq!(
        erased.iter().map(|erased| erased.account.clone()).collect::<Vec<_>>(),
        [account("alice")]
    );
    assert!(erased[0].reason.contains("410"), "{erased:?}");
    assert_eq!(store.erased(UnixTime(90 * 24 * 3600)).await.unwrap(), [], "not for ever");
    assert!(changes.lock().unwrap().contains(&Change::Gone { token: token("shared") }));
    register(&store, "alice", "another").await;
    assert_eq!(store.erased(now.wall).await.unwrap(), [], "it is back");
    store.commit(change::remove_account(&account("alice"))).await.unwrap();
    assert_eq!(store.erased(now.wall).await.unwrap(), [], "a client's own wish is not kept");
    store.commit(change::remove_account(&account("carol"))).await.unwrap();
    store.close().await;
    let (_, loaded, _) = home.open().await;
    let left: Vec<_> =
        loaded.accounts.iter().map(|record| (&*record.account.user, record.tokens.len())).collect();
    assert_eq!(left, [("bob", 1)]);
}

in_both!(token_in_quarantine_that_another_one_replaces_goes);
/// A device that hands over another token has replaced its old one, if that is certain enough.
async fn token_in_quarantine_that_another_one_replaces_goes(home: &Home) {
    let (store, ..) = home.open().await;
    let at = |seconds| DualTime { wall: UnixTime(seconds), served: Uptime(seconds) };
    let hand_over = |name: &'static str, seconds| {
        let store = store.clone();
        async move {
            store
                .commit(change::register(
                    &account("alice"),
                    Some(credentials("alice")),
                    &token(name),
                    true,
                    at(seconds),
                ))
                .await
                .unwrap();
            let status = store.status().await.unwrap();
            status[0]
                .tokens
                .iter()
                .map(|token| token.quarantine.map(|found| found.until))
                .collect::<Vec<_>>()
        }
    };
    let gone = |name: &'static str, answers, seconds| {
        let store = store.clone();
        async move {
            store
                .commit(change::quarantined(
                    &token(name),
                    answers,
                    UnixTime(seconds + 9_000),
                    at(seconds),
                ))
                .await
                .unwrap()
        }
    };
    hand_over("old", 10).await;
    gone("old", 1, 20).await;
    let until = |seconds| Some(UnixTime(seconds));
    assert_eq!(hand_over("second", 30).await, [until(9_020), None], "one answer is not enough");
    gone("old", 2, 4_000).await;
    assert_eq!(
        hand_over("second", 4_010).await,
        [until(13_000), None],
        "a token that was there before replaces none"
    );
    assert_eq!(hand_over("old", 4_020).await, [until(4_600), None], "the app is there: tried soon");
    assert_eq!(
        hand_over("third", 4_030).await,
        [until(4_600), None, None],
        "it was handed over since"
    );
    for name in ["second", "third"] {
        gone(name, 1, 5_000).await;
        gone(name, 2, 9_000).await;
    }
    assert_eq!(hand_over("fourth", 9_010).await.len(), 4, "it could be any of three");
    store.commit(change::remove_token(&account("alice"), &token("old"))).await.unwrap();
    store.commit(change::remove_token(&account("alice"), &token("third"))).await.unwrap();
    assert_eq!(hand_over("fifth", 9_020).await, [None, None], "the only one: replaced");
}

in_both!(removing_an_account_is_removing_all_its_tokens);
async fn removing_an_account_is_removing_all_its_tokens(home: &Home) {
    let (store, _, changes) = home.open().await;
    register(&store, "alice", "one").await;
    register(&store, "alice", "two").await;
    store.commit(change::remove_account(&account("alice"))).await.unwrap();
    store.commit(change::remove_account(&account("alice"))).await.unwrap();
    let erased = Change::Tokens { account: account("alice"), credentials: None, tokens: vec![] };
    let count = changes.lock().unwrap().iter().filter(|change| **change == erased).count();
    assert_eq!(count, 2, "also if the state does not have it any more, and the memory perhaps has");
}

fn generation(changes: &Changes) -> Generation {
    let changes = changes.lock().unwrap();
    let newest = changes.iter().rev().find_map(|change| match change {
        Change::Pending { generation, .. } => Some(*generation),
        _ => None,
    });
    newest.unwrap()
}

in_both!(pending_is_cleared_only_if_nothing_newer_came);
async fn pending_is_cleared_only_if_nothing_newer_came(home: &Home) {
    let (store, _, changes) = home.open().await;
    let alice = account("alice");
    register(&store, "alice", "one").await;
    store.commit(change::noticed(&alice, "INBOX", POSITION, Announce::All, NOW)).await.unwrap();
    let first = generation(&changes);
    store.commit(change::noticed(&alice, "INBOX", at(43), Announce::All, NOW)).await.unwrap();
    let second = generation(&changes);
    assert!(second > first);
    let pending = async || home.killed().open().await.1.unannounced;

    store.commit(change::announced(&token("one"), first, NOW)).await.unwrap();
    assert_eq!(pending().await[0].generation, second);
    store.commit(change::announced(&token("one"), second, NOW)).await.unwrap();
    assert_eq!(pending().await, []);

    store.commit(change::noticed(&alice, "INBOX", at(43), Announce::Nothing, NOW)).await.unwrap();
    assert_eq!(pending().await, [], "a position alone announces nothing");
    store.commit(change::noticed(&alice, "INBOX", at(44), Announce::All, NOW)).await.unwrap();
    store
        .commit(change::gave_up(&token("one"), generation(&changes), "refused", NOW))
        .await
        .unwrap();
    assert_eq!(pending().await, []);
}

in_both!(generations_go_on_above_what_is_pending_after_a_restart);
async fn generations_go_on_above_what_is_pending_after_a_restart(home: &Home) {
    let (store, _, changes) = home.open().await;
    register(&store, "alice", "one").await;
    for uid_next in 1..6 {
        store
            .commit(change::noticed(&account("alice"), "INBOX", at(uid_next), Announce::All, NOW))
            .await
            .unwrap();
    }
    let before = generation(&changes);
    store.close().await;
    let (store, _, changes) = home.open().await;
    store
        .commit(change::noticed(&account("alice"), "INBOX", at(6), Announce::All, NOW))
        .await
        .unwrap();
    assert!(generation(&changes) > before);
}

in_both!(unknown_capabilities_are_left_alone);
async fn unknown_capabilities_are_left_alone(home: &Home) {
    let (store, _, changes) = home.open().await;
    store
        .commit(change::noticed(&account("alice"), "INBOX", POSITION, Announce::All, NOW))
        .await
        .unwrap();
    store
        .commit(change::credentials_changed(&account("alice"), credentials("alice")))
        .await
        .unwrap();
    store.commit(change::announced(&token("one"), Generation(9), NOW)).await.unwrap();
    assert_eq!(*changes.lock().unwrap(), []);
}

in_both!(token_not_seen_for_longest_makes_room);
async fn token_not_seen_for_longest_makes_room(home: &Home) {
    let (store, _, changes) = home.open().await;
    let alice = account("alice");
    for index in 0..MAX_TOKENS {
        // The second one is the oldest, whatever the wall clock says.
        let served = if index == 1 { Uptime(1) } else { Uptime(2) };
        let seen = DualTime { wall: UnixTime(if index == 1 { i64::MAX } else { 0 }), served };
        store
            .commit(change::register(
                &alice,
                Some(credentials("alice")),
                &token(&index.to_string()),
                true,
                seen,
            ))
            .await
            .unwrap();
    }
    store
        .commit(change::register(
            &alice,
            Some(credentials("alice")),
            &token("new"),
            true,
            DualTime { wall: NOW, served: Uptime(0) },
        ))
        .await
        .unwrap();
    let changes = changes.lock().unwrap();
    assert!(changes.contains(&Change::Gone { token: token("1") }));
    let Some(Change::Tokens { tokens, .. }) = changes.last() else {
        panic!("{:?}", changes.last())
    };
    assert_eq!(tokens.len(), MAX_TOKENS);
    assert!(tokens.iter().any(|seen| seen.token == token("new")), "what has just come stays");
}

in_both!(tokens_expire_by_the_time_served_and_each_account_by_its_own);
async fn tokens_expire_by_the_time_served_and_each_account_by_its_own(home: &Home) {
    let (store, _, changes) = home.open().await;
    for (user, served) in [("alice", 10), ("bob", 30)] {
        // The wall clock has been stepped far ahead for one and far back for the other.
        let seen = DualTime {
            wall: UnixTime(if user == "bob" { 0 } else { i64::MAX }),
            served: Uptime(served),
        };
        store
            .commit(change::register(
                &account(user),
                Some(credentials(user)),
                &token("shared"),
                true,
                seen,
            ))
            .await
            .unwrap();
        store.commit(change::client_idles(&account(user), "INBOX", Uptime(served))).await.unwrap();
        store.commit(change::client_idles(&account(user), "Old", Uptime(1))).await.unwrap();
    }
    changes.lock().unwrap().clear();
    for (served, tokens) in [(40, 1), (35, 0)] {
        store.commit(change::served(Uptime(served))).await.unwrap();
        let expired = store.commit(change::expire(Uptime(served), Uptime(20))).await.unwrap();
        assert_eq!(expired.tokens, tokens);
    }
    let bobs = Change::Idled {
        account: account("bob"),
        mailboxes: vec![Idled { name: "INBOX".into(), last: Uptime(30) }],
    };
    let alices = Change::Tokens { account: account("alice"), credentials: None, tokens: vec![] };
    assert_eq!(*changes.lock().unwrap(), [alices, bobs], "the token itself lives on with bob");
    assert!(!home.holds(b"alice"));
    store.close().await;
    let (_, loaded, _) = home.open().await;
    assert_eq!(loaded.accounts.len(), 1);
    assert_eq!(loaded.accounts[0].account, account("bob"));
    assert_eq!(loaded.served, Uptime(40), "the count never goes back");
}

#[tokio::test]
async fn count_of_the_time_served_is_not_behind_what_was_noted_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::file(directory.path());
    let (store, ..) = home.open().await;
    let seen = DualTime { wall: NOW, served: Uptime(50) };
    store
        .commit(change::register(
            &account("alice"),
            Some(credentials("alice")),
            &token("one"),
            true,
            seen,
        ))
        .await
        .unwrap();
    assert_eq!(home.killed().open().await.1.served, Uptime(50));
    store.commit(change::client_idles(&account("alice"), "INBOX", Uptime(60))).await.unwrap();
    assert_eq!(home.killed().open().await.1.served, Uptime(60));
}

in_both!(mailboxes_idled_in_latest_are_remembered);
async fn mailboxes_idled_in_latest_are_remembered(home: &Home) {
    let (store, _, changes) = home.open().await;
    store.commit(change::client_idles(&account("alice"), "INBOX", Uptime(1))).await.unwrap();
    assert_eq!(*changes.lock().unwrap(), [], "nothing is kept of an account without a token");
    register(&store, "alice", "one").await;
    for (mailbox, served) in [("INBOX", 1), ("A", 2), ("B", 3), ("C", 4), ("INBOX", 5), ("D", 0)] {
        store
            .commit(change::client_idles(&account("alice"), mailbox, Uptime(served)))
            .await
            .unwrap();
    }
    let expected = [("INBOX", 5), ("C", 4), ("B", 3), ("D", 0)];
    let expected = expected.map(|(name, last)| Idled { name: name.into(), last: Uptime(last) });
    let told = Change::Idled { account: account("alice"), mailboxes: expected.to_vec() };
    assert_eq!(changes.lock().unwrap().last(), Some(&told), "what has just come stays");
    assert_eq!(home.killed().open().await.1.accounts[0].idled, expected);
}

in_both!(status_has_all_that_a_person_may_see);
async fn status_has_all_that_a_person_may_see(home: &Home) {
    let (store, _, changes) = home.open().await;
    register(&store, "bob", "shared").await;
    register(&store, "alice", "shared").await;
    register(&store, "alice", "second").await;
    store
        .commit(change::noticed(&account("alice"), "INBOX", at(41), Announce::All, NOW))
        .await
        .unwrap();
    let newest = generation(&changes);
    store.commit(change::announced(&token("shared"), newest, UnixTime(5))).await.unwrap();
    store
        .commit(change::noticed(&account("alice"), "INBOX", POSITION, Announce::All, NOW))
        .await
        .unwrap();
    store
        .commit(change::gave_up(&token("second"), generation(&changes), "refused", UnixTime(6)))
        .await
        .unwrap();
    let status = |name: &str| TokenStatus {
        fingerprint: token(name).fingerprint(),
        first_seen: NOW,
        last_seen: NOW,
        habit: FetchHabit::default(),
        pending: false,
        accepted: None,
        given_up: None,
        quarantine: None,
    };
    let accepted = TokenStatus { accepted: Some(UnixTime(5)), ..status("shared") };
    let alice = AccountStatus {
        account: account("alice"),
        tokens: vec![
            TokenStatus { pending: true, ..accepted.clone() },
            TokenStatus { given_up: Some((UnixTime(6), "refused".into())), ..status("second") },
        ],
        mailboxes: vec![("INBOX".into(), POSITION)],
        has_credentials: true,
        unusable: None,
        refused: false,
    };
    let bob = AccountStatus {
        account: account("bob"),
        tokens: vec![accepted],
        mailboxes: vec![],
        has_credentials: true,
        unusable: None,
        refused: false,
    };
    assert_eq!(store.status().await.unwrap(), [alice, bob]);
}

in_both!(fetch_habit_of_an_app_is_kept_with_its_token);
async fn fetch_habit_of_an_app_is_kept_with_its_token(home: &Home) {
    let (store, _, changes) = home.open().await;
    let left = |senders: &[&str]| {
        FetchLesson::LeftUnencrypted(senders.iter().map(|sender| (*sender).into()).collect())
    };
    store
        .commit(change::learned(&account("alice"), &token("one"), left(&["bob@b.org"]), NOW))
        .await
        .unwrap();
    assert_eq!(*changes.lock().unwrap(), [], "nothing is kept of an account without a token");
    register(&store, "alice", "one").await;
    register(&store, "alice", "two").await;
    for senders in [["bob@b.org", "eve@b.org"], ["eve@b.org", "carol@b.org"]] {
        store
            .commit(change::learned(&account("alice"), &token("one"), left(&senders), NOW))
            .await
            .unwrap();
    }
    let habits = |loaded: &Loaded| {
        let tokens = &loaded.accounts[0].tokens;
        tokens
            .iter()
            .map(|seen| (seen.habit.fetches(), seen.habit.senders.len()))
            .collect::<Vec<_>>()
    };
    let (_, loaded, _) = home.killed().open().await;
    assert_eq!(habits(&loaded), [(Some(Fetches::EncryptedOnly), 3), (None, 0)]);
    assert!(!home.holds(b"b.org"), "senders are kept as hashes");
    store
        .commit(change::learned(
            &account("alice"),
            &token("one"),
            FetchLesson::FetchedUnencrypted,
            UnixTime(9),
        ))
        .await
        .unwrap();
    let (_, loaded, _) = home.killed().open().await;
    assert_eq!(habits(&loaded), [(Some(Fetches::All), 0), (None, 0)]);
    assert_eq!(loaded.accounts[0].tokens[0].habit.fetched, Some(UnixTime(9)));
    let [alice] = &store.status().await.unwrap()[..] else { panic!("one account") };
    assert_eq!(alice.tokens[0].habit.fetches(), Some(Fetches::All));
}
