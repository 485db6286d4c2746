//! A lane of faults: chance draws them out of a bag until it is empty, and then again. The lanes of a run know nothing of each
//! other, so faults meet.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::sleep;

/// Occurrences of each fault.
pub(crate) type Count = BTreeMap<&'static str, usize>;

/// Range of a random duration, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(pub(crate) u64, pub(crate) u64);

impl Span {
    pub(crate) async fn pass(self, rng: &mut Rng) {
        sleep(Duration::from_millis(rng.u64(self.0..=self.1))).await;
    }
}

/// A part of the scene that breaks.
pub(crate) trait Breakable {
    type Fault: Copy;

    /// One fault, from its beginning to its end. Returns its name.
    fn meet(
        &mut self,
        fault: Self::Fault,
        rng: &mut Rng,
    ) -> impl Future<Output = &'static str> + Send;
}

/// A part and its faults.
pub(crate) struct Lane<B: Breakable> {
    pub(crate) part: B,
    pub(crate) count: Count,
    faults: Vec<B::Fault>,
    bag: Vec<B::Fault>,
    /// Between two faults.
    gap: Span,
    rng: Rng,
}

impl<B: Breakable> Lane<B> {
    pub(crate) fn new(part: B, faults: &[B::Fault], gap: Span, rng: Rng) -> Self {
        Self { part, count: Count::new(), faults: faults.to_vec(), bag: Vec::new(), gap, rng }
    }

    /// Faults happen until it is over, and until `kinds` of them have happened.
    pub(crate) async fn run(mut self, kinds: usize, over: watch::Receiver<bool>) -> Self {
        while !*over.borrow() || self.count.len() < kinds {
            self.gap.pass(&mut self.rng).await;
            let fault = self.draw();
            let name = self.part.meet(fault, &mut self.rng).await;
            *self.count.entry(name).or_default() += 1;
        }
        self
    }

    /// The same until each fault has happened.
    pub(crate) async fn run_all(self, over: watch::Receiver<bool>) -> Self {
        let kinds = self.faults.len();
        self.run(kinds, over).await
    }

    fn draw(&mut self) -> B::Fault {
        if self.bag.is_empty() {
            self.bag.extend_from_slice(&self.faults);
            self.rng.shuffle(&mut self.bag);
        }
        self.bag.pop().unwrap()
    }
}
