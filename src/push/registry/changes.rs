//! Changes of the registry. Each is made in the store; when it is on disk, the store's thread applies it to the table.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Registry;
use super::visits::CLIENT_LIMIT;
use crate::account::AccountId;
use crate::credentials::Credentials;
use crate::push::account::Account;
use crate::secret::DeviceToken;
use crate::store::{
    Announce, Generation, Look, Noticed, Position, StateChange, StoreError, ToldMessage, UnixTime,
    change,
};

/// A mailbox that cannot be opened is forgotten if no client has waited in it for so long.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);

/// For so long the mail server, which tells of a message, waits until this node owns the account.
const TOLD_LIMIT: Duration = Duration::from_secs(10);

impl Registry {
    /// Makes a change of the state. When this returns it is on disk and in memory.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has changed.
    pub async fn commit<T: Send + 'static>(
        &self,
        change: impl StateChange<T>,
    ) -> Result<T, StoreError> {
        self.0.store.commit(change).await
    }

    /// Takes a token over that a client has handed over, with the credentials of its session if such are kept.
    ///
    /// # Errors
    /// [`StoreError`]: the token is not stored, and the client gets a NO.
    pub async fn register(
        &self,
        account: &AccountId,
        credentials: impl Into<Option<&Credentials>>,
        token: &DeviceToken,
    ) -> Result<(), StoreError> {
        let now = self.now();
        let (known, given) = (self.get(account), credentials.into());
        // A session of before the account lost its watch may still have some.
        let has_watch = known.as_ref().is_none_or(|known| known.is_watched());
        let lasting = given.filter(|_| has_watch && !self.0.keeps_sessions).map(|given| {
            let new = given.to_keep();
            match &known {
                Some(known) => known.lasting(new),
                None => new,
            }
        });
        // A token in quarantine is written again, once after each answer: the app is there.
        let is_current = known.is_some_and(|known| {
            known.is_current(lasting.as_ref()) && known.was_just_seen(token, now.wall)
        });
        if is_current && !self.0.accounts.is_quarantined(token, now.wall) {
            return Ok(());
        }
        let credentials = lasting.map(Arc::new);
        let is_watched = self.0.accounts.is_watched_with(credentials.as_ref());
        self.commit(change::register(account, credentials, token, is_watched, now)).await
    }

    /// A client has logged in with these: a known account's changed password is taken over, and a watch that ended because
    /// its login was refused begins again.
    ///
    /// # Errors
    /// [`StoreError`]: the watcher goes on with what it had.
    pub async fn login_succeeded(
        &self,
        account: &AccountId,
        credentials: &Credentials,
    ) -> Result<(), StoreError> {
        if self.0.keeps_sessions {
            return Ok(());
        }
        let Some(known) = self.get(account).filter(|known| known.is_watched()) else {
            return Ok(());
        };
        let credentials = known.lasting(credentials.to_keep());
        if known.is_current(Some(&credentials)) {
            return Ok(());
        }
        let changed = self.commit(change::credentials_changed(account, Arc::new(credentials)));
        if self.ownership().is_sole() {
            return changed.await;
        }
        // The change stays in the queue; its client does not wait for a database that is away.
        timeout(CLIENT_LIMIT, changed).await.unwrap_or(Err(StoreError::NotWritten))
    }

    /// Notes that a client of the account waits for mail in `mailbox`, its name as it stood on the wire.
    ///
    /// # Errors
    /// [`StoreError`]: it is not noted; the next time will do.
    pub async fn client_idles(&self, account: &AccountId, mailbox: &str) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        self.commit(change::client_idles(account, mailbox, now)).await
    }

    /// Forgets a mailbox that cannot be opened, unless a client has waited in it within a week of running time. Returns whether
    /// it was forgotten.
    ///
    /// # Errors
    /// [`StoreError`]: it is not.
    pub async fn forget_mailbox(
        &self,
        account: &AccountId,
        mailbox: &str,
    ) -> Result<bool, StoreError> {
        let limit = self.0.clock.now().before(UNUSED);
        self.commit(change::forget_idled(account, mailbox, limit)).await
    }

    /// Notes up to where a mailbox has been looked through and that those tokens of the account that `announce` names have
    /// something to announce. Both are on disk when this returns, and the notifier knows.
    ///
    /// # Errors
    /// [`StoreError`]: the messages do not count as noticed; look again later. Without companions they are pushed all the same,
    /// once.
    pub async fn noticed(
        &self,
        account: &AccountId,
        mailbox: &str,
        look: impl Into<Look>,
        announce: impl Into<Announce>,
    ) -> Result<Noticed, StoreError> {
        let (known, look, announce) = (self.get(account), look.into(), announce.into());
        let announce = match &known {
            Some(known) => known.left_to_announce(mailbox, look.news(), announce),
            None => announce,
        };
        let noticed = || change::noticed(account, mailbox, look, announce.clone(), UnixTime::now());
        let written = self.commit_owned(account, noticed).await;
        match (&written, known) {
            (Ok(_), Some(known)) => known.written(mailbox),
            // The process ends, or another node has the account: the next watch finds the messages.
            (Err(StoreError::Closed | StoreError::NotOwner), _) | (_, None) => {}
            (Err(_), Some(known)) => {
                self.0.accounts.push_unwritten(&known, mailbox, look.news(), &announce)
            }
        }
        written
    }

    /// Notes a message that the mail server told of, and that those tokens of the account that `announce` names have something to
    /// announce. Both are on disk when this returns, and the notifier knows. Returns false if the message was known.
    ///
    /// # Errors
    /// [`StoreError`]: nothing is on disk. Without companions the message is pushed all the same, once.
    pub(in crate::push) async fn told(
        &self,
        account: &Account,
        mailbox: &str,
        message: Option<ToldMessage>,
        announce: Announce,
    ) -> Result<bool, StoreError> {
        // Messages without UIDVALIDITY are of one mailbox; those without a UID are not told apart.
        let position = message.map(|ToldMessage { uid, uid_validity }| Position {
            uid_validity: uid_validity.unwrap_or_default(),
            uid_next: uid.saturating_add(1),
        });
        let announce = match position {
            Some(position) => account.left_to_announce(mailbox, position, announce),
            None => announce,
        };
        let told =
            || change::told(&account.id, mailbox, message, announce.clone(), UnixTime::now());
        let told = timeout(TOLD_LIMIT, self.commit_owned(&account.id, told));
        let told = told.await.unwrap_or(Err(StoreError::NotOwner));
        match (&told, position) {
            (Ok(_), _) => account.written(mailbox),
            (Err(StoreError::Closed | StoreError::NotOwner), _) => {}
            (Err(_), Some(position)) => {
                self.0.accounts.push_unwritten(account, mailbox, position, &announce)
            }
            (Err(_), None) => self.0.accounts.push_at_once(account, &announce),
        }
        told
    }

    /// The same for a message of which the mail server has told another node, which has forwarded it to the owner of the account under
    /// this number. It counts once.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has changed.
    pub(in crate::push) async fn told_elsewhere(
        &self,
        account: &Account,
        number: i64,
        message: Option<ToldMessage>,
        mailbox: &str,
        announce: Announce,
    ) -> Result<bool, StoreError> {
        let told = change::told(&account.id, mailbox, message, announce, UnixTime::now());
        let told = self.commit(change::taken_in(number, told)).await;
        told.map(|is_new| is_new.unwrap_or_default())
    }

    /// The account is watched from now on, or is not and has no credentials any more.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has changed.
    pub(in crate::push) async fn set_watched(
        &self,
        account: &AccountId,
        is_watched: bool,
    ) -> Result<(), StoreError> {
        self.commit(change::watched(account, is_watched)).await
    }

    /// Every token of the account is posted, so that one of its devices comes back.
    ///
    /// # Errors
    /// [`StoreError`]: none is.
    pub async fn call(&self, account: &Account) -> Result<(), StoreError> {
        let now = UnixTime::now();
        self.commit_owned(&account.id, || change::call(&account.id, now)).await?;
        account.called(now);
        Ok(())
    }

    /// The same, unless that was so within the time of `again`, at whichever node. Returns whether they are posted.
    ///
    /// # Errors
    /// [`StoreError`]: none is.
    pub(in crate::push) async fn call_again(
        &self,
        account: &Account,
        again: Duration,
    ) -> Result<bool, StoreError> {
        let now = UnixTime::now();
        let is_called =
            self.commit_owned(&account.id, || change::call_again(&account.id, now, again)).await?;
        if is_called {
            account.called(now);
        }
        Ok(is_called)
    }

    /// A POST of the token that an operator asked for was accepted. Another node may be the one that posts it otherwise.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has changed.
    pub(in crate::push) async fn proved(&self, token: &DeviceToken) -> Result<(), StoreError> {
        self.owners(token).iter().for_each(|account| account.accepted(token));
        self.commit(change::proved(token, UnixTime::now())).await
    }

    /// A POST of the token for `generation` was accepted.
    ///
    /// # Errors
    /// [`StoreError`]: it is posted once more after a restart, or by another node.
    pub async fn announced(
        &self,
        token: &DeviceToken,
        generation: Generation,
    ) -> Result<(), StoreError> {
        self.owners(token).iter().for_each(|account| account.accepted(token));
        self.write_post(token, generation).await
    }

    /// Writes the answer to an accepted POST. One that cannot be written is remembered, where nodes share the state.
    pub(super) async fn write_post(
        &self,
        token: &DeviceToken,
        generation: Generation,
    ) -> Result<(), StoreError> {
        let posts = &self.0.accounts.unwritten_posts;
        // A test push announces nothing.
        if !self.ownership().is_sole() && generation > Generation::default() {
            posts.add(token, generation);
        }
        let written = self.commit(change::announced(token, generation, UnixTime::now())).await;
        match &written {
            Ok(()) => posts.written(token, generation),
            Err(_) => posts.failed(token),
        }
        written
    }

    /// The notification server says, for the `answers`th time, that the token is gone. It is not posted for the time of `wait`, or
    /// removed from every account if that has gone on for long enough. Returns whether it was removed.
    ///
    /// # Errors
    /// [`StoreError`]: the next POST will find out again.
    pub async fn quarantined(
        &self,
        token: &DeviceToken,
        answers: u32,
        wait: Duration,
    ) -> Result<bool, StoreError> {
        let now = self.now();
        self.commit(change::quarantined(token, answers, now.wall.after(wait), now)).await
    }

    /// Notes the running time, removes tokens that no client has handed over, and forgets mailboxes that no client has idled in,
    /// for `max_age` of deltapush's running time. Returns how many tokens.
    ///
    /// # Errors
    /// [`StoreError`]: something is left, for the next time.
    pub async fn expire(&self, max_age: Duration) -> Result<usize, StoreError> {
        let now = self.0.clock.now();
        self.commit(change::served(now)).await?;
        let mut tokens = 0;
        loop {
            let expired = self.commit(change::expire(now, now.before(max_age))).await?;
            tokens += expired.tokens;
            if !expired.has_more {
                return Ok(tokens);
            }
        }
    }

    /// Finds out whether the state can be written, by writing for how long deltapush has served.
    pub async fn try_writing(&self) -> bool {
        self.commit(change::served(self.0.clock.now())).await.is_ok()
    }

    /// Writes what is queued and closes the state.
    pub async fn close(&self) {
        let served = change::served(self.0.clock.now());
        if let Err(error) = self.commit(served).await {
            tracing::debug!("cannot store the running time since it was last stored: {error}");
        }
        self.0.store.close().await;
    }
}
