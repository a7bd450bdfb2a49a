//! Pages, names, counts and changes of the index in memory.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::store::run_info;
use crate::store::task_file::RequestRecord;

fn task_key(project: u32, number: u32) -> TaskKey {
    let id = format!("task-20261122-{:02}{:02}{:02}-job-{number}", number / 3600, number / 60 % 60, number % 60);
    TaskKey::new(format!("p{project}").parse().expect("an id"), id.parse().expect("an id"))
}

fn run_of(task: &TaskKey, number: u32, status: RunStatus) -> RunInfo {
    let key = task.run(format!("20261122-151132{:04}-7-{number}", number % 7).parse().expect("an id"));
    let mut info = run_info::parse(&key, b"").info;
    info.status = status;
    info
}

fn record(key: TaskKey, phase: Phase) -> TaskRecord {
    let mut record = TaskRecord::new(key, Timestamp::now());
    record.phase = Some(phase);
    record
}

fn page(size: u32, order: Order, token: Option<String>) -> PageRequest {
    PageRequest { size, token, order }
}

#[derive(Clone, Debug)]
struct Case {
    runs: Vec<(u32, u32, u32, bool)>,
    late: Vec<(u32, u32, u32, bool)>,
    filter: (Option<u32>, Option<u32>, bool),
    size: u32,
    newest: bool,
}

fn any_runs() -> impl Strategy<Value = Vec<(u32, u32, u32, bool)>> {
    prop::collection::vec((0_u32..3, 0_u32..4, 0_u32..200, any::<bool>()), 0..60)
}

prop_compose! {
    fn any_case()(
        runs in any_runs(),
        late in any_runs(),
        filter in (prop::option::of(0_u32..3), prop::option::of(0_u32..4), any::<bool>()),
        size in 1_u32..20,
        newest in any::<bool>(),
    ) -> Case {
        Case { runs, late, filter, size, newest }
    }
}

fn put(catalog: &Catalog, (project, task, run, running): (u32, u32, u32, bool)) {
    let status = if running { RunStatus::Running } else { RunStatus::Completed };
    catalog.put_run(run_of(&task_key(project, task), run, status));
}

proptest! {
    #[test]
    fn pages_put_together_are_the_filtered_list_in_order(case in any_case()) {
        let catalog = Catalog::default();
        case.runs.iter().for_each(|run| put(&catalog, *run));
        let (project, task, running) = case.filter;
        let filter = RunFilter {
            project: project.map(|project| task_key(project, 0).project),
            task: project.zip(task).map(|(project, task)| task_key(project, task)),
            statuses: if running { vec![RunStatus::Running] } else { Vec::new() },
            ..RunFilter::default()
        };
        let order = if case.newest { Order::NewestFirst } else { Order::OldestFirst };
        let mut expected: Vec<Arc<RunInfo>> = catalog.snapshot().runs;
        expected.retain(|run| {
            filter.project.as_ref().is_none_or(|project| run.project_id == *project)
                && filter.task.as_ref().is_none_or(|task| run.task_id == task.task)
                && (!running || run.status == RunStatus::Running)
        });
        expected.sort_by_key(|run| (run.run_id.clone(), run.project_id.clone(), run.task_id.clone()));
        if case.newest { expected.reverse() }

        let mut seen: Vec<RunKey> = Vec::new();
        let mut token = None;
        let mut late = case.late.iter();
        loop {
            let page = catalog.list_runs(&filter, &page(case.size, order, token)).expect("a page");
            prop_assert!(page.items.len() <= case.size as usize);
            seen.extend(page.items.iter().map(|run| run.key()));
            token = page.next;
            if token.is_none() { break }
            late.by_ref().take(3).for_each(|run| put(&catalog, *run));
        }
        let unique: BTreeSet<&RunKey> = seen.iter().collect();
        prop_assert_eq!(unique.len(), seen.len(), "nothing comes twice");
        if case.late.is_empty() {
            prop_assert_eq!(seen, expected.iter().map(|run| run.key()).collect::<Vec<_>>());
        } else {
            let still_fits = |run: &&Arc<RunInfo>| {
                let now = catalog.run(&run.key()).expect("nothing was removed");
                !running || now.status == RunStatus::Running
            };
            for run in expected.iter().filter(still_fits) {
                // A run that a late insert stopped and restarted may have been passed while it did not fit.
                let key_of = |late: &(u32, u32, u32, bool)| run_of(&task_key(late.0, late.1), late.2, run.status).key();
                let changed = case.late.iter().any(|late| run.key() == key_of(late));
                prop_assert!(changed || unique.contains(&run.key()), "{} is missing", run.key());
            }
        }
    }
}

