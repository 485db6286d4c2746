//! Floods, slow peers, large bodies, and the end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use futures_util::future::join_all;

use super::*;

/// More connections without a request than there may be at once, in src/http/news/site.rs.
const CROWD: usize = 300;

/// A connection on which a request has begun: `sent` of a body of `length` bytes.
fn begun(scene: &HookScene, length: usize, sent: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", scene.port.number())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let head =
        format!("POST /v1/news HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{sent}");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn status_line(stream: &mut TcpStream) -> String {
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_of_one_account_is_refused_for_a_moment_and_then_all_is_well() {
    let mut scene = HookScene::new().await;
    let client = reqwest::Client::new();
    let url = scene.url();
    let requests = (1..=200).map(|uid| {
        let request = client.post(&url).body(own(uid));
        async move {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.headers().contains_key("retry-after"))
        }
    });
    let answers = join_all(requests).await;
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    let (taken, refused) = (count((200, false)), count((429, true)));
    assert!(taken >= 100 && refused > 0 && taken + refused == 200, "{taken} {refused}");
    let deadline = Instant::now() + Duration::from_secs(40);
    let mut uid = 1000;
    while scene.tell(uid).await.0 != 200 {
        assert!(Instant::now() < deadline, "it is never well again");
        tokio::time::sleep(Duration::from_millis(100)).await;
        uid += 1;
    }
    scene.notify.wait_for(1, Duration::from_secs(40)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crowd_of_connections_and_slow_peers_keeps_no_mail_server_out() {
    let scene = HookScene::new().await;
    let mut slow = begun(&scene, 100, "{");
    let crowd: Vec<TcpStream> = (0..CROWD)
        .map(|_| TcpStream::connect(("127.0.0.1", scene.port.number())).unwrap())
        .collect();
    let began = Instant::now();
    assert_eq!(scene.tell(10).await, (200, "announced".to_owned()));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(crowd);
    assert_eq!(status_line(&mut slow), "HTTP/1.1 408");
}

#[tokio::test(flavor = "multi_thread")]
async fn body_may_have_the_text_of_a_message_and_not_more() {
    let scene = HookScene::new().await;
    // mox sends a MiB of text.
    let text = "x".repeat(1 << 20);
    let mox = format!(
        r#"{{"Version":0,"Text":"{text}","HTML":"{text}","Meta":{{"RcptTo":"{USER}","MailboxName":"Inbox"}}}}"#
    );
    assert_eq!(answered(scene.post(mox)).await, (200, "announced".to_owned()));
    let mut large = begun(&scene, 5 << 20, "");
    assert_eq!(status_line(&mut large), "HTTP/1.1 413");
    let mut head = TcpStream::connect(("127.0.0.1", scene.port.number())).unwrap();
    head.write_all(format!("POST /{} HTTP/1.1\r\n", "x".repeat(20_000)).as_bytes()).unwrap();
    assert!(status_line(&mut head).starts_with("HTTP/1.1 4"));
    assert_eq!(scene.tell(10).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_open_at_the_end_are_told_and_do_not_hold_it_up() {
    let mut scene = HookScene::new().await;
    let mut slow = begun(&scene, 100, "{");
    // Idle, after a request.
    let mut idle = begun(&scene, own(10).len(), &own(10));
    assert_eq!(status_line(&mut idle), "HTTP/1.1 200");
    let status = tokio::task::block_in_place(|| scene.deltapush.terminate());
    assert!(status.success(), "{status}");
    assert_eq!(status_line(&mut slow), "HTTP/1.1 503");
    assert!(!scene.deltapush.log().contains("some sessions did not end within"));
    assert!(TcpStream::connect(("127.0.0.1", scene.port.number())).is_err());
    // News that was answered is on disk.
    scene.deltapush.start_again();
    assert!(wait_for_port(scene.port.number(), Duration::from_secs(40)));
    assert_eq!(scene.tell(10).await.1, "known");
    scene.notify.wait_for(1, Duration::from_secs(40)).await;
}
