//! The relay over real sockets: ends, silences, peers that do not read.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::config::Native;
use crate::proxy::session::{Settings, Upstream};

/// An account that does what it is asked, at once.
struct Willing(Arc<Mutex<Vec<Request>>>);

impl Account for Willing {
    fn tokens(&self) -> Vec<DeviceToken> {
        Vec::new()
    }
    fn idles_in(&self, _: &str) {}
    fn fetches(&self) {}
    fn perform(&self, request: Request) -> Performed {
        self.0.lock().unwrap().push(request);
        Box::pin(async { true })
    }
}

/// A relay under way, and the far ends of its two connections.
struct Scene {
    client: TcpStream,
    upstream: TcpStream,
    stop: CancellationToken,
    relay: JoinHandle<End>,
    requests: Arc<Mutex<Vec<Request>>>,
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (far, near) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (far.unwrap(), near.unwrap().0)
}

async fn scene(idle_time: Duration) -> Scene {
    let ((client, near_client), (upstream, near_upstream)) = tokio::join!(pair(), pair());
    let settings = Settings { entries: vec![], native: Native::Passthrough, max_command: 8192, max_response: 8192 };
    let session = Session::new(Arc::new(settings), Upstream::default());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let streams = (Stream::Plain(near_client), Stream::Plain(near_upstream));
    let bounds = Bounds { buffer: 64 * 1024, idle_time, command_time: COMMAND_TIME };
    let relay = Relay::new(session, streams, Willing(Arc::clone(&requests)), None, bounds);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let beginning = Beginning { client: vec![], answer: b"a OK in\r\n".to_vec(), upstream: b"* 1 EXISTS\r\n".to_vec() };
    let relay = tokio::spawn(async move { relay.run(beginning, &stopped).await });
    let mut scene = Scene { client, upstream, stop, relay, requests };
    assert_eq!(read(&mut scene.client, 21).await, "a OK in\r\n* 1 EXISTS\r\n");
    scene
}

const LONG: Duration = Duration::from_secs(1800);
const COMMAND_TIME: Duration = Duration::from_secs(30);

async fn read(stream: &mut TcpStream, len: usize) -> String {
    let mut bytes = vec![0; len];
    within(stream.read_exact(&mut bytes)).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    within(stream.read_to_string(&mut text)).await.unwrap();
    text
}

async fn within<T>(event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), event).await.expect("nothing happens")
}

#[tokio::test]
async fn a_client_that_closes_its_side_hears_the_rest() {
    let mut scene = scene(LONG).await;
    scene.client.write_all(b"b LOGOUT\r\n").await.unwrap();
    scene.client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut scene.upstream).await, "b LOGOUT\r\n");
    scene.upstream.write_all(b"* BYE\r\nb OK\r\n").await.unwrap();
    scene.upstream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut scene.client).await, "* BYE\r\nb OK\r\n");
    assert!(matches!(within(scene.relay).await.unwrap(), End::Client(None)));
}

#[tokio::test]
async fn what_waits_for_the_servers_word_is_sent_before_the_side_is_closed() {
    let mut scene = scene(LONG).await;
    scene.client.write_all(b"b APPEND x {3}\r\nabc\r\n").await.unwrap();
    scene.client.shutdown().await.unwrap();
    assert_eq!(read(&mut scene.upstream, 16).await, "b APPEND x {3}\r\n");
    scene.upstream.write_all(b"+ go\r\n").await.unwrap();
    assert_eq!(read_to_end(&mut scene.upstream).await, "abc\r\n");
}

#[tokio::test]
async fn an_upstream_that_goes_is_announced() {
    let mut scene = scene(LONG).await;
    scene.upstream.write_all(b"* 2 EXISTS\r\n").await.unwrap();
    scene.upstream.shutdown().await.unwrap();
    let said = read_to_end(&mut scene.client).await;
    assert_eq!(said, "* 2 EXISTS\r\n* BYE [UNAVAILABLE] the mail server closed the connection\r\n");
    assert!(matches!(within(scene.relay).await.unwrap(), End::Upstream(None)));
}

