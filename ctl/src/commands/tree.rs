//! `run tree`: tasks, their runs, and below each run the tasks that its agent submitted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use conductor_proto::v1::{ListRunsRequest, ListTasksRequest, Run, Task};
use serde::Serialize;

use super::{Context, task as tasks};
use crate::cli::RunTree;
use crate::connect::Daemon;
use crate::errors::Failure;
use crate::output::tree::{Node, lines};
use crate::output::views::{RunView, TaskView, attempts};
use crate::output::{Resource as _, Tone, plain, time, words};
use crate::resolve;

/// Children are nested at most this deep (the server's limit); a file that says otherwise ends here.
const MAX_DEPTH: usize = 16;

/// A task with all below it.
struct Family {
    task: Task,
    runs: Vec<(Run, Vec<Family>)>,
    /// Submitted by a run that is in no list.
    others: Vec<Family>,
}

#[derive(Serialize)]
struct FamilyView {
    #[serde(flatten)]
    task: TaskView,
    runs: Vec<RunFamilyView>,
    children: Vec<FamilyView>,
}

#[derive(Serialize)]
struct RunFamilyView {
    #[serde(flatten)]
    run: RunView,
    children: Vec<FamilyView>,
}

pub(super) async fn run(context: &Context, args: &RunTree) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let roots = match &args.task {
        Some(name) => vec![resolve::task(context, &daemon, name, args.project.as_deref()).await?],
        None => live_roots(&daemon, args.project.as_deref()).await?,
    };
    let families = families(&daemon, roots).await?;
    if !context.screen.format.is_human() {
        return print_data(context, &families, args.task.is_some());
    }
    if families.is_empty() {
        context.screen.aside("nothing lives; name a task to see its tree");
    }
    for family in &families {
        for line in lines(&draw(context, family)) {
            context.screen.line(&line)?;
        }
    }
    Ok(())
}

fn print_data(context: &Context, families: &[Family], one: bool) -> Result<(), Failure> {
    match (context.screen.format, families) {
        (crate::cli::Format::Name, _) => families.iter().try_for_each(|family| names(context, family)),
        (_, [family]) if one => context.screen.value(&view(family)),
        _ => context.screen.value(&families.iter().map(view).collect::<Vec<_>>()),
    }
}

async fn live_roots(daemon: &Daemon, project: Option<&str>) -> Result<Vec<Task>, Failure> {
    let request = ListTasksRequest {
        project_id: project.unwrap_or_default().to_owned(),
        phases: (1..=6).collect(),
        ..ListTasksRequest::default()
    };
    let (all, _) = tasks::pages(daemon, request, 0).await?;
    let ids: std::collections::HashSet<String> = all.iter().map(|task| task.task_id.clone()).collect();
    let is_root = |task: &Task| task.parent.as_ref().is_none_or(|parent| !ids.contains(&parent.task_id));
    Ok(all.into_iter().filter(is_root).collect())
}

/// The families of tasks. Tasks and runs of a project are listed once, page by page, however many there are below them: a
/// call for each task would cost thousands where agents start agents.
async fn families(daemon: &Daemon, roots: Vec<Task>) -> Result<Vec<Family>, Failure> {
    let mut projects: HashMap<String, Members> = HashMap::new();
    let mut families = Vec::new();
    for root in roots {
        let members = match projects.entry(root.project_id.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Members::list(daemon, &root.project_id).await?),
        };
        families.push(members.family(root, 0));
    }
    Ok(families)
}

/// The tasks and runs of a project that have no place in a tree yet.
struct Members {
    /// By the task whose run submitted them, oldest first.
    children: HashMap<String, Vec<Task>>,
    /// By their task, oldest first.
    runs: HashMap<String, Vec<Run>>,
}

