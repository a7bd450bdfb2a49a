//! A new task: checked, made whole in a staging folder, and renamed into its place, so that a crash leaves either the
//! whole task or none of it.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conductor_shim::durable;
use sha2::{Digest, Sha256};

use super::command::{Caller, CommandError, MAX_PROMPT, SpecDraft, Submit};
use super::queue;
use super::record::File;
use super::shared::Shared;
use crate::agents::prompt;
use crate::config::Config;
use crate::ralph::LoopState;
use crate::store::task_file::RequestRecord;
use crate::store::{StoreError, TaskFile, ids, task_file, yaml};
use crate::types::{Permissions, Phase, ProjectId, RunKey, TaskId, TaskKey, TaskSpec, Timestamp};

/// Live tasks that the runs of one task may have submitted. An agent that starts more has lost its way.
const MAX_LIVE_CHILDREN: usize = 256;
/// Attempts that can be asked for.
const MAX_RESTARTS: u32 = 1_000_000;
/// Bytes of a title.
const MAX_TITLE: usize = 200;
/// Names that are tried for one task.
const MAX_NAMES: u32 = 1000;

/// A checked submission.
pub(super) struct Checked {
    project: ProjectId,
    name: Name,
    spec: TaskSpec,
    prompt: String,
    request: Option<RequestRecord>,
}

enum Name {
    Given(TaskId),
    Slug(String),
}

/// Checks a submission against configuration and catalog.
pub(super) fn check(
    shared: &Shared,
    caller: &Caller,
    mut submit: Submit,
    request: Option<RequestRecord>,
) -> Result<Checked, CommandError> {
    if submit.spec.probe && submit.prompt.is_empty() {
        submit.prompt = prompt::PROBE.to_owned();
    }
    let parent = submit.parent.or_else(|| caller.run.clone());
    let project = submit
        .project
        .or_else(|| parent.as_ref().map(|parent| parent.task.project.clone()))
        .ok_or_else(|| CommandError::field("project_id", "a project is needed"))?;
    let Some(known) = shared.catalog.project(&project) else {
        return Err(CommandError::NotFound { what: "project", name: project.to_string(), near: Vec::new() });
    };
    if submit.prompt.len() > MAX_PROMPT {
        let size = submit.prompt.len();
        let problem = format!("the prompt has {size} bytes, more than the limit of {MAX_PROMPT} (16 MiB)");
        return Err(CommandError::field("prompt", problem));
    }
    prompt::check(&submit.prompt).map_err(|error| CommandError::field("prompt", error))?;
    let name = match (submit.task, submit.slug) {
        (Some(task), _) => Name::Given(task),
        (None, Some(slug)) => {
            let probe = format!("task-20000101-000000-{slug}");
            probe.parse::<TaskId>().map_err(|_| {
                CommandError::field("slug", "3 to 50 of a-z, 0-9 and '-' are needed, with no '-' at an end")
            })?;
            Name::Slug(slug)
        }
        (None, None) => Name::Slug(ids::slug(&submit.prompt)),
    };
    if caller.run.is_some() && !submit.spec.extra_args.is_empty() {
        // They could lift the permissions that the configuration gives an agent.
        return Err(CommandError::field("spec.extra_args", "a run can't set the arguments of an agent's program"));
    }
    if caller.run.is_some() && submit.spec.probe {
        return Err(CommandError::field(
            "spec.probe",
            "a run can't start an agent whose account takes no work for now",
        ));
    }
    let mut spec = spec(shared, submit.spec, known.root.as_deref())?;
    spec.title = title(&submit.prompt);
    if let Some(parent) = parent {
        place_below(shared, &mut spec, parent)?;
    }
    Ok(Checked { project, name, spec, prompt: submit.prompt, request })
}

