//! A rotation, and the state after a kill between any two of its steps.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::secret::{DeviceToken, Secret};
use crate::store::{DualTime, Store, UnixTime, Uptime, change, check};

const USERS: [&str; 3] = ["alice", "bob", "carol"];

struct State {
    directory: TempDir,
}

impl State {
    /// A state with sealed credentials that nobody works with.
    async fn new(settings: impl FnOnce(PathBuf) -> StoreSettings) -> (Self, StoreSettings) {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path().join("state"));
        let (store, _) = Store::open(&settings, drop).unwrap();
        for user in USERS {
            let credentials = Arc::new(Credentials::new(user, format!("sesame-of-{user}")));
            let now = DualTime { wall: UnixTime(1), served: Uptime(0) };
            store
                .commit(change::register(
                    &account(user),
                    Some(credentials),
                    &DeviceToken::new(b"token").unwrap(),
                    true,
                    now,
                ))
                .await
                .unwrap();
        }
        store.close().await;
        (Self { directory }, settings)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("state").join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn sealed(&self) -> Vec<Vec<u8>> {
        let file = Connection::open(self.path("state.sqlite")).unwrap();
        let mut rows = file.prepare("SELECT credentials FROM accounts ORDER BY id").unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }
}

fn account(user: &str) -> AccountId {
    AccountId::new(user, "imap.example.org:993")
}

async fn opens(settings: &StoreSettings) -> bool {
    let (store, loaded) = Store::open(settings, drop).unwrap();
    store.close().await;
    USERS.iter().zip(&loaded.accounts).all(|(user, record)| {
        *record.credentials.clone().unwrap() == Credentials::new(*user, format!("sesame-of-{user}"))
    })
}

