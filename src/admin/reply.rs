//! Replies on the control socket: a line with the verdict, then the text.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::question::ControlVerdict;

/// Sends a complete answer.
pub(super) async fn send_reply(
    stream: &mut UnixStream,
    verdict: &ControlVerdict,
    body: &str,
) -> io::Result<()> {
    let mut text = serde_json::to_string(verdict)?;
    text.push('\n');
    text.push_str(body);
    stream.write_all(text.as_bytes()).await
}
