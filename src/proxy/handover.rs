//! Handover of a client's upstream session when the client disconnects: it is drained and given to the [pool of kept
//! sessions](crate::push::watcher::session_pool). While the client is connected, new mail seen in its session wakes the
//! account's other devices.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;

use super::drain::session_at_rest;
use super::relay::OrphanedSession;
use super::session::{ChangedState, ObservedEvent};
use crate::account::AccountId;
use crate::clock::now;
use crate::machine::Machine;
use crate::push::filter::PushFilter;
use crate::push::idle::InheritedState;
use crate::push::observer::{NewMailObserver, ObserverAction, ObserverInput, ObserverOutcome};
use crate::push::registry::Registry;
use crate::push::watcher::session_pool::{Abilities, Given, Presence, ResumeTicket, SessionPool};
use crate::secret::DeviceToken;
use crate::store::Announce;

/// Longest time until it is stored that a client waits in a mailbox.
const NOTING_TIME: Duration = Duration::from_secs(1);

/// News that could not be noted is tried again after this.
const STORE_PAUSE: Duration = Duration::from_secs(10);

/// A session that may outlive its client.
pub(super) struct SessionHandover {
    watch: Arc<SessionWatch>,
    presence: Presence,
    abilities: Abilities,
    since: Instant,
    ticket: Option<Arc<ResumeTicket>>,
}

/// The additions to a login where sessions are kept.
#[derive(Default)]
pub(super) struct Returned {
    /// The ticket for which the session may be given back when it was kept.
    pub(super) ticket: Option<Arc<ResumeTicket>>,
    /// That its client is there, if it was kept and handed back.
    pub(super) presence: Option<Presence>,
}

/// The observers of the session's traffic.
struct SessionWatch {
    keeper: SessionPool,
    registry: Registry,
    account: AccountId,
    seen: Mutex<ObservedState>,
}

#[derive(Default)]
struct ObservedState {
    eye: NewMailObserver,
    judge: PushFilter,
    /// New mail that a kept session is expected to report, and that is reported here if it does not.
    left: Option<ObserverOutcome>,
    /// The token of the session's own device.
    device: Option<DeviceToken>,
    /// Number of times that another mailbox was opened, or none.
    turns: u64,
}

impl SessionHandover {
    /// The handover of a session of the account: one that is `returned`, or a new one.
    pub(super) fn new(
        keeper: &SessionPool,
        registry: &Registry,
        account: &AccountId,
        abilities: Abilities,
        returned: Returned,
    ) -> Self {
        let watch = Arc::new(SessionWatch {
            keeper: keeper.clone(),
            registry: registry.clone(),
            account: account.clone(),
            seen: Mutex::new(ObservedState {
                judge: keeper.judge(account),
                ..ObservedState::default()
            }),
        });
        let presence = returned.presence.unwrap_or_else(|| keeper.client(account));
        Self { watch, presence, abilities, since: Instant::now(), ticket: returned.ticket }
    }

    pub(super) fn client_waits(&self, mailbox: &str) {
        self.presence.waits_in(mailbox);
        let (left, is_looking) = {
            let mut seen = self.watch.lock();
            (seen.left.take(), seen.eye.mailbox().is_some())
        };
        if let Some(left) = left {
            // The kept session that was to tell it may have been let go just now, before it could.
            let watch = Arc::clone(&self.watch);
            tokio::spawn(async move { watch.note(left).await });
        }
        if !is_looking {
            Arc::clone(&self.watch).look_again(mailbox.to_owned());
        }
    }

    pub(super) fn has_device(&self, token: &DeviceToken) {
        self.watch.lock().device.get_or_insert_with(|| token.clone());
    }

    pub(super) fn looks_for_mail(&self) -> bool {
        self.watch.lock().eye.looks()
    }

    pub(super) fn sees(&self, glimpse: ObservedEvent<'_>) {
        let watch = &self.watch;
        let mut seen = watch.lock();
        let ObservedState { eye, judge, left, device, turns } = &mut *seen;
        let input = match glimpse {
            ObservedEvent::Opening | ObservedEvent::Closed => {
                self.presence.waits_no_more();
                *turns = turns.wrapping_add(1);
                *left = None;
                ObserverInput::Closed
            }
            ObservedEvent::Opened(mailbox) => ObserverInput::Opened(mailbox),
            ObservedEvent::Response(line) => {
                judge.encrypted_only = watch.keeper.fetches_encrypted_only(&watch.account);
                ObserverInput::Response { line, filter: judge }
            }
            ObservedEvent::Fetched { from } => {
                if let (Some(_), Some(token), Some(shown)) = (from, device, eye.shown()) {
                    watch.keeper.device_knows(&watch.account, token, shown);
                }
                ObserverInput::Fetched(from)
            }
        };
        let actions = handle(eye, input);
        drop(seen);
        Arc::clone(watch).act(actions);
    }

    /// The client is gone.
    pub(super) fn take(self, left: OrphanedSession) {
        tokio::spawn(self.bring_to_rest(left));
    }

