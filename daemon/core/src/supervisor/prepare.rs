//! Making a run ready: its folder, its prompt, its command. Nothing of it is started, and nothing durable refers to it
//! yet: a crash leaves a folder without `run-info.yaml`, which recovery removes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use conductor_shim::durable;
use conductor_shim::protocol::{Graces, OnExit, Spec, VERSION};
use secrecy::SecretString;

use super::confine::{self, Granted};
use super::record::File;
use super::shared::Shared;
use crate::agents::{RunRequest, prompt};
use crate::bus::BusError;
use crate::ralph::{AccountLimit, Event};
use crate::runner::{LaunchPlan, Secrets};
use crate::store::StoreError;
use crate::types::{ExitPolicy, Limits, Message, MessageId, Ownership, RunInfo, RunKey, RunStatus, TaskKey, Timestamp};

/// Bytes of TASK.md that are read: the limit of a prompt, and room for one that another program wrote.
const MAX_TASK_FILE: u64 = 2 * crate::agents::MAX_PROMPT;
/// Entries that may wait for their bus before the next run: each run adds three, and `task.yaml` holds them all.
const MAX_OUTBOX: usize = 60;
/// One page of the bus.
const PAGE: usize = 1000;

/// Why a run is not ready.
enum Unready {
    /// Only a person can help.
    Attention(String),
    /// It may work later.
    Later(String),
    /// Its account takes no more work for now.
    Limited(AccountLimit),
}

