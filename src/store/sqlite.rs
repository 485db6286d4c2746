//! Writes to the state file: one transaction for a batch, a savepoint for each change.

use std::fs::File;

use rusqlite::{Connection, TransactionBehavior};

use super::operations::{Operation, number};
use super::seal::Sealer;
use super::sql::Sql;
use super::worker::{Backend, Batch, Job, Jobs};
use super::{Change, Generation, StoreError, schema};

/// The state file, open for writing.
pub(super) struct SqliteBackend {
    connection: Connection,
    sealer: Option<Sealer>,
    /// Held as long as the file is open.
    _lock: File,
    /// The newest generation that was given out.
    generation: i64,
    /// True if the journal still contains erased data, because it could not be written back.
    journal_holds_erased: bool,
}

impl SqliteBackend {
    /// Generations go on after `newest`.
    pub(super) fn new(
        connection: Connection,
        sealer: Option<Sealer>,
        lock: File,
        newest: Generation,
    ) -> Self {
        let generation = number(newest);
        Self { connection, sealer, _lock: lock, generation, journal_holds_erased: false }
    }

    /// Makes the changes in one transaction. Those that ran are in `ran`, whatever the outcome; the first reason why one did
    /// not is in `failed`.
    fn transact(
        &mut self,
        jobs: Jobs,
        ran: &mut Vec<Box<dyn Job>>,
        changes: &mut Vec<Change>,
        failed: &mut Option<StoreError>,
    ) -> Result<(), StoreError> {
        let mut transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for mut job in jobs {
            let savepoint = transaction.savepoint()?;
            let before = changes.len();
            let mut operation = Operation {
                sql: Sql::Sqlite(&savepoint),
                sealer: self.sealer.as_ref(),
                generation: &mut self.generation,
                changes,
                node: None,
            };
            let failure = job.run(&mut operation);
            ran.push(job);
            if failure.is_none() {
                savepoint.commit()?;
            } else {
                changes.truncate(before);
                drop(savepoint);
            }
            *failed = failed.take().or(failure);
            // Some failures, a full disk among them, make SQLite roll the whole transaction back by itself.
            if transaction.is_autocommit() {
                return Err(StoreError::NotWritten);
            }
        }
        Ok(transaction.commit()?)
    }

    fn truncate_journal(&mut self) {
        match schema::truncate_journal(&self.connection) {
            Ok(done) => self.journal_holds_erased = !done,
            Err(error) => {
                tracing::debug!("erased data stays in the state's journal for now: {error}")
            }
        }
    }
}

impl Backend for SqliteBackend {
    const MEANWHILE: &'static str =
        "deltapush relays, refuses tokens, and pushes new mail from memory";

    fn commit(&mut self, jobs: Jobs) -> Batch {
        let mut batch = Batch::default();
        let mut ran = Vec::with_capacity(jobs.len());
        let before = self.connection.total_changes();
        let result = self.transact(jobs, &mut ran, &mut batch.changes, &mut batch.failed);
        if let Err(error) = &result {
            batch.changes.clear();
            batch.failed.get_or_insert_with(|| error.clone());
        }
        batch.is_written = self.connection.total_changes() > before;
        batch.done = ran.into_iter().map(|job| (job, result.clone())).collect();
        batch
    }

    fn committed(&mut self, changes: &[Change]) {
        self.journal_holds_erased |= changes.iter().any(erases);
        if self.journal_holds_erased {
            self.truncate_journal();
        }
    }
}

fn erases(change: &Change) -> bool {
    matches!(change, Change::Tokens { tokens, .. } if tokens.is_empty())
}
