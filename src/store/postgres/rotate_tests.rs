//! A new key for several nodes, and the state after a kill between any two steps.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::super::{
    CredentialStorage, DualTime, KeySource, Loaded, OpenError, Rotated, Store, StoreError,
    StoreSettings, UnixTime, Uptime, change, check_shared, key, rotate,
};
use super::super::testing::Database;
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::ownership::Ownership;
use crate::secret::{DeviceToken, Secret};

const NOW: DualTime = DualTime { wall: UnixTime(1_700_000_000), served: Uptime(0) };
/// More than one page.
const ACCOUNTS: usize = 1_203;

fn account(number: usize) -> AccountId {
    AccountId::new(&format!("user{number}"), "imap.example.org:993")
}

struct Scene {
    database: Database,
    settings: StoreSettings,
    ticket: Secret,
}

impl Scene {
    /// A database with accounts and a ticket key, and no node.
    async fn new() -> Self {
        let database = Database::new();
        let settings = database.settings("seal.key");
        let ticket = Secret::new(b"ticket keys of all nodes".to_vec());
        let scene = Self { database, settings, ticket };
        let store = scene.open(&scene.settings).await.unwrap();
        let commits = (0..ACCOUNTS).map(|number| {
            let store = store.clone();
            tokio::spawn(async move { register(&store, number).await })
        });
        for commit in commits.collect::<Vec<_>>() {
            commit.await.unwrap().unwrap();
        }
        store.share_value("ticket keys", &scene.ticket, None).await.unwrap();
        store.close().await;
        scene
    }

    async fn open(&self, settings: &StoreSettings) -> Result<Store, OpenError> {
        let opened = Store::open_postgres(settings, Ownership::of_node(), 1, drop).await;
        opened.map(|(store, _)| store)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.database.directory.path().join(name)
    }

    /// A node that starts now opens everything.
    async fn opens(&self, settings: &StoreSettings) -> bool {
        let store = self.open(settings).await.unwrap();
        let slots: Vec<_> = crate::ownership::Slot::all().collect();
        let Loaded { accounts, .. } = store.load_slots(&slots).await.unwrap();
        let shared = store.shared_values().await.unwrap();
        store.close().await;
        let is_right = |record: &crate::store::AccountRecord| {
            let user = record.account.user.to_string();
            record.credentials.as_deref() == Some(&Credentials::new(user, "sesame"))
        };
        accounts.len() == ACCOUNTS
            && accounts.iter().all(is_right)
            && shared[0].value == self.ticket
    }
}

