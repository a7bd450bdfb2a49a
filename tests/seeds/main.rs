//! Replays the seeds of the fuzz targets (`fuzz/`) without a fuzzer: what `make fuzz` once found stays found.

#[path = "../../fuzz/src/targets.rs"]
#[expect(unreachable_pub, reason = "it is the public module of the fuzz targets' crate")]
mod targets;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").path().file_stem().expect("a name").display().to_string()).collect()
}

#[test]
fn every_target_has_its_file_and_its_seeds() {
    let targets: BTreeSet<String> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz().join("src/bin")), targets);
    assert_eq!(names(&fuzz().join("seeds")), targets);
}

#[test]
fn what_must_hold_holds_for_every_seed_whole_and_cut() {
    for (name, _) in targets::TARGETS {
        let folder = fuzz().join("seeds").join(name);
        let mut seeds = 0;
        for entry in std::fs::read_dir(&folder).expect("a folder of seeds") {
            let path = entry.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("a seed");
            // A panic names the place, not the file.
            eprintln!("{}", path.display());
            targets::run(name, &bytes);
            targets::run(name, &bytes[..bytes.len() / 2]);
            seeds += 1;
        }
        assert!(seeds > 0, "{name} has no seeds");
    }
}
