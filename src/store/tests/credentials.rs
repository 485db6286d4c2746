//! Passwords: sealed, in memory only, with another key, and from an older version.

use super::*;

#[tokio::test]
async fn passwords_are_nowhere_in_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = open(directory.path());
    register(&store, "alice", "one").await;
    let changed = Arc::new(Credentials::new("alice", "open-sesame"));
    store.commit(change::credentials_changed(&account("alice"), changed)).await.unwrap();
    assert!(holds(directory.path(), b"alice"), "the search finds what is there");
    assert!(!holds(directory.path(), b"sesame"));
    store.close().await;
    assert!(holds(directory.path(), b"alice"));
    assert!(!holds(directory.path(), b"sesame"));
}

fn memory(directory: &Path) -> (Store, Loaded) {
    Store::open(&StoreSettings::memory(directory.join("state")), drop).unwrap()
}

#[tokio::test]
async fn in_memory_mode_no_password_reaches_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = memory(directory.path());
    register(&store, "alice", "one").await;
    let changed = Arc::new(Credentials::new("alice", "open-sesame"));
    store.commit(change::credentials_changed(&account("alice"), changed)).await.unwrap();
    store
        .commit(change::noticed(&account("alice"), "INBOX", POSITION, Announce::Nothing, NOW))
        .await
        .unwrap();
    let credentials_on_disk = |directory: &Path| -> i64 {
        let file = rusqlite::Connection::open(directory.join("state/state.sqlite")).unwrap();
        file.query_row("SELECT sum(length(credentials)) FROM accounts", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(credentials_on_disk(killed(directory.path()).path()), 0);
    assert!(!holds(directory.path(), b"sesame"));
    assert!(
        !directory.path().join("state/seal.key").exists(),
        "there is nothing that a key is for"
    );
    store.close().await;

    let (store, loaded) = memory(directory.path());
    assert_eq!(loaded.accounts[0].credentials, None);
    let called: Vec<_> = loaded.unannounced.iter().map(|found| &found.token).collect();
    assert_eq!(called, [&token("one")], "the device is called back");
    assert_eq!(
        store.positions(&account("alice")).await.unwrap(),
        [(MailboxName::inbox(), POSITION)]
    );
}

#[tokio::test]
async fn call_back_is_no_news_that_is_lost_or_doubled() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = memory(directory.path());
    for (user, name) in [("alice", "one"), ("bob", "shared"), ("carol", "shared")] {
        register(&store, user, name).await;
    }
    store
        .commit(change::noticed(&account("alice"), "INBOX", POSITION, Announce::All, NOW))
        .await
        .unwrap();
    store.close().await;
    let (store, loaded) = memory(directory.path());
    let tokens: Vec<_> = loaded.unannounced.iter().map(|found| found.token.clone()).collect();
    assert!(
        tokens.len() == 2 && tokens.contains(&token("one")) && tokens.contains(&token("shared"))
    );
    // One POST announces the news too, and what is noticed afterwards is news again.
    let called = loaded.unannounced[0].generation;
    store.commit(change::announced(&token("one"), called, NOW)).await.unwrap();
    assert!(store.status().await.unwrap().iter().all(|status| !status.tokens[0].pending));
    store
        .commit(change::noticed(&account("alice"), "INBOX", POSITION, Announce::All, NOW))
        .await
        .unwrap();
    store.commit(change::announced(&token("one"), called, NOW)).await.unwrap();
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
    assert!(
        !holds(directory.path(), &blob),
        "erased from the file and from its journal, before anything is served"
    );
    register(&store, "alice", "one").await;
    store.close().await;

    let (store, loaded, _) = open(directory.path());
    assert_eq!((loaded.accounts[0].credentials.as_ref(), loaded.unannounced.len()), (None, 1));
    store
        .commit(change::credentials_changed(&account("alice"), credentials("alice")))
        .await
        .unwrap();
    store.close().await;
    let (_, loaded, _) = open(directory.path());
    assert_eq!(
        (loaded.accounts[0].credentials.as_ref(), loaded.unannounced.len()),
        (Some(&credentials("alice")), 0)
    );
}

