//! One connection of Dovecot's: reads lines, has news taken, writes answers.

use std::io;
use std::time::Duration;

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::commands::{DictCommand, LineProblem};
use super::transactions::{DictTurn, TransactionProblem, Transactions, committed};
use crate::push::server_news::{NewsError, NewsReceiver, NewsScope, ServerNews};
use crate::telemetry::{NewsRefusal, Telemetry, TelemetryEvent};

/// The longest line: that of Dovecot (DICT_CLIENT_MAX_LINE_LENGTH).
const MAX_LINE: u64 = 64 * 1024;

/// The longest silence of Dovecot. By default it hangs up as soon as it has its answer.
const IDLE_TIME: Duration = Duration::from_secs(300);

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
    /// Takes news of the user's INBOX. The dict protocol names a mailbox by a number that only Dovecot knows.
    async fn take(&self, user: String) -> Result<(), String> {
        let news = ServerNews { name: user, ..ServerNews::default() };
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
        DictTurn::News { id, user } => committed(id, taker.take(user).await.err().as_deref()),
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
