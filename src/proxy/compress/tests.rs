//! Streams in any chunking, from many sessions at once, hostile ones, and what is held of them.

use miniz_oxide::DataFormat;
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, compress_to_output};
use proptest::prelude::*;

use super::*;

/// A client's compressor, with a window of its own and any level.
struct Client(Box<CompressorOxide>);

impl Client {
    fn new(level: u8) -> Self {
        let mut compressor = Box::<CompressorOxide>::default();
        compressor.set_format_and_level(DataFormat::Raw, level);
        Self(compressor)
    }

    fn deflate(&mut self, bytes: &[u8], flush: TDEFLFlush) -> Vec<u8> {
        let mut deflated = vec![];
        compress_to_output(&mut self.0, bytes, flush, |bytes| {
            deflated.extend_from_slice(bytes);
            true
        });
        deflated
    }
}

/// Everything that comes out of `chunks`, each piece checked to be no larger than it may.
fn inflate<'a>(
    inflater: &mut Inflater,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, InflateError> {
    let mut work = vec![0xAA; MIN_WORK];
    let mut inflated = vec![];
    for mut input in chunks {
        loop {
            let piece = inflater.inflate(&mut input, &mut work)?;
            assert!(piece.len() <= MIN_WORK);
            inflated.extend_from_slice(piece);
            if input.is_empty() && !inflater.has_more() {
                break;
            }
        }
    }
    Ok(inflated)
}

fn deflate(deflater: &mut Deflater, bytes: &[u8], flush: bool) -> Vec<u8> {
    let mut deflated = vec![];
    let mut out = |bytes: &[u8]| deflated.extend_from_slice(bytes);
    deflater.write(bytes, &mut out).unwrap();
    if flush {
        deflater.flush(&mut out).unwrap();
    }
    deflated
}

