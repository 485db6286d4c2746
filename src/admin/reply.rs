//! Replies on the control socket: a line with the verdict, then the text.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::question::ControlVerdict;

/// Sends the verdict that the request succeeds, and the text.
pub(super) async fn reply_ok(stream: &mut UnixStream, body: &str) -> io::Result<()> {
    reply(stream, &ControlVerdict::Ok, body).await
}

/// Refuses the request with these words.
pub(super) async fn reply_no(stream: &mut UnixStream, words: impl Into<String>) -> io::Result<()> {
    reply(stream, &ControlVerdict::No(words.into()), "").await
}

async fn reply(stream: &mut UnixStream, verdict: &ControlVerdict, body: &str) -> io::Result<()> {
    let mut text = serde_json::to_string(verdict)?;
    text.push('\n');
    text.push_str(body);
    stream.write_all(text.as_bytes()).await
}
