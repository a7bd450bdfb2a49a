//! What `top` shows: tasks and runs as last seen, the chosen row, the open log. No input and no output.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use conductor_proto::v1::{Run, RunStatus, Task, TaskPhase};
use ratatui::widgets::TableState;

use crate::follow::Change;
use crate::output::plain;

/// Lines of a log that are kept: enough to scroll back, bounded for a talkative agent.
const MAX_LINES: usize = 5_000;

/// Longest line that is kept, in bytes.
const MAX_LINE: usize = 8 * 1024;

/// Ended tasks that stay on the screen.
const MAX_ENDED: usize = 20;

type Key = (String, String);

/// What is on the screen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum View {
    Table,
    Details,
    Log,
}

pub(super) struct State {
    tasks: BTreeMap<Key, Task>,
    runs: HashMap<String, Run>,
    last_lines: HashMap<String, String>,
    chosen: Option<Key>,
    pub(super) rows: TableState,
    pub(super) view: View,
    pub(super) confirm_stop: bool,
    pub(super) message: Option<String>,
    pub(super) away: Option<Duration>,
    pub(super) colors: bool,
    pub(super) log_run: String,
    pub(super) log: VecDeque<String>,
    partial: Vec<u8>,
    /// Lines scrolled back from the end; 0: follows.
    pub(super) scroll: usize,
}

impl State {
    pub(super) fn new(colors: bool) -> Self {
        Self {
            tasks: BTreeMap::new(),
            runs: HashMap::new(),
            last_lines: HashMap::new(),
            chosen: None,
            rows: TableState::default(),
            view: View::Table,
            confirm_stop: false,
            message: None,
            away: None,
            colors,
            log_run: String::new(),
            log: VecDeque::new(),
            partial: Vec::new(),
            scroll: 0,
        }
    }

    pub(super) fn change(&mut self, change: Change) {
        match change {
            Change::Task(task) => {
                self.tasks.insert((task.project_id.clone(), task.task_id.clone()), *task);
                self.forget_old();
            }
            Change::Run(run) => {
                if run.status() != RunStatus::Running {
                    self.last_lines.remove(&run.run_id);
                }
                self.runs.insert(run.run_id.clone(), *run);
            }
            Change::Deleted(gone) if !gone.run_id.is_empty() => {
                self.runs.remove(&gone.run_id);
            }
            Change::Deleted(gone) => self.tasks.retain(|(project, task), _| {
                *project != gone.project_id || !gone.task_id.is_empty() && *task != gone.task_id
            }),
            Change::Again => {
                self.tasks.clear();
                self.runs.clear();
            }
            Change::Complete => {}
        }
        self.keep_choice();
    }

