//! The tree of files, and the index of it in memory.
//!
//! [`Root`] is the only way to a path below the root; [`scan()`] reads the whole tree at start; [`Catalog`] is what
//! readers ask. Blocking I/O only: an async caller uses `spawn_blocking`. There is no task policy here, and nothing
//! here starts, signals or ends a process. Message buses are files of [`crate::bus`]; the store knows only their places.

pub mod catalog;
mod confined;
mod daemon_lock;
mod error;
pub mod foreign;
pub mod ids;
pub mod liveness;
pub mod project;
pub mod root;
pub mod run_info;
pub mod scan;
pub mod task_file;
pub mod yaml;

pub use catalog::{Catalog, ProjectRecord, TaskRecord};
pub use confined::FileRange;
pub use daemon_lock::{DaemonLock, Holder};
pub use error::StoreError;
pub use ids::IdSource;
pub use root::Root;
pub use scan::{Scan, ScannedProject, ScannedRun, ScannedTask, scan};
pub use task_file::{RequestRecord, TaskFile};