/// Some of it repeats from near and far, some not at all.
fn mixed(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(len as u64);
    let mut bytes: Vec<u8> = Vec::with_capacity(len);
    while bytes.len() < len {
        let far = random.usize(1..=WINDOW);
        match random.u8(..4) {
            0 => {
                let len = random.usize(1..2000);
                bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(len));
            }
            1 => bytes
                .extend_from_slice(b"* 23 FETCH (UID 1023 FLAGS (\\Seen) RFC822.SIZE 4096)\r\n"),
            // As far back as deflate can point.
            2 if bytes.len() >= WINDOW => {
                bytes.extend_from_within(bytes.len() - WINDOW..bytes.len() - WINDOW + 200)
            }
            _ if bytes.len() > far => {
                bytes.extend_from_within(bytes.len() - far..bytes.len() - far / 2)
            }
            _ => bytes.extend_from_slice(b"a1 NOOP\r\n"),
        }
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn flushed_bytes_arrive_at_once() {
    let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
    for line in ["* 1 EXISTS\r\n", "a1 OK done\r\n", "* 2 EXISTS\r\n"].repeat(100) {
        let deflated = deflate(&mut deflater, line.as_bytes(), true);
        assert_eq!(inflate(&mut inflater, [deflated.as_slice()]).unwrap(), line.as_bytes());
        assert!(!deflater.is_unflushed());
    }
    assert_eq!(deflate(&mut deflater, b"", true), b"", "nothing to say, nothing said");
}

#[test]
fn sessions_that_take_turns_do_not_mix() {
    // More than there are compressors kept, so that most begin with one that was another's.
    let mut sessions: Vec<_> = (0..30).map(|_| (Deflater::new(), Inflater::new())).collect();
    let text = mixed(40_000);
    let mut deflated_len = 0;
    for turn in 0..200 {
        let number = turn * 7 % sessions.len();
        let (deflater, inflater) = &mut sessions[number];
        let said =
            [format!("session {number}, ").as_bytes(), &text[turn * 10..][..turn * 31]].concat();
        let deflated = deflate(deflater, &said, true);
        deflated_len += deflated.len();
        assert_eq!(inflate(inflater, [deflated.as_slice()]).unwrap(), said);
        if turn % 50 == 49 {
            sessions[number] = Default::default();
        }
    }
    assert!(deflated_len < 500_000, "it is not compressed: {deflated_len}");
}

#[test]
fn session_that_was_away_still_knows_its_last_words() {
    let mut deflater = Deflater::new();
    let line = b"* 23 FETCH (UID 1023 FLAGS (\\Seen) RFC822.SIZE 4096)\r\n";
    let first = deflate(&mut deflater, line, true).len();
    for _ in 0..10 {
        deflate(&mut Deflater::new(), b"others speak", true);
    }
    let again = deflate(&mut deflater, line, true).len();
    assert!(again < first / 3, "{first} bytes, then {again}");
    // Also if that was folded.
    let lines = line.repeat(20);
    deflate(&mut deflater, &lines, true);
    assert!(deflater.can_fold());
    deflater.fold();
    assert!(deflater.held() < HISTORY / 4 && !deflater.can_fold(), "{}", deflater.held());
    for _ in 0..10 {
        deflate(&mut Deflater::new(), b"others speak", true);
    }
    let again = deflate(&mut deflater, line, true).len();
    assert!(again < first / 3, "{first} bytes, then {again}");
}

#[test]
fn any_flush_and_any_level_of_the_client_is_understood() {
    for flush in [TDEFLFlush::None, TDEFLFlush::Sync, TDEFLFlush::Full] {
        for level in [0, 6] {
            let (mut client, text) = (Client::new(level), mixed(100_000));
            let mut deflated: Vec<u8> =
                text.chunks(7001).flat_map(|part| client.deflate(part, flush)).collect();
            deflated.extend(client.deflate(b"", TDEFLFlush::Sync));
            for chunk in [500, 4096, deflated.len()] {
                let inflated = inflate(&mut Inflater::new(), deflated.chunks(chunk)).unwrap();
                assert!(inflated == text, "level {level}, {flush:?}, in chunks of {chunk}");
            }
            // Byte by byte a window of full size takes long.
            let text = mixed(5000);
            let mut whole = Client::new(level).deflate(&text, TDEFLFlush::Sync);
            whole.extend(Client::new(level).deflate(&text, TDEFLFlush::Full));
            assert!(
                inflate(&mut Inflater::new(), whole.chunks(1)).unwrap() == text.repeat(2),
                "level {level}"
            );
        }
    }
}

#[test]
fn idle_session_holds_what_the_client_has_sent_and_a_little_more() {
    let (mut deflater, mut inflater, mut client) =
        (Deflater::new(), Inflater::new(), Client::new(6));
    let said = mixed(2048);
    for part in said.chunks(64) {
        inflate(&mut inflater, [client.deflate(part, TDEFLFlush::Sync).as_slice()]).unwrap();
        deflate(&mut deflater, &mixed(5000), true);
    }
    assert_eq!((inflater.held(), deflater.held()), (2048, HISTORY));
    // The most there is: after a lot, between blocks, and within one.
    inflate(&mut inflater, [client.deflate(&mixed(200_000), TDEFLFlush::Sync).as_slice()]).unwrap();
    assert_eq!(inflater.held(), WINDOW);
    inflate(&mut inflater, [client.deflate(&mixed(200_000), TDEFLFlush::Sync).get(..999).unwrap()])
        .unwrap();
    assert!(
        inflater.held() > WINDOW && inflater.held() < WINDOW + 12 * 1024,
        "{}",
        inflater.held()
    );
}

#[test]
fn compacting_between_commands_changes_only_the_memory_held() {
    let mut client = Client::new(6);
    let (mut plain, mut folding) = (Inflater::new(), Inflater::new());
    let said = mixed(100_000);
    for (number, part) in said.chunks(700).enumerate() {
        // Also within a block.
        let flush = if number % 3 == 0 { TDEFLFlush::None } else { TDEFLFlush::Sync };
        let deflated = client.deflate(part, flush);
        let expected = inflate(&mut plain, [deflated.as_slice()]).unwrap();
        assert!(inflate(&mut folding, [deflated.as_slice()]).unwrap() == expected);
        if folding.can_fold() {
            folding.fold();
            assert!(folding.held() <= plain.held() && !folding.can_fold());
        }
    }
    assert!(folding.held() < plain.held());
}

#[test]
fn bomb_comes_in_pieces_and_is_not_held() {
    let noops = b"a NOOP\r\n".repeat(8 * 1024 * 1024);
    let bomb = Client::new(9).deflate(&noops, TDEFLFlush::Sync);
    assert!(bomb.len() < noops.len() / 300, "{}", bomb.len());
    let (mut inflater, mut work, mut input) = (Inflater::new(), vec![0; MIN_WORK], bomb.as_slice());
    let mut inflated = 0;
    while !input.is_empty() || inflater.has_more() {
        inflated += inflater.inflate(&mut input, &mut work).unwrap().len();
        assert!(inflater.held() < WINDOW + 12 * 1024);
    }
    assert_eq!(inflated, noops.len());
}

#[test]
fn data_that_is_not_deflate_is_malformed() {
    let mut client = Client::new(6);
    let ended = client.deflate(b"a LOGOUT\r\n", TDEFLFlush::Finish);
    let mut inflater = Inflater::new();
    assert_eq!(inflate(&mut inflater, [ended.as_slice()]).unwrap(), b"a LOGOUT\r\n");
    assert_eq!(
        inflate(&mut inflater, [b"".as_slice()]).unwrap(),
        b"",
        "the end of a stream is no fault"
    );
    for (bytes, why) in [
        (&b"a1 NOOP\r\n"[..], "plain text"),
        (&[0b111], "a block of the reserved kind"),
        (&[0, 5, 0, 5, 0], "a length that differs from its complement"),
        (&[0b011, 0b10, 0b0, 0], "a distance beyond what was sent"),
        (&[ended.as_slice(), b"x"].concat(), "something behind the last block"),
    ] {
        assert_eq!(inflate(&mut Inflater::new(), [bytes]), Err(InflateError), "{why}");
    }
    assert_eq!(inflate(&mut Inflater::new(), [&ended[..4], &ended[4..], b"x"]), Err(InflateError));
}

proptest! {
    // Each case is many windows of 32 KiB.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Also of what is broken all comes out up to the fault, and the fault is found.
    #[test]
    fn any_bytes_in_any_chunks_give_the_same(
        said in 0usize..3000,
        garbage in proptest::collection::vec(any::<u8>(), 0..300),
        chunk in 1usize..50,
    ) {
        let mut stream = Client::new(6).deflate(&mixed(said), TDEFLFlush::Sync);
        stream.extend(garbage);
        let run = |chunk: usize| {
            let (mut inflater, mut work, mut inflated) = (Inflater::new(), vec![0; MIN_WORK], vec![]);
            for mut input in stream.chunks(chunk) {
                while !input.is_empty() || inflater.has_more() {
                    match inflater.inflate(&mut input, &mut work) {
                        Ok(piece) => inflated.extend_from_slice(piece),
                        Err(fault) => return (inflated, Some(fault)),
                    }
                }
            }
            (inflated, None)
        };
        let whole = run(stream.len().max(1));
        prop_assert!(whole.0.starts_with(&mixed(said)));
        prop_assert!(run(chunk) == whole);
    }

    #[test]
    fn any_chunking_of_both_sides_gives_what_was_said(
        parts in proptest::collection::vec((0usize..40_000, any::<bool>()), 1..6),
        chunk in 50usize..5000,
        level in 0u8..10,
        truncated in 0usize..1000,
    ) {
        let (mut deflater, mut client) = (Deflater::new(), Client::new(level));
        let (mut said, mut ours, mut theirs) = (vec![], vec![], vec![]);
        for (len, flush) in parts {
            let part = mixed(len);
            ours.extend(deflate(&mut deflater, &part, flush));
            theirs.extend(client.deflate(&part, if flush { TDEFLFlush::Sync } else { TDEFLFlush::None }));
            said.extend(part);
        }
        ours.extend(deflate(&mut deflater, b"", true));
        theirs.extend(client.deflate(b"", TDEFLFlush::Sync));
        for deflated in [&ours, &theirs] {
            prop_assert!(inflate(&mut Inflater::new(), deflated.chunks(chunk)).unwrap() == said);
            // Half a stream is a beginning.
            let half = &deflated[..deflated.len().saturating_sub(truncated)];
            prop_assert!(said.starts_with(&inflate(&mut Inflater::new(), half.chunks(chunk)).unwrap()));
        }
    }
}