#[tokio::test]
async fn silence_ends_in_words_and_so_does_a_shutdown() {
    let mut silent = scene(Duration::from_millis(200)).await;
    assert_eq!(read_to_end(&mut silent.client).await, "* BYE nothing was said for too long\r\n");
    assert!(matches!(within(silent.relay).await.unwrap(), End::Idle));
    let mut stopped = scene(LONG).await;
    stopped.stop.cancel();
    assert_eq!(read_to_end(&mut stopped.client).await, "* BYE deltapush shuts down, try again in a moment\r\n");
    assert!(matches!(within(stopped.relay).await.unwrap(), End::Shutdown));
}

#[tokio::test]
async fn a_request_is_done_and_answered() {
    let mut scene = scene(LONG).await;
    scene.client.write_all(b"b SETMETADATA INBOX (/private/devicetoken \"t\")\r\nc NOOP\r\n").await.unwrap();
    assert_eq!(read(&mut scene.client, 28).await, "b OK SETMETADATA completed\r\n");
    assert_eq!(read(&mut scene.upstream, 8).await, "c NOOP\r\n");
    assert_eq!(scene.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_from() {
    let scene = scene(LONG).await;
    let (_reader, mut writer) = scene.client.into_split();
    // Each line is answered by deltapush itself, and nobody reads the answers.
    let lines = "b COMPRESS X\r\n".repeat(10_000);
    let writing = async {
        for _ in 0..1000 {
            writer.write_all(lines.as_bytes()).await.unwrap();
        }
    };
    let refused = timeout(Duration::from_millis(1500), writing).await;
    assert!(refused.is_err(), "140 MB were taken");
}

#[tokio::test]
async fn an_upstream_that_does_not_read_still_says_its_last_words() {
    let mut scene = scene(LONG).await;
    let writing = timeout(Duration::from_millis(500), async {
        loop {
            scene.client.write_all(&[b'x'; 65536]).await.unwrap();
        }
    });
    assert!(writing.await.is_err());
    scene.upstream.write_all(b"* BYE too much\r\n").await.unwrap();
    drop(scene.upstream);
    let mut said = vec![0; 16];
    within(scene.client.read_exact(&mut said)).await.unwrap();
    assert_eq!(said, b"* BYE too much\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_held_must_come_to_its_end() {
    for begun in ["b", "b GETMETADATA", "b GETMETADATA \"\" {9}\r\n"] {
        let mut scene = scene(LONG).await;
        scene.client.write_all(begun.as_bytes()).await.unwrap();
        let begin = Instant::now();
        let mut text = String::new();
        for _ in 0..1000 {
            let more = timeout(Duration::from_secs(1), scene.client.read_to_string(&mut text)).await;
            if more.is_ok() {
                break;
            }
            scene.client.write_all(b"x").await.unwrap();
        }
        assert!(text.ends_with("* BYE the command took too long\r\n"), "{begun:?}: {text:?}");
        assert!(begin.elapsed() >= COMMAND_TIME && begin.elapsed() < COMMAND_TIME * 2, "{:?}", begin.elapsed());
        assert!(matches!(scene.relay.await.unwrap(), End::Dribble));
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_streams_through_and_one_after_another_may_take_their_time() {
    let mut scene = scene(LONG).await;
    // Each time the beginning of one is held, but never the same for long.
    scene.client.write_all(b"c").await.unwrap();
    for _ in 0..100 {
        scene.client.write_all(b"c NOOP\r\nc").await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    scene.client.write_all(b"c APPEND INBOX {1000+}\r\n").await.unwrap();
    for _ in 0..1000 {
        scene.client.write_all(b"x").await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    assert!(!scene.relay.is_finished());
}
