//! The store as its callers see it, and the files as a thief does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use super::*;

const NOW: UnixTime = UnixTime(1_700_000_000);
const MOMENT: Moment = Moment { wall: NOW, served: Served(0) };
const POSITION: Position = Position { uid_validity: 7, uid_next: 42 };

type Changes = Arc<Mutex<Vec<Change>>>;

fn settings(directory: &Path) -> Settings {
    Settings::sealed(directory.join("state"))
}

fn open(directory: &Path) -> (Store, Loaded, Changes) {
    let changes = Changes::default();
    let seen = Arc::clone(&changes);
    let (store, loaded) = Store::open(&settings(directory), move |change| seen.lock().unwrap().push(change)).unwrap();
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
    store.register(&account(user), credentials(user), &token(name), MOMENT).await.unwrap();
}

/// What the disk would hold if the process were killed now.
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

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (store, loaded, _) = open(directory.path());
    assert_eq!(loaded, Loaded::default());
    register(&store, "alice", "one").await;
    register(&store, "alice", "two").await;
    store.noticed(&account("alice"), "INBOX", POSITION, true, NOW).await.unwrap();

    let copy = killed(directory.path());
    let (reopened, loaded, _) = open(copy.path());
    let expected = AccountRecord {
        account: account("alice"),
        credentials: Some(credentials("alice")),
        tokens: ["one", "two"].map(|name| Seen { token: token(name), last_seen: NOW }).to_vec(),
        idled: vec![],
    };
    assert_eq!(loaded.accounts, [expected]);
    let pending: Vec<_> = loaded.unannounced.iter().map(|found| (found.token.clone(), found.since)).collect();
    assert_eq!(pending.len(), 2);
    assert!(pending.contains(&(token("one"), NOW)) && pending.contains(&(token("two"), NOW)));
    assert_eq!(reopened.positions(&account("alice")).await.unwrap(), [("INBOX".to_owned(), POSITION)]);
}

#[tokio::test]
async fn dropping_every_handle_ends_it_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = open(directory.path());
    register(&store, "alice", "one").await;
    drop(store);
    let reopened = (0..500).find_map(|_| {
        std::thread::sleep(Duration::from_millis(10));
        Store::open(&settings(directory.path()), drop).ok()
    });
    assert_eq!(reopened.unwrap().1.accounts.len(), 1);
}

#[tokio::test]
async fn one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = open(directory.path());
    let error = Store::open(&settings(directory.path()), drop).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another deltapush"));
    store.close().await;
    assert!(matches!(store.positions(&account("alice")).await, Err(StoreError::Closed)));
    Store::open(&settings(directory.path()), drop).unwrap();
}

#[tokio::test]
async fn the_files_are_for_their_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = open(directory.path());
    register(&store, "alice", "one").await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory.path().join("state")), 0o700);
    let files: Vec<_> =
        fs::read_dir(directory.path().join("state")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{file:?}");
    }
}

#[tokio::test]
async fn passwords_are_nowhere_in_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = open(directory.path());
    register(&store, "alice", "one").await;
    let changed = Arc::new(Credentials::new("alice", "open-sesame"));
    store.credentials_changed(&account("alice"), changed).await.unwrap();
    assert!(holds(directory.path(), b"alice"), "the search finds what is there");
    assert!(!holds(directory.path(), b"sesame"));
    store.close().await;
    assert!(holds(directory.path(), b"alice"));
    assert!(!holds(directory.path(), b"sesame"));
}

#[tokio::test]
async fn the_last_token_takes_the_account_with_it_and_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, changes) = open(directory.path());
    register(&store, "alice", "one").await;
    register(&store, "alice", "two").await;
    store.noticed(&account("alice"), "INBOX", POSITION, false, NOW).await.unwrap();
    changes.lock().unwrap().clear();
    store.remove_token(&account("alice"), &token("one")).await.unwrap();
    store.remove_token(&account("alice"), &token("one")).await.unwrap();
    store.remove_token(&account("alice"), &token("two")).await.unwrap();
    let left = |names: &[&str]| Change::Tokens {
        account: account("alice"),
        credentials: None,
        tokens: names.iter().map(|name| Seen { token: token(name), last_seen: NOW }).collect(),
    };
    let gone = |name| Change::Gone { token: token(name) };
    assert_eq!(*changes.lock().unwrap(), [gone("one"), left(&["two"]), gone("two"), left(&[])]);
    for needle in ["alice", "openpgp:one", "INBOX"] {
        assert!(!holds(directory.path(), needle.as_bytes()), "{needle} is still there");
    }
    assert_eq!(store.positions(&account("alice")).await.unwrap(), []);
}

