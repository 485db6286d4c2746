//! Ways to log in: what the client may use, what the server wants instead, and what can be watched after it.

use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::support::client::Client;
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, PASSWORD, Setup, TOKEN_KEY};
use super::support::scripted::Scripted;
use super::support::{poll, python};

const PATIENCE: Duration = Duration::from_secs(40);

fn encoded(message: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(message)
}

fn xoauth2(token: &str) -> String {
    encoded(format!("user=alice@lab.test\x01auth=Bearer {token}\x01\x01"))
}

fn oauthbearer(token: &str) -> String {
    encoded(format!("n,a=alice@lab.test,\x01auth=Bearer {token}\x01\x01"))
}

/// A scripted server, and a client of deltapush's that has read the greeting.
struct MechanismScene {
    deltapush: Deltapush,
    upstream: Scripted,
    client: Client,
}

impl MechanismScene {
    async fn begin(dialogues: &[&str]) -> Self {
        let upstream = Scripted::start(dialogues).await;
        let deltapush = Deltapush::start(&Options { trace: true, ..Options::plain(upstream.port) });
        let mut client = Client::plain(deltapush.plain).await;
        client
            .expect_prefix(
                "* OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID AUTH=PLAIN AUTH=LOGIN AUTH=XOAUTH2",
            )
            .await;
        Self { upstream, deltapush, client }
    }

    /// The client says the one and hears the other, line by line; then the dialogues are at their ends, and none of the
    /// secrets is in a log or a trace.
    async fn plays(dialogues: &[&str], client: &[(&str, &str)], secrets: &[&str]) {
        let mut scene = Self::begin(dialogues).await;
        scene.exchange(client).await;
        scene.end(secrets).await;
    }

    async fn exchange(&mut self, client: &[(&str, &str)]) {
        for (said, heard) in client {
            self.client.send(said).await;
            assert_eq!(self.client.line().await, *heard, "after {said:?}");
        }
    }

    async fn status_says(&self, words: &str) {
        let seen = poll(PATIENCE, || self.deltapush.status().contains(words)).await;
        assert!(seen, "no {words:?} in the status:\n{}", self.deltapush.status());
    }

    async fn end(self, secrets: &[&str]) {
        let Self { upstream, mut deltapush, client } = self;
        drop(client);
        deltapush.terminate();
        upstream.finish().await;
        assert!(deltapush.trace().contains("masked"), "no trace");
        let shown = deltapush.trace() + &deltapush.log();
        for secret in secrets {
            assert!(
                !shown.contains(secret) && !shown.contains(&encoded(secret)),
                "{secret} is shown:\n{shown}"
            );
        }
    }
}

/// The dialogue of a server with these capabilities, up to its greeting.
fn greeting(capabilities: &str) -> String {
    format!("S: * OK [CAPABILITY IMAP4rev1 {capabilities}] ready\n")
}

const IN: (&str, &str) = (
    "S: dp1 OK [CAPABILITY IMAP4rev1] in\nEOF",
    "c1 OK [CAPABILITY IMAP4rev1 METADATA XDELTAPUSH COMPRESS=DEFLATE] in",
);

#[tokio::test]
async fn password_is_given_in_the_way_that_the_server_wants() {
    let plain = encoded("\0alice@lab.test\0sesame");
    let asked = format!(
        "{}C: dp1 AUTHENTICATE LOGIN\nS: + VXNlcm5hbWU6\nC: {}\nS: + UGFzc3dvcmQ6\nC: {}\n{}",
        greeting("LOGINDISABLED AUTH=LOGIN SASL-IR"),
        encoded("alice@lab.test"),
        encoded("sesame"),
        IN.0
    );
    let alone = format!(
        "{}C: dp1 LOGIN \"alice@lab.test\" \"sesame\"\n{}",
        greeting("AUTH=SCRAM-SHA-1"),
        IN.0
    );
    let initial = format!(
        "{}C: dp1 AUTHENTICATE PLAIN {plain}\n{}",
        greeting("LOGINDISABLED AUTH=PLAIN SASL-IR"),
        IN.0
    );
    let without = format!(
        "{}C: dp1 AUTHENTICATE PLAIN\nS: +\nC: {plain}\n{}",
        greeting("LOGINDISABLED AUTH=PLAIN"),
        IN.0
    );
    for server in [asked, alone, initial, without] {
        let said = format!("c1 AUTHENTICATE PLAIN {plain}");
        MechanismScene::plays(&[&server], &[(&said, IN.1)], &["sesame", &plain]).await;
        let (user, password) = (encoded("alice@lab.test"), encoded("sesame"));
        let client = [
            ("c1 AUTHENTICATE LOGIN", "+ VXNlcm5hbWU6"),
            (&user, "+ UGFzc3dvcmQ6"),
            (&password, IN.1),
        ];
        MechanismScene::plays(&[&server], &client, &["sesame", &plain]).await;
    }
}

