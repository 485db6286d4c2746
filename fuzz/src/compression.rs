//! `proxy::compress`: what was compressed comes out as it was, any chunking of any bytes gives the same, and neither a piece nor
//! what is held grows beyond its bound.

use std::cell::RefCell;

use deltapush::proxy::compress::{Deflater, HISTORY, InflateError, Inflater, MIN_WORK, WINDOW};
use miniz_oxide::inflate::decompress_to_vec_with_limit;

use super::events::{self, events};

/// The code tables of a block that is not complete.
const DECODER: usize = 12 * 1024;

/// The limit of one inflated input: deflate makes a thousand bytes of one.
const MAX_INFLATED: usize = 1 << 20;

thread_local! {
    static WORK: RefCell<Vec<u8>> = RefCell::new(vec![0xAA; MIN_WORK]);
}

pub(crate) fn check(data: &[u8]) {
    let (settings, script) = events::settings(data);
    if settings & 1 == 0 {
        any_bytes(script, usize::from(settings >> 1).max(2));
    } else {
        both_ways(script);
    }
}

fn any_bytes(stream: &[u8], step: usize) {
    let whole = inflate(stream.chunks(stream.len().max(1)));
    // Byte by byte the window is copied each time.
    if whole.0.len() < 4096 {
        assert!(inflate(stream.chunks(1)) == whole, "byte by byte");
    }
    assert!(inflate(stream.chunks(step)) == whole, "in chunks of {step}");
    let (inflated, fault) = whole;
    match decompress_to_vec_with_limit(stream, MAX_INFLATED) {
        // Bytes after the end are a fault.
        Ok(expected) => assert!(inflated == expected),
        Err(error) => {
            assert!(
                error.output.starts_with(&inflated)
                    && (fault.is_some() || inflated.len() < MAX_INFLATED)
            )
        }
    }
}

fn inflate<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Option<InflateError>) {
    let mut inflater = Inflater::new();
    let mut inflated = vec![];
    for chunk in chunks {
        if let Err(fault) = inflate_more(&mut inflater, chunk, &mut inflated) {
            return (inflated, Some(fault));
        }
    }
    (inflated, None)
}

fn inflate_more(
    inflater: &mut Inflater,
    mut input: &[u8],
    inflated: &mut Vec<u8>,
) -> Result<(), InflateError> {
    let may_fold = input.len() > 1;
    WORK.with_borrow_mut(|work| {
        while !input.is_empty() || inflater.has_more() {
            let before = input.len();
            let piece = inflater.inflate(&mut input, work)?;
            assert!(!piece.is_empty() || input.len() < before, "it gets on");
            assert!(piece.len() <= MIN_WORK && inflater.held() <= WINDOW + DECODER);
            inflated.extend_from_slice(piece);
            assert!(inflated.len() <= 2 * MAX_INFLATED);
        }
        // As in a silence; byte by byte it would take long.
        if may_fold {
            let before = inflater.held();
            inflater.fold();
            assert!(inflater.held() <= before);
        }
        Ok(())
    })
}

/// One side of a connection that deltapush compresses, and its peer.
#[derive(Default)]
struct Side {
    deflater: Deflater,
    peer: Inflater,
    said: Vec<u8>,
    heard: Vec<u8>,
}

impl Side {
    fn write(&mut self, bytes: &[u8]) {
        let mut deflated = vec![];
        self.deflater
            .write(bytes, &mut |bytes| deflated.extend_from_slice(bytes))
            .expect("it compresses");
        self.said.extend_from_slice(bytes);
        self.receive(&deflated);
    }

    fn flush(&mut self) {
        let mut deflated = vec![];
        let was_unflushed = self.deflater.is_unflushed();
        self.deflater.flush(&mut |bytes| deflated.extend_from_slice(bytes)).expect("it compresses");
        assert!(was_unflushed || deflated.is_empty(), "nothing to say, nothing said");
        self.receive(&deflated);
        assert!(self.heard == self.said, "what is flushed is there");
        assert!(!self.deflater.is_unflushed() && self.deflater.held() <= HISTORY);
        // As in a silence.
        if self.said.len() % 2 == 1 {
            self.deflater.fold();
            assert!(self.deflater.held() <= HISTORY && !self.deflater.can_fold());
        }
    }

    fn receive(&mut self, deflated: &[u8]) {
        inflate_more(&mut self.peer, deflated, &mut self.heard).expect("it was compressed");
        assert!(self.said.starts_with(&self.heard));
    }
}

/// `w` and `W`: the one or other session says this; `r`, `R`: many times; `f`, `F`: it flushes; `d`, `D`: a new one takes its place.
fn both_ways(script: &[u8]) {
    let mut sides = [Side::default(), Side::default()];
    for (kind, said) in events(script) {
        let side = &mut sides[usize::from(kind.is_ascii_uppercase())];
        match kind.to_ascii_lowercase() {
            b'f' => side.flush(),
            b'd' => *side = Side::default(),
            b'r' => side.write(&said.repeat(60)),
            _ => side.write(said),
        }
    }
    for mut side in sides {
        side.flush();
    }
}