#[tokio::test]
async fn what_a_reader_keeps_in_the_journal_is_erased_when_it_has_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = open(directory.path());
    register(&store, "alice", "one").await;
    let reader = schema::look(&directory.path().join("state")).unwrap();
    let reading = reader.unchecked_transaction().unwrap();
    reading.query_row("SELECT count(*) FROM accounts", [], |_| Ok(())).unwrap();
    let begun = std::time::Instant::now();
    store.remove_account(&account("alice")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "nobody waits for it");
    assert!(holds(directory.path(), b"alice"), "the reader may still look at it");
    drop(reading);
    store.client_idles(&account("nobody"), "INBOX", Served(1)).await.unwrap();
    assert!(!holds(directory.path(), b"alice"));
}

#[tokio::test]
async fn a_gone_token_goes_from_every_account() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, changes) = open(directory.path());
    register(&store, "alice", "shared").await;
    register(&store, "bob", "shared").await;
    register(&store, "bob", "bobs").await;
    store.remove_token(&account("bob"), &token("shared")).await.unwrap();
    assert!(!changes.lock().unwrap().contains(&Change::Gone { token: token("shared") }), "alice still has it");
    register(&store, "bob", "shared").await;
    store.forget_token(&token("shared")).await.unwrap();
    store.close().await;
    let (_, loaded, _) = open(directory.path());
    let left: Vec<_> = loaded.accounts.iter().map(|record| (&*record.account.user, record.tokens.len())).collect();
    assert_eq!(left, [("bob", 1)]);
    assert!(changes.lock().unwrap().contains(&Change::Gone { token: token("shared") }));
}

#[tokio::test]
async fn removing_an_account_is_removing_all_its_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, changes) = open(directory.path());
    register(&store, "alice", "one").await;
    register(&store, "alice", "two").await;
    store.remove_account(&account("alice")).await.unwrap();
    store.remove_account(&account("alice")).await.unwrap();
    let erased = Change::Tokens { account: account("alice"), credentials: None, tokens: vec![] };
    assert_eq!(changes.lock().unwrap().iter().filter(|change| **change == erased).count(), 1);
}

fn generation(changes: &Changes) -> Generation {
    let changes = changes.lock().unwrap();
    let newest = changes.iter().rev().find_map(|change| match change {
        Change::Pending { generation, .. } => Some(*generation),
        _ => None,
    });
    newest.unwrap()
}

#[tokio::test]
async fn pending_is_cleared_only_if_nothing_newer_came() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, changes) = open(directory.path());
    let alice = account("alice");
    register(&store, "alice", "one").await;
    store.noticed(&alice, "INBOX", POSITION, true, NOW).await.unwrap();
    let first = generation(&changes);
    store.noticed(&alice, "INBOX", POSITION, true, NOW).await.unwrap();
    let second = generation(&changes);
    assert!(second > first);
    let pending = |copy: tempfile::TempDir| open(copy.path()).1.unannounced;

    store.announced(&token("one"), first, NOW).await.unwrap();
    assert_eq!(pending(killed(directory.path()))[0].generation, second);
    store.announced(&token("one"), second, NOW).await.unwrap();
    assert_eq!(pending(killed(directory.path())), []);

    store.noticed(&alice, "INBOX", POSITION, false, NOW).await.unwrap();
    assert_eq!(pending(killed(directory.path())), [], "a position alone announces nothing");
    store.noticed(&alice, "INBOX", POSITION, true, NOW).await.unwrap();
    store.gave_up(&token("one"), generation(&changes), "refused", NOW).await.unwrap();
    assert_eq!(pending(killed(directory.path())), []);
}

