//! `parser::response`, `parser::data` and `parser::reader`.

use deltapush::parser::reader::{ResponseReader, ResponseTooLong};
use deltapush::parser::{data, response};

use super::events;

/// Short, so that inputs go over it.
const LIMIT: usize = 300;

pub(crate) fn check(data: &[u8]) {
    let (settings, stream) = events::settings(data);
    let whole = read(stream.chunks(stream.len().max(1)));
    assert_eq!(read(stream.chunks(1)), whole, "byte by byte");
    assert_eq!(read(stream.chunks(usize::from(settings).max(2))), whole);
    let (responses, _) = whole;
    assert!(stream.starts_with(&responses.concat()), "a byte was lost or made up");
    for line in responses.iter().map(Vec::as_slice).chain([stream]) {
        a_head_stays_what_it_is(line);
        whatever_is_read(line);
    }
}

fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<ResponseTooLong>) {
    let mut reader = ResponseReader::new(LIMIT);
    let mut responses = vec![];
    for mut chunk in chunks {
        loop {
            match reader.next(&mut chunk) {
                Ok(Some(response)) => {
                    assert!(response.ends_with(b"\n") && response.len() <= LIMIT);
                    responses.push(response);
                }
                Ok(None) => break assert!(chunk.is_empty()),
                Err(error) => return (responses, Some(error)),
            }
        }
    }
    (responses, None)
}

fn a_head_stays_what_it_is(line: &[u8]) {
    let line = line.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut known = None;
    for end in (0..=line.len()).filter(|end| *end < 64 || end % 61 == 0 || *end > line.len() - 4) {
        let head = response::head(&line[..end]);
        assert!(known.is_none() || head == known, "at {end}: {head:?} was {known:?}");
        known = head;
    }
    assert!(known.is_some() || !line.ends_with(b"\n") && line.len() < response::HEAD_LIMIT);
}

fn whatever_is_read(line: &[u8]) {
    if let Some(status) = response::status(line) {
        assert!(status.tag.is_none_or(|tag| line.trim_ascii_start().starts_with(tag)));
        assert!(status.text.is_empty() || events::contains(line, status.text));
        let _ = (status.has_code("ALERT"), status.human_text());
        // It is for whole lines.
        if let Some(without) = response::without_referral(line).filter(|_| line.ends_with(b"\n")) {
            let changed = response::status(&without).expect("it is still one");
            assert!(!changed.has_code("REFERRAL"), "{}", without.escape_ascii());
            assert_eq!((changed.tag, changed.condition), (status.tag, status.condition));
        }
        assert!(!response::may_have_literals(line), "the text of a status response is free");
    }
    if let Some(names) = response::capabilities(line) {
        names.for_each(|name| assert!(!name.is_empty() && !name.contains(&b' ')));
    }
    let _ = response::is_tag(line);
    // That it comes back at all, on the little stack that a task may have.
    let _ = data::data(line);
}