impl From<StoreError> for Unready {
    fn from(error: StoreError) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<std::io::Error> for Unready {
    fn from(error: std::io::Error) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<BusError> for Unready {
    fn from(error: BusError) -> Self {
        Self::Later(error.to_string())
    }
}

/// Makes the next run of a task ready. The event says how it went; the plan is there with [`Event::Prepared`].
pub(super) async fn prepare(shared: &Arc<Shared>, file: &File) -> (Event, Option<LaunchPlan>) {
    match try_prepare(shared, file).await {
        Ok((plan, heard)) => (Event::Prepared { run: plan.key.run.clone(), heard }, Some(plan)),
        Err(Unready::Attention(problem)) => (Event::PrepareFailed { problem }, None),
        Err(Unready::Later(problem)) => (Event::StartFailed { problem }, None),
        Err(Unready::Limited(limit)) => (Event::AccountLimited { limit }, None),
    }
}

async fn try_prepare(shared: &Arc<Shared>, file: &File) -> Result<(LaunchPlan, Option<MessageId>), Unready> {
    let key = file.key();
    if file.state.outbox.len() > MAX_OUTBOX {
        let waiting = file.state.outbox.len();
        return Err(Unready::Later(format!("{waiting} entries wait for a bus that takes none: see conductord's log")));
    }
    let (messages, heard) = unheard(shared, &key, file.state.heard.clone()).await?;
    let shared = Arc::clone(shared);
    let file = file.clone();
    let plan = tokio::task::spawn_blocking(move || build(&shared, &file, &messages))
        .await
        .map_err(|error| Unready::Later(error.to_string()))??;
    Ok((plan, heard))
}

/// The messages of type USER and ANSWER that no prompt has carried, and the last message that was looked at.
async fn unheard(
    shared: &Shared,
    key: &TaskKey,
    heard: Option<MessageId>,
) -> Result<(Vec<Message>, Option<MessageId>), BusError> {
    let bus = shared.task_bus(key);
    let mut cursor = heard;
    let mut found = Vec::new();
    loop {
        let page = match bus.read_after(cursor.clone(), PAGE).await {
            // The bus was replaced: what is in it now has not been heard.
            Err(BusError::UnknownCursor(_)) => bus.read_after(None, PAGE).await?,
            other => other?,
        };
        found.extend(page.messages.into_iter().filter(|message| matches!(message.kind.as_str(), "USER" | "ANSWER")));
        cursor = page.next.or(cursor);
        if !page.more {
            return Ok((found, cursor));
        }
    }
}

fn build(shared: &Shared, file: &File, messages: &[Message]) -> Result<LaunchPlan, Unready> {
    let key = file.key();
    let spec = &file.spec;
    let config = shared.config();
    let agents = shared.agents();
    let Some(adapter) = agents.get(&spec.agent).cloned() else {
        let known = agents.names().collect::<Vec<_>>().join(", ");
        return Err(Unready::Attention(format!(
            "the agent {:?} is not in the configuration (there are: {known}); add it",
            spec.agent
        )));
    };
    // Before the run has a folder: a missing program makes no run.
    adapter.program().map_err(|error| Unready::Attention(error.to_string()))?;
    let account = adapter.account().map_err(|error| Unready::Attention(error.to_string()))?;
    if !spec.probe
        && let Some(limit) = shared.accounts.limited(&account, Timestamp::now())
    {
        return Err(Unready::Limited(limit));
    }
    let granted = confine::grant(shared, spec).map_err(Unready::Attention)?;
    let cwd = PathBuf::from(&spec.cwd);
    if !cwd.is_dir() {
        return Err(Unready::Attention(format!("the working folder {} does not exist; make it", cwd.display())));
    }
    let task_prompt = shared
        .root
        .read_file_beneath(crate::store::root::task_rel(&key).join("TASK.md"), MAX_TASK_FILE)
        .map_err(|error| Unready::Attention(format!("TASK.md can't be read ({error}); put it back")))?;
    let run = shared.ids.create_run(&shared.root, &key)?;
    let folder = shared.run_dir(&run);
    let limits = Limits {
        wall_time: spec.wall_time,
        log_bytes: spec.log_limit,
        idle_warn: spec.idle_warn,
        idle_timeout: spec.idle_timeout,
    };
    let continuing = file.state.continue_attempt && file.state.attempt > 0;
    let request = RunRequest {
        key: run.clone(),
        parent: spec.parent.clone(),
        attempt: if continuing { file.state.attempt } else { file.state.attempt + 1 },
        max_attempts: spec.max_restarts,
        root: shared.root.path().to_owned(),
        task_folder: shared.root.task_dir(&key),
        run_folder: folder.clone(),
        prompt: folder.join("prompt.md"),
        cwd,
        model: spec.model.clone(),
        extra_args: spec.extra_args.clone(),
        resume_session: file.state.session.clone().filter(|_| continuing),
        token: SecretString::from(shared.tokens.issue(&run)),
        socket: shared.socket.clone(),
        limits,
    };
    let text = prompt_text(file, &request, &String::from_utf8_lossy(&task_prompt), messages);
    let made = durable::write_atomic(&request.prompt, text.as_bytes(), durable::PRIVATE)
        .map_err(Unready::from)
        .and_then(|()| adapter.prepare(&request).map_err(|error| Unready::Attention(error.to_string())));
    let mut command = match made {
        Ok(command) => command,
        Err(error) => {
            // Nothing refers to it.
            let _ = std::fs::remove_dir_all(&folder);
            return Err(error);
        }
    };
    if let Granted::Confined(bwrap) = &granted {
        confine::apply(shared, &request, &mut command, bwrap);
    }
    let version = adapter.version().unwrap_or_else(|error| {
        tracing::warn!(agent = spec.agent, %error, "the version of the agent's program can't be told");
        None
    });
    let path = |name: &str| folder.join(name).display().to_string();
    let info = RunInfo {
        run_id: run.run.clone(),
        parent_run_id: spec.parent.as_ref().map(|parent| parent.run.clone()),
        previous_run_id: file.state.last.as_ref().map(|last| last.run.clone()),
        project_id: key.project.clone(),
        task_id: key.task.clone(),
        agent: spec.agent.clone(),
        ownership: Ownership::Managed,
        pid: 0,
        pgid: 0,
        start_time: Timestamp::now(),
        end_time: None,
        exit_code: -1,
        status: RunStatus::Running,
        cwd: Some(command.cwd.display().to_string()),
        prompt_path: Some(path("prompt.md")),
        output_path: Some(path("output.md")),
        stdout_path: Some(path("agent-stdout.txt")),
        stderr_path: Some(path("agent-stderr.txt")),
        commandline: Some(command.display.clone()),
        error_summary: None,
        agent_version: version.unwrap_or_default(),
        outcome: None,
        attempt: request.attempt,
        signal: None,
        session_id: command.session.clone(),
        model: command.model.clone(),
        usage: None,
        models: BTreeMap::new(),
        thread_usage: None,
        limit: None,
        account: Some(account),
        permissions: Some(granted.name()),
        notes: command.notes.clone(),
        login: Some(command.login.clone()),
        program: Some(command.program.display().to_string()),
        limits,
        tier: None,
        stragglers: Vec::new(),
        stop_reason: None,
        stdout_bytes: None,
        stderr_bytes: None,
        cpu_ms: None,
        max_rss_kib: None,
        idle_since: None,
    };
    let utf8 = |path: PathBuf| {
        path.into_os_string().into_string().map_err(|_| Unready::Attention("a path is not UTF-8".into()))
    };
    let secrets = Secrets::split_off(&mut command.env, &command.secret_names);
    let shim = Spec {
        version: VERSION,
        run_id: run.run.to_string(),
        argv: command.argv,
        env: command.env,
        secret_names: secrets.names(),
        cwd: utf8(command.cwd)?,
        stdin: command.stdin.map(utf8).transpose()?,
        stdout: path("agent-stdout.txt"),
        stderr: path("agent-stderr.txt"),
        cgroup_parent: shared.runner.cgroup_parent().map(|path| path.display().to_string()),
        wall_time_ms: limits.wall_time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        log_limit: limits.log_bytes,
        on_exit: match spec.on_exit {
            ExitPolicy::Sweep => OnExit::Sweep,
            ExitPolicy::Report => OnExit::Report,
            ExitPolicy::Keep => OnExit::Keep,
        },
        exit_grace_ms: millis(config.stop.exit_grace.get()),
        graces: graces(&config),
    };
    Ok(LaunchPlan { key: run, folder, spec: shim, secrets, info })
}

fn prompt_text(file: &File, request: &RunRequest, task_prompt: &str, messages: &[Message]) -> String {
    let ended = file.state.last.as_ref().map(|last| last.describe());
    let previous = match (&ended, messages) {
        (None, []) => None,
        (ended, messages) => Some(prompt::Previous {
            ended: ended.as_deref().unwrap_or("there was none"),
            messages,
            total: messages.len(),
        }),
    };
    let input = prompt::PromptInput { mode: file.spec.mode, now: Timestamp::now(), prompt: task_prompt, previous };
    prompt::build(request, &input)
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The configured pauses of a stop.
pub(super) fn graces(config: &crate::config::Config) -> Graces {
    Graces { int_ms: millis(config.stop.int_grace.get()), term_ms: millis(config.stop.term_grace.get()) }
}

/// Removes the folder of a run that was prepared and is not to be started.
pub(super) fn discard(shared: &Shared, run: &RunKey) {
    let folder = shared.run_dir(run);
    if !folder.join(crate::store::run_info::FILE).exists() {
        let _ = std::fs::remove_dir_all(folder);
    }
}
