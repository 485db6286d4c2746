//! The answers to an operator's questions.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::question::{Question, Verdict};
use super::status::Reporter;

/// Who knows the answers.
pub struct Answers {
    reporter: Reporter,
}

impl Answers {
    /// Answers out of what `reporter` knows.
    #[must_use]
    pub fn new(reporter: Reporter) -> Self {
        Self { reporter }
    }

    /// Answers one question on its connection.
    ///
    /// # Errors
    /// If whoever asked is gone.
    pub(super) async fn answer(&self, question: Question, stream: &mut UnixStream) -> io::Result<()> {
        match question {
            Question::Status { names } => self.status(&names, stream).await,
        }
    }

    async fn status(&self, names: &[String], stream: &mut UnixStream) -> io::Result<()> {
        match self.reporter.report().await {
            Ok(report) => say(stream, &Verdict::Ok, &serde_json::to_string(&report.narrowed(names))?).await,
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
