//! The relay with a client that compresses: over real sockets, hostile ones included.

use miniz_oxide::DataFormat;
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, compress_to_output};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::super::compress::{Inflater, MIN_WORK};
use super::tests::{LONG, RelayScene, pair, read, read_to_end, scene, within};
use super::*;

/// The client's end of a relay, compressed.
struct Client {
    scene: RelayScene,
    deflater: Box<CompressorOxide>,
    inflater: Inflater,
    work: Vec<u8>,
    heard: Vec<u8>,
}

impl Client {
    async fn begin(idle_time: Duration) -> Self {
        let mut scene = scene(idle_time).await;
        scene.client.write_all(b"z COMPRESS DEFLATE\r\n").await.unwrap();
        assert_eq!(read(&mut scene.client, 27).await, "z OK compression begins now");
        assert_eq!(read(&mut scene.client, 2).await, "\r\n");
        let mut deflater = Box::<CompressorOxide>::default();
        deflater.set_format_and_level(DataFormat::Raw, 9);
        Self { scene, deflater, inflater: Inflater::new(), work: vec![0; MIN_WORK], heard: vec![] }
    }

    fn deflated(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut deflated = vec![];
        compress_to_output(&mut self.deflater, bytes, TDEFLFlush::Sync, |bytes| {
            deflated.extend_from_slice(bytes);
            true
        });
        deflated
    }

    async fn send(&mut self, text: &str) {
        let deflated = self.deflated(text.as_bytes());
        self.scene.client.write_all(&deflated).await.unwrap();
    }

    /// Expects these bytes next.
    async fn expect(&mut self, expected: &str) {
        while self.heard.len() < expected.len() && self.receive().await > 0 {}
        let heard: Vec<u8> = self.heard.drain(..expected.len().min(self.heard.len())).collect();
        assert_eq!(String::from_utf8_lossy(&heard), expected);
    }

    /// Everything to the end.
    async fn read_to_end(&mut self) -> String {
        while self.receive().await > 0 {}
        String::from_utf8(std::mem::take(&mut self.heard)).unwrap()
    }

    async fn receive(&mut self) -> usize {
        let mut bytes = [0; 4096];
        let len = within(self.scene.client.read(&mut bytes)).await.unwrap();
        let mut input = &bytes[..len];
        while !input.is_empty() || self.inflater.has_more() {
            self.heard
                .extend_from_slice(self.inflater.inflate(&mut input, &mut self.work).unwrap());
        }
        len
    }
}

#[tokio::test]
async fn both_ways_are_compressed_and_the_upstream_hears_nothing_of_it() {
    let mut client = Client::begin(LONG).await;
    client.send("a NOOP\r\n").await;
    assert_eq!(read(&mut client.scene.upstream, 8).await, "a NOOP\r\n");
    client.scene.upstream.write_all(b"* 2 EXISTS\r\na OK\r\n").await.unwrap();
    client.expect("* 2 EXISTS\r\na OK\r\n").await;
    client.send("b COMPRESS DEFLATE\r\n").await;
    client.expect("b NO [COMPRESSIONACTIVE] Compression is active already.\r\n").await;
    client.scene.client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client.scene.upstream).await, "");
}

#[tokio::test(start_paused = true)]
async fn window_compacted_in_a_silence_is_still_known() {
    let mut client = Client::begin(LONG).await;
    for round in 0..3 {
        // Each time it points back to all that was said before.
        let command = format!(
            "a UID FETCH 1:99 (FLAGS BODY.PEEK[HEADER.FIELDS ({})])\r\n",
            "SUBJECT FROM ".repeat(80)
        );
        client.send(&command).await;
        assert_eq!(read(&mut client.scene.upstream, command.len()).await, command);
        tokio::time::advance(FOLD_TIME + Duration::from_secs(round)).await;
        client.scene.upstream.write_all(b"a OK\r\n").await.unwrap();
        client.expect("a OK\r\n").await;
    }
}

