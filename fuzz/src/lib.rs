//! The fuzz targets and the main function that all of them share.

pub mod targets;

#[doc(hidden)]
pub use libfuzzer_sys;

/// The whole of a target's file: it runs the target that has the name of the file.
#[macro_export]
macro_rules! run {
    () => {
        use $crate::libfuzzer_sys;
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::targets::run(env!("CARGO_BIN_NAME"), data));
    };
}
