//! Watches of accounts of which the mail server tells, and of those of which it does not any more.

use super::testing::*;
use crate::credentials::Credentials;
use crate::push::server_news::{NewsError, NewsOutcome};
use crate::push::watch_status::WatchState;
use crate::store::StoreSettings;

fn state(watching: &Watching) -> Option<WatchState> {
    watching.known().watch.status().map(|entry| entry.state)
}

#[tokio::test]
async fn without_a_watch_no_session_is_opened_and_no_credentials_stay() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    for settings in [StoreSettings::sealed, StoreSettings::memory, StoreSettings::none] {
        let mut watching = Watching::start_with(&server, settings, "server");
        watching.register().await;
        until("the mail server tells", || state(&watching) == Some(WatchState::ServerTells)).await;
        assert!(watching.known().credentials().is_none() && !watching.known().is_watched());
        assert_eq!(watching.tell(5).await.unwrap(), NewsOutcome::Announced);
        assert_eq!(watching.posted(), [token()]);
        assert_eq!(watching.tell(5).await.unwrap(), NewsOutcome::Known);
        assert!(watching.posted().is_empty());
    }
    assert_eq!(server.count(""), 0, "no command was sent");
}

#[tokio::test]
async fn message_is_pushed_once_whether_the_watch_or_the_mail_server_is_first() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let mut watching = Watching::start_with(&server, StoreSettings::sealed, "both");
    watching.register().await;
    until("it is watched", || watching.known().watch.is_watching()).await;
    let fetches = || server.count("UID FETCH");
    for uid in 5..=12 {
        let before = fetches();
        if uid % 2 == 0 {
            assert_eq!(watching.tell(uid).await.unwrap(), NewsOutcome::Announced);
            server.deliver();
            until("the watch looks", || fetches() > before).await;
            until("it is back in IDLE", || server.count("IDLE") > fetches()).await;
            assert_eq!(watching.posted(), [token()], "{uid}");
            assert!(!watching.known().news_status().is_silent());
        } else {
            server.deliver();
            let mut posted = vec![];
            until("the watch finds it", || {
                posted.extend(watching.posted());
                !posted.is_empty()
            })
            .await;
            until("it is noted that the mail server said nothing", || {
                watching.known().news_status().is_silent()
            })
            .await;
            assert_eq!(watching.tell(uid).await.unwrap(), NewsOutcome::Known, "{uid}");
            assert!(watching.posted().is_empty());
        }
    }
}

#[tokio::test]
async fn first_message_is_pushed_once_where_the_mail_server_tells_late_and_without_its_uid() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let mut watching = Watching::start_with(&server, StoreSettings::sealed, "both");
    watching.register().await;
    until("it is watched", || watching.known().watch.is_watching()).await;
    server.deliver();
    until("the watch finds it", || watching.posted() == [token()]).await;
    until("that is noted", || watching.known().news_status().is_silent()).await;
    assert_eq!(watching.tell_by_header(5).await.unwrap(), NewsOutcome::Known);
    assert!(watching.posted().is_empty());
}

#[tokio::test]
async fn source_of_news_changes_with_the_configuration() {
    let server = MailboxServer::start("IDLE", &["INBOX"]).await;
    let mut watching = Watching::start(&server, StoreSettings::sealed);
    watching.register().await;
    until("it is watched", || watching.known().watch.is_watching()).await;
    assert!(matches!(watching.tell(5).await, Err(NewsError::NotConfigured)));
    watching.reload("server");
    until("the mail server tells", || state(&watching) == Some(WatchState::ServerTells)).await;
    assert!(watching.known().credentials().is_none());
    // A client that logged in before hands its token over again, and another login was on its way.
    watching.register().await;
    let credentials = Credentials::new("alice@lab.test", "sesame");
    watching.registry.login_succeeded(&watching.account, &credentials).await.unwrap();
    assert!(watching.known().credentials().is_none(), "the password is stored again");
    until("the session ends", || server.count("IDLE") == 1).await;
    assert_eq!(watching.tell(5).await.unwrap(), NewsOutcome::Announced);
    assert_eq!(watching.posted(), [token()]);
    watching.reload("both");
    until("a device is called", || watching.posted() == [token()]).await;
    assert!(watching.known().is_watched());
    watching.register().await;
    until("it is watched again", || watching.known().watch.is_watching()).await;
}
