//! A connection to the database that is opened again whenever it ends.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, Client, Statement};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::postgres_connector::{Driven, PostgresConnector, explain};
use super::super::{OpenError, PostgresSettings, StoreError};
use crate::backoff::{GrowingWait, around};

/// Pauses between attempts to connect again.
const PAUSE: GrowingWait =
    GrowingWait::doubling(Duration::from_millis(100), Duration::from_secs(2));
/// Time for which a connection that has just ended is waited for.
const WAIT: Duration = Duration::from_secs(2);
/// Time limit of one statement, at the client; the server's own is shorter.
const STATEMENT: Duration = Duration::from_secs(8);

/// The same for commands, which look through whole tables while somebody waits for them.
const COMMAND_STATEMENT: Duration = Duration::from_secs(600);

/// Time limits at the server. The last one lets go of the locks of a process that is stopped in the midst of a transaction.
const SETTINGS: &str = "SET statement_timeout = '5s'; SET lock_timeout = '4s'; \
     SET idle_in_transaction_session_timeout = '5s'";

/// The further work of a connection when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Statements only.
    Statements,
    /// It also takes notifications.
    Listener,
    /// Statements of a command.
    Command,
}

impl Role {
    /// Statements that a new connection begins with.
    fn begin(self) -> String {
        let further = match self {
            Self::Statements => "",
            Self::Listener => "; LISTEN deltapush",
            Self::Command => "; SET statement_timeout = 0",
        };
        format!("{SETTINGS}{further}")
    }

    /// Time limit of one statement, at the client.
    const fn limit(self) -> Duration {
        match self {
            Self::Statements | Self::Listener => STATEMENT,
            Self::Command => COMMAND_STATEMENT,
        }
    }
}

/// One connection.
pub(in crate::store) struct Session {
    pub(in crate::store) client: AsyncMutex<Client>,
    /// The statements that are prepared in it.
    statements: Mutex<HashMap<&'static str, Statement>>,
    #[cfg(test)]
    pub(in crate::store) traffic: Mutex<Traffic>,
    /// Time limit of one statement, at the client; the server's own is shorter.
    pub(in crate::store) limit: Duration,
    end: CancellationToken,
}

/// Numbers of statements, and of the round trips in which they were sent; without those that prepare.
#[cfg(test)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Traffic {
    pub(in crate::store) statements: usize,
    pub(in crate::store) round_trips: usize,
}

impl Session {
    /// A statement that was prepared before.
    pub(in crate::store) fn prepared(&self, text: &str) -> Option<Statement> {
        self.lock().get(text).cloned()
    }

    /// Keeps a statement that was prepared, by its text.
    pub(in crate::store) fn keep_prepared(&self, text: &'static str, statement: &Statement) {
        self.lock().insert(text, statement.clone());
    }

    /// Statements are sent together: tests count them.
    #[cfg(test)]
    pub(in crate::store) fn sends(&self, statements: usize) {
        let mut traffic = self.traffic.lock().unwrap();
        traffic.statements += statements;
        traffic.round_trips += 1;
    }

    #[cfg(not(test))]
    pub(in crate::store) const fn sends(&self, _: usize) {}

    fn lock(&self) -> MutexGuard<'_, HashMap<&'static str, Statement>> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection, whose answers have become late or lead nowhere. Another one follows.
    pub(in crate::store) fn discard(&self) {
        self.end.cancel();
    }
}

#[derive(Clone)]
enum LinkState {
    Ready(Arc<Session>),
    /// With the reason, in words.
    Away(Arc<str>),
}

/// The connection that is open at the moment. It is closed when this is dropped.
pub(super) struct Link {
    state: watch::Receiver<LinkState>,
    _open: DropGuard,
}

/// The task behind a [`Link`].
struct Keeper {
    connector: PostgresConnector,
    role: Role,
    /// Counts what may be news: notifications, and new connections, before which some may be lost.
    news: watch::Sender<u64>,
    state: watch::Sender<LinkState>,
    /// Set to false with each new connection.
    failing: watch::Sender<bool>,
    stop: CancellationToken,
}

