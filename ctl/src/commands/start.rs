//! `start`: submits a task from nothing but a prompt, and follows it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use conductor_proto::v1::{
    Agent, EnsureProjectRequest, ListAgentsRequest, LogStream, Permissions, SubmitTaskRequest, Task, TaskMode, TaskSpec,
};

use super::follow_task::{self, View, result_of};
use super::logs::Form;
use super::{Context, prompt, request_id};
use crate::cli::{ChildPolicyArg, ExitPolicyArg, Format, PermissionsArg, SpecArgs, Start, Submit, TargetArgs};
use crate::connect::{self, Daemon};
use crate::errors::Failure;
use crate::launch;
use crate::output::{Resource as _, Screen, Tone, plain, time};

/// How long the first line may wait for the version of an agent that nobody asked before.
const VERSION_WAIT: Duration = Duration::from_secs(2);

pub(super) async fn run(context: &Context, args: &Start) -> Result<(), Failure> {
    // What is wrong with the command line is said before a daemon is started for it.
    let (text, extra) = prompt::read(&args.prompt)?;
    let folder = folder(args.target.cwd.as_deref())?;
    let daemon = reach_or_start(context, args.no_start).await?;
    let request = request(context, &daemon, &args.target, &args.spec, folder, text, extra).await?;
    let task = submit(&daemon, request).await?;
    let data_is_task = !context.screen.format.is_human();
    if args.detach {
        return if data_is_task { context.screen.show(&task) } else { context.screen.line(&task.task_id) };
    }
    if data_is_task {
        context.screen.note(&task.task_id)
    } else {
        context.screen.line(&task.task_id)?
    }
    first_line(context, &daemon, &task).await;
    let screen = &context.screen;
    let on_terminal = if data_is_task { screen.err_is_terminal } else { screen.out_is_terminal };
    let form = if on_terminal { Form::Pretty { thoughts: false } } else { Form::Bytes };
    let view = View { stream: LogStream::Stdout, tail: None, form, story: true, quiet_data: data_is_task };
    let ended = Box::pin(follow_task::follow(context, &daemon, &task, view)).await?;
    if data_is_task {
        context.screen.show(&ended)?;
    }
    result_of(&ended)
}

/// `task submit`: the same without following it, and without starting a daemon.
pub(super) async fn submit_only(context: &Context, args: &Submit) -> Result<(), Failure> {
    let (text, extra) = prompt::read(&args.prompt)?;
    let folder = folder(args.target.cwd.as_deref())?;
    let daemon = context.daemon().await?;
    let request = request(context, &daemon, &args.target, &args.spec, folder, text, extra).await?;
    let task = submit(&daemon, request).await?;
    match context.screen.format {
        Format::Json | Format::Yaml => context.screen.show(&task),
        Format::Table | Format::Wide | Format::Name => context.screen.line(&task.task_id),
    }
}

async fn submit(daemon: &Daemon, request: SubmitTaskRequest) -> Result<Task, Failure> {
    let call = async |request| daemon.tasks().submit_task(request).await;
    let answer = daemon.call("submit the task", request, call).await?;
    answer.task.ok_or_else(|| Failure::Vanished("the daemon sent no task".into()))
}

/// Reaches the daemon; where none answers, starts the user's. Never from inside a run: its daemon is gone then, and
/// another one would not know the run.
async fn reach_or_start(context: &Context, no_start: bool) -> Result<Daemon, Failure> {
    match context.daemon().await {
        Err(Failure::Unreachable(error)) => {
            let too_long = matches!(error, conductor_proto::client::ConnectError::PathTooLong { .. });
            if no_start || too_long || context.inside.is_some() {
                return Err(Failure::Unreachable(error));
            }
            start_daemon(context).await
        }
        other => other,
    }
}

/// Starts the user's daemon and says so.
pub(super) async fn start_daemon(context: &Context) -> Result<Daemon, Failure> {
    let named = context.globals.socket.as_deref();
    let candidates = connect::candidates(named);
    let Some(socket) = candidates.first().cloned() else {
        return Err(Failure::Usage("no socket to start a daemon at: set HOME, or name one with --socket".into()));
    };
    let progress = context.screen.progress("starting conductord …");
    let launched = launch::launch(&socket, named.is_some()).await?;
    drop(progress);
    let (program, log) = (launched.program.display(), launched.log.display());
    context.screen.note(&format!("started {program} in the background (pid {}, log {log})", launched.pid));
    context.reach(&[socket]).await
}