/// Fills in what the caller left open.
pub(super) fn spec(shared: &Shared, draft: SpecDraft, project_root: Option<&Path>) -> Result<TaskSpec, CommandError> {
    let config = shared.config();
    let agent = agent(shared, draft.agent)?;
    let cwd = draft
        .cwd
        .or_else(|| project_root.map(Path::to_owned))
        .ok_or_else(|| CommandError::field("spec.cwd", "a working folder is needed: the project is bound to none"))?;
    check_folder(&cwd)?;
    let max_restarts = draft.max_restarts.unwrap_or(config.defaults.max_restarts);
    if !(1..=MAX_RESTARTS).contains(&max_restarts) {
        return Err(CommandError::field("spec.max_restarts", format!("1 to {MAX_RESTARTS} are possible")));
    }
    let model = draft.model.filter(|model| !model.is_empty());
    Ok(build_spec(
        &config,
        agent,
        &cwd,
        max_restarts,
        model,
        draft.extra_args,
        SpecRest {
            mode: draft.mode,
            restart_delay: draft.restart_delay,
            child_wait_timeout: draft.child_wait_timeout,
            on_child_timeout: draft.on_child_timeout,
            wall_time: draft.wall_time,
            log_limit: draft.log_limit,
            idle_warn: draft.idle_warn,
            idle_timeout: draft.idle_timeout,
            on_exit: draft.on_exit,
            permissions: draft.permissions,
            probe: draft.probe,
        },
    ))
}

struct SpecRest {
    mode: crate::types::Mode,
    restart_delay: Option<std::time::Duration>,
    child_wait_timeout: Option<std::time::Duration>,
    on_child_timeout: Option<crate::types::ChildPolicy>,
    wall_time: Option<std::time::Duration>,
    log_limit: Option<u64>,
    idle_warn: Option<std::time::Duration>,
    idle_timeout: Option<std::time::Duration>,
    on_exit: crate::types::ExitPolicy,
    permissions: Option<Permissions>,
    probe: bool,
}

fn build_spec(
    config: &Config,
    agent: String,
    cwd: &Path,
    max_restarts: u32,
    model: Option<String>,
    extra_args: Vec<String>,
    rest: SpecRest,
) -> TaskSpec {
    let defaults = &config.defaults;
    // A caller says zero where it wants none.
    let or_off = |asked: Option<std::time::Duration>, default: crate::config::TimeOrOff| {
        asked.map_or(default.get(), |time| (!time.is_zero()).then_some(time))
    };
    TaskSpec {
        title: String::new(),
        agent,
        mode: rest.mode,
        cwd: cwd.display().to_string(),
        model,
        extra_args,
        parent: None,
        depth: 0,
        max_restarts,
        restart_delay: rest.restart_delay.unwrap_or(defaults.restart_delay.get()),
        child_wait_timeout: rest.child_wait_timeout.unwrap_or(defaults.child_wait_timeout.get()),
        on_child_timeout: rest.on_child_timeout.unwrap_or(defaults.on_child_timeout),
        wall_time: rest.wall_time.or(defaults.wall_time.map(crate::config::Time::get)),
        log_limit: Some(rest.log_limit.filter(|limit| *limit > 0).unwrap_or(defaults.log_limit.get())),
        idle_warn: or_off(rest.idle_warn, defaults.idle_warn),
        idle_timeout: or_off(rest.idle_timeout, defaults.idle_timeout),
        on_exit: rest.on_exit,
        permissions: rest.permissions,
        probe: rest.probe,
    }
}

fn agent(shared: &Shared, asked: Option<String>) -> Result<String, CommandError> {
    let agents = shared.agents();
    let known = || agents.names().collect::<Vec<_>>().join(", ");
    match asked {
        Some(name) if agents.get(&name).is_some() => Ok(name),
        Some(name) => {
            Err(CommandError::field("spec.agent", format!("{name:?} is not configured; there are: {}", known())))
        }
        None => agents.default_agent().map(str::to_owned).ok_or_else(|| {
            CommandError::field("spec.agent", format!("no default agent is configured; choose one of: {}", known()))
        }),
    }
}

