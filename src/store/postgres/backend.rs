//! Writes to the database: one transaction for a batch of changes, a savepoint for each if there are several.
//!
//! A change that collides with a transaction of another node undoes the batch, whose changes are then made one by one. If the
//! connection is lost while a transaction is committed, its outcome is unknown and counts as a failure: the caller tries
//! again, every change may be made twice, and the event log tells this node of its own change ([`Doubts`]).

use std::sync::Arc;

use tokio::runtime::Handle;

use super::super::operations::Operation;
use super::super::seal::Sealer;
use super::super::sql::{CommitError, PostgresSql, Sql};
use super::super::worker::{Backend, Batch, Job, Jobs};
use super::super::{Change, StoreError};
use super::doubts::Doubts;
use super::link::{Link, Session};
use super::place::EventKey;
use super::premises::Premises;
use super::told::LastTold;
use super::writes::NodeWrites;
use crate::ownership::{Ownership, Slot};

/// Number of attempts at a change that collides with others.
const ATTEMPTS: usize = 5;
/// Number of changes of a transaction that may be too slow, each for the time limit of a statement. With one more the database
/// itself is slow, and the others do not wait for the rest of them.
const SLOW: usize = 1;
/// `NOTIFY` holds a lock of the whole server until its transaction is on disk, and on a standby: one of its own, which has nothing
/// to wait for, takes a moment. If it is lost, other nodes look at the log all the same.
const COMMIT_AND_NOTIFY: &str = "COMMIT; NOTIFY deltapush";

/// The database, for the worker's thread.
pub(super) struct PostgresBackend {
    pub(super) runtime: Handle,
    pub(super) link: Link,
    pub(super) sealer: Option<Arc<Sealer>>,
    pub(super) ownership: Ownership,
    /// The number of this node.
    pub(super) node: i64,
    pub(super) doubts: Arc<Doubts>,
    pub(super) premises: Arc<Premises>,
    pub(super) told: Arc<LastTold>,
}

/// A transaction that was committed.
#[derive(Default)]
struct Committed {
    changes: Vec<Change>,
    /// For each change why it failed, if it did.
    failures: Vec<Option<StoreError>>,
}

impl Backend for PostgresBackend {
    const MEANWHILE: &'static str =
        "deltapush relays and refuses tokens; new mail is pushed when the database is back";

    fn commit(&mut self, mut jobs: Jobs) -> Batch {
        let mut batch = Batch::default();
        match self.transact(&mut jobs) {
            Err(StoreError::Collision) => {
                for job in jobs {
                    self.commit_alone(job, &mut batch);
                }
            }
            result => add(&mut batch, jobs, result),
        }
        batch
    }
}

impl PostgresBackend {
    fn commit_alone(&self, job: Box<dyn Job>, batch: &mut Batch) {
        let mut jobs = vec![job];
        let mut result = self.transact(&mut jobs);
        for _ in 1..ATTEMPTS {
            if !matches!(result, Err(StoreError::Collision)) {
                break;
            }
            result = self.transact(&mut jobs);
        }
        add(batch, jobs, result);
    }

    /// Makes the changes in one transaction, on a connection that works: one that has ended while nothing was written is replaced
    /// without a failure.
    fn transact(&self, jobs: &mut Jobs) -> Result<Committed, StoreError> {
        let mut session = self.runtime.block_on(self.link.session())?;
        let mut client = self.runtime.block_on(session.client.lock());
        if client.is_closed() {
            drop(client);
            session.discard();
            self.runtime.block_on(tokio::task::yield_now());
            session = self.runtime.block_on(self.link.session())?;
            client = self.runtime.block_on(session.client.lock());
        }
        let connection = PostgresSql::new(&self.runtime, &session, &client);
        let result = self.transact_on(&connection, jobs);
        match &result {
            Ok(_) => {}
            // Its state is unknown, or the server has become a standby.
            Err(StoreError::Unavailable(_)) => session.discard(),
            Err(_) => undo(&connection, &session),
        }
        result
    }

    fn transact_on(
        &self,
        connection: &PostgresSql<'_>,
        jobs: &mut Jobs,
    ) -> Result<Committed, StoreError> {
        let has_several = jobs.len() > 1;
        let mut committed = Committed::default();
        let (mut fenced, mut told, mut slow) = (Vec::new(), None, 0);
        connection.begin();
        for job in jobs {
            if has_several {
                connection.begin_part();
            }
            let (changes, slots, before) = (committed.changes.len(), fenced.len(), told);
            let mut failure =
                self.run(job.as_mut(), connection, &mut committed, &mut fenced, &mut told);
            if has_several
                && failure.is_none()
                && let Err(error) = connection.end_part()
            {
                failure = Some(job.fail(error.into()));
            }
            match &failure {
                None => {}
                Some(error @ (StoreError::Collision | StoreError::Unavailable(_))) => {
                    return Err(error.clone());
                }
                Some(error) if !has_several => return Err(error.clone()),
                Some(error) => {
                    slow += usize::from(matches!(error, StoreError::Slow(_)));
                    if slow > SLOW {
                        return Err(error.clone());
                    }
                    connection.undo_part()?;
                    committed.changes.truncate(changes);
                    fenced.truncate(slots);
                    told = before;
                }
            }
            committed.failures.push(failure);
        }
        let commit = if told.is_some() { COMMIT_AND_NOTIFY } else { "COMMIT" };
        match connection.commit(commit) {
            Ok(()) => {
                told.into_iter().for_each(|row| self.told.set(row));
                Ok(committed)
            }
            Err(CommitError::Undone(error)) => Err(error.into()),
            Err(CommitError::Unknown(error)) => {
                self.doubts.add();
                Err(error.into())
            }
        }
    }

    fn run(
        &self,
        job: &mut dyn Job,
        connection: &PostgresSql<'_>,
        committed: &mut Committed,
        fenced: &mut Vec<Slot>,
        told: &mut Option<EventKey>,
    ) -> Option<StoreError> {
        let (ownership, id, premises) = (&self.ownership, self.node, &self.premises);
        job.run(&mut Operation {
            sql: Sql::Postgres(connection),
            sealer: self.sealer.as_deref(),
            // The database counts them.
            generation: &mut 0,
            changes: &mut committed.changes,
            node: Some(NodeWrites { ownership, id, premises, fenced, told }),
        })
    }
}

fn undo(connection: &PostgresSql<'_>, session: &Session) {
    if connection.undo().is_err() {
        session.discard();
    }
}

/// Adds the outcome of one transaction.
fn add(batch: &mut Batch, jobs: Jobs, result: Result<Committed, StoreError>) {
    let outcome = result.as_ref().map(|_| ()).map_err(Clone::clone);
    let failures = match result {
        Ok(committed) => {
            batch.changes.extend(committed.changes);
            batch.is_written |= committed.failures.iter().any(Option::is_none);
            committed.failures.into_iter().flatten().collect()
        }
        Err(error) => vec![error],
    };
    let shows_trouble = |error: &StoreError| {
        matches!(
            error,
            StoreError::Unavailable(_)
                | StoreError::Slow(_)
                | StoreError::Refused(_)
                | StoreError::Outdated(_)
                | StoreError::Damaged(_)
        )
    };
    batch.failed = batch.failed.take().or(failures.into_iter().find(shows_trouble));
    batch.done.extend(jobs.into_iter().map(|job| (job, outcome.clone())));
}
