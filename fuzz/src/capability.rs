//! `parser::capability`: nothing but the list changes, what may not cross is gone, the rest is there in its order.

use deltapush::config::JmapAccess;
use deltapush::parser::capability::{Added, can_cross, rewrite};
use deltapush::parser::response;

use super::events;

pub(crate) fn check(data: &[u8]) {
    let (settings, line) = events::settings(data);
    // It is called with whole lines.
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else { return };
    let line = &line[..=end];
    if line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]).iter().any(u8::is_ascii_control) {
        // No list of atoms: what of it is a name is nobody's to say. It comes to an end, and that is all.
        let all = Added { push: true, compress: true };
        let _ = (
            rewrite(line, all, JmapAccess::Strip),
            rewrite(line, Added::default(), JmapAccess::Pass),
        );
        return;
    }
    let added = Added { push: settings & 1 == 0, compress: settings & 2 != 0 };
    let jmapaccess = if settings & 4 == 0 { JmapAccess::Strip } else { JmapAccess::Pass };
    let rewrite = |line: &[u8]| rewrite(line, added, jmapaccess);
    let Some(names) = response::capabilities(line) else {
        return assert!(rewrite(line).is_none(), "there is no list");
    };
    let before: Vec<&[u8]> = names.collect();
    let Some(changed) = rewrite(line) else {
        return;
    };
    let after: Vec<&[u8]> =
        response::capabilities(&changed).expect("the list is still one").collect();
    let kept: Vec<&[u8]> =
        before.iter().copied().filter(|name| can_cross(name, jmapaccess)).collect();
    assert!(after.starts_with(&kept), "what may cross crosses, in its order");
    let mut own: Vec<&[u8]> = vec![];
    if added.push {
        own.extend([&b"METADATA"[..], b"XDELTAPUSH"]);
    }
    if added.compress {
        own.push(b"COMPRESS=DEFLATE");
    }
    let new = &after[kept.len()..];
    assert!(new.iter().all(|name| own.contains(name)), "nothing else is added");
    for name in own {
        let times = after.iter().filter(|other| other.eq_ignore_ascii_case(name)).count();
        let before = kept.iter().filter(|other| other.eq_ignore_ascii_case(name)).count();
        assert_eq!(times, before.max(1), "what is there is not added");
    }
    assert_eq!(rewrite(&changed), None, "once is enough");
    around_the_list(line, &before, &changed, &after);
}

/// The bytes before and after the list stay the same, but for spaces within and around the list.
fn around_the_list(line: &[u8], before: &[&[u8]], changed: &[u8], after: &[&[u8]]) {
    let start = common(line.iter(), changed.iter());
    let head = |line: &[u8]| -> Vec<u8> {
        let end = if line.starts_with(b"* CAPABILITY ")
            || line[..line.len().min(13)].eq_ignore_ascii_case(b"* CAPABILITY ")
        {
            13
        } else {
            // The code follows the condition, the second word.
            let mut spaces =
                line.iter().enumerate().filter(|(_, byte)| **byte == b' ').map(|(index, _)| index);
            spaces.nth(1).expect("a condition") + "[CAPABILITY ".len() + 1
        };
        line[..end].to_vec()
    };
    assert_eq!(head(line), head(changed));
    assert!(start >= head(line).len());
    let rest = |line: &[u8], names: &[&[u8]]| -> Vec<u8> {
        let list: usize = names.iter().map(|name| name.len()).sum();
        // The bytes after the head, spaces aside, are the list and then the tail.
        let tail: Vec<u8> =
            line[head(line).len()..].iter().copied().filter(|byte| *byte != b' ').collect();
        tail[list..].to_vec()
    };
    let trimmed = |tail: Vec<u8>| -> Vec<u8> {
        tail.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect()
    };
    assert_eq!(trimmed(rest(line, before)), trimmed(rest(changed, after)));
    let ending = |line: &[u8]| line.ends_with(b"\r\n");
    assert_eq!(ending(line), ending(changed));
    assert_eq!(changed.iter().filter(|byte| **byte == b'\n').count(), 1, "one line stays one");
}

fn common<'a>(one: impl Iterator<Item = &'a u8>, other: impl Iterator<Item = &'a u8>) -> usize {
    one.zip(other).take_while(|(one, other)| one == other).count()
}
