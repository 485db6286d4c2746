//! The side of the commands: a question to the running deltapush, and its answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::question::{AskedNews, ControlQuestion, ControlVerdict, NewsAnswer};
use super::MAX_LINE;
use crate::file_access;

/// Time limit for the first line of an answer.
const TIME: Duration = Duration::from_secs(10);

/// Failure of a request to the running deltapush.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// None runs, or it gives no valid answer.
    #[error("{}", unanswered(path, error))]
    NotRunning {
        /// The path of the socket.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// It refused the request, for this reason.
    #[error("{0}")]
    No(String),
}

/// Without access it is not known if one runs.
fn unanswered(path: &Path, error: &io::Error) -> String {
    let (socket, text) = (path.display(), file_access::explain(path, error));
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!("{socket} cannot be opened: {text}"),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "no deltapush runs with this configuration: nothing listens at {socket}. Start it, or name its configuration with \
             --config FILE"
        ),
        _ => format!("no deltapush answers at {socket}: {text}"),
    }
}

/// Sends a request to the deltapush that owns the state in `directory`. Returns a reader of the answer, without a time
/// limit.
///
/// # Errors
/// [`AskError`] if there is none.
pub fn ask(directory: &Path, question: &ControlQuestion) -> Result<impl Read, AskError> {
    let path = super::path(directory);
    let (verdict, rest) =
        begin(&path, question, &[]).map_err(|error| AskError::NotRunning { path, error })?;
    verdict_or(verdict, rest)
}

/// Tells the deltapush whose socket is at `path` of a message with this header.
///
/// # Errors
/// [`AskError`] if there is none, or if it knows no news.
pub fn tell(path: &Path, news: AskedNews, header: &[u8]) -> Result<NewsAnswer, AskError> {
    let question = ControlQuestion::News(AskedNews { header_bytes: header.len(), ..news });
    let not_running = |error| AskError::NotRunning { path: path.to_owned(), error };
    let (verdict, rest) = begin(path, &question, header).map_err(not_running)?;
    let answer = verdict_or(verdict, rest)?;
    serde_json::from_reader(answer.take(MAX_LINE)).map_err(|error| not_running(error.into()))
}

fn verdict_or<T>(verdict: ControlVerdict, answer: T) -> Result<T, AskError> {
    match verdict {
        ControlVerdict::Ok => Ok(answer),
        ControlVerdict::No(words) => Err(AskError::No(words)),
    }
}

fn begin(
    path: &Path,
    question: &ControlQuestion,
    header: &[u8],
) -> io::Result<(ControlVerdict, BufReader<UnixStream>)> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(TIME))?;
    stream.set_write_timeout(Some(TIME))?;
    let mut request = serde_json::to_vec(question)?;
    request.push(b'\n');
    request.extend_from_slice(header);
    stream.write_all(&request)?;
    let mut answer = BufReader::new(stream);
    let mut first = String::new();
    (&mut answer).take(MAX_LINE).read_line(&mut first)?;
    let verdict =
        serde_json::from_str(&first).map_err(|_| io::Error::other("its answer is not valid"))?;
    answer.get_ref().set_read_timeout(None)?;
    Ok((verdict, answer))
}
