//! The place of a state in a test: a folder, or a database of which one node owns all slots.

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::ownership::{Ownership, Slot};
use crate::store::postgres::testing::Database;

/// A test for both places.
macro_rules! in_both {
    ($name:ident) => {
        mod $name {
            #[tokio::test]
            async fn in_a_file() {
                let directory = tempfile::tempdir().unwrap();
                super::$name(&super::Home::file(directory.path())).await;
            }

            #[tokio::test]
            async fn in_a_database() {
                super::$name(&super::Home::database()).await;
            }
        }
    };
}
pub(super) use in_both;

/// Numbers of nodes.
static NODE: AtomicI64 = AtomicI64::new(1);

pub(super) enum Home {
    File(PathBuf),
    /// The content of the disk at some moment.
    Copy(tempfile::TempDir),
    Database(Arc<Database>),
    /// To look at: by a node that owns nothing.
    Look(Arc<Database>),
}

impl Home {
    pub(super) fn file(directory: &Path) -> Self {
        Self::File(directory.to_owned())
    }

    pub(super) fn database() -> Self {
        Self::Database(Arc::new(Database::new()))
    }

    /// The rest if the process is killed now.
    pub(super) fn killed(&self) -> Self {
        match self {
            Self::File(directory) => Self::Copy(killed(directory)),
            Self::Copy(copy) => Self::Copy(killed(copy.path())),
            Self::Database(database) | Self::Look(database) => Self::Look(Arc::clone(database)),
        }
    }

    pub(super) async fn open(&self) -> (Store, Loaded, Changes) {
        match self {
            Self::File(directory) => open(directory),
            Self::Copy(copy) => open(copy.path()),
            Self::Database(database) => {
                let (ownership, node) = (Ownership::of_node(), NODE.fetch_add(1, Ordering::SeqCst));
                let opened = open_database(database, ownership.clone(), node).await;
                database.give_all(node, &ownership);
                opened
            }
            Self::Look(database) => open_database(database, Ownership::of_node(), 0).await,
        }
    }

    /// Reports if the files of the state contain these bytes. A database's are its own.
    pub(super) fn holds(&self, needle: &[u8]) -> bool {
        match self {
            Self::File(directory) => holds(directory, needle),
            Self::Copy(copy) => holds(copy.path(), needle),
            Self::Database(_) | Self::Look(_) => false,
        }
    }
}

/// With all accounts.
async fn open_database(
    database: &Database,
    ownership: Ownership,
    node: i64,
) -> (Store, Loaded, Changes) {
    let changes = Changes::default();
    let seen = Arc::clone(&changes);
    let changed = move |change| seen.lock().unwrap().push(change);
    let settings = database.settings("seal.key");
    let opened = Store::open_postgres(&settings, ownership, node, changed).await;
    let (store, loaded) = opened.unwrap();
    let slots: Vec<Slot> = Slot::all().collect();
    let accounts = store.load_slots(&slots).await.unwrap();
    let unannounced = store.pending(&slots).await.unwrap().unannounced;
    let loaded =
        Loaded { accounts: accounts.accounts, tokens: accounts.tokens, unannounced, ..loaded };
    (store, loaded, changes)
}
