//! Finding a program, and writing a command line for people. Executes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What a look-up found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An executable file, by its absolute path.
    Yes(PathBuf),
    /// Only this, which can't be executed.
    NotExecutable(PathBuf),
    /// Nothing.
    No,
}

/// Looks a program up: a path as it is, a name in the absolute folders of `search` (a PATH). Relative folders of it are
/// skipped, since what they mean depends on the working folder.
#[must_use]
pub fn find(program: &str, search: &str) -> Found {
    if program.contains('/') {
        return look(Path::new(program));
    }
    let mut seen = Found::No;
    for folder in search.split(':').map(Path::new).filter(|folder| folder.is_absolute()) {
        match look(&folder.join(program)) {
            Found::No => {}
            Found::Yes(path) => return Found::Yes(path),
            other if seen == Found::No => seen = other,
            Found::NotExecutable(_) => {}
        }
    }
    seen
}

fn look(path: &Path) -> Found {
    let Ok(path) = std::path::absolute(path) else { return Found::No };
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 => Found::Yes(path),
        Ok(_) => Found::NotExecutable(path),
        Err(_) => Found::No,
    }
}

/// A word as a POSIX shell reads it back.
#[must_use]
pub fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A command line as a POSIX shell reads it back.
#[must_use]
pub fn command_line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, mode: u32) {
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_name_is_found_in_the_first_folder_that_can_execute_it() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(&one.path().join("a"), 0o644);
        write(&two.path().join("a"), 0o755);
        let search = format!("relative::{}:{}", one.path().display(), two.path().display());
        assert_eq!(find("a", &search), Found::Yes(two.path().join("a")));
        assert_eq!(find("b", &search), Found::No);
        assert_eq!(find("a", &one.path().display().to_string()), Found::NotExecutable(one.path().join("a")));
    }

    #[test]
    fn a_path_is_taken_as_it_is_and_a_folder_is_no_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap().to_owned();
        assert_eq!(find(&path, "/bin"), Found::NotExecutable(folder.path().into()));
        assert_eq!(find("/bin/sh", ""), Found::Yes("/bin/sh".into()));
    }

    #[test]
    fn command_lines_are_quoted_where_a_shell_needs_it() {
        assert_eq!(command_line(["a", "b c", "it's", "", "x=1"]), r"a 'b c' 'it'\''s' '' x=1");
    }
}
