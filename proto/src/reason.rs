//! The `reason` of the `google.rpc.ErrorInfo` that every error carries; its `domain` is [`DOMAIN`].

/// Domain of every reason here.
pub const DOMAIN: &str = "conductor.dev";

/// A field has no valid value; `BadRequest` names it. Code `INVALID_ARGUMENT`.
pub const INVALID_FIELD: &str = "INVALID_FIELD";
/// No such project, task, run or file. Code `NOT_FOUND`.
pub const NOT_FOUND: &str = "NOT_FOUND";
/// A shortened id fits more than one; the metadata `candidates` lists some. Code `INVALID_ARGUMENT`.
pub const AMBIGUOUS_ID: &str = "AMBIGUOUS_ID";
/// The id is taken. Code `ALREADY_EXISTS`.
pub const ALREADY_EXISTS: &str = "ALREADY_EXISTS";
/// The request id was used with another content. Code `ALREADY_EXISTS`.
pub const REQUEST_ID_REUSED: &str = "REQUEST_ID_REUSED";
/// The resource is not in a state that allows this. Code `FAILED_PRECONDITION`.
pub const WRONG_STATE: &str = "WRONG_STATE";
/// It belongs to another program. Code `FAILED_PRECONDITION`.
pub const FOREIGN: &str = "FOREIGN";
/// The caller may not do this. Code `PERMISSION_DENIED`.
pub const DENIED: &str = "DENIED";
/// The caller is inside a run and did not present its token. Code `UNAUTHENTICATED`.
pub const TOKEN_REQUIRED: &str = "TOKEN_REQUIRED";
/// A cursor that is not in the bus. Code `NOT_FOUND`.
pub const UNKNOWN_CURSOR: &str = "UNKNOWN_CURSOR";
/// The page token is not of this list. Code `INVALID_ARGUMENT`.
pub const BAD_PAGE_TOKEN: &str = "BAD_PAGE_TOKEN";
/// A revision that is too old or of another epoch. Code `OUT_OF_RANGE`.
pub const REVISION_COMPACTED: &str = "REVISION_COMPACTED";
/// An offset beyond the end of a log. Code `OUT_OF_RANGE`.
pub const BEYOND_END: &str = "BEYOND_END";
/// The reader was too slow; it resumes where it was. Code `RESOURCE_EXHAUSTED`.
pub const SLOW_READER: &str = "SLOW_READER";
/// A named limit is reached; the message says which. Code `RESOURCE_EXHAUSTED`.
pub const LIMIT: &str = "LIMIT";
/// The disk is full. Code `RESOURCE_EXHAUSTED`.
pub const DISK_FULL: &str = "DISK_FULL";
/// Another program holds a bus lock. Code `UNAVAILABLE`, with `RetryInfo`.
pub const BUS_LOCKED: &str = "BUS_LOCKED";
/// The daemon is ending. Code `UNAVAILABLE`, with `RetryInfo`.
pub const SHUTTING_DOWN: &str = "SHUTTING_DOWN";
/// The agent is not configured, not installed or not executable. Code `FAILED_PRECONDITION`.
pub const AGENT_UNAVAILABLE: &str = "AGENT_UNAVAILABLE";
/// The configuration file is not valid. Code `FAILED_PRECONDITION`.
pub const CONFIG_INVALID: &str = "CONFIG_INVALID";
/// A fault of Conductor or of the machine under it. Code `INTERNAL`.
pub const INTERNAL: &str = "INTERNAL";
/// This daemon has no such call. Code `UNIMPLEMENTED`.
pub const UNIMPLEMENTED: &str = "UNIMPLEMENTED";
/// The call took longer than its deadline. Code `DEADLINE_EXCEEDED`.
pub const DEADLINE: &str = "DEADLINE";
