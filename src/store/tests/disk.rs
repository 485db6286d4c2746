//! The files: whose they are, what is written when, and what happens when nothing can be.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::push::registry::Registry;
use crate::store::full_disk::limit_pages;

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
async fn files_are_for_their_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = open(directory.path());
    register(&store, "alice", "one").await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory.path().join("state")), 0o700);
    let files: Vec<_> = fs::read_dir(directory.path().join("state"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{file:?}");
    }
}

#[tokio::test]
async fn journal_pages_kept_by_a_reader_are_erased_after_it_has_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = open(directory.path());
    register(&store, "alice", "one").await;
    let reader = schema::look(&directory.path().join("state")).unwrap();
    let reading = reader.unchecked_transaction().unwrap();
    reading.query_row("SELECT count(*) FROM accounts", [], |_| Ok(())).unwrap();
    let begun = std::time::Instant::now();
    store.commit(change::remove_account(&account("alice"))).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "nobody waits for it");
    assert!(holds(directory.path(), b"alice"), "the reader may still look at it");
    drop(reading);
    store.commit(change::client_idles(&account("nobody"), "INBOX", Uptime(1))).await.unwrap();
    assert!(!holds(directory.path(), b"alice"));
}

/// Number of transactions in the journal: a frame that ends one has the file's size (SQLite file format, section 4.1).
fn commits(directory: &Path) -> usize {
    let journal = fs::read(directory.join("state/state.sqlite-wal")).unwrap();
    let frames = journal.get(32..).unwrap().chunks_exact(24 + 4096);
    let salt = journal[16..24].to_vec();
    frames.filter(|frame| frame[8..16] == salt && frame[4..8] != [0; 4]).count()
}

#[tokio::test]
async fn queued_operations_are_committed_together() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, changes) = open(directory.path());
    register(&store, "alice", "one").await;
    let before = commits(directory.path());
    // The thread is held up until all of them are queued.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let gate = tokio::spawn({
        let store = store.clone();
        async move { store.commit(move |_| Ok(held.recv().ok())).await }
    });
    let writes: Vec<_> = (0..200_u32)
        .map(|uid_next| {
            let store = store.clone();
            tokio::spawn(async move {
                let position = Position { uid_validity: 7, uid_next: u64::from(uid_next) };
                store
                    .commit(change::noticed(
                        &account("alice"),
                        "INBOX",
                        position,
                        Announce::All,
                        NOW,
                    ))
                    .await
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
    assert_eq!(
        changes
            .lock()
            .unwrap()
            .iter()
            .filter(|change| matches!(change, Change::Pending { .. }))
            .count(),
        200
    );
    let after = commits(directory.path());
    assert!(after > before && after - before <= 2, "{} commits for 200 writes", after - before);
}

#[tokio::test]
async fn failing_change_takes_no_other_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, changes) = open(directory.path());
    register(&store, "alice", "one").await;
    changes.lock().unwrap().clear();
    let alice = account("alice");
    let broken = store.commit({
        let alice = alice.clone();
        move |state| {
            change::noticed(&alice, "Broken", POSITION, Announce::All, NOW)(state)?;
            Ok(state
                .sql
                .execute("INSERT INTO mailboxes VALUES (99, 'no such account', 1, 1)", &[])?)
        }
    });
    let (good, broken, better) = tokio::join!(
        store.commit(change::noticed(&alice, "INBOX", POSITION, Announce::Nothing, NOW)),
        broken,
        store.commit(change::noticed(&alice, "Archive", POSITION, Announce::Nothing, NOW)),
    );
    assert!(matches!(broken, Err(StoreError::Database(_))), "{broken:?}");
    assert!(good.is_ok() && better.is_ok());
    let names: Vec<_> =
        store.positions(&alice).await.unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["Archive", "INBOX"]);
    assert_eq!(*changes.lock().unwrap(), [], "what was rolled back is not told");
}

/// A disk that can be full: a small file system of its own where one may be mounted (root in a container of its own often
/// may not), else a limit on the state file's pages, which SQLite answers in the same way.
struct SmallDisk {
    directory: tempfile::TempDir,
    mounted: bool,
}

impl SmallDisk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "none"])
            .arg(directory.path())
            .output();
        let mounted = mount.is_ok_and(|output| output.status.success());
        println!(
            "{}",
            if mounted {
                "a file system of 1 MiB"
            } else {
                "no file system can be mounted: a limit on pages"
            }
        );
        Self { directory, mounted }
    }

    async fn fill(&self, store: &Store) {
        if self.mounted {
            let mut ballast = fs::File::create(self.ballast()).unwrap();
            while ballast.write(&[0; 4096]).is_ok() {}
        } else {
            limit_pages(store, 1).await;
        }
    }

    async fn make_room(&self, store: &Store) {
        if self.mounted {
            fs::remove_file(self.ballast()).unwrap();
        } else {
            limit_pages(store, 1_000_000).await;
        }
    }

    fn ballast(&self) -> PathBuf {
        self.directory.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.mounted {
            Command::new("umount").arg("-l").arg(self.directory.path()).status().ok();
        }
    }
}

