//! Drains a session after its client disconnected: commands in flight are completed or aborted within a time limit.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::machine::Machine;
use crate::proxy::session::{Backlog, DrainStep, Session, SessionAction, SessionInput};
use crate::tls::stream::{Stream, receive};
use crate::trace::Recorder;

/// Time limit for the answers to the client's last commands.
const DRAIN_TIME: Duration = Duration::from_secs(90);

/// Longest silence of the mail server meanwhile.
const SILENCE: Duration = Duration::from_secs(60);

/// The most that is read of such answers, in bytes: one large message.
const MAX_ANSWERS: usize = 64 * 1024 * 1024;

/// Waits until no command is in flight in a session whose client is gone.
///
/// # Errors
/// The reason why that cannot be reached.
pub(super) async fn drain(
    stream: &mut Stream,
    unsent: &[u8],
    session: &mut Session,
    trace: &mut Recorder,
) -> Result<(), &'static str> {
    const GONE: &str = "the mail server closed the session";
    const LATE: &str = "the mail server did not complete the client's commands in time";
    let end = Instant::now().checked_add(DRAIN_TIME).unwrap_or_else(Instant::now);
    let mut driver = DrainDriver::new(session, trace, unsent.to_vec());
    let mut answers: usize = 0;
    loop {
        let step = driver.step();
        let to_send = std::mem::take(&mut driver.upstream);
        match step {
            DrainStep::Lost(reason) => return Err(reason),
            DrainStep::Settled if to_send.is_empty() => return Ok(()),
            DrainStep::Settled | DrainStep::Waiting => {}
        }
        let sent = timeout(SILENCE, async {
            stream.write_all(&to_send).await?;
            stream.flush().await
        });
        sent.await.map_err(|_| "the mail server accepts no more data")?.map_err(|_| GONE)?;
        if step == DrainStep::Settled {
            return Ok(());
        }
        let silent = Instant::now().checked_add(SILENCE).map_or(end, |silent| silent.min(end));
        let until = driver.deadline().map_or(silent, |deadline| deadline.min(silent));
        let mut received = Vec::new();
        match timeout_at(until, receive(stream, &mut received)).await {
            Ok(read) => match read.map_err(|_| GONE)? {
                0 => return Err(GONE),
                count => answers = answers.saturating_add(count),
            },
            // IDLE without a `+` is ended all the same.
            Err(_) if until < silent && driver.goes_on_without_an_answer() => continue,
            Err(_) => return Err(LATE),
        }
        if answers > MAX_ANSWERS {
            return Err("the mail server sent too much data for the client's last commands");
        }
        driver.handle(SessionInput::Upstream { bytes: &received, pieces: usize::MAX });
    }
}

/// The session's driver in place of the relay: output to the client is dropped.
struct DrainDriver<'a> {
    session: &'a mut Session,
    trace: &'a mut Recorder,
    /// Bytes that are to be sent to the upstream.
    upstream: Vec<u8>,
    step: DrainStep,
    /// The session has given up.
    has_ended: bool,
}

impl<'a> DrainDriver<'a> {
    fn new(session: &'a mut Session, trace: &'a mut Recorder, upstream: Vec<u8>) -> Self {
        let mut driver =
            Self { session, trace, upstream, step: DrainStep::Waiting, has_ended: false };
        // Bytes that the client has not taken hold up nothing any more.
        driver.handle(SessionInput::Backlog(Backlog::default()));
        driver
    }

    fn handle(&mut self, input: SessionInput<'_>) {
        let Self { session, trace, upstream, step, has_ended } = self;
        let now = Instant::now().into_std();
        let mut actions = |action: SessionAction<'_>| match action {
            SessionAction::ToUpstream(bytes) => upstream.extend_from_slice(bytes),
            SessionAction::Trace(event) => event.show(*trace),
            SessionAction::Drained(drained) => *step = drained,
            SessionAction::End(_) => *has_ended = true,
            // Of the client, which is gone.
            _ => {}
        };
        session.handle(input, now, &mut actions);
    }

    fn step(&mut self) -> DrainStep {
        let traced = self.trace.transcript().is_some();
        self.handle(SessionInput::Traced(traced));
        self.handle(SessionInput::Drain);
        self.step
    }

    fn deadline(&self) -> Option<Instant> {
        self.session.deadline().map(Instant::from_std)
    }

    fn goes_on_without_an_answer(&mut self) -> bool {
        self.handle(SessionInput::Time);
        !self.has_ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::proxy::session::UpstreamTraits;
    use crate::proxy::session_log;
    use crate::trace::Tracer;

    /// Drains a session whose client has sent this and disconnected; `upstream` has the other end of its connection.
    async fn drained<F: Future<Output = ()> + Send + 'static>(
        client: &str,
        upstream: impl FnOnce(TcpStream) -> F,
    ) -> Result<(), &'static str> {
        let settings = session_log::settings();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream =
            Stream::Plain(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let (other, _) = listener.accept().await.unwrap();
        let mut session = Session::new(Arc::new(settings), UpstreamTraits::default()).kept();
        let mut trace = Tracer::default().client(1);
        let mut driver = DrainDriver::new(&mut session, &mut trace, vec![]);
        driver.handle(SessionInput::Client { bytes: client.as_bytes(), pieces: usize::MAX });
        let unsent = driver.upstream;
        let upstream = tokio::spawn(upstream(other));
        let result = drain(&mut stream, &unsent, &mut session, &mut trace).await;
        upstream.abort();
        result
    }

    async fn reads(stream: &mut TcpStream, wanted: &str) {
        let mut bytes = vec![0; wanted.len()];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, wanted.as_bytes());
    }

    #[tokio::test]
    async fn bytes_in_flight_are_sent_and_answered() {
        let drained = drained("a NOOP\r\n", |mut upstream| async move {
            reads(&mut upstream, "a NOOP\r\n").await;
            upstream.write_all(b"a OK done\r\n").await.unwrap();
            std::future::pending().await
        });
        assert_eq!(drained.await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn server_that_does_not_answer_is_given_up() {
        let drained = drained("a UID FETCH 1 BODY[]\r\n", |upstream| async move {
            let _open = upstream;
            std::future::pending().await
        });
        assert_eq!(
            drained.await,
            Err("the mail server did not complete the client's commands in time")
        );
    }

    #[tokio::test]
    async fn server_that_closes_has_no_session_any_more() {
        let drained = drained("a NOOP\r\n", |mut upstream| async move {
            reads(&mut upstream, "a NOOP\r\n").await;
        });
        assert_eq!(drained.await, Err("the mail server closed the session"));
    }

    #[tokio::test]
    async fn server_that_has_too_much_to_say_is_given_up() {
        let drained = drained("a UID FETCH 1 BODY[]\r\n", |mut upstream| async move {
            upstream.write_all(b"* 1 FETCH (BODY[] {1000000000}\r\n").await.unwrap();
            // Until nobody reads it any more.
            while upstream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
        });
        assert_eq!(
            drained.await,
            Err("the mail server sent too much data for the client's last commands")
        );
    }
}
