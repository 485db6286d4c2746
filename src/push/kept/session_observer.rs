//! The driver of [`NewMailObserver`]: new mail that passes in a client's own session wakes the account's other devices.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tracing::debug;

use super::observer::{
    NewMailObserver, ObservedEvent, ObserverAction, ObserverInput, ObserverOutcome, ShownPosition,
};
use super::pool::SessionPool;
use crate::account::AccountId;
use crate::clock::now;
use crate::config::Messages;
use crate::machine::Machine;
use crate::mailbox_name::MailboxName;
use crate::push::filter::PushFilter;
use crate::push::registry::Registry;
use crate::secret::DeviceToken;
use crate::store::{Announce, Look, Noticed, Position};
use crate::telemetry::TelemetryEvent;

/// Longest time until it is stored that a client waits in a mailbox.
const STORING_TIME: Duration = Duration::from_secs(1);

/// Time until a write that failed is tried again.
const STORE_PAUSE: Duration = Duration::from_secs(10);

/// The observer of one client session.
pub(super) struct SessionObserver {
    pool: SessionPool,
    account: AccountId,
    state: Mutex<ObserverState>,
}

#[derive(Default)]
struct ObserverState {
    machine: NewMailObserver,
    filter: PushFilter,
    /// New mail that a kept session is expected to report, and that is reported here if it does not.
    postponed: Option<ObserverOutcome>,
    /// The token of the session's own device.
    device: Option<DeviceToken>,
    /// Number of times that another mailbox was opened, or none.
    mailbox_changes: u64,
}

impl SessionObserver {
    pub(super) fn new(pool: SessionPool, account: AccountId) -> Arc<Self> {
        let filter = filter(&pool, &account);
        let state = Mutex::new(ObserverState { filter, ..ObserverState::default() });
        Arc::new(Self { pool, account, state })
    }

    pub(super) fn account(&self) -> &AccountId {
        &self.account
    }

    pub(super) fn pool(&self) -> &SessionPool {
        &self.pool
    }

    fn registry(&self) -> &Registry {
        self.pool.registry()
    }

    /// Reports if the session is worth keeping: the account has a device, and no other client that waits for mail.
    pub(super) fn needs_session(&self) -> bool {
        self.pool.has_device(&self.account) && self.registry().clients(&self.account).waiting == 0
    }

    /// Records that the client waits for mail in `mailbox`.
    pub(super) fn client_waits(self: &Arc<Self>, mailbox: &str) {
        let (postponed, is_open) = {
            let mut state = self.lock();
            (state.postponed.take(), state.machine.mailbox().is_some())
        };
        if let Some(postponed) = postponed {
            // The kept session that was to report it may have been closed just now, before it could.
            let observer = Arc::clone(self);
            tokio::spawn(async move { observer.store(postponed).await });
        }
        if !is_open {
            Arc::clone(self).open_later(mailbox.to_owned());
        }
    }

    /// Records the token of the session's device.
    pub(super) fn has_device(&self, token: &DeviceToken) {
        self.lock().device.get_or_insert_with(|| token.clone());
    }

    /// Reports if FETCH responses are of interest.
    pub(super) fn wants_fetches(&self) -> bool {
        self.lock().machine.wants_fetches()
    }

    /// Records that another mailbox is open now, or none.
    pub(super) fn mailbox_changed(&self) {
        let mut state = self.lock();
        state.mailbox_changes = state.mailbox_changes.wrapping_add(1);
    }

    /// Handles an event of new mail in the client's session.
    pub(super) fn on_observed(self: &Arc<Self>, event: ObservedEvent<'_>) {
        let mut state = self.lock();
        let ObserverState { machine, filter, postponed, device, mailbox_changes } = &mut *state;
        let input = match event {
            ObservedEvent::Opening | ObservedEvent::Closed => {
                *mailbox_changes = mailbox_changes.wrapping_add(1);
                *postponed = None;
                ObserverInput::Closed
            }
            ObservedEvent::Opened(mailbox) => ObserverInput::Opened(mailbox),
            ObservedEvent::Response(line) => {
                filter.encrypted_only = self.registry().fetches_encrypted_only(&self.account);
                ObserverInput::Response { line, filter }
            }
            ObservedEvent::Fetched { from } => {
                if let (Some(_), Some(token), Some(shown)) = (from, device, machine.shown()) {
                    self.record_shown(token, shown);
                }
                ObserverInput::Fetched(from)
            }
        };
        let actions = handle(machine, input);
        drop(state);
        Arc::clone(self).perform(actions);
    }

