//! The usage ledger: what agents used, added up by task, agent, model, project, day or account.
//!
//! The runs' own records are the ledger. A task that is deleted takes its records along, so that what it used is written
//! to `.conductor/usage-deleted.jsonl` first: one line a task, added up by day, agent, account and model. A crash between
//! that line and the deletion leaves both; as long as the task is there its line does not count, and of several lines of
//! one task the last one holds.
//!
//! Unknown is not zero: runs without known tokens, or without a known cost, are counted beside the sums.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::Supervisor;
use crate::store::Catalog;
use crate::types::{ProjectId, RunInfo, TaskKey, Timestamp, Usage};

/// The version of a line that is written, and the newest that is read.
const VERSION: u32 = 1;
/// Rows of a report at most; the rest is added up in one of the key [`OTHERS`].
const MAX_ROWS: usize = 10_000;
/// Key of the row that holds what is beyond [`MAX_ROWS`].
const OTHERS: &str = "(others)";
/// Key of what names no model or account.
const UNKNOWN: &str = "unknown";

/// By what usage is grouped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageGroup {
    /// One row for all.
    #[default]
    All,
    /// `PROJECT/TASK`.
    Task,
    /// The agent's name in the configuration.
    Agent,
    /// The vendor's name of the model.
    Model,
    /// The project.
    Project,
    /// The day (UTC) on which the run ended.
    Day,
    /// The account.
    Account,
}

/// Which runs are added up.
#[derive(Clone, Debug, Default)]
pub struct UsageQuery {
    /// Only of this project.
    pub project: Option<ProjectId>,
    /// Only of this task.
    pub task: Option<TaskKey>,
    /// Also of all tasks below that task.
    pub descendants: bool,
    /// Only runs that ended then or later.
    pub since: Option<Timestamp>,
    /// Only runs that ended before.
    pub until: Option<Timestamp>,
    /// How they are grouped.
    pub group: UsageGroup,
}

/// One group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsageRow {
    /// The group.
    pub key: String,
    /// Ended runs.
    pub runs: u64,
    /// What is known of their tokens and cost.
    pub usage: Usage,
    /// Runs of which no tokens are known.
    pub without_usage: u64,
    /// Runs of which tokens are known, but no cost.
    pub without_cost: u64,
}

/// The groups and their sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsageReport {
    /// Sorted by key.
    pub rows: Vec<UsageRow>,
    /// All together.
    pub total: UsageRow,
}

/// What one run, or several equal ones, used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Charge {
    day: Date,
    agent: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    account: String,
    runs: u64,
    #[serde(default)]
    without_usage: u64,
    #[serde(default)]
    without_cost: u64,
    usage: Usage,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    models: BTreeMap<String, ModelCharge>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct ModelCharge {
    runs: u64,
    #[serde(default)]
    without_usage: u64,
    #[serde(default)]
    without_cost: u64,
    usage: Usage,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    version: u32,
    project: ProjectId,
    task: crate::types::TaskId,
    charges: Vec<Charge>,
}

/// What deleted tasks used.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    deleted: Mutex<BTreeMap<TaskKey, Vec<Charge>>>,
}

impl Ledger {
    pub(super) fn open(path: PathBuf) -> Self {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what deleted tasks used can't be read");
                String::new()
            }
        };
        let mut deleted = BTreeMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            match serde_json::from_str::<Line>(line) {
                Ok(line) if line.version <= VERSION => {
                    deleted.insert(TaskKey::new(line.project, line.task), line.charges);
                }
                _ => tracing::warn!(path = %path.display(), line = number + 1, "not a line that can be read; left out"),
            }
        }
        Self { path, deleted: Mutex::new(deleted) }
    }

    /// Whether the use of a deleted task is kept under this name.
    pub(super) fn knows(&self, task: &TaskKey) -> bool {
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner).contains_key(task)
    }

    /// Keeps what the runs of a task used, durably. Blocks.
    pub(super) fn keep(&self, task: &TaskKey, runs: &[std::sync::Arc<RunInfo>]) -> std::io::Result<()> {
        let mut sums: BTreeMap<(Date, String, String), Charge> = BTreeMap::new();
        for run in runs.iter().filter(|run| run.has_ended()) {
            let one = Charge::of(run);
            sums.entry((one.day, one.agent.clone(), one.account.clone())).or_insert_with(|| one.empty()).add(&one);
        }
        let charges: Vec<Charge> = sums.into_values().collect();
        if charges.is_empty() {
            return Ok(());
        }
        let line =
            Line { version: VERSION, project: task.project.clone(), task: task.task.clone(), charges: charges.clone() };
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        let mut deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        self.append(&text)?;
        deleted.insert(task.clone(), charges);
        Ok(())
    }

    /// Appends a line, after the end of a line that a crash may have cut.
    fn append(&self, text: &str) -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        let mut last = [b'\n'];
        if file.metadata()?.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        let folder = self.path.parent().expect("the ledger lies in .conductor");
        conductor_shim::durable::fsync_dir(folder)
    }
}