#[tokio::test]
async fn generations_go_on_above_what_is_pending_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, changes) = open(directory.path());
    register(&store, "alice", "one").await;
    for _ in 0..5 {
        store.noticed(&account("alice"), "INBOX", POSITION, true, NOW).await.unwrap();
    }
    let before = generation(&changes);
    store.close().await;
    let (store, _, changes) = open(directory.path());
    store.noticed(&account("alice"), "INBOX", POSITION, true, NOW).await.unwrap();
    assert!(generation(&changes) > before);
}

#[tokio::test]
async fn what_is_unknown_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, changes) = open(directory.path());
    store.noticed(&account("alice"), "INBOX", POSITION, true, NOW).await.unwrap();
    store.credentials_changed(&account("alice"), credentials("alice")).await.unwrap();
    store.announced(&token("one"), Generation(9), NOW).await.unwrap();
    assert_eq!(*changes.lock().unwrap(), []);
}

#[tokio::test]
async fn the_token_not_seen_for_longest_makes_room() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, changes) = open(directory.path());
    let alice = account("alice");
    for index in 0..MAX_TOKENS {
        // The second one is the oldest, whatever the wall clock says.
        let served = if index == 1 { Served(1) } else { Served(2) };
        let seen = Moment { wall: UnixTime(if index == 1 { i64::MAX } else { 0 }), served };
        store.register(&alice, credentials("alice"), &token(&index.to_string()), seen).await.unwrap();
    }
    store.register(&alice, credentials("alice"), &token("new"), Moment { wall: NOW, served: Served(0) }).await.unwrap();
    let changes = changes.lock().unwrap();
    assert!(changes.contains(&Change::Gone { token: token("1") }));
    let Some(Change::Tokens { tokens, .. }) = changes.last() else { panic!("{:?}", changes.last()) };
    assert_eq!(tokens.len(), MAX_TOKENS);
    assert!(tokens.iter().any(|seen| seen.token == token("new")), "what has just come stays");
}

#[tokio::test]
async fn tokens_expire_by_the_time_served_and_each_account_by_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, changes) = open(directory.path());
    for (user, served) in [("alice", 10), ("bob", 30)] {
        // The wall clock has been stepped far ahead for one and far back for the other.
        let seen = Moment { wall: UnixTime(if user == "bob" { 0 } else { i64::MAX }), served: Served(served) };
        store.register(&account(user), credentials(user), &token("shared"), seen).await.unwrap();
        store.client_idles(&account(user), "INBOX", Served(served)).await.unwrap();
        store.client_idles(&account(user), "Old", Served(1)).await.unwrap();
    }
    changes.lock().unwrap().clear();
    assert_eq!(store.served(Served(40), Served(20)).await.unwrap(), 1);
    assert_eq!(store.served(Served(35), Served(20)).await.unwrap(), 0);
    let bobs =
        Change::Idled { account: account("bob"), mailboxes: vec![Idled { name: "INBOX".into(), last: Served(30) }] };
    let alices = Change::Tokens { account: account("alice"), credentials: None, tokens: vec![] };
    assert_eq!(*changes.lock().unwrap(), [alices, bobs], "the token itself lives on with bob");
    assert!(!holds(directory.path(), b"alice"));
    store.close().await;
    let (_, loaded, _) = open(directory.path());
    assert_eq!(loaded.accounts.len(), 1);
    assert_eq!(loaded.accounts[0].account, account("bob"));
    assert_eq!(loaded.served, Served(40), "the count never goes back");
}

#[tokio::test]
async fn the_count_of_the_time_served_is_not_behind_what_was_noted_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = open(directory.path());
    let seen = Moment { wall: NOW, served: Served(50) };
    store.register(&account("alice"), credentials("alice"), &token("one"), seen).await.unwrap();
    assert_eq!(open(killed(directory.path()).path()).1.served, Served(50));
    store.client_idles(&account("alice"), "INBOX", Served(60)).await.unwrap();
    assert_eq!(open(killed(directory.path()).path()).1.served, Served(60));
}

