//! Things that all nodes show to clients and to an authority: certificates with their keys, the account at the authority, proofs of an
//! order in progress, and the keys of TLS session tickets. The database has them, sealed; each node has a copy in its folder of
//! certificates and in memory.

mod folder;
mod proofs;

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::ownership::{Ownership, Slot};
use crate::reloadable::Reloadable;
use crate::secret::Secret;
use crate::store::{SharedValue, Store, StoreError, UnixTime};
use crate::tls::acme::Companions;
use crate::tls::acme::challenges::{Challenges, ProofContent};
use crate::tls::certs::identity::CertificateError;
use crate::tls::tickets::{NoRandom, SharedTickets, TicketKeys};
use folder::Folder;
use proofs::Proofs;

/// Interval between looks at the folder of certificates.
const LOOK: Duration = Duration::from_secs(5);
/// Interval between looks at the database without a notification.
const LOOK_AT_DATABASE: Duration = Duration::from_secs(30);
/// Time for the other nodes to learn of proofs: a notification takes milliseconds, and a lost one is caught up by a look.
const PUBLICATION: Duration = Duration::from_secs(2);

/// Names of values in the database. Those of files stand behind [`FILE`].
const FILE: &str = "certificate/";
const TICKETS: &str = "ticket keys";
const PROOFS: &str = "challenges";

/// The files of a folder of certificates that all nodes are to have, as values of the database.
///
/// # Errors
/// The folder cannot be read.
pub fn files_of(folder: &Path) -> std::io::Result<Vec<(String, Secret)>> {
    let files = Folder::new(folder).news()?;
    Ok(files.into_iter().map(|file| (format!("{FILE}{}", file.name), file.content)).collect())
}

/// Writes the files among these values into a folder of certificates. Returns their number.
///
/// # Errors
/// [`CertificateError`].
pub fn put_files(folder: &Path, values: &[SharedValue]) -> Result<usize, CertificateError> {
    let mut folder = Folder::new(folder);
    let files = values.iter().filter_map(|value| Some((value.name.strip_prefix(FILE)?, value)));
    let mut count = 0_usize;
    for (name, SharedValue { version, value, .. }) in files {
        folder.take(name, value, *version)?;
        count = count.saturating_add(1);
    }
    Ok(count)
}

