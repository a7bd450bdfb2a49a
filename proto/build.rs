//! Compiles the proto files without protoc and keeps their descriptors for reflection.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=conductor");
    let files = [
        "types",
        "project_service",
        "task_service",
        "run_service",
        "bus_service",
        "watch_service",
        "agent_service",
        "usage_service",
        "daemon_service",
    ];
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true);
    for file in files {
        compiler.open_file(format!("conductor/v1/{file}.proto"))?;
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
