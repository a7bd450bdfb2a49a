//! What Conductor does, without any wire format.
//!
//! Layers, each of which uses only those after it: [`supervisor`] → [`ralph`], [`runner`], [`bus`], [`store`],
//! [`agents`], [`config`] → [`types`]. There is no gRPC, HTTP or command line here (`Cargo.toml` proves it), and loop
//! policy ([`ralph`]) is a pure function.

pub mod agents;
pub mod bus;
pub mod config;
pub mod ralph;
pub mod runner;
pub mod store;
pub mod supervisor;
pub mod types;
