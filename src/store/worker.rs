//! The thread that writes the state, and the queue to it.
//!
//! All queued changes go into one transaction; one that fails takes nothing else with it. Answers are given after the commit.

use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};

use super::operations::{Operation, StateChange};
use super::write_failures::WriteTrouble;
use super::{Change, OpenError, StoreError};

/// Length of the queue; later callers wait for a place.
const QUEUE: usize = 1024;
/// Most changes of one transaction, so that the first of a batch does not wait too long.
const BATCH: usize = 512;

type Changed = Box<dyn Fn(Change) + Send>;

/// A change that somebody waits for.
pub(super) trait Job: Send {
    /// Makes the change. Returns why it failed, if it did. Called again after a transaction that was not committed.
    fn run(&mut self, state: &mut Operation<'_>) -> Option<StoreError>;

    /// The change has failed after it ran, for this reason, which is returned.
    fn fail(&mut self, error: StoreError) -> StoreError;

    /// Gives the answer, once it is known whether the transaction was committed.
    fn reply(self: Box<Self>, committed: Result<(), StoreError>);
}

pub(super) type Jobs = Vec<Box<dyn Job>>;

struct ChangeJob<T, C> {
    change: C,
    /// None until it has run.
    result: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, C: StateChange<T>> Job for ChangeJob<T, C> {
    fn run(&mut self, state: &mut Operation<'_>) -> Option<StoreError> {
        self.result.insert((self.change)(state)).as_ref().err().cloned()
    }

    fn fail(&mut self, error: StoreError) -> StoreError {
        self.result = Some(Err(error.clone()));
        error
    }

    fn reply(self: Box<Self>, committed: Result<(), StoreError>) {
        // Nobody may be waiting any more, which changes nothing about what was done.
        let result = match (self.result, committed) {
            (Some(Ok(value)), Ok(())) => Ok(value),
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (None, Ok(())) => Err(StoreError::NotWritten),
        };
        drop(self.answer.send(result));
    }
}

/// The outcome of a batch of changes.
#[derive(Default)]
pub(super) struct Batch {
    /// The changes, with the outcome of their transaction.
    pub(super) done: Vec<(Box<dyn Job>, Result<(), StoreError>)>,
    /// All that was committed, in order.
    pub(super) changes: Vec<Change>,
    /// The first reason why something failed.
    pub(super) failed: Option<StoreError>,
    /// Something was written.
    pub(super) is_written: bool,
}

/// A database that changes are written to.
pub(super) trait Backend: Send + 'static {
    /// The behaviour of deltapush while nothing can be written, for the operator.
    const MEANWHILE: &'static str;

    /// Makes the changes, each as a whole or not at all.
    fn commit(&mut self, jobs: Jobs) -> Batch;

    /// Called after each batch.
    fn committed(&mut self, _changes: &[Change]) {}
}

enum WorkerMessage {
    Job(Box<dyn Job>),
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
    /// `failing` is true while nothing can be written.
    pub(super) fn start(
        backend: impl Backend,
        failing: watch::Sender<bool>,
        changed: Changed,
    ) -> Result<Self, OpenError> {
        let (queue, messages) = mpsc::channel(QUEUE);
        let is_failing = failing.subscribe();
        let state =
            WorkerState { is_failing: failing, backend, changed, trouble: WriteTrouble::default() };
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
        change: impl StateChange<T>,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(ChangeJob { change, result: None, answer });
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
            // It has only the database to close now.
            tokio::task::spawn_blocking(move || thread.join()).await.ok();
        }
    }
}

struct WorkerState<B> {
    is_failing: watch::Sender<bool>,
    backend: B,
    changed: Changed,
    trouble: WriteTrouble,
}

impl<B: Backend> WorkerState<B> {
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

    fn process(&mut self, jobs: Jobs) {
        let batch = self.backend.commit(jobs);
        self.report(batch.failed.as_ref(), batch.is_written);
        self.backend.committed(&batch.changes);
        batch.changes.into_iter().for_each(&self.changed);
        batch.done.into_iter().for_each(|(job, committed)| job.reply(committed));
    }

    /// Tells the operator of failures and of their end. Reading works also when writing does not, and proves nothing.
    fn report(&mut self, failed: Option<&StoreError>, written: bool) {
        match failed {
            Some(error) => {
                self.is_failing.send_replace(true);
                if let Some(failures) = self.trouble.failed(Instant::now()) {
                    tracing::warn!(failures, "{error}; meanwhile {}", B::MEANWHILE);
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
}
