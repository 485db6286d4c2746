//! Tokens whose POSTs come to rest, because another node is about to post them: none begins any more, and those in flight are
//! waited for until their answers are written.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{mpsc, oneshot};

use crate::secret::DeviceToken;

/// Requests that may wait. One node asks for one at a time.
const MAX_WAITING: usize = 4;

/// Asks the notifier to let POSTs come to rest. Clones ask the same one.
#[derive(Debug, Clone)]
pub struct Settler(mpsc::Sender<SettleRequest>);

/// Tokens that are to come to rest.
#[derive(Debug)]
pub(super) struct SettleRequest {
    pub(super) tokens: HashSet<DeviceToken>,
    hold: Hold,
}

/// Held for each answer that is still to come or to be written. When the last one is dropped, the tokens are at rest.
pub(super) type Hold = Arc<oneshot::Sender<()>>;

impl Settler {
    /// Returns when no POST of these tokens is in flight, and the answers are written, as far as they can be.
    pub async fn settle(&self, tokens: HashSet<DeviceToken>) {
        let (hold, at_rest) = oneshot::channel();
        let request = SettleRequest { tokens, hold: Arc::new(hold) };
        if self.0.send(request).await.is_ok() {
            // Nothing is ever sent: the sender is dropped.
            let _ = at_rest.await;
        }
    }
}

/// An answer that is being written, until it is dropped: it holds up those who wait for it.
pub(super) type Write = Arc<Mutex<Vec<Hold>>>;

/// The notifier's side.
#[derive(Debug)]
pub(super) struct Settling {
    settler: Settler,
    asked: mpsc::Receiver<SettleRequest>,
    under_way: Vec<SettleRequest>,
    /// The answers that are being written.
    writes: Vec<(DeviceToken, Weak<Mutex<Vec<Hold>>>)>,
}

impl Default for Settling {
    fn default() -> Self {
        let (sender, asked) = mpsc::channel(MAX_WAITING);
        Self { settler: Settler(sender), asked, under_way: Vec::new(), writes: Vec::new() }
    }
}

impl Settling {
    pub(super) fn settler(&self) -> Settler {
        self.settler.clone()
    }

    /// The next request.
    pub(super) async fn next(&mut self) -> SettleRequest {
        match self.asked.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }

    /// Waits for those tokens of the request that are in flight, or whose answers are being written.
    pub(super) fn begin(
        &mut self,
        mut request: SettleRequest,
        is_in_flight: impl Fn(&DeviceToken) -> bool,
    ) {
        let writes = self.writes.iter().filter(|(token, _)| request.tokens.contains(token));
        for write in writes.filter_map(|(_, write)| write.upgrade()) {
            let mut holds = write.lock().unwrap_or_else(PoisonError::into_inner);
            holds.push(Arc::clone(&request.hold));
        }
        request.tokens.retain(is_in_flight);
        if !request.tokens.is_empty() {
            self.under_way.push(request);
        }
    }

    /// An answer to a POST of the token is about to be written, for which these wait.
    pub(super) fn writes(&mut self, token: &DeviceToken, holds: Vec<Hold>) -> Write {
        self.writes.retain(|(_, write)| write.strong_count() > 0);
        let write = Arc::new(Mutex::new(holds));
        self.writes.push((token.clone(), Arc::downgrade(&write)));
        write
    }

    /// The POST of the token was answered. What is returned is held until the answer is written.
    pub(super) fn answered(&mut self, token: &DeviceToken) -> Vec<Hold> {
        let waiting = self
            .under_way
            .iter_mut()
            .filter_map(|request| request.tokens.remove(token).then(|| Arc::clone(&request.hold)));
        let holds = waiting.collect();
        self.under_way.retain(|request| !request.tokens.is_empty());
        holds
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn answers_of_tokens_in_flight_are_waited_for_until_they_are_written() {
        let token = |name: &str| DeviceToken::new(name.as_bytes()).unwrap();
        let mut settling = Settling::default();
        let settler = settling.settler();
        let tokens = ["a", "b", "c"].map(token);
        let mut settle = Box::pin(settler.settle(tokens.into()));
        assert!((&mut settle).now_or_never().is_none());
        let request = settling.next().await;
        settling.begin(request, |asked| *asked != token("c"));
        assert!(settling.answered(&token("c")).is_empty());
        drop(settling.answered(&token("a")));
        assert!((&mut settle).now_or_never().is_none(), "one is in flight");
        let written = settling.answered(&token("b"));
        assert!((&mut settle).now_or_never().is_none(), "its answer is not written yet");
        drop(settling.writes(&token("b"), written));
        settle.await;
        let write = settling.writes(&token("b"), Vec::new());
        let mut settle = Box::pin(settler.settle([token("b")].into()));
        assert!((&mut settle).now_or_never().is_none());
        let request = settling.next().await;
        settling.begin(request, |_| false);
        assert!(
            (&mut settle).now_or_never().is_none(),
            "its answer came before, and is being written"
        );
        drop(write);
        settle.await;
        let mut settle = Box::pin(settler.settle([token("c")].into()));
        assert!((&mut settle).now_or_never().is_none());
        let request = settling.next().await;
        settling.begin(request, |_| false);
        settle.await;
    }
}
