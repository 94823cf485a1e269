//! The journal, shared by those who work on different VFs at the same time.
//!
//! Only the writing of records takes turns; what is recorded is done without holding anything. A plan, whose steps follow
//! each other, has the journal for itself meanwhile.

use std::ops::{Deref, DerefMut};

use tokio::sync::{Mutex, MutexGuard, watch};

use super::attachment::Attachment;
use super::journal::{Journal, JournalError, State};
use crate::pods::Key;

/// The journal, and who wants to know what it amounts to.
#[derive(Debug)]
pub(super) struct Ledger {
    journal: Mutex<Journal>,
    publish: watch::Sender<State>,
}

/// The journal, for as long as this lives; everybody learns what it amounts to at the end.
pub(super) struct Writing<'a> {
    journal: MutexGuard<'a, Journal>,
    publish: &'a watch::Sender<State>,
}

impl Ledger {
    pub(super) fn new(journal: Journal) -> Self {
        let publish = watch::Sender::new(journal.state().clone());
        Self { journal: Mutex::new(journal), publish }
    }

    /// What the journal amounts to, now and after each change.
    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.publish.subscribe()
    }

    /// The attachment called `key`, as it is recorded.
    pub(super) fn attachment(&self, key: &Key) -> Option<Attachment> {
        self.publish.borrow().attachments.get(key).cloned()
    }

    /// All attachments, as they are recorded.
    pub(super) fn attachments(&self) -> Vec<Attachment> {
        self.publish.borrow().attachments.values().cloned().collect()
    }

    /// Asks something of what is recorded.
    pub(super) fn with_state<T>(&self, ask: impl FnOnce(&State) -> T) -> T {
        ask(&self.publish.borrow())
    }

    /// The journal, once nobody else has it.
    pub(super) async fn write(&self) -> Writing<'_> {
        Writing { journal: self.journal.lock().await, publish: &self.publish }
    }

    /// Records a pod's VF, before what it says is done.
    pub(super) async fn record(&self, attachment: Attachment) -> Result<(), JournalError> {
        self.write().await.attachment(attachment)
    }

    /// The VF is nobody's again.
    pub(super) async fn released(&self, key: &Key) -> Result<(), JournalError> {
        self.write().await.released(key)
    }
}

impl Deref for Writing<'_> {
    type Target = Journal;

    fn deref(&self) -> &Journal {
        &self.journal
    }
}

impl DerefMut for Writing<'_> {
    fn deref_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let now = self.journal.state();
        self.publish.send_if_modified(|known| {
            let news = known != now;
            if news {
                known.clone_from(now);
            }
            news
        });
    }
}
