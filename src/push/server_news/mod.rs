//! News of the mail server: it tells of each new message as it delivers it, so that an account needs no watch.

mod accounts;
mod catch_up;
mod elsewhere;
mod judged;
#[cfg(test)]
mod tests;
mod types;

use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;

use super::account::Account;
use super::filter::{PushDecision, PushFilter, SkipReason, message_id, message_id_alone};
use super::registry::INBOX;
use super::watcher::Watchers;
use super::watcher::context::WatchContext;
use crate::mailbox_name::MailboxName;
use crate::parser::utf7;
use crate::store::{Announce, ToldMessage};
use crate::telemetry::TelemetryEvent;
use accounts::Meant;
pub use catch_up::OpenedMailbox;
pub(super) use elsewhere::NewsGuests;
use judged::JudgedNews;
pub use types::{NewsError, NewsHeaders, NewsOutcome, NewsScope, ServerNews};

/// The longest name of an account or a mailbox, in bytes.
const MAX_NAME: usize = 1024;

/// The largest UID and UIDVALIDITY. Some servers exceed the 32 bits of RFC 9051 section 2.3.1.1.
const MAX_NUMBER: u64 = i64::MAX.unsigned_abs();

/// Accepts news of mail servers. Clones are handles of the same one.
#[derive(Clone)]
pub struct NewsReceiver {
    context: Arc<WatchContext>,
}

impl NewsReceiver {
    /// Accepts news of the accounts of these watches.
    #[must_use]
    pub fn new(watchers: &Watchers) -> Self {
        Self::of(watchers.context())
    }

    pub(in crate::push) fn of(context: &Arc<WatchContext>) -> Self {
        Self { context: Arc::clone(context) }
    }

    /// Takes news. When this returns [`NewsOutcome::Announced`], the marks of the account's tokens are on disk.
    ///
    /// # Errors
    /// [`NewsError`]: nothing is announced.
    pub async fn receive(
        &self,
        news: ServerNews,
        scope: &NewsScope,
    ) -> Result<NewsOutcome, NewsError> {
        let outcome = self.outcome(&news, scope).await;
        let label = outcome.as_ref().map_or("refused", |outcome| outcome.label());
        self.context.registry.telemetry().metrics().count_news(label);
        outcome
    }

    async fn outcome(
        &self,
        news: &ServerNews,
        scope: &NewsScope,
    ) -> Result<NewsOutcome, NewsError> {
        check(news)?;
        let mut outcome = NewsOutcome::NoDevice;
        let accounts = accounts::find(&self.context, &news.name, scope).await?;
        // Accounts of one name at several mail servers: the news is of each, as far as is known, and the UID of one of them.
        let of_several = (accounts.len() > 1).then(|| ServerNews { uid: None, ..news.clone() });
        let news = of_several.as_ref().unwrap_or(news);
        for account in accounts {
            outcome = outcome.or(match account {
                Meant::Own(account) => self.take(&account, news).await?,
                Meant::Elsewhere(account) => self.forward_news(&account, news).await?,
            });
        }
        Ok(outcome)
    }

    async fn take(&self, account: &Account, news: &ServerNews) -> Result<NewsOutcome, NewsError> {
        let arrived = Instant::now();
        let judged = match self.judge(account, news) {
            Ok(judged) => judged,
            Err(outcome) => return outcome,
        };
        let wakes = self.wakes(account, &judged);
        let JudgedNews { mailbox, message, .. } = &judged;
        let told = self.context.registry.told(account, mailbox, *message, wakes).await;
        if told.is_err() {
            self.not_stored(account, &judged);
        }
        let is_new = told?;
        self.stored(account, &judged, is_new, arrived);
        Ok(if is_new { judged.outcome() } else { NewsOutcome::Known })
    }

    /// Judges a message that is not known. The outcome, if nothing is to be stored.
    fn judge(
        &self,
        account: &Account,
        news: &ServerNews,
    ) -> Result<JudgedNews, Result<NewsOutcome, NewsError>> {
        let is_accepted = account.accept_news();
        let Some(mailbox) = self.mailbox(account, &news.mailbox) else {
            return Err(Ok(NewsOutcome::OtherMailbox));
        };
        if !is_accepted {
            return Err(Err(NewsError::TooMany));
        }
        let decision = decide(&self.context.push_filter(&account.id), news);
        let message = news.uid.map(|uid| ToldMessage { uid, uid_validity: news.uid_validity });
        let judged =
            JudgedNews { mailbox, message, ids: news.identifier().into_iter().collect(), decision };
        if judged.is_known(account) { Err(Ok(NewsOutcome::Known)) } else { Ok(judged) }
    }

