//! Streams the trace of running sessions to `deltapush trace`.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::question::{AskedSide, AskedTrace};
use super::reply::{reply_no, reply_ok};
use crate::trace::{Audience, ConnectionSide, NoSession, TraceSelection, Tracer};

/// Streams the selected lines until the operator's command hangs up, the one session that was asked for ends, or deltapush ends.
pub(super) async fn follow(
    tracer: &Tracer,
    asked: AskedTrace,
    stream: &mut UnixStream,
) -> io::Result<()> {
    let wanted = match wanted(asked) {
        Ok(wanted) => wanted,
        Err(error) => return reply_no(stream, error.to_string()).await,
    };
    let session = match &wanted.audience {
        Audience::Session(session) => Some(*session),
        _ => None,
    };
    let Some(mut followed) = tracer.follow(wanted) else {
        let words = "too many `deltapush trace` commands run already: end one of them";
        return reply_no(stream, words).await;
    };
    // Asked after following began: a session that ends meanwhile ends the trace.
    if let Some(session) = session.filter(|session| !tracer.has(*session)) {
        let words = format!(
            "session {session} has ended, or has not begun: `deltapush trace` shows the sessions of this moment with their IDs"
        );
        return reply_no(stream, words).await;
    }
    reply_ok(stream, "").await?;
    let (mut hangup, mut out) = stream.split();
    let mut byte = [0];
    loop {
        let record = tokio::select! {
            record = followed.next() => record,
            _ = hangup.read(&mut byte) => return Ok(()),
        };
        let Some(record) = record else { return Ok(()) };
        let mut lines = record.to_json() + "\n";
        // Records at hand go out at once.
        while lines.len() < MAX_AT_ONCE
            && let Some(record) = followed.try_next()
        {
            lines.push_str(&record.to_json());
            lines.push('\n');
        }
        out.write_all(lines.as_bytes()).await?;
    }
}

/// Size of one write, in bytes, except for a single longer line.
const MAX_AT_ONCE: usize = 64 * 1024;

fn wanted(asked: AskedTrace) -> Result<TraceSelection, NoSession> {
    let audience = match (asked.session, asked.account) {
        (Some(session), _) => Audience::Session(session.parse()?),
        (None, Some(account)) => Audience::Account(account),
        (None, None) => Audience::Everyone,
    };
    let side = asked.side.map(|side| match side {
        AskedSide::Client => ConnectionSide::Client,
        AskedSide::Upstream => ConnectionSide::Upstream,
    });
    Ok(TraceSelection { audience, side, literals: asked.literals })
}
