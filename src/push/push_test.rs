//! Test pushes that an operator requests: each is posted at once, outside the schedule, and changes nothing of the
//! pending pushes.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::http::Poster;
use super::notifier::{FAULT, post_result};
use super::schedule::{FIRST_LIMIT, PostAnswer};
use crate::secret::DeviceToken;
use crate::telemetry::PostResult;

/// So many wait for their turn, and so many are under way. It is a person who asks.
const MAX_TESTS: usize = 4;

/// A push that is asked for.
pub(super) struct Test {
    token: DeviceToken,
    answer: oneshot::Sender<PostResult>,
}

/// The next step of a test push.
pub(super) enum PushTestProgress {
    /// A push is asked for.
    Asked(Test),
    /// One has ended, so, after that time.
    Ended(DeviceToken, PostAnswer, Duration),
}

/// Asks for pushes. Clones ask the same notifier.
#[derive(Debug, Clone)]
pub struct Tester(mpsc::Sender<Test>);

impl Tester {
    /// One that nobody hears.
    #[cfg(test)]
    pub(crate) fn unheard() -> Self {
        Tests::default().tester()
    }

    /// Posts the token and returns how that ended; `None` if the notifier ends meanwhile.
    pub async fn push(&self, token: DeviceToken) -> Option<PostResult> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Test { token, answer }).await.ok()?;
        answered.await.ok()
    }
}

/// The notifier's side.
#[derive(Debug)]
pub(super) struct Tests {
    tester: Tester,
    asked: mpsc::Receiver<Test>,
    under_way: JoinSet<(DeviceToken, PostAnswer, Duration)>,
}

impl Default for Tests {
    fn default() -> Self {
        let (sender, asked) = mpsc::channel(MAX_TESTS);
        Self { tester: Tester(sender), asked, under_way: JoinSet::new() }
    }
}

impl Tests {
    pub(super) fn tester(&self) -> Tester {
        self.tester.clone()
    }

    /// The next one that is asked for, while there is room for it, or that ends. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> PushTestProgress {
        let Self { asked, under_way, .. } = self;
        loop {
            let has_room = under_way.len() < MAX_TESTS;
            tokio::select! {
                Some(test) = asked.recv(), if has_room => return PushTestProgress::Asked(test),
                Some(ended) = under_way.join_next() => {
                    if let Ok((token, answer, took)) = ended {
                        return PushTestProgress::Ended(token, answer, took);
                    }
                }
                else => std::future::pending().await,
            }
        }
    }

    pub(super) fn begin(&mut self, test: Test, poster: Poster) {
        let Test { token, answer } = test;
        self.under_way.spawn(async move {
            let began = Instant::now();
            let ended = AssertUnwindSafe(poster.post(&token, FIRST_LIMIT))
                .catch_unwind()
                .await
                .unwrap_or(FAULT);
            // The asker may have gone.
            let _ = answer.send(post_result(ended));
            (token, ended, began.elapsed())
        });
    }
}
