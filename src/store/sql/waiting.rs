//! Statements that wait for the next one, with which they are sent.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_postgres::{Client, Error, Statement};

use super::Value;

/// The beginning of a transaction, and of a part of it.
const BEGIN: &str = "BEGIN";
const BEGIN_PART: &str = "SAVEPOINT part";
const END_PART: &str = "RELEASE part";
/// Undoes the last part.
pub(super) const UNDO_PART: &str = "ROLLBACK TO part";

/// A statement that waits.
pub(super) enum WaitingStatement {
    /// Begins a transaction.
    Begin,
    /// Begins a part of it, or ends one.
    BeginPart,
    EndPart,
    /// A change, whose answer nobody needs.
    Change {
        statement: Statement,
        values: Vec<OwnedValue>,
    },
}

impl WaitingStatement {
    async fn send(&self, client: &Client) -> Result<(), Error> {
        match self {
            Self::Begin => client.batch_execute(BEGIN).await,
            Self::BeginPart => client.batch_execute(BEGIN_PART).await,
            Self::EndPart => client.batch_execute(END_PART).await,
            Self::Change { statement, values } => {
                client.execute_raw(statement, values.iter().map(OwnedValue::value)).await.map(drop)
            }
        }
    }

    /// True for a change, false for a statement of the transaction itself.
    pub(super) const fn is_change(&self) -> bool {
        matches!(self, Self::Change { .. })
    }
}

/// A parameter that outlives its caller.
pub(super) enum OwnedValue {
    Null,
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl OwnedValue {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Integer(number) => Value::Integer(*number),
            Self::Text(text) => Value::Text(text),
            Self::Blob(bytes) => Value::Blob(bytes),
        }
    }
}

impl From<&Value<'_>> for OwnedValue {
    fn from(value: &Value<'_>) -> Self {
        match *value {
            Value::Null => Self::Null,
            Value::Integer(number) => Self::Integer(number),
            Value::Text(text) => Self::Text(text.to_owned()),
            Value::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }
}

/// Sends the statements and `last` together, in this order. Returns the answer of `last`, or the first failure, with the number
/// of statements before it. Nothing is sent after a statement that cannot be sent.
pub(super) async fn send_with<T>(
    client: &Client,
    waiting: &[WaitingStatement],
    last: impl Future<Output = Result<T, Error>>,
) -> Result<T, (usize, Error)> {
    let mut first: Vec<InFlight<'_, ()>> =
        waiting.iter().map(|waiting| InFlight::new(waiting.send(client))).collect();
    let mut last = InFlight::new(last);
    poll_fn(|context| {
        // All are polled before any is awaited: the first poll sends.
        let can_go_on = first.iter_mut().all(|statement| statement.poll(context));
        if can_go_on {
            last.poll(context);
        }
        for (number, statement) in first.iter_mut().enumerate() {
            match statement.answer.take_if(|answer| answer.is_err()) {
                Some(Err(error)) => return Poll::Ready(Err((number, error))),
                _ if statement.answer.is_none() => return Poll::Pending,
                _ => {}
            }
        }
        match last.answer.take() {
            Some(answer) => Poll::Ready(answer.map_err(|error| (waiting.len(), error))),
            None => Poll::Pending,
        }
    })
    .await
}

type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + 'a>>;

/// A statement that is sent when it is polled for the first time.
struct InFlight<'a, T> {
    /// None after the answer.
    future: Option<Answering<'a, T>>,
    answer: Option<Result<T, Error>>,
}

impl<'a, T> InFlight<'a, T> {
    fn new(future: impl Future<Output = Result<T, Error>> + 'a) -> Self {
        Self { future: Some(Box::pin(future)), answer: None }
    }

    /// Returns false if it has failed.
    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        if let Some(future) = &mut self.future
            && let Poll::Ready(answer) = future.as_mut().poll(context)
        {
            (self.future, self.answer) = (None, Some(answer));
        }
        !matches!(self.answer, Some(Err(_)))
    }
}