#[tokio::test]
async fn no_password_reaches_a_command_line_with_a_line_end_or_a_nul() {
    let server = format!(
        "{}C= dp1 LOGIN \"alice@lab.test\" {{14}}\\r\\n\nS: + go\nC= se\\r\\ndp2 LOGOUT\\r\\n\n{}",
        greeting(""),
        IN.0
    );
    let message = encoded("\0alice@lab.test\0se\r\ndp2 LOGOUT");
    MechanismScene::plays(
        &[&server],
        &[(&format!("c1 AUTHENTICATE PLAIN {message}"), IN.1)],
        &["dp2 LOGOUT"],
    )
    .await;
    MechanismScene::plays(
        &[&server],
        &[("c1 LOGIN alice@lab.test {14+}\r\nse\r\ndp2 LOGOUT", IN.1)],
        &["dp2 LOGOUT"],
    )
    .await;
    for (said, heard) in [
        (
            "c1 LOGIN alice@lab.test {4+}\r\nse\0s",
            "c1 BAD [CLIENTBUG] LOGIN needs a user name and a password.",
        ),
        (
            "c1 LOGIN {19+}\r\nalice@lab.test\r\nx y sesame",
            "c1 BAD [CLIENTBUG] LOGIN needs a user name and a password.",
        ),
        (
            &format!("c1 AUTHENTICATE PLAIN {}", encoded("\0alice\r\nx@lab.test\0sesame")),
            "c1 BAD [CLIENTBUG] The login data is not a valid PLAIN message (RFC 4616).",
        ),
    ] {
        MechanismScene::plays(&[], &[(said, heard)], &["sesame"]).await;
    }
}

#[tokio::test]
async fn tokens_are_converted_into_what_the_server_has() {
    let to_bearer = format!(
        "{}C: dp1 AUTHENTICATE OAUTHBEARER {}\n{}",
        greeting("AUTH=OAUTHBEARER SASL-IR"),
        oauthbearer("ya29.sesame"),
        IN.0
    );
    let to_xoauth2 = format!(
        "{}C: dp1 AUTHENTICATE XOAUTH2\nS: +\nC: {}\n{}",
        greeting("LOGINDISABLED AUTH=XOAUTH2"),
        xoauth2("ya29.sesame"),
        IN.0
    );
    for server in [to_bearer, to_xoauth2] {
        for said in [
            format!("c1 AUTHENTICATE XOAUTH2 {}", xoauth2("ya29.sesame")),
            format!("c1 AUTHENTICATE OAUTHBEARER {}", oauthbearer("ya29.sesame")),
        ] {
            let secrets = ["ya29", &xoauth2("ya29.sesame"), &oauthbearer("ya29.sesame")];
            MechanismScene::plays(&[&server], &[(&said, IN.1)], &secrets).await;
        }
    }
}

