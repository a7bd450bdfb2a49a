//! Tells what happens to a followed task, in an order that a person can follow.

use std::collections::{HashMap, HashSet};

use conductor_proto::v1::{BusMessage, EndReason, Run, RunEvent, RunStatus, Task, TaskPhase};
use tokio::sync::mpsc;

use super::pumps::{Item, Wanted};
use super::{View, bus_of, is_done};
use crate::commands::Context;
use crate::commands::logs::{Form, TICK, write_log};
use crate::connect::Daemon;
use crate::errors::Failure;
use crate::follow::{BusPages, Change};
use crate::output::live::Live;
use crate::output::views::attempts;
use crate::output::{Tone, plain, time, words};

/// Lines of a message that are shown; `bus read` shows all.
const MESSAGE_LINES: usize = 6;

/// The state of the story.
pub(super) struct Story<'a> {
    context: &'a Context,
    view: View,
    task: Task,
    phase: Option<TaskPhase>,
    runs: HashMap<String, Run>,
    asked: HashSet<String>,
    logs: Option<mpsc::UnboundedSender<Wanted>>,
    complete: bool,
    seen: bool,
    /// The attempt whose log is being printed.
    open: Option<String>,
    closed: HashSet<String>,
    at_line_start: bool,
    /// The events of that attempt on the screen.
    live: Option<Live>,
    held_back: Vec<String>,
    cursor: String,
}

impl<'a> Story<'a> {
    pub(super) fn new(context: &'a Context, task: &Task, view: View, logs: mpsc::UnboundedSender<Wanted>) -> Self {
        Self {
            context,
            view,
            task: task.clone(),
            phase: None,
            runs: HashMap::new(),
            asked: HashSet::new(),
            logs: Some(logs),
            complete: false,
            seen: false,
            open: None,
            closed: HashSet::new(),
            at_line_start: true,
            live: None,
            held_back: Vec::new(),
            cursor: String::new(),
        }
    }

    pub(super) async fn tell(&mut self, queue: &mut mpsc::Receiver<Item>) -> Result<Task, Failure> {
        while let Some(item) = self.next(queue).await? {
            match item {
                Item::Change(change) => self.change(change)?,
                Item::Attempt(run) => self.attempt(&run),
                Item::Bytes(bytes) => self.bytes(&bytes)?,
                Item::Events(events) => self.events(&events)?,
                Item::LogEnd => self.log_end()?,
                Item::NoMoreLogs => return Ok(self.task.clone()),
                Item::Message(message) => self.message(&message),
                Item::Failed(failure) => return Err(failure),
            }
        }
        Err(Failure::Vanished("the streams of the task ended without its end".into()))
    }

    /// The next item; meanwhile the line of the moment is kept up to date.
    async fn next(&mut self, queue: &mut mpsc::Receiver<Item>) -> Result<Option<Item>, Failure> {
        loop {
            let Some(live) = self.live.as_mut().filter(|live| live.is_shown()) else {
                return Ok(queue.recv().await);
            };
            match tokio::time::timeout(TICK, queue.recv()).await {
                Ok(item) => return Ok(item),
                Err(_) => live.tick(&self.context.screen)?,
            }
        }
    }

    /// Takes the line of the moment away before something else is written.
    pub(super) fn clear(&mut self) {
        if let Some(live) = &mut self.live {
            live.clear();
        }
    }

    fn change(&mut self, change: Change) -> Result<(), Failure> {
        match change {
            Change::Task(task) => self.task_changed(*task),
            Change::Run(run) => self.run_changed(*run),
            Change::Deleted(gone) if gone.run_id.is_empty() => {
                return Err(Failure::Vanished(format!("the task {} was deleted", self.task.task_id)));
            }
            Change::Deleted(_) => {}
            Change::Again => {
                self.complete = false;
                self.seen = false;
            }
            Change::Complete if !self.seen => {
                return Err(Failure::Vanished(format!("the task {} is there no more", self.task.task_id)));
            }
            Change::Complete => self.snapshot_complete(),
        }
        self.finish();
        Ok(())
    }

    fn task_changed(&mut self, task: Task) {
        self.seen = true;
        self.task = task;
        let phase = self.task.phase();
        // Without children this is over before anybody could read it.
        let passing = phase == TaskPhase::WaitingChildren && self.task.live_child_count == 0;
        if self.view.story && self.complete && self.phase != Some(phase) && !passing {
            self.tell_phase();
        }
        self.phase = Some(phase);
    }

