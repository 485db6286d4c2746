//! One connection of Dovecot's: reads lines, has news taken, writes answers.

use std::io;
use std::time::Duration;

use serde_json::{Map, Value};

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::commands::{DictCommand, LineProblem};
use super::transactions::{DictTurn, TransactionProblem, Transactions, committed};
use crate::http::news::formats;
use crate::push::server_news::{NewsError, NewsReceiver, NewsScope, ServerNews};
use crate::telemetry::{NewsRefusal, Telemetry, TelemetryEvent};

/// The longest line: that of Dovecot (DICT_CLIENT_MAX_LINE_LENGTH).
const MAX_LINE: u64 = 64 * 1024;

/// The longest silence of Dovecot. It hangs up as soon as it has its answer, and connects again for the next message. Silent
/// connections of other programs keep a place for no longer.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// Time limit for storing news. Dovecot waits for thirty seconds.
const STORE_TIME: Duration = Duration::from_secs(10);

/// The end of a connection that Dovecot did not want.
#[derive(Debug, thiserror::Error)]
pub(super) enum DictProblem {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("silence for {}s", IDLE_TIME.as_secs())]
    Silence,
    #[error("a line is longer than {MAX_LINE} bytes")]
    TooLong,
    #[error(transparent)]
    Line(#[from] LineProblem),
    #[error(transparent)]
    Transaction(#[from] TransactionProblem),
}

/// The receiver of the news of all connections.
#[derive(Clone)]
pub(super) struct NewsTaker {
    pub(super) receiver: NewsReceiver,
    pub(super) telemetry: Telemetry,
}

impl NewsTaker {
    async fn take(&self, user: String, value: &str) -> Result<(), String> {
        let news = news(user, value);
        let taken = timeout(STORE_TIME, self.receiver.receive(news, &NewsScope::All)).await;
        let (refusal, words) = match taken {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => (refusal(&error), error.to_string()),
            Err(_) => (NewsRefusal::State, "the news could not be stored in time".to_owned()),
        };
        self.telemetry.record(&TelemetryEvent::NewsRefused(refusal));
        Err(words.replace(char::is_control, " "))
    }
}

/// The news of a user, with what the attribute's value says of the message: an object as the hook takes it, without a name. The dict
/// protocol names a mailbox by a number that only Dovecot knows; without a value it is INBOX.
fn news(user: String, value: &str) -> ServerNews {
    let read = |user: &str| {
        let mut told: Map<String, Value> = serde_json::from_str(value).ok()?;
        told.insert("name".to_owned(), user.into());
        formats::read(&serde_json::to_vec(&told).ok()?).ok()?.pop()
    };
    match read(&user) {
        Some(news) => news,
        None => ServerNews { name: user, ..ServerNews::default() },
    }
}

fn refusal(error: &NewsError) -> NewsRefusal {
    match error {
        NewsError::Invalid(_) => NewsRefusal::Body,
        NewsError::NotConfigured | NewsError::Ambiguous | NewsError::OutOfScope => {
            NewsRefusal::Account
        }
        NewsError::TooMany => NewsRefusal::Rate,
        NewsError::Store(_) => NewsRefusal::State,
    }
}

/// Answers until Dovecot hangs up, or `stop` is cancelled: news that is being stored is answered first.
pub(super) async fn serve(
    stream: UnixStream,
    taker: NewsTaker,
    stop: CancellationToken,
) -> Result<(), DictProblem> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut transactions = Transactions::default();
    loop {
        let line = match stop.run_until_cancelled(next_line(&mut reader)).await {
            None => return Ok(()),
            Some(line) => line?,
        };
        let Some(line) = line else { return Ok(()) };
        let turn = transactions.handle(DictCommand::parse(&line)?)?;
        answer(turn, &taker, &mut writer).await?;
    }
}

async fn answer(
    turn: DictTurn,
    taker: &NewsTaker,
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<(), DictProblem> {
    let reply = match turn {
        DictTurn::Quiet => return Ok(()),
        DictTurn::Reply(reply) => reply,
        DictTurn::News { id, user, value } => {
            committed(id, taker.take(user, &value).await.err().as_deref())
        }
    };
    timeout(IDLE_TIME, writer.write_all(reply.as_bytes()))
        .await
        .map_err(|_| DictProblem::Silence)??;
    Ok(())
}

/// The next line without its end; `None` at the end of the connection.
async fn next_line(
    reader: &mut (impl AsyncBufRead + Unpin),
) -> Result<Option<Vec<u8>>, DictProblem> {
    let mut line = Vec::new();
    let mut limited = reader.take(MAX_LINE);
    let reading = timeout(IDLE_TIME, limited.read_until(b'\n', &mut line));
    reading.await.map_err(|_| DictProblem::Silence)??;
    match line.pop() {
        Some(b'\n') => Ok(Some(line)),
        Some(_) if limited.limit() == 0 => Err(DictProblem::TooLong),
        // A line without end is none.
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_may_say_more_of_the_message() {
        let plain = |value: &str| {
            let news = news("alice".into(), value);
            assert_eq!((news.name.as_str(), news.uid, news.mailbox.as_str()), ("alice", None, ""));
        };
        for value in ["", "bob@a.example", "{", "[]", "{\"uid\": -1}", "{\"events\": []}"] {
            plain(value);
        }
        let value = r#"{"name": "carol", "mailbox": "Chats", "uid": 7, "uid_validity": 9, "from": "bob@a.example"}"#;
        let news = news("alice".into(), value);
        assert_eq!((news.name.as_str(), news.mailbox.as_str()), ("alice", "Chats"));
        assert_eq!((news.uid, news.uid_validity), (Some(7), Some(9)));
    }
}