#[tokio::test]
async fn bytes_behind_the_command_are_inflated() {
    let mut scene = scene(LONG).await;
    let mut deflater = Box::<CompressorOxide>::default();
    deflater.set_format_and_level(DataFormat::Raw, 0);
    let mut sent = b"y NOOP\r\nz COMPRESS DEFLATE\r\n".to_vec();
    compress_to_output(&mut deflater, b"a NOOP\r\n", TDEFLFlush::Sync, |bytes| {
        sent.extend_from_slice(bytes);
        true
    });
    // Within a response the OK has to wait, and what came behind the command with it.
    scene.upstream.write_all(b"* 1 FETCH (BODY[] {3}\r\na").await.unwrap();
    assert_eq!(read(&mut scene.client, 24).await, "* 1 FETCH (BODY[] {3}\r\na");
    scene.client.write_all(&sent).await.unwrap();
    assert_eq!(read(&mut scene.upstream, 8).await, "y NOOP\r\n");
    assert!(
        timeout(Duration::from_millis(100), scene.upstream.read_u8()).await.is_err(),
        "too early"
    );
    scene.upstream.write_all(b"bc)\r\n").await.unwrap();
    assert_eq!(read(&mut scene.client, 34).await, "bc)\r\nz OK compression begins now\r\n");
    assert_eq!(read(&mut scene.upstream, 8).await, "a NOOP\r\n");
}

#[tokio::test]
async fn large_messages_pass_both_ways() {
    let mut client = Client::begin(LONG).await;
    let message: String =
        (0..60_000).map(|number| format!("line {number} of a message\r\n")).collect();
    let append = format!("a APPEND x {{{}+}}\r\n{message}\r\n", message.len());
    let (said, mut upstream) = (client.deflated(append.as_bytes()), vec![0; append.len()]);
    let (reader, writer) = (&mut client.scene.upstream, &mut client.scene.client);
    let (read, written) =
        tokio::join!(within(reader.read_exact(&mut upstream)), writer.write_all(&said));
    written.unwrap();
    read.unwrap();
    assert!(upstream == append.as_bytes());
    let fetched = format!("* 1 FETCH (BODY[] {{{}}}\r\n{message})\r\n", message.len());
    let mut from = std::mem::replace(&mut client.scene.upstream, pair().await.0);
    let said = fetched.clone();
    let writing = tokio::spawn(async move {
        from.write_all(said.as_bytes()).await.unwrap();
        from
    });
    client.expect(&fetched).await;
    within(writing).await.unwrap();
}

#[tokio::test]
async fn uncompressed_input_ends_the_session_with_a_compressed_answer() {
    let mut client = Client::begin(LONG).await;
    client.scene.client.write_all(b"a1 NOOP\r\na2 NOOP\r\n").await.unwrap();
    assert_eq!(
        client.read_to_end().await,
        "* BYE Your app sent data that is not compressed correctly (RFC 4978).\r\n"
    );
    assert_eq!(read_to_end(&mut client.scene.upstream).await, "", "closed in order");
    drop(client.scene.client);
    assert!(matches!(within(client.scene.relay).await.unwrap(), RelayEnd::Malformed(_)));
}

#[tokio::test]
async fn last_words_are_compressed_too() {
    let mut client = Client::begin(Duration::from_secs(2)).await;
    assert_eq!(
        client.read_to_end().await,
        "* BYE Nothing was sent for too long. Your app connects again by itself.\r\n"
    );
    let mut client = Client::begin(LONG).await;
    client.scene.upstream.shutdown().await.unwrap();
    assert_eq!(
        client.read_to_end().await,
        "* BYE [UNAVAILABLE] The mail server closed the connection. Your app connects again by itself.\r\n"
    );
    // Half a stream at the end is no fault.
    let mut client = Client::begin(LONG).await;
    let said = client.deflated(b"a NOOP\r\nb NOOP\r\n");
    client.scene.client.write_all(&said[..said.len() - 6]).await.unwrap();
    client.scene.client.shutdown().await.unwrap();
    read_to_end(&mut client.scene.upstream).await;
    drop(client.scene.upstream);
    assert!(matches!(within(client.scene.relay).await.unwrap(), RelayEnd::Client(None)));
}

