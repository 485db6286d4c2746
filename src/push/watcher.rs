//! One task per account that has a token: connect, log in, drive the [`idle`](super::idle) machine, and come back after
//! whatever happens.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::task::AbortHandle;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::backoff::Backoff;
use super::idle::{Action, Failure, IdleMachine, Watch, WatchedMailbox};
use super::registry::{AccountEvent, AccountEvents, Registry};
use super::verdict::{Judge, Messages};
use crate::account::AccountId;
use crate::parser::reader::{ResponseReader, TooLong};
use crate::secret::Credentials;
use crate::store::StoreError;
use crate::stream::{Stream, receive};
use crate::trace::{Mark, Printer, Sink, Speaker, Transcript};
use crate::upstream::Upstreams;
use crate::upstream::connect::{Attempt, ConnectError, Connected};
use crate::upstream::dialogue::LoginError;
use crate::upstream::refusal::{Refusal, classify};

/// The mailbox that is watched.
const MAILBOX: &str = "INBOX";

/// The longest response that a watching session reads: flags and two header fields, or a capability list.
const MAX_RESPONSE: usize = 64 * 1024;

/// How long the upstream may take to accept what is written.
const WRITE_TIME: Duration = Duration::from_secs(60);

/// How watching is done.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long one IDLE lasts at most; up to a tenth less, at random.
    pub renewal: Duration,
}

/// All watchers of the process.
pub struct Watchers {
    context: Arc<Context>,
    running: HashMap<AccountId, AbortHandle>,
}

struct Context {
    registry: Registry,
    upstreams: Arc<Upstreams>,
    settings: Settings,
    trace: Option<Sink>,
}

