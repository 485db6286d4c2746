//! deltapush in front of a real Dovecot: logging in, relaying, tokens, watching, pushes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::support::client::{Client, Reply, quoted, sasl_plain};
use super::support::dovecot::{PASSWORD, Setup, message};
use super::support::notify::Answer;
use super::support::poll;
use super::support::scene::{DovecotScene, PATIENCE};

#[tokio::test]
async fn every_listener_and_every_form_of_login_leads_to_the_account() {
    let scene = DovecotScene::new(Setup::Vanilla, "login-forms").await;
    let (user, pem) = (&scene.user, scene.deltapush.certificate());
    let sync = |text: &str| (format!("{{{}}}", text.len()), text.to_owned());

    let mut client = scene.client().await;
    client.command("c2 NOOP").await;

    let mut client = Client::starttls(scene.deltapush.starttls, &pem).await;
    let reply = client.command(&format!("c1 login {user} {}", quoted(PASSWORD))).await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");

    let mut client = Client::plain(scene.deltapush.plain).await;
    client.expect_prefix("* OK").await;
    let (size, password) = sync(PASSWORD);
    client.send(&format!("c1 LOGIN {user} {size}")).await;
    client.expect_prefix("+").await;
    client.send(&password).await;
    assert!(client.until_tagged("c1").await.result.starts_with("OK"), "{}", client.dialogue());

    let mut client = scene.connect().await;
    client.expect_prefix("* OK").await;
    let reply =
        format!("c1 LOGIN {{{}+}}\r\n{user} {{{}+}}\r\n{PASSWORD}", user.len(), PASSWORD.len());
    client.send(&reply).await;
    assert!(client.until_tagged("c1").await.result.starts_with("OK"), "{}", client.dialogue());

    let mut client = scene.connect().await;
    client.expect_prefix("* OK").await;
    let reply =
        client.command(&format!("c1 AUTHENTICATE PLAIN {}", sasl_plain(user, PASSWORD))).await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");

    let mut client = scene.connect().await;
    client.expect_prefix("* OK").await;
    client.send("c1 AUTHENTICATE PLAIN").await;
    client.expect_prefix("+").await;
    client.send("*").await;
    client.expect_prefix("c1 BAD").await;
    client.send("c2 authenticate plain").await;
    client.expect_prefix("+").await;
    client.send(&sasl_plain(user, PASSWORD)).await;
    assert!(client.until_tagged("c2").await.result.starts_with("OK"), "{}", client.dialogue());

    scene.dovecot.expect_logins(user, 6).await;
}

