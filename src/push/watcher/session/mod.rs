//! One watch session: connection and login, or the takeover of a client's session; then its [`driver`].

mod driver;
mod end;

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{oneshot, watch as channel};
use tokio_util::sync::CancellationToken;

use super::context::WatchContext;
use crate::clock::now;
use crate::credentials::Credentials;
use crate::mailbox_name::MailboxName;
use crate::push::account::Account;
use crate::push::idle::{IdleFailure, IdleMachine, InheritedState, WatchTerms, WatchedMailbox};
use crate::push::pacing::{Treatment, WatchPermit};
use crate::push::registry::INBOX;
use crate::store::StoreError;
use crate::tls::stream::Stream;
use crate::trace::Recorder;
use crate::upstream::connect::{Connected, LoginRequest};
use crate::upstream::id::Introduction;
use crate::upstream::login_machine::Purpose;
use driver::WatchSession;
pub(in crate::push) use end::{Ended, WatchEnd};

/// The task of a session.
pub(in crate::push) struct SessionTask<'a> {
    pub(in crate::push) context: &'a WatchContext,
    pub(in crate::push) account: &'a Account,
    /// The mailboxes; all but the first need NOTIFY.
    pub(in crate::push) mailboxes: &'a [MailboxName],
    pub(in crate::push) spare: Spare,
    pub(in crate::push) treatment: Treatment,
    /// Receives whether the server has NOTIFY.
    pub(in crate::push) notify: Option<&'a channel::Sender<Option<bool>>>,
    /// The watch request is old: mail may have arrived since.
    pub(in crate::push) late: bool,
    /// Sessions in a row that ended in the middle of a fetch.
    pub(in crate::push) failed_fetches: &'a AtomicU32,
    /// Cancelled when the session is to log out.
    pub(in crate::push) logout: CancellationToken,
    /// Called once the mailbox is watched.
    pub(in crate::push) when_watching: Option<&'a (dyn Fn() + Send + Sync)>,
    /// The channel for a request to return the session, if it can be resumed.
    pub(in crate::push) return_requests: Option<ReturnRequests>,
}

/// The mailboxes to watch where the first one cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::push) enum Spare {
    /// None: other sessions have them.
    None,
    /// INBOX, unless another session has it.
    Inbox,
    /// The others, and INBOX.
    Others,
}

/// The channel for the one request to return a session's connection.
pub(in crate::push) type ReturnRequests = oneshot::Receiver<oneshot::Sender<Stream>>;

/// An authenticated session that a client has used.
pub(in crate::push) struct TakenSession {
    pub(in crate::push) stream: Stream,
    pub(in crate::push) trace: Recorder,
    pub(in crate::push) has_notify: bool,
    /// Settings that the client has left in it.
    pub(in crate::push) inherited: InheritedState,
}

/// Limit of sessions in a row that end in the middle of a fetch, after which nothing is fetched: one message that a server or
/// deltapush cannot process must not hold up those after it.
const MAX_FAILED_FETCHES: u32 = 2;

/// Logs in and watches until something ends it.
pub(in crate::push) async fn run(
    task: SessionTask<'_>,
    credentials: &Credentials,
    mut permit: WatchPermit,
) -> Ended {
    let mut trace = task.context.tracer.watch(&task.account.id);
    trace.note(|| format!("a watch of {:?} begins", task.mailboxes));
    // Boxed: what a login needs is given back after it.
    let Connected { stream, logged_in, rest } =
        match Box::pin(connect(&task, credentials, &mut trace)).await {
            Ok(connected) => connected,
            Err(end) => {
                trace.note(|| format!("the connection ends without a login: {end}"));
                return Err(end);
            }
        };
    let _session = task.context.sessions.token();
    permit.made();
    task.account.watch.note_activity();
    if !logged_in.capabilities.has("IDLE") {
        return Err(IdleFailure::NoIdle("IDLE is not among its capabilities".into()).into());
    }
    let notify = logged_in.capabilities.has("NOTIFY");
    task.account.watch.is_uw_imapd(logged_in.capabilities.has("SCAN"));
    if let Some(known) = task.notify {
        known.send_replace(Some(notify));
    }
    let machine = IdleMachine::new(Box::pin(terms(&task, notify)).await?, now());
    let failed_fetches = task.failed_fetches;
    WatchSession::new(task, stream, trace, machine).run(rest, failed_fetches).await
}

