//! The harness of Conductor's end-to-end tests: a sandbox, the real daemon in it, typed calls and the command line.
//!
//! It builds nothing: the programs are expected beside the test executable, where `make test` puts them. It knows the
//! daemon only by its command line, its socket and its files, never by its code.

pub mod checks;
pub mod client;
pub mod config;
pub mod ctl;
pub mod daemon;
pub mod entries;
pub mod procs;
pub mod python;
pub mod sandbox;
pub mod tree;
pub mod vendors;
pub mod wait;

pub use client::{Client, Refusal, Submit};
pub use config::Config;
pub use ctl::Output;
pub use daemon::Daemon;
pub use procs::Process;
pub use sandbox::{Sandbox, in_given_sandbox, in_sandbox};
pub use wait::{DEADLINE, wait_for, wait_until};
