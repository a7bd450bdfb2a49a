//! One process: its identity, its state, and signals that can reach no other process.
//!
//! A pid alone names nothing: it is reused. Here a process is a pid with its start time, within one boot and pid
//! namespace, and a signal goes through a pidfd that was verified against them. Whole trees are [`crate::tree`]'s.

pub use crate::protocol::{Identity, Instance};
use std::io;

#[cfg(target_os = "linux")]
#[path = "process/linux.rs"]
mod system;
#[cfg(target_os = "macos")]
#[path = "process/macos.rs"]
mod system;

#[cfg(target_os = "linux")]
pub use system::{Pidfd, exit_status_supported, parse_stat, zombie_status};
pub use system::{environment, instance, stat};

/// The environment variable by which the processes of a run are recognised.
pub const RUN_ID_VARIABLE: &str = "CONDUCTOR_RUN_ID";

/// What the kernel says about one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Process id.
    pub pid: i32,
    /// Command name, at most 15 bytes, as the kernel has it (not trusted: a process can set it).
    pub name: String,
    /// State letter: `R` running, `S` sleeping, `D` uninterruptible, `T` stopped, `t` traced, `Z` zombie, `X` dead.
    pub state: char,
    /// Parent's pid.
    pub ppid: i32,
    /// Process group.
    pub pgid: i32,
    /// Session.
    pub sid: i32,
    /// Number of threads.
    pub threads: u32,
    /// User CPU time of its own, in clock ticks.
    pub user_ticks: u64,
    /// System CPU time of its own, in clock ticks.
    pub system_ticks: u64,
    /// CPU time of the children that it has waited for, and of theirs, in clock ticks; 0 where the system keeps none.
    pub waited_ticks: u64,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
}

impl Stat {
    /// Whether it can still run code. A zombie whose first thread alone has ended still can.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x') || self.threads > 1
    }

    /// Pid and start time.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { pid: self.pid, start_ticks: self.start_ticks }
    }
}

/// The identity of the process that has `pid` now.
///
/// # Errors
/// `NotFound` if there is none.
pub fn identity(pid: i32) -> io::Result<Identity> {
    stat(pid).map(|stat| stat.identity())
}

/// Whether exactly this process exists and can run code.
#[must_use]
pub fn is_alive(identity: &Identity) -> bool {
    stat(identity.pid).is_ok_and(|stat| stat.start_ticks == identity.start_ticks && stat.is_alive())
}

/// The value of `name` in a block of `NAME=value` strings that each end in NUL.
#[must_use]
pub fn environment_value<'a>(block: &'a [u8], name: &str) -> Option<&'a [u8]> {
    block.split(|&byte| byte == 0).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_variable_is_found_by_its_whole_name() {
        let block = b"A=1\0CONDUCTOR_RUN_ID_X=no\0CONDUCTOR_RUN_ID=run-7\0B=\0";
        assert_eq!(environment_value(block, RUN_ID_VARIABLE), Some(&b"run-7"[..]));
        assert_eq!(environment_value(block, "B"), Some(&b""[..]));
        assert_eq!(environment_value(block, "CONDUCTOR"), None);
    }

    #[test]
    fn this_test_is_alive_and_a_process_with_another_start_time_is_not() {
        let me = identity(std::process::id() as i32).unwrap();
        assert!(is_alive(&me));
        assert!(!is_alive(&Identity { start_ticks: me.start_ticks + 1, ..me }));
    }
}
