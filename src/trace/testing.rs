//! A trace that a test reads.

use super::{Audience, Followed, Mark, Recorder, Renderer, Speaker, TraceSelection, Tracer};

/// Records a line of a client.
pub(crate) fn record(recorder: &mut Recorder, line: &str) {
    if let Some(transcript) = recorder.transcript() {
        transcript.lines(Speaker::Client, Mark::Kept, format!("{line}\r\n").as_bytes());
    }
}

/// The lines so far, for a reader that sees everything but literals.
pub(crate) struct Shown(Followed);

impl Shown {
    /// Follows everything.
    pub(crate) fn begin() -> (Self, Recorder) {
        let tracer = Tracer::default();
        let wanted = TraceSelection { audience: Audience::Everyone, side: None, literals: false };
        let shown = Self(tracer.follow(wanted).unwrap());
        (shown, tracer.client(1))
    }

    /// All of it, for a person.
    pub(crate) fn text(mut self) -> String {
        let mut renderer = Renderer::new();
        std::iter::from_fn(|| self.0.try_next()).map(|record| renderer.render(&record)).collect()
    }
}
