//! The store as its callers see it, and the files as a thief does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;

use super::*;

const NOW: UnixTime = UnixTime(1_700_000_000);
const POSITION: Position = Position { uid_validity: 7, uid_next: 42 };

type Changes = Arc<Mutex<Vec<Change>>>;

fn settings(directory: &Path) -> Settings {
    Settings { directory: directory.join("state"), key_file: None }
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
    store.register(&account(user), credentials(user), &token(name), NOW).await.unwrap();
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
        // The second one is the oldest; the clock may go back.
        let seen = if index == 1 { UnixTime(1) } else { NOW };
        store.register(&alice, credentials("alice"), &token(&index.to_string()), seen).await.unwrap();
    }
    store.register(&alice, credentials("alice"), &token("new"), UnixTime(0)).await.unwrap();
    let changes = changes.lock().unwrap();
    assert!(changes.contains(&Change::Gone { token: token("1") }));
    let Some(Change::Tokens { tokens, .. }) = changes.last() else { panic!("{:?}", changes.last()) };
    assert_eq!(tokens.len(), MAX_TOKENS);
    assert!(tokens.iter().any(|seen| seen.token == token("new")), "what has just come stays");
}

#[tokio::test]
async fn tokens_expire_by_when_they_were_seen() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = open(directory.path());
    store.register(&account("alice"), credentials("alice"), &token("old"), UnixTime(10)).await.unwrap();
    store.register(&account("bob"), credentials("bob"), &token("old"), UnixTime(30)).await.unwrap();
    assert_eq!(store.expire_tokens(UnixTime(20)).await.unwrap(), 1);
    assert_eq!(store.expire_tokens(UnixTime(20)).await.unwrap(), 0);
    store.close().await;
    let (_, loaded, _) = open(directory.path());
    assert_eq!(loaded.accounts.len(), 1);
    assert_eq!(loaded.accounts[0].account, account("bob"));
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
    assert!(matches!(wrong, OpenError::KeyWrong { .. }) && wrong.to_string().contains("put the right key file back"));
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
        match store.register(&account("bob"), credentials("bob"), &token(&name), NOW).await {
            Ok(()) => {}
            Err(StoreError::DiskFull) => full += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(full > 0);
    limit(1_000_000).await.unwrap();
    register(&store, "carol", "three").await;
    let (_, loaded, _) = open(killed(directory.path()).path());
    assert!(loaded.accounts.iter().any(|record| record.account == account("carol")));
}
