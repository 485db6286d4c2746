//! The results of a check, which must change nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::secret::DeviceToken;
use crate::store::{DualTime, Position, Store, UnixTime, Uptime, change};

async fn filled(directory: &Path) -> (StoreSettings, Store) {
    let settings = StoreSettings::sealed(directory.join("state"));
    let (store, _) = Store::open(&settings, drop).unwrap();
    for user in ["alice", "bob"] {
        let now = DualTime { wall: UnixTime(1), served: Uptime(0) };
        let credentials = Arc::new(Credentials::new(user, "sesame"));
        let account = AccountId::new(user, "imap.example.org:993");
        store
            .commit(change::register(
                &account,
                Some(credentials),
                &DeviceToken::new(user.as_bytes()).unwrap(),
                true,
                now,
            ))
            .await
            .unwrap();
        let position = Position { uid_validity: 1, uid_next: 1 };
        store
            .commit(change::noticed(
                &account,
                "INBOX",
                position,
                (user == "bob").into(),
                UnixTime(1),
            ))
            .await
            .unwrap();
    }
    (settings, store)
}

/// The files that matter: who only reads makes the journal's shared memory all the same.
fn files(directory: &Path) -> [Vec<u8>; 2] {
    ["state.sqlite", "seal.key"].map(|name| fs::read(directory.join("state").join(name)).unwrap())
}

#[tokio::test]
async fn sound_state_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (settings, store) = filled(directory.path()).await;
    let place = directory.path().join("state/seal.key").display().to_string();
    let expected = StateReport {
        place: settings.directory.display().to_string(),
        usage: "in use by a running deltapush".to_owned(),
        schema: (schema::newest(), schema::newest()),
        accounts: 2,
        sealed: 2,
        tokens: 2,
        pending: 1,
        mailboxes: 2,
        key: KeyReport::Opens { place: place.clone(), damaged: 0 },
    };
    assert_eq!(check(&settings).unwrap(), expected);
    let again = Store::open(&settings, drop).unwrap_err();
    assert!(matches!(again, OpenError::InUse { .. }), "the owner's claim holds");
    store.close().await;
    let before = files(directory.path());
    assert_eq!(
        check(&settings).unwrap(),
        StateReport { usage: "not in use by a deltapush".to_owned(), ..expected }
    );
    assert_eq!(files(directory.path()), before);
    let said = check(&settings).unwrap().to_string();
    for part in [
        "not in use",
        "integrity  ok",
        &format!("version {}\n", schema::newest()),
        "2, 2 of them",
        &format!("{place} opens all"),
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn unsound_state_is_an_error_that_names_the_cure() {
    let directory = tempfile::tempdir().unwrap();
    let (settings, store) = filled(directory.path()).await;
    store.close().await;
    let [state, key] = files(directory.path());
    let (state_path, key_path) =
        (settings.directory.join("state.sqlite"), settings.directory.join("seal.key"));

    fs::remove_file(&key_path).unwrap();
    assert!(matches!(check(&settings), Err(OpenError::KeyMissing { .. })));
    assert!(!key_path.exists());
    fs::write(&key_path, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    assert!(matches!(check(&settings), Err(OpenError::KeyWrong { .. })));
    assert_eq!(
        check(&StoreSettings::memory(&settings.directory)).unwrap().key,
        KeyReport::NotNeeded
    );
    fs::write(&key_path, key).unwrap();

    // The number of entries of some index page no longer fits its table.
    let file = Connection::open(&state_path).unwrap();
    file.pragma_update(None, "writable_schema", true).unwrap();
    file.execute("UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'meta') WHERE name = 'tokens_by_hash'", []).unwrap();
    drop(file);
    let error = check(&settings).unwrap_err();
    assert!(
        matches!(error, OpenError::Damaged { .. })
            && error.to_string().contains("restore a backup"),
        "{error}"
    );

    fs::write(&state_path, &state).unwrap();
    let file = Connection::open(&state_path).unwrap();
    file.pragma_update(None, "foreign_keys", false).unwrap();
    file.execute(
        "INSERT INTO mailboxes (account, name, uid_validity, uid_next) VALUES (99, 'INBOX', 1, 1)",
        [],
    )
    .unwrap();
    drop(file);
    let error = check(&settings).unwrap_err();
    assert!(error.to_string().contains("1 rows belong to no account"), "{error}");

    fs::write(&state_path, "").unwrap();
    assert!(matches!(check(&settings), Err(OpenError::Absent { .. })));
    fs::remove_file(&state_path).unwrap();
    assert!(matches!(check(&settings), Err(OpenError::Absent { .. })));
    assert!(!state_path.exists());
}