async fn request(
    context: &Context,
    daemon: &Daemon,
    target: &TargetArgs,
    spec: &SpecArgs,
    folder: PathBuf,
    prompt: String,
    extra: Vec<String>,
) -> Result<SubmitTaskRequest, Failure> {
    let cwd = text_of(&folder)?;
    let project = match (&target.project, &context.inside) {
        (Some(project), _) => project.clone(),
        (None, Some(inside)) => inside.project.clone(),
        (None, None) => ensure_project(daemon, &folder).await?,
    };
    let agent = choose_agent(context, daemon, spec.agent.as_deref()).await?;
    Ok(SubmitTaskRequest {
        project_id: project,
        slug: target.slug.clone().unwrap_or_default(),
        task_id: target.task_id.clone().unwrap_or_default(),
        prompt,
        spec: Some(TaskSpec { extra_args: extra, ..spec_of(spec, agent, cwd) }),
        parent: context.inside.as_ref().and_then(crate::environment::Inside::run_ref),
        request_id: request_id(target.request_id.as_deref()),
    })
}

/// What the flags say of a task.
pub(super) fn spec_of(args: &SpecArgs, agent: String, cwd: String) -> TaskSpec {
    use conductor_proto::v1::{ChildPolicy, ExitPolicy};
    let child = args.on_child_timeout.map_or(ChildPolicy::Unspecified, |policy| match policy {
        ChildPolicyArg::Detach => ChildPolicy::Detach,
        ChildPolicyArg::Stop => ChildPolicy::Stop,
        ChildPolicyArg::Wait => ChildPolicy::Wait,
    });
    let exit = args.on_exit.map_or(ExitPolicy::Unspecified, |policy| match policy {
        ExitPolicyArg::Sweep => ExitPolicy::Sweep,
        ExitPolicyArg::Report => ExitPolicy::Report,
        ExitPolicyArg::Keep => ExitPolicy::Keep,
    });
    TaskSpec {
        agent,
        mode: if args.once { TaskMode::Once } else { TaskMode::Loop }.into(),
        cwd,
        model: args.model.clone().unwrap_or_default(),
        extra_args: Vec::new(),
        max_restarts: args.max_restarts.unwrap_or(0),
        restart_delay: args.restart_delay.map(time::to_wire),
        child_wait_timeout: args.child_wait.map(time::to_wire),
        on_child_timeout: child.into(),
        wall_time: args.wall_time.map(time::to_wire),
        log_limit_bytes: args.log_limit.unwrap_or(0),
        on_exit: exit.into(),
        idle_warn: args.idle_warn.map(time::to_wire),
        idle_timeout: args.idle_timeout.map(time::to_wire),
        permissions: args
            .permissions
            .map_or(Permissions::Unspecified, |permissions| match permissions {
                PermissionsArg::Confined => Permissions::Confined,
                PermissionsArg::Full => Permissions::Full,
            })
            .into(),
        probe: false,
    }
}

/// The working folder: whole and without links.
pub(super) fn folder(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let Some(named) = named else {
        return std::env::current_dir()
            .map_err(|error| Failure::Usage(format!("can't find the current folder ({error}); name one with --cwd")));
    };
    let whole = std::fs::canonicalize(named)
        .map_err(|error| Failure::Usage(format!("can't use {} as a folder: {error}", named.display())))?;
    if whole.is_dir() { Ok(whole) } else { Err(Failure::Usage(format!("{} is not a folder", named.display()))) }
}

/// A path as the wire has it.
pub(super) fn text_of(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::Usage(format!("the path {} is not UTF-8", path.display())))
}

/// The top of the git repository that `folder` is in; else `folder`.
fn git_top(folder: &Path) -> &Path {
    folder.ancestors().find(|up| up.join(".git").exists()).unwrap_or(folder)
}

async fn ensure_project(daemon: &Daemon, folder: &Path) -> Result<String, Failure> {
    let request = EnsureProjectRequest { root_path: text_of(git_top(folder))? };
    let call = async |request| daemon.projects().ensure_project(request).await;
    let answer = daemon.call("find the project", request, call).await?;
    Ok(answer.project.map(|project| project.project_id).unwrap_or_default())
}