impl Charge {
    fn of(run: &RunInfo) -> Self {
        let ended = run.end_time.unwrap_or(run.start_time);
        let usage = run.usage.clone().unwrap_or_default();
        let without_usage = u64::from(run.usage.is_none());
        let without_cost = u64::from(run.usage.as_ref().is_some_and(|usage| usage.cost.is_none()));
        let whole = || ModelCharge { runs: 1, without_usage, without_cost, usage: usage.clone() };
        let models = match run.models.len() {
            0 => BTreeMap::from([(run.model.clone().unwrap_or_else(|| UNKNOWN.to_owned()), whole())]),
            // The sum may know a cost that the model does not.
            1 => run.models.keys().map(|name| (name.clone(), whole())).collect(),
            _ => run
                .models
                .iter()
                .map(|(name, usage)| {
                    let without_cost = u64::from(usage.cost.is_none());
                    (name.clone(), ModelCharge { runs: 1, without_usage: 0, without_cost, usage: usage.clone() })
                })
                .collect(),
        };
        Self {
            day: ended.to_zoned(TimeZone::UTC).date(),
            agent: run.agent.clone(),
            account: run.account.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
            runs: 1,
            without_usage,
            without_cost,
            usage,
            models,
        }
    }

    fn empty(&self) -> Self {
        Self { day: self.day, agent: self.agent.clone(), account: self.account.clone(), ..Self::default() }
    }

    fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.without_usage += other.without_usage;
        self.without_cost += other.without_cost;
        self.usage.add(&other.usage);
        for (name, model) in &other.models {
            let sum = self.models.entry(name.clone()).or_default();
            sum.runs += model.runs;
            sum.without_usage += model.without_usage;
            sum.without_cost += model.without_cost;
            sum.usage.add(&model.usage);
        }
    }
}

#[derive(Default)]
struct Sums {
    rows: BTreeMap<String, UsageRow>,
    total: UsageRow,
}

impl Sums {
    fn add(&mut self, group: UsageGroup, task: &TaskKey, charge: &Charge) {
        let whole = UsageRow {
            key: String::new(),
            runs: charge.runs,
            usage: charge.usage.clone(),
            without_usage: charge.without_usage,
            without_cost: charge.without_cost,
        };
        self.total.add(&whole);
        let key = match group {
            UsageGroup::All => return,
            UsageGroup::Task => task.to_string(),
            UsageGroup::Agent => charge.agent.clone(),
            UsageGroup::Project => task.project.to_string(),
            UsageGroup::Day => charge.day.to_string(),
            UsageGroup::Account => charge.account.clone(),
            UsageGroup::Model => {
                for (name, model) in &charge.models {
                    self.row(name.clone()).add(&UsageRow {
                        key: String::new(),
                        runs: model.runs,
                        usage: model.usage.clone(),
                        without_usage: model.without_usage,
                        without_cost: model.without_cost,
                    });
                }
                return;
            }
        };
        self.row(key).add(&whole);
    }

    fn row(&mut self, key: String) -> &mut UsageRow {
        let key = if self.rows.len() < MAX_ROWS || self.rows.contains_key(&key) { key } else { OTHERS.to_owned() };
        self.rows.entry(key.clone()).or_insert_with(|| UsageRow { key, ..UsageRow::default() })
    }
}

impl UsageRow {
    fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.usage.add(&other.usage);
        self.without_usage += other.without_usage;
        self.without_cost += other.without_cost;
    }
}

impl UsageQuery {
    fn holds(&self, ended: Timestamp) -> bool {
        self.since.is_none_or(|since| ended >= since) && self.until.is_none_or(|until| ended < until)
    }

    /// Days as a whole: nothing finer is known of a deleted task.
    fn holds_day(&self, day: Date) -> bool {
        let date = |time: Timestamp| time.to_zoned(TimeZone::UTC).date();
        self.since.is_none_or(|since| day >= date(since)) && self.until.is_none_or(|until| day <= date(until))
    }

    fn wants(&self, task: &TaskKey) -> bool {
        match (&self.task, &self.project) {
            (Some(wanted), _) => wanted == task,
            (None, Some(project)) => task.project == *project,
            (None, None) => true,
        }
    }
}

fn report(catalog: &Catalog, ledger: &Ledger, query: &UsageQuery) -> UsageReport {
    let mut sums = Sums::default();
    let runs = match &query.task {
        None => catalog.runs_in(query.project.as_ref()),
        Some(task) if query.descendants => {
            catalog.task_tree(task).iter().flat_map(|task| catalog.runs_of(task)).collect()
        }
        Some(task) => catalog.runs_of(task),
    };
    for run in runs.iter().filter(|run| run.has_ended()) {
        if query.holds(run.end_time.unwrap_or(run.start_time)) {
            sums.add(query.group, &run.key().task, &Charge::of(run));
        }
    }
    let deleted = ledger.deleted.lock().unwrap_or_else(PoisonError::into_inner);
    for (task, charges) in deleted.iter().filter(|(task, _)| query.wants(task) && catalog.task(task).is_none()) {
        for charge in charges.iter().filter(|charge| query.holds_day(charge.day)) {
            sums.add(query.group, task, charge);
        }
    }
    UsageReport { rows: sums.rows.into_values().collect(), total: sums.total }
}