#[test]
fn tasks_are_listed_by_project_phase_parent_and_time() {
    let catalog = Catalog::default();
    for number in 0..30 {
        let phase = if number % 3 == 0 { Phase::Running } else { Phase::Finished };
        let mut task = record(task_key(number % 2, number), phase);
        if number >= 20 {
            task.parent = Some(run_of(&task_key(0, 0), 1, RunStatus::Running).key());
        }
        catalog.put_task(task);
    }
    let count = |filter: &TaskFilter| {
        let page = catalog.list_tasks(filter, &page(500, Order::NewestFirst, None)).expect("a page");
        assert!(page.items.windows(2).all(|pair| pair[0].key.task > pair[1].key.task), "newest first");
        page.items.len()
    };
    assert_eq!(count(&TaskFilter::default()), 30);
    assert_eq!(count(&TaskFilter { project: Some(task_key(1, 0).project), ..Default::default() }), 15);
    assert_eq!(count(&TaskFilter { active_only: true, ..Default::default() }), 10);
    assert_eq!(count(&TaskFilter { phases: vec![Phase::Running], ..Default::default() }), 10);
    assert_eq!(count(&TaskFilter { phases: vec![Phase::Finished], ..Default::default() }), 20);
    assert_eq!(count(&TaskFilter { parent: Some(task_key(0, 0)), ..Default::default() }), 10);
    assert_eq!(count(&TaskFilter { roots_only: true, ..Default::default() }), 20);
    assert_eq!(catalog.task(&task_key(0, 0)).expect("there").children.len(), 10);
}

#[test]
fn a_token_is_refused_by_a_list_with_another_filter_or_order_and_garbage_by_all() {
    let catalog = Catalog::default();
    (0..5).for_each(|number| put(&catalog, (0, 0, number, false)));
    let all = RunFilter::default();
    let first = catalog.list_runs(&all, &page(2, Order::NewestFirst, None)).expect("a page");
    let token = first.next.expect("more");
    let get = |filter: &RunFilter, order, token: &str| {
        catalog.list_runs(filter, &page(2, order, Some(token.to_owned()))).map(|page| page.items.len())
    };
    assert_eq!(get(&all, Order::NewestFirst, &token), Ok(2));
    assert_eq!(get(&all, Order::OldestFirst, &token), Err(ListError::OtherList));
    let other = RunFilter { agent: Some("x".to_owned()), ..RunFilter::default() };
    assert_eq!(get(&other, Order::NewestFirst, &token), Err(ListError::OtherList));
    for garbage in ["x", "zz", "é", &token[..20], &format!("{}ff", &token[..16]), &"a".repeat(4000)] {
        assert!(get(&all, Order::NewestFirst, garbage).is_err(), "{garbage}");
    }
    let huge = catalog.list_runs(&all, &page(u32::MAX, Order::NewestFirst, None)).expect("cut to the maximum");
    assert_eq!(huge.items.len(), 5);
}

#[test]
fn revisions_grow_and_changes_follow_a_snapshot_until_the_log_is_full() {
    let catalog = Catalog::new(3);
    let mut watch = catalog.watch();
    let key = task_key(0, 1);
    let first = catalog.put_task(record(key.clone(), Phase::Queued));
    assert!(watch.has_changed().expect("open") && *watch.borrow_and_update() == first);
    let snapshot = catalog.snapshot();
    assert_eq!((snapshot.revision, snapshot.tasks.len()), (first, 1));
    let run = run_of(&key, 1, RunStatus::Running);
    let second = catalog.put_run(run);
    catalog.remove_task(&key);
    let changes = catalog.changes_since(first).expect("kept");
    let kinds: Vec<_> = changes.iter().map(|change| (change.kind, change.revision)).collect();
    let (upsert, delete) = (ChangeKind::Upsert, ChangeKind::Delete);
    assert_eq!(kinds, [(upsert, second), (delete, second + 1), (delete, second + 2)]);
    assert_eq!(catalog.changes_since(catalog.revision()).map(|list| list.len()), Ok(0));
    assert!(catalog.changes_since(catalog.revision() + 1).is_err(), "of another daemon start");
    for _ in 0..CHANGE_LOG {
        catalog.put_task(record(key.clone(), Phase::Queued));
    }
    assert!(catalog.changes_since(second + 2).is_ok());
    assert!(catalog.changes_since(second + 1).is_err(), "compacted");
    assert_eq!(catalog.task(&key).expect("there").revision, catalog.revision());
}

