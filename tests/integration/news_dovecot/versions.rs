//! Dovecot 2.4, Debian 13's.

use std::time::{Duration, Instant};

use super::super::support::client::{Client, quoted};
use super::super::support::deltapush::{Deltapush, Options};
use super::super::support::dovecot::message;
use super::super::support::dovecot_24::Dovecot24;
use super::super::support::lmtp;
use super::super::support::news::{Hook, PAGE, Way, lua_script};
use super::super::support::notify::NotifyServer;
use super::super::support::poll;
use super::super::support::recipe::replaced;
use super::super::support::scene::PATIENCE;

#[tokio::test]
async fn lua_script_works_in_dovecot_24() {
    let hook = Hook::new();
    let conf = include_str!("../../../contrib/dovecot/99-deltapush-2.4.conf");
    assert_eq!(conf, PAGE.block("Dovecot 2.4", "", "lua_settings"));
    let conf = replaced(
        conf,
        &[
            ("/usr/share/deltapush/dovecot/deltapush.lua", "/etc/deltapush.lua"),
            (
                "#deltapush_url = http://127.0.0.1:1981/v1/news",
                &format!("deltapush_url = {}", hook.url()),
            ),
            (
                "#deltapush_token = </etc/dovecot/deltapush.token",
                "deltapush_token = </etc/deltapush.token",
            ),
        ],
    );
    let settings = include_str!("../data/dovecot/docker-mailserver.conf").to_owned() + &conf;
    let dovecot = Dovecot24::with_files(
        &settings,
        &[("etc/deltapush.lua", &lua_script()), ("etc/deltapush.token", "sesame\n")],
    );
    let mut notify = NotifyServer::start().await;
    // The SHA-256 of the token.
    let hash = "sha256:d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272";
    let ca = dovecot.authority.ca.display();
    let options = Options {
        routes: Some(format!(
            "  - domain: \"*\"\n    upstream: imaps://localhost:{}\n    ca: \"{ca}\"\n    news: server",
            dovecot.imaps
        )),
        notify_url: notify.url.clone(),
        more: format!("{}  tokens:\n    - hash: \"{hash}\"\n", hook.section(Way::Lua)),
        ..Options::plain(0)
    };
    let deltapush = Deltapush::start(&options);
    let user = dovecot.user("alice");
    let mut client = Client::tls(deltapush.imaps, &deltapush.certificate()).await;
    client.log_in(&user).await;
    let entry = format!("c2 SETMETADATA INBOX (/private/devicetoken {})", quoted("openpgp:phone"));
    assert!(client.command(&entry).await.result.starts_with("OK"));
    client.command("c3 LOGOUT").await;

    let deliver = async |text: &str| {
        lmtp::deliver(dovecot.lmtp, "bob@elsewhere.test", &user, text).await;
    };
    deliver(&message(&user, "bob@elsewhere.test", "own mail", "")).await;
    deliver(&message("bob@elsewhere.test", &user, "news", "")).await;
    notify.wait_for(1, PATIENCE).await;
    // Without time limits in force, this delivery would wait as long as deltapush hangs.
    deltapush.signal("STOP");
    let began = Instant::now();
    deliver(&message("bob@elsewhere.test", &user, "more", "")).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    deltapush.signal("CONT");
    let warned = || dovecot.log().contains("deltapush was not told of a message");
    assert!(poll(PATIENCE, warned).await, "{}", dovecot.log());
}
