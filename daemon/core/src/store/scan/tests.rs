//! Trees real, damaged and foreign, read as a start reads them. The bytes of each format have tests of their own.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;
use crate::store::yaml::Value;
use crate::store::{Catalog, ProjectRecord, TaskRecord};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/conductor-loop");

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("mkdir");
    for entry in std::fs::read_dir(from).expect("listable") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::write(to, std::fs::read(entry.path()).expect("readable")).expect("written");
        }
    }
}

/// Everything below a folder: bytes, mode and time of change by path. Equal before and after: nothing was written.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32, std::time::SystemTime)> {
    use std::os::unix::fs::PermissionsExt;
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().expect("stat");
        let mut bytes = Vec::new();
        if meta.is_dir() {
            open.extend(std::fs::read_dir(&path).expect("listable").map(|entry| entry.expect("an entry").path()));
        } else if meta.is_file() {
            bytes = std::fs::read(&path).expect("readable");
        }
        found.insert(path, (bytes, meta.permissions().mode(), meta.modified().expect("a time")));
    }
    found
}

fn read(root: &Root) -> Scan<Value> {
    scan(root, Timestamp::now(), &Liveness::default()).expect("a root can be listed")
}

fn opened() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().expect("a folder");
    copy(Path::new(FIXTURES), dir.path());
    let root = Root::open(dir.path()).expect("a root");
    (dir, root)
}

fn child_processes() -> Vec<String> {
    let me = std::process::id().to_string();
    let all = std::fs::read_dir("/proc").expect("proc").flatten();
    let stats = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let parent = |stat: &str| stat[stat.rfind(')').unwrap_or(0)..].split_whitespace().nth(2).map(str::to_owned);
    stats.filter(|stat| parent(stat).as_deref() == Some(&me)).collect()
}

#[test]
fn a_tree_of_conductor_loop_is_shown_and_left_as_it_is() {
    let (dir, root) = opened();
    let before = tree(dir.path());
    let scan = read(&root);
    assert_eq!(scan.problems, Problems::default());
    let shown: Vec<_> =
        scan.tasks.iter().map(|task| (TaskRecord::from_scan(task).state_name(), task.runs.len())).collect();
    assert_eq!(shown, [("all_finished", 1), ("partial_failure", 4)]);
    assert!(scan.projects.iter().all(|project| ProjectRecord::from(project).foreign));
    assert!(scan.tasks.iter().flat_map(|task| &task.runs).all(|run| !run.needs_recovery()));
    assert_eq!(tree(dir.path()), before);
    assert_eq!(child_processes(), Vec::<String>::new(), "no process was started");
}

#[test]
fn each_file_cut_or_flipped_in_turn_costs_one_record_at_most_and_nothing_is_written() {
    let (dir, root) = opened();
    let whole = tree(dir.path());
    let files: Vec<_> = whole.iter().filter(|(path, _)| path.is_file()).collect();
    let mut lost = 0;
    for (path, (bytes, ..)) in files {
        let mut damages: Vec<Vec<u8>> = [0, 1, bytes.len() / 2, bytes.len().saturating_sub(1)]
            .iter()
            .map(|len| bytes[..*len.min(&bytes.len())].to_vec())
            .collect();
        for at in [0, bytes.len() / 3, bytes.len() / 2] {
            for bit in [0, 5, 7] {
                let mut flipped = bytes.clone();
                if let Some(byte) = flipped.get_mut(at) {
                    *byte ^= 1 << bit;
                }
                damages.push(flipped);
            }
        }
        for damaged in damages {
            std::fs::write(path, &damaged).expect("damage");
            let before = tree(dir.path());
            let scan = read(&root);
            assert_eq!(tree(dir.path()), before, "{}", path.display());
            let runs: Vec<_> = scan.tasks.iter().flat_map(|task| &task.runs).collect();
            assert_eq!((scan.tasks.len(), runs.len()), (2, 5), "{}", path.display());
            let unknown = runs.iter().filter(|run| run.info.status == RunStatus::Unknown).count();
            assert!(unknown <= 1, "{} costs {unknown} runs", path.display());
            assert!(runs.iter().all(|run| run.problem.is_none() || run.info.error_summary.is_some()));
            lost += unknown;
        }
        std::fs::write(path, bytes).expect("repair");
    }
    assert!(lost >= 5, "damage was noticed ({lost})");
    assert_eq!(child_processes(), Vec::<String>::new());
}

