//! Moves between a state file and a real PostgreSQL.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use super::*;
use crate::credentials::Credentials;
use crate::ownership::{Ownership, Slot};
use crate::secret::DeviceToken;
use crate::store::postgres_testing::Database;
use crate::store::{DualTime, Store, UnixTime, Uptime, change};

const MACHINE: &str = "push-1";
const NOW: DualTime = DualTime { wall: UnixTime(1_700_000_000), served: Uptime(5) };

/// Tables that only nodes have, and columns that are computed.
const OF_NODES: [&str; 11] = [
    "accounts.slot",
    "ended_nodes",
    "events",
    "forwarded",
    "meta",
    "nodes",
    "served.expired_to",
    "served.expires",
    "server_facts",
    "shared",
    "slots",
];

/// No certificates.
struct NoFiles;

impl CertificateFiles for NoFiles {
    fn read(&self) -> Result<Vec<(String, Secret)>, String> {
        Ok(Vec::new())
    }

    fn write(&self, values: &[SharedValue]) -> Result<usize, String> {
        Ok(values.len())
    }
}

/// A machine with its folder, and an empty database.
struct Scene {
    database: Database,
    settings: StoreSettings,
}

impl Scene {
    fn new() -> Self {
        let database = Database::new();
        let mut settings = database.settings("seal.key");
        settings.directory = database.directory.path().join("state");
        Self { database, settings }
    }

    /// The settings of a machine without the database.
    fn alone(&self) -> StoreSettings {
        StoreSettings { postgres: None, ..self.settings.clone() }
    }

    /// A state file with these accounts, and something in each column of each table.
    async fn with_accounts(count: usize) -> Self {
        let scene = Self::new();
        let (store, _) = Store::open(&scene.alone(), drop).unwrap();
        for number in 0..count {
            register(&store, number).await;
        }
        store.close().await;
        let file = scene.file();
        file.execute_batch(
            "UPDATE accounts SET called = id + 1, watched = id % 2;
             UPDATE tokens SET pending = id + 40, pending_since = 2, accepted = 3, given_up = 4,
                 given_up_reason = 'answered 403 \u{e9}', gone = 5, gone_first = 6, gone_last = 7,
                 gone_until = 8, gone_served = 9, fetched_plain = 10, left_plain = 11,
                 left_senders = x'00ff';
             INSERT INTO mailboxes SELECT id, 'INBOX', 4294967295, 7, 6 FROM accounts;
             INSERT INTO mailboxes SELECT id, 'B\u{fc}ro', 1, 2, 3 FROM accounts;
             INSERT INTO idled SELECT id, 'inbox', 9 FROM accounts;
             INSERT INTO known_logins VALUES (randomblob(16), 1, 2, 3, 1, 5), (zeroblob(16), 0, -2, 3, 0, 5);
             INSERT INTO erased VALUES (7, 'zoe', 'imap.example.org:993', 4, 'gone');
             UPDATE served SET seconds = 77;",
        )
        .unwrap();
        scene
    }

    fn file(&self) -> Connection {
        schema::connect(&self.settings.directory).unwrap()
    }

    fn move_to(&self, target: Place) -> Result<MoveReport, OpenError> {
        move_state(&self.settings, target, MACHINE, NoFiles)
    }

    fn undo(&self, target: Place) -> Result<String, OpenError> {
        undo_move(&self.settings, target, MACHINE)
    }

    async fn open_node(&self) -> Result<Store, OpenError> {
        let opened = Store::open_postgres(&self.settings, Ownership::of_node(), 1, drop).await;
        opened.map(|(store, _)| store)
    }

    /// The number of accounts that a deltapush with the file finds, with their passwords.
    async fn accounts_in_file(&self) -> Result<usize, OpenError> {
        let (store, loaded) = Store::open(&self.alone(), drop)?;
        store.close().await;
        assert!(loaded.accounts.iter().all(|account| account.credentials.is_some()));
        Ok(loaded.accounts.len())
    }

    fn digests(&self) -> Vec<digest::RowsDigest> {
        let file = self.file();
        TABLES.iter().map(|table| StatePlace::File(&file).digest(table).unwrap()).collect()
    }
}

fn account(number: usize) -> AccountId {
    AccountId::new(&format!("user{number}"), "imap.example.org:993")
}

