//! The process's compressors: a third of a megabyte each, lent to sessions that have data to send.
//!
//! The few that were used last are kept, with what they know: to a session that has more to say soon, its own is lent again.
//! There is one for each thread that compresses at a time; those beyond the few are made and dropped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use miniz_oxide::DataFormat;
use miniz_oxide::deflate::core::CompressorOxide;

/// Number of unused compressors that are kept.
const KEPT: usize = 4;

/// Compresses base64, which most of mail is, as well as the higher levels do, at four times their speed
/// (docs/performance.md).
const LEVEL: u8 = 1;

/// Those that nobody uses at the moment, the one that was used last at the end. One list for all threads, since a session
/// that ends has to find what still knows its words.
static IDLE: Mutex<Vec<Idle>> = Mutex::new(Vec::new());

struct Idle {
    compressor: Box<CompressorOxide>,
    /// The stream that it can go on with; `None` if it knows nothing.
    owner: Option<u64>,
}

/// A stream that is compressed. Dropping it makes the compressors forget its words.
#[derive(Debug)]
pub(super) struct Owner(u64);

impl Default for Owner {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A compressor, and whether it is the owner's own, which goes on with its stream. Otherwise it knows nothing.
pub(super) fn lend(owner: &Owner) -> (Box<CompressorOxide>, bool) {
    match take(|idle| idle.owner == Some(owner.0)).or_else(|| take(|_| true)) {
        Some(idle) if idle.owner == Some(owner.0) => (idle.compressor, true),
        Some(Idle { mut compressor, owner }) => {
            if owner.is_some() {
                compressor.reset();
            }
            (compressor, false)
        }
        None => {
            let mut compressor = Box::<CompressorOxide>::default();
            compressor.set_format_and_level(DataFormat::Raw, LEVEL);
            (compressor, false)
        }
    }
}

/// Keeps a compressor that was flushed. If there are too many, the one that was not used for longest goes.
pub(super) fn give_back(owner: &Owner, compressor: Box<CompressorOxide>) {
    let mut surplus = with_idle(|idle| {
        idle.push(Idle { compressor, owner: Some(owner.0) });
        (idle.len() > KEPT).then(|| idle.remove(0))
    });
    if let Some(surplus) = &mut surplus {
        wipe(&mut surplus.compressor);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let Some(Idle { mut compressor, .. }) = take(|idle| idle.owner == Some(self.0)) else {
            return;
        };
        wipe(&mut compressor);
        // To the front: the next one to be lent.
        with_idle(|idle| {
            if idle.len() < KEPT {
                idle.insert(0, Idle { compressor, owner: None });
            }
        });
    }
}

/// Has it forget what it compressed, some of which may be secret.
pub(super) fn wipe(compressor: &mut CompressorOxide) {
    compressor.reset();
    // Somebody looks: not to be left out because it is dropped next.
    std::hint::black_box(compressor);
}

/// Takes the first that is wanted.
fn take(is_wanted: impl Fn(&Idle) -> bool) -> Option<Idle> {
    with_idle(|idle| idle.iter().position(is_wanted).map(|index| idle.remove(index)))
}

fn with_idle<T>(use_it: impl FnOnce(&mut Vec<Idle>) -> T) -> T {
    // A panic under this lock came between two whole changes.
    use_it(&mut IDLE.lock().unwrap_or_else(PoisonError::into_inner))
}