    async fn bring_to_rest(mut self, left: OrphanedSession) {
        let (keeper, account) = (self.watch.keeper.clone(), self.watch.account.clone());
        let OrphanedSession { mut stream, unsent, mut session, mut trace } = left;
        self.presence.waits_no_more();
        self.watch.turn();
        if !keeper.needs(&account) {
            debug!(
                %account,
                "session not kept: the account has no device, or another of its clients waits for new mail"
            );
            return keeper.log_out_when_at_rest(
                session_at_rest(&mut stream, &unsent, &mut session, &mut trace).await,
                stream,
            );
        }
        match session_at_rest(&mut stream, &unsent, &mut session, &mut trace).await {
            Ok(()) => {
                let set = session.set();
                let manners = InheritedState { utf8: set.utf8, notify: set.notify };
                let (abilities, since) = (self.abilities, self.since);
                let ticket = self.ticket.take().filter(|_| set == ChangedState::default());
                keeper.keep(Given { account, stream, trace, abilities, manners, since, ticket });
            }
            Err(reason) => {
                debug!(%account, "session not kept: {reason}");
                self.presence.reason = reason;
            }
        }
    }
}

impl SessionWatch {
    fn lock(&self) -> MutexGuard<'_, ObservedState> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another mailbox is open now, or none.
    fn turn(&self) {
        let mut seen = self.lock();
        seen.turns = seen.turns.wrapping_add(1);
    }

    /// Does what the machine asks for, one thing after the other. Each may take long, and the relay waits for none.
    fn act(self: Arc<Self>, actions: Vec<ObserverAction>) {
        if actions.is_empty() {
            return;
        }
        tokio::spawn(async move {
            for action in actions {
                match action {
                    ObserverAction::Compare => Arc::clone(&self).compare().await,
                    ObserverAction::Wait => {
                        sleep(self.keeper.settings().wait_for_fetch).await;
                        Arc::clone(&self).input(ObserverInput::Waited);
                    }
                    ObserverAction::Note(outcome) => self.note(outcome).await,
                }
            }
        });
    }

    fn input(self: Arc<Self>, input: ObserverInput<'_>) {
        let actions = handle(&mut self.lock().eye, input);
        self.act(actions);
    }

    async fn compare(self: Arc<Self>) {
        let (turn, mailbox) = {
            let seen = self.lock();
            (seen.turns, seen.eye.mailbox().map(str::to_owned))
        };
        let Some(mailbox) = mailbox else { return };
        if !self.keeper.wants(&self.account)
            || !self.keeper.is_watched_mailbox(&self.account, &mailbox)
        {
            let mut seen = self.lock();
            if seen.turns == turn {
                handle(&mut seen.eye, ObserverInput::Unwatched);
            }
            return;
        }
        let positions = loop {
            match self.registry.positions(&self.account).await {
                Ok(positions) => break positions,
                // Until it was compared, nothing that comes is told.
                Err(_) => sleep(STORE_PAUSE).await,
            }
            if self.lock().turns != turn {
                return;
            }
        };
        let noted =
            positions.into_iter().find(|(name, _)| *name == *mailbox).map(|(_, position)| position);
        let actions = {
            let mut seen = self.lock();
            // What is noted of one mailbox says nothing of another that is open by now.
            if seen.turns != turn {
                return;
            }
            handle(&mut seen.eye, ObserverInput::Noted(noted))
        };
        self.act(actions);
    }

    /// That a client waits in a mailbox makes it one that is watched, once it is noted.
    fn look_again(self: Arc<Self>, mailbox: String) {
        let turn = self.lock().turns;
        tokio::spawn(async move {
            sleep(NOTING_TIME).await;
            let actions = {
                let mut seen = self.lock();
                if seen.turns != turn || seen.eye.mailbox().is_some() {
                    return;
                }
                handle(&mut seen.eye, ObserverInput::Opened(&mailbox))
            };
            self.act(actions);
        });
    }

    /// Notes what was found, unless a kept session does it.
    async fn note(self: &Arc<Self>, outcome: ObserverOutcome) {
        {
            let mut seen = self.lock();
            // Under the lock: a client that waits lets the kept session go, and then looks what was left to it.
            if self.keeper.is_watching(&self.account) {
                seen.left = Some(match seen.left.take() {
                    Some(before) => before.and(outcome),
                    None => outcome,
                });
                return;
            }
        }
        let announce = self.announce(&outcome);
        let ObserverOutcome { mailbox, mut position, since, .. } = outcome;
        // Another session of the account may have looked.
        let positions = self.registry.positions(&self.account).await.unwrap_or_default();
        let known =
            positions.into_iter().find(|(name, _)| *name == mailbox).map(|(_, known)| known);
        if let Some(known) = known.filter(|known| known.uid_validity == position.uid_validity) {
            handle(&mut self.lock().eye, ObserverInput::Advanced(known));
            if known.uid_next >= position.uid_next && (outcome.is_fetched || !outcome.announce) {
                return;
            }
            position.uid_next = position.uid_next.max(known.uid_next);
        }
        let noted = self.registry.noticed(&self.account, &mailbox, position, announce).await;
        match noted {
            Ok(()) => self.keeper.tell_noticed(&self.account, &mailbox, since, outcome.announce),
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

    /// The devices to wake: none whose own session has fetched the new mail.
    fn announce(&self, outcome: &ObserverOutcome) -> Announce {
        if !outcome.announce {
            return Announce::Nothing;
        }
        let mut others = outcome
            .news()
            .map(|news| self.keeper.who_knows(&self.account, &news))
            .unwrap_or_default();
        let at_once = self.keeper.settings().wait_for_fetch.is_zero();
        others.extend(self.lock().device.clone().filter(|_| outcome.is_fetched || at_once));
        Announce::AllBut(others)
    }
}

fn handle(eye: &mut NewMailObserver, input: ObserverInput<'_>) -> Vec<ObserverAction> {
    let mut actions = Vec::new();
    eye.handle(input, now(), &mut actions);
    actions
}
