//! Projects: a folder, `project.yaml` (ours) and `PROJECT-ROOT.txt` (conductor-loop's), both naming the source tree.
//!
//! Which tasks a project has is told by its folder, not by a file.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Root, StoreError, yaml};
use crate::types::ProjectId;

/// The version that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// Our file in the project's folder.
pub const FILE: &str = "project.yaml";
/// conductor-loop's file: the absolute path of the source tree.
pub const ROOT_FILE: &str = "PROJECT-ROOT.txt";
/// Bytes of either file at most: a path is at most 4 KiB.
const MAX_BYTES: u64 = 64 << 10;
/// Suffixes tried for projects of one name.
const MAX_SUFFIX: u32 = 10_000;
/// Length of a project id, as in [`ProjectId`].
const MAX_LEN: usize = 63;

/// `project.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectFile {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// Its id, equal to its folder's name.
    pub project_id: ProjectId,
    /// The source tree that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// When it was made.
    pub created: Timestamp,
}

/// A project as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadProject {
    /// The source tree that it is bound to, by either file.
    pub root: Option<PathBuf>,
    /// When it was made; `None` for another program's.
    pub created: Option<Timestamp>,
    /// Whether `project.yaml` is there.
    pub ours: bool,
    /// Why one of the files could not be read.
    pub problem: Option<String>,
}

#[derive(Deserialize)]
struct Versioned {
    version: Option<u64>,
}

/// Makes a project.
///
/// # Errors
/// [`StoreError::ProjectExists`], [`StoreError::BadProjectPath`], or a failed write.
pub fn create(root: &Root, id: &ProjectId, path: Option<&Path>, now: Timestamp) -> Result<ProjectFile, StoreError> {
    if let Some(path) = path {
        check_path(path)?;
    }
    match root.create_folder(id.as_str()) {
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(StoreError::ProjectExists(id.clone()));
        }
        other => other?,
    }
    let file = ProjectFile { version: VERSION, project_id: id.clone(), root: path.map(Path::to_owned), created: now };
    if let Some(path) = path {
        root.write_file(rel(id, ROOT_FILE), format!("{}\n", path.display()).as_bytes())?;
    }
    let text = yaml::to_string(&file).map_err(|source| StoreError::Yaml { path: rel(id, FILE), source })?;
    root.write_file(rel(id, FILE), text.as_bytes())?;
    Ok(file)
}

/// Reads what the files of a project say. Never fails: see [`ReadProject::problem`].
#[must_use]
pub fn read(root: &Root, id: &ProjectId) -> ReadProject {
    let mut project = ReadProject::default();
    match read_ours(root, id) {
        Ok(Some(file)) => {
            project.ours = true;
            project.root = file.root;
            project.created = Some(file.created);
        }
        Ok(None) => {}
        Err(error) => {
            project.ours = true;
            project.problem = Some(error.to_string());
        }
    }
    if project.root.is_none() {
        match root.read_file_beneath(rel(id, ROOT_FILE), MAX_BYTES) {
            Ok(bytes) => match std::str::from_utf8(&bytes).map(str::trim) {
                Ok(path) if Path::new(path).is_absolute() => project.root = Some(path.into()),
                _ => project.problem = Some(format!("{ROOT_FILE} holds no absolute path")),
            },
            Err(error) if error.is_not_found() => {}
            Err(error) => project.problem = Some(error.to_string()),
        }
    }
    project
}

/// Removes a project that has no tasks.
///
/// # Errors
/// [`StoreError::ProjectNotEmpty`], or a failed removal.
pub fn remove(root: &Root, id: &ProjectId) -> Result<(), StoreError> {
    let folder = root.project_dir(id);
    let list = std::fs::read_dir(&folder).map_err(|error| StoreError::io("list", id.as_str(), error))?;
    // Any folder counts, also one whose name is no task id: it is somebody's work.
    if list.flatten().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        return Err(StoreError::ProjectNotEmpty(id.clone()));
    }
    root.remove(Path::new(id.as_str()))
}

/// The project that a folder belongs to: the one that is bound to `path`, else a free name made of `name`
/// (the same name with another path gets a suffix). `taken` says whether a project exists, and which path it is bound to.
///
/// The second value is whether the project exists already.
#[must_use]
pub fn choose(name: &str, path: &Path, taken: impl Fn(&ProjectId) -> Option<Option<PathBuf>>) -> (ProjectId, bool) {
    let base = id_from(name);
    for number in 1..MAX_SUFFIX {
        let id = if number == 1 { base.clone() } else { suffixed(&base, number) };
        match taken(&id) {
            None => return (id, false),
            Some(Some(bound)) if bound == path => return (id, true),
            Some(_) => {}
        }
    }
    // Ten thousand projects of one name: their folders would be no use to anybody; the caller's create then fails.
    (suffixed(&base, MAX_SUFFIX), false)
}

