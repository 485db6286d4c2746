//! The Unix socket on which a running deltapush answers the operator's commands. It is in the state's folder and
//! accessible to its owner only.

use std::fs::Permissions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::control_server::ControlServer;
use super::question::{ControlQuestion, ControlVerdict};
use super::reply::reply_no;
use crate::accept::AcceptFailures;
use crate::file_access;

/// Time limit for a request to arrive, and for the first line of its answer.
const TIME: Duration = Duration::from_secs(10);

/// The maximum length of a request, and of the first line of an answer, in bytes.
const MAX_LINE: u64 = 8 * 1024;

/// Concurrent requests: an operator is one person with a few terminals.
const MAX_QUESTIONS: usize = 16;

/// The path of the socket for the state in `directory`.
#[must_use]
pub fn path(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}

/// Reports if a deltapush runs on the state in `directory`, also another user's.
#[must_use]
pub fn is_served(directory: &Path) -> bool {
    match BlockingStream::connect(path(directory)) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// The open control socket.
pub struct ControlSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ControlSocket {
    /// Opens the socket for the state in `directory`, which the caller owns. Requests wait until it is served. `None`, with a
    /// warning, if it cannot be opened: mail and pushes matter more than looking at them.
    #[must_use]
    pub fn open(directory: &Path) -> Option<Self> {
        let path = path(directory);
        match listen(&path) {
            Ok(listener) => Some(Self { path, listener }),
            Err(error) => {
                let error = file_access::explain(&path, &error);
                warn!("`deltapush status` will not work: {}: {error}", path.display());
                None
            }
        }
    }

    /// Answers requests until `stop` is cancelled.
    pub async fn serve(self, answers: Arc<ControlServer>, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_QUESTIONS));
        let mut failures = AcceptFailures::default();
        // Questions under way end with it.
        let mut under_way = JoinSet::new();
        while let Some(accepted) = stop.run_until_cancelled(self.listener.accept()).await {
            while under_way.try_join_next().is_some() {}
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    failures.handle(&error, "the control socket").await;
                    continue;
                }
            };
            // A question for which there is no place can be asked again.
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                let answers = Arc::clone(&answers);
                under_way.spawn(async move {
                    // The asker may be gone.
                    let _ = answer(stream, &answers).await;
                    drop(place);
                });
            }
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    // Left behind by a process that was killed: the owner of the folder owns the socket.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn answer(mut stream: UnixStream, answers: &ControlServer) -> io::Result<()> {
    match timeout(TIME, question(&mut stream)).await?? {
        Some(question) => answers.answer(question, &mut stream).await?,
        None => {
            reply_no(
                &mut stream,
                "the running deltapush does not know this request: it is of another version",
            )
            .await?
        }
    }
    stream.shutdown().await
}

/// Reads the request: one line, and nothing after it.
async fn question(stream: &mut UnixStream) -> io::Result<Option<ControlQuestion>> {
    let mut line = Vec::new();
    let mut limited = stream.take(MAX_LINE);
    let mut byte = [0];
    // Byte by byte, so that what follows stays: once per command of a person.
    while !line.ends_with(b"\n") && limited.read(&mut byte).await? > 0 {
        line.extend_from_slice(&byte);
    }
    Ok(serde_json::from_slice(&line).ok())
}

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
    let path = path(directory);
    let (verdict, rest) =
        begin(&path, question).map_err(|error| AskError::NotRunning { path, error })?;
    match verdict {
        ControlVerdict::Ok => Ok(rest),
        ControlVerdict::No(words) => Err(AskError::No(words)),
    }
}

fn begin(
    path: &Path,
    question: &ControlQuestion,
) -> io::Result<(ControlVerdict, BufReader<BlockingStream>)> {
    let mut stream = BlockingStream::connect(path)?;
    stream.set_read_timeout(Some(TIME))?;
    stream.set_write_timeout(Some(TIME))?;
    let mut line = serde_json::to_string(question)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = BufReader::new(stream);
    let mut first = String::new();
    (&mut answer).take(MAX_LINE).read_line(&mut first)?;
    let verdict =
        serde_json::from_str(&first).map_err(|_| io::Error::other("its answer is not valid"))?;
    answer.get_ref().set_read_timeout(None)?;
    Ok((verdict, answer))
}

#[cfg(test)]
mod tests {
    use super::super::report::StatusReport;
    use super::super::status::Reporter;
    use super::*;
    use crate::push::push_test::Tester;
    use crate::push::registry::Registry;
    use crate::push::watcher::WatchSettings;
    use crate::reloadable::Reloadable;
    use crate::store::StoreSettings;

    #[tokio::test(flavor = "multi_thread")]
    async fn owner_is_answered_and_nobody_is_not_running() {
        let directory = tempfile::tempdir().unwrap();
        let status = |directory: &Path| {
            ask(directory, &ControlQuestion::Status { names: vec![] })
                .map(|answer| io::read_to_string(answer).unwrap())
        };
        let error = status(directory.path()).unwrap_err();
        assert!(
            error.to_string().contains("control.sock")
                && error.to_string().contains("no deltapush runs with this configuration"),
            "{error}"
        );

        std::fs::write(path(directory.path()), "left behind").unwrap();
        let (registry, _events, _news) =
            Registry::open(&StoreSettings::memory(directory.path())).unwrap();
        let stop = CancellationToken::new();
        let watch_settings =
            Reloadable::new(WatchSettings::new(&Default::default(), &Default::default()));
        let reporter = Reporter::new(registry, watch_settings);
        let answers = Arc::new(ControlServer::new(reporter, Tester::unheard(), Default::default()));
        let socket = ControlSocket::open(directory.path()).unwrap();
        let serving = tokio::spawn(socket.serve(answers, stop.clone()));
        let asked = directory.path().to_owned();
        let text = tokio::task::spawn_blocking(move || status(&asked)).await.unwrap().unwrap();
        let report: StatusReport = serde_json::from_str(&text).unwrap();
        let alive = directory.path().to_owned();
        let alive = tokio::task::spawn_blocking(move || {
            ask(&alive, &ControlQuestion::Alive).map(|answer| io::read_to_string(answer).unwrap())
        });
        assert_eq!(alive.await.unwrap().unwrap(), "");
        assert_eq!((report.counts.accounts, report.accounts.len()), (0, 0));
        let mode = std::fs::metadata(path(directory.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        stop.cancel();
        serving.await.unwrap();
        assert!(!path(directory.path()).exists());
    }
}
