//! The thread that owns the state file, and the queue to it.
//!
//! Whatever is queued goes into one transaction, each operation within a savepoint of its own: one that fails takes nothing
//! else with it. Answers are given after the commit.

use std::fs::File;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::operations::Operation;
use super::{Change, OpenError, StoreError};

/// What may wait; who comes later waits to be let in.
const QUEUE: usize = 1024;
/// What goes into one transaction at most, so that the first of a batch does not wait for ever.
const BATCH: usize = 512;

type Changed = Box<dyn Fn(Change) + Send>;
/// Gives the answer, once it is known whether the batch was committed.
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
type Job = Box<dyn FnOnce(&mut Operation<'_>) -> (bool, Reply) + Send>;

enum Message {
    Job(Job),
    Close(oneshot::Sender<()>),
}

/// The way to the thread. It ends when this is dropped, after what is queued.
pub(super) struct Worker {
    queue: mpsc::Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    pub(super) fn start(connection: Connection, lock: File, changed: Changed) -> Result<Self, OpenError> {
        let highest: Option<i64> = connection.query_row("SELECT max(pending) FROM tokens", [], |row| row.get(0))?;
        let (queue, messages) = mpsc::channel(QUEUE);
        let state = State { connection, _lock: lock, generation: highest.unwrap_or_default(), changed };
        let thread = thread::Builder::new()
            .name("deltapush-store".into())
            .spawn(move || state.serve(messages))
            .map_err(|source| OpenError::Io { path: "a thread".into(), source })?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Operation<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |state| {
            let result = operation(state);
            let done = result.is_ok();
            // Nobody may be waiting any more, which changes nothing about what was done.
            let reply: Reply =
                Box::new(move |committed| drop(answer.send(result.and_then(|value| committed.map(|()| value)))));
            (done, reply)
        });
        self.queue.send(Message::Job(job)).await.map_err(|_| StoreError::Closed)?;
        let unanswered = |_| Err(if self.queue.is_closed() { StoreError::Closed } else { StoreError::NotWritten });
        answered.await.unwrap_or_else(unanswered)
    }

    pub(super) async fn close(&self) {
        let (answer, answered) = oneshot::channel();
        if self.queue.send(Message::Close(answer)).await.is_ok() {
            answered.await.ok();
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It has only the file to close now.
            tokio::task::spawn_blocking(move || thread.join()).await.ok();
        }
    }
}

struct State {
    connection: Connection,
    /// Held as long as the file is open.
    _lock: File,
    /// The newest generation that was given out.
    generation: i64,
    changed: Changed,
}

impl State {
    fn serve(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut batch = Vec::with_capacity(BATCH);
        while messages.blocking_recv_many(&mut batch, BATCH) > 0 {
            let mut jobs = Vec::with_capacity(batch.len());
            let mut closing = None;
            for message in batch.drain(..) {
                match message {
                    Message::Job(job) if closing.is_none() => jobs.push(job),
                    Message::Job(_) => {}
                    Message::Close(answer) => closing = Some(answer),
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
        let result = self.commit(jobs, &mut replies, &mut changes);
        if let Err(error) = &result {
            tracing::warn!("{error}");
            changes.clear();
        }
        if changes.iter().any(erases) {
            self.truncate_journal();
        }
        changes.into_iter().for_each(&self.changed);
        replies.into_iter().for_each(|reply| reply(result.clone()));
    }

    /// Runs the jobs in one transaction. The answers to those that ran are in `replies`, whatever the outcome.
    fn commit(
        &mut self,
        jobs: Vec<Job>,
        replies: &mut Vec<Reply>,
        changes: &mut Vec<Change>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for job in jobs {
            let savepoint = transaction.savepoint()?;
            let before = changes.len();
            let mut operation = Operation { connection: &savepoint, generation: &mut self.generation, changes };
            let (done, reply) = job(&mut operation);
            replies.push(reply);
            if done {
                savepoint.commit()?;
            } else {
                changes.truncate(before);
                drop(savepoint);
            }
            // Some failures, a full disk among them, make SQLite roll the whole transaction back by itself.
            if transaction.is_autocommit() {
                return Err(StoreError::NotWritten);
            }
        }
        Ok(transaction.commit()?)
    }

    /// Overwriting what was deleted reaches the file only when the journal, which still has it, is written back.
    fn truncate_journal(&self) {
        let result = self.connection.pragma_update_and_check(None, "wal_checkpoint", "truncate", |_| Ok(()));
        if let Err(error) = result {
            tracing::warn!("erased credentials, still sealed, stay in the state's journal for now: {error}");
        }
    }
}

fn erases(change: &Change) -> bool {
    matches!(change, Change::Tokens { tokens, .. } if tokens.is_empty())
}
