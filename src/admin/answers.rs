//! The answers to an operator's questions.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::names;
use super::orders::{self, PushTest};
use super::question::{Named, Question, Verdict};
use super::status::Reporter;
use super::trace;
use crate::account::AccountId;
use crate::push::push_test::Tester;
use crate::trace::Tracer;

/// Who knows the answers.
pub struct Answers {
    reporter: Reporter,
    tester: Tester,
    tracer: Tracer,
}

impl Answers {
    /// Answers out of what `reporter` and `tracer` know; devices are woken by `tester`.
    #[must_use]
    pub fn new(reporter: Reporter, tester: Tester, tracer: Tracer) -> Self {
        Self { reporter, tester, tracer }
    }

    /// Answers one question on its connection.
    ///
    /// # Errors
    /// If whoever asked is gone.
    pub(super) async fn answer(&self, question: Question, stream: &mut UnixStream) -> io::Result<()> {
        match question {
            Question::Status { names } => self.status(&names, stream).await,
            Question::Account(named) => match self.find(&named) {
                Ok(account) => self.account(&account, stream).await,
                Err(words) => {
                    let erased = self.reporter.erased(&named.name).await;
                    say(stream, &Verdict::No(erased.unwrap_or(words)), "").await
                }
            },
            Question::Forget(named) => match self.find(&named) {
                Ok(account) => orders::forget(&self.reporter, &account, stream).await,
                Err(words) => say(stream, &Verdict::No(words), "").await,
            },
            Question::Rewatch(named) => match self.find(&named) {
                Ok(account) => orders::rewatch(&self.reporter, &account, stream).await,
                Err(words) => say(stream, &Verdict::No(words), "").await,
            },
            Question::PushTest { account: named, device, seconds } => match self.find(&named) {
                Ok(account) => {
                    let (reporter, tester, account) = (&self.reporter, &self.tester, &account);
                    let (device, wait) = (device.as_deref(), Duration::from_secs(seconds));
                    PushTest { reporter, tester, account, device, wait }.run(stream).await
                }
                Err(words) => say(stream, &Verdict::No(words), "").await,
            },
            Question::Trace(asked) => trace::follow(&self.tracer, asked, stream).await,
        }
    }

    fn find(&self, named: &Named) -> Result<AccountId, String> {
        names::find(self.reporter.registry().accounts(), &named.name, named.server.as_deref())
    }

    async fn status(&self, names: &[String], stream: &mut UnixStream) -> io::Result<()> {
        match self.reporter.report().await {
            Ok(report) => say(stream, &Verdict::Ok, &serde_json::to_string(&report.narrowed(names))?).await,
            Err(error) => say(stream, &Verdict::No(format!("the state cannot be read: {error}")), "").await,
        }
    }

    async fn account(&self, account: &AccountId, stream: &mut UnixStream) -> io::Result<()> {
        match self.reporter.account(account).await {
            Ok(Some(history)) => say(stream, &Verdict::Ok, &serde_json::to_string(&history)?).await,
            Ok(None) => say(stream, &Verdict::No(format!("{account} has just gone")), "").await,
            Err(error) => say(stream, &Verdict::No(format!("the state cannot be read: {error}")), "").await,
        }
    }
}

/// Says a whole answer.
pub(super) async fn say(stream: &mut UnixStream, verdict: &Verdict, body: &str) -> io::Result<()> {
    let mut text = serde_json::to_string(verdict)?;
    text.push('\n');
    text.push_str(body);
    stream.write_all(text.as_bytes()).await
}
