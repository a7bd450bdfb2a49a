//! Names of what stands beside a bus: archives (`<bus>.YYYYMMDD-HHMMSS.archived`, `…-2.archived` when taken) and torn
//! tails (`<bus>.torn-YYYYMMDD-HHMMSS`, `…-2`).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::Offset;

const SUFFIX: &str = ".archived";
/// Names tried for one second; more rotations than that in a second mean that something is wrong.
const MAX_TAKEN: u32 = 10_000;

/// What archives are ordered by: the second, then the number behind it.
type Order = (String, u32);

/// `YYYYMMDD-HHMMSS` of now, UTC.
fn stamp() -> String {
    let now = Offset::UTC.to_datetime(Timestamp::now());
    format!(
        "{:04}{:02}{:02}-{:02}{:02}{:02}",
        now.year(),
        now.month(),
        now.day(),
        now.hour(),
        now.minute(),
        now.second()
    )
}

fn is_stamp(text: &str) -> bool {
    text.len() == 15
        && text.bytes().enumerate().all(|(at, byte)| if at == 8 { byte == b'-' } else { byte.is_ascii_digit() })
}

/// Reads the order out of an archive's name.
fn order(name: &str, bus: &str) -> Option<Order> {
    let middle = name.strip_prefix(bus)?.strip_prefix('.')?.strip_suffix(SUFFIX)?;
    let stamp = middle.get(..15).filter(|text| is_stamp(text))?;
    let number = match middle.get(15..)? {
        "" => 1,
        rest => rest.strip_prefix('-')?.parse().ok()?,
    };
    Some((stamp.to_owned(), number))
}

/// The second at which an archive of any bus was made, as `YYYYMMDDHHMMSS`, and the bus.
pub(super) fn parse(path: &Path) -> Option<(u64, PathBuf)> {
    let middle = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    let (bus, _) = middle.rsplit_once('.')?;
    let (stamp, _) = order(path.file_name()?.to_str()?, bus)?;
    Some((stamp.replace('-', "").parse().ok()?, path.with_file_name(bus)))
}

fn name_of(bus: &Path) -> io::Result<&str> {
    bus.file_name().and_then(OsStr::to_str).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// The folder of a bus.
pub(super) fn folder(bus: &Path) -> &Path {
    match bus.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The archives of `bus`, oldest first. A folder that does not exist has none.
pub(super) fn list(bus: &Path) -> io::Result<Vec<PathBuf>> {
    let name = name_of(bus)?;
    let entries = match fs::read_dir(folder(bus)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(order) = entry.file_name().to_str().and_then(|other| order(other, name))
            && entry.file_type()?.is_file()
        {
            found.push((order, entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Renames the live file to its archive. The name never sorts before an existing archive, also if the clock was set
/// back. The folder is synced.
pub(super) fn archive(bus: &Path) -> io::Result<PathBuf> {
    let name = name_of(bus)?;
    let newest = list(bus)?.last().and_then(|path| path.file_name()?.to_str().and_then(|other| order(other, name)));
    let (mut stamp, mut number) = (stamp(), 1);
    if let Some((last, taken)) = newest
        && last >= stamp
    {
        (stamp, number) = (last, taken + 1);
    }
    for number in number..number.saturating_add(MAX_TAKEN) {
        let target = match number {
            1 => format!("{name}.{stamp}{SUFFIX}"),
            _ => format!("{name}.{stamp}-{number}{SUFFIX}"),
        };
        let target = folder(bus).join(target);
        match rename_new(bus, &target) {
            Ok(()) => {
                sync_folder(bus)?;
                return Ok(target);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EEXIST))
}

/// Creates the file that a torn tail is moved to.
pub(super) fn create_torn(bus: &Path) -> io::Result<(File, PathBuf)> {
    let (name, stamp) = (name_of(bus)?, stamp());
    for number in 1..=MAX_TAKEN {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let path = folder(bus).join(format!("{name}.torn-{stamp}{suffix}"));
        match File::options().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EEXIST))
}

/// Makes names in the folder of `bus` durable.
pub(super) fn sync_folder(bus: &Path) -> io::Result<()> {
    File::open(folder(bus))?.sync_all()
}

/// Renames without ever replacing.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => return Ok(()),
            // Some network file systems do not know the flag.
            Err(nix::Error::EINVAL | nix::Error::ENOSYS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_ordered_by_second_and_number_and_nothing_else_counts() {
        let folder = tempfile::tempdir().unwrap();
        let bus = folder.path().join("B.md");
        let names = [
            "B.md.20260101-000000.archived",
            "B.md.20260101-000000-2.archived",
            "B.md.20260101-000000-10.archived",
            "B.md.20260102-000000.archived",
        ];
        for name in names.iter().rev().chain(&["B.md", "C.md.20260101-000000.archived", "B.md.x.archived"]) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found: Vec<_> = list(&bus).unwrap().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(found, names);
    }

    #[test]
    fn an_archive_names_its_bus_and_its_time() {
        let parsed = parse(Path::new("/a/B.md.20260102-030405-2.archived")).unwrap();
        assert_eq!(parsed, (20_260_102_030_405, PathBuf::from("/a/B.md")));
        assert_eq!(parse(Path::new("/a/B.md.torn-20260102-030405")), None);
        assert_eq!(parse(Path::new("/a/B.md.x.archived")), None);
    }

    #[test]
    fn an_archive_never_sorts_before_an_older_one_when_the_clock_was_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let bus = folder.path().join("B.md");
        fs::write(folder.path().join("B.md.29990101-000000.archived"), "old").unwrap();
        fs::write(&bus, "new").unwrap();
        let target = archive(&bus).unwrap();
        assert!(target.ends_with("B.md.29990101-000000-2.archived"));
        assert_eq!(fs::read_to_string(list(&bus).unwrap().last().unwrap()).unwrap(), "new");
    }
}