impl Link {
    /// Connects. `news` counts notifications, and `failing` becomes false with each connection.
    ///
    /// # Errors
    /// [`OpenError::Unavailable`]: the first connection failed.
    pub(super) async fn open(
        connector: PostgresConnector,
        role: Role,
        news: watch::Sender<u64>,
        failing: watch::Sender<bool>,
    ) -> Result<Self, OpenError> {
        let stop = CancellationToken::new();
        let (state, receiver) = watch::channel(LinkState::Away(Arc::from("not connected yet")));
        let keeper = Keeper { connector, role, news, state, failing, stop: stop.clone() };
        let ended = keeper.connect().await.map_err(OpenError::Unavailable)?;
        tokio::spawn(keeper.keep(ended));
        Ok(Self { state: receiver, _open: stop.drop_guard() })
    }

    /// Connects for one command, which holds the link as long as it uses the connection.
    ///
    /// # Errors
    /// [`OpenError::Unavailable`]: there is no connection, and why.
    pub(super) async fn for_command(
        settings: PostgresSettings,
    ) -> Result<(Self, Arc<Session>), OpenError> {
        let connector = PostgresConnector::new(settings)
            .map_err(|error| OpenError::Unavailable(error.to_string()))?;
        let (news, failing) = (watch::Sender::new(0), watch::Sender::new(false));
        let link = Self::open(connector, Role::Command, news, failing).await?;
        let session = link.session().await;
        let session = session.map_err(|error| OpenError::Unavailable(error.to_string()))?;
        Ok((link, session))
    }

    /// The connection. Waits a moment for one that is being opened again.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) async fn session(&self) -> Result<Arc<Session>, StoreError> {
        let mut state = self.state.clone();
        let is_ready = |state: &LinkState| matches!(state, LinkState::Ready(_));
        // Its end is heard of below, too.
        let _ = timeout(WAIT, state.wait_for(is_ready)).await;
        let state = self.state.borrow().clone();
        match state {
            LinkState::Ready(session) => Ok(session),
            LinkState::Away(reason) => Err(StoreError::Unavailable(reason)),
        }
    }
}

/// Returns the reason of a connection's end, when it ends.
type Ended = tokio::task::JoinHandle<String>;

impl Keeper {
    async fn keep(self, mut ended: Ended) {
        loop {
            let reason = (&mut ended).await.unwrap_or_else(|error| error.to_string());
            self.state.send_replace(LinkState::Away(format!("connection lost: {reason}").into()));
            let mut failures = 0;
            ended = loop {
                let pause = around(PAUSE.after(failures), &mut fastrand::Rng::new());
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = sleep(pause) => {}
                }
                let connected = tokio::select! {
                    () = self.stop.cancelled() => return,
                    connected = self.connect() => connected,
                };
                match connected {
                    Ok(ended) => break ended,
                    Err(reason) => {
                        failures = failures.saturating_add(1);
                        self.state.send_replace(LinkState::Away(reason.into()));
                    }
                }
            };
        }
    }

    /// Opens one connection and drives it by a task.
    async fn connect(&self) -> Result<Ended, String> {
        let (client, connection) =
            Box::pin(self.connector.connect()).await.map_err(|error| error.to_string())?;
        let end = self.stop.child_token();
        let ended = tokio::spawn(drive(connection, self.news.clone(), end.clone()));
        match timeout(STATEMENT, client.batch_execute(&self.role.begin())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(explain(&error)),
            Err(_) => {
                end.cancel();
                return Err("no answer".to_owned());
            }
        }
        let session = Session {
            client: AsyncMutex::new(client),
            statements: Mutex::default(),
            limit: self.role.limit(),
            #[cfg(test)]
            traffic: Mutex::default(),
            end,
        };
        self.state.send_replace(LinkState::Ready(Arc::new(session)));
        self.news.send_modify(|count| *count = count.wrapping_add(1));
        self.failing.send_replace(false);
        Ok(ended)
    }
}

/// Does the connection's work until it ends. Returns the reason.
async fn drive(mut connection: Driven, news: watch::Sender<u64>, end: CancellationToken) -> String {
    loop {
        let message = tokio::select! {
            () = end.cancelled() => return "it did not answer in time".to_owned(),
            message = poll_fn(|context| connection.poll_message(context)) => message,
        };
        match message {
            Some(Ok(AsyncMessage::Notification(_))) => {
                news.send_modify(|count| *count = count.wrapping_add(1));
            }
            Some(Ok(AsyncMessage::Notice(notice))) => {
                tracing::debug!("the database says: {}", notice.message());
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return explain(&error),
            None => return "it was closed".to_owned(),
        }
    }
}
