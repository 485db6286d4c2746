//! Questions to the node that watches an account: it alone has the watch and the history in memory.
//!
//! Nodes have no connection to each other. A question is an event of the log that all of them read, by a number, and so is the
//! answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tracing::debug;

use super::status::Reporter;
use super::timeline::AccountHistory;
use crate::account::AccountId;
use crate::push::registry::Registry;
use crate::store::{StoreError, StoredEvent};

/// Time limit for an answer. The log is read within moments of a change, and every five seconds if the notification is lost.
const LIMIT: Duration = Duration::from_secs(3);

/// Questions of this node that wait for an answer.
const MAX_OPEN: usize = 64;

/// Questions of other nodes that are answered at once; more are left out.
const MAX_ANSWERS: usize = 16;

/// Number of bytes of a question's number.
const NUMBER: usize = size_of::<u64>();

/// Questions and answers. Clones are handles of the same.
#[derive(Clone)]
pub struct AccountQuestions(Arc<Shared>);

struct Shared {
    registry: Registry,
    open: Mutex<HashMap<u64, oneshot::Sender<Vec<u8>>>>,
    answering: Arc<Semaphore>,
}

/// A question is open as long as this.
struct Open<'a>(&'a Shared, u64);

impl AccountQuestions {
    /// Questions about accounts that other nodes watch, and answers about those of `registry`.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        let answering = Arc::new(Semaphore::new(MAX_ANSWERS));
        Self(Arc::new(Shared { registry, open: Mutex::default(), answering }))
    }

    /// Asks the owner of the account for its history; nothing if it does not answer in time.
    pub(super) async fn ask(&self, account: &AccountId) -> Option<AccountHistory> {
        let (number, (answer, answered)) = (fastrand::u64(..), oneshot::channel());
        let open = Open(&self.0, number);
        {
            let mut questions = self.0.lock();
            if questions.len() >= MAX_OPEN {
                return None;
            }
            questions.insert(number, answer);
        }
        let asked = async {
            let event = StoredEvent::Ask(account.clone(), number.to_be_bytes().to_vec());
            self.0.registry.tell(event).await?;
            Ok::<_, StoreError>(answered.await.ok())
        };
        let answer = timeout(LIMIT, asked).await;
        drop(open);
        match answer {
            Ok(Ok(answer)) => serde_json::from_slice(&answer?).ok(),
            Ok(Err(error)) => {
                debug!(%account, "the account's node cannot be asked: {error}");
                None
            }
            Err(_) => {
                debug!(%account, "the account's node does not answer");
                None
            }
        }
    }

    /// Another node has answered a question, perhaps one of this node.
    pub fn answered(&self, answer: &[u8]) {
        let Some((number, text)) = answer.split_first_chunk::<NUMBER>() else { return };
        if let Some(question) = self.0.lock().remove(&u64::from_be_bytes(*number)) {
            // Nobody may wait any more.
            let _ = question.send(text.to_vec());
        }
    }

    /// Another node asks for an account. The owner answers, by a task.
    pub fn asked(&self, reporter: &Arc<Reporter>, account: AccountId, number: Vec<u8>) {
        if !self.0.registry.ownership().has(&account) {
            return;
        }
        let Ok(permit) = Arc::clone(&self.0.answering).try_acquire_owned() else { return };
        let (registry, reporter) = (self.0.registry.clone(), Arc::clone(reporter));
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = answer(&registry, &reporter, &account, number).await {
                debug!(%account, "another node's question cannot be answered: {error}");
            }
        });
    }
}

async fn answer(
    registry: &Registry,
    reporter: &Reporter,
    account: &AccountId,
    mut answer: Vec<u8>,
) -> Result<(), StoreError> {
    let Some(history) = reporter.own_account(account).await? else { return Ok(()) };
    // Texts and numbers: that cannot fail.
    answer.extend(serde_json::to_vec(&history).unwrap_or_default());
    registry.tell(StoredEvent::Answer(answer)).await
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Vec<u8>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreSettings;

    fn questions(directory: &tempfile::TempDir) -> AccountQuestions {
        let (registry, ..) = Registry::open(&StoreSettings::memory(directory.path())).unwrap();
        AccountQuestions::new(registry)
    }

    fn open(questions: &AccountQuestions) -> Option<u64> {
        questions.0.lock().keys().next().copied()
    }

    #[tokio::test(start_paused = true)]
    async fn question_without_an_answer_ends() {
        let directory = tempfile::tempdir().unwrap();
        let questions = questions(&directory);
        let account = AccountId::new("alice", "imap.example.org:993");
        assert_eq!(questions.ask(&account).await, None);
        assert_eq!(open(&questions), None);
        questions.answered(b"");
        questions.answered(b"nobody has asked");
    }

    #[tokio::test]
    async fn answer_goes_to_its_question_and_must_make_sense() {
        let directory = tempfile::tempdir().unwrap();
        let questions = questions(&directory);
        let asking = tokio::spawn({
            let questions = questions.clone();
            async move { questions.ask(&AccountId::new("alice", "imap.example.org:993")).await }
        });
        let number = loop {
            match open(&questions) {
                Some(number) => break number,
                None => tokio::task::yield_now().await,
            }
        };
        let other = number.wrapping_add(1).to_be_bytes();
        questions.answered(&[&other, &b"{}"[..]].concat());
        assert_eq!(open(&questions), Some(number));
        let begun = std::time::Instant::now();
        questions.answered(&[&number.to_be_bytes(), &b"{}"[..]].concat());
        assert_eq!(asking.await.unwrap(), None);
        assert!(begun.elapsed() < LIMIT);
    }
}