/// Watches in a client's session until something ends it.
pub(in crate::push) async fn take_over(task: SessionTask<'_>, taken: TakenSession) -> Ended {
    let _session = task.context.sessions.token();
    task.account.watch.note_activity();
    let TakenSession { stream, mut trace, has_notify, inherited } = taken;
    trace.note(|| {
        format!(
            "the client disconnected, and a watch of {:?} begins in its session",
            task.mailboxes
        )
    });
    let machine = IdleMachine::new(terms(&task, has_notify).await?, now()).in_session(inherited);
    let failed_fetches = task.failed_fetches;
    WatchSession::new(task, stream, trace, machine).run(Vec::new(), failed_fetches).await
}

async fn connect(
    task: &SessionTask<'_>,
    credentials: &Credentials,
    trace: &mut Recorder,
) -> Result<Connected, WatchEnd> {
    let upstreams = &*task.context.upstreams.get();
    let found = upstreams.routes.find_again(&task.account.id.upstream, credentials.owner());
    let (target, _) = found.ok_or(WatchEnd::NoRoute)?;
    let credentials = credentials.clone();
    let (origin, introduction) = (None, Introduction::default());
    let (target, purpose) = (&target, Purpose::Watch);
    let attempt = LoginRequest {
        target,
        upstreams,
        credentials,
        purpose,
        origin,
        introduction,
        permit: None,
    };
    Ok(attempt.connect(trace.transcript()).await?)
}

/// The terms of the watch, for the machine.
async fn terms(task: &SessionTask<'_>, notify: bool) -> Result<WatchTerms, StoreError> {
    let positions = task.context.registry.positions(&task.account.id).await?;
    let first = task.mailboxes.len().min(if notify { usize::MAX } else { 1 });
    let (wanted, others) = task.mailboxes.split_at_checked(first).unwrap_or_default();
    let with_position = |name: &MailboxName| {
        let position =
            positions.iter().find(|(noted, _)| noted == name).map(|(_, position)| *position);
        let is_left_out = task.account.watch.is_left_out(name);
        WatchedMailbox { name: name.clone(), position, is_left_out }
    };
    let mut spare: Vec<_> = match task.spare {
        Spare::Others => others.iter().map(with_position).collect(),
        Spare::None | Spare::Inbox => Vec::new(),
    };
    if task.spare != Spare::None && !task.mailboxes.iter().any(|name| name == INBOX) {
        spare.push(with_position(&MailboxName::inbox()));
    }
    Ok(WatchTerms {
        mailboxes: wanted.iter().map(with_position).collect(),
        spare,
        judge: task.context.push_filter(&task.account.id),
        // Not all at the same time, if all began at the same time.
        renewal: task.treatment.idle_renewal.mul_f64(1.0 - fastrand::f64() / 10.0),
        notify,
        blindly: task.failed_fetches.load(Ordering::Relaxed) >= MAX_FAILED_FETCHES,
        late: task.late,
        grace: task.context.settings.get().grace,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<'a, F>(_: fn(SessionTask<'a>, &'a Credentials, WatchPermit) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn session_that_waits_is_small() {
        let sizes = (size_of::<IdleMachine>(), size_of::<WatchSession<'_>>(), size_of_future(run));
        // In bytes: the machine; that and what is known of its stream; all that is kept for a session. A quarter above what
        // rustc 1.95 makes of them: layouts are the compiler's.
        assert!(sizes.0 <= 490 && sizes.1 <= 850 && sizes.2 <= 1460, "{sizes:?}");
    }
}
