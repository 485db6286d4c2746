//! Logins of strangers: names that Delta Chat invents, guesses that use up what may fail, servers that break off, names without
//! end. Beside each of them somebody with the right password gets in.

use std::net::Ipv4Addr;

use serde_json::json;

use super::attack::found_by_fail2ban;
use super::setup::{certificate, options};
use super::support::client::{Client, Reply, quoted, sasl_plain};
use super::support::core::{Core, Submission, Version};
use super::support::deltapush::{Deltapush, Options};
use super::support::dovecot::{self, SIMPLE_PASSWORD, Setup};
use super::support::scene::DovecotScene;
use super::support::scripted::Scripted;
use super::support::tunnel::Tunnel;

const QUICK: &str = "limits:\n  failed_logins:\n    delay: 10ms\n    longest_delay: 50ms\n";

/// As chatmail/core 2.61 and later invents it.
const INVENTED_PASSWORD: &str = "Wb3kQ9xTz7LmNp2RsVy8Ha";

/// The friends' address.
const TABLE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

async fn log_in(deltapush: &Deltapush, address: Ipv4Addr, user: &str, password: &str) -> Reply {
    let mut client = Client::plain_from(address, deltapush.plain).await;
    client.expect_prefix("* OK").await;
    client.command(&format!("A0001 LOGIN {} {}", quoted(user), quoted(password))).await
}

/// Four friends, each with a fresh app, scan the same invite code.
async fn friends_knock(scene: &DovecotScene) {
    for name in ["k3v9x0a2b", "zzzzzzzzz", "012345678", "qwertyui0"] {
        let answer =
            log_in(&scene.deltapush, TABLE, &format!("{name}@lab.test"), INVENTED_PASSWORD)
                .await
                .result;
        let expected = "NO [AUTHENTICATIONFAILED] There is no account with this name here.";
        assert!(answer.starts_with(expected), "{answer}\n{}", scene.deltapush.log());
        assert!(
            !scene.dovecot.log().contains(&format!("user=<{name}")),
            "the server heard of {name}"
        );
    }
}

#[tokio::test]
async fn friends_at_one_table_keep_nobody_out() {
    for credentials in ["sealed", "memory", "none"] {
        let mut scene =
            DovecotScene::with(Setup::Vanilla, &format!("table-{credentials}"), |options| {
                options.credentials = credentials;
            })
            .await;
        let host = scene.user.clone();
        let person = format!("person-{host}");
        // The host of the table uses the proxy.
        assert!(
            log_in(&scene.deltapush, TABLE, &host, SIMPLE_PASSWORD).await.result.starts_with("OK")
        );
        friends_knock(&scene).await;
        assert!(
            log_in(&scene.deltapush, TABLE, &person, SIMPLE_PASSWORD)
                .await
                .result
                .starts_with("OK")
        );
        // Knowledge of the server survives the restart.
        scene.deltapush.restart();
        friends_knock(&scene).await;
        assert!(
            log_in(&scene.deltapush, TABLE, &host, SIMPLE_PASSWORD).await.result.starts_with("OK")
        );
        let log = scene.deltapush.log();
        assert_eq!(found_by_fail2ban(&log, scene.deltapush.dir()), Vec::<String>::new(), "{log}");
    }
}