#[test]
fn a_run_of_a_foreign_task_is_neither_recovered_nor_signalled() {
    let (dir, root) = opened();
    // This process stands for the agent: a signal to it or its group would end the test.
    let run = "demo/task-20260101-000000-demo/runs/20261122-1511320000-11729-1";
    let text = format!(
        "version: 1\npid: {}\npgid: {}\nstart_time: {}\nexit_code: -1\nstatus: running\n",
        std::process::id(),
        nix::unistd::getpgrp(),
        Timestamp::now()
    );
    std::fs::write(dir.path().join(run).join("run-info.yaml"), text).expect("write");
    std::fs::create_dir(dir.path().join(run).join("shim")).expect("mkdir");
    let before = tree(dir.path());
    let scan = read(&root);
    let run = &scan.tasks[0].runs[0];
    assert_eq!(run.info.ownership, crate::types::Ownership::External);
    assert!(!run.needs_recovery());
    assert_eq!(TaskRecord::from_scan(&scan.tasks[0]).state_name(), "running");
    assert_eq!(tree(dir.path()), before);
}

#[test]
fn names_that_are_no_ids_and_links_are_counted_and_passed_over() {
    let (dir, root) = opened();
    for name in ["Upper", "demo/x1", "demo/task-20260101-000000-demo/runs/20261122-1511320000-1-1-991"] {
        std::fs::create_dir_all(dir.path().join(name)).expect("mkdir");
    }
    for hidden in ["_audit", ".git", "demo/_old"] {
        std::fs::create_dir_all(dir.path().join(hidden)).expect("mkdir");
    }
    symlink("/etc", dir.path().join("etc")).expect("symlink");
    symlink("task-20260101-000000-demo", dir.path().join("demo/task-20260101-000000-link")).expect("symlink");
    let scan = read(&root);
    assert_eq!((scan.projects.len(), scan.tasks.len()), (1, 2));
    assert_eq!(scan.problems.count, 5, "{:#?}", scan.problems.listed);
}

#[test]
fn a_linked_run_info_is_refused() {
    let (dir, root) = opened();
    let file = dir.path().join("demo/task-20260101-000000-demo/runs/20261122-1511320000-11729-1/run-info.yaml");
    std::fs::rename(&file, dir.path().join("elsewhere")).expect("rename");
    symlink(dir.path().join("elsewhere"), &file).expect("symlink");
    let scan = read(&root);
    assert!(matches!(scan.tasks[0].runs[0].problem, Some(RunProblem::Unreadable(_))));
}

#[test]
fn a_task_of_ours_is_read_back_and_a_newer_or_damaged_one_is_shown_and_kept() {
    let (dir, root) = opened();
    let key = TaskKey::new("demo".parse().expect("an id"), "task-20260101-000000-nodone".parse().expect("an id"));
    let spec = "{agent: a, cwd: /, max_restarts: 1, restart_delay: 1, child_wait_timeout: 1}";
    let spec: crate::types::TaskSpec = crate::store::yaml::from_str(spec).expect("a spec");
    let file = TaskFile::<Value>::new(key.clone(), Timestamp::now(), spec, Value::from("state"));
    task_file::write(&root, &file).expect("written");
    let read_back = task_file::read::<Value>(&root, &key).expect("readable").expect("ours");
    assert_eq!(read_back, file);
    let record = TaskRecord::from_scan(&read(&root).tasks[1]);
    assert!(record.spec.is_some() && record.foreign.is_none());

    let path = dir.path().join("demo/task-20260101-000000-nodone/task.yaml");
    for text in ["version: 7\nwhatever: 1\n", "version: 1\nspec: [\n", ""] {
        std::fs::write(&path, text).expect("write");
        let record = TaskRecord::from_scan(&read(&root).tasks[1]);
        assert_eq!(record.state_name(), "unknown");
        assert!(record.problem.is_some() && record.foreign.is_none(), "{text:?}");
        assert_eq!(std::fs::read_to_string(&path).expect("kept"), text);
    }
}

#[test]
fn a_deleted_task_is_gone_at_once_and_links_in_it_are_not_followed() {
    let (dir, root) = opened();
    let outside = tempfile::tempdir().expect("a folder");
    std::fs::write(outside.path().join("precious"), "x").expect("write");
    let scanned = read(&root);
    let key = scanned.tasks[0].key.clone();
    symlink(outside.path(), root.task_dir(&key).join("link")).expect("symlink");
    root.remove_task(&key).expect("removed");
    assert!(!root.task_dir(&key).exists() && outside.path().join("precious").exists());
    root.empty_trash().expect("emptied");
    assert!(!dir.path().join(".conductor/trash").exists());
    let catalog = Catalog::default();
    for task in &read(&root).tasks {
        catalog.put_task(TaskRecord::from_scan(task));
    }
    assert_eq!(catalog.counts().1, 1);
}
