//! A Python with the stock gRPC client, in a cache folder outside the checkout.
//!
//! Made once per pinned version; the tests of several processes wait for one another.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What the stock client needs, one pinned package a line.
const REQUIREMENTS: &str = include_str!("../clients/python/requirements.txt");

/// The interpreter with the packages of `tests/clients/python/requirements.txt`.
///
/// # Errors
/// There is no `python3` with `venv`, or the packages can't be installed.
pub fn interpreter() -> Result<PathBuf> {
    let cache = cache_folder()?;
    fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join("python.lock"))?;
    lock.lock()?;
    let folder = cache.join(format!("python-{:08x}", crc(REQUIREMENTS)));
    let python = folder.join("bin/python");
    if folder.join("complete").exists() {
        return Ok(python);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))
        .context("making a Python environment (Debian: apt-get install python3-venv)")?;
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python/requirements.txt");
    let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "-r"];
    run(Command::new(&python).args(quiet).arg(requirements)).context("installing grpcio")?;
    File::create(folder.join("complete"))?;
    Ok(python)
}

/// `$XDG_CACHE_HOME/conductor`, else `~/.cache/conductor`.
///
/// # Errors
/// Neither is known.
pub fn cache_folder() -> Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Ok(cache.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set")?.join("conductor"))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    Ok(())
}

/// A short name for a text; it need not resist anybody.
fn crc(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
