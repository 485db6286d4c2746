//! The loop that reads and writes for one session: two streams and a [`Session`] between them, in one task.
//!
//! It reads into a buffer that belongs to the thread, so that an idle connection owns none, and only while what waits in
//! that direction is under its limit. Bytes that a peer cannot take at once are queued, and the queue is given back once empty.

mod actions;
#[cfg(test)]
mod compress_tests;
mod ends;
mod input;
mod services;
#[cfg(test)]
mod tests;
mod timing;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::own_lines;
use super::peer::Peer;
use super::session::{Request, Session, SessionInput};
use super::turn::TurnBudget;
use crate::telemetry::Direction;
use crate::tls::stream::{Stream, with_scratch};
use crate::trace::Recorder;

pub use ends::RelayEnd;
pub use services::{OrphanedSession, Performed, SessionServices};

/// Silence after which the state of a client that compresses is made smaller.
pub const FOLD_TIME: Duration = Duration::from_secs(5);

/// A session with its two streams.
pub struct Relay<A> {
    session: Session,
    client: Peer,
    upstream: Peer,
    account: A,
    trace: Recorder,
    /// Bytes that the client sent and the session could not take yet.
    waiting: Vec<u8>,
    /// Upstream bytes that were read and are left for the next turn.
    unread: Vec<u8>,
    turn: TurnBudget,
    /// The bytes that wait are compressed: they were read with the COMPRESS, or after it.
    began_to_compress: bool,
    requests: VecDeque<Request>,
    performing: Option<Performed>,
    limit: usize,
    idle_time: Duration,
    /// The beginning of this turn: for all that happens in it the clock is read once.
    now: Instant,
    last_activity: Instant,
    /// The time at which the client last received anything; it does in this turn.
    heard: Instant,
    hears: bool,
    timer: Pin<Box<Sleep>>,
    end: Option<RelayEnd>,
}

/// Bytes of both peers from before the relay began.
pub struct Preread {
    /// Sent by the client after its login.
    pub client: Vec<u8>,
    /// For the client: the answer to its login.
    pub answer: Vec<u8>,
    /// Said by the upstream after that.
    pub upstream: Vec<u8>,
}

/// The bounds of a relay.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes that may wait in one direction.
    pub buffer: usize,
    /// Longest silence of both peers.
    pub idle_time: Duration,
}

impl<A: SessionServices> Relay<A> {
    /// A relay between two streams that are past the login.
    pub fn new(
        session: Session,
        (client, upstream): (Stream, Stream),
        account: A,
        trace: Recorder,
        bounds: Bounds,
    ) -> Self {
        let now = Instant::now();
        Self {
            session,
            client: Peer::new(client),
            upstream: Peer::new(upstream),
            account,
            trace,
            waiting: Vec::new(),
            unread: Vec::new(),
            turn: TurnBudget::new(),
            began_to_compress: false,
            requests: VecDeque::new(),
            performing: None,
            limit: bounds.buffer,
            idle_time: bounds.idle_time,
            now,
            last_activity: now,
            heard: now,
            hears: false,
            timer: Box::pin(sleep_until(now.checked_add(bounds.idle_time).unwrap_or(now))),
            end: None,
        }
    }

    /// Relays until one peer is gone, nothing was said for too long, or `shutdown` is cancelled.
    // Not an async fn: its task would hold what it is given twice, as an argument and as a variable.
    pub fn run(
        mut self: Box<Self>,
        mut beginning: Preread,
        shutdown: &CancellationToken,
    ) -> impl Future<Output = RelayEnd> {
        self.waiting = std::mem::take(&mut beginning.client);
        let mut first = Some(beginning);
        async move {
            let mut cancelled = pin!(shutdown.cancelled());
            let end = poll_fn(|cx| {
                self.now = Instant::now();
                if let Some(Preread { answer, upstream, .. }) = first.take() {
                    self.account.relayed(Direction::ToClient, answer.len());
                    self.client.send(&answer, cx);
                    self.hears = true;
                    self.unread = upstream;
                }
                let traced = self.trace.transcript().is_some();
                if traced != self.session.is_traced() {
                    self.drive(SessionInput::Traced(traced), cx);
                }
                if self.end.is_none() && cancelled.as_mut().poll(cx).is_ready() {
                    self.finish(RelayEnd::Shutdown, own_lines::RESTART, cx);
                }
                let polled = self.poll(cx);
                if let Poll::Ready(end) = &polled {
                    self.trace.note(|| format!("the session ends: {end}"));
                }
                polled
            })
            .await;
            self.leave(end)
        }
    }

    /// Gives away what is left, if that can go on without the client.
    fn leave(self, end: RelayEnd) -> RelayEnd {
        let Self { mut session, upstream, unread, account, trace, .. } = self;
        session.keep_unread(&unread);
        let goes_on = session.may_be_kept()
            && !matches!(end, RelayEnd::Upstream(_) | RelayEnd::Unanswered | RelayEnd::Shutdown);
        if let Some((stream, unsent)) = goes_on.then(|| upstream.into_stream()).flatten() {
            account.on_client_gone(OrphanedSession { stream, unsent, session, trace });
        }
        end
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        self.turn = TurnBudget::new();
        with_scratch(|buffer| {
            let mut progress = false;
            loop {
                while !self.turn.is_over() && self.step(buffer, cx) {
                    progress = true;
                }
                // Nothing more is at hand: what was compressed goes out, and is then sent.
                if self.turn.is_over() || !self.client.flush_compressed(cx) {
                    break;
                }
            }
            self.note_time(progress);
        });
        if self.turn.is_over() {
            // Woken once the runtime has looked for other work: who has just something to say does not queue behind those that
            // always have.
            let _pending = pin!(yield_now()).poll(cx);
        }
        if let Some(end) = self.poll_end() {
            return Poll::Ready(end);
        }
        self.drive(SessionInput::Backlog(self.backlog()), cx);
        self.poll_timer(cx)
    }

    /// Does what can be done now; whether anything was done.
    fn step(&mut self, buffer: &mut [u8], cx: &mut Context<'_>) -> bool {
        let delivered = self.client.poll_send(cx);
        self.hears |= delivered;
        let mut progress = delivered | self.upstream.poll_send(cx);
        progress |= self.poll_requests(cx);
        progress |= self.take_waiting(cx);
        progress |= self.read_client(buffer, cx);
        progress |= self.read_upstream(buffer, cx);
        progress |= self.hand_on_ends(cx);
        progress
    }
}