async fn register(store: &Store, number: usize) {
    let user = account(number).user.to_string();
    let credentials = Some(Arc::new(Credentials::new(user, "sesame")));
    let token = DeviceToken::new(format!("openpgp:{number}").as_bytes()).unwrap();
    let change = change::register(&account(number), credentials, &token, true, NOW);
    store.commit(change).await.unwrap();
}

/// The columns of a state, as `table.column`, without those of nodes.
fn moved() -> BTreeSet<String> {
    let columns = TABLES.iter().flat_map(|table| {
        table.columns.iter().map(|(column, _)| format!("{}.{column}", table.name))
    });
    columns.filter(|column| !column.starts_with("meta.")).collect()
}

fn without_those_of_nodes<'a>(columns: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let is_of_nodes = |column: &str| {
        OF_NODES.contains(&column)
            || column.split_once('.').is_some_and(|(table, _)| OF_NODES.contains(&table))
    };
    columns.filter(|column| !is_of_nodes(column)).map(str::to_owned).collect()
}

/// A table or column that is added to one of the two schemas has to move, or to be named above.
#[tokio::test]
async fn each_table_and_column_moves_or_is_named() {
    let scene = Scene::with_accounts(0).await;
    let columns: String = scene
        .file()
        .query_row(
            "SELECT group_concat(m.name || '.' || c.name) FROM sqlite_schema m, pragma_table_info(m.name) c
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(without_those_of_nodes(columns.split(',')), moved(), "of the file");
    scene.open_node().await.unwrap().close().await;
    let columns = scene.database.sql(
        "SELECT string_agg(table_name || '.' || column_name, ',') FROM information_schema.columns
         WHERE table_schema = 'public'",
    );
    assert_eq!(without_those_of_nodes(columns.split(',')), moved(), "of the database");
    // Rows of `meta`, too: the versions are those of the place, and the key is noted by itself.
    let names = "SELECT string_agg(name, ',' ORDER BY name) FROM meta";
    assert_eq!(scene.database.sql(names), "key_check,login_key,schema_needs,schema_version");
}

#[tokio::test]
async fn state_moves_there_and_back_unchanged() {
    let scene = Scene::with_accounts(300).await;
    let before = scene.digests();
    assert!(before.iter().all(|table| table.rows > 0), "each table has rows: {before:?}");
    let report = scene.move_to(Place::Database).unwrap();
    assert_eq!((report.opened, report.damaged, report.was_there), (300, 0, false));
    let said = report.to_string();
    for words in [
        "moved         from /",
        "state on push-1\n",
        "        300  accounts\n",
        "        600  mailboxes with a position\n",
        "seal.key opens the passwords of 300 accounts\n",
        "is a copy now",
        "next          start deltapush;",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let slots: Vec<String> = (0..300)
        .map(|number| format!("{}|{}", account(number).user, Slot::of(&account(number)).number()))
        .collect();
    let stored = scene.database.sql("SELECT name, slot FROM accounts ORDER BY id");
    assert_eq!(stored.lines().collect::<Vec<_>>(), slots);

    // A node works with it: passwords open, and numbers go on behind those that came along.
    let store = scene.open_node().await.unwrap();
    let loaded = store.load_account(&account(7)).await.unwrap();
    let credentials = loaded.accounts[0].credentials.clone().unwrap();
    assert_eq!(*credentials, Credentials::new("user7", "sesame"));
    assert_eq!(loaded.accounts[0].called, Some(UnixTime(9)));
    register(&store, 300).await;
    store.close().await;
    assert_eq!(scene.database.sql("SELECT max(id) FROM accounts"), "301");
    assert_eq!(scene.database.sql("SELECT nextval('generations')"), "341");
    scene.database.sql("DELETE FROM accounts WHERE id = 301");

    let report = scene.move_to(Place::File).unwrap();
    assert_eq!((report.opened, report.was_there), (300, false));
    assert!(
        report.to_string().contains("remove `storage.postgres` from this machine's"),
        "{report}"
    );
    assert_eq!(scene.digests(), before);
    assert_eq!(scene.accounts_in_file().await.unwrap(), 300);
    let check = check(&scene.alone()).unwrap().to_string();
    assert!(check.contains("seal.key opens all sealed credentials"), "{check}");
}

#[tokio::test]
async fn source_of_a_move_is_a_copy_with_which_nothing_starts() {
    let scene = Scene::with_accounts(2).await;
    scene.move_to(Place::Database).unwrap();
    let refused = scene.accounts_in_file().await.unwrap_err();
    let said = refused.to_string();
    assert!(matches!(refused, OpenError::Moved { place: Place::File, .. }), "{said}");
    for words in [
        "set `storage.postgres` again",
        "deltapush state move --to sqlite`",
        "deltapush state move --to postgres --undo`",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(matches!(crate::store::rotate(&scene.alone(), None), Err(OpenError::Moved { .. })));
    assert!(matches!(scene.move_to(Place::Database), Err(OpenError::Moved { .. })));
    let check = check(&scene.alone()).unwrap().to_string();
    assert!(check.contains("; moved to database test"), "{check}");
    // The old copy is used again in spite of what it lacks.
    assert!(scene.undo(Place::Database).unwrap().ends_with("state on push-1"));
    assert_eq!(scene.accounts_in_file().await.unwrap(), 2);
    assert!(matches!(scene.undo(Place::Database), Err(OpenError::NotMoved { .. })));

    // The same in the other direction; a copy is replaced as a whole.
    let scene = Scene::with_accounts(2).await;
    scene.move_to(Place::Database).unwrap();
    let store = scene.open_node().await.unwrap();
    register(&store, 2).await;
    store.close().await;
    scene.move_to(Place::File).unwrap();
    let refused = scene.open_node().await.unwrap_err();
    assert!(matches!(refused, OpenError::Moved { place: Place::Database, .. }), "{refused}");
    assert!(refused.to_string().contains("remove `storage.postgres`"), "{refused}");
    assert!(matches!(scene.move_to(Place::File), Err(OpenError::Moved { .. })));
    let check = crate::store::check_shared(&scene.settings).unwrap().to_string();
    assert!(check.contains("; moved to /"), "{check}");
    assert_eq!(scene.accounts_in_file().await.unwrap(), 3);
    scene.undo(Place::File).unwrap();
    let store = scene.open_node().await.unwrap();
    register(&store, 3).await;
    store.close().await;
    for target in [Place::File, Place::Database] {
        let refused = scene.move_to(target).unwrap_err();
        assert!(matches!(refused, OpenError::NotEmpty { .. }), "{refused}");
    }
}

/// A node that stood still while the state was moved acknowledges nothing any more.
#[tokio::test]
async fn node_that_stood_still_during_a_move_stores_no_tokens() {
    let scene = Scene::with_accounts(1).await;
    scene.move_to(Place::Database).unwrap();
    let store = scene.open_node().await.unwrap();
    scene.move_to(Place::File).unwrap();
    let token = DeviceToken::new(b"openpgp:late").unwrap();
    let change = change::register(&account(0), None, &token, true, NOW);
    let refused = store.commit(change).await.unwrap_err();
    assert!(refused.to_string().contains("moved to another place"), "{refused}");
    assert_eq!(scene.database.sql("SELECT count(*) FROM tokens"), "1");
    store.close().await;
}

#[tokio::test]
async fn move_that_was_cut_off_between_its_commits_is_finished() {
    let scene = Scene::with_accounts(3).await;
    scene.move_to(Place::Database).unwrap();
    let unmark = || scene.file().execute("DELETE FROM meta WHERE name = 'moved'", []).unwrap();
    assert_eq!(unmark(), 1);
    let report = scene.move_to(Place::Database).unwrap();
    assert!(report.was_there && report.to_string().contains("was cut off"), "{report}");
    assert!(matches!(scene.accounts_in_file().await, Err(OpenError::Moved { .. })));
    // A node has worked with it since: it is another state.
    unmark();
    let store = scene.open_node().await.unwrap();
    register(&store, 3).await;
    store.close().await;
    let refused = scene.move_to(Place::Database).unwrap_err();
    assert!(matches!(refused, OpenError::NotEmpty { .. }), "{refused}");
    assert!(refused.to_string().contains("states are not merged"), "{refused}");
    assert_eq!(scene.accounts_in_file().await.unwrap(), 3);
    assert_eq!(scene.database.sql("SELECT count(*) FROM accounts"), "4");
}

/// News that no owner has taken in when all nodes were stopped wakes its devices from the file, once.
#[tokio::test]
async fn forwarded_news_becomes_pending_in_a_file() {
    let scene = Scene::with_accounts(3).await;
    scene.move_to(Place::Database).unwrap();
    scene.database.sql("UPDATE tokens SET pending = NULL WHERE id > 1");
    let forwarded = "INSERT INTO forwarded (account, at, data) VALUES (2, 90, ''), (2, 80, '')";
    scene.database.sql(forwarded);
    scene.move_to(Place::File).unwrap();
    let pending =
        "SELECT group_concat(account || ':' || pending || ':' || pending_since) FROM tokens";
    let pending: String = scene.file().query_row(pending, [], |row| row.get(0)).unwrap();
    assert_eq!(pending, "1:41:2,2:42:80");
    // Cut off before the database was marked as moved: the next attempt finds the same.
    scene.database.sql("DELETE FROM meta WHERE name = 'moved'");
    assert!(scene.move_to(Place::File).unwrap().was_there);
}

#[tokio::test]
async fn nothing_changes_while_anything_is_in_use() {
    let scene = Scene::with_accounts(2).await;
    let (store, _) = Store::open(&scene.alone(), drop).unwrap();
    for target in [Place::Database, Place::File] {
        let refused = scene.move_to(target).unwrap_err();
        assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    }
    store.close().await;
    assert_eq!(scene.database.sql("SELECT to_regclass('meta') IS NULL"), "t");
    let refused = scene.move_to(Place::File).unwrap_err();
    assert!(matches!(refused, OpenError::NoTables), "{refused}");
    let alone = scene.alone();
    let none = move_state(&alone, Place::Database, MACHINE, NoFiles).unwrap_err();
    assert!(matches!(none, OpenError::NoDatabase), "{none}");

    scene.move_to(Place::Database).unwrap();
    scene.database.sql(
        "INSERT INTO nodes (id, name, program, schema_min, schema_max, lease_until)
         VALUES (5, 'push-5', '', 1, 1, clock_timestamp() + INTERVAL '1 minute')",
    );
    let refused = scene.move_to(Place::File).unwrap_err();
    assert!(matches!(&refused, OpenError::NodesRun { nodes } if nodes == "push-5"), "{refused}");
    assert_eq!(scene.database.sql("SELECT count(*) FROM nodes"), "1");
    assert!(matches!(scene.accounts_in_file().await, Err(OpenError::Moved { .. })));
}

#[tokio::test]
async fn other_keys_are_refused_at_either_place() {
    let scene = Scene::with_accounts(2).await;
    let key = scene.database.directory.path().join("seal.key");
    let right = fs::read(&key).unwrap();
    fs::write(&key, format!("{}=\n", "A".repeat(43))).unwrap();
    let refused = scene.move_to(Place::Database).unwrap_err();
    assert!(matches!(refused, OpenError::KeyWrong { .. }), "{refused}");
    // A node was started with the other key on the empty database.
    fs::rename(&scene.settings.directory, scene.database.directory.path().join("aside")).unwrap();
    scene.open_node().await.unwrap().close().await;
    fs::remove_dir_all(&scene.settings.directory).ok();
    fs::rename(scene.database.directory.path().join("aside"), &scene.settings.directory).unwrap();
    fs::write(&key, &right).unwrap();
    let refused = scene.move_to(Place::Database).unwrap_err();
    assert!(matches!(refused, OpenError::OtherKey), "{refused}");
    assert_eq!(scene.accounts_in_file().await.unwrap(), 2);
    scene.database.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    scene.move_to(Place::Database).unwrap();
    fs::write(&key, format!("{}=\n", "A".repeat(43))).unwrap();
    let refused = scene.move_to(Place::File).unwrap_err();
    assert!(matches!(refused, OpenError::SharedKeyWrong { .. }), "{refused}");
    fs::write(&key, &right).unwrap();
    scene.move_to(Place::File).unwrap();
}

#[tokio::test]
async fn damage_stops_the_move_and_damaged_passwords_are_told() {
    let scene = Scene::with_accounts(3).await;
    scene.file().execute("UPDATE accounts SET credentials = x'0102' WHERE id = 2", []).unwrap();
    scene.file().execute("UPDATE erased SET reason = 'a' || char(0)", []).unwrap();
    let refused = scene.move_to(Place::Database).unwrap_err();
    assert!(matches!(refused, OpenError::NulIn { table: "erased accounts" }), "{refused}");
    // The tables before were copied, and are undone.
    assert_eq!(scene.database.sql("SELECT to_regclass('meta') IS NULL"), "t");
    scene.file().execute("UPDATE erased SET reason = CAST(x'ff' AS TEXT)", []).unwrap();
    let refused = scene.move_to(Place::Database).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    scene.file().execute("UPDATE erased SET reason = 'a'", []).unwrap();
    let report = scene.move_to(Place::Database).unwrap();
    assert_eq!((report.opened, report.damaged), (2, 1));
    assert!(report.to_string().contains("1 were damaged before"), "{report}");

    let scene = Scene::with_accounts(3).await;
    scene.file().execute("PRAGMA wal_checkpoint(TRUNCATE)", []).ok();
    let path = scene.settings.directory.join("state.sqlite");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let refused = scene.move_to(Place::Database).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    assert_eq!(scene.database.sql("SELECT to_regclass('meta') IS NULL"), "t");
}

/// Rows that the target changes as they come, by a trigger of somebody else's for example.
#[tokio::test]
async fn copy_that_is_not_the_same_is_undone() {
    let scene = Scene::with_accounts(3).await;
    fs::rename(&scene.settings.directory, scene.database.directory.path().join("aside")).unwrap();
    scene.open_node().await.unwrap().close().await;
    fs::remove_dir_all(&scene.settings.directory).ok();
    fs::rename(scene.database.directory.path().join("aside"), &scene.settings.directory).unwrap();
    scene.database.sql(
        "CREATE FUNCTION alter_row() RETURNS TRIGGER LANGUAGE plpgsql AS
             'BEGIN NEW.told = 0; RETURN NEW; END';
         CREATE TRIGGER alter_row BEFORE INSERT ON mailboxes FOR EACH ROW EXECUTE FUNCTION alter_row()",
    );
    let refused = scene.move_to(Place::Database).unwrap_err();
    assert!(matches!(refused, OpenError::NotTheSame { .. }), "{refused}");
    assert_eq!(scene.database.sql("SELECT count(*) FROM accounts"), "0");
    assert_eq!(scene.accounts_in_file().await.unwrap(), 3);
}

/// Files of certificates, as values.
struct Files(Vec<(String, Secret)>);

impl CertificateFiles for Files {
    fn read(&self) -> Result<Vec<(String, Secret)>, String> {
        Ok(self.0.clone())
    }

    fn write(&self, values: &[SharedValue]) -> Result<usize, String> {
        assert_eq!(values[0].value, self.0[0].1);
        Err("no room".to_owned())
    }
}

#[tokio::test]
async fn certificates_move_along_in_place_of_older_ones() {
    let scene = Scene::with_accounts(1).await;
    let files = || {
        let content = Secret::new(b"secret key".to_vec());
        Files(vec![("certificate/a.key.pem".to_owned(), content)])
    };
    let report = move_state(&scene.settings, Place::Database, MACHINE, files()).unwrap();
    assert_eq!(report.certificates, 1);
    assert!(!scene.database.sql("SELECT encode(value, 'escape') FROM shared").contains("secret"));
    let store = scene.open_node().await.unwrap();
    let values = store.shared_values().await.unwrap();
    assert_eq!((values.len(), &values[0].value), (1, &files().0[0].1));
    let ticket = Secret::new(b"ticket".to_vec());
    store.share_value("ticket keys", &ticket, None).await.unwrap();
    store.close().await;
    // The folder cannot be written: the database is still the state, and the move is repeated.
    let refused = move_state(&scene.settings, Place::File, MACHINE, files()).unwrap_err();
    assert!(refused.to_string().ends_with("cannot be moved: no room"), "{refused}");
    scene.open_node().await.unwrap().close().await;
    let report = scene.move_to(Place::File).unwrap();
    assert!(report.was_there && report.certificates == 2);
    scene.move_to(Place::Database).unwrap();
    assert_eq!(scene.database.sql("SELECT count(*) FROM shared"), "0", "those of the folder count");
}
