//! The thread that owns the state file, and the queue to it.
//!
//! All queued operations go into one transaction, each within a savepoint of its own: one that fails takes nothing else with
//! it. Answers are given after the commit.

use std::fs::File;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot, watch};

use super::operations::{Operation, StateChange, number};
use super::seal::Sealer;
use super::sql::Sql;
use super::write_failures::WriteTrouble;
use super::{Change, Generation, OpenError, StoreError, schema};

/// Length of the queue; later callers wait for a place.
const QUEUE: usize = 1024;
/// Most changes of one transaction, so that the first of a batch does not wait too long.
const BATCH: usize = 512;

type Changed = Box<dyn Fn(Change) + Send>;
/// Gives the answer, once it is known whether the batch was committed.
type WorkerReply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Says why it failed, if it did.
type Job = Box<dyn FnOnce(&mut Operation<'_>) -> (Option<StoreError>, WorkerReply) + Send>;

enum WorkerMessage {
    Job(Job),
    Close(oneshot::Sender<()>),
}

/// The way to the thread. It ends when this is dropped, after what is queued.
pub(super) struct Worker {
    queue: mpsc::Sender<WorkerMessage>,
    /// True if the last write failed.
    is_failing: watch::Receiver<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// Generations go on after `newest`.
    pub(super) fn start(
        connection: Connection,
        sealer: Option<Sealer>,
        lock: File,
        newest: Generation,
        changed: Changed,
    ) -> Result<Self, OpenError> {
        let (queue, messages) = mpsc::channel(QUEUE);
        let (failing, is_failing) = watch::channel(false);
        let state = WorkerState {
            is_failing: failing,
            connection,
            sealer,
            _lock: lock,
            generation: number(newest),
            changed,
            trouble: WriteTrouble::default(),
            journal_holds_erased: false,
        };
        let thread = thread::Builder::new()
            .name("deltapush-store".into())
            .spawn(move || state.serve(messages))
            .map_err(|source| OpenError::Io { path: "a thread".into(), source })?;
        Ok(Self { queue, is_failing, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn is_failing(&self) -> bool {
        *self.is_failing.borrow()
    }

    pub(super) async fn until_writable(&self) {
        // The thread ends with the process.
        let _ = self.is_failing.clone().wait_for(|is_failing| !is_failing).await;
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        operation: impl StateChange<T>,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |state| {
            let result = operation(state);
            let failed = result.as_ref().err().cloned();
            // Nobody may be waiting any more, which changes nothing about what was done.
            let reply: WorkerReply = Box::new(move |committed| {
                drop(answer.send(result.and_then(|value| committed.map(|()| value))))
            });
            (failed, reply)
        });
        self.queue.send(WorkerMessage::Job(job)).await.map_err(|_| StoreError::Closed)?;
        let unanswered = |_| {
            Err(if self.queue.is_closed() { StoreError::Closed } else { StoreError::NotWritten })
        };
        answered.await.unwrap_or_else(unanswered)
    }

    pub(super) async fn close(&self) {
        let (answer, answered) = oneshot::channel();
        if self.queue.send(WorkerMessage::Close(answer)).await.is_ok() {
            answered.await.ok();
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It has only the file to close now.
            tokio::task::spawn_blocking(move || thread.join()).await.ok();
        }
    }
}

struct WorkerState {
    is_failing: watch::Sender<bool>,
    connection: Connection,
    sealer: Option<Sealer>,
    /// Held as long as the file is open.
    _lock: File,
    /// The newest generation that was given out.
    generation: i64,
    changed: Changed,
    trouble: WriteTrouble,
    /// True if the journal still contains erased data, because it could not be written back.
    journal_holds_erased: bool,
}

impl WorkerState {
    fn serve(mut self, mut messages: mpsc::Receiver<WorkerMessage>) {
        let mut batch = Vec::with_capacity(BATCH);
        while messages.blocking_recv_many(&mut batch, BATCH) > 0 {
            let mut jobs = Vec::with_capacity(batch.len());
            let mut closing = None;
            for message in batch.drain(..) {
                match message {
                    WorkerMessage::Job(job) if closing.is_none() => jobs.push(job),
                    WorkerMessage::Job(_) => {}
                    WorkerMessage::Close(answer) => closing = Some(answer),
                }
            }
            self.process(jobs);
            if let Some(answer) = closing {
                // Closed before the answer: who is told may open it again.
                drop(messages);
                drop(self);
                answer.send(()).ok();
                return;
            }
        }
    }

    fn process(&mut self, jobs: Vec<Job>) {
        let mut replies = Vec::with_capacity(jobs.len());
        let mut changes = Vec::new();
        let before = self.connection.total_changes();
        let mut failed = None;
        let result = self.commit(jobs, &mut replies, &mut changes, &mut failed);
        if let Err(error) = &result {
            changes.clear();
            failed.get_or_insert_with(|| error.clone());
        }
        self.report(failed.as_ref(), self.connection.total_changes() > before);
        self.journal_holds_erased |= changes.iter().any(erases);
        if self.journal_holds_erased {
            self.truncate_journal();
        }
        changes.into_iter().for_each(&self.changed);
        replies.into_iter().for_each(|reply| reply(result.clone()));
    }

    /// Runs the jobs in one transaction. The answers to those that ran are in `replies`, whatever the outcome; the first
    /// reason why one did not is in `failed`.
    fn commit(
        &mut self,
        jobs: Vec<Job>,
        replies: &mut Vec<WorkerReply>,
        changes: &mut Vec<Change>,
        failed: &mut Option<StoreError>,
    ) -> Result<(), StoreError> {
        let mut transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for job in jobs {
            let savepoint = transaction.savepoint()?;
            let before = changes.len();
            let mut operation = Operation {
                sql: Sql::Sqlite(&savepoint),
                sealer: self.sealer.as_ref(),
                generation: &mut self.generation,
                changes,
            };
            let (failure, reply) = job(&mut operation);
            replies.push(reply);
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

    /// Tells the operator of failures and of their end. Reading works also when writing does not, and proves nothing.
    fn report(&mut self, failed: Option<&StoreError>, written: bool) {
        match failed {
            Some(error) => {
                self.is_failing.send_replace(true);
                if let Some(failures) = self.trouble.failed(Instant::now()) {
                    tracing::warn!(
                        failures,
                        "{error}; meanwhile deltapush relays, refuses tokens, and pushes new mail from memory"
                    );
                }
            }
            None if written => {
                self.is_failing.send_replace(false);
                if let Some(failures) = self.trouble.written() {
                    tracing::info!(failures, "the state can be written again");
                }
            }
            None => {}
        }
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

fn erases(change: &Change) -> bool {
    matches!(change, Change::Tokens { tokens, .. } if tokens.is_empty())
}
