//! What the groups begin with: a daemon in a sandbox, many runs, and what a process takes.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use conductor_proto::v1::{self, Task, TaskMode, TaskSpec};
use conductor_tests::client::PROJECT;
use conductor_tests::{Client, Config, Daemon, Sandbox, Submit, wait_until};

/// Threads that submit many tasks: more don't make it faster on two CPUs.
const SUBMITTERS: usize = 8;
/// How long many runs may take to start: a slow disk syncs a run's files in 100 ms.
const PATIENCE: Duration = Duration::from_secs(120);

/// The configuration: quiet, with the agents that are measured.
pub(crate) fn config(sandbox: &Sandbox) -> Config {
    Config::new(sandbox)
        .agent("true", "{type: command, program: /bin/true}")
        .agent("sleep", "{type: command, program: sleep, args: ['600']}")
        .set("log.filter", "warn")
        .set("defaults.max_concurrent_runs", "1000")
}

/// A daemon with this configuration and a project.
pub(crate) fn begin<'a>(sandbox: &'a Sandbox, config: &Config) -> Result<(Daemon<'a>, Client)> {
    let daemon = Daemon::start(sandbox, config)?;
    let client = daemon.client()?;
    client.create_project(PROJECT, &sandbox.work())?;
    Ok((daemon, client))
}

/// A single job of an agent, under a name of its own: equal names within a second are tried one after the other.
pub(crate) fn job(agent: &str) -> Submit {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let slug = format!("bench-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let spec = TaskSpec { agent: agent.to_owned(), mode: TaskMode::Once.into(), ..TaskSpec::default() };
    Submit { prompt: "measure".to_owned(), slug, spec, ..Submit::default() }
}

/// Calls `work` on `threads` threads, each with its number.
pub(crate) fn on_threads<T: Send>(threads: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let work = &work;
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        handles.into_iter().map(|handle| handle.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?).collect()
    })
}

/// Submits `count` jobs of an agent.
pub(crate) fn submit_many(socket: &Path, agent: &str, count: usize) -> Result<Vec<Task>> {
    let tasks = on_threads(SUBMITTERS, |thread| {
        let client = Client::lazy(socket, None)?;
        (thread..count).step_by(SUBMITTERS).map(|_| Ok(client.submit(job(agent))?)).collect::<Result<Vec<Task>>>()
    })?;
    Ok(tasks.into_iter().flatten().collect())
}

/// Every run that the daemon shows as running, those without a pid yet included.
pub(crate) fn running(client: &Client) -> Result<Vec<v1::Run>> {
    runs(client, vec![v1::RunStatus::Running.into()])
}

/// Every run with one of these statuses; none: all.
pub(crate) fn runs(client: &Client, statuses: Vec<i32>) -> Result<Vec<v1::Run>> {
    let mut found = Vec::new();
    let mut request = v1::ListRunsRequest { page_size: 500, statuses, ..v1::ListRunsRequest::default() };
    loop {
        let page = client.wait(client.runs().list_runs(request.clone()))?;
        found.extend(page.runs);
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

/// Starts `count` runs of an agent that stays and waits until each agent was executed.
pub(crate) fn start_many(client: &Client, socket: &Path, agent: &str, count: usize) -> Result<Vec<v1::Run>> {
    submit_many(socket, agent, count)?;
    let mut live = Vec::new();
    wait_until("all runs live", PATIENCE, || {
        live = running(client).unwrap_or_default();
        live.iter().filter(|run| run.pid > 0).count() == count
    })
    .with_context(|| format!("{} of {count} are shown as running", live.len()))?;
    Ok(live)
}

/// A field of `/proc/PID/FILE` in KiB.
pub(crate) fn proc_kib(pid: i32, file: &str, field: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.split_whitespace().next());
    Ok(value.with_context(|| format!("no {field} in {file}"))?.parse()?)
}
