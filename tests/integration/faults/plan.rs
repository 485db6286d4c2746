//! Quantities and chance of a run with faults, from the environment.

use std::env;

use fastrand::Rng;
use tokio::task::JoinHandle;

use super::lane::Span;

/// The stream of messages of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) messages: usize,
    /// Number of concurrent senders.
    pub(crate) senders: usize,
    /// Between two deliveries of one sender.
    pub(crate) pause: Span,
}

impl Stream {
    /// All senders deliver their shares.
    pub(crate) async fn run<F>(
        self,
        rng: &mut Rng,
        deliver: impl Fn(Rng) -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let share = self.messages.div_ceil(self.senders);
        let send = |mut rng: Rng| {
            let deliver = deliver.clone();
            tokio::spawn(async move {
                for _ in 0..share {
                    deliver(rng.fork()).await;
                    self.pause.pass(&mut rng).await;
                }
            })
        };
        let sending: Vec<JoinHandle<()>> = (0..self.senders).map(|_| send(rng.fork())).collect();
        for sender in sending {
            sender.await.unwrap();
        }
    }
}

/// Reports if the run is to be a long one: `DELTAPUSH_FAULTS=long`.
pub(crate) fn is_long() -> bool {
    match env::var("DELTAPUSH_FAULTS").as_deref() {
        Ok("long") => true,
        Ok(other) => panic!("DELTAPUSH_FAULTS={other}: only `long` is known"),
        Err(_) => false,
    }
}

/// The seed: that of `DELTAPUSH_SEED`, or a new one. It is printed before anything can fail.
pub(crate) fn seed() -> u64 {
    let seed =
        env::var("DELTAPUSH_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    eprintln!("faults: to take this run's seed again, set DELTAPUSH_SEED={seed}");
    seed
}