#[tokio::test]
async fn bomb_waits_for_an_upstream_that_does_not_read() {
    let mut client = Client::begin(LONG).await;
    let bomb = client.deflated(&b"a NOOP\r\n".repeat(8 * 1024 * 1024));
    client.scene.client.write_all(&bomb).await.unwrap();
    // Others get their turn, and so does this session's other direction.
    client.scene.upstream.write_all(b"* 7 EXISTS\r\n").await.unwrap();
    client.expect("* 7 EXISTS\r\n").await;
    let mut taken = vec![0; 1 << 20];
    within(client.scene.upstream.read_exact(&mut taken)).await.unwrap();
    assert!(taken == b"a NOOP\r\n".repeat(1 << 17), "in order, at the upstream's pace");
    client.scene.relay.abort();
}

/// The time that this thread has had: what else the machine does takes none of it (Linux: sched-stats.txt).
fn time_on_the_processor() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(statistics.split(' ').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "current_thread")]
async fn bomb_that_nobody_has_to_take_lets_others_go_on() {
    let mut client = Client::begin(LONG).await;
    // Too long for what is gathered: it is dropped as it comes, so that no peer slows it down.
    let bomb =
        client.deflated(&[b"a GETMETADATA ".as_slice(), &[b'x'; 256 << 20], b"\r\n"].concat());
    client.scene.client.write_all(&bomb).await.unwrap();
    let mut slowest = Duration::ZERO;
    let others = async {
        loop {
            let before = time_on_the_processor();
            yield_now().await;
            slowest = slowest.max(time_on_the_processor() - before);
        }
    };
    tokio::select! {
        () = client.expect("a BAD [TOOBIG] The command is too long.\r\n") => {}
        () = others => {}
    }
    assert!(slowest < Duration::from_secs(1), "a turn took {slowest:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn client_bytes_do_not_stay_in_the_threads_buffer() {
    let mut client = Client::begin(LONG).await;
    client.send("a X openpgp:c2VjcmV0\r\n").await;
    assert_eq!(read(&mut client.scene.upstream, 22).await, "a X openpgp:c2VjcmV0\r\n");
    // The beginning of a block, which makes no byte, and then what is no deflate.
    let mut said = client.deflated(b"b NOOP\r\n");
    said.truncate(1);
    for more in [said, vec![0xff; 100]] {
        client.scene.client.write_all(&more).await.unwrap();
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let is_left = with_scratch(|buffer| buffer.windows(8).any(|window| window == b"c2VjcmV0"));
        assert!(!is_left);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn inflated_bytes_behind_a_waiting_command_are_not_inflated_again() {
    let mut scene = scene(LONG).await;
    // The COMPRESS waits until the server has accepted the IDLE; meanwhile what is compressed has come too.
    scene.client.write_all(b"a IDLE\r\nDONE\r\nz COMPRESS DEFLATE\r\n").await.unwrap();
    assert_eq!(read(&mut scene.upstream, 8).await, "a IDLE\r\n");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut deflater = Box::<CompressorOxide>::default();
    deflater.set_format_and_level(DataFormat::Raw, 9);
    let mut sent = vec![];
    compress_to_output(&mut deflater, b"b IDLE\r\nDONE\r\nc NOOP\r\n", TDEFLFlush::Sync, |bytes| {
        sent.extend_from_slice(bytes);
        true
    });
    scene.client.write_all(&sent).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    scene.upstream.write_all(b"+ idling\r\n").await.unwrap();
    assert_eq!(read(&mut scene.upstream, 14).await, "DONE\r\nb IDLE\r\n");
    scene.upstream.write_all(b"a OK done\r\n+ idling\r\n").await.unwrap();
    assert_eq!(read(&mut scene.upstream, 14).await, "DONE\r\nc NOOP\r\n");
}
