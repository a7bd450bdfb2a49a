//! Names of the request metadata that Conductor reads.

/// `Bearer <run token>`: proves that a caller inside a run is that run.
pub const AUTHORIZATION: &str = "authorization";

/// Free text that a client sends to find its call again in the daemon's log; at most 128 characters.
pub const REQUEST_ID: &str = "x-conductor-request-id";
