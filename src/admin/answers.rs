//! The answers to an operator's questions.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::question::{Question, Verdict};
use super::status::Reporter;
use super::trace;
use crate::trace::Tracer;

/// Who knows the answers.
pub struct Answers {
    reporter: Reporter,
    tracer: Tracer,
}

impl Answers {
    /// Answers out of what `reporter` and `tracer` know.
    #[must_use]
    pub fn new(reporter: Reporter, tracer: Tracer) -> Self {
        Self { reporter, tracer }
    }

    /// Answers one question on its connection.
    ///
    /// # Errors
    /// If whoever asked is gone.
    pub(super) async fn answer(&self, question: Question, stream: &mut UnixStream) -> io::Result<()> {
        match question {
            Question::Status => say(stream, &Verdict::Ok, &self.reporter.report().await).await,
            Question::Trace(asked) => trace::follow(&self.tracer, asked, stream).await,
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
