//! What views of an agent's output need: a parser of its events, and what hides tokens in it. Nothing is read of runs.

use std::sync::Arc;

use super::Supervisor;
use crate::agents::{EventParser, Masks, plain_events};

impl Supervisor {
    /// A parser for the streams of a configured agent; for one that is configured no more they are plain text.
    #[must_use]
    pub fn event_parser(&self, agent: &str) -> Box<dyn EventParser> {
        self.0.shared.agents().get(agent).map_or_else(plain_events, |adapter| adapter.events())
    }

    /// What hides the tokens that are configured now. Reads token files outside of the runtime's own threads.
    pub async fn masks(&self) -> Masks {
        let shared = Arc::clone(&self.0.shared);
        super::perform::blocking(move || shared.agents().masks()).await
    }
}
