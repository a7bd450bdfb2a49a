//! The target of this name in `targets.rs`.
#![no_main]

conductor_fuzz::run!();
