//! A device token for the newest core, which has no call to set one: the empty slot in its memory is filled, as an app's own call
//! does it. The token lies in the core's environment, where nothing moves it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

/// The variable that has the token.
pub(crate) const VARIABLE: &str = "DELTAPUSH_TEST_TOKEN";

/// `None` of an `Option<String>`: a capacity that no string has.
const NONE: u64 = 1 << 63;

/// Fills the slot in the process `pid`, which has accounts and has not connected yet.
pub(crate) fn fill(pid: u32) {
    let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem")).unwrap();
    let mut slots = Vec::new();
    let mut token = None;
    for (start, bytes) in regions(pid, &memory) {
        let variable = format!("\0{VARIABLE}=");
        if let Some(found) =
            bytes.windows(variable.len()).position(|window| window == variable.as_bytes())
        {
            let value = found + variable.len();
            let len = bytes[value..].iter().position(|byte| *byte == 0).unwrap();
            token = Some((start + value as u64, len as u64));
        }
        let words: Vec<u64> =
            bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        for (index, window) in words.windows(4).enumerate() {
            // An Arc of a lock that nobody has: the core's own reference and one of each account, no weak ones, the lock, the slot.
            if matches!(window, [2..=16, 1, 0, NONE]) {
                slots.push(start + (index as u64 + 3) * 8);
            }
        }
    }
    let [slot] = slots[..] else {
        panic!("the core's slot for its token is not where it was: {slots:x?}")
    };
    let (address, len) = token.expect("the core's environment has no token");
    // The capacity last: with it the string is there.
    for (offset, word) in [(8, address), (16, len), (0, len)] {
        memory.write_all_at(&word.to_ne_bytes(), slot + offset).unwrap();
    }
}

/// Returns the writable regions of a process's memory: start and content of each.
fn regions(pid: u32, memory: &File) -> Vec<(u64, Vec<u8>)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let region = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        (rest.starts_with("rw") && memory.read_exact_at(&mut bytes, start).is_ok())
            .then_some((start, bytes))
    };
    maps.lines().filter_map(region).collect()
}