    fn tell_phase(&mut self) {
        let phase = self.task.phase();
        // Attempts and the end have lines of their own.
        if matches!(phase, TaskPhase::Starting | TaskPhase::Running | TaskPhase::Finished | TaskPhase::Unspecified) {
            return;
        }
        let screen = &self.context.screen;
        let word = screen.paint_err(words::task_tone(&self.task), &words::phase(phase));
        let why = screen.paint_err(Tone::Quiet, &plain(&self.task.why));
        self.aside(format!("· {word}  {why}"), phase != TaskPhase::Stopping);
    }

    fn run_changed(&mut self, run: Run) {
        let id = run.run_id.clone();
        let ended = run.status() != RunStatus::Running;
        self.runs.insert(id.clone(), run);
        if self.complete {
            self.ask(&id, None);
        }
        if ended && self.closed.contains(&id) && self.open.as_deref() == Some(&id) {
            self.attempt_ended();
        }
    }

    /// Asks for the logs of all attempts that are new to us, oldest first.
    fn snapshot_complete(&mut self) {
        if std::mem::replace(&mut self.complete, true) {
            return;
        }
        let mut runs: Vec<&Run> = self.runs.values().filter(|run| !self.asked.contains(&run.run_id)).collect();
        runs.sort_by_key(|run| {
            (run.attempt, run.start_time.map(|time| (time.seconds, time.nanos)), run.run_id.clone())
        });
        let mut ids: Vec<String> = runs.into_iter().map(|run| run.run_id.clone()).collect();
        // The tail is of the attempt that is the latest now; what comes later is shown whole.
        let tail = self.view.tail.take();
        if tail.is_some() {
            let older = ids.len().saturating_sub(1);
            self.asked.extend(ids.drain(..older));
        }
        ids.iter().for_each(|id| self.ask(id, tail));
        if self.view.story {
            self.tell_phase();
        }
    }

    /// Asks for the log of a run, once.
    fn ask(&mut self, id: &str, tail: Option<u32>) {
        if let (Some(logs), Some(run)) = (&self.logs, self.runs.get(id))
            && self.asked.insert(id.to_owned())
        {
            // The receiver lives as long as we do; if it has gone, its failure is on its way.
            let _ = logs.send((Box::new(run.clone()), tail));
        }
    }

    /// No attempt will follow once the task has ended: the logs come to their end.
    fn finish(&mut self) {
        if self.complete && self.task.phase() == TaskPhase::Finished {
            self.logs = None;
        }
    }

    fn attempt(&mut self, run: &Run) {
        if self.open.is_some() {
            self.attempt_ended();
        }
        self.open = Some(run.run_id.clone());
        if self.view.form != Form::Raw {
            self.aside(header(self.context, run), false);
        }
        if let Form::Pretty { thoughts } = self.view.form {
            self.live = Some(Live::new(&self.context.screen, thoughts, self.view.quiet_data));
        }
    }

    fn events(&mut self, events: &[RunEvent]) -> Result<(), Failure> {
        self.live.as_mut().map_or(Ok(()), |live| live.show(&self.context.screen, events))
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.at_line_start = bytes.ends_with(b"\n");
        write_log(self.context, bytes, self.view.form == Form::Raw, self.view.quiet_data)
    }

    fn log_end(&mut self) -> Result<(), Failure> {
        if !self.at_line_start && self.view.form != Form::Raw {
            self.bytes(b"\n")?;
        }
        if let Some(mut live) = self.live.take() {
            live.finish(&self.context.screen)?;
        }
        let Some(id) = self.open.clone() else { return Ok(()) };
        self.closed.insert(id.clone());
        if self.runs.get(&id).is_some_and(|run| run.status() != RunStatus::Running) {
            self.attempt_ended();
        }
        Ok(())
    }

    fn attempt_ended(&mut self) {
        self.clear();
        let run = self.open.take().and_then(|id| self.runs.get(&id).cloned());
        if let Some(run) = run.filter(|_| self.view.story) {
            let screen = &self.context.screen;
            let word = screen.paint_err(words::run_tone(&run), &words::run_state(&run));
            let took = time::elapsed_text(run.start_time.as_ref(), run.end_time.as_ref());
            // Events have told the cost already.
            let cost = if matches!(self.view.form, Form::Pretty { .. }) { String::new() } else { words::cost(&run) };
            let mut facts = vec![took, plain(&words::ending(&run)), cost];
            facts.retain(|fact| !fact.is_empty() && fact != "–");
            let facts = screen.paint_err(Tone::Quiet, &facts.join(" · "));
            screen.note(&format!("· {word}  {facts}"));
        }
        for line in std::mem::take(&mut self.held_back) {
            self.context.screen.note(&line);
        }
    }

