//! Pushes of one account while those of others, or of all, fail: the real binary before a scripted notification server.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::support::client::{Client, quoted};
use super::support::dovecot::Setup;
use super::support::notify::Answer;
use super::support::scene::{DovecotScene, PATIENCE};

/// An account has so many tokens at most.
const JUNK: usize = 32;

/// Thirty-two tokens of one account fail, each in the same way, and had news a moment ago: a neighbour's push comes at once.
async fn junk_delays_no_neighbour(name: &'static str, answer: Answer) {
    let mut scene = DovecotScene::new(Setup::Vanilla, name).await;
    scene.notify.always("openpgp:junk", Some(answer));
    let mut client = scene.client().await;
    for number in 0..JUNK {
        let set = format!(
            "c2 SETMETADATA \"INBOX\" (/private/devicetoken {})",
            quoted(&format!("openpgp:junk{number}"))
        );
        assert!(client.command(&set).await.result.starts_with("OK"));
    }
    drop(client);
    scene.dovecot.wait_for_watch(&scene.user, 1).await;
    let neighbour = scene.dovecot.user(&format!("{name}-neighbour"));
    let mut client = Client::tls(scene.deltapush.imaps, &scene.deltapush.certificate()).await;
    client.log_in(&neighbour).await;
    let set = "c2 SETMETADATA \"INBOX\" (/private/devicetoken \"openpgp:neighbour\")";
    assert!(client.command(set).await.result.starts_with("OK"));
    drop(client);
    scene.dovecot.wait_for_watch(&neighbour, 1).await;

    scene.deliver_news().await;
    scene.notify.wait_for(2, PATIENCE).await;
    // Time for all of them to be tried, where they are answered.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let delivered = Instant::now();
    scene.dovecot.deliver_news(&neighbour, "news").await;
    let posted_to_neighbour = || {
        let posted = scene.notify.posted();
        posted
            .into_iter()
            .find(|posted| posted.token == "openpgp:neighbour")
            .map(|posted| posted.at)
    };
    while posted_to_neighbour().is_none() {
        assert!(delivered.elapsed() < PATIENCE, "never posted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let wait = posted_to_neighbour().unwrap().duration_since(delivered);
    println!(
        "{name}: {wait:?} after the delivery began, {} POSTs in all",
        scene.notify.posted().len()
    );
    // Less than the time after which a failed POST is made again, so that it did not wait for one.
    assert!(wait < Duration::from_secs(6), "{name}: {wait:?}");
    assert!(!scene.deltapush.log().contains("notification server is down"));
}

#[tokio::test]
async fn junk_tokens_of_one_account_delay_no_neighbour() {
    let mut cases = JoinSet::new();
    cases.spawn(junk_delays_no_neighbour("junk-503", Answer::Status(503)));
    cases.spawn(junk_delays_no_neighbour("junk-500", Answer::Status(500)));
    cases.spawn(junk_delays_no_neighbour("junk-410", Answer::Status(410)));
    cases.spawn(junk_delays_no_neighbour("junk-hang", Answer::Hang));
    cases.join_all().await;
}

/// The notification server gives one answer to everybody for some seconds: the push comes afterwards, without other news.
async fn outage_loses_no_push(name: &'static str, status: u16) {
    let mut scene = DovecotScene::new(Setup::Vanilla, name).await;
    scene.notify.always("openpgp:", Some(Answer::Status(status)));
    scene.register("openpgp:phone").await;
    scene.deliver_news().await;
    scene.notify.wait_for(1, PATIENCE).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    scene.notify.always("openpgp:", None);
    scene.notify.wait_for(2, PATIENCE).await;
    let reply =
        scene.client().await.command("c2 GETMETADATA INBOX /private/devicetoken").await.text();
    assert!(reply.contains("openpgp:phone"), "{name}: {reply}");
}

#[tokio::test]
async fn short_outage_of_any_kind_loses_no_push() {
    let mut cases = JoinSet::new();
    for (name, status) in [
        ("outage-401", 401),
        ("outage-403", 403),
        ("outage-404", 404),
        ("outage-429", 429),
        ("outage-500", 500),
        ("outage-503", 503),
    ] {
        cases.spawn(outage_loses_no_push(name, status));
    }
    cases.join_all().await;
}

/// The notification server says of all tokens for some seconds that they are gone (410). The pushes come afterwards without other
/// news: after a minute, or at once where so many accounts show an outage. A restart finds every account with token and password.
async fn outage_with_410_erases_nothing(name: &'static str, accounts: usize, patience: Duration) {
    let mut scene = DovecotScene::new(Setup::Vanilla, name).await;
    scene.notify.always("openpgp:", Some(Answer::Status(410)));
    let mut users = vec![scene.user.clone()];
    users.extend((1..accounts).map(|number| scene.dovecot.user(&format!("{name}-{number}"))));
    let tokens: BTreeSet<String> =
        (0..accounts).map(|number| format!("openpgp:{number}")).collect();
    for (number, user) in users.iter().enumerate() {
        let mut client = scene.connect().await;
        client.log_in(user).await;
        let set = format!("c2 SETMETADATA \"INBOX\" (/private/devicetoken \"openpgp:{number}\")");
        assert!(client.command(&set).await.result.starts_with("OK"));
        drop(client);
        scene.dovecot.wait_for_watch(user, 1).await;
    }
    for user in &users {
        scene.dovecot.deliver_news(user, "news").await;
    }
    // After twelve accounts the server counts as down.
    scene.notify.wait_for(accounts.min(12), PATIENCE).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    scene.notify.always("openpgp:", None);
    let (back, before) = (Instant::now(), scene.notify.posted().len());
    let pushed = |scene: &DovecotScene, from: usize| -> BTreeSet<String> {
        scene.notify.posted().into_iter().skip(from).map(|posted| posted.token).collect()
    };
    scene.notify.wait_for(before + accounts, patience).await;
    println!("{name}: all pushed {:?} after the outage, {before} refused", back.elapsed());
    assert_eq!(pushed(&scene, before), tokens, "{name}: each once");
    scene.deltapush.restart();
    for user in &users {
        scene.dovecot.deliver_news(user, "more news").await;
    }
    scene.notify.wait_for(before + 2 * accounts, PATIENCE).await;
    assert_eq!(
        pushed(&scene, before + accounts),
        tokens,
        "{name}: watched and pushed after a restart"
    );
    let log = scene.deltapush.log();
    assert!(!log.contains("erased") && !log.contains("quarantine"), "{name}: {log}");
}

#[tokio::test]
async fn short_outage_with_410_for_everybody_erases_nothing() {
    let mut cases = JoinSet::new();
    cases.spawn(outage_with_410_erases_nothing("gone-few", 3, Duration::from_secs(110)));
    cases.spawn(outage_with_410_erases_nothing("gone-many", 14, Duration::from_secs(60)));
    cases.join_all().await;
}
