//! The traps that every IMAP relay meets, and what odd servers say, as dialogues with a scripted upstream.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::support::certs::Authority;
use super::support::client::{Client, Reply};
use super::support::deltapush::{Deltapush, Options};
use super::support::ports::ReservedPort;
use super::support::scripted::{Manner, Scripted};

/// Start of most dialogues.
const LOGIN: &str = "
    S: * OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ IDLE AUTH=PLAIN] ready
    LOGIN
    S: <tag> OK [CAPABILITY IMAP4rev1 LITERAL+ BINARY IDLE] in
";

/// A login as the scripted accounts expect it.
const CREDENTIALS: &str = "c1 LOGIN alice@lab.test sesame";

/// A command that deltapush answers itself: if it stands where a command may stand, it never reaches the upstream.
const OWN: &str = "GETMETADATA \"\" /shared/admin";

/// Starts both for one dialogue that begins with [`LOGIN`], and logs a client in.
async fn logged_in(dialogue: &str) -> (Scripted, Deltapush, Client) {
    let upstream = Scripted::start(&[&format!("{LOGIN}{dialogue}")]).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    let reply = client.command(CREDENTIALS).await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    (upstream, deltapush, client)
}

/// Logs in against a dialogue from its greeting on, and returns what the client was told.
async fn login_against(dialogue: &str) -> (Scripted, Deltapush, Client, Reply) {
    let upstream = Scripted::start(&[dialogue]).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    let reply = client.command(CREDENTIALS).await;
    (upstream, deltapush, client, reply)
}

/// A command of deltapush's own gets deltapush's own answer.
async fn expect_own_answer(client: &mut Client, tag: &str) {
    let reply = client.command(&format!("{tag} {OWN}")).await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    assert!(reply.text().contains("/shared/admin NIL"), "{reply:?}");
}

fn has_words(text: &str, wanted: &[&str]) -> bool {
    let words: Vec<&str> = text.split([' ', ']', '\n']).collect();
    wanted.iter().all(|word| words.contains(word))
}