/// Real cores: a host with an account behind the proxy, and four friends with fresh apps, who get the host's invite link. Their
/// apps look for a relay at the host's domain. No name leads anywhere but through the tunnel.
#[tokio::test]
async fn fresh_apps_that_are_invited_leave_room_for_a_person_with_the_right_password() {
    let dovecot = dovecot::shared(Setup::Vanilla);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| json!(folder.path().join(name));
    let hash =
        certificate(folder.path(), "imap", &["push.lab.test", "autoconfig.lab.test", "lab.test"]);
    let submission = Submission::start(dovecot).await;
    let deltapush = Deltapush::start(&Options {
        hostname: "push.lab.test",
        certificate: format!("chain: {}\n  key: {}", file("imap.pem"), file("imap.key")),
        ..options(dovecot, "smtps://smtp.lab.test")
    });
    let mut host = Core::start(Version::Current).await;
    let hosts = host.add_account(&dovecot.user("invites"), deltapush.imaps, submission.port).await;
    let link = host.call("get_chat_securejoin_qr_code", json!([hosts, null])).await;
    let tunnel = Tunnel::start(&[
        // Any server there may be a relay.
        ("lab.test:443".to_owned(), deltapush.imaps),
        ("autoconfig.lab.test:443".to_owned(), deltapush.imaps),
        (format!("push.lab.test:{}", deltapush.imaps), deltapush.imaps),
    ])
    .await;
    let mut friends = Core::start(Version::Current).await;
    let verified =
        ["push.lab.test", "autoconfig.lab.test", "lab.test"].map(|name| (name, hash.clone()));
    for n in 1..=4 {
        let friend = friends.add_account_behind(tunnel.port, &verified).await;
        let answer = friends.response("init_transports", json!([friend, link])).await;
        assert!(answer.get("error").is_some(), "there is no relay: {answer}");
        let log = deltapush.log();
        let answered = log
            .matches("login refused without asking the mail server: an invented name, as Delta Chat tries them")
            .count();
        assert_eq!(answered, n, "{:?}\n{log}", tunnel.asked());
    }
    assert!(
        !deltapush.log().contains("failed login from")
            && !deltapush.log().contains("login not tried")
    );
    let person = dovecot.user("person-with-the-right-password");
    let answer = log_in(&deltapush, Ipv4Addr::LOCALHOST, &person, SIMPLE_PASSWORD).await.result;
    assert!(answer.starts_with("OK"), "{answer}");
    host.kill().await;
    friends.kill().await;
}

#[tokio::test]
async fn relay_and_whoever_turns_it_off_are_asked() {
    let off = "login:\n  refuse_invented: false\n".to_owned() + QUICK;
    for (setup, more) in [(Setup::Chatmail, QUICK.to_owned()), (Setup::Vanilla, off)] {
        let scene = DovecotScene::with(setup, "asked", |options| options.more = more).await;
        assert!(
            log_in(&scene.deltapush, TABLE, &scene.user, SIMPLE_PASSWORD)
                .await
                .result
                .starts_with("OK")
        );
        let answer =
            log_in(&scene.deltapush, TABLE, "k3v9x0a2c@lab.test", INVENTED_PASSWORD).await.result;
        assert!(
            answer.starts_with("NO [AUTHENTICATIONFAILED]") && !answer.contains("no account"),
            "{answer}"
        );
        assert!(
            scene
                .deltapush
                .log()
                .contains("refused by the mail server, user \"k3v9x0a2c@lab.test\"")
        );
    }
}

#[tokio::test]
async fn strangers_use_up_their_part_and_the_owner_gets_in_after_a_restart() {
    for credentials in ["memory", "none"] {
        let mut scene =
            DovecotScene::with(Setup::Vanilla, &format!("used-up-{credentials}"), |options| {
                options.credentials = credentials;
                options.more = QUICK.to_owned();
            })
            .await;
        let owner = scene.user.clone();
        assert!(
            log_in(&scene.deltapush, Ipv4Addr::LOCALHOST, &owner, SIMPLE_PASSWORD)
                .await
                .result
                .starts_with("OK")
        );
        scene.deltapush.restart();
        let mut refused = 0;
        for n in 0..6 {
            let address = Ipv4Addr::new(127, 0, 10 + n, 1);
            let answer =
                log_in(&scene.deltapush, address, &format!("stranger{n}@lab.test"), "guess")
                    .await
                    .result;
            let limit = "NO [UNAVAILABLE] Too many wrong passwords at this mail server. Try again in 10 minutes.";
            assert!(
                if n < 2 {
                    answer.starts_with("NO [AUTHENTICATIONFAILED]")
                } else {
                    answer == limit
                },
                "{n} {answer}"
            );
            refused += usize::from(n >= 2);
        }
        let status = scene.deltapush.status();
        let told = format!(
            "localhost:{}: 2 logins failed there within 10m (limit 2 for unknown accounts)",
            scene.dovecot.imaps
        );
        assert!(status.contains(&told), "{status}");
        // From elsewhere, as phones are.
        let elsewhere = Ipv4Addr::new(127, 0, 99, 1);
        let answer = log_in(&scene.deltapush, elsewhere, &owner, SIMPLE_PASSWORD).await.result;
        assert!(answer.starts_with("OK"), "{answer}\n{}", scene.deltapush.log());
        // Two of them guessed; the others may have had the right password.
        let log = scene.deltapush.log();
        assert_eq!(
            found_by_fail2ban(&log, scene.deltapush.dir()),
            ["127.0.10.1", "127.0.11.1"],
            "{log}"
        );
        assert_eq!(log.matches("login not tried from").count(), refused, "{log}");
        assert_eq!(log.matches("too many logins failed at this mail server").count(), 1, "{log}");
    }
}

