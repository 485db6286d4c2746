//! The Lua script alone: its requests, and whatever a server answers. The hook is a scripted one.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::support::dovecot::{Dovecot, Setup};
use super::super::support::lmtp;
use super::super::support::news::lua_script;
use super::super::support::notify::{Answer, NotifyServer};
use super::super::support::poll;
use super::super::support::recipe::replaced;
use super::super::support::scene::{PATIENCE, QUIET};

/// The script waits for three seconds at the most.
const WITHIN: Duration = Duration::from_secs(10);

fn dovecot(url: &str, token: Option<&str>) -> Dovecot {
    let settings = |dir: &Path| {
        let lua = dir.join("deltapush.lua");
        std::fs::write(&lua, lua_script()).unwrap();
        let conf = include_str!("../../../contrib/dovecot/99-deltapush.conf");
        let conf = replaced(
            conf,
            &[
                ("/usr/share/deltapush/dovecot/deltapush.lua", &lua.display().to_string()),
                (
                    "#deltapush_url = http://127.0.0.1:1981/v1/news",
                    &format!("deltapush_url = {url}"),
                ),
            ],
        );
        let Some(token) = token else { return conf };
        let file = dir.join("token");
        std::fs::write(&file, format!("{token}\n")).unwrap();
        let line = format!("deltapush_token = <{}", file.display());
        replaced(&conf, &[("#deltapush_token = </etc/dovecot/deltapush.token", &line)])
    };
    Dovecot::configured(Setup::Vanilla, &["localhost", "127.0.0.1"], settings)
}

/// A message with these bytes as its From field.
fn from(field: &[u8]) -> Vec<u8> {
    [b"From: ", field, b"\r\nTo: x@y\r\nSubject: news\r\n\r\nnews\r\n"].concat()
}

async fn deliver(dovecot: &Dovecot, user: &str, text: &[u8]) -> Duration {
    let began = Instant::now();
    lmtp::try_deliver_bytes(dovecot.lmtp, "bob@elsewhere.test", user, text)
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", dovecot.log()));
    began.elapsed()
}

#[tokio::test]
async fn request_is_json_whatever_the_message_has() {
    let mut hook = NotifyServer::start().await;
    let dovecot = dovecot(&hook.url.replace("/notify", "/v1/news"), Some("sesame"));
    let user = dovecot.user("alice");
    let cases: [(&[u8], Option<&str>); 7] = [
        (b"bob@elsewhere.test", Some("bob@elsewhere.test")),
        (b"\"Bob \\\"the\\\\ \x01\" <bob@elsewhere.test>", Some("bob@elsewhere.test")),
        (b"\"a \\\" b\\\\\"@elsewhere.test", Some("a \" b\\@elsewhere.test")),
        ("Jörg <jörg@elsewhere.test>".as_bytes(), Some("jörg@elsewhere.test")),
        (b"<j\xf6rg@elsewhere.test>", Some("j?rg@elsewhere.test")),
        (b"=?utf-8?q?=22?= <bob@elsewhere.test>", Some("bob@elsewhere.test")),
        (b"", None),
    ];
    for (number, (field, _)) in (1..).zip(cases) {
        deliver(&dovecot, &user, &from(field)).await;
        hook.wait_for(number, PATIENCE).await;
    }
    for (number, (posted, (field, address))) in (1..).zip(hook.posted().iter().zip(cases)) {
        let body = posted.token.strip_prefix("not a notification: POST /v1/news ");
        let body: Value = serde_json::from_str(body.unwrap_or_else(|| panic!("{posted:?}")))
            .unwrap_or_else(|error| panic!("{error}: {posted:?}"));
        let field = field.escape_ascii();
        assert_eq!(body["from"].as_str(), address, "{field}");
        assert_eq!(
            (&body["name"], &body["mailbox"], &body["uid"]),
            (&user.as_str().into(), &"INBOX".into(), &Value::from(number)),
            "{field}"
        );
        assert!(body["uid_validity"].as_u64() > Some(1), "{body}");
        assert_eq!(posted.headers["authorization"], "Bearer sesame");
        assert_eq!(posted.headers["content-type"], "application/json");
    }
    let secret = dovecot.log().contains("sesame");
    assert!(!secret && !dovecot.log().contains("Warning"), "{}", dovecot.log());
}

#[tokio::test]
async fn delivery_goes_on_whatever_is_answered() {
    let mut hook = NotifyServer::start().await;
    let dovecot = dovecot(&hook.url.replace("/notify", "/v1/news"), None);
    let user = dovecot.user("alice");
    let refusals = [400, 401, 403, 404, 413, 429, 500, 503].map(Answer::Status);
    let strange = [Answer::Redirect(hook.url.clone()), Answer::Hang];
    let answers: Vec<Answer> = refusals.into_iter().chain(strange).collect();
    hook.answer(answers.clone());
    for (number, answer) in (1..).zip(&answers) {
        let took = deliver(&dovecot, &user, &from(b"bob@elsewhere.test")).await;
        assert!(took < WITHIN, "{answer:?}: {took:?}");
        hook.wait_for(number, PATIENCE).await;
        expect_logged(&dovecot, "deltapush was not told of a message", number).await;
    }
    expect_logged(&dovecot, "saved mail to INBOX", answers.len()).await;
    // None of them is tried again.
    hook.stays_at(answers.len(), QUIET).await;
}

/// Dovecot writes its log a little later.
async fn expect_logged(dovecot: &Dovecot, words: &str, times: usize) {
    let count = || dovecot.log().matches(words).count();
    poll(PATIENCE, || count() >= times).await;
    assert_eq!(count(), times, "{words:?}: {}", dovecot.log());
}
