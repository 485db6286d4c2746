//! A copy while the state is written, and what is left when there can be none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::*;
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::secret::DeviceToken;
use crate::store::{Announce, DualTime, Position, Store, UnixTime, Uptime, change, check};

const NOW: DualTime = DualTime { wall: UnixTime(1), served: Uptime(0) };

#[tokio::test]
async fn copy_of_a_state_at_work_is_whole_and_can_be_put_back() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings::sealed(directory.path().join("state"));
    let file = directory.path().join("copy");
    let (store, _) = Store::open(&settings, drop).unwrap();
    let alice = AccountId::new("alice", "imap.example.org:993");
    let credentials = Arc::new(Credentials::new("alice", "sesame"));
    store
        .commit(change::register(
            &alice,
            Some(credentials.clone()),
            &DeviceToken::new(b"token").unwrap(),
            true,
            NOW,
        ))
        .await
        .unwrap();
    let writing = tokio::spawn({
        let (store, alice) = (store.clone(), alice.clone());
        async move {
            for uid_next in 1..=200 {
                let position = Position { uid_validity: 1, uid_next };
                store
                    .commit(change::noticed(&alice, "INBOX", position, Announce::All, UnixTime(1)))
                    .await
                    .unwrap();
            }
        }
    });
    let copying = (settings.clone(), file.clone());
    tokio::task::spawn_blocking(move || backup(&copying.0, &copying.1)).await.unwrap().unwrap();
    writing.await.unwrap();
    let again = Store::open(&settings, drop).unwrap_err();
    assert!(matches!(again, OpenError::InUse { .. }), "the owner's claim holds");
    store.close().await;

    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = fs::read(&file).unwrap();
    let key = fs::read(directory.path().join("state/seal.key")).unwrap();
    assert!(!bytes.windows(key.len()).any(|window| window == key), "the key is not in it");
    let restored = directory.path().join("restored");
    fs::create_dir(&restored).unwrap();
    fs::copy(&file, restored.join("state.sqlite")).unwrap();
    fs::write(restored.join("seal.key"), key).unwrap();
    assert_eq!(check(&StoreSettings::sealed(&restored)).unwrap().accounts, 1);
    let (_, loaded) = Store::open(&StoreSettings::sealed(&restored), drop).unwrap();
    assert_eq!(loaded.accounts[0].credentials, Some(credentials));
}

#[tokio::test]
async fn nothing_is_overwritten_and_nothing_is_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings::sealed(directory.path().join("state"));
    Store::open(&settings, drop).unwrap().0.close().await;
    let file = directory.path().join("copy");
    fs::write(&file, "mine").unwrap();
    let error = backup(&settings, &file).unwrap_err();
    assert!(error.to_string().contains("exists"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");

    fs::write(directory.path().join("state/state.sqlite"), "no database, but as long as it takes")
        .unwrap();
    assert!(matches!(
        backup(&settings, &directory.path().join("other")),
        Err(OpenError::Damaged { .. })
    ));
    let left: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