fn check_folder(cwd: &Path) -> Result<(), CommandError> {
    let problem = if !cwd.is_absolute() {
        "is not absolute"
    } else if cwd.to_str().is_none_or(|text| text.contains('\0')) {
        "is not UTF-8 text"
    } else if !cwd.is_dir() {
        "is not a folder"
    } else {
        return Ok(());
    };
    Err(CommandError::field("spec.cwd", format!("{} {problem}", cwd.display())))
}

fn place_below(shared: &Shared, spec: &mut TaskSpec, parent: RunKey) -> Result<(), CommandError> {
    let above = shared.catalog.task(&parent.task).ok_or_else(|| CommandError::NotFound {
        what: "task",
        name: parent.task.to_string(),
        near: Vec::new(),
    })?;
    if matches!(above.phase, Some(Phase::Stopping | Phase::Finished)) {
        let text = format!("the task {} is {}: nothing can be started below it", parent.task, above.state_name());
        return Err(CommandError::WrongState(text));
    }
    spec.depth = above.spec.as_ref().map_or(0, |spec| spec.depth) + 1;
    let deepest = shared.config().limits.max_depth;
    if spec.depth > deepest {
        return Err(CommandError::Limit(format!("tasks may be nested {deepest} deep at most (limits.max_depth)")));
    }
    let live = shared.catalog.children_of(&parent.task).iter().filter(|child| child.is_active()).count();
    if live >= MAX_LIVE_CHILDREN {
        return Err(CommandError::Limit(format!("{MAX_LIVE_CHILDREN} tasks that {} submitted live", parent.task)));
    }
    // What a confined agent starts is confined too: a child would be its way out.
    let confined = shared.catalog.run(&parent).is_some_and(|run| run.permissions == Some(Permissions::Confined));
    match (confined, spec.permissions) {
        (true, Some(Permissions::Full)) => {
            return Err(CommandError::field(
                "spec.permissions",
                "a confined run can't start a task that is not confined",
            ));
        }
        (true, _) => spec.permissions = Some(Permissions::Confined),
        (false, _) => {}
    }
    spec.parent = Some(parent);
    Ok(())
}

fn title(prompt: &str) -> String {
    let line = prompt.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    crate::agents::event::head(line, MAX_TITLE).to_owned()
}

/// Writes a task to disk, whole and durably. Blocks.
pub(super) fn write(shared: &Arc<Shared>, checked: Checked) -> Result<File, CommandError> {
    let staging = shared.root.conductor_file(STAGING).join(unique());
    let result = write_staged(shared, checked, &staging);
    if result.is_err() {
        let _ = std::fs::remove_dir_all(&staging);
    }
    result
}

/// Folder in `.conductor/` where tasks are made; emptied at each start.
pub(super) const STAGING: &str = "staging";

