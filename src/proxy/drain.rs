//! Drains a session after its client disconnected: commands in flight are completed or aborted within a time limit.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::session::{DrainStep, Output, Request, Session};
use crate::secret::DeviceToken;
use crate::tls::stream::{Stream, receive};
use crate::trace::{Recorder, Transcript};

/// How long answers are awaited that a client has asked for and does not want any more.
const REST_TIME: Duration = Duration::from_secs(90);

/// How long the mail server may say nothing meanwhile.
const SILENCE: Duration = Duration::from_secs(60);

/// How much of such answers is read, in bytes: one large message.
const MAX_ANSWERS: usize = 64 * 1024 * 1024;

/// Waits until nothing is under way in a session whose client is gone. Says why, if it does not come to that.
pub(super) async fn session_at_rest(
    stream: &mut Stream,
    unsent: &[u8],
    session: &mut Session,
    trace: &mut Recorder,
) -> Result<(), &'static str> {
    const GONE: &str = "the mail server closed the session";
    let deadline = Instant::now().checked_add(REST_TIME).unwrap_or_else(Instant::now);
    let mut out = Nobody { upstream: unsent.to_vec(), trace };
    let mut answers: usize = 0;
    loop {
        let settling = session.settle(&mut out);
        let to_send = std::mem::take(&mut out.upstream);
        match settling {
            DrainStep::Lost(reason) => return Err(reason),
            DrainStep::Settled if to_send.is_empty() => return Ok(()),
            DrainStep::Settled | DrainStep::Waiting => {}
        }
        let sent = timeout(SILENCE, async {
            stream.write_all(&to_send).await?;
            stream.flush().await
        });
        sent.await.map_err(|_| "the mail server accepts no more data")?.map_err(|_| GONE)?;
        if settling == DrainStep::Settled {
            return Ok(());
        }
        let patience = session.patience().map_or(SILENCE, |(_, patience)| patience.min(SILENCE));
        let silent =
            Instant::now().checked_add(patience).map_or(deadline, |silent| silent.min(deadline));
        let mut received = Vec::new();
        match timeout_at(silent, receive(stream, &mut received)).await {
            Ok(read) => match read.map_err(|_| GONE)? {
                0 => return Err(GONE),
                count => answers = answers.saturating_add(count),
            },
            // IDLE without a `+` is ended all the same.
            Err(_) if session.patience().is_some() && session.overdue(&mut out) => {}
            Err(_) => return Err("the mail server did not complete the client's commands in time"),
        }
        if answers > MAX_ANSWERS {
            return Err("the mail server sent too much data for the client's last commands");
        }
        session.from_upstream(&received, &mut out);
    }
}

/// In place of the client that is gone.
struct Nobody<'a> {
    upstream: Vec<u8>,
    trace: &'a mut Recorder,
}

impl Output for Nobody<'_> {
    fn to_client(&mut self, _: &[u8]) {}

    fn to_upstream(&mut self, bytes: &[u8]) {
        self.upstream.extend_from_slice(bytes);
    }

    fn compress(&mut self) {}

    fn request(&mut self, _: Request) {}

    fn idles_in(&mut self, _: &str) {}

    fn fetches(&mut self) {}

    fn tokens(&self) -> Vec<DeviceToken> {
        Vec::new()
    }

    fn push_status(&self) -> String {
        String::new()
    }

    fn transcript(&mut self) -> Option<&mut dyn Transcript> {
        self.trace.transcript().map(|transcript| transcript as &mut dyn Transcript)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::config::{JmapAccess, Native};
    use crate::proxy::session::{SessionSettings, UpstreamTraits};
    use crate::trace::Tracer;

    /// What comes of a session whose client has sent this and gone; `upstream` has the other end of its connection.
    async fn rest<F: Future<Output = ()> + Send + 'static>(
        client: &str,
        upstream: impl FnOnce(TcpStream) -> F,
    ) -> Result<(), &'static str> {
        let settings = SessionSettings {
            entries: vec![],
            push_status: false,
            native: Native::Passthrough,
            keepalive: None,
            jmapaccess: JmapAccess::Strip,
            max_command: 8192,
            max_response: 8192,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream =
            Stream::Plain(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let (other, _) = listener.accept().await.unwrap();
        let mut session = Session::new(Arc::new(settings), UpstreamTraits::default()).kept();
        let mut trace = Tracer::default().client(1);
        let mut out = Nobody { upstream: vec![], trace: &mut trace };
        session.from_client(client.as_bytes(), &mut out);
        let unsent = out.upstream;
        let upstream = tokio::spawn(upstream(other));
        let rest = session_at_rest(&mut stream, &unsent, &mut session, &mut trace).await;
        upstream.abort();
        rest
    }

    async fn reads(stream: &mut TcpStream, wanted: &str) {
        let mut bytes = vec![0; wanted.len()];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, wanted.as_bytes());
    }

    #[tokio::test]
    async fn bytes_in_flight_are_sent_and_answered() {
        let rest = rest("a NOOP\r\n", |mut upstream| async move {
            reads(&mut upstream, "a NOOP\r\n").await;
            upstream.write_all(b"a OK done\r\n").await.unwrap();
            std::future::pending().await
        });
        assert_eq!(rest.await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn server_that_does_not_answer_is_given_up() {
        let rest = rest("a UID FETCH 1 BODY[]\r\n", |upstream| async move {
            let _open = upstream;
            std::future::pending().await
        });
        assert_eq!(
            rest.await,
            Err("the mail server did not complete the client's commands in time")
        );
    }

    #[tokio::test]
    async fn server_that_closes_has_no_session_any_more() {
        let rest = rest("a NOOP\r\n", |mut upstream| async move {
            reads(&mut upstream, "a NOOP\r\n").await;
        });
        assert_eq!(rest.await, Err("the mail server closed the session"));
    }

    #[tokio::test]
    async fn server_that_has_too_much_to_say_is_given_up() {
        let rest = rest("a UID FETCH 1 BODY[]\r\n", |mut upstream| async move {
            upstream.write_all(b"* 1 FETCH (BODY[] {1000000000}\r\n").await.unwrap();
            // Until nobody reads it any more.
            while upstream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
        });
        assert_eq!(
            rest.await,
            Err("the mail server sent too much data for the client's last commands")
        );
    }
}
