//! Dispatches the requests of the control socket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;

use super::actions::{self, PushTest};
use super::control::Request;
use super::question::{AccountName, ControlQuestion};
use super::reply::{reply_no, reply_ok};
use super::status::Reporter;
use super::trace;
use super::{lookup, news};
use crate::account::AccountId;
use crate::push::push_test::Tester;
use crate::push::server_news::NewsReceiver;
use crate::trace::Tracer;

/// The server side of the control socket.
pub struct ControlServer {
    reporter: Arc<Reporter>,
    tester: Tester,
    tracer: Tracer,
    news: NewsReceiver,
}

/// The user at the other end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// Root, or the user of this process.
    pub(super) is_trusted: bool,
}

impl Peer {
    /// The user by whom `stream` was connected.
    pub(super) fn of(stream: &UnixStream) -> Self {
        let own = rustix::process::geteuid().as_raw();
        let is_trusted = stream.peer_cred().is_ok_and(|peer| [0, own].contains(&peer.uid()));
        Self { is_trusted }
    }
}

impl ControlServer {
    /// Answers from `reporter` and `tracer`; wakes devices by `tester`; hands news of the mail server to `news`.
    #[must_use]
    pub fn new(
        reporter: Arc<Reporter>,
        tester: Tester,
        tracer: Tracer,
        news: NewsReceiver,
    ) -> Self {
        Self { reporter, tester, tracer, news }
    }

    /// Answers one request of `peer` on its connection.
    ///
    /// # Errors
    /// If the operator's command has hung up.
    pub(super) async fn answer(
        &self,
        request: Request,
        peer: Peer,
        stream: &mut UnixStream,
    ) -> io::Result<()> {
        match request.question {
            ControlQuestion::News(told) => {
                let answer = news::receive(&self.news, told, request.header, peer).await;
                reply_ok(stream, &serde_json::to_string(&answer)?).await
            }
            ControlQuestion::Alive => reply_ok(stream, "").await,
            ControlQuestion::Status { names } => self.status(&names, stream).await,
            ControlQuestion::Account(named) => match self.find(&named).await {
                Ok(account) => self.account(&account, stream).await,
                Err(words) => {
                    let erased = self.reporter.erased(&named.name).await;
                    reply_no(stream, erased.unwrap_or(words)).await
                }
            },
            ControlQuestion::Forget(named) => match self.find(&named).await {
                Ok(account) => {
                    let _visit = self.reporter.registry().visit(&account).await;
                    actions::forget(&self.reporter, &account, stream).await
                }
                Err(words) => reply_no(stream, words).await,
            },
            ControlQuestion::Rewatch(named) => match self.find(&named).await {
                Ok(account) => actions::rewatch(&self.reporter, &account, stream).await,
                Err(words) => reply_no(stream, words).await,
            },
            ControlQuestion::PushTest { account: named, device, seconds } => {
                match self.find(&named).await {
                    Ok(account) => {
                        let _visit = self.reporter.registry().visit(&account).await;
                        let (reporter, tester, account) = (&self.reporter, &self.tester, &account);
                        let (device, wait) = (device.as_deref(), Duration::from_secs(seconds));
                        PushTest { reporter, tester, account, device, wait }.run(stream).await
                    }
                    Err(words) => reply_no(stream, words).await,
                }
            }
            ControlQuestion::Trace(asked) => trace::follow(&self.tracer, asked, stream).await,
        }
    }

    /// The account that is meant, whichever node watches it.
    async fn find(&self, named: &AccountName) -> Result<AccountId, String> {
        let (registry, server) = (self.reporter.registry(), named.server.as_deref());
        let names = self.reporter.candidates(&named.name, server).await;
        let names = names.map_err(|error| format!("the state cannot be read: {error}"))?;
        lookup::find(names.clone(), &named.name, server).map_err(|unknown| {
            let tokenless = registry.tokenless_accounts().into_iter().map(|found| found.account);
            let tokenless: Vec<AccountId> = tokenless.collect();
            match lookup::find(tokenless.clone(), &named.name, server) {
                Ok(account) => format!(
                    "{account} has no device: a client logged in, and handed over no push token. Delta Chat Desktop, Delta \
                     Chat from F-Droid and other mail programs have none"
                ),
                // A similar name may be among these accounts, too.
                Err(_) => {
                    let all = names.into_iter().chain(tokenless).collect();
                    lookup::find(all, &named.name, server).err().unwrap_or(unknown)
                }
            }
        })
    }

    async fn status(&self, names: &[String], stream: &mut UnixStream) -> io::Result<()> {
        match self.reporter.report(names).await {
            Ok(report) => reply_ok(stream, &serde_json::to_string(&report)?).await,
            Err(error) => reply_no(stream, format!("the state cannot be read: {error}")).await,
        }
    }

    async fn account(&self, account: &AccountId, stream: &mut UnixStream) -> io::Result<()> {
        match self.reporter.account(account).await {
            Ok(Some(history)) => reply_ok(stream, &serde_json::to_string(&history)?).await,
            Ok(None) => reply_no(stream, format!("{account} was erased meanwhile")).await,
            Err(error) => reply_no(stream, format!("the state cannot be read: {error}")).await,
        }
    }
}
