//! A reader that waits for what comes. It keeps a place in the file and a short page, so a slow one holds nobody up and
//! loses nothing: it reads on from its place.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::chain::Place;
use super::error::BusError;
use super::shared::Shared;
use super::watch::Interest;
use crate::types::{Message, MessageId};

/// Messages read ahead at most.
const AHEAD: usize = 256;
/// Bytes read ahead at most, but for one message.
const AHEAD_BYTES: u64 = 1 << 20;

/// A stream of the messages of one bus, in its order, without end.
pub struct Follower {
    shared: Arc<Shared>,
    place: Option<Place>,
    last: Option<MessageId>,
    ahead: VecDeque<Message>,
    skipped: u64,
    damaged: u64,
    revision: watch::Receiver<u64>,
    _interest: Interest,
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, place: Option<Place>, last: Option<MessageId>) -> Self {
        let mut revision = shared.revision.subscribe();
        // The first look is always made.
        revision.mark_changed();
        let interest = Interest::new(shared.clone());
        Self { shared, place, last, ahead: VecDeque::new(), skipped: 0, damaged: 0, revision, _interest: interest }
    }

    /// Waits for the next message. Cancel-safe: a dropped call loses nothing.
    ///
    /// # Errors
    /// [`BusError::UnknownCursor`] if another program cut or rewrote the file so that the last message is gone;
    /// failures to read. After an error the call may be repeated.
    pub async fn next(&mut self) -> Result<Message, BusError> {
        loop {
            if let Some(message) = self.ahead.pop_front() {
                self.last = Some(message.id.clone());
                return Ok(message);
            }
            if self.revision.changed().await.is_err() {
                return Err(BusError::Closed);
            }
            // Until the page is taken over, a dropped call must look again.
            self.revision.mark_changed();
            let (shared, place, last) = (self.shared.clone(), self.place.clone(), self.last.clone());
            let seen = *self.revision.borrow();
            let stretch = super::blocking(move || {
                shared.sync()?;
                match shared.chain.read(place, AHEAD, AHEAD_BYTES) {
                    Err(BusError::Rewritten(_)) => {
                        let place = last.map(|last| shared.chain.locate(&last)).transpose()?;
                        shared.chain.read(place, AHEAD, AHEAD_BYTES)
                    }
                    other => other,
                }
            })
            .await?;
            self.place = stretch.place;
            self.skipped += stretch.skipped;
            self.damaged += stretch.damaged;
            let more = stretch.more;
            self.ahead.extend(stretch.messages);
            let now = *self.revision.borrow_and_update();
            if more || now != seen {
                self.revision.mark_changed();
            }
        }
    }

    /// Records that were lost to damage so far, in what this follower has read.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Messages so far whose checksum did not hold.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }
}