fn write_staged(shared: &Shared, checked: Checked, staging: &Path) -> Result<File, CommandError> {
    let io = |source| io_error(shared, "write the task", source);
    DirBuilder::new().mode(0o700).recursive(true).create(staging.join("runs")).map_err(io)?;
    write_whole(&staging.join("TASK.md"), checked.prompt.as_bytes()).map_err(io)?;
    let now = Timestamp::now();
    let mut attempt = 0;
    loop {
        let task = match &checked.name {
            Name::Given(task) => task.clone(),
            Name::Slug(slug) if attempt == 0 => shared.ids.task_id(slug),
            Name::Slug(slug) => shared.ids.task_id(&suffixed(slug, attempt + 1)),
        };
        let key = TaskKey::new(checked.project.clone(), task);
        // A folder: only to spare the writing for a name that is known to be taken; the rename is the test. A deleted task
        // whose use is kept under the name has it for ever.
        let taken = || shared.root.task_dir(&key).exists() || shared.ledger.knows(&key);
        if matches!(checked.name, Name::Slug(_)) && attempt < MAX_NAMES && taken() {
            attempt += 1;
            continue;
        }
        let mut file: File =
            TaskFile::new(key.clone(), now, checked.spec.clone(), LoopState::new(queue::order_at(now)));
        file.requests.extend(checked.request.clone());
        let text = yaml::to_string(&file).map_err(|error| io(std::io::Error::other(error.to_string())))?;
        write_whole(&staging.join(task_file::FILE), text.as_bytes()).map_err(io)?;
        durable::fsync_dir(staging).map_err(io)?;
        match rename_new(staging, &shared.root.task_dir(&key)) {
            Ok(()) => {
                durable::fsync_dir(&shared.root.project_dir(&key.project)).map_err(io)?;
                return Ok(file);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => match checked.name {
                Name::Given(_) => {
                    return Err(CommandError::AlreadyExists { what: "task", name: key.to_string() });
                }
                Name::Slug(_) if attempt < MAX_NAMES => attempt += 1,
                Name::Slug(_) => return Err(CommandError::Limit(format!("{MAX_NAMES} tasks have that name"))),
            },
            Err(error) => return Err(io(error)),
        }
    }
}

/// Writes a file of the staging folder, fsynced. The folder's rename makes it visible, so it needs none of its own.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(durable::PRIVATE).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// `slug-2`, within the 50 characters of a slug.
fn suffixed(slug: &str, number: u32) -> String {
    let suffix = format!("-{number}");
    let room = 50 - suffix.len();
    let base = slug.get(..room.min(slug.len())).unwrap_or(slug).trim_end_matches('-');
    format!("{base}{suffix}")
}

/// Renames a folder to a name that must be free.
#[cfg(target_os = "linux")]
fn rename_new(from: &Path, to: &Path) -> std::io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE).map_err(std::io::Error::from)
}

#[cfg(not(target_os = "linux"))]
fn rename_new(from: &Path, to: &Path) -> std::io::Result<()> {
    // A rename onto a folder that is not empty fails, and every task's folder holds a file.
    std::fs::rename(from, to)
}

fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The record by which a repetition of a request is recognised.
pub(super) fn request(id: Option<&str>, verb: &str, content: &[&[u8]]) -> Option<RequestRecord> {
    let id = id.filter(|id| !id.is_empty())?;
    let mut hash = Sha256::new();
    for part in content {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(RequestRecord { id: id.to_owned(), digest, verb: verb.to_owned(), time: Timestamp::now() })
}

pub(super) fn io_error(shared: &Shared, action: &str, source: std::io::Error) -> CommandError {
    if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
        return CommandError::DiskFull { path: shared.root.path().to_owned() };
    }
    CommandError::Io { action: action.to_owned(), source }
}

pub(super) fn store_error(shared: &Shared, error: StoreError) -> CommandError {
    match error {
        StoreError::Io { source, doing, path } => io_error(shared, &format!("{doing} {}", path.display()), source),
        StoreError::ProjectExists(id) => CommandError::AlreadyExists { what: "project", name: id.to_string() },
        StoreError::ProjectNotEmpty(id) => CommandError::WrongState(format!("the project {id} still has tasks")),
        StoreError::BadProjectPath(path) => {
            CommandError::field("root_path", format!("{} is not an absolute UTF-8 path on one line", path.display()))
        }
        other => {
            CommandError::Io { action: "use the store".to_owned(), source: std::io::Error::other(other.to_string()) }
        }
    }
}

/// A folder that is given must exist.
pub(super) fn existing_folder(path: &Path) -> Result<PathBuf, CommandError> {
    if !path.is_absolute() {
        return Err(CommandError::field("root_path", format!("{} is not absolute", path.display())));
    }
    path.canonicalize()
        .ok()
        .filter(|path| path.is_dir())
        .ok_or_else(|| CommandError::field("root_path", format!("{} is not a folder", path.display())))
}
