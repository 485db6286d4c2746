//! The bodies of mail servers, and their effect.

use super::*;

const DOVECOT: &str = r#"{"user":"alice@lab.test","event":"messageNew","folder":"INBOX","imap-uidvalidity":7,"imap-uid":11,
    "from":"Bob <bob@elsewhere.test>","subject":"secret-subject","snippet":"hi","unseen":1}"#;

const MOX: &str = r#"{"Version":0,"From":[{"Name":"Bob","Address":"bob@elsewhere.test"}],"To":[{"Name":"","Address":"alice@lab.test"}],
    "CC":null,"Subject":"secret-subject","MessageID":"<2@elsewhere.test>","Text":"hi","HTML":"",
    "Structure":{"ContentType":"text/plain","Parts":[]},
    "Meta":{"MsgID":7,"MailFrom":"bob@elsewhere.test","RcptTo":"alice@lab.test","MailboxName":"Inbox","Automated":false}}"#;

fn stalwart(mailbox: u32, recipients: &str) -> String {
    format!(
        r#"{{"events":[{{"id":"1","createdAt":"2026-11-30T10:00:00Z","type":"message-ingest.ham","data":{{"spanId":1,
        "accountId":5,"documentId":7,"mailboxId":[{mailbox}],"messageId":"3@elsewhere.test","size":100,
        "from":"bob@elsewhere.test","to":{recipients},"total":1}}}},{{"id":"2","createdAt":"2026-11-30T10:00:00Z",
        "type":"server.startup","data":{{}}}}]}}"#
    )
}

#[tokio::test]
async fn bodies_of_all_mail_servers_wake_the_device() {
    let mut scene = HookScene::new().await;
    let announced = (200, "announced".to_owned());
    assert_eq!(scene.tell(10).await, announced);
    scene.expect_pushes(1).await;
    assert_eq!(answered(reqwest::Client::new().put(scene.url()).body(DOVECOT)).await, announced);
    scene.expect_pushes(2).await;
    assert_eq!(answered(scene.post(MOX)).await, announced);
    scene.expect_pushes(3).await;
    let body = stalwart(0, r#"["alice@lab.test", "nobody@elsewhere.test"]"#);
    assert_eq!(answered(scene.post(body)).await, announced);
    scene.expect_pushes(4).await;
    let headers = r#"{"name": "ALICE@lab.test", "uid": 12, "headers": "From: bob@elsewhere.test\r\nSubject: x\r\n"}"#;
    assert_eq!(answered(scene.post(headers)).await, announced);
    scene.expect_pushes(5).await;
    for secret in ["secret-subject", "elsewhere.test"] {
        assert!(!scene.deltapush.log().contains(secret), "{}", scene.deltapush.log());
    }
}

#[tokio::test]
async fn news_that_wakes_nobody_is_answered_with_the_reason() {
    let mut scene = HookScene::new().await;
    for (body, outcome) in [
        (own(10), "announced"),
        (own(10), "known"),
        (own(10).replace("alice", "carol"), "no-device"),
        (own(11).replace("uid_", "mailbox\": \"Archive\", \"uid_"), "other-mailbox"),
        (own(12).replace("uid_", "from\": \"alice@lab.test\", \"uid_"), "skipped"),
        (DOVECOT.replace("messageNew", "messageRead"), "ignored"),
        (stalwart(5, r#"["alice@lab.test"]"#), "ignored"),
        (stalwart(0, r#"["carol@lab.test"]"#), "no-device"),
        (r#"{"Version":0,"Event":"delivered","QueueMsgID":7}"#.to_owned(), "ignored"),
    ] {
        assert_eq!(answered(scene.post(body.clone())).await, (200, outcome.to_owned()), "{body}");
    }
    assert_eq!(scene.tell(13).await.1, "announced");
    // A push of one that was not to wake the device would have come before.
    scene.expect_pushes(2).await;
}

#[tokio::test]
async fn nonsense_is_refused_with_the_reason() {
    let scene = HookScene::new().await;
    let client = reqwest::Client::new();
    let known = own(10);
    for (request, status, words) in [
        (scene.post("not json"), 400, "no JSON object"),
        (scene.post("[1]"), 400, "no JSON object"),
        (scene.post(known.replace("name", "nam")), 400, "the key `name`"),
        (scene.post(known.replace("10", "0")), 400, "the key `name`"),
        (scene.post(MOX.replace("RcptTo", "Rcpt")), 400, "mox"),
        (scene.post(DOVECOT.replace("imap-uid\"", "uid\"")), 400, "OX driver"),
        (scene.post(stalwart(0, "[]").replace("type", "typ")), 400, "Stalwart"),
        (scene.post(known.clone()).header("origin", "https://evil.example"), 403, "browser"),
        (client.get(scene.url()), 405, "POST, PUT"),
        (client.post(scene.url().replace("/v1", "/v2")).body(known), 404, "/v1/news"),
    ] {
        let (got, text) = answered(request).await;
        assert!(got == status && text.contains(words), "{got} {text}");
        assert!(!text.contains("alice") && !text.contains("elsewhere"), "{text}");
    }
    assert_eq!(scene.tell(10).await.1, "announced");
}