/// Why a node cannot take over what all nodes show. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The database cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] CertificateError),
    /// The folder cannot be read.
    #[error("the folder of certificates cannot be read: {0}; see certificate.directory")]
    Folder(#[from] std::io::Error),
    /// The system's random numbers fail.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

/// Things that all nodes show. Clones are handles of the same.
#[derive(Clone)]
pub struct Shared(Arc<SharedParts>);

struct SharedParts {
    store: Store,
    ownership: Ownership,
    tickets: SharedTickets,
    challenges: Challenges,
    copy: Mutex<Copy>,
    changed: Notify,
}

/// The copy of this node.
struct Copy {
    folder: Folder,
    tickets: Option<i64>,
    proofs: Proofs,
    /// The version of the proofs in the database.
    proofs_version: Option<i64>,
}

impl Shared {
    /// Takes over what the other nodes show, before this one shows anything: certificates into the folder at `certificates`.
    /// `challenges` are those that this node answers.
    ///
    /// # Errors
    /// [`SharedError`].
    pub async fn open(
        store: Store,
        ownership: Ownership,
        certificates: &Path,
        challenges: Challenges,
    ) -> Result<Self, SharedError> {
        let keys = Reloadable::new(TicketKeys::read(&[]));
        let tickets = SharedTickets::new(keys, seconds);
        let folder = Folder::new(certificates);
        let copy = Copy { folder, tickets: None, proofs: Proofs::default(), proofs_version: None };
        let (copy, changed) = (Mutex::new(copy), Notify::new());
        let shared =
            Self(Arc::new(SharedParts { store, ownership, tickets, challenges, copy, changed }));
        shared.take().await?;
        shared.rotate().await?;
        Ok(shared)
    }

    /// The session tickets of all nodes.
    #[must_use]
    pub fn tickets(&self) -> SharedTickets {
        self.0.tickets.clone()
    }

    /// Another node has changed something: it is looked at soon.
    pub fn changed(&self) {
        self.0.changed.notify_one();
    }

    /// Keeps this node's copy and the database the same, until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = Instant::now();
        loop {
            let was_told = tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => false,
                () = self.0.changed.notified() => true,
            };
            let is_due = was_told || looked.elapsed() >= LOOK_AT_DATABASE;
            if is_due {
                looked = Instant::now();
            }
            match self.synchronize(is_due).await {
                Ok(()) => {}
                // The store itself says that the database is away.
                Err(SharedError::Store(error)) => debug!("cannot share certificates: {error}"),
                Err(error) => warn!("cannot share certificates with the other nodes: {error}"),
            }
        }
    }

    async fn synchronize(&self, with_database: bool) -> Result<(), SharedError> {
        // A step that fails holds up none of the others.
        let mut done = Ok(());
        if with_database {
            done = done.and(self.take().await).and(self.rotate().await);
        }
        done.and(self.give().await)
    }

    /// Takes over what the database has, as much as can be. Returns the first error.
    async fn take(&self) -> Result<(), SharedError> {
        let values = self.0.store.shared_values().await?;
        let mut copy = self.0.copy.lock().await;
        let mut taken = Ok(());
        for value in values {
            taken = taken.and(self.take_value(&mut copy, &value));
        }
        taken
    }

    fn take_value(&self, copy: &mut Copy, shared: &SharedValue) -> Result<(), SharedError> {
        let SharedValue { name, version, value } = shared;
        if let Some(file) = name.strip_prefix(FILE) {
            if copy.folder.take(file, value, *version)? {
                info!("{file} in the folder of certificates is now that of the other nodes");
            }
        } else if name == TICKETS && copy.tickets != Some(*version) {
            self.0.tickets.keys().set(TicketKeys::read(value.expose()));
            copy.tickets = Some(*version);
        } else if name == PROOFS && copy.proofs_version != Some(*version) {
            copy.proofs.replace(value, &self.0.challenges);
            copy.proofs_version = Some(*version);
        }
        Ok(())
    }

    /// Gives the others the files that this node has made.
    async fn give(&self) -> Result<(), SharedError> {
        let news = self.0.copy.lock().await.folder.news()?;
        for file in news {
            let name = format!("{FILE}{}", file.name);
            match self.0.store.share_value(&name, &file.content, file.replaces).await? {
                Some(version) => self.0.copy.lock().await.folder.given(&file, version),
                // Another node was faster: its file counts, and is taken over.
                None => return self.take().await,
            }
        }
        Ok(())
    }

    /// Makes a new key for session tickets, if it is time.
    async fn rotate(&self) -> Result<(), SharedError> {
        let now = seconds();
        let keys = self.0.tickets.keys().get();
        if !keys.is_due(now) {
            return Ok(());
        }
        let record = TicketKeys::read(keys.record().expose()).rotated(now)?.record();
        let known = self.0.copy.lock().await.tickets;
        // Another node may be faster; its keys are taken over in either case.
        self.0.store.share_value(TICKETS, &record, known).await?;
        self.take().await
    }
}

impl Companions for Shared {
    /// The owner of the first slot orders.
    fn may_order(&self) -> bool {
        Slot::all().next().is_some_and(|first| self.0.ownership.epoch(first).is_some())
    }

    fn publish(&self, proofs: Vec<ProofContent>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let record = proofs::record(&proofs);
            if let Err(error) = self.publish_record(&record).await {
                warn!("the other nodes cannot be told of the authority's challenges: {error}");
                return;
            }
            if !proofs.is_empty() {
                sleep(PUBLICATION).await;
            }
        })
    }
}

impl Shared {
    async fn publish_record(&self, record: &Secret) -> Result<(), SharedError> {
        for _ in 0..3 {
            let known = self.0.copy.lock().await.proofs_version;
            if let Some(version) = self.0.store.share_value(PROOFS, record, known).await? {
                // This node offers them by itself.
                self.0.copy.lock().await.proofs_version = Some(version);
                return Ok(());
            }
            self.take().await?;
        }
        Ok(())
    }
}

/// The wall clock, in seconds since 1970.
fn seconds() -> u64 {
    u64::try_from(UnixTime::now().0).unwrap_or_default()
}

#[cfg(test)]
mod tests;