impl Supervisor {
    /// What agents used. Costs the runs that match.
    pub async fn usage(&self, query: UsageQuery) -> UsageReport {
        let shared = std::sync::Arc::clone(&self.0.shared);
        super::perform::blocking(move || report(&shared.catalog, &shared.ledger, &query)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::run_info::{RunProblem, unreadable};
    use crate::types::{Cost, CostKind, Outcome, RunStatus};

    fn task(slug: &str) -> TaskKey {
        TaskKey::new("p".parse().expect("id"), format!("task-20260101-000000-{slug}").parse().expect("id"))
    }

    fn run(task: &TaskKey, n: u32, end: &str, usage: Option<Usage>) -> RunInfo {
        let key = task.run(format!("20260101-0000000000-1-{n}").parse().expect("id"));
        let mut info = unreadable(&key, RunProblem::Missing).info;
        info.status = RunStatus::Completed;
        info.outcome = Some(Outcome::Completed);
        info.agent = "claude".into();
        info.end_time = Some(end.parse().expect("time"));
        info.model = Some("m".into());
        info.usage = usage;
        info
    }

    fn used(input: u64, usd: Option<f64>) -> Usage {
        Usage { input, cost: usd.map(|usd| Cost { usd, kind: CostKind::Exact }), ..Usage::default() }
    }

    fn world(runs: &[RunInfo]) -> Catalog {
        let catalog = Catalog::new(1);
        for run in runs {
            catalog.put_run(run.clone());
        }
        catalog
    }

    #[test]
    fn groups_add_up_and_what_is_unknown_is_counted_and_not_zero() {
        let (a, b) = (task("aaa"), task("bbb"));
        let catalog = world(&[
            run(&a, 1, "2026-01-01T10:00:00Z", Some(used(1, Some(0.5)))),
            run(&a, 2, "2026-01-02T10:00:00Z", Some(used(2, None))),
            run(&b, 1, "2026-01-02T11:00:00Z", None),
        ]);
        let folder = tempfile::tempdir().expect("folder");
        let ledger = Ledger::open(folder.path().join("l"));
        let by = |group| report(&catalog, &ledger, &UsageQuery { group, ..UsageQuery::default() });
        let all = by(UsageGroup::Day);
        let keys: Vec<&str> = all.rows.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(keys, ["2026-01-01", "2026-01-02"]);
        assert_eq!((all.total.runs, all.total.without_usage, all.total.without_cost), (3, 1, 1));
        assert_eq!(all.total.usage.cost, Some(Cost { usd: 0.5, kind: CostKind::Partial }));
        assert_eq!(all.rows[1].usage.cost, None, "nothing known is not zero");
        assert_eq!(by(UsageGroup::Task).rows.len(), 2);
        assert!(by(UsageGroup::All).rows.is_empty());
        let since = Some("2026-01-02T10:30:00Z".parse().expect("time"));
        assert_eq!(report(&catalog, &ledger, &UsageQuery { since, ..UsageQuery::default() }).total.runs, 1);
    }

    #[test]
    fn several_models_of_one_run_are_told_apart() {
        let mut info = run(&task("aaa"), 1, "2026-01-01T10:00:00Z", Some(used(3, Some(3.0))));
        info.models = BTreeMap::from([("x".into(), used(1, Some(1.0))), ("y".into(), used(2, Some(2.0)))]);
        let catalog = world(&[info]);
        let folder = tempfile::tempdir().expect("folder");
        let ledger = Ledger::open(folder.path().join("l"));
        let rows = report(&catalog, &ledger, &UsageQuery { group: UsageGroup::Model, ..UsageQuery::default() }).rows;
        let found: Vec<(&str, u64)> = rows.iter().map(|row| (row.key.as_str(), row.usage.input)).collect();
        assert_eq!(found, [("x", 1), ("y", 2)]);
    }

    #[test]
    fn what_a_deleted_task_used_counts_on_across_restarts_and_a_half_done_deletion_counts_once() {
        let key = task("aaa");
        let runs: Vec<Arc<RunInfo>> =
            (1..4).map(|n| Arc::new(run(&key, n, "2026-01-01T10:00:00Z", Some(used(10, Some(1.0)))))).collect();
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("usage-deleted.jsonl");
        let ledger = Ledger::open(path.clone());
        ledger.keep(&key, &runs).expect("kept");
        // Cut by a crash, then deleted again.
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .expect("open")
            .write_all(b"{\"version\":1,\"pro")
            .expect("torn");
        Ledger::open(path.clone()).keep(&key, &runs).expect("kept");
        let again = Ledger::open(path);
        let total = report(&world(&[]), &again, &UsageQuery::default()).total;
        assert_eq!((total.runs, total.usage.input), (3, 30));
        // The task is still there: its own records count.
        let owned: Vec<RunInfo> = runs.iter().map(|run| RunInfo::clone(run)).collect();
        let catalog = world(&owned);
        catalog.put_task(crate::store::TaskRecord::new(key, Timestamp::UNIX_EPOCH));
        assert_eq!(report(&catalog, &again, &UsageQuery::default()).total.runs, 3);
    }
}
