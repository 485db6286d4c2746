//! The Unix socket on which a running deltapush answers its operator's commands. It lies in the state's folder, for its owner
//! only.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::status::Reporter;

/// How long a question and its answer may take.
const TIME: Duration = Duration::from_secs(10);

/// The longest question.
const MAX_QUESTION: u64 = 64;

/// The one question there is.
const STATUS: &[u8] = b"status\n";

/// Where the socket of the state in `directory` lies.
#[must_use]
pub fn path(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}

/// Answers on the socket of the state in `directory` until `stop` is cancelled. The caller owns the folder.
pub async fn serve(directory: PathBuf, reporter: Reporter, stop: CancellationToken) {
    let path = path(&directory);
    let listener = match listen(&path) {
        Ok(listener) => listener,
        // Mail and pushes matter more than looking at them.
        Err(error) => return warn!("`deltapush status` will not work: {}: {error}", path.display()),
    };
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        // One at a time: an operator is one person, and what cannot be accepted now can be asked again.
        if let Ok((stream, _)) = accepted {
            let _ = timeout(TIME, answer(stream, &reporter)).await;
        }
    }
    let _ = std::fs::remove_file(&path);
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    // Left behind by a process that was killed: whoever owns the folder owns the socket.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn answer(mut stream: UnixStream, reporter: &Reporter) -> io::Result<()> {
    let mut question = Vec::new();
    (&mut stream).take(MAX_QUESTION).read_to_end(&mut question).await?;
    let text = if question == STATUS { reporter.report().await } else { "unknown question\n".into() };
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// Why a running deltapush could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("no deltapush answers at {}: {error}; does it run, with this configuration, as this user?", path.display())]
pub struct NotRunning {
    path: PathBuf,
    error: io::Error,
}

/// Asks the deltapush that owns the state in `directory` how it is.
///
/// # Errors
/// [`NotRunning`] if it does not answer.
pub fn ask_status(directory: &Path) -> Result<String, NotRunning> {
    let path = path(directory);
    ask(&path).map_err(|error| NotRunning { path, error })
}

fn ask(path: &Path) -> io::Result<String> {
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_read_timeout(Some(TIME))?;
    stream.set_write_timeout(Some(TIME))?;
    stream.write_all(STATUS)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::board::Board;
    use crate::push::registry::Registry;
    use crate::store::Settings;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_owner_is_answered_and_nobody_is_not_running() {
        let directory = tempfile::tempdir().unwrap();
        let error = ask_status(directory.path()).unwrap_err();
        assert!(error.to_string().contains("control.sock") && error.to_string().contains("does it run"), "{error}");

        std::fs::write(path(directory.path()), "left behind").unwrap();
        let (registry, _events, _news) = Registry::open(&Settings::memory(directory.path())).unwrap();
        let stop = CancellationToken::new();
        let reporter = Reporter::new(registry, Board::default());
        let serving = tokio::spawn(serve(directory.path().to_owned(), reporter, stop.clone()));
        let asked = directory.path().to_owned();
        let text = tokio::task::spawn_blocking(move || {
            // The socket may not be there yet.
            (0..500).find_map(|_| {
                std::thread::sleep(Duration::from_millis(10));
                ask_status(&asked).ok()
            })
        });
        let text = text.await.unwrap().expect("no answer");
        assert!(text.contains("0 accounts"), "{text}");
        let mode = std::fs::metadata(path(directory.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        stop.cancel();
        serving.await.unwrap();
        assert!(!path(directory.path()).exists());
    }
}