    /// The devices that a message wakes. They count as woken from now on.
    fn wakes(&self, account: &Account, judged: &JudgedNews) -> Announce {
        let JudgedNews { mailbox, message, ids, decision } = judged;
        let wakes = match decision {
            PushDecision::Skip(_) => Announce::Nothing,
            PushDecision::Push => self.context.without_copies(account, Announce::All, ids),
        };
        // Before it is written: a watch may find the message in between.
        judged.remember(account);
        let uid = message.map(|message| message.uid);
        debug!(%account, uid, "the mail server tells of a new message: {decision}");
        self.report_judged(account, mailbox, uid, *decision);
        wakes
    }

    /// The sender may try again, and is to be believed then.
    fn not_stored(&self, account: &Account, judged: &JudgedNews) {
        account.forget_woken_for(&judged.ids);
        self.context.duplicates().forget(&judged.ids, &account.id);
    }

    fn stored(&self, account: &Account, judged: &JudgedNews, is_new: bool, arrived: Instant) {
        match judged.message {
            // From here on the position counts.
            Some(_) => _ = account.take_told_without_uid(0),
            None => account.told_without_uid(),
        }
        self.report_noticed(account, &judged.mailbox, is_new && judged.is_push(), arrived);
    }

    /// The mailbox as deltapush knows it, if mail in it concerns the account's devices.
    fn mailbox(&self, account: &Account, told: &str) -> Option<MailboxName> {
        let told = if told.is_empty() { INBOX } else { told };
        let is_it = |known: &MailboxName| {
            *known == *told || utf7::decode(known).is_some_and(|decoded| decoded == told)
        };
        if MailboxName::is_inbox(told.as_bytes()) {
            return Some(MailboxName::inbox());
        }
        self.context.mailboxes(account).into_iter().find(is_it)
    }

    fn report_judged(
        &self,
        account: &Account,
        mailbox: &str,
        uid: Option<u64>,
        decision: PushDecision,
    ) {
        let (account, uid, skipped) =
            (&account.telemetry, uid.unwrap_or_default(), decision.skipped());
        self.context.report(&TelemetryEvent::Judged { account, mailbox, uid, skipped });
    }

    fn report_noticed(&self, account: &Account, mailbox: &str, announce: bool, arrived: Instant) {
        let (account, since) = (&account.telemetry, Some(arrived.into_std()));
        self.context.report(&TelemetryEvent::Noticed { account, mailbox, announce, since });
    }
}

fn check(news: &ServerNews) -> Result<(), NewsError> {
    let is_number = |number: Option<u64>| number.is_none_or(|it| (1..=MAX_NUMBER).contains(&it));
    let problem = if news.name.is_empty() {
        "the name of the account is missing"
    } else if news.name.len() > MAX_NAME || news.mailbox.len() > MAX_NAME {
        "the name of the account or the mailbox is too long"
    } else if !is_number(news.uid) || !is_number(news.uid_validity) {
        "uid and uid_validity are positive numbers"
    } else {
        return Ok(());
    };
    Err(NewsError::Invalid(problem))
}

/// Decides about a message. Fields that the mail server did not send say nothing.
fn decide(filter: &PushFilter, news: &ServerNews) -> PushDecision {
    let flags = || news.flags.iter().map(String::as_str);
    match &news.headers {
        NewsHeaders::Unknown => filter.by_flags(flags()),
        NewsHeaders::All(headers) => filter.verdict(flags(), headers),
        NewsHeaders::From(address) => match filter.by_flags(flags()) {
            PushDecision::Push if filter.is_own(address) => PushDecision::Skip(SkipReason::OwnMail),
            decision => decision,
        },
    }
}

impl ServerNews {
    /// The identifier of the message.
    fn identifier(&self) -> Option<u64> {
        match &self.headers {
            NewsHeaders::All(headers) => message_id(headers),
            NewsHeaders::Unknown | NewsHeaders::From(_) => message_id_alone(&self.message_id),
        }
    }
}
