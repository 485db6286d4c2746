//! A watch whose connection ends, however it ends: the server's last words are in the log and in the status.

use std::fmt::Display;
use std::time::Duration;

use super::providers::{CLIENT, EXAMINE, IDLE, PLAIN, ProviderScene};
use super::support::poll;

/// A watch's session ends like this, and log and status give that reason.
async fn reason(session: impl Display, reason: impl AsRef<str>) {
    let reason = reason.as_ref();
    let scene =
        ProviderScene::begin(&[&format!("{PLAIN}{CLIENT}"), &format!("{PLAIN}{session}"), "HANG"])
            .await;
    let scene = scene.logs(reason).await;
    let shown = poll(Duration::from_secs(40), || scene.deltapush.status().contains(reason)).await;
    assert!(shown, "no {reason:?} in the status:\n{}", scene.deltapush.status());
    assert!(!scene.deltapush.log().contains("until the client logs in"), "it goes on");
}

const BROKE: &str = "then: the connection to the mail server broke";
const HUNG_UP: &str = "then: the mail server closed the session: without a reason";

#[tokio::test]
async fn words_before_a_reset_are_the_reason() {
    let waits = format!("{EXAMINE}{IDLE}");
    let opens = "C: w1 EXAMINE \"INBOX\"\n";
    tokio::join!(
        reason(
            format!("{waits}S: * BAD [ALERT] not you\nRESET"),
            format!("said \"not you\"; {BROKE}")
        ),
        reason(
            format!("{waits}S: * NO the disk is gone\nRESET"),
            format!("said \"the disk is gone\"; {BROKE}")
        ),
    );
    tokio::join!(
        reason(
            format!("{opens}S: * OK [ALERT] Read our page\nRESET"),
            format!("said \"Read our page\"; {BROKE}")
        ),
        reason(
            format!("{waits}S: * BYE [ALERT] Enable IMAP access\nRESET"),
            "said \"Enable IMAP access\"; then: it closed the session"
        ),
    );
}

#[tokio::test]
async fn words_before_an_end_without_a_word_are_the_reason() {
    let waits = format!("{EXAMINE}{IDLE}");
    tokio::join!(
        reason(
            format!("{waits}S: * BAD [ALERT] not you\nCLOSE"),
            format!("said \"not you\"; {HUNG_UP}")
        ),
        // In the session's first command the refusal is its answer, and what follows is said too.
        reason(
            "C: w1 EXAMINE \"INBOX\"\nS= w1 NO not now\\r\\n* BYE [ALERT] Enable IMAP access\\r\\n\nRESET",
            "the mailbox cannot be opened: not now; the mail server also said: Enable IMAP access"
        ),
    );
}

/// The login of a watch is no other: the goodbye has arrived when the login is sent.
#[tokio::test]
async fn words_before_a_reset_in_the_login_are_the_reason() {
    let client = format!("{PLAIN}{CLIENT}");
    let login = r"
        S: * OK hi
        C: dp1 CAPABILITY
        S= * CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\ndp1 OK done\r\n* BYE [ALERT] Closed for repairs\r\n
        RESET
    ";
    let scene = ProviderScene::begin(&[&client, login, "HANG"]).await;
    let scene = scene
        .logs("said \"Closed for repairs\"; then: the mail server closed the connection")
        .await;
    let shown =
        poll(Duration::from_secs(40), || scene.deltapush.status().contains("Closed for repairs"))
            .await;
    assert!(shown, "{}", scene.deltapush.status());
}
