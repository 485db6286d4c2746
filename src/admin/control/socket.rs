//! The side of the server: open sockets, and a task for each request.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::control_server::{ControlServer, Peer};
use super::super::question::ControlQuestion;
use super::super::reply::reply_no;
use super::request::Request;
use crate::accept::AcceptFailures;
use crate::{file_access, unix_socket};

/// Users who may connect, and their questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// The owner of the state, and root: every question.
    Owner,
    /// Every user of the machine: news of the mail server only.
    Everyone,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Everyone => 0o666,
        }
    }

    /// Concurrent requests; more wait for their turn. An operator is one person with a few terminals; mail servers deliver many
    /// messages at once.
    fn places(self) -> usize {
        match self {
            Self::Owner => 16,
            Self::Everyone => 128,
        }
    }

    /// Time limit for a request to arrive. It bounds the time in which one user keeps a place from the others.
    fn time(self) -> Duration {
        match self {
            Self::Owner => Duration::from_secs(10),
            Self::Everyone => Duration::from_secs(2),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Owner => "the control socket",
            Self::Everyone => "the socket for news",
        }
    }
}

/// An open socket for commands.
pub struct ControlSocket {
    path: PathBuf,
    listener: UnixListener,
    access: Access,
}

impl ControlSocket {
    /// Opens the control socket for the state in `directory`, which the caller owns. Requests wait until it is served. `None`,
    /// with a warning, if it cannot be opened: mail and pushes matter more than looking at them.
    #[must_use]
    pub fn open(directory: &Path) -> Option<Self> {
        let path = super::path(directory);
        Self::open_for(Access::Owner, path)
            .inspect_err(|error| warn!("`deltapush status` will not work: {error}"))
            .ok()
    }

    /// Opens the socket for news of the mail server at `path`. `None`, with a warning, if it cannot be opened: mail of other
    /// accounts is pushed all the same.
    #[must_use]
    pub fn open_for_news(path: &Path) -> Option<Self> {
        Self::open_for(Access::Everyone, path.to_owned())
            .inspect_err(|error| warn!("`deltapush news` will not work (news.socket): {error}"))
            .ok()
    }

    fn open_for(access: Access, path: PathBuf) -> Result<Self, String> {
        let listening = unix_socket::listen(&path, access.mode()).and_then(UnixListener::from_std);
        match listening {
            Ok(listener) => Ok(Self { path, listener, access }),
            Err(error) => {
                Err(format!("{}: {}", path.display(), file_access::explain(&path, &error)))
            }
        }
    }

    /// Answers requests until `stop` is cancelled.
    pub async fn serve(self, answers: Arc<ControlServer>, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.access.places()));
        let mut failures = AcceptFailures::default();
        // Questions under way end with it.
        let mut under_way = JoinSet::new();
        // Commands that find no place wait in the socket's queue, and give up by their own time limit.
        let next =
            async || (Arc::clone(&places).acquire_owned().await, self.listener.accept().await);
        while let Some((Ok(place), accepted)) = stop.run_until_cancelled(next()).await {
            while under_way.try_join_next().is_some() {}
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    failures.handle(&error, self.access.name()).await;
                    continue;
                }
            };
            let (answers, access) = (Arc::clone(&answers), self.access);
            under_way.spawn(async move {
                // The asker may be gone.
                let _ = answer(stream, access, &answers).await;
                drop(place);
            });
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(stream: UnixStream, access: Access, answers: &ControlServer) -> io::Result<()> {
    let peer = Peer::of(&stream);
    let mut stream = BufReader::new(stream);
    let request = timeout(access.time(), Request::read(&mut stream)).await??;
    let stream = stream.get_mut();
    match request {
        Some(Request { question, header }) if access.permits(&question) => {
            answers.answer(Request { question, header }, peer, stream).await?
        }
        Some(_) => reply_no(stream, "this socket takes news of the mail server only").await?,
        None => {
            reply_no(
                stream,
                "the running deltapush does not know this request: it is of another version",
            )
            .await?
        }
    }
    stream.shutdown().await
}

