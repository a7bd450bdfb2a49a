//! The daemon's Unix socket: making it, accepting on it, and what an accepted connection is.
//!
//! Nothing here knows a service; rights are judged in [`crate::auth`].

pub mod authority;
