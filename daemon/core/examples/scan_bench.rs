//! Measures the scan at start: a tree of finished runs in a temporary folder, read with a warm page cache, and pages of
//! the catalog made of it. Prints one JSON object; times are milliseconds, the best of three and the first.
//!
//! `scan_bench [TASKS] [RUNS_PER_TASK] [own|foreign]`, by default 100 100 own.

use std::time::Instant;

use conductor_core::store::catalog::{PageRequest, RunFilter};
use conductor_core::store::liveness::Liveness;
use conductor_core::store::{Catalog, ProjectRecord, Root, Scan, TaskFile, TaskRecord, run_info, scan, yaml};
use conductor_core::types::{Mode, Outcome, RunStatus, TaskKey, TaskSpec, Timestamp};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let tasks: usize = args.next().map_or(Ok(100), |text| text.parse())?;
    let runs: usize = args.next().map_or(Ok(100), |text| text.parse())?;
    let own = args.next().as_deref() != Some("foreign");
    let dir = tempfile::tempdir()?;
    let root = Root::open(dir.path())?;
    build(&root, tasks, runs, own)?;

    let mut scans = Vec::new();
    let mut fills = Vec::new();
    let mut catalog = Catalog::new(1);
    for _ in 0..4 {
        let begin = Instant::now();
        let scanned: Scan<yaml::Value> = scan(&root, Timestamp::now(), &Liveness::default())?;
        scans.push(begin.elapsed().as_secs_f64() * 1e3);
        let begin = Instant::now();
        catalog = fill(scanned);
        fills.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let (_, task_count, run_count) = catalog.counts();
    assert_eq!((task_count, run_count), (tasks, tasks * runs), "everything was read");

    let begin = Instant::now();
    let page = catalog.list_runs(&RunFilter::default(), &PageRequest::default())?;
    let page_ms = begin.elapsed().as_secs_f64() * 1e3;
    let best = |times: &[f64]| times[1..].iter().copied().fold(f64::INFINITY, f64::min);
    let result = serde_json::json!({
        "tasks": tasks,
        "runs": run_count,
        "own": own,
        "scan_first_ms": scans[0],
        "scan_ms": best(&scans),
        "fill_ms": best(&fills),
        "total_ms": best(&scans) + best(&fills),
        "limit_ms": 1000.0,
        "page_of": page.items.len(),
        "page_ms": page_ms,
    });
    println!("{result}");
    Ok(())
}

fn fill(scanned: Scan<yaml::Value>) -> Catalog {
    let catalog = Catalog::new(1);
    for project in &scanned.projects {
        catalog.put_project(ProjectRecord::from(project));
    }
    for task in scanned.tasks {
        catalog.put_task(TaskRecord::from_scan(&task));
        for run in task.runs {
            catalog.put_run(run.info);
        }
    }
    catalog
}

/// Writes the tree without fsync: what is measured is reading.
fn build(root: &Root, tasks: usize, runs: usize, own: bool) -> Result<(), Box<dyn std::error::Error>> {
    let spec = TaskSpec {
        title: "bench".into(),
        agent: "claude".to_owned(),
        mode: Mode::Loop,
        cwd: "/home/dev/work/demo".to_owned(),
        model: None,
        extra_args: Vec::new(),
        parent: None,
        depth: 0,
        max_restarts: 100,
        restart_delay: std::time::Duration::from_secs(1),
        child_wait_timeout: std::time::Duration::from_secs(300),
        on_child_timeout: Default::default(),
        wall_time: None,
        log_limit: None,
        idle_warn: None,
        idle_timeout: None,
        on_exit: Default::default(),
    };
    let start: Timestamp = "2026-11-22T15:11:32.094481035Z".parse()?;
    for number in 0..tasks {
        let (hour, minute, second) = (number / 3600 % 24, number / 60 % 60, number % 60);
        let id = format!("task-20261122-{hour:02}{minute:02}{second:02}-bench-{number}").parse()?;
        let key = TaskKey::new(format!("project-{}", number % 10).parse()?, id);
        let folder = root.task_dir(&key);
        std::fs::create_dir_all(folder.join("runs"))?;
        std::fs::write(folder.join("TASK.md"), "do it\n")?;
        std::fs::write(folder.join("DONE"), "")?;
        if own {
            let state: yaml::Value = yaml::from_str("{phase: finished, attempts: 100, end: {reason: done}}")?;
            let file: TaskFile<_> = TaskFile::new(key.clone(), start, spec.clone(), state);
            std::fs::write(folder.join("task.yaml"), yaml::to_string(&file)?)?;
        }
        for run in 0..runs {
            let run = key.run(format!("20261122-15113200{:02}-{}-{run}", run % 100, 1000 + number).parse()?);
            let path = root.run_dir(&run);
            std::fs::create_dir_all(path.join("shim"))?;
            std::fs::write(path.join("shim/exit.json"), "{}")?;
            let mut info = run_info::parse(&run, b"version: 1\n").info;
            let file = |name: &str| Some(path.join(name).display().to_string());
            info.agent = "claude".to_owned();
            (info.pid, info.pgid) = (11_739, 11_739);
            info.start_time = start;
            info.end_time = Some(start);
            info.exit_code = 0;
            info.status = RunStatus::Completed;
            info.cwd = Some(spec.cwd.clone());
            info.prompt_path = file("prompt.md");
            info.output_path = file("output.md");
            info.stdout_path = file("agent-stdout.txt");
            info.stderr_path = file("agent-stderr.txt");
            info.commandline = Some("claude -p --output-format stream-json --verbose < prompt.md".to_owned());
            info.agent_version = "2.1.49 (Claude Code)".to_owned();
            if own {
                info.outcome = Some(Outcome::Completed);
                info.attempt = 1;
                info.usage = Some(Default::default());
                info.tier = Some("cgroup".to_owned());
            }
            std::fs::write(path.join("run-info.yaml"), run_info::emit(&info))?;
        }
    }
    Ok(())
}
