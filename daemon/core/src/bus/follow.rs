//! A reader that waits for what comes. It keeps a place in the file and a short page, so a slow one holds nobody up and
//! loses nothing: it reads on from its place.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::chain::{Place, Stretch};
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
    /// It began at the end, and knows no message by which it could go on.
    fresh: bool,
    skipped: u64,
    damaged: u64,
    revision: watch::Receiver<u64>,
    _interest: Interest,
}

impl Follower {
    /// Follows from behind the message `last`, or from the first one on.
    pub(super) fn behind(shared: Arc<Shared>, place: Option<Place>, last: Option<MessageId>) -> Self {
        Self::new(shared, place, last, false)
    }

    /// Follows what comes after `place`.
    pub(super) fn of_new(shared: Arc<Shared>, place: Option<Place>) -> Self {
        Self::new(shared, place, None, true)
    }

    fn new(shared: Arc<Shared>, place: Option<Place>, last: Option<MessageId>, fresh: bool) -> Self {
        let mut revision = shared.revision.subscribe();
        // The first look is always made.
        revision.mark_changed();
        let interest = Interest::new(shared.clone());
        let ahead = VecDeque::new();
        Self { shared, place, last, ahead, fresh, skipped: 0, damaged: 0, revision, _interest: interest }
    }

    /// Waits for the next message. Cancel-safe: a dropped call loses nothing.
    ///
    /// # Errors
    /// [`BusError::UnknownCursor`] if another program cut or rewrote the file so that the last message is gone (not for a
    /// follower of [`super::Bus::follow_new`], which goes on with what was not there before); failures to read. After an error the call may be repeated.
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
            let fresh = self.fresh;
            let seen = *self.revision.borrow();
            let stretch = super::blocking(move || {
                shared.sync()?;
                match shared.chain.read(place.clone(), AHEAD, AHEAD_BYTES) {
                    Err(BusError::Rewritten(_)) if fresh => match shared.chain.anew(place.clone()) {
                        Some(place) => shared.chain.read(Some(place), AHEAD, AHEAD_BYTES),
                        // Nothing stands there now.
                        None => Ok(Stretch::nothing(place)),
                    },
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