/// State of the first release is there after an update, and no token is suddenly old.
#[tokio::test]
async fn first_versions_state_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    // The key, its check and sealed credentials, which are the same in both versions.
    let (store, ..) = open(directory.path());
    register(&store, "alice", "one").await;
    store.close().await;
    let new = rusqlite::Connection::open(state.join("state.sqlite")).unwrap();
    let sealed: Vec<u8> =
        new.query_row("SELECT credentials FROM accounts", [], |row| row.get(0)).unwrap();
    let key_check: Vec<u8> = new.query_row("SELECT value FROM meta", [], |row| row.get(0)).unwrap();
    drop(new);
    fs::remove_file(state.join("state.sqlite")).unwrap();
    let old = schema::first_version(&state);
    let hash =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token("one").expose().as_bytes());
    old.execute("INSERT INTO meta VALUES ('key_check', ?)", [key_check]).unwrap();
    old.execute("INSERT INTO accounts VALUES (1, 'alice', 'imap.example.org:993', ?, 1)", [sealed])
        .unwrap();
    old.execute(
        "INSERT INTO tokens VALUES (1, 1, ?, ?, 2, 3, 9, 4, 5, 6, 'refused')",
        rusqlite::params![hash.as_ref(), token("one").expose()],
    )
    .unwrap();
    old.execute("INSERT INTO mailboxes VALUES (1, 'INBOX', 7, 42)", []).unwrap();
    drop(old);

    assert_eq!(check_version(&state), (1, schema::newest()));
    let (store, loaded, changes) = open(directory.path());
    assert_eq!(check_version(&state), (schema::newest(), schema::newest()));
    assert_eq!(loaded.accounts[0].credentials, Some(credentials("alice")));
    assert_eq!(
        loaded.accounts[0].tokens,
        [StoredToken { token: token("one"), last_seen: UnixTime(3), habit: FetchHabit::default() }]
    );
    let pending =
        Unannounced { token: token("one"), generation: Generation(9), since: UnixTime(4) };
    assert_eq!(loaded.unannounced, [pending]);
    assert_eq!(
        store.positions(&account("alice")).await.unwrap(),
        [(MailboxName::inbox(), POSITION)]
    );
    assert_eq!(
        store.status().await.unwrap()[0].tokens[0].given_up,
        Some((UnixTime(6), "refused".into()))
    );
    assert_eq!(store.commit(change::expire(Uptime(89), Uptime(89 - 90))).await.unwrap().tokens, 0);
    store
        .commit(change::noticed(&account("alice"), "INBOX", POSITION, Announce::All, NOW))
        .await
        .unwrap();
    assert_eq!(generation(&changes), Generation(10));
}

fn check_version(state: &Path) -> (i64, i64) {
    check(&StoreSettings::sealed(state)).unwrap().schema
}

/// With the wrong key even the schema stays what it is: the version that wrote it can still run.
#[tokio::test]
async fn wrong_key_stops_a_migration_too() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    let old = schema::first_version(&state);
    old.execute("INSERT INTO accounts VALUES (1, 'alice', 'imap.example.org:993', x'01', 1)", [])
        .unwrap();
    drop(old);
    let error = Store::open(&StoreSettings::sealed(&state), drop).unwrap_err();
    assert!(matches!(error, OpenError::KeyMissing { .. }), "{error}");
    let file = rusqlite::Connection::open(state.join("state.sqlite")).unwrap();
    assert_eq!(schema::version(&file).unwrap(), 1);
}

#[tokio::test]
async fn key_may_come_from_systemd_or_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let with = |source| StoreSettings {
        postgres: None,
        directory: state.clone(),
        credentials: CredentialStorage::Sealed(source),
    };
    let text = |byte: &str| format!("{}=\n", byte.repeat(43));
    let variable =
        |byte| with(KeySource::Environment(crate::secret::Secret::new(text(byte).into_bytes())));
    let credential = directory.path().join("deltapush-seal-key");
    fs::write(&credential, text("A")).unwrap();

    let (store, _) = Store::open(&variable("A"), drop).unwrap();
    register(&store, "alice", "one").await;
    store.close().await;
    assert!(!state.join("seal.key").exists(), "no key is made where one is given");
    let (store, loaded) =
        Store::open(&with(KeySource::Credential(credential.clone())), drop).unwrap();
    assert_eq!(loaded.accounts[0].credentials, Some(credentials("alice")));
    store.close().await;

    let before = fs::read(state.join("state.sqlite")).unwrap();
    let wrong = Store::open(&variable("E"), drop).unwrap_err();
    assert!(matches!(wrong, OpenError::KeyWrong { .. }), "{wrong}");
    assert!(
        wrong.to_string().contains("variable DELTAPUSH_SEAL_KEY is not the one")
            && wrong.to_string().contains("restore the right key")
    );
    fs::write(&credential, "not a key").unwrap();
    let malformed = Store::open(&with(KeySource::Credential(credential)), drop).unwrap_err();
    assert!(malformed.to_string().starts_with("systemd's credential"), "{malformed}");
    let missing = Store::open(&settings(directory.path()), drop).unwrap_err();
    assert!(matches!(missing, OpenError::KeyMissing { .. }), "{missing}");
    assert_eq!(fs::read(state.join("state.sqlite")).unwrap(), before);
}

#[tokio::test]
async fn wrong_or_missing_key_names_the_cure_and_changes_nothing() {
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
    assert!(
        matches!(missing, OpenError::KeyMissing { .. })
            && missing.to_string().contains("restore the key file")
    );
    assert!(!path.exists(), "no new key is made over what the old one sealed");
    fs::write(&path, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    let wrong = Store::open(&settings(directory.path()), drop).unwrap_err();
    assert!(
        matches!(wrong, OpenError::KeyWrong { .. })
            && wrong.to_string().contains("restore the right key")
    );
    assert_eq!(state(), before);

    fs::write(&path, key).unwrap();
    let (_, loaded, _) = open(directory.path());
    assert_eq!(loaded.accounts[0].credentials, Some(credentials("alice")));
}

#[tokio::test]
async fn new_key_is_fine_while_nothing_is_sealed() {
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
        "UPDATE accounts SET credentials = (SELECT credentials FROM accounts WHERE name = 'alice') WHERE name = 'mallory'",
        [],
    )
    .unwrap();
    drop(file);
    let (_, loaded, _) = open(directory.path());
    assert_eq!(loaded.accounts[0].credentials, Some(credentials("alice")));
    assert_eq!(loaded.accounts[1].credentials, None);
}
