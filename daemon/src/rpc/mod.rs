//! The gRPC services. Handlers decode, call one method of the core, encode, and map the error; nothing is decided here.

mod agent;
mod bus;
mod context;
mod daemon;
mod deadline;
mod details;
mod error;
mod events;
mod events_proto;
mod file_watch;
mod from_proto;
mod log;
mod project;
mod requests;
mod run;
mod server;
mod streams;
mod task;
mod to_proto;
mod usage;
mod watch;

pub use context::Context;
pub use deadline::UNARY_DEADLINE;
pub use events_proto::Encoder;
pub use file_watch::FileWatch;
pub use server::{Health, serve};
pub use streams::Streams;