#[test]
fn a_removed_task_leaves_nothing_behind() {
    let catalog = Catalog::default();
    let (parent, child) = (task_key(0, 1), task_key(0, 2));
    catalog.put_task(record(parent.clone(), Phase::Running));
    let mut task = record(child.clone(), Phase::Running);
    task.parent = Some(run_of(&parent, 1, RunStatus::Running).key());
    catalog.put_task(task);
    catalog.put_run(run_of(&child, 1, RunStatus::Running));
    let now = Timestamp::now();
    let request = RequestRecord { id: "r".to_owned(), digest: "d".to_owned(), verb: "submit".to_owned(), time: now };
    catalog.put_request(child.clone(), request, now);
    assert_eq!(catalog.children_of(&parent).len(), 1);
    assert!(catalog.request("r", now).is_some());
    catalog.remove_task(&child).expect("was there");
    assert_eq!(catalog.task(&parent).expect("there").children, []);
    assert_eq!((catalog.counts(), catalog.runs_of(&child).len()), ((0, 1, 0), 0));
    assert!(catalog.request("r", now).is_none());
    let running = RunFilter { statuses: vec![RunStatus::Running], ..Default::default() };
    assert!(catalog.list_runs(&running, &PageRequest::default()).expect("a page").items.is_empty());
}

#[test]
fn a_request_id_counts_for_a_day() {
    let catalog = Catalog::default();
    let time: Timestamp = "2026-11-22T00:00:00Z".parse().expect("a time");
    let record = RequestRecord { id: "r".to_owned(), digest: "d".to_owned(), verb: "submit".to_owned(), time };
    catalog.put_request(task_key(0, 1), record.clone(), time);
    assert_eq!(catalog.request("r", time).map(|entry| entry.record), Some(record.clone()));
    assert!(catalog.request("r", time + SignedDuration::from_hours(25)).is_none());
    catalog.put_request(task_key(0, 1), record, time + SignedDuration::from_hours(25));
    assert!(catalog.request("r", time).is_none(), "an old one is not kept");
}

#[test]
fn tasks_and_runs_are_found_by_what_a_person_types() {
    let catalog = Catalog::default();
    let named = |project: &str, name: &str| {
        let key = TaskKey::new(project.parse().expect("an id"), name.parse().expect("an id"));
        catalog.put_task(record(key.clone(), Phase::Queued));
        key
    };
    let login = named("web", "task-20261122-100000-fix-login");
    let logout = named("web", "task-20261122-110000-fix-logout");
    let other = named("api", "task-20261122-120000-fix-login");
    let find = |text: &str| catalog.find_task(text, None).map(|task| task.key.clone());
    assert_eq!(find("fix-logout"), Ok(logout.clone()));
    assert_eq!(find("web/fix-login"), Ok(login.clone()));
    assert_eq!(find("task-20261122-10"), Ok(login.clone()));
    assert_eq!(find("20261122-11"), Ok(logout));
    assert_eq!(catalog.find_task("fix-login", Some(&other.project)).map(|task| task.key.clone()), Ok(other));
    let Err(FindError::Ambiguous { candidates, more, .. }) = find("fix-login") else { panic!("two match") };
    assert_eq!((candidates.len(), more), (2, 0));
    assert_eq!(candidates[0], "api/task-20261122-120000-fix-login", "newest first");
    let Err(FindError::NotFound { nearest, .. }) = find("fix-lgin") else { panic!("none matches") };
    assert_eq!(nearest, ["fix-login"]);
    for nothing in ["", "../x", "No/x", "/", "zzz"] {
        assert!(find(nothing).is_err(), "{nothing}");
    }

    let run = run_of(&login, 3, RunStatus::Completed);
    catalog.put_run(run.clone());
    catalog.put_run(run_of(&login, 4, RunStatus::Completed));
    let find = |text: &str| catalog.find_run(text, None).map(|run| run.run_id.clone());
    assert_eq!(find(run.run_id.as_str()), Ok(run.run_id.clone()));
    assert_eq!(find("20261122-1511320003"), Ok(run.run_id.clone()));
    assert!(matches!(find("20261122"), Err(FindError::Ambiguous { .. })));
    assert!(matches!(find("2025"), Err(FindError::NotFound { .. })));
    assert!(catalog.find_project("web").is_err(), "projects have records of their own");
}