#[tokio::test]
async fn full_disk_is_said_and_passes() {
    let disk = SmallDisk::new();
    let path = disk.directory.path();
    let (store, ..) = open(path);
    register(&store, "alice", "one").await;
    disk.fill(&store).await;
    let mut full = 0;
    for index in 0..50 {
        let name = format!("{index}{}", "x".repeat(900));
        match store
            .commit(change::register(
                &account("bob"),
                Some(credentials("bob")),
                &token(&name),
                true,
                MOMENT,
            ))
            .await
        {
            Ok(()) => {}
            Err(StoreError::DiskFull) => full += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(full > 0);
    // News that could not be noted did not happen, and is noticed again later.
    let alice = account("alice");
    let mailbox = "x".repeat(50_000);
    let unnoted =
        store.commit(change::noticed(&alice, &mailbox, POSITION, Announce::All, NOW)).await;
    assert!(matches!(unnoted, Err(StoreError::DiskFull)), "{unnoted:?}");
    assert_eq!(store.positions(&alice).await.unwrap(), [], "reading goes on");
    assert!(!store.status().await.unwrap()[0].tokens[0].pending);
    disk.make_room(&store).await;
    store.commit(change::noticed(&alice, &mailbox, POSITION, Announce::All, NOW)).await.unwrap();
    register(&store, "carol", "three").await;
    let copy = killed(path);
    assert_eq!(check(&settings(copy.path())).unwrap().pending, 1, "nothing is corrupted");
    let (_, loaded, _) = open(copy.path());
    assert!(loaded.accounts.iter().any(|record| record.account == account("carol")));
    assert_eq!(loaded.unannounced.len(), 1);
    store.close().await;
}

/// In doubt it is a push: news is pushed although it cannot be written, once, and not again when it is written at last.
#[tokio::test]
async fn news_is_pushed_from_memory_while_the_disk_is_full() {
    let disk = SmallDisk::new();
    let (registry, _events, mut news) = Registry::open(&settings(disk.directory.path())).unwrap();
    let alice = account("alice");
    for name in ["one", "two"] {
        registry.register(&alice, &*credentials("alice"), &token(name)).await.unwrap();
    }
    disk.fill(registry.store()).await;
    let mailbox = "x".repeat(50_000);
    let mut pushed_tokens =
        || std::iter::from_fn(|| news.try_recv()).map(|(token, _)| token).collect::<Vec<_>>();
    for pushed in [vec![token("one"), token("two")], vec![], vec![]] {
        let unnoted = registry.noticed(&alice, &mailbox, POSITION, true).await;
        assert!(matches!(unnoted, Err(StoreError::DiskFull)), "{unnoted:?}");
        assert_eq!(pushed_tokens(), pushed, "each message once");
    }
    assert!(!registry.is_writable());
    let waiting = tokio::time::timeout(Duration::from_millis(50), registry.until_writable());
    assert!(waiting.await.is_err());
    // A failed write does not matter here.
    drop(registry.announced(&token("one"), Generation::default()).await);
    disk.make_room(registry.store()).await;
    assert!(registry.try_writing().await);
    registry.until_writable().await;
    let next = Position { uid_next: POSITION.uid_next + 1, ..POSITION };
    // Found again together with one that wakes nobody.
    let look = Look { position: next, news_next: POSITION.uid_next };
    registry.noticed(&alice, &mailbox, look, true).await.unwrap();
    assert_eq!(pushed_tokens(), [token("two")], "the first one was accepted");
    registry.noticed(&alice, &mailbox, next, true).await.unwrap();
    assert_eq!(pushed_tokens(), [token("one"), token("two")]);
    registry.close().await;
}

/// Only a file system can be so full that not even the journal fits: where none can be mounted, the error is all that there
/// is to see.
#[tokio::test]
async fn start_without_any_room_names_the_cure_and_changes_nothing() {
    let full = rusqlite::ffi::Error { code: rusqlite::ErrorCode::DiskFull, extended_code: 13 };
    let error = OpenError::from(rusqlite::Error::SqliteFailure(full, None));
    assert!(
        matches!(error, OpenError::DiskFull) && error.to_string().contains("make room"),
        "{error}"
    );

    let disk = SmallDisk::new();
    let path = disk.directory.path();
    let (store, ..) = open(path);
    register(&store, "alice", "one").await;
    if disk.mounted {
        store.close().await;
        disk.fill(&store).await;
        let error = Store::open(&settings(path), drop).unwrap_err();
        assert!(matches!(error, OpenError::DiskFull), "{error}");
        disk.make_room(&store).await;
        let (store, loaded, _) = open(path);
        assert_eq!(loaded.accounts[0].credentials, Some(credentials("alice")));
        store.close().await;
    }
}