/// The agent: the named one, the default, or the only one installed. Inside a run the daemon chooses.
async fn choose_agent(context: &Context, daemon: &Daemon, named: Option<&str>) -> Result<String, Failure> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    if context.inside.is_some() {
        return Ok(String::new());
    }
    let agents = list_agents(daemon, false).await?;
    if let Some(default) = agents.iter().find(|agent| agent.is_default) {
        return Ok(default.name.clone());
    }
    let installed: Vec<&Agent> = agents.iter().filter(|agent| agent.installed).collect();
    match installed[..] {
        [only] => Ok(only.name.clone()),
        [] => {
            context.screen.note(&Agent::table(&agents, true).render(context.screen.width, false));
            Err(Failure::Usage("no agent is installed; install one, or name its program in the configuration".into()))
        }
        _ => {
            context.screen.note(&Agent::table(&agents, false).render(context.screen.width, false));
            let names: Vec<&str> = installed.iter().map(|agent| agent.name.as_str()).collect();
            Err(Failure::Usage(format!("several agents are installed; choose one with --agent: {}", names.join(", "))))
        }
    }
}

/// The agents of the daemon.
pub(super) async fn list_agents(daemon: &Daemon, probe: bool) -> Result<Vec<Agent>, Failure> {
    let call = async |request| daemon.agents().list_agents(request).await;
    Ok(daemon.call("list the agents", ListAgentsRequest { probe }, call).await?.agents)
}

/// Agent, program and version, login or key, folder, limits: what is about to work on whose behalf, and where.
async fn first_line(context: &Context, daemon: &Daemon, task: &Task) {
    let Some(spec) = &task.spec else { return };
    // Inside a run the list may be refused; the line does without it.
    let find = async |probe| list_agents(daemon, probe).await.ok()?.into_iter().find(|agent| agent.name == spec.agent);
    let mut agent = find(false).await;
    if agent.as_ref().is_some_and(|agent| agent.installed && agent.version.is_empty())
        && let Ok(Some(probed)) = tokio::time::timeout(VERSION_WAIT, find(true)).await
    {
        agent = Some(probed);
    }
    context.screen.note(&describe(&context.screen, spec, agent.as_ref()));
    if let Some(problem) = agent.map(|agent| agent.problem).filter(|problem| !problem.is_empty()) {
        context.screen.note(&context.screen.paint_err(Tone::Waiting, &plain(&problem)));
    }
}

fn describe(screen: &Screen, spec: &TaskSpec, agent: Option<&Agent>) -> String {
    let mut parts = Vec::new();
    if let Some(agent) = agent {
        let program = [agent.program.as_str(), agent.version.as_str()];
        parts.push(program.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" "));
        parts.push(agent.login.clone());
    }
    if !spec.model.is_empty() {
        parts.push(format!("model {}", spec.model));
    }
    parts.push(format!("in {}", spec.cwd));
    let permissions = match (spec.permissions(), agent) {
        (Permissions::Unspecified, Some(agent)) => agent.permissions(),
        (asked, _) => asked,
    };
    parts.push(match permissions {
        Permissions::Confined => "confined to its folders".to_owned(),
        Permissions::Full => "full permissions".to_owned(),
        Permissions::Unspecified => String::new(),
    });
    parts.push(if spec.mode() == TaskMode::Once {
        "a single run".to_owned()
    } else if spec.max_restarts > 0 {
        format!("at most {} attempts", spec.max_restarts)
    } else {
        String::new()
    });
    if let Some(wall) = &spec.wall_time {
        parts.push(format!("{} each", time::duration(time::from_wire(wall))));
    }
    if let Some(idle) = &spec.idle_timeout {
        parts.push(format!("{} idle", time::duration(time::from_wire(idle))));
    }
    if spec.log_limit_bytes > 0 {
        parts.push(format!("logs up to {}", time::bytes(spec.log_limit_bytes)));
    }
    parts.retain(|part| !part.is_empty());
    let name = screen.paint_err(Tone::Strong, &plain(&spec.agent));
    format!("{name}  {}", screen.paint_err(Tone::Quiet, &plain(&parts.join(" · "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_that_of_the_repository_around_the_folder() {
        let temp = tempfile::tempdir().expect("a folder");
        let deep = temp.path().join("repo/a/b");
        std::fs::create_dir_all(&deep).expect("folders");
        // A worktree's .git is a file.
        std::fs::write(temp.path().join("repo/.git"), "gitdir: elsewhere").expect("a file");
        assert_eq!(git_top(&deep), temp.path().join("repo"));
    }
}