#[tokio::test]
async fn the_mailboxes_idled_in_latest_are_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, changes) = open(directory.path());
    store.client_idles(&account("alice"), "INBOX", Served(1)).await.unwrap();
    assert_eq!(*changes.lock().unwrap(), [], "nothing is kept of an account without a token");
    register(&store, "alice", "one").await;
    for (mailbox, served) in [("INBOX", 1), ("A", 2), ("B", 3), ("C", 4), ("INBOX", 5), ("D", 0)] {
        store.client_idles(&account("alice"), mailbox, Served(served)).await.unwrap();
    }
    let expected = [("INBOX", 5), ("C", 4), ("B", 3), ("D", 0)];
    let expected = expected.map(|(name, last)| Idled { name: name.into(), last: Served(last) });
    let told = Change::Idled { account: account("alice"), mailboxes: expected.to_vec() };
    assert_eq!(changes.lock().unwrap().last(), Some(&told), "what has just come stays");
    assert_eq!(open(killed(directory.path()).path()).1.accounts[0].idled, expected);
}

#[tokio::test]
async fn the_status_has_all_that_a_person_may_see() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, changes) = open(directory.path());
    register(&store, "bob", "shared").await;
    register(&store, "alice", "shared").await;
    register(&store, "alice", "second").await;
    store.noticed(&account("alice"), "INBOX", POSITION, true, NOW).await.unwrap();
    let newest = generation(&changes);
    store.announced(&token("shared"), newest, UnixTime(5)).await.unwrap();
    store.noticed(&account("alice"), "INBOX", POSITION, true, NOW).await.unwrap();
    store.gave_up(&token("second"), generation(&changes), "refused", UnixTime(6)).await.unwrap();
    let status = |name: &str| TokenStatus {
        fingerprint: token(name).fingerprint(),
        first_seen: NOW,
        last_seen: NOW,
        pending: false,
        accepted: None,
        given_up: None,
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
        refused: false,
    };
    let bob = AccountStatus {
        account: account("bob"),
        tokens: vec![accepted],
        mailboxes: vec![],
        has_credentials: true,
        refused: false,
    };
    assert_eq!(store.status().await.unwrap(), [alice, bob]);
}

fn memory(directory: &Path) -> (Store, Loaded) {
    Store::open(&Settings::memory(directory.join("state")), drop).unwrap()
}

#[tokio::test]
async fn in_memory_mode_no_password_reaches_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = memory(directory.path());
    register(&store, "alice", "one").await;
    let changed = Arc::new(Credentials::new("alice", "open-sesame"));
    store.credentials_changed(&account("alice"), changed).await.unwrap();
    store.noticed(&account("alice"), "INBOX", POSITION, false, NOW).await.unwrap();
    let credentials_on_disk = |directory: &Path| -> i64 {
        let file = rusqlite::Connection::open(directory.join("state/state.sqlite")).unwrap();
        file.query_row("SELECT sum(length(credentials)) FROM accounts", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(credentials_on_disk(killed(directory.path()).path()), 0);
    assert!(!holds(directory.path(), b"sesame"));
    assert!(!directory.path().join("state/seal.key").exists(), "there is nothing that a key is for");
    store.close().await;

    let (store, loaded) = memory(directory.path());
    assert_eq!(loaded.accounts[0].credentials, None);
    let called: Vec<_> = loaded.unannounced.iter().map(|found| &found.token).collect();
    assert_eq!(called, [&token("one")], "the device is called back");
    assert_eq!(store.positions(&account("alice")).await.unwrap(), [("INBOX".to_owned(), POSITION)]);
}

#[tokio::test]
async fn a_call_back_is_no_news_that_is_lost_or_doubled() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = memory(directory.path());
    for (user, name) in [("alice", "one"), ("bob", "shared"), ("carol", "shared")] {
        register(&store, user, name).await;
    }
    store.noticed(&account("alice"), "INBOX", POSITION, true, NOW).await.unwrap();
    store.close().await;
    let (store, loaded) = memory(directory.path());
    let tokens: Vec<_> = loaded.unannounced.iter().map(|found| found.token.clone()).collect();
    assert!(tokens.len() == 2 && tokens.contains(&token("one")) && tokens.contains(&token("shared")));
    // One POST announces the news too, and what is noticed afterwards is news again.
    let called = loaded.unannounced[0].generation;
    store.announced(&token("one"), called, NOW).await.unwrap();
    assert!(store.status().await.unwrap().iter().all(|status| !status.tokens[0].pending));
    store.noticed(&account("alice"), "INBOX", POSITION, true, NOW).await.unwrap();
    store.announced(&token("one"), called, NOW).await.unwrap();
    assert!(store.status().await.unwrap()[0].tokens[0].pending, "an answer to an older POST");
}