#[tokio::test]
async fn after_a_rejected_literal_comes_a_command() {
    let (upstream, _deltapush, mut client) = logged_in(
        "C: c2 APPEND INBOX {35}
         S: c2 NO [TRYCREATE] no such mailbox
         C: c4 NOOP
         S: c4 OK",
    )
    .await;
    client.send("c2 APPEND INBOX {35}").await;
    client.expect("c2 NO [TRYCREATE] no such mailbox").await;
    // As long as the literal would have been.
    expect_own_answer(&mut client, "c3").await;
    client.send("c4 NOOP").await;
    client.expect("c4 OK").await;
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn accepted_literal_is_data_whatever_it_looks_like() {
    let (upstream, _deltapush, mut client) = logged_in(
        r#"C: c2 APPEND INBOX {33}
         S: * 3 EXISTS
         S: + go on
         C= c9 GETMETADATA "" /shared/admin\r\n\r\n
         S: c2 OK [APPENDUID 1 2] done
         C: c4 NOOP
         S: c4 OK"#,
    )
    .await;
    client.send("c2 APPEND INBOX {33}").await;
    client.expect("* 3 EXISTS").await;
    client.expect("+ go on").await;
    client.send(&format!("c9 {OWN}\r\n")).await;
    client.expect("c2 OK [APPENDUID 1 2] done").await;
    expect_own_answer(&mut client, "c3").await;
    client.send("c4 NOOP").await;
    client.expect("c4 OK").await;
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn literals_of_every_kind_pass() {
    let (upstream, _deltapush, mut client) = logged_in(
        r"C= c2 APPEND INBOX ~{8+}\r\n\0\r\nc9 x\xff\r\n
         S: c2 OK
         C: c3 APPEND INBOX ~{3}
         S: +
         C= \0\r\n (FLAG {0+}\r\n)\r\n
         S: c3 OK
         C= c4 SEARCH TEXT {0}\r\n
         S: + 
         C= \r\n
         S: * SEARCH
         S: c4 OK",
    )
    .await;
    client.send_raw(b"c2 APPEND INBOX ~{8+}\r\n\0\r\nc9 x\xff\r\n").await;
    client.expect("c2 OK").await;
    client.send("c3 APPEND INBOX ~{3}").await;
    client.expect("+").await;
    client.send_raw(b"\0\r\n (FLAG {0+}\r\n)\r\n").await;
    client.expect("c3 OK").await;
    client.send("c4 SEARCH TEXT {0}").await;
    client.expect("+ ").await;
    client.send("").await;
    client.expect("* SEARCH").await;
    client.expect("c4 OK").await;
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn refused_idle_leaves_the_client_in_command() {
    let (upstream, _deltapush, mut client) = logged_in(
        "C: c2 IDLE
         S: c2 BAD [CLIENTBUG] no IDLE here
         C: c4 NOOP
         S: c4 OK",
    )
    .await;
    client.send("c2 IDLE").await;
    client.expect("c2 BAD [CLIENTBUG] no IDLE here").await;
    expect_own_answer(&mut client, "c3").await;
    client.send("c4 NOOP").await;
    client.expect("c4 OK").await;
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn news_may_come_before_idle_is_accepted() {
    let (upstream, _deltapush, mut client) = logged_in(
        "C: c2 IDLE
         S: * 4 EXISTS
         S: +
         S: * OK Still here {3}
         C: DONE
         S: c2 OK
         C: c4 NOOP
         S: c4 OK",
    )
    .await;
    client.send("c2 IDLE").await;
    for line in ["* 4 EXISTS", "+", "* OK Still here {3}"] {
        client.expect(line).await;
    }
    client.send("DONE").await;
    client.expect("c2 OK").await;
    expect_own_answer(&mut client, "c3").await;
    client.send("c4 NOOP").await;
    client.expect("c4 OK").await;
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn pipelined_commands_are_told_apart() {
    let (upstream, _deltapush, mut client) = logged_in(
        r"C= c2 NOOP\r\nc4 APPEND INBOX {3+}\r\nc3 \r\nc6 NOOP\r\n
         S: c2 OK
         S: c4 OK
         S: c6 OK",
    )
    .await;
    client
        .send_raw(
            format!(
                "c2 NOOP\r\nc3 {OWN}\r\nc4 APPEND INBOX {{3+}}\r\nc3 \r\nc5 {OWN}\r\nc6 NOOP\r\n"
            )
            .as_bytes(),
        )
        .await;
    let mut tagged = Vec::new();
    let mut answers = 0;
    while tagged.len() < 5 {
        let line = client.line().await;
        if line.starts_with("* METADATA") {
            answers += 1
        } else {
            tagged.push(line.split(' ').next().unwrap().to_owned())
        }
    }
    tagged.sort();
    assert_eq!(
        (tagged.join(" "), answers),
        ("c2 c3 c4 c5 c6".to_owned(), 2),
        "{}",
        client.dialogue()
    );
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn literal_look_alike_is_text() {
    let (upstream, _deltapush, mut client) = logged_in(
        "C: c2 XTEXT \"{5}\"
         S: * OK remember {20}
         S: * CAPABILITY IMAP4rev1 IDLE
         S: * NO {300+}
         S: c2 OK done {7}
         C: c4 NOOP
         S: c4 OK",
    )
    .await;
    client.send("c2 XTEXT \"{5}\"").await;
    client.expect("* OK remember {20}").await;
    let rewritten = client.expect_prefix("* CAPABILITY IMAP4rev1 IDLE").await;
    assert!(has_words(&rewritten, &["METADATA", "XDELTAPUSH"]), "{rewritten}");
    client.expect("* NO {300+}").await;
    client.expect("c2 OK done {7}").await;
    expect_own_answer(&mut client, "c3").await;
    client.send("c4 NOOP").await;
    client.expect("c4 OK").await;
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn own_lines_never_stand_inside_a_literal() {
    let (upstream, _deltapush, mut client) = logged_in(
        r"C: c2 FETCH 1 BODY[]
         S= * 1 FETCH (BODY[] {43}\r\n* CAPABILITY IMAP4rev1\r\nc3 OK
         GATE
         S=  0123\r\nabcdefg
         GATE
         S= )\r\nc2 OK done\r\n
         C: c4 NOOP
         S: c4 OK",
    )
    .await;
    client.send("c2 FETCH 1 BODY[]").await;
    client.expect("* 1 FETCH (BODY[] {43}").await;
    assert_eq!(client.bytes(29).await, b"* CAPABILITY IMAP4rev1\r\nc3 OK");
    client.send(&format!("c3 {OWN}")).await;
    client.expect_silence(Duration::from_millis(300)).await;
    upstream.open_gate();
    assert_eq!(client.bytes(14).await, b" 0123\r\nabcdefg");
    // The literal has ended, the response has not.
    client.expect_silence(Duration::from_millis(300)).await;
    upstream.open_gate();
    client.expect(")").await;
    let mut rest = [client.line().await, client.line().await, client.line().await];
    rest.sort();
    assert_eq!(rest[0], "* METADATA \"\" (/shared/admin NIL)");
    assert_eq!(rest[1], "c2 OK done");
    assert!(rest[2].starts_with("c3 OK"), "{rest:?}");
    client.send("c4 NOOP").await;
    client.expect("c4 OK").await;
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn one_byte_at_a_time_is_the_same() {
    let dialogue = format!(
        r"{LOGIN}
         C: c2 CAPABILITY
         S: * CAPABILITY IMAP4rev1 COMPRESS=DEFLATE IDLE
         S: c2 OK done
         C= c4 APPEND INBOX {{5}}\r\n
         S: + go on
         C= a\r\n\0b\r\n
         S: c4 OK
         C: c5 IDLE
         S: + idling
         S: * 2 EXISTS
         C: DONE
         S: c5 OK"
    );
    let upstream = Scripted::start_with(Manner { bytewise: true, tls: None }, &[&dialogue]).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    let mut client = Client::plain(deltapush.plain).await.bytewise();
    client.expect_prefix("* OK").await;
    let reply = client.command(CREDENTIALS).await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    let list = client.command("c2 CAPABILITY").await.text();
    assert!(has_words(&list, &["IDLE", "METADATA", "XDELTAPUSH", "COMPRESS=DEFLATE"]), "{list}");
    expect_own_answer(&mut client, "c3").await;
    client.send("c4 APPEND INBOX {5}").await;
    client.expect("+ go on").await;
    client.send_raw(b"a\r\n\0b\r\n").await;
    client.expect("c4 OK").await;
    client.send("c5 IDLE").await;
    client.expect("+ idling").await;
    client.expect("* 2 EXISTS").await;
    client.send("DONE").await;
    client.expect("c5 OK").await;
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn greeting_may_keep_its_capabilities_to_itself() {
    let (upstream, _deltapush, client, reply) = login_against(
        "S: * OK
         CAPS IMAP4rev1 IDLE
         LOGIN
         S: <tag> OK [CAPABILITY IMAP4rev1 IDLE] in",
    )
    .await;
    assert!(
        reply.result.starts_with("OK") && has_words(&reply.text(), &["METADATA", "XDELTAPUSH"]),
        "{reply:?}"
    );
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn gmail_tells_its_capabilities_before_the_tagged_ok() {
    let (upstream, _deltapush, client, reply) = login_against(
        "S: * OK Gimap ready
         CAPS IMAP4rev1 IDLE AUTH=PLAIN
         LOGIN
         S: * CAPABILITY IMAP4rev1 UNSELECT IDLE COMPRESS=DEFLATE X-GM-EXT-1
         S: <tag> OK alice@lab.test authenticated (Success)",
    )
    .await;
    assert!(reply.result.ends_with("alice@lab.test authenticated (Success)"), "{reply:?}");
    let told = reply.text();
    assert!(
        has_words(&told, &["METADATA", "XDELTAPUSH", "X-GM-EXT-1", "COMPRESS=DEFLATE"]),
        "{told}"
    );
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn icloud_says_ok_without_a_word() {
    let (upstream, _deltapush, mut client, reply) = login_against(
        "S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN]
         CAPS IMAP4rev1 IDLE
         LOGIN
         S: <tag> OK
         C: c2 CAPABILITY
         S: * CAPABILITY IMAP4rev1 IDLE
         S: c2 OK
         C: c3 LOGOUT
         S: * BYE
         S: c3 OK
         CLOSE",
    )
    .await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    let list = client.command("c2 CAPABILITY").await.text();
    assert!(has_words(&list, &["IDLE", "METADATA", "XDELTAPUSH"]), "{list}");
    let reply = client.command("c3 LOGOUT").await;
    assert_eq!((reply.untagged, reply.result.as_str()), (vec!["* BYE".to_owned()], "OK"));
    assert_eq!(client.expect_eof().await, "");
    upstream.finish().await;
}

#[tokio::test]
async fn server_words_about_a_login_reach_the_person() {
    let (upstream, _deltapush, client, reply) = login_against(
        "S: * OK [CAPABILITY IMAP4rev1] ready
         LOGIN
         S: * OK [ALERT] maintenance at noon
         S: <tag> NO [ALERT] your account is locked {3}",
    )
    .await;
    assert_eq!(reply.result, "NO [ALERT] your account is locked {3}");
    assert!(reply.untagged.contains(&"* OK [ALERT] maintenance at noon".to_owned()), "{reply:?}");
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn server_that_says_bye_is_unavailable_and_the_client_may_try_again() {
    let bye = "
        S: * OK [CAPABILITY IMAP4rev1] ready
        LOGIN
        S: * BYE [UNAVAILABLE] too busy
        CLOSE";
    let at_once = "
        S: * BYE
        CLOSE";
    let works = format!("{LOGIN}\nC: c4 NOOP\nS: c4 OK");
    let upstream = Scripted::start(&[bye, at_once, &works]).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    for tag in ["c1", "c2"] {
        let reply = client.command(&CREDENTIALS.replace("c1", tag)).await;
        assert!(reply.result.starts_with("NO [UNAVAILABLE]"), "{reply:?}");
        // Delta Chat warns its user of a wrong password when it reads this word.
        assert!(!reply.result.to_lowercase().contains("authentication"), "{reply:?}");
    }
    assert!(client.command(&CREDENTIALS.replace("c1", "c3")).await.result.starts_with("OK"));
    assert_eq!(client.command("c4 NOOP").await.result, "OK");
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn server_that_cannot_be_reached_is_unavailable() {
    let nobody = ReservedPort::new();
    let deltapush = Deltapush::start(&Options::plain(nobody.number()));
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    let reply = client.command(CREDENTIALS).await;
    assert!(reply.result.starts_with("NO [UNAVAILABLE]"), "{reply:?}");
    assert!(client.command("c2 NOOP").await.result.starts_with("OK"));
}

#[tokio::test]
async fn server_that_says_nothing_is_unavailable() {
    let upstream = Scripted::start(&["HANG"]).await;
    let more = "limits:\n  upstream_time: 1s\n".to_owned();
    let deltapush = Deltapush::start(&Options { more, ..Options::plain(upstream.port) });
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    let reply = client.command(CREDENTIALS).await;
    assert!(reply.result.starts_with("NO [UNAVAILABLE]"), "{reply:?}");
    assert!(client.command("c2 NOOP").await.result.starts_with("OK"));
}

#[tokio::test]
async fn upstream_with_a_strange_certificate_learns_no_password() {
    let (dir, stranger) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (trusted, strange) = (Authority::new(dir.path()), Authority::new(stranger.path()));
    // From an authority that is not trusted, and from one that is, for others.
    let other = tempfile::tempdir().unwrap();
    let others = Authority::naming(other.path(), &["other.example", "127.0.0.2"]);
    for (shown, ca, host) in [
        (&strange, &trusted.ca, "localhost"),
        (&others, &others.ca, "localhost"),
        (&others, &others.ca, "127.0.0.1"),
    ] {
        let manner = Manner { bytewise: false, tls: Some(shown.server_config()) };
        let upstream = Scripted::start_with(manner, &["S: * OK"]).await;
        let deltapush = Deltapush::start(&Options {
            upstream: format!("imaps://{host}:{}", upstream.port),
            ca: Some(ca.clone()),
            ..Options::plain(0)
        });
        let mut client = Client::plain(deltapush.plain).await;
        client.expect_prefix("* OK").await;
        let reply = client.command(CREDENTIALS).await;
        assert!(
            reply
                .result
                .starts_with("NO [UNAVAILABLE] There is no secure connection to the mail server"),
            "{reply:?}"
        );
        assert!(upstream.connections() > 0);
    }
}

#[tokio::test]
async fn upstream_without_starttls_learns_no_password() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Somebody between the two strips STARTTLS from what the server offers, and refuses it.
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\r\n").await.unwrap();
        let (mut heard, mut buffer) = (String::new(), [0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            let said = String::from_utf8_lossy(&buffer[..count]).into_owned();
            let tag = said.split(' ').next().unwrap_or_default();
            let refused = format!("{tag} BAD not here\r\n");
            heard += &said;
            if stream.write_all(refused.as_bytes()).await.is_err() {
                break;
            }
        }
        heard
    });
    let deltapush = Deltapush::start(&Options {
        upstream: format!("imap://localhost:{port}"),
        ..Options::plain(0)
    });
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    let reply = client.command(CREDENTIALS).await;
    assert!(reply.result.starts_with("NO [UNAVAILABLE]"), "{reply:?}");
    drop(client);
    let heard = timeout(Duration::from_secs(20), upstream).await.unwrap().unwrap().to_uppercase();
    assert!(!heard.contains("LOGIN") && !heard.contains("AUTHENTICATE"), "{heard}");
}

#[tokio::test]
async fn login_without_a_route_is_refused_without_a_connection() {
    let upstream = Scripted::start(&[LOGIN]).await;
    let options = Options { domain: "lab.test".to_owned(), ..Options::plain(upstream.port) };
    let deltapush = Deltapush::start(&options);
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    for (tag, user) in
        [("c2", "eve@other.test"), ("c3", "eve"), ("c4", "alice@lab.test@other.test")]
    {
        let reply = client.command(&format!("{tag} LOGIN {user} sesame")).await;
        assert!(reply.result.starts_with("NO [AUTHORIZATIONFAILED]"), "{user}: {reply:?}");
    }
    assert_eq!(upstream.connections(), 0);
    assert!(client.command(CREDENTIALS).await.result.starts_with("OK"));
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn plaintext_before_tls_is_forgotten_after_starttls() {
    let upstream = Scripted::start(&[LOGIN]).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    let mut client = Client::plain(deltapush.starttls).await;
    client.expect_prefix("* OK").await;
    client.send_raw(format!("c0 STARTTLS\r\n{CREDENTIALS}\r\n").as_bytes()).await;
    client.expect_prefix("c0 OK").await;
    // To end the connection instead is as good.
    if let Some(mut client) = client.try_encrypted(&deltapush.certificate()).await {
        client.send("c2 NOOP").await;
        client.expect_prefix("c2 OK").await;
    }
    assert_eq!(upstream.connections(), 0, "a command from before TLS was carried out");
}

#[tokio::test]
async fn bad_input_ends_in_an_answer_and_the_proxy_goes_on() {
    let upstream = Scripted::start(&[LOGIN]).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    for (name, bytes) in [
        ("garbage", b"\xff\xfe\x00 %*( \"\r\n".to_vec()),
        ("NUL bytes", [vec![0; 2000], b"\r\n".to_vec()].concat()),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("an endless line", vec![b'x'; 200_000]),
        ("an endless literal", b"c1 LOGIN {4294967295}\r\n".to_vec()),
        ("an endless literal that does not ask", b"c1 LOGIN {4294967295+}\r\n".to_vec()),
        ("a number that is none", b"c1 LOGIN {99999999999999999999}\r\n".to_vec()),
        ("no user", b"c1 LOGIN\r\n".to_vec()),
        ("no base64", b"c1 AUTHENTICATE PLAIN %%%%\r\n".to_vec()),
    ] {
        let mut client = Client::plain(deltapush.plain).await;
        client.expect_prefix("* OK").await;
        client.send_whatever_happens(&bytes).await;
        let answer = client.line().await;
        let first = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["BAD", "NO", "BYE"].contains(&first), "{name}: {answer:?}");
    }
    assert_eq!(upstream.connections(), 0);
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    assert!(client.command(CREDENTIALS).await.result.starts_with("OK"));
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn token_beyond_all_measure_is_refused() {
    let (upstream, _deltapush, mut client) = logged_in(
        "C: c9 NOOP
         S: c9 OK",
    )
    .await;
    let long = "x".repeat(5000);
    let reply =
        client.command(&format!("c2 SETMETADATA INBOX (/private/devicetoken \"{long}\")")).await;
    assert!(reply.result.starts_with("NO"), "{reply:?}");
    // Refused before a byte of it was sent: what comes next is a command.
    let reply = client.command("c3 SETMETADATA INBOX (/private/devicetoken {1000000}").await;
    assert!(reply.result.starts_with("NO") || reply.result.starts_with("BAD"), "{reply:?}");
    let known = client.command("c4 GETMETADATA INBOX /private/devicetoken").await.text();
    assert!(known.contains("NIL"), "{known}");
    assert_eq!(client.command("c9 NOOP").await.result, "OK");
    drop(client);
    upstream.finish().await;
}

#[tokio::test]
async fn client_that_never_logs_in_is_sent_away() {
    let more = "limits:\n  login_time: 1s\n".to_owned();
    let deltapush = Deltapush::start(&Options { more, ..Options::plain(9) });
    let mut silent = Client::plain(deltapush.plain).await;
    let mut chatty = Client::plain(deltapush.plain).await;
    let began = Instant::now();
    for client in [&mut silent, &mut chatty] {
        client.expect_prefix("* OK").await;
    }
    chatty.send("c2 NOOP").await;
    chatty.expect_prefix("c2 OK").await;
    for client in [&mut silent, &mut chatty] {
        client.expect_prefix("* BYE").await;
        assert_eq!(client.expect_eof().await, "");
    }
    // By default it would take a minute.
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
}

#[tokio::test]
async fn when_the_server_leaves_its_last_words_arrive() {
    let (upstream, _deltapush, mut client) = logged_in(
        "C: c2 IDLE
         S: + idling
         S: * BYE server is going down
         CLOSE",
    )
    .await;
    client.send("c2 IDLE").await;
    client.expect("+ idling").await;
    client.expect("* BYE server is going down").await;
    assert_eq!(client.expect_eof().await, "");
    upstream.finish().await;
}

#[tokio::test]
async fn slow_reader_gets_every_byte() {
    const SIZE: usize = 8 << 20;
    let body = "0123456789abcde\n".repeat(SIZE / 16);
    // Line ends are escaped: a dialogue has a step per line.
    let dialogue = format!(
        "C: c2 FETCH 1 BODY[]\nS= * 1 FETCH (BODY[] {{{SIZE}}}\\r\\n{})\\r\\n\nS: c2 OK",
        body.replace('\n', "\\n")
    );
    let (upstream, _deltapush, mut client) = logged_in(&dialogue).await;
    client.send("c2 FETCH 1 BODY[]").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.expect(&format!("* 1 FETCH (BODY[] {{{SIZE}}}")).await;
    assert!(client.bytes(SIZE).await == body.as_bytes(), "the body is another one");
    client.expect(")").await;
    client.expect("c2 OK").await;
    drop(client);
    upstream.finish().await;
}