    /// A line beside the output. One that may wait is held back while an attempt is being printed.
    fn aside(&mut self, line: String, may_wait: bool) {
        if may_wait && self.open.is_some() {
            self.held_back.push(line);
            return;
        }
        self.clear();
        if !std::mem::replace(&mut self.at_line_start, true) && self.context.screen.out_is_terminal {
            let _ = self.context.screen.data(b"\n");
        }
        self.context.screen.note(&line);
    }

    fn message(&mut self, message: &BusMessage) {
        self.cursor.clone_from(&message.msg_id);
        let screen = &self.context.screen;
        let Some(body) = worth_telling(message) else { return };
        let mut lines = body.lines();
        let head = format!("{}  {}", message.r#type, plain(lines.next().unwrap_or("")));
        let at = message.time.as_ref().map_or_else(|| "--:--:--".into(), time::time_of_day);
        let mut text = screen.paint_err(Tone::Quiet, &format!("▸ {at} {}", plain(&head)));
        let rest: Vec<&str> = lines.collect();
        for line in rest.iter().take(MESSAGE_LINES) {
            text += &format!("\n{}", screen.paint_err(Tone::Quiet, &format!("  {}", plain(line))));
        }
        if rest.len() > MESSAGE_LINES {
            let more = format!(
                "  … {} more lines: conductorctl bus read --task {}",
                rest.len() - MESSAGE_LINES,
                self.task.task_id
            );
            text += &format!("\n{}", screen.paint_err(Tone::Quiet, &more));
        }
        self.aside(text, false);
    }

    /// Messages that were posted about the end and are not shown yet.
    pub(super) async fn rest_of_bus(
        &mut self,
        daemon: &Daemon,
        queue: &mut mpsc::Receiver<Item>,
    ) -> Result<(), Failure> {
        while let Ok(item) = queue.try_recv() {
            if let Item::Message(message) = item {
                self.message(&message);
            }
        }
        let mut pages = BusPages::new(daemon, bus_of(&self.task), self.cursor.clone(), 0);
        while let Some(messages) = pages.next().await? {
            messages.iter().for_each(|message| self.message(message));
        }
        Ok(())
    }

    pub(super) fn end(&mut self, task: &Task) {
        if self.open.is_some() {
            self.attempt_ended();
        }
        let screen = &self.context.screen;
        let end = task.end.as_ref();
        let took = time::elapsed_text(task.create_time.as_ref(), end.and_then(|end| end.time.as_ref()));
        let (sign, reason) = if is_done(task) { ("✓", Tone::Good) } else { ("✗", words::task_tone(task)) };
        let word = screen.paint_err(reason, &format!("{sign} {}", words::task_state(task)));
        let detail = end.map_or("", |end| end.detail.as_str());
        let mut facts = vec![format!("after {took}"), format!("attempt {}", attempts(task)), plain(detail)];
        facts.retain(|fact| !fact.is_empty());
        screen.note(&format!("{word}  {}", screen.paint_err(Tone::Quiet, &facts.join(" · "))));
        if !is_done(task) && !matches!(end.map(|end| end.reason()), Some(EndReason::Cancelled)) {
            screen.hint(&format!("go on with it:  conductorctl task resume {}", task.task_id));
        }
    }
}

/// The line before an attempt's output.
pub(in crate::commands) fn header(context: &Context, run: &Run) -> String {
    let mut parts = Vec::new();
    if run.attempt > 0 {
        parts.push(format!("attempt {}", run.attempt));
    }
    parts.extend([run.run_id.clone(), run.agent.clone(), run.agent_version.clone()]);
    parts.retain(|part| !part.is_empty());
    context.screen.paint_err(Tone::Strong, &format!("── {} ──", plain(&parts.join(" · "))))
}

/// What a message says beyond the story itself, which tells of attempts and ends already; `None`: nothing.
fn worth_telling(message: &BusMessage) -> Option<&str> {
    const TOLD: [&str; 4] =
        ["starting root agent", "continuing root agent", "task completed", "task failed: max restarts"];
    match message.r#type.as_str() {
        "RUN_START" | "RUN_STOP" => None,
        "RUN_CRASH" => message.body.split_once("\n\n## ").map(|(_, tail)| tail),
        _ if TOLD.iter().any(|told| message.body.starts_with(told)) => None,
        _ => Some(&message.body),
    }
}