#[tokio::test]
async fn server_explains_to_the_client_why_it_refuses_a_token() {
    let why = encoded(r#"{"status":"invalid_token","scope":"secret-scope"}"#);
    for (server, dummy) in [("OAUTHBEARER", "AQ=="), ("XOAUTH2", "")] {
        let message =
            if server == "XOAUTH2" { xoauth2("old-token") } else { oauthbearer("old-token") };
        let start = format!(
            "{}C: dp1 AUTHENTICATE {server} {message}\nS: + {why}\n",
            greeting(&format!("AUTH={server} SASL-IR"))
        );
        let refusal = "NO [AUTHENTICATIONFAILED] Authentication failed.";
        let dialogue = format!("{start}C: {dummy}\nS: dp1 {refusal}\nEOF");
        let (said, challenge) = (
            format!("c1 AUTHENTICATE OAUTHBEARER {}", oauthbearer("old-token")),
            format!("+ {why}"),
        );
        let refused = format!("c1 {refusal}");
        let secrets = ["old-token", "secret-scope", &why];
        MechanismScene::plays(&[&dialogue], &[(&said, &challenge), ("AQ==", &refused)], &secrets)
            .await;
        // A client may break it off.
        let cut = format!("{start}EOF");
        let said = format!("c1 AUTHENTICATE XOAUTH2 {}", xoauth2("old-token"));
        let client = [
            (said.as_str(), challenge.as_str()),
            ("*", "c1 BAD The login was cancelled."),
            ("c2 NOOP", "c2 OK NOOP completed"),
        ];
        MechanismScene::plays(&[&cut], &client, &secrets).await;
    }
}

#[tokio::test]
async fn server_that_has_nothing_fitting_is_named_with_what_it_has() {
    let cases = [
        (
            "LOGINDISABLED AUTH=SCRAM-SHA-256",
            format!("c1 AUTHENTICATE PLAIN {}", encoded("\0alice@lab.test\0sesame")),
        ),
        ("AUTH=PLAIN", format!("c1 AUTHENTICATE XOAUTH2 {}", xoauth2("sesame"))),
        (
            "AUTH=PLAIN",
            format!("c1 AUTHENTICATE SCRAM-SHA-1 {}", encoded("n,,n=alice@lab.test,r=x")),
        ),
    ];
    let answers = [
        "c1 NO [CANNOT] The mail server offers no LOGIN and no AUTH=PLAIN, but AUTH=SCRAM-SHA-256.",
        "c1 NO [CANNOT] The mail server offers no login with an access token, but LOGIN AUTH=PLAIN.",
        "c1 NO [CANNOT] The mail server offers no AUTH=SCRAM-SHA-1, but LOGIN AUTH=PLAIN.",
    ];
    for ((capabilities, said), heard) in cases.iter().zip(answers) {
        let server = format!("{}EOF", greeting(capabilities));
        MechanismScene::plays(&[&server], &[(said, heard)], &["sesame"]).await;
    }
}

#[tokio::test]
async fn refusal_keeps_its_meaning_without_the_word() {
    for (answer, heard) in [
        (
            "NO [UNAVAILABLE] Temporary authentication failure.",
            "NO [UNAVAILABLE] Temporary login failure.",
        ),
        (
            "NO [ALERT] Too many simultaneous connections. (Failure)",
            "NO [ALERT] Too many simultaneous connections. (Failure)",
        ),
        (
            "BAD User is authenticated but not connected.",
            "BAD User is authenticated but not connected.",
        ),
        (
            "NO [AUTHENTICATIONFAILED] Authentication failed.",
            "NO [AUTHENTICATIONFAILED] Authentication failed.",
        ),
    ] {
        let server = format!("{}LOGIN\nS: <tag> {answer}\nEOF", greeting("AUTH=PLAIN SASL-IR"));
        MechanismScene::plays(
            &[&server],
            &[("c1 LOGIN alice@lab.test sesame", &format!("c1 {heard}"))],
            &["sesame"],
        )
        .await;
    }
}

const TOKEN: (&str, &str) = (
    "c2 SETMETADATA INBOX (/private/devicetoken \"openpgp:alice\")",
    "c2 OK SETMETADATA completed",
);

#[tokio::test]
async fn mox_is_logged_in_to_with_scram_and_cannot_be_watched_then() {
    let first = encoded("n,,n=alice@lab.test,r=client-nonce");
    let server_first = encoded("r=client-nonce-and-servers,s=c2FsdA==,i=4096");
    let last = encoded("c=biws,r=client-nonce-and-servers,p=cHJvb2Y=");
    let server_final = encoded("v=c2lnbmF0dXJl");
    let secrets = ["client-nonce", first.as_str(), &server_first, &last, &server_final];
    let capabilities =
        "LITERAL+ IDLE ENABLE AUTH=SCRAM-SHA-256-PLUS AUTH=SCRAM-SHA-256 AUTH=PLAIN SASL-IR";
    let server = format!(
        "{}
        C: dp1 AUTHENTICATE SCRAM-SHA-256 {first}
        S: + {server_first}
        C: {last}
        S: + {server_final}
        C: 
        S: dp1 OK [CAPABILITY IMAP4rev1 IDLE] ready",
        greeting(capabilities)
    );
    let mut scene = MechanismScene::begin(&[&server]).await;
    let said = format!("c1 AUTHENTICATE SCRAM-SHA-256 {first}");
    let (asked, proven) = (format!("+ {server_first}"), format!("+ {server_final}"));
    let done = "c1 OK [CAPABILITY IMAP4rev1 IDLE METADATA XDELTAPUSH COMPRESS=DEFLATE] ready";
    scene.exchange(&[(&said, &asked), (&last, &proven), ("", done), TOKEN]).await;
    scene.status_says("cannot be watched: its client logs in with SCRAM-SHA-256").await;
    scene.status_says("1 of them cannot be watched").await;
    scene.deltapush.restart();
    scene.status_says("cannot be watched: its client logs in with SCRAM-SHA-256").await;
    scene.end(&secrets).await;
}

#[tokio::test]
async fn scram_exchange_can_fail_and_be_broken_off() {
    let first = encoded("n,,n=alice@lab.test,r=x");
    let start = format!(
        "{}C: dp1 AUTHENTICATE SCRAM-SHA-1\nS: +\nC: {first}\nS: + {}\n",
        greeting("AUTH=SCRAM-SHA-1"),
        encoded("r=xy,s=eA==,i=1")
    );
    let challenge = format!("+ {}", encoded("r=xy,s=eA==,i=1"));
    let said = [("c1 AUTHENTICATE SCRAM-SHA-1", "+ "), (first.as_str(), challenge.as_str())];
    for (ends, answer, heard) in [
        (
            format!("{start}C: eA==\nS: dp1 NO [AUTHENTICATIONFAILED] no\nEOF"),
            "eA==",
            "c1 NO [AUTHENTICATIONFAILED] no",
        ),
        (format!("{start}EOF"), "*", "c1 BAD The login was cancelled."),
        (format!("{start}EOF"), "%%", "c1 BAD [CLIENTBUG] The login data is not valid base64."),
        (
            format!("{start}C: eA==\nS: + %%\nEOF"),
            "eA==",
            "c1 NO [UNAVAILABLE] The mail server gave an answer that cannot be used. Ask the operator of this server.",
        ),
    ] {
        let client: Vec<_> = said
            .iter()
            .copied()
            .chain([(answer, heard), ("c2 NOOP", "c2 OK NOOP completed")])
            .collect();
        MechanismScene::plays(&[&ends], &client, &[&first, &encoded("r=xy,s=eA==,i=1")]).await;
    }
}

/// Outlook's login with a token, which it has nothing else for.
fn outlook(token: &str) -> String {
    format!("{}C: dp1 AUTHENTICATE XOAUTH2 {}\n", greeting("AUTH=XOAUTH2 SASL-IR"), xoauth2(token))
}

const OUTLOOK_IN: &str = "S: dp1 OK [CAPABILITY IMAP4rev1 IDLE] AUTHENTICATE completed.\n";

/// A watch of an empty mailbox, up to its IDLE.
pub(crate) const WATCHING: &str = r#"
    C: w1 EXAMINE "INBOX"
    S: * 0 EXISTS
    S: * OK [UIDVALIDITY 7] ok
    S: * OK [UIDNEXT 10] ok
    S: w1 OK [READ-ONLY] done
    C: w2 IDLE
    S: + idling
    REACHED
"#;

#[tokio::test]
async fn outlooks_token_is_watched_with_until_it_expires_and_again_with_the_next() {
    let client = format!("{}{OUTLOOK_IN}EOF", outlook("token-one"));
    let watch = format!(
        "{}{OUTLOOK_IN}{WATCHING}GATE\nS: * BYE Session invalidated - AccessTokenExpired\nCLOSE",
        outlook("token-one")
    );
    let expired = format!(
        "{}S: + {}\nC: \nS: dp1 NO AUTHENTICATE failed.\nEOF",
        outlook("token-one"),
        encoded(r#"{"status":"401"}"#)
    );
    let renewed = format!("{}{OUTLOOK_IN}EOF", outlook("token-two"));
    let again = format!("{}{OUTLOOK_IN}{WATCHING}EOF", outlook("token-two"));
    let mut scene = MechanismScene::begin(&[&client, &watch, &expired, &renewed, &again]).await;
    let logged_in = "c1 OK [CAPABILITY IMAP4rev1 IDLE METADATA XDELTAPUSH COMPRESS=DEFLATE] AUTHENTICATE completed.";
    scene
        .exchange(&[
            (&format!("c1 AUTHENTICATE XOAUTH2 {}", xoauth2("token-one")), logged_in),
            TOKEN,
        ])
        .await;
    scene.upstream.reached().await;
    scene.upstream.open_gate();
    scene.status_says("its access token has expired or was withdrawn").await;
    // Not tried again, however long it waits: that would look like guessing.
    let report = scene.deltapush.account("alice@lab.test").unwrap();
    assert_eq!(report["account"]["watch"]["state"], "ended", "{report:#}");
    assert_eq!(scene.upstream.connections(), 3);

    let mut client = Client::plain(scene.deltapush.plain).await;
    client.expect_prefix("* OK").await;
    client.send(&format!("c1 AUTHENTICATE XOAUTH2 {}", xoauth2("token-two"))).await;
    assert_eq!(client.line().await, logged_in);
    scene.upstream.reached().await;
    scene.status_says("watch    watching").await;
    drop(client);
    scene.end(&["token-one", "token-two", &xoauth2("token-one"), &xoauth2("token-two")]).await;
}

/// Runs `sasl_client.py`.
pub(crate) async fn sasl(
    deltapush: &Deltapush,
    user: &str,
    mechanism: &str,
    way: &str,
    secret: &str,
) -> Value {
    let mut script: Command = python::script("sasl_client.py");
    script
        .arg(deltapush.imaps.to_string())
        .arg(deltapush.certificate())
        .args([user, mechanism, way]);
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tokio::process::Command::from(script).kill_on_drop(true).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{secret}\n").as_bytes()).await.unwrap();
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .expect("the client takes too long")
        .unwrap();
    assert!(output.status.success(), "{mechanism}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn dovecot_is_logged_in_to_by_every_mechanism() {
    let dovecot = dovecot::shared(Setup::Mechanisms);
    // Each mechanism fails twice on purpose.
    let more = "limits:\n  failed_logins:\n    delay: 10ms\n    longest_delay: 50ms\n    per_address: 1000\n    per_upstream: 1000\n";
    let deltapush = Deltapush::start(&Options {
        trace: true,
        more: more.to_owned(),
        ..Options::dovecot(dovecot)
    });
    for (mechanism, secret, is_watched) in [
        ("PLAIN", PASSWORD, true),
        ("LOGIN", PASSWORD, true),
        ("XOAUTH2", TOKEN_KEY, true),
        ("OAUTHBEARER", TOKEN_KEY, true),
        ("SCRAM-SHA-1", PASSWORD, false),
        ("SCRAM-SHA-256", PASSWORD, false),
    ] {
        let user = dovecot.user(&format!("by-{}", mechanism.to_lowercase()));
        for way in ["initial", "challenge"] {
            let told = sasl(&deltapush, &user, mechanism, way, secret).await;
            assert_eq!(
                (&told["said"], &told["select"], &told["token"]),
                (&"OK".into(), &"OK".into(), &"OK".into()),
                "{mechanism} {way}: {told}"
            );
        }
        let cancelled = sasl(&deltapush, &user, mechanism, "cancel", secret).await;
        assert_eq!(cancelled["said"], "BAD", "{mechanism}: {cancelled}");
        let refused = sasl(&deltapush, &user, mechanism, "challenge", "wrong").await;
        assert_eq!(refused["said"], "NO", "{mechanism}: {refused}");
        let is_token = secret == TOKEN_KEY;
        assert_eq!(
            refused["explained"].as_array().unwrap().len(),
            usize::from(is_token),
            "{mechanism}: {refused}"
        );
        if is_watched {
            dovecot.wait_for_watch(&user, 1).await;
        } else {
            let words = format!(
                "its client logs in with {mechanism}, which gives deltapush no credentials"
            );
            assert!(
                poll(PATIENCE, || deltapush.status().contains(&words)).await,
                "{}",
                deltapush.status()
            );
            assert!(dovecot.watches(&user).is_empty());
        }
    }
    let shown = deltapush.trace() + &deltapush.log();
    for secret in [PASSWORD, &encoded(PASSWORD), "eyJhbGciOi", "ZXlKaGJHY2lPa"] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}