    fn record_shown(&self, token: &DeviceToken, shown: ShownPosition) {
        if let Some(account) = self.registry().get(&self.account) {
            account.kept.record_shown(token, shown);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ObserverState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Performs the machine's actions, one after the other. Each may take long, and the relay waits for none.
    fn perform(self: Arc<Self>, actions: Vec<ObserverAction>) {
        if actions.is_empty() {
            return;
        }
        tokio::spawn(async move {
            for action in actions {
                match action {
                    ObserverAction::Compare => Arc::clone(&self).compare().await,
                    ObserverAction::Wait => {
                        sleep(self.pool.settings().wait_for_fetch).await;
                        Arc::clone(&self).input(ObserverInput::Waited);
                    }
                    ObserverAction::Note(outcome) => self.store(outcome).await,
                }
            }
        });
    }

    fn input(self: Arc<Self>, input: ObserverInput<'_>) {
        let actions = handle(&mut self.lock().machine, input);
        self.perform(actions);
    }

    /// Gives the machine the stored position of the open mailbox.
    async fn compare(self: Arc<Self>) {
        let (changes, mailbox) = {
            let state = self.lock();
            (state.mailbox_changes, state.machine.mailbox().map(str::to_owned))
        };
        let Some(mailbox) = mailbox else { return };
        if !self.is_watched(&mailbox) {
            let mut state = self.lock();
            if state.mailbox_changes == changes {
                handle(&mut state.machine, ObserverInput::Unwatched);
            }
            return;
        }
        let positions = loop {
            match self.registry().positions(&self.account).await {
                Ok(positions) => break positions,
                // Nothing new is reported before the comparison.
                Err(_) => sleep(STORE_PAUSE).await,
            }
            if self.lock().mailbox_changes != changes {
                return;
            }
        };
        let stored = position_of(positions, &mailbox);
        let actions = {
            let mut state = self.lock();
            // The position is of the mailbox that was open before.
            if state.mailbox_changes != changes {
                return;
            }
            handle(&mut state.machine, ObserverInput::Noted(stored))
        };
        self.perform(actions);
    }

    /// Reports if mail in `mailbox` concerns the account's devices.
    fn is_watched(&self, mailbox: &str) -> bool {
        self.pool.account_with_device(&self.account).is_some_and(|account| {
            let mailboxes = self.pool.context().mailboxes(&account);
            mailboxes.iter().any(|watched| *watched == *mailbox)
        })
    }

    /// Opens the mailbox in which a client waits, once that is stored: then it is one of those that are watched.
    fn open_later(self: Arc<Self>, mailbox: String) {
        let changes = self.lock().mailbox_changes;
        tokio::spawn(async move {
            sleep(STORING_TIME).await;
            let actions = {
                let mut state = self.lock();
                if state.mailbox_changes != changes || state.machine.mailbox().is_some() {
                    return;
                }
                handle(&mut state.machine, ObserverInput::Opened(&mailbox))
            };
            self.perform(actions);
        });
    }

    /// Stores an outcome, unless a kept session reports the same mail.
    async fn store(self: &Arc<Self>, outcome: ObserverOutcome) {
        {
            let mut state = self.lock();
            // Under the lock: a client that waits closes the kept session, and then takes what was postponed.
            if self.is_watching() {
                state.postponed = Some(match state.postponed.take() {
                    Some(before) => before.and(outcome),
                    None => outcome,
                });
                return;
            }
        }
        let mut announce = self.announce(&outcome);
        let news_next = outcome.news_next();
        let ObserverOutcome { mailbox, mut position, since, .. } = outcome;
        // Another session of the account may have found it first.
        let positions = self.registry().positions(&self.account).await.unwrap_or_default();
        let known = position_of(positions, &mailbox)
            .filter(|known| known.uid_validity == position.uid_validity);
        if let Some(known) = known {
            handle(&mut self.lock().machine, ObserverInput::Advanced(known));
            if known.uid_next >= position.uid_next && (outcome.is_fetched || !outcome.announce) {
                return;
            }
            if news_next.is_some_and(|next| known.uid_next >= next) {
                announce = Announce::Nothing;
            }
            position.uid_next = position.uid_next.max(known.uid_next);
        }
        let look = Look { position, news_next: news_next.unwrap_or(position.uid_next) };
        let is_push = announce != Announce::Nothing;
        let stored = self.registry().noticed(&self.account, &mailbox, look, announce).await;
        match stored {
            Ok(noticed) => {
                let announce = is_push && noticed == Noticed::New;
                self.report_noticed(&mailbox, since, announce);
            }
            Err(error) => {
                debug!(
                    account = %self.account,
                    "cannot store the new mail of the client's session, tries again: {error}"
                );
                sleep(STORE_PAUSE).await;
                Arc::clone(self).input(ObserverInput::NotWritten);
            }
        }
    }

    /// Reports if a kept session watches the account now.
    fn is_watching(&self) -> bool {
        self.registry().get(&self.account).is_some_and(|account| account.kept.is_watching())
    }

    fn report_noticed(&self, mailbox: &str, since: Option<std::time::Instant>, announce: bool) {
        let Some(account) = self.registry().get(&self.account) else { return };
        let account = &account.telemetry;
        self.pool.context().report(&TelemetryEvent::Noticed { account, mailbox, announce, since });
    }

    /// The devices to wake: none whose own session has fetched the new mail.
    fn announce(&self, outcome: &ObserverOutcome) -> Announce {
        if !outcome.announce {
            return Announce::Nothing;
        }
        let account = self.registry().get(&self.account);
        let mut others = outcome
            .news()
            .zip(account)
            .map(|(news, account)| account.kept.devices_shown(&news))
            .unwrap_or_default();
        let at_once = self.pool.settings().wait_for_fetch.is_zero();
        others.extend(self.lock().device.clone().filter(|_| outcome.is_fetched || at_once));
        Announce::AllBut(others)
    }
}

/// The push filter for the messages that a client fetches. A client need not ask for the fields that show a chat message.
fn filter(pool: &SessionPool, account: &AccountId) -> PushFilter {
    let filter = pool.context().push_filter(account);
    let messages = if filter.messages == Messages::Chat { Messages::All } else { filter.messages };
    PushFilter { messages, ..filter }
}

fn position_of(positions: Vec<(MailboxName, Position)>, mailbox: &str) -> Option<Position> {
    positions.into_iter().find(|(name, _)| *name == *mailbox).map(|(_, position)| position)
}

fn handle(machine: &mut NewMailObserver, input: ObserverInput<'_>) -> Vec<ObserverAction> {
    let mut actions = Vec::new();
    machine.handle(input, now(), &mut actions);
    actions
}