    /// Drops the oldest ended tasks and the runs that no row shows.
    fn forget_old(&mut self) {
        let mut ended: Vec<(i64, Key)> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.phase() == TaskPhase::Finished)
            .map(|(key, task)| (task.update_time.map_or(0, |time| time.seconds), key.clone()))
            .collect();
        ended.sort();
        for (_, key) in &ended[..ended.len().saturating_sub(MAX_ENDED)] {
            self.tasks.remove(key);
        }
        let tasks = &self.tasks;
        self.runs.retain(|_, run| {
            let task = tasks.get(&(run.project_id.clone(), run.task_id.clone()));
            // A run may come before its task.
            run.status() == RunStatus::Running || task.is_some_and(|task| task.last_run_id == run.run_id)
        });
    }

    /// Tasks in the order of the screen: live ones first, newest first.
    pub(super) fn tasks(&self) -> Vec<&Task> {
        let mut tasks: Vec<&Task> = self.tasks.values().collect();
        tasks.sort_by_key(|task| {
            let ended = task.phase() == TaskPhase::Finished;
            let created = task.create_time.map_or(0, |time| time.seconds);
            (ended, std::cmp::Reverse(created), std::cmp::Reverse(task.task_id.clone()))
        });
        tasks
    }

    pub(super) fn run_of(&self, task: &Task) -> Option<&Run> {
        let id = if task.current_run_id.is_empty() { &task.last_run_id } else { &task.current_run_id };
        self.runs.get(id)
    }

    pub(super) fn live_runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values().filter(|run| run.status() == RunStatus::Running)
    }

    pub(super) fn last_line(&self, run: &Run) -> Option<&str> {
        self.last_lines.get(&run.run_id).map(String::as_str)
    }

    pub(super) fn set_last_line(&mut self, run: String, text: String) {
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        if self.runs.contains_key(&run) {
            self.last_lines.insert(run, plain(line));
        }
    }

    fn keep_choice(&mut self) {
        let keys: Vec<Key> = self.tasks().iter().map(|task| (task.project_id.clone(), task.task_id.clone())).collect();
        let at = self.chosen.as_ref().and_then(|chosen| keys.iter().position(|key| key == chosen));
        let at = at.or_else(|| self.rows.selected().map(|row| row.min(keys.len().saturating_sub(1))));
        let at = at.unwrap_or(0);
        self.chosen = keys.get(at).cloned();
        self.rows.select(self.chosen.is_some().then_some(at));
    }

    /// Moves the choice by rows.
    pub(super) fn step(&mut self, by: isize) {
        let count = self.tasks.len();
        let at = self.rows.selected().unwrap_or(0).saturating_add_signed(by).min(count.saturating_sub(1));
        self.chosen = self.tasks().get(at).map(|task| (task.project_id.clone(), task.task_id.clone()));
        self.rows.select(self.chosen.is_some().then_some(at));
    }

    pub(super) fn selected(&self) -> Option<&Task> {
        self.tasks.get(self.chosen.as_ref()?)
    }

    pub(super) fn selected_run(&self) -> Option<Run> {
        self.run_of(self.selected()?).cloned()
    }

    pub(super) fn begin_log(&mut self, run: &str) {
        run.clone_into(&mut self.log_run);
        self.log.clear();
        self.partial.clear();
        self.scroll = 0;
        self.view = View::Log;
    }

    pub(super) fn add_log(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte != b'\n' {
                if self.partial.len() < MAX_LINE {
                    self.partial.push(byte);
                }
                continue;
            }
            self.log.push_back(plain(&String::from_utf8_lossy(&self.partial)));
            self.partial.clear();
            // What one looks at stays where it is.
            self.scroll = if self.scroll > 0 { self.scroll + 1 } else { 0 };
            if self.log.len() > MAX_LINES {
                self.log.pop_front();
            }
        }
    }

    /// The line that has no end yet.
    pub(super) fn unfinished(&self) -> String {
        plain(&String::from_utf8_lossy(&self.partial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, phase: TaskPhase, created: i64) -> Change {
        Change::Task(Box::new(Task {
            project_id: "app".into(),
            task_id: id.into(),
            phase: phase.into(),
            create_time: Some(prost_types::Timestamp { seconds: created, nanos: 0 }),
            ..Task::default()
        }))
    }

    #[test]
    fn the_choice_stays_on_its_task_when_rows_move() {
        let mut state = State::new(false);
        state.change(task("a", TaskPhase::Running, 1));
        state.change(task("b", TaskPhase::Running, 2));
        state.step(1);
        assert_eq!(state.selected().map(|task| task.task_id.as_str()), Some("a"));
        state.change(task("c", TaskPhase::Running, 3));
        assert_eq!(state.selected().map(|task| task.task_id.as_str()), Some("a"));
        assert_eq!(state.rows.selected(), Some(2));
    }

    #[test]
    fn ended_tasks_are_bounded() {
        let mut state = State::new(false);
        for number in 0..100 {
            state.change(task(&format!("t{number}"), TaskPhase::Finished, number));
        }
        assert_eq!(state.tasks().len(), MAX_ENDED);
    }

    #[test]
    fn a_log_is_bounded_and_keeps_the_place_one_looks_at() {
        let mut state = State::new(false);
        state.begin_log("r");
        state.scroll = 3;
        for _ in 0..MAX_LINES + 10 {
            state.add_log(b"x\n");
        }
        state.add_log(&[b'y'; MAX_LINE * 2]);
        assert_eq!(state.log.len(), MAX_LINES);
        assert_eq!(state.unfinished().len(), MAX_LINE);
        assert_eq!(state.scroll, MAX_LINES + 13);
    }

    #[test]
    fn a_snapshot_after_a_restart_replaces_all() {
        let mut state = State::new(false);
        state.change(task("a", TaskPhase::Running, 1));
        state.change(Change::Again);
        assert!(state.tasks().is_empty());
        assert!(state.selected().is_none());
    }
}