#[tokio::test]
async fn server_that_breaks_off_after_the_credentials_has_a_limit_too() {
    let dialogue = "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] ready\nLOGIN\n";
    let (closes, says_bye) =
        (format!("{dialogue}CLOSE"), format!("{dialogue}S: * BYE go away\nCLOSE"));
    let server = Scripted::start(&[&closes, &says_bye, &closes, &says_bye]).await;
    let deltapush =
        Deltapush::start(&Options { more: QUICK.to_owned(), ..Options::plain(server.port) });
    for n in 0..6 {
        // The scripted server expects this login.
        let answer =
            log_in(&deltapush, Ipv4Addr::new(127, 0, 10 + n, 1), "alice@lab.test", "sesame")
                .await
                .result;
        let expected = match n {
            0 | 2 => "NO [UNAVAILABLE] The mail server broke off the connection.",
            1 => "NO [UNAVAILABLE] The mail server closed the connection: go away.",
            _ => {
                "NO [UNAVAILABLE] Too many wrong passwords for this account. Try again in 10 minutes."
            }
        };
        assert!(answer.starts_with(expected), "{n}: {answer}\n{}", deltapush.log());
    }
    let log = deltapush.log();
    assert_eq!(
        log.matches(": not answered by the mail server, user \"alice@lab.test\"").count(),
        3,
        "{log}"
    );
    assert_eq!(server.connections(), 3);
    // It may be an outage: nobody is banned for it.
    assert_eq!(found_by_fail2ban(&log, deltapush.dir()), Vec::<String>::new(), "{log}");
}

/// Names of 60 KB, and how many of them; more with DELTAPUSH_LONG_NAMES.
#[tokio::test]
async fn names_without_end_are_refused_and_take_no_memory() {
    let count: usize = std::env::var("DELTAPUSH_LONG_NAMES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(1000);
    let deltapush = Deltapush::start(&Options { more: QUICK.to_owned(), ..Options::plain(1) });
    let mut memory = 0;
    for n in 0..count / 10 {
        let mut client = Client::plain_from(TABLE, deltapush.plain).await;
        client.expect_prefix("* OK").await;
        for m in 0..10_usize {
            let name = format!("{n}-{m}-{}", "x".repeat(15_000));
            let refused = "NO [CANNOT] This login name is too long. It may have 320 bytes.";
            let command = match m {
                0 => format!("c{m} AUTHENTICATE PLAIN {}", sasl_plain(&"x".repeat(10_000), "x")),
                _ => format!("c{m} LOGIN {name} x"),
            };
            client.send(&command).await;
            client.expect(&format!("c{m} {refused}")).await;
        }
        client.expect_prefix("* BYE").await;
        // After the first the buffers are there.
        if n == 4 {
            memory = deltapush.memory();
        }
    }
    let grown = deltapush.memory().saturating_sub(memory);
    eprintln!("{grown} KiB more after {count} logins with names of 15 KB");
    assert!(grown < 4096, "{grown} KiB");
    assert!(!deltapush.log().contains("failed login"));
}
