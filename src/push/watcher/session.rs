//! One watching session: connection, login, and the [`idle`](crate::push::idle) machine with its I/O.

use std::convert::Infallible;

use tokio::io::AsyncWriteExt;
use tokio::sync::watch as channel;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info, warn};

use super::Context;
use super::account::Ended;
use crate::account::AccountId;
use crate::parser::reader::{ResponseReader, TooLong};
use crate::push::board::WatchState;
use crate::push::gate::{Place, Treatment};
use crate::push::idle::{Action, Failure, IdleMachine, Watch, WatchedMailbox};
use crate::secret::Credentials;
use crate::store::StoreError;
use crate::stream::{Stream, receive};
use crate::trace::{Mark, Printer, Speaker, Transcript};
use crate::upstream::connect::{Attempt, ConnectError, Connected};
use crate::upstream::dialogue::Purpose;

/// The longest response that a watching session reads: flags and some header fields, of which it asks for 16 KiB at most, or a
/// capability list.
const MAX_RESPONSE: usize = 64 * 1024;

/// How long the upstream may take to accept what is written.
const WRITE_TIME: std::time::Duration = std::time::Duration::from_secs(60);

/// Why a watching session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
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
    #[error("the mail server has no session left, and the account's own client comes first")]
    GaveWay,
    #[error("a bug in deltapush ended it")]
    Panicked,
}

/// What a session is to do.
pub(super) struct Task<'a> {
    pub(super) context: &'a Context,
    pub(super) account: &'a AccountId,
    pub(super) credentials: &'a Credentials,
    /// The mailboxes; all but the first need NOTIFY.
    pub(super) mailboxes: &'a [String],
    pub(super) treatment: Treatment,
    /// Who is to know whether the server has NOTIFY.
    pub(super) notify: Option<&'a channel::Sender<Option<bool>>>,
    /// The wish to watch is old.
    pub(super) late: bool,
}

/// Logs in and watches until something ends it.
pub(super) async fn run(task: Task<'_>, mut place: Place) -> Ended {
    let mut transcript = {
        let session = format!("watch {}", task.account);
        task.context.trace.clone().map(|sink| Printer::new(session, sink))
    };
    let Connected { stream, logged_in, rest } = connect(&task, &mut transcript).await?;
    place.made();
    task.context.board.proof(task.account);
    if !logged_in.capabilities.has("IDLE") {
        return Err(Failure::NoIdle("it is not among its capabilities".into()).into());
    }
    let notify = logged_in.capabilities.has("NOTIFY");
    if let Some(known) = task.notify {
        known.send_replace(Some(notify));
    }
    let machine = IdleMachine::new(watch(&task, notify).await?, now());
    let session = Session {
        context: task.context,
        account: task.account,
        stream,
        transcript,
        machine,
        reader: ResponseReader::new(MAX_RESPONSE),
        was_watching: false,
    };
    session.run(rest).await
}

async fn connect(task: &Task<'_>, transcript: &mut Option<Printer>) -> Result<Connected, End> {
    let upstreams = &task.context.upstreams;
    let target = upstreams.routes.resolve(task.credentials.owner());
    let target = target.filter(|target| target.name() == *task.account.upstream).ok_or(End::NoRoute)?;
    let credentials = task.credentials.clone();
    let attempt = Attempt { target: &target, upstreams, credentials, purpose: Purpose::Watch };
    let shown = transcript.as_mut().map(|printer| printer as &mut (dyn Transcript + Send));
    Ok(attempt.connect(shown).await?)
}

/// What the machine has to know.
async fn watch(task: &Task<'_>, notify: bool) -> Result<Watch, StoreError> {
    let positions = task.context.registry.positions(task.account).await?;
    let wanted = if notify { task.mailboxes } else { task.mailboxes.get(..1).unwrap_or_default() };
    let with_position = |name: &String| {
        let position = positions.iter().find(|(noted, _)| noted == name).map(|(_, position)| *position);
        WatchedMailbox { name: name.clone(), position }
    };
    Ok(Watch {
        mailboxes: wanted.iter().map(with_position).collect(),
        judge: task.context.judge(task.credentials),
        // Not all at the same time, if all began at the same time.
        renewal: task.treatment.idle_renewal.mul_f64(1.0 - fastrand::f64() / 10.0),
        notify,
        late: task.late,
        grace: task.context.grace,
    })
}

/// A session under way: the machine and its I/O.
struct Session<'a> {
    context: &'a Context,
    account: &'a AccountId,
    stream: Stream,
    transcript: Option<Printer>,
    machine: IdleMachine,
    reader: ResponseReader,
    was_watching: bool,
}

impl Session<'_> {
    async fn run(mut self, mut received: Vec<u8>) -> Result<Infallible, End> {
        let mut actions = Vec::new();
        self.machine.start(now(), &mut actions);
        loop {
            self.respond(&mut received, &mut actions)?;
            self.act(&mut actions).await?;
            tokio::select! {
                read = receive(&mut self.stream, &mut received) => {
                    if read? == 0 {
                        return Err(Failure::Bye("without a word".into()).into());
                    }
                    self.context.board.proof(self.account);
                }
                () = sleep_until(self.machine.deadline().into()) => self.machine.tick(now(), &mut actions),
            }
        }
    }

    /// Gives the machine what was received.
    fn respond(&mut self, received: &mut Vec<u8>, actions: &mut Vec<Action>) -> Result<(), TooLong> {
        let bytes = std::mem::take(received);
        let mut input = bytes.as_slice();
        while let Some(response) = self.reader.next(&mut input)? {
            if let Some(transcript) = &mut self.transcript {
                transcript.response(Speaker::Upstream, Mark::Kept, &response);
            }
            self.machine.response(&response, now(), actions);
        }
        Ok(())
    }

    async fn act(&mut self, actions: &mut Vec<Action>) -> Result<(), End> {
        for action in std::mem::take(actions) {
            match action {
                Action::Send(bytes) => self.send(&bytes).await?,
                Action::Noticed { mailbox, position, announce } => {
                    self.context.registry.noticed(self.account, &mailbox, position, announce).await?;
                }
                Action::Judged { uid, verdict } => debug!(account = %self.account, uid, "new message: {verdict}"),
                Action::LeftOut(mailbox, words) => {
                    warn!(account = %self.account, "mailbox {mailbox:?} is not watched: {words}");
                }
                Action::Watching => self.watching(),
                Action::Failed(failure) => return Err(failure.into()),
            }
        }
        Ok(())
    }

    fn watching(&mut self) {
        if !std::mem::replace(&mut self.was_watching, true) {
            self.context.board.set(self.account, WatchState::Watching);
            info!(account = %self.account, upstream = %self.account.upstream, "watching");
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        if let Some(transcript) = &mut self.transcript {
            transcript.lines(Speaker::ToUpstream, Mark::Own, bytes);
        }
        let written = timeout(WRITE_TIME, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        });
        written.await.map_err(|_| Failure::Silent)??;
        Ok(())
    }
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
