//! The daemon's Unix socket: making it, accepting on it, and what an accepted connection is.
//!
//! Nothing here knows a service; what a caller may do is judged in [`crate::auth`].

mod accept;
pub mod authority;
mod listen;
mod peer;
mod stream;

pub use accept::{MAX_CONNECTIONS, MAX_CONNECTIONS_OF_PROCESS, accept};
pub use listen::{ListenError, Listener};
pub use peer::{Admission, Origin, Peer};
pub use stream::PeerStream;