impl Members {
    async fn list(daemon: &Daemon, project: &str) -> Result<Self, Failure> {
        let order = tasks::order(true).into();
        let request = ListTasksRequest { project_id: project.to_owned(), order, ..ListTasksRequest::default() };
        let (all, _) = tasks::pages(daemon, request, 0).await?;
        // After the tasks: a task that is there has the runs that it had then.
        let request = ListRunsRequest { project_id: project.to_owned(), order, ..ListRunsRequest::default() };
        let (all_runs, _) = super::run::pages(daemon, request, 0).await?;
        let mut members = Self { children: HashMap::new(), runs: HashMap::new() };
        for task in all {
            if let Some(parent) = &task.parent {
                members.children.entry(parent.task_id.clone()).or_default().push(task);
            }
        }
        for run in all_runs {
            members.runs.entry(run.task_id.clone()).or_default().push(run);
        }
        Ok(members)
    }

    /// Takes a task's runs and what is below them.
    fn family(&mut self, task: Task, depth: usize) -> Family {
        let mut by_run: HashMap<String, Vec<Family>> = HashMap::new();
        let mut order = Vec::new();
        // What is deeper than tasks can nest stays away; what is taken is gone, so that a circle ends.
        let children = if depth < MAX_DEPTH { self.children.remove(&task.task_id) } else { None };
        for child in children.unwrap_or_default() {
            let run = child.parent.as_ref().map(|parent| parent.run_id.clone()).unwrap_or_default();
            let below = self.family(child, depth + 1);
            order.push(run.clone());
            by_run.entry(run).or_default().push(below);
        }
        let runs = self.runs.remove(&task.task_id).unwrap_or_default().into_iter().map(|run| {
            let below = by_run.remove(&run.run_id).unwrap_or_default();
            (run, below)
        });
        let runs = runs.collect();
        let others = order.iter().filter_map(|run| by_run.remove(run)).flatten().collect();
        Family { task, runs, others }
    }
}

fn draw(context: &Context, family: &Family) -> Node {
    let screen = &context.screen;
    let task = &family.task;
    let state = screen.paint(words::task_tone(task), &words::task_state(task));
    let agent = task.spec.as_ref().map_or("", |spec| spec.agent.as_str());
    let facts = [agent, &attempts(task)].into_iter().filter(|fact| !fact.is_empty()).collect::<Vec<_>>().join(" ");
    let text = format!("{}  {state}  {}", screen.paint(Tone::Strong, &task.task_id), screen.paint(Tone::Quiet, &facts));
    let mut children: Vec<Node> = family
        .runs
        .iter()
        .map(|(run, below)| Node {
            text: run_text(context, run),
            children: below.iter().map(|family| draw(context, family)).collect(),
        })
        .collect();
    children.extend(family.others.iter().map(|family| draw(context, family)));
    Node { text: text.trim_end().to_owned(), children }
}

fn run_text(context: &Context, run: &Run) -> String {
    let screen = &context.screen;
    let state = screen.paint(words::run_tone(run), &words::run_state(run));
    let took = time::elapsed_text(run.start_time.as_ref(), run.end_time.as_ref());
    let mut facts = vec![plain(&words::ending(run)), took, words::cost(run)];
    facts.retain(|fact| !fact.is_empty() && fact != "–" && fact != "exit 0");
    let number = if run.attempt == 0 { String::new() } else { format!("#{} ", run.attempt) };
    format!("{number}{}  {state}  {}", run.run_id, screen.paint(Tone::Quiet, &facts.join(" · "))).trim_end().to_owned()
}

fn view(family: &Family) -> FamilyView {
    let one = |(run, below): &(Run, Vec<Family>)| RunFamilyView {
        run: run.view(),
        children: below.iter().map(view).collect(),
    };
    FamilyView {
        task: family.task.view(),
        runs: family.runs.iter().map(one).collect(),
        children: family.others.iter().map(view).collect(),
    }
}

fn names(context: &Context, family: &Family) -> Result<(), Failure> {
    context.screen.line(&family.task.task_id)?;
    for (run, below) in &family.runs {
        context.screen.line(&run.run_id)?;
        below.iter().try_for_each(|family| names(context, family))?;
    }
    family.others.iter().try_for_each(|family| names(context, family))
}