#[tokio::test]
async fn refused_login_brings_the_servers_own_words_and_may_be_repeated() {
    let scene = DovecotScene::new(Setup::Vanilla, "wrong-password").await;
    let mut answers = Vec::new();
    for mut client in [Client::plain(scene.dovecot.imap).await, scene.connect().await] {
        client.expect_prefix("* OK").await;
        answers.push(client.command(&format!("c1 LOGIN {} wrong", scene.user)).await.result);
        let reply = client.command(&format!("c2 LOGIN {} {}", scene.user, quoted(PASSWORD))).await;
        assert!(reply.result.starts_with("OK"), "{reply:?}\n{}", client.dialogue());
    }
    assert!(answers[0].starts_with("NO [AUTHENTICATIONFAILED]"), "{answers:?}");
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn mailbox_looks_the_same_with_and_without_the_proxy() {
    let scene = DovecotScene::new(Setup::Vanilla, "same").await;
    let body = format!("Subject: big\r\n\r\n{}", "line {7}\r\n".repeat(20_000));
    let mut client = scene.client().await;
    client.send(&format!("c2 APPEND INBOX (\\Flagged) {{{}}}", body.len())).await;
    client.expect_prefix("+").await;
    client.send(&body).await;
    assert!(client.until_tagged("c2").await.result.starts_with("OK"), "{}", client.dialogue());
    client.send(&format!("c3 APPEND INBOX {{{}+}}\r\n{body}\r\nc4 SELECT INBOX", body.len())).await;
    assert!(client.until_tagged("c3").await.result.starts_with("OK"), "{}", client.dialogue());
    assert!(client.until_tagged("c4").await.result.starts_with("OK"), "{}", client.dialogue());

    let mut direct = scene.direct().await;
    direct.command("c4 SELECT INBOX").await;
    for command in [
        "c5 FETCH 1:2 (UID FLAGS RFC822.SIZE BODY.PEEK[])",
        "c6 UID SEARCH ALL",
        "c7 LIST \"\" *",
        "c8 FETCH 9 ()",
    ] {
        let (through, directly) = (client.command(command).await, direct.command(command).await);
        let (left, right) = (comparable(&through), comparable(&directly));
        let same =
            left.bytes().zip(right.bytes()).take_while(|(left, right)| left == right).count();
        assert!(left == right, "{command}: through the proxy it differs after {same} bytes");
        assert_eq!(command.starts_with("c5"), through.text().len() > 2 * body.len(), "{command}");
    }

    client.send("c9 IDLE").await;
    client.expect_prefix("+").await;
    scene.deliver_news().await;
    client.expect("* 3 EXISTS").await;
    client.send("DONE").await;
    assert!(client.until_tagged("c9").await.result.starts_with("OK"), "{}", client.dialogue());
}

/// A reply without what differs between two sessions: `\Recent`, and how long the command took.
fn comparable(reply: &Reply) -> String {
    let text = reply.text().replace(" \\Recent", "").replace("\\Recent", "");
    text.rsplit_once(" (0.").map_or(text.clone(), |(before, _)| before.to_owned())
}

#[tokio::test]
async fn capabilities_that_make_a_core_register_are_advertised_after_the_login() {
    let scene = DovecotScene::new(Setup::Vanilla, "advertised").await;
    let mut client = scene.connect().await;
    let at_login = client.log_in(&scene.user).await.text();
    let when_asked = client.command("c2 CAPABILITY").await.text();
    for list in [&at_login, &when_asked] {
        let words: Vec<&str> = list.split([' ', ']', '\n']).collect();
        for (word, wanted) in [
            ("METADATA", true),
            ("XDELTAPUSH", true),
            ("IDLE", true),
            ("UIDPLUS", true),
            ("STARTTLS", false),
            ("COMPRESS=DEFLATE", true),
        ] {
            assert_eq!(words.contains(&word), wanted, "{word} in {list}");
        }
    }
}

#[tokio::test]
async fn server_without_metadata_gets_its_metadata_from_deltapush() {
    let scene = DovecotScene::with(Setup::Vanilla, "metadata", |options| {
        options.more = "metadata:\n  /shared/comment: \"push by \\\"deltapush\\\"\"\n".to_owned();
    })
    .await;
    let mut client = scene.client().await;
    let asked = "/shared/comment /shared/admin /shared/vendor/deltachat/maxsmtprecipients";
    let reply = client.command(&format!("c2 GETMETADATA \"\" ({asked})")).await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    let text = reply.text();
    for wanted in ["/shared/admin NIL", "/shared/vendor/deltachat/maxsmtprecipients ", "50"] {
        assert!(text.contains(wanted), "{wanted:?} is not in {text}");
    }
    let quoted = text.contains(r#""push by \"deltapush\" | push is ready and "#);
    assert!(quoted || text.contains("}\r\npush by \"deltapush\" | push is ready and "), "{text}");

    for wrong in
        ["c3 GETMETADATA", "c4 SETMETADATA INBOX", "c5 SETMETADATA INBOX (/private/devicetoken)"]
    {
        let reply = client.command(wrong).await;
        assert!(reply.result.starts_with("BAD"), "{wrong}: {reply:?}");
    }
    assert!(client.command("c6 NOOP").await.result.starts_with("OK"));
    let said = scene.dovecot.sessions(&scene.user).concat();
    assert!(!said.contains("METADATA"), "Dovecot has no METADATA, and was asked: {said}");
}

#[tokio::test]
async fn token_in_any_form_is_pushed_when_mail_arrives() {
    let forms: [fn(&str) -> String; 4] = [
        // Core 2.60 and core 2.23, then what RFC 5464 allows beside.
        |token| format!("\"INBOX\" (/private/devicetoken \"{token}\")"),
        |token| format!("\"INBOX\" (/private/devicetoken {{{}+}}\r\n{token})", token.len()),
        |token| format!("INBOX (/private/devicetoken {{{}}}\r\n{token})", token.len()),
        |token| format!("{{5+}}\r\ninbox (/PRIVATE/DeviceToken \"{token}\")"),
    ];
    for (number, form) in forms.into_iter().enumerate() {
        let mut scene = DovecotScene::new(Setup::Vanilla, &format!("form-{number}")).await;
        let token = format!("openpgp:form/{number}={}=", "x".repeat(900));
        let command = form(&token);
        let mut client = scene.client().await;
        client.send_raw(b"c2 SETMETADATA ").await;
        match command.split_once("}\r\n").filter(|(before, _)| !before.ends_with('+')) {
            None => client.send(&command).await,
            Some((announced, literal)) => {
                client.send(&format!("{announced}}}")).await;
                client.expect_prefix("+").await;
                client.send(literal).await;
            }
        }
        assert!(client.until_tagged("c2").await.result.starts_with("OK"), "{}", client.dialogue());
        drop(client);
        scene.dovecot.wait_for_watch(&scene.user, 1).await;
        scene.deliver_news().await;
        scene.expect_pushes(&[&token]).await;
    }
}

#[tokio::test]
async fn all_tokens_of_an_account_are_pushed_and_a_removed_one_no_more() {
    let mut scene = DovecotScene::new(Setup::Vanilla, "tokens").await;
    scene.register("openpgp:phone").await;
    scene.register("openpgp:tablet").await;
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:phone", "openpgp:tablet"]).await;

    let mut client = scene.client().await;
    let known = client.command("c2 GETMETADATA INBOX /private/devicetoken").await.text();
    assert!(known.contains("openpgp:phone") && known.contains("openpgp:tablet"), "{known}");
    let reply = client.command("c3 SETMETADATA INBOX (/private/devicetoken NIL)").await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    let known = client.command("c4 GETMETADATA INBOX /private/devicetoken").await.text();
    assert!(known.contains("NIL") && !known.contains("openpgp:"), "{known}");
    // Neither an account nor a watch is left.
    assert!(poll(PATIENCE, || scene.deltapush.account(&scene.user).is_none()).await);
    assert!(poll(PATIENCE, || scene.dovecot.who(&scene.user) == 1).await, "the client's own");
    scene.deliver_news().await;
    scene.register("openpgp:laptop").await;
    scene.dovecot.wait_for_watch(&scene.user, 2).await;
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:phone", "openpgp:tablet", "openpgp:laptop"]).await;
}

#[tokio::test]
async fn other_entries_beside_a_token_reach_a_server_that_keeps_them() {
    let mut scene = DovecotScene::new(Setup::Metadata, "entries").await;
    let mut client = scene.client().await;
    let both =
        "c2 SETMETADATA INBOX (/private/comment \"mine\" /private/devicetoken \"openpgp:entries\")";
    let reply = client.command(both).await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    drop(client);
    let mut direct = scene.direct().await;
    let kept =
        direct.command("c2 GETMETADATA INBOX (/private/comment /private/devicetoken)").await.text();
    assert!(kept.contains("mine") && !kept.contains("openpgp:"), "{kept}");
    scene.dovecot.wait_for_watch(&scene.user, 1).await;
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:entries"]).await;
}

#[tokio::test]
async fn mail_that_nobody_waits_for_wakes_no_phone() {
    let mut scene = DovecotScene::new(Setup::Vanilla, "verdict").await;
    scene.register("openpgp:verdict").await;
    let user = scene.user.clone();
    let deliver = async |from: &str, headers: &str| {
        scene.dovecot.deliver(from, &user, &message(from, &user, "a subject", headers)).await;
    };
    deliver(&user, "").await;
    deliver("bob@elsewhere.test", "Auto-Submitted: auto-replied\r\n").await;
    deliver("bob@elsewhere.test", "auto-submitted:\r\n auto-generated; owner=bob\r\n").await;
    let seen = message("bob@elsewhere.test", &user, "seen already", "");
    let mut direct = scene.direct().await;
    direct.send(&format!("c2 APPEND INBOX (\\Seen) {{{}+}}\r\n{seen}", seen.len())).await;
    assert!(direct.until_tagged("c2").await.result.starts_with("OK"), "{}", direct.dialogue());
    scene.expect_decided("no push: ", 4, 0).await;

    scene
        .dovecot
        .deliver(
            "bob@elsewhere.test",
            &user,
            &message("bob@elsewhere.test", &user, "wake up", "Auto-Submitted: no\r\n"),
        )
        .await;
    scene.expect_pushes(&["openpgp:verdict"]).await;
}

#[tokio::test]
async fn first_watch_of_a_mailbox_pushes_nothing_for_old_mail() {
    let mut scene = DovecotScene::new(Setup::Vanilla, "old-mail").await;
    for _ in 0..3 {
        scene.deliver_news().await;
    }
    scene.register("openpgp:old-mail").await;
    scene.expect_decided("the mailbox is watched from now on", 1, 0).await;
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:old-mail"]).await;
}

#[tokio::test]
async fn watching_leaves_no_trace_in_the_mailbox() {
    let mut scene = DovecotScene::new(Setup::Vanilla, "untouched").await;
    scene.register("openpgp:untouched").await;
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:untouched"]).await;
    // A session that had used SELECT, or fetched a body without PEEK, would show here.
    let mut direct = scene.direct().await;
    let selected = direct.command("c2 SELECT INBOX").await.text();
    assert!(selected.contains("* 1 RECENT"), "{selected}");
    let flags = direct.command("c3 FETCH 1 FLAGS").await.text();
    assert!(flags.contains("(FLAGS (\\Recent))"), "{flags}");
    let watches = scene.dovecot.watches(&scene.user);
    assert_eq!(watches.len(), 1, "{watches:#?}");
    assert!(!watches[0].contains("SELECT ") && !watches[0].contains(" BODY["), "{}", watches[0]);
}

#[tokio::test]
async fn restart_goes_on_where_it_stopped() {
    let mut scene = DovecotScene::new(Setup::Vanilla, "restart").await;
    scene.register("openpgp:restart").await;
    let status = scene.deltapush.terminate();
    assert!(status.success(), "after SIGTERM: {status}");
    scene.deliver_news().await;
    scene.deltapush.start_again();
    scene.expect_pushes(&["openpgp:restart"]).await;
    scene.dovecot.wait_for_watch(&scene.user, 2).await;

    // Pushed messages are not pushed again.
    scene.deltapush.restart();
    scene.dovecot.wait_for_watch(&scene.user, 3).await;
    scene.expect_decided("the mailbox is watched from now on", 1, 1).await;
    scene.deliver_news().await;
    scene.notify.wait_for(2, PATIENCE).await;
}

#[tokio::test]
async fn crash_loses_neither_tokens_nor_mail() {
    let mut scene = DovecotScene::new(Setup::Vanilla, "crash").await;
    scene.register("openpgp:crash").await;
    scene.deltapush.kill();
    scene.deliver_news().await;
    scene.deltapush.start_again();
    scene.expect_pushes(&["openpgp:crash"]).await;
}

#[tokio::test]
async fn token_that_the_notification_server_calls_gone_is_kept() {
    let mut scene = DovecotScene::new(Setup::Vanilla, "gone").await;
    scene.notify.answer([Answer::Status(410)]);
    scene.register("openpgp:gone").await;
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:gone"]).await;
    // It is outstanding still, and tried again in a minute.
    let answered = || scene.deltapush.log().contains("push failed; next attempt in ");
    assert!(poll(PATIENCE, answered).await, "{}", scene.deltapush.log());
    assert_eq!(scene.notify.posted().len(), 1);
    let known =
        scene.client().await.command("c2 GETMETADATA INBOX /private/devicetoken").await.text();
    assert!(known.contains("openpgp:gone"), "{known}");
    scene.deltapush.restart();
    scene.expect_pushes(&["openpgp:gone", "openpgp:gone"]).await;
}

#[tokio::test]
async fn failed_notification_is_sent_again_after_eight_seconds() {
    let mut scene = DovecotScene::new(Setup::Vanilla, "retry").await;
    scene.notify.answer([Answer::Status(500)]);
    scene.register("openpgp:retry").await;
    scene.deliver_news().await;
    let posted = scene.notify.wait_for(2, PATIENCE + Duration::from_secs(8)).await;
    let pause = posted[1].at.duration_since(posted[0].at);
    // Jitter may stretch or shorten it a little.
    assert!(pause > Duration::from_secs(6), "sent again after {pause:?}");
    assert_eq!(posted[0].token, posted[1].token);
    scene.expect_decided("the answer to the POST", 2, 2).await;
}

#[tokio::test]
async fn notification_that_hangs_holds_up_no_other() {
    let mut scene = DovecotScene::new(Setup::Vanilla, "hang").await;
    scene.register("openpgp:one").await;
    scene.register("openpgp:two").await;
    scene.notify.answer([Answer::Hang]);
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:one", "openpgp:two"]).await;
}

#[tokio::test]
async fn burst_of_mail_is_one_push_now_and_one_at_the_end_of_the_pause() {
    let mut scene =
        DovecotScene::with(Setup::Vanilla, "burst", |options| options.coalesce = "4s").await;
    scene.register("openpgp:burst").await;
    scene.deliver_news().await;
    scene.notify.wait_for(1, PATIENCE).await;
    for _ in 0..3 {
        scene.deliver_news().await;
    }
    let posted = scene.notify.wait_for(2, PATIENCE).await;
    let pause = posted[1].at.duration_since(posted[0].at);
    // The clocks start at two ends of a request.
    assert!(pause > Duration::from_millis(3500), "{pause:?}");
    scene.expect_decided("the answer to the POST", 2, 2).await;
}

#[tokio::test]
async fn server_that_pushes_by_itself_gets_the_token() {
    let scene = DovecotScene::new(Setup::Chatmail, "native").await;
    let mut client = scene.client().await;
    let reply = client
        .command("c2 SETMETADATA \"INBOX\" (/private/devicetoken {14+}\r\nopenpgp:native)")
        .await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    let known =
        scene.direct().await.command("c2 GETMETADATA INBOX /private/devicetoken").await.text();
    assert!(known.contains("openpgp:native"), "{known}");
    drop(client);
    scene.deliver_news().await;
    assert!(scene.deltapush.account(&scene.user).is_none(), "it has no account to wake");
    // The client's and the test's own: deltapush does not watch here.
    scene.dovecot.expect_logins(&scene.user, 2).await;
    assert!(scene.notify.posted().is_empty());
}

#[tokio::test]
async fn takeover_keeps_tokens_from_a_server_that_pushes_by_itself() {
    let mut scene =
        DovecotScene::with(Setup::Chatmail, "takeover", |options| options.native = "takeover")
            .await;
    scene.register("openpgp:takeover").await;
    let known =
        scene.direct().await.command("c2 GETMETADATA INBOX /private/devicetoken").await.text();
    assert!(!known.contains("openpgp:"), "{known}");
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:takeover"]).await;
}

#[tokio::test]
async fn secrets_stay_out_of_log_trace_and_state() {
    let mut scene =
        DovecotScene::with(Setup::Vanilla, "secrets", |options| options.trace = true).await;
    let user = scene.user.clone();
    for login in [
        format!("c1 LOGIN {user} {}", quoted(PASSWORD)),
        format!("c1 LOGIN {user} {{{}+}}\r\n{PASSWORD}", PASSWORD.len()),
        format!("c1 AUTHENTICATE PLAIN {}", sasl_plain(&user, PASSWORD)),
        format!("c1 AUTHENTICATE PLAIN\r\n{}", sasl_plain(&user, PASSWORD)),
    ] {
        let mut client = scene.connect().await;
        client.expect_prefix("* OK").await;
        client.send(&login).await;
        assert!(client.until_tagged("c1").await.result.starts_with("OK"), "{}", client.dialogue());
        let reply = client
            .command("c2 SETMETADATA INBOX (/private/devicetoken {15+}\r\nopenpgp:secrets)")
            .await;
        assert!(reply.result.starts_with("OK"), "{reply:?}");
        client.command("c3 GETMETADATA INBOX /private/devicetoken").await;
    }
    scene.dovecot.wait_for_watch(&user, 1).await;
    scene.deliver_news().await;
    scene.expect_pushes(&["openpgp:secrets"]).await;
    scene.deltapush.terminate();

    let (log, trace) = (scene.deltapush.log(), scene.deltapush.trace());
    assert!(
        trace.contains("SETMETADATA") && trace.contains("EXAMINE"),
        "not much of a trace:\n{trace}"
    );
    let sasl = sasl_plain(&user, PASSWORD);
    for (place, text) in [("log", &log), ("trace", &trace)] {
        for secret in ["\"quoted", "\\back", sasl.as_str(), "openpgp:secrets"] {
            assert!(!text.contains(secret), "{secret} stands in the {place}:\n{text}");
        }
    }
    let state = scene.deltapush.dir().join("state");
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    let mut files = Vec::new();
    for folder in [&state, &scene.deltapush.dir().join("certs")] {
        files_below(folder, &mut files);
    }
    assert!(files.len() >= 3, "state, key, certificate: {files:?}");
    for (path, content) in files {
        let found = content.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
        assert!(!found, "the password stands in {path}");
        if path.contains("key") {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path}");
        }
    }
}

fn files_below(folder: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, files);
        } else {
            files.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}
