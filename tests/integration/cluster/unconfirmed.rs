//! Commits whose answers are lost: they have reached the database, and the connection breaks before its answer.

use super::super::faults::ledger::Account;
use super::super::support::network::Manner;
use super::super::support::poll;
use super::scene::{ClusterScene, PATIENCE};

const TOKEN: &str = "openpgp:unconfirmed";

impl ClusterScene {
    /// Lets a commit take some time in the database that has changed the token like this: an event of a trigger, and its condition.
    fn slow_commit(&self, event: &str, condition: &str) {
        self.sql(&format!(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN PERFORM pg_sleep(2); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER slow AFTER {event} ON tokens DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW WHEN (NEW.token = '{TOKEN}' AND {condition}) EXECUTE FUNCTION slow()"
        ));
    }

    /// Cuts the connections of the node in the midst of this commit, which the database completes.
    async fn lose_answer(&self) {
        let commits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        let is_there = poll(PATIENCE, || self.sql(commits) == "1").await;
        assert!(is_there, "no commit of this kind");
        self.nodes[0].to_database[0].present(Manner::Reset);
        let is_over = poll(PATIENCE, || self.sql(commits) == "0").await;
        assert!(is_over, "the commit does not end");
        self.sql("DROP TRIGGER slow ON tokens");
    }

    fn has_token(&self) -> bool {
        self.sql(&format!("SELECT count(*) FROM tokens WHERE token = '{TOKEN}'")) == "1"
    }
}

/// The client hears that it is not known to be stored, and would hand it over again. The node finds it, and posts it until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn token_whose_commit_is_not_answered_is_refused_and_posted() {
    let mut scene = ClusterScene::start(1).await;
    let user = scene.dovecot.user("unconfirmed");
    scene.slow_commit("INSERT", "TRUE");
    let (reply, ()) = tokio::join!(scene.register(0, &user, TOKEN), scene.lose_answer());
    assert!(reply.result.starts_with("NO [UNAVAILABLE]"), "{reply:?}");
    assert!(scene.has_token(), "the commit is completed");
    scene.dovecot.wait_for_watch(&user, 1).await;
    let tokens = vec![TOKEN.to_owned()];
    scene.accounts.push(Account { user: user.clone(), tokens, quiet: false, gets_replies: true });
    scene.deliver(0).await;
    scene.settle(PATIENCE).await;

    let reply = scene.register(0, &user, TOKEN).await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    assert!(scene.has_token(), "it is there once");
    scene.deliver(0).await;
    scene.settle(PATIENCE).await;
    assert!(poll(PATIENCE, || scene.sessions(0) == 1).await, "it is watched once");
}

/// The position and the mark are in the database: what the watch finds again counts as known. The node announces it all the same:
/// from memory, and once more if it finds the mark later.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn message_whose_commit_is_not_answered_is_announced() {
    let mut scene = ClusterScene::start(1).await;
    let user = scene.dovecot.user("unconfirmed");
    let reply = scene.register(0, &user, TOKEN).await;
    assert!(reply.result.starts_with("OK"), "{reply:?}");
    scene.dovecot.wait_for_watch(&user, 1).await;
    let tokens = vec![TOKEN.to_owned()];
    scene.accounts.push(Account { user, tokens, quiet: false, gets_replies: true });
    scene.slow_commit("UPDATE OF pending", "NEW.pending IS NOT NULL");
    scene.deliver(0).await;
    scene.lose_answer().await;
    scene.repeatable = 1;
    scene.settle(PATIENCE).await;
    scene.deliver(0).await;
    scene.settle(PATIENCE).await;
}