#[tokio::test]
async fn from_sealed_to_memory_and_back() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = open(directory.path());
    register(&store, "alice", "one").await;
    store.close().await;
    let sealed = |directory: &Path| -> Vec<u8> {
        let file = rusqlite::Connection::open(directory.join("state/state.sqlite")).unwrap();
        file.query_row("SELECT credentials FROM accounts", [], |row| row.get(0)).unwrap()
    };
    let blob = sealed(directory.path());
    assert!(!blob.is_empty() && holds(directory.path(), &blob));

    let (store, loaded) = memory(directory.path());
    assert_eq!((loaded.accounts[0].credentials.as_ref(), loaded.unannounced.len()), (None, 1));
    assert!(!holds(directory.path(), &blob), "erased from the file and from its journal, before anything is served");
    register(&store, "alice", "one").await;
    store.close().await;

    let (store, loaded, _) = open(directory.path());
    assert_eq!((loaded.accounts[0].credentials.as_ref(), loaded.unannounced.len()), (None, 1));
    store.credentials_changed(&account("alice"), credentials("alice")).await.unwrap();
    store.close().await;
    let (_, loaded, _) = open(directory.path());
    assert_eq!((loaded.accounts[0].credentials.as_ref(), loaded.unannounced.len()), (Some(&credentials("alice")), 0));
}

/// What the first release wrote is there after an update, and nobody's token is suddenly old.
#[tokio::test]
async fn the_first_versions_state_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    // The key, its check and sealed credentials, which are the same in both versions.
    let (store, ..) = open(directory.path());
    register(&store, "alice", "one").await;
    store.close().await;
    let new = rusqlite::Connection::open(state.join("state.sqlite")).unwrap();
    let sealed: Vec<u8> = new.query_row("SELECT credentials FROM accounts", [], |row| row.get(0)).unwrap();
    let key_check: Vec<u8> = new.query_row("SELECT value FROM meta", [], |row| row.get(0)).unwrap();
    drop(new);
    fs::remove_file(state.join("state.sqlite")).unwrap();
    let old = schema::first_version(&state);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token("one").expose().as_bytes());
    old.execute("INSERT INTO meta VALUES ('key_check', ?)", [key_check]).unwrap();
    old.execute("INSERT INTO accounts VALUES (1, 'alice', 'imap.example.org:993', ?, 1)", [sealed]).unwrap();
    old.execute(
        "INSERT INTO tokens VALUES (1, 1, ?, ?, 2, 3, 9, 4, 5, 6, 'refused')",
        rusqlite::params![hash.as_ref(), token("one").expose()],
    )
    .unwrap();
    old.execute("INSERT INTO mailboxes VALUES (1, 'INBOX', 7, 42)", []).unwrap();
    drop(old);

    assert_eq!(check_version(&state), (1, 2));
    let (store, loaded, changes) = open(directory.path());
    assert_eq!(check_version(&state), (2, 2));
    assert_eq!(loaded.accounts[0].credentials, Some(credentials("alice")));
    assert_eq!(loaded.accounts[0].tokens, [Seen { token: token("one"), last_seen: UnixTime(3) }]);
    let pending = Unannounced { token: token("one"), generation: Generation(9), since: UnixTime(4) };
    assert_eq!(loaded.unannounced, [pending]);
    assert_eq!(store.positions(&account("alice")).await.unwrap(), [("INBOX".to_owned(), POSITION)]);
    assert_eq!(store.status().await.unwrap()[0].tokens[0].given_up, Some((UnixTime(6), "refused".into())));
    assert_eq!(store.served(Served(89), Served(89 - 90)).await.unwrap(), 0);
    store.noticed(&account("alice"), "INBOX", POSITION, true, NOW).await.unwrap();
    assert_eq!(generation(&changes), Generation(10));
}

fn check_version(state: &Path) -> (i64, i64) {
    check(&Settings::sealed(state)).unwrap().schema
}