/// A project id out of a folder's name: lower case, other characters become dashes.
#[must_use]
pub fn id_from(name: &str) -> ProjectId {
    let mut id = String::new();
    for c in name.chars() {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            id.push(c);
        } else if !id.is_empty() && !id.ends_with('-') {
            id.push('-');
        }
    }
    id.truncate(MAX_LEN);
    let id = id.trim_matches('-');
    let id = if id.is_empty() { "project" } else { id };
    id.parse().expect("lower-case letters, digits and inner dashes are a project id")
}

fn suffixed(base: &ProjectId, number: u32) -> ProjectId {
    let suffix = format!("-{number}");
    let mut text = base.as_str().to_owned();
    text.truncate(MAX_LEN - suffix.len());
    format!("{}{suffix}", text.trim_end_matches('-')).parse().expect("a shortened id with a number is a project id")
}

fn read_ours(root: &Root, id: &ProjectId) -> Result<Option<ProjectFile>, StoreError> {
    let rel = rel(id, FILE);
    let bytes = match root.read_file_beneath(&rel, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let damaged = |source| StoreError::Yaml { path: rel.clone(), source };
    let version = yaml::from_slice::<Versioned>(&bytes).map_err(damaged)?.version;
    if let Some(version) = version.filter(|version| *version > u64::from(VERSION)) {
        return Err(StoreError::Newer { path: rel, version, supported: VERSION });
    }
    yaml::from_slice(&bytes).map(Some).map_err(damaged)
}

fn check_path(path: &Path) -> Result<(), StoreError> {
    let one_line = path.to_str().is_some_and(|text| !text.contains(['\n', '\r', '\0']) && text.trim() == text);
    if path.is_absolute() && one_line { Ok(()) } else { Err(StoreError::BadProjectPath(path.to_owned())) }
}

fn rel(id: &ProjectId, file: &str) -> PathBuf {
    Path::new(id.as_str()).join(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ProjectId {
        text.parse().expect("a project id")
    }

    #[test]
    fn a_project_is_read_as_it_was_made_and_conductor_loop_finds_its_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = Root::open(dir.path()).expect("a root");
        let now = Timestamp::now();
        create(&root, &id("demo"), Some(Path::new("/src/demo")), now).expect("made");
        let project = read(&root, &id("demo"));
        assert_eq!(project.root.as_deref(), Some(Path::new("/src/demo")));
        assert_eq!(project.created, Some(now));
        let text = std::fs::read_to_string(root.project_dir(&id("demo")).join(ROOT_FILE)).expect("written");
        assert_eq!(text, "/src/demo\n");
        assert!(matches!(create(&root, &id("demo"), None, now), Err(StoreError::ProjectExists(_))));
    }

    #[test]
    fn a_project_with_a_folder_in_it_is_not_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = Root::open(dir.path()).expect("a root");
        create(&root, &id("demo"), None, Timestamp::now()).expect("made");
        std::fs::create_dir(root.project_dir(&id("demo")).join("mine")).expect("mkdir");
        assert!(matches!(remove(&root, &id("demo")), Err(StoreError::ProjectNotEmpty(_))));
        std::fs::remove_dir(root.project_dir(&id("demo")).join("mine")).expect("rmdir");
        remove(&root, &id("demo")).expect("removed");
        assert!(!root.project_dir(&id("demo")).exists());
    }

    #[test]
    fn the_same_name_with_another_path_gets_a_suffix() {
        let taken = |id: &ProjectId| match id.as_str() {
            "demo" => Some(Some(PathBuf::from("/a/demo"))),
            "demo-2" => Some(None),
            _ => None,
        };
        assert_eq!(choose("Demo", Path::new("/a/demo"), taken), (id("demo"), true));
        assert_eq!(choose("demo", Path::new("/b/demo"), taken), (id("demo-3"), false));
        assert_eq!(id_from("..Ünder_score v2!").as_str(), "nder-score-v2");
        assert_eq!(id_from("日本").as_str(), "project");
    }

    #[test]
    fn a_project_of_a_later_version_is_shown_with_the_reason() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = Root::open(dir.path()).expect("a root");
        std::fs::create_dir(root.path().join("demo")).expect("mkdir");
        std::fs::write(root.path().join("demo/project.yaml"), "version: 2\nshape: new\n").expect("write");
        assert!(read(&root, &id("demo")).problem.expect("a reason").contains("version 2"));
    }
}