#[tokio::test]
async fn new_key_takes_the_old_ones_place() {
    let (state, settings) = State::new(StoreSettings::sealed).await;
    let (key, sealed) = (state.read("seal.key"), state.sealed());
    let done = Rotated { resealed: 3, left: 0, replace: None };
    assert_eq!(rotate(&settings, None).unwrap(), done);
    assert_ne!(state.read("seal.key"), key);
    assert_eq!(fs::metadata(state.path("seal.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!state.path("seal.key.new").exists());
    for old in sealed {
        let found = fs::read_dir(state.path("")).unwrap().any(|file| {
            fs::read(file.unwrap().path()).unwrap().windows(old.len()).any(|window| window == old)
        });
        assert!(!found, "what the old key opens is erased");
    }
    assert!(opens(&settings).await);
    assert_eq!(rotate(&settings, None).unwrap(), done, "again and again");
    fs::write(state.path("seal.key"), key).unwrap();
    assert!(
        matches!(Store::open(&settings, drop), Err(OpenError::KeyWrong { .. })),
        "the old key is worth nothing"
    );
}

#[tokio::test]
async fn killed_while_the_new_key_waits() {
    let (state, settings) = State::new(StoreSettings::sealed).await;
    let key = state.read("seal.key");
    let CredentialStorage::Sealed(source) = &settings.credentials else { panic!("sealed") };
    let mut connection = schema::connect(&settings.directory).unwrap();
    let rotation = Rotation::begin(&mut connection, source, key::random().unwrap()).unwrap();
    rotation.let_wait().unwrap();
    drop(rotation);
    drop(connection);
    assert!(state.path("seal.key.new").exists());
    assert!(check(&settings).is_ok() && opens(&settings).await);
    assert_eq!(state.read("seal.key"), key, "nothing is sealed with the new one");
    assert_eq!(
        rotate(&settings, None).unwrap().resealed,
        3,
        "what was left behind is not in the way"
    );
    assert!(opens(&settings).await && !state.path("seal.key.new").exists());
}

#[tokio::test]
async fn killed_while_the_new_key_is_half_written() {
    let (state, settings) = State::new(StoreSettings::sealed).await;
    fs::write(state.path("seal.key.new"), "AAAA").unwrap();
    assert!(opens(&settings).await);
    assert_eq!(rotate(&settings, None).unwrap().resealed, 3);
    assert!(opens(&settings).await);
}

#[tokio::test]
async fn killed_before_the_new_key_is_in_its_place() {
    let (state, settings) = State::new(StoreSettings::sealed).await;
    let key = state.read("seal.key");
    let CredentialStorage::Sealed(source) = &settings.credentials else { panic!("sealed") };
    let mut connection = schema::connect(&settings.directory).unwrap();
    let rotation = Rotation::begin(&mut connection, source, key::random().unwrap()).unwrap();
    rotation.let_wait().unwrap();
    assert_eq!(rotation.commit().unwrap(), (3, 0));
    drop(connection);
    let new = state.read("seal.key.new");
    assert!(check(&settings).is_ok());
    assert!(state.path("seal.key.new").exists(), "a check changes nothing");
    assert!(opens(&settings).await);
    assert_eq!(state.read("seal.key"), new);
    assert_ne!(new, key);
    assert!(!state.path("seal.key.new").exists());
    assert!(opens(&settings).await);
}

#[tokio::test]
async fn state_that_cannot_be_rotated_is_left_as_it_is() {
    let (state, settings) = State::new(StoreSettings::sealed).await;
    let before = (state.read("state.sqlite"), state.read("seal.key"));
    let memory = StoreSettings::memory(settings.directory.clone());
    assert!(matches!(rotate(&memory, None), Err(OpenError::NotSealed)));
    let new_key = state.directory.path().join("new.key");
    assert!(
        matches!(rotate(&settings, Some(&new_key)), Err(OpenError::KeyMalformed { .. })),
        "it is not there"
    );
    fs::write(&new_key, "AAAA").unwrap();
    assert!(matches!(rotate(&settings, Some(&new_key)), Err(OpenError::KeyMalformed { .. })));
    let (store, _) = Store::open(&settings, drop).unwrap();
    assert!(matches!(rotate(&settings, None), Err(OpenError::InUse { .. })));
    store.close().await;
    assert_eq!((state.read("state.sqlite"), state.read("seal.key")), before);

    fs::write(state.path("seal.key"), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    assert!(matches!(rotate(&settings, None), Err(OpenError::KeyWrong { .. })));
    assert!(!state.path("seal.key.new").exists());
    assert_eq!(state.read("state.sqlite"), before.0);
}

#[tokio::test]
async fn key_from_the_environment_is_replaced_by_the_operator() {
    let variable = |letter: &str| {
        let source =
            KeySource::Environment(Secret::new(format!("{}=", letter.repeat(43)).into_bytes()));
        move |directory: PathBuf| StoreSettings {
            postgres: None,
            directory,
            credentials: CredentialStorage::Sealed(source),
        }
    };
    let (state, settings) = State::new(variable("A")).await;
    let error = rotate(&settings, None).unwrap_err();
    assert!(matches!(error, OpenError::NewKeyNeeded { .. }), "{error}");
    assert!(
        error.to_string().contains("variable DELTAPUSH_SEAL_KEY")
            && error.to_string().contains("--new-key-file")
    );
    let new_key = state.directory.path().join("new.key");
    fs::write(&new_key, format!("{}=\n", "E".repeat(43))).unwrap();
    let rotated = rotate(&settings, Some(&new_key)).unwrap();
    assert_eq!(rotated.replace.as_deref(), Some("the environment variable DELTAPUSH_SEAL_KEY"));
    assert!(matches!(Store::open(&settings, drop), Err(OpenError::KeyWrong { .. })));
    assert!(opens(&variable("E")(settings.directory)).await);
}

#[tokio::test]
async fn damaged_credentials_do_not_stop_the_others() {
    let (state, settings) = State::new(StoreSettings::sealed).await;
    let file = Connection::open(state.path("state.sqlite")).unwrap();
    file.execute("UPDATE accounts SET credentials = x'0102' WHERE name = 'bob'", []).unwrap();
    drop(file);
    assert_eq!(rotate(&settings, None).unwrap(), Rotated { resealed: 2, left: 1, replace: None });
    assert_eq!(state.sealed()[1], [1, 2]);
    assert!(check(&settings).unwrap().to_string().contains("1 credentials are damaged"));
}