/// With the wrong key even the schema stays what it is: the version that wrote it can still run.
#[tokio::test]
async fn a_wrong_key_stops_a_migration_too() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    let old = schema::first_version(&state);
    old.execute("INSERT INTO accounts VALUES (1, 'alice', 'imap.example.org:993', x'01', 1)", []).unwrap();
    drop(old);
    let error = Store::open(&Settings::sealed(&state), drop).unwrap_err();
    assert!(matches!(error, OpenError::KeyMissing { .. }), "{error}");
    let file = rusqlite::Connection::open(state.join("state.sqlite")).unwrap();
    assert_eq!(schema::version(&file).unwrap(), 1);
}

#[tokio::test]
async fn the_key_may_come_from_systemd_or_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let with = |source| Settings { directory: state.clone(), credentials: Keeping::Sealed(source) };
    let text = |byte: &str| format!("{}=\n", byte.repeat(43));
    let variable = |byte| with(KeySource::Environment(crate::secret::Secret::new(text(byte).into_bytes())));
    let credential = directory.path().join("deltapush-seal-key");
    fs::write(&credential, text("A")).unwrap();

    let (store, _) = Store::open(&variable("A"), drop).unwrap();
    register(&store, "alice", "one").await;
    store.close().await;
    assert!(!state.join("seal.key").exists(), "no key is made where one is given");
    let (store, loaded) = Store::open(&with(KeySource::Credential(credential.clone())), drop).unwrap();
    assert_eq!(loaded.accounts[0].credentials, Some(credentials("alice")));
    store.close().await;

    let before = fs::read(state.join("state.sqlite")).unwrap();
    let wrong = Store::open(&variable("E"), drop).unwrap_err();
    assert!(matches!(wrong, OpenError::KeyWrong { .. }), "{wrong}");
    assert!(
        wrong.to_string().contains("variable DELTAPUSH_SEAL_KEY is not the one") && wrong.to_string().contains("put")
    );
    fs::write(&credential, "not a key").unwrap();
    let malformed = Store::open(&with(KeySource::Credential(credential)), drop).unwrap_err();
    assert!(malformed.to_string().starts_with("systemd's credential"), "{malformed}");
    let missing = Store::open(&settings(directory.path()), drop).unwrap_err();
    assert!(matches!(missing, OpenError::KeyMissing { .. }), "{missing}");
    assert_eq!(fs::read(state.join("state.sqlite")).unwrap(), before);
}

#[tokio::test]
async fn a_wrong_or_missing_key_names_the_cure_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = open(directory.path());
    register(&store, "alice", "one").await;
    store.close().await;
    let path = directory.path().join("state/seal.key");
    let key = fs::read(&path).unwrap();
    let state = || fs::read(directory.path().join("state/state.sqlite")).unwrap();
    let before = state();

    fs::remove_file(&path).unwrap();
    let missing = Store::open(&settings(directory.path()), drop).unwrap_err();
    assert!(matches!(missing, OpenError::KeyMissing { .. }) && missing.to_string().contains("put the key file back"));
    assert!(!path.exists(), "no new key is made over what the old one sealed");
    fs::write(&path, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    let wrong = Store::open(&settings(directory.path()), drop).unwrap_err();
    assert!(matches!(wrong, OpenError::KeyWrong { .. }) && wrong.to_string().contains("put the right key back"));
    assert_eq!(state(), before);

    fs::write(&path, key).unwrap();
    let (_, loaded, _) = open(directory.path());
    assert_eq!(loaded.accounts[0].credentials, Some(credentials("alice")));
}

#[tokio::test]
async fn a_new_key_is_fine_while_nothing_is_sealed() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).0.close().await;
    fs::remove_file(directory.path().join("state/seal.key")).unwrap();
    let (store, ..) = open(directory.path());
    register(&store, "alice", "one").await;
    store.close().await;
    assert_eq!(open(directory.path()).1.accounts[0].credentials, Some(credentials("alice")));
}

#[tokio::test]
async fn credentials_swapped_between_accounts_are_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = open(directory.path());
    register(&store, "alice", "one").await;
    register(&store, "mallory", "two").await;
    store.close().await;
    let file = rusqlite::Connection::open(directory.path().join("state/state.sqlite")).unwrap();
    file.execute(
        "UPDATE accounts SET credentials = (SELECT credentials FROM accounts WHERE user = 'alice') WHERE user = 'mallory'",
        [],
    )
    .unwrap();
    drop(file);
    let (_, loaded, _) = open(directory.path());
    assert_eq!(loaded.accounts[0].credentials, Some(credentials("alice")));
    assert_eq!(loaded.accounts[1].credentials, None);
}

