//! The parsers of the vendors' streams, each over a gigabyte made of its recorded streams, again and again.
//!
//! What is counted is CPU time of this thread, user and system: other programs take turns on the same cores.

use std::fs;
use std::hint::black_box;

use anyhow::{Context, Result, ensure};
use conductor_core::agents::Stream;
use conductor_core::agents::stream::{Vendor, parser};
use nix::time::{ClockId, clock_gettime};

use crate::report::{Limit, Report};

const STREAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/streams");
/// Bytes of a stream.
const LENGTH: u64 = 1 << 30;
/// Bytes that are given to the parser at once, as conductord reads them.
const PIECE: usize = 256 << 10;
/// Bytes of recorded lines that are repeated.
const REPEATED: usize = 4 << 20;

const MB: f64 = 1e6;
const MIB: f64 = 1024.0 * 1024.0;

/// Vendors, and how the names of their recorded streams begin.
const VENDORS: [(Vendor, &str, &str); 5] = [
    (Vendor::Claude, "", "claude-"),
    (Vendor::Codex, "", "codex-"),
    (Vendor::Gemini, "", "gemini-"),
    (Vendor::Grok, "", "grok-"),
    (Vendor::Rest, "/by-hand", "rest-"),
];

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    for (vendor, folder, prefix) in VENDORS {
        let lines = recorded(&format!("{STREAMS}{folder}"), prefix)?;
        let before = resident()?;
        let (mut parser, mut events, mut done, mut largest) = (parser(vendor), 0u64, 0u64, before);
        let start = cpu()?;
        while done < LENGTH {
            for piece in lines.chunks(PIECE) {
                parser.feed(Stream::Stdout, piece, &mut |event| {
                    black_box(&event);
                    events += 1;
                });
            }
            done += lines.len() as u64;
            largest = largest.max(resident()?);
        }
        parser.finish(&mut |_| events += 1);
        let seconds = cpu()? - start;
        ensure!(parser.summary().lines > 0 && events > 0, "nothing was read");
        report.row(
            format!("parser of {vendor:?} over 1 GiB"),
            done as f64 / MB / seconds,
            "MB/s",
            Limit::AtLeast(200.0),
            format!(
                "all recorded streams of {prefix}* again and again, in pieces of {} KiB, CPU time of one thread {seconds:.2} s; {} \
                 lines, {events} events; resident memory grew by {:.1} MiB",
                PIECE >> 10,
                parser.summary().lines,
                (largest - before) / MIB
            ),
        );
    }
    Ok(())
}

/// The recorded streams of a vendor, repeated to some megabytes.
fn recorded(folder: &str, prefix: &str) -> Result<Vec<u8>> {
    let mut names: Vec<_> =
        fs::read_dir(folder).with_context(|| folder.to_owned())?.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
    names.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // What `gemini -o json` writes is no stream.
        name.starts_with(prefix) && name.ends_with(".jsonl") && name != "gemini-json.jsonl"
    });
    names.sort_unstable();
    let mut once = Vec::new();
    for name in &names {
        once.extend(fs::read(name)?);
    }
    ensure!(!once.is_empty(), "no recorded streams {prefix}* in {folder}");
    Ok(once.repeat(REPEATED.div_ceil(once.len())))
}

/// CPU time of this thread in seconds.
fn cpu() -> Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}

/// Resident memory of this process in bytes.
fn resident() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = text.split(' ').nth(1).context("statm has a second field")?.parse()?;
    Ok(pages * 4096.0)
}