/// Why a watching session ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error("the connection to the mail server broke: {0}")]
    Broken(#[from] std::io::Error),
    #[error("the mail server sent a response that is too long: {0}")]
    TooLong(#[from] TooLong),
    #[error("the state cannot be written: {0}")]
    Store(#[from] StoreError),
    #[error("no route of the configuration leads to the account's mail server any more")]
    NoRoute,
    #[error("a bug in deltapush ended it")]
    Panicked,
}

/// What to do after a session's end.
enum Next {
    /// Try again, after the usual time or a long one.
    Retry { long: bool },
    /// Nothing, until the client logs in again.
    AwaitLogin,
}

impl Watchers {
    /// Watchers for the accounts of `registry`. None runs yet.
    #[must_use]
    pub fn new(registry: Registry, upstreams: Arc<Upstreams>, settings: Settings, trace: Option<Sink>) -> Self {
        Self { context: Arc::new(Context { registry, upstreams, settings, trace }), running: HashMap::new() }
    }

    /// Starts and ends watchers as `events` say, until `stop` is cancelled.
    pub async fn run(mut self, mut events: AccountEvents, stop: CancellationToken) {
        while let Some((account, event)) = stop.run_until_cancelled(events.recv()).await {
            if let Some(running) = self.running.remove(&account) {
                running.abort();
            }
            match event {
                AccountEvent::Watch | AccountEvent::CredentialsChanged => {
                    let watching = tokio::spawn(watch(Arc::clone(&self.context), account.clone()));
                    self.running.insert(account, watching.abort_handle());
                }
                AccountEvent::Unwatch => info!(%account, "no device is left, the mailbox is watched no more"),
            }
        }
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.running.values().for_each(AbortHandle::abort);
    }
}

/// Watches an account until that makes no sense any more.
async fn watch(context: Arc<Context>, account: AccountId) {
    let mut backoff = Backoff::new();
    while let Some(credentials) = context.registry.credentials(&account) {
        let mut was_watching = false;
        let session = Box::pin(watching_session(&context, &account, &credentials, &mut was_watching));
        // A watcher that ends in silence is what everybody else's users complain about.
        let end = match AssertUnwindSafe(session).catch_unwind().await {
            Ok(Err(end)) => end,
            Err(_) => End::Panicked,
        };
        if was_watching {
            backoff = Backoff::new();
        }
        match next_step(&end) {
            Next::AwaitLogin => {
                warn!(%account, upstream = %account.upstream, "{end}; not watched until the client logs in again");
                return context.registry.login_refused(&account);
            }
            Next::Retry { long } => {
                let wait = if long { backoff.longest() } else { backoff.next() };
                report(&account, &end, wait, long);
                sleep(wait).await;
            }
        }
    }
}

/// An upstream that drops a session is everyday life; one that cannot be watched is the operator's to know.
fn report(account: &AccountId, end: &End, wait: Duration, long: bool) {
    let seconds = wait.as_secs_f32();
    if matches!(end, End::Panicked) {
        error!(%account, "not watched: {end}; next attempt in {seconds:.0}s");
    } else if long || matches!(end, End::Store(_)) {
        warn!(%account, upstream = %account.upstream, "not watched: {end}; next attempt in {seconds:.0}s");
    } else {
        debug!(%account, upstream = %account.upstream, "watching interrupted: {end}; next attempt in {seconds:.1}s");
    }
}

fn next_step(end: &End) -> Next {
    match end {
        End::Connect(ConnectError::Login(LoginError::Refused { answer, .. })) => match classify(answer) {
            Refusal::Credentials => Next::AwaitLogin,
            Refusal::TooManySessions | Refusal::Temporary => Next::Retry { long: true },
        },
        End::Failed(Failure::NoIdle(_)) | End::NoRoute => Next::AwaitLogin,
        End::Failed(failure) => Next::Retry { long: failure.is_lasting() },
        // A certificate that cannot be verified is the operator's to mend.
        End::Connect(ConnectError::Tls(_)) | End::Panicked => Next::Retry { long: true },
        End::Connect(ConnectError::Login(error)) => Next::Retry { long: !matches!(error, LoginError::Bye(_)) },
        _ => Next::Retry { long: false },
    }
}

/// One session, from connection to whatever ends it.
async fn watching_session(
    context: &Context,
    account: &AccountId,
    credentials: &Credentials,
    was_watching: &mut bool,
) -> Result<std::convert::Infallible, End> {
    let target = context.upstreams.routes.resolve(credentials.owner());
    let target = target.filter(|target| target.name() == *account.upstream).ok_or(End::NoRoute)?;
    let mut transcript = context.trace.clone().map(|sink| Printer::new(format!("watch {account}"), sink));
    let attempt =
        Attempt { target: &target, upstreams: &context.upstreams, credentials: credentials.clone(), probe: false };
    let shown = transcript.as_mut().map(|printer| printer as &mut (dyn Transcript + Send));
    let Connected { stream, logged_in, rest } = attempt.connect(shown).await?;
    if !logged_in.capabilities.has("IDLE") {
        return Err(Failure::NoIdle("it is not among its capabilities".into()).into());
    }
    let positions = context.registry.positions(account).await?;
    let position = positions.into_iter().find(|(mailbox, _)| mailbox == MAILBOX).map(|(_, position)| position);
    let own_address = credentials.user.contains('@').then(|| credentials.user.clone());
    let watch = Watch {
        mailboxes: vec![WatchedMailbox { name: MAILBOX.into(), position }],
        judge: Judge { addresses: own_address.into_iter().collect(), messages: Messages::All },
        renewal: context.settings.renewal.mul_f64(1.0 - fastrand::f64() / 10.0),
        notify: false,
        late: false,
        grace: Duration::ZERO,
    };
    let machine = IdleMachine::new(watch, std::time::Instant::now());
    Session { context, account, stream, transcript, machine, was_watching }.run(rest).await
}

/// A watching session under way: the machine and its I/O.
struct Session<'a> {
    context: &'a Context,
    account: &'a AccountId,
    stream: Stream,
    transcript: Option<Printer>,
    machine: IdleMachine,
    was_watching: &'a mut bool,
}

impl Session<'_> {
    async fn run(mut self, mut received: Vec<u8>) -> Result<std::convert::Infallible, End> {
        let mut reader = ResponseReader::new(MAX_RESPONSE);
        let mut actions = Vec::new();
        self.machine.start(now(), &mut actions);
        loop {
            self.respond(&mut reader, &mut received, &mut actions)?;
            self.act(&mut actions).await?;
            tokio::select! {
                read = receive(&mut self.stream, &mut received) => {
                    if read? == 0 {
                        return Err(Failure::Bye("without a word".into()).into());
                    }
                }
                () = sleep_until(self.machine.deadline().into()) => self.machine.tick(now(), &mut actions),
            }
        }
    }

    /// Gives the machine what was received.
    fn respond(
        &mut self,
        reader: &mut ResponseReader,
        received: &mut Vec<u8>,
        actions: &mut Vec<Action>,
    ) -> Result<(), TooLong> {
        let bytes = std::mem::take(received);
        let mut input = bytes.as_slice();
        while let Some(response) = reader.next(&mut input)? {
            if let Some(transcript) = &mut self.transcript {
                transcript.response(Speaker::Upstream, Mark::Kept, &response);
            }
            self.machine.response(&response, now(), actions);
        }
        Ok(())
    }

    async fn act(&mut self, actions: &mut Vec<Action>) -> Result<(), End> {
        for action in actions.drain(..) {
            match action {
                Action::Send(bytes) => send(&mut self.stream, &mut self.transcript, &bytes).await?,
                Action::Noticed { mailbox, position, announce } => {
                    self.context.registry.noticed(self.account, &mailbox, position, announce).await?;
                }
                Action::Judged { uid, verdict } => debug!(account = %self.account, uid, "new message: {verdict}"),
                Action::LeftOut(mailbox, words) => {
                    warn!(account = %self.account, "mailbox {mailbox:?} is not watched: {words}");
                }
                Action::Watching => {
                    if !std::mem::replace(self.was_watching, true) {
                        info!(account = %self.account, upstream = %self.account.upstream, "watching");
                    }
                }
                Action::Failed(failure) => return Err(failure.into()),
            }
        }
        Ok(())
    }
}

async fn send(stream: &mut Stream, transcript: &mut Option<Printer>, bytes: &[u8]) -> Result<(), End> {
    if let Some(transcript) = transcript {
        transcript.lines(Speaker::ToUpstream, Mark::Own, bytes);
    }
    let written = timeout(WRITE_TIME, async {
        stream.write_all(bytes).await?;
        stream.flush().await
    });
    written.await.map_err(|_| Failure::Silent)??;
    Ok(())
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