/// How many transactions the journal holds: a frame that ends one says the file's size (SQLite file format, section 4.1).
fn commits(directory: &Path) -> usize {
    let journal = fs::read(directory.join("state/state.sqlite-wal")).unwrap();
    let frames = journal.get(32..).unwrap().chunks_exact(24 + 4096);
    let salt = journal[16..24].to_vec();
    frames.filter(|frame| frame[8..16] == salt && frame[4..8] != [0; 4]).count()
}

#[tokio::test]
async fn what_is_queued_together_is_committed_together() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, changes) = open(directory.path());
    register(&store, "alice", "one").await;
    let before = commits(directory.path());
    // The thread is held up until all of them are queued.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let gate = tokio::spawn({
        let store = store.clone();
        async move { store.run(move |_| Ok(held.recv().ok())).await }
    });
    let writes: Vec<_> = (0..200_u32)
        .map(|uid_next| {
            let store = store.clone();
            tokio::spawn(async move {
                let position = Position { uid_validity: 7, uid_next };
                store.noticed(&account("alice"), "INBOX", position, true, NOW).await
            })
        })
        .collect();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    release.send(()).unwrap();
    gate.await.unwrap().unwrap();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    assert_eq!(changes.lock().unwrap().iter().filter(|change| matches!(change, Change::Pending { .. })).count(), 200);
    let after = commits(directory.path());
    assert!(after > before && after - before <= 2, "{} commits for 200 writes", after - before);
}

#[tokio::test]
async fn a_failing_change_takes_no_other_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, changes) = open(directory.path());
    register(&store, "alice", "one").await;
    changes.lock().unwrap().clear();
    let alice = account("alice");
    let broken = store.run({
        let alice = alice.clone();
        move |state| {
            state.noticed(&alice, "Broken", POSITION, true, NOW)?;
            Ok(state.connection.execute("INSERT INTO mailboxes VALUES (99, 'no such account', 1, 1)", [])?)
        }
    });
    let (good, broken, better) = tokio::join!(
        store.noticed(&alice, "INBOX", POSITION, false, NOW),
        broken,
        store.noticed(&alice, "Archive", POSITION, false, NOW),
    );
    assert!(matches!(broken, Err(StoreError::Database(_))), "{broken:?}");
    assert!(good.is_ok() && better.is_ok());
    let names: Vec<_> = store.positions(&alice).await.unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["Archive", "INBOX"]);
    assert_eq!(*changes.lock().unwrap(), [], "what was rolled back is not told");
}

#[tokio::test]
async fn a_full_disk_is_said_and_passes() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = open(directory.path());
    register(&store, "alice", "one").await;
    let limit = |pages: i64| {
        store.run(move |state| {
            Ok(state.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?)
        })
    };
    limit(1).await.unwrap();
    let mut full = 0;
    for index in 0..50 {
        let name = format!("{index}{}", "x".repeat(900));
        match store.register(&account("bob"), credentials("bob"), &token(&name), MOMENT).await {
            Ok(()) => {}
            Err(StoreError::DiskFull) => full += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(full > 0);
    // What could not be noted did not happen, and is noticed again later.
    let alice = account("alice");
    let mailbox = "x".repeat(50_000);
    let unnoted = store.noticed(&alice, &mailbox, POSITION, true, NOW).await;
    assert!(matches!(unnoted, Err(StoreError::DiskFull)), "{unnoted:?}");
    assert_eq!(store.positions(&alice).await.unwrap(), [], "reading goes on");
    assert!(!store.status().await.unwrap()[0].tokens[0].pending);
    limit(1_000_000).await.unwrap();
    store.noticed(&alice, &mailbox, POSITION, true, NOW).await.unwrap();
    register(&store, "carol", "three").await;
    let copy = killed(directory.path());
    assert_eq!(check(&settings(copy.path())).unwrap().pending, 1, "nothing is corrupted");
    let (_, loaded, _) = open(copy.path());
    assert!(loaded.accounts.iter().any(|record| record.account == account("carol")));
    assert_eq!(loaded.unannounced.len(), 1);
}
