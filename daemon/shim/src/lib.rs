//! The modules that the shim and conductord share: the protocol files of one run, durable writes, kernel locks,
//! process identity, the process tree and its kill tiers.
//!
//! Nothing here knows a task, a bus or a network; nothing here needs an async runtime. The shim links this and the
//! standard library alone, so that it stays small (unique memory below 200 KiB) and can outlive any conductord.

pub mod cgroup;
pub mod durable;
pub mod failpoint;
pub mod lock;
pub mod process;
pub mod protocol;
pub mod tree;