async fn register(store: &Store, number: usize) -> Result<(), StoreError> {
    let user = account(number).user.to_string();
    let credentials = Some(Arc::new(Credentials::new(user, "sesame")));
    let token = DeviceToken::new(format!("openpgp:{number}").as_bytes()).unwrap();
    store.commit(change::register(&account(number), credentials, &token, true, NOW)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn new_key_is_that_of_all_nodes() {
    let scene = Scene::new().await;
    fs::copy(scene.path("seal.key"), scene.path("other.key")).unwrap();
    let other = scene.database.settings("other.key");
    let stood_still = scene.open(&other).await.unwrap();
    let done = Rotated { resealed: ACCOUNTS, left: 0, replace: None };
    assert_eq!(rotate(&scene.settings, None).unwrap(), done);
    assert!(scene.opens(&scene.settings).await);
    assert!(!scene.path("seal.key.new").exists());
    // A node with the old key does not start, and one that stood still seals nothing with it.
    let refused = scene.open(&other).await.unwrap_err();
    assert!(matches!(refused, OpenError::SharedKeyWrong { .. }), "{refused}");
    let refused = register(&stood_still, ACCOUNTS).await.unwrap_err();
    assert!(matches!(refused, StoreError::Outdated(_)), "{refused}");
    assert!(refused.to_string().contains("the key that seals passwords has been replaced"));
    let shared = stood_still.share_value("certificate/a.key.pem", &scene.ticket, None).await;
    assert!(matches!(shared, Err(StoreError::Outdated(_))), "{shared:?}");
    fs::copy(scene.path("seal.key"), scene.path("other.key")).unwrap();
    assert!(scene.opens(&other).await, "with the copied key");
    assert_eq!(rotate(&scene.settings, None).unwrap(), done, "again and again");
    stood_still.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn key_stays_while_a_node_runs() {
    let scene = Scene::new().await;
    let key = fs::read(scene.path("seal.key")).unwrap();
    scene.database.sql(
        "INSERT INTO nodes (id, name, program, schema_min, schema_max, lease_until)
         VALUES (5, 'push-5', '', 1, 1, clock_timestamp() + INTERVAL '1 minute')",
    );
    let refused = rotate(&scene.settings, None).unwrap_err();
    assert!(matches!(&refused, OpenError::NodesRun { nodes } if nodes == "push-5"), "{refused}");
    assert_eq!(fs::read(scene.path("seal.key")).unwrap(), key);
    assert!(!scene.path("seal.key.new").exists());
    scene.database.sql("UPDATE nodes SET lease_until = now() - INTERVAL '1 second'");
    rotate(&scene.settings, None).unwrap();
    let missing = rotate(&scene.database.settings("none.key"), None).unwrap_err();
    assert!(matches!(missing, OpenError::SharedKeyMissing { .. }), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_that_breaks_leaves_the_old_key() {
    let scene = Scene::new().await;
    let key = fs::read(scene.path("seal.key")).unwrap();
    // It breaks at its last statement.
    scene.database.sql(
        "CREATE FUNCTION refuse() RETURNS TRIGGER LANGUAGE plpgsql AS
             'BEGIN RAISE EXCEPTION ''no''; END';
         CREATE TRIGGER refuse BEFORE UPDATE ON meta FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let refused = rotate(&scene.settings, None).unwrap_err();
    assert!(matches!(refused, OpenError::Refused(_)), "{refused}");
    assert!(scene.path("seal.key.new").exists(), "as after a kill before the commit");
    assert_eq!(fs::read(scene.path("seal.key")).unwrap(), key);
    assert!(scene.opens(&scene.settings).await);
    scene.database.sql("DROP TRIGGER refuse ON meta");
    rotate(&scene.settings, None).unwrap();
    assert!(scene.opens(&scene.settings).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_new_key_is_in_its_place() {
    let scene = Scene::new().await;
    let old = fs::read(scene.path("seal.key")).unwrap();
    rotate(&scene.settings, None).unwrap();
    let new = fs::read(scene.path("seal.key")).unwrap();
    let kill = || {
        fs::write(scene.path("seal.key.new"), &new).unwrap();
        fs::write(scene.path("seal.key"), &old).unwrap();
    };
    kill();
    assert!(check_shared(&scene.settings).unwrap().to_string().contains("opens all sealed"));
    assert!(scene.path("seal.key.new").exists(), "a check changes nothing");
    assert!(scene.opens(&scene.settings).await);
    assert_eq!(fs::read(scene.path("seal.key")).unwrap(), new);
    kill();
    rotate(&scene.settings, None).unwrap();
    assert!(scene.opens(&scene.settings).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn key_in_another_place_is_replaced_by_the_operator() {
    let scene = Scene::new().await;
    let variable = |key: &[u8]| StoreSettings {
        credentials: CredentialStorage::Sealed(KeySource::Environment(Secret::new(key.to_vec()))),
        ..scene.settings.clone()
    };
    let before = variable(&fs::read(scene.path("seal.key")).unwrap());
    let refused = rotate(&before, None).unwrap_err();
    assert!(matches!(refused, OpenError::NewKeyNeeded { .. }), "{refused}");
    let new = scene.path("new.key");
    fs::write(&new, format!("{}=\n", "E".repeat(43))).unwrap();
    let rotated = rotate(&before, Some(&new)).unwrap();
    assert_eq!(rotated.replace.as_deref(), Some("the environment variable DELTAPUSH_SEAL_KEY"));
    assert!(scene.open(&before).await.is_err());
    assert!(scene.opens(&variable(&fs::read(&new).unwrap())).await);
    assert!(key::read(&new).unwrap().is_some());
}
