//! The Ralph loop as a pure function: `step(state, event) -> effects`.
//!
//! No I/O, no lock and no clock is used here: time and chance come in with the [`Context`], and everything that is to
//! happen goes out as [`Effect`]s, which the supervisor performs in order and answers with further events.
//!
//! ```text
//!            ┌────────────────────────── Resume (DONE set aside) ───────────────────────────┐
//!            ▼                                                                              │
//! Begin → Queued ─SlotGranted→ Starting ─Checked(absent), Prepared→ Running ─RunEnded→ (Checked) ─→ Finished
//!            ▲                    │ DONE is there                                │  │         ▲
//!            │                    └───────────────► WaitingChildren ◄────────────┘  │         │
//!            │                                        │ none lives, or time is up ──┼─────────┤
//!            ├───── Timer ──── Backoff ◄──────── no DONE, attempts left ────────────┤         │
//!            └─ reset, lifted ─ WaitingLimit ◄── refused by a usage limit (or before a start) ┘         │
//!                     any phase ─ Stop or Cancel ─► Stopping (while a run lives) ─────────────┘
//! ```
//!
//! What a crash of conductord leaves behind, and what recovery makes of it. The state is written durably
//! ([`Effect::Persist`]) exactly where a repetition would be noticed by somebody:
//!
//! | state on disk | then |
//! | --- | --- |
//! | `queued`, `backoff`, no run | the task queues again, or waits for the rest of its pause |
//! | `waiting_limit` | it waits on until the reset, a time of day, then goes on in the same attempt and session |
//! | `running` with a run id, no trace of the run | it never started: the same attempt begins again, with the messages it was to carry |
//! | `running` with a run id, run alive | the run is watched as if nothing had happened |
//! | `running` with a run id, run ended | [`Event::RunEnded`] is delivered (again): every entry it posts has a key, so that none is posted twice |
//! | `waiting_children` | it waits on, for the rest of its time |
//! | an intent to stop | it is carried out; nothing starts |
//! | `finished` with entries in the outbox | they are posted unless their key is found |

mod outbox;
mod policy;
mod state;
mod step;
#[cfg(test)]
mod tests;

pub use outbox::{BusTarget, PostIntent};
pub use policy::{BackoffPolicy, backoff_delay};
pub use state::{AccountLimit, Interruption, LastRun, LoopState, RunEnd, UNKNOWN_LIMIT_PAUSE};
pub use step::{Context, DoneMarker, Effect, Event, IDLE_WARNING, step};
