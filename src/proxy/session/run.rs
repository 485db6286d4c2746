//! Adjacent pieces of one input that are relayed together.

/// A run of bytes of an input that go on as they are. Each write makes a TLS record of its own, so that pieces are joined
/// before they are written; and as they are neighbours in the input, joining them copies nothing.
#[derive(Debug)]
pub(super) struct ByteRun<'a> {
    input: &'a [u8],
    start: usize,
    end: usize,
}

impl<'a> ByteRun<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { input, start: 0, end: 0 }
    }

    /// The next `len` bytes of the input belong to the run.
    pub(super) fn extend(&mut self, len: usize) {
        self.end = self.end.saturating_add(len);
    }

    /// Ends the run before the next `len` bytes, which go another way, and returns it.
    pub(super) fn skip(&mut self, len: usize) -> &'a [u8] {
        let run = self.take();
        self.end = self.end.saturating_add(len);
        self.start = self.end;
        run
    }

    /// Ends the run and returns it.
    pub(super) fn take(&mut self) -> &'a [u8] {
        let run = self.input.get(self.start..self.end).unwrap_or_default();
        self.start = self.end;
        run
    }

    /// The number of consumed bytes of the input.
    pub(super) fn consumed(&self) -> usize {
        self.end
    }
}