impl Access {
    fn permits(self, question: &ControlQuestion) -> bool {
        self == Self::Owner || matches!(question, ControlQuestion::News(_))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream as BlockingStream;
    use std::path::Path;

    use super::super::super::question::AskedNews;
    use super::super::super::report::StatusReport;
    use super::super::super::status::Reporter;
    use super::super::{ask, path, tell};
    use super::*;
    use crate::push::push_test::Tester;
    use crate::push::registry::Registry;
    use crate::push::server_news::NewsReceiver;
    use crate::push::watcher::{WatchSettings, Watchers};
    use crate::reloadable::Reloadable;
    use crate::store::StoreSettings;
    use crate::trace::Tracer;
    use crate::upstream::Upstreams;

    fn server(directory: &Path) -> Arc<ControlServer> {
        let (registry, _events, _news) = Registry::open(&StoreSettings::memory(directory)).unwrap();
        let watch_settings =
            Reloadable::new(WatchSettings::new(&Default::default(), &Default::default()));
        let reporter = Arc::new(Reporter::new(registry.clone(), watch_settings.clone()));
        let upstreams = Reloadable::new(Upstreams::new(&Default::default()).unwrap());
        let watchers = Watchers::new(
            &Default::default(),
            registry,
            upstreams,
            watch_settings,
            Tracer::default(),
        );
        let news = NewsReceiver::new(&watchers);
        Arc::new(ControlServer::new(reporter, Tester::unheard(), Default::default(), news))
    }

    async fn asked<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> T {
        tokio::task::spawn_blocking(ask).await.unwrap()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

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

        // Left behind.
        drop(UnixListener::bind(path(directory.path())).unwrap());
        let stop = CancellationToken::new();
        let socket = ControlSocket::open(directory.path()).unwrap();
        let serving = tokio::spawn(socket.serve(server(directory.path()), stop.clone()));
        let folder = directory.path().to_owned();
        let text = asked(move || status(&folder)).await.unwrap();
        let report: StatusReport = serde_json::from_str(&text).unwrap();
        let folder = directory.path().to_owned();
        let alive = asked(move || {
            ask(&folder, &ControlQuestion::Alive).map(|answer| io::read_to_string(answer).unwrap())
        });
        assert_eq!(alive.await.unwrap(), "");
        assert_eq!((report.counts.accounts, report.accounts.len()), (0, 0));
        assert_eq!(mode(&path(directory.path())), 0o600);
        stop.cancel();
        serving.await.unwrap();
        assert!(!path(directory.path()).exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn socket_for_news_takes_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        // The name of the control socket, so that `ask` finds it.
        let news = path(directory.path());
        let stop = CancellationToken::new();
        let socket = ControlSocket::open_for_news(&news).unwrap();
        let serving = tokio::spawn(socket.serve(server(directory.path()), stop.clone()));
        assert_eq!(mode(&news), 0o666);
        let account = crate::admin::question::AccountName { name: "a".into(), server: None };
        for question in [
            ControlQuestion::Alive,
            ControlQuestion::Status { names: vec![] },
            ControlQuestion::Forget(account.clone()),
            ControlQuestion::Account(account),
            ControlQuestion::Trace(Default::default()),
        ] {
            let folder = directory.path().to_owned();
            let refused = asked(move || ask(&folder, &question).map(|_| ())).await.unwrap_err();
            assert!(refused.to_string().contains("news of the mail server only"), "{refused}");
        }
        let told = asked(move || tell(&news, AskedNews::of("alice"), b"From: bob\n")).await;
        assert!(told.is_ok(), "{told:?}");
        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn news_beyond_the_places_waits_for_its_turn() {
        let directory = tempfile::tempdir().unwrap();
        let news = directory.path().join("news.sock");
        let stop = CancellationToken::new();
        let socket = ControlSocket::open_for_news(&news).unwrap();
        let idle: Vec<BlockingStream> = (0..Access::Everyone.places())
            .map(|_| BlockingStream::connect(&news).unwrap())
            .collect();
        let serving = tokio::spawn(socket.serve(server(directory.path()), stop.clone()));
        let told = asked(move || tell(&news, AskedNews::of("alice"), b"")).await;
        assert!(told.is_ok(), "{told:?}");
        drop(idle);
        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn file_of_another_program_stays() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("news.sock");
        std::fs::write(&file, "precious").unwrap();
        assert!(ControlSocket::open_for_news(&file).is_none());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
        let served = directory.path().join("served.sock");
        let _served = UnixListener::bind(&served).unwrap();
        assert!(ControlSocket::open_for_news(&served).is_none() && served.exists());
    }
}
