//! A listed login method that does not work: the next one is used, in a connection of its own where the server ends the first,
//! and clients and watches share what they learned. A wrong password is asked of the server once.

use std::time::Duration;

use super::providers::{CLIENT, EXAMINE, IDLE, ProviderScene};
use super::support::client::Client;
use super::support::deltapush::{Deltapush, Options};
use super::support::poll;
use super::support::scripted::Scripted;

const GREETING: &str = "S: * OK [CAPABILITY IMAP4rev1 SASL-IR IDLE AUTH=PLAIN] ready\n";

/// The LOGIN command as the first one, with its success.
const LOGIN: &str = r#"
    C: dp1 LOGIN "alice@lab.test" "sesame"
    S: dp1 OK [CAPABILITY IMAP4rev1 IDLE] in
"#;

/// PLAIN is refused, with and without an initial response, and the server hangs up each time: two connections.
fn detour() -> [String; 2] {
    [
        format!(
            "{GREETING}C~ dp1 AUTHENTICATE PLAIN A
            S: dp1 BAD Request not ending with <CR><LF>
            C: dp2 AUTHENTICATE PLAIN
            CLOSE"
        ),
        format!(
            "{GREETING}C: dp1 AUTHENTICATE PLAIN
            S: dp1 BAD Request not ending with <CR><LF>
            RESET"
        ),
    ]
}

fn by_login(then: &str) -> String {
    format!("{GREETING}{LOGIN}{then}")
}

#[tokio::test]
async fn method_that_a_client_learned_spares_the_watch_the_detour() {
    let [first, second] = detour();
    let watch = by_login(&format!("{EXAMINE}{IDLE}REACHED\nEOF"));
    let scene = ProviderScene::begin(&[&first, &second, &by_login(CLIENT), &watch]).await;
    scene.upstream.reached().await;
    scene.goes_on().end().await;
}

#[tokio::test]
async fn method_that_a_watch_learned_spares_the_client_the_detour() {
    // PLAIN works until deltapush is started again, with nothing learned.
    let plain =
        |then: &str| format!("{GREETING}LOGIN\nS: <tag> OK [CAPABILITY IMAP4rev1 IDLE] in\n{then}");
    let waits = format!("{EXAMINE}{IDLE}REACHED\nEOF");
    let [first, second] = detour();
    let dialogues =
        [plain(CLIENT), plain(&waits), first, second, by_login(&waits), by_login(CLIENT)];
    let mut scene = ProviderScene::begin(&dialogues.each_ref().map(String::as_str)).await;
    scene.upstream.reached().await;
    scene.deltapush.restart();
    scene.upstream.reached().await;
    let mut again = Client::plain(scene.deltapush.plain).await;
    again.expect_prefix("* OK").await;
    let reply = again.command("c1 LOGIN alice@lab.test sesame").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    drop(again);
    scene.end().await;
}

/// A login by a client at an upstream that plays `dialogues`: the result, once all of them were played and no other connection
/// was made.
async fn result(dialogues: &[String]) -> String {
    let dialogues: Vec<&str> = dialogues.iter().map(String::as_str).collect();
    let upstream = Scripted::start(&dialogues).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    let result = client.command("c1 LOGIN alice@lab.test sesame").await.result;
    upstream.finish().await;
    assert_eq!(upstream.connections(), dialogues.len());
    result
}

#[tokio::test]
async fn goodbye_and_a_bare_end_refuse_a_method_that_has_sent_no_password() {
    let disabled = "S: * OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=PLAIN AUTH=LOGIN] ready\n";
    let by_auth_login = format!(
        "{disabled}C: dp1 AUTHENTICATE LOGIN
        S: + VXNlcm5hbWU6
        C: YWxpY2VAbGFiLnRlc3Q=
        S: + UGFzc3dvcmQ6
        C: c2VzYW1l
        S: dp1 OK [CAPABILITY IMAP4rev1] in
        EOF"
    );
    for end in ["CLOSE", "RESET", "S: * BYE\nCLOSE", "S: * BYE Go away\nRESET"] {
        let first = format!("{disabled}C: dp1 AUTHENTICATE PLAIN\n{end}");
        let result = tokio::time::timeout(
            Duration::from_secs(60),
            client_stays(&[first, by_auth_login.clone()]),
        )
        .await;
        assert!(result.unwrap().starts_with("OK"), "{end}");
    }
}

/// With a password in the command's line, a goodbye says for certain that it is about the method, or it ends the login.
#[tokio::test]
async fn goodbye_about_the_method_is_followed_by_the_next_one() {
    let first = format!(
        "{GREETING}C~ dp1 AUTHENTICATE PLAIN A\nS: * BYE Unsupported SASL mechanism\nCLOSE"
    );
    let second = format!("{GREETING}C: dp1 AUTHENTICATE PLAIN\nCLOSE");
    assert!(client_stays(&[first, second, by_login(CLIENT)]).await.starts_with("OK"));
}

/// The same as [`result`] for a session that goes on until the client is gone.
async fn client_stays(dialogues: &[String]) -> String {
    let dialogues: Vec<&str> = dialogues.iter().map(String::as_str).collect();
    let upstream = Scripted::start(&dialogues).await;
    let deltapush = Deltapush::start(&Options::plain(upstream.port));
    let mut client = Client::plain(deltapush.plain).await;
    client.expect_prefix("* OK").await;
    let result = client.command("c1 LOGIN alice@lab.test sesame").await.result;
    drop(client);
    upstream.finish().await;
    result
}

#[tokio::test]
async fn wrong_password_is_asked_of_the_server_once() {
    for answer in [
        "S: dp1 NO [AUTHENTICATIONFAILED] no\nEOF",
        "S: dp1 NO LOGIN failed.\nEOF",
        "S: dp1 BAD [AUTHENTICATIONFAILED] no\nRESET",
        "S: dp1 NO wrong\nCLOSE",
        "S: * BYE wrong password\nCLOSE",
        "S: * BYE\nRESET",
        "CLOSE",
        "RESET",
    ] {
        let dialogue = format!("{GREETING}C~ dp1 AUTHENTICATE PLAIN A\n{answer}");
        let result = result(&[dialogue]).await;
        assert!(!result.starts_with("OK"), "{answer}: {result}");
    }
}

/// Also after the detour, and by a watch.
#[tokio::test]
async fn wrong_password_is_asked_once_after_another_method_was_refused() {
    let [first, second] = detour();
    let refused = format!(
        "{GREETING}C: dp1 LOGIN \"alice@lab.test\" \"sesame\"
        S: dp1 NO [AUTHENTICATIONFAILED] no
        EOF"
    );
    let result = result(&[first.clone(), second.clone(), refused.clone()]).await;
    assert_eq!(result, "NO [AUTHENTICATIONFAILED] no");
    let scene = ProviderScene::begin(&[&first, &second, &by_login(CLIENT), &refused]).await;
    let scene = scene.logs("account not watched until the client logs in again").await;
    assert!(poll(Duration::from_secs(40), || scene.upstream.connections() == 4).await);
    scene.stays_away().await.end().await;
}
