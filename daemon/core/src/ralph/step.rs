//! The transition function.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    AccountLimit, BackoffPolicy, BusTarget, Interruption, LastRun, LoopState, PostIntent, RunEnd, backoff_delay,
};
use crate::types::{
    ChildPolicy, End, EndReason, IntentKind, Limit, LimitKind, LimitSource, MessageId, Mode, Outcome, Phase, RunId,
    StopIntent, TaskKey, TaskSpec,
};

/// What is added to a reset at most, by chance: an account's tasks don't all ask in the same instant, and a clock that is
/// a second ahead of the vendor's costs no second refusal.
const RESET_SPREAD: Duration = Duration::from_secs(4);
/// The least that is added to a reset.
const RESET_MARGIN: Duration = Duration::from_secs(1);
/// How often a wait for a reset looks at the clock. The reset is a time of day: a machine that slept, or whose clock was
/// set, is at it sooner or later than a timer would say.
const RESET_LOOK: Duration = Duration::from_secs(60);

/// Ids of children that a message names at most, so that it stays readable.
const NAMED_CHILDREN: usize = 20;

/// How the warning of an idle run begins.
pub const IDLE_WARNING: &str = "no sign of life";

/// What the function needs besides state and event.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The task.
    pub key: &'a TaskKey,
    /// Its spec.
    pub spec: &'a TaskSpec,
    /// Its folder, for the paths in messages.
    pub folder: &'a str,
    /// Pauses.
    pub backoff: BackoffPolicy,
    /// Now.
    pub now: Timestamp,
    /// Chance, in `0.0..1.0`.
    pub jitter: f64,
}

/// What was found in place of `DONE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoneMarker {
    /// Nothing.
    Absent,
    /// A regular file.
    Present,
    /// Something else: a folder, a link, a pipe.
    NotAFile,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The task was submitted, or conductord started again.
    Begin,
    /// It may start a run.
    SlotGranted,
    /// Answer to [`Effect::CheckDone`].
    Checked(DoneMarker),
    /// A run can be started: its id, and the last message that its prompt carries.
    Prepared {
        /// The new run.
        run: RunId,
        /// See [`LoopState::heard`].
        heard: Option<MessageId>,
    },
    /// No run can be started until a person has done something.
    PrepareFailed {
        /// What.
        problem: String,
    },
    /// No run could be started for now (disk full, too many processes).
    StartFailed {
        /// Why.
        problem: String,
    },
    /// The account takes no work for now: no run was made.
    AccountLimited {
        /// Until when.
        limit: AccountLimit,
    },
    /// The account takes work again, or somebody wants to try.
    LimitLifted,
    /// The agent was executed.
    Started {
        /// The run.
        run: RunId,
    },
    /// The live run shows no sign of life.
    IdleWarned {
        /// The run.
        run: RunId,
        /// Since when: tells the warnings of one run apart.
        since: Timestamp,
        /// The warning.
        body: String,
    },
    /// The run has ended and its record is durable.
    RunEnded(Box<RunEnd>),
    /// The armed timer fired.
    Timer,
    /// Number and names of live children; sent after [`Effect::WatchChildren`] and at every change.
    Children {
        /// Their ids.
        live: Vec<String>,
    },
    /// Stop or cancel.
    StopAsked {
        /// Who, why and how finally.
        intent: StopIntent,
    },
    /// Continue after an end.
    ResumeAsked,
    /// End the turn and go on with a message at once.
    InterruptAsked {
        /// Who.
        who: String,
    },
    /// The entry with this key is on its bus.
    Posted {
        /// The key.
        key: String,
    },
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write the state durably before anything that follows.
    Persist,
    /// Ask for a slot.
    RequestSlot,
    /// Give the slot, or the place in the queue, back.
    ReleaseSlot,
    /// Look for `DONE`; answered by [`Event::Checked`].
    CheckDone,
    /// Make a run ready; answered by [`Event::Prepared`], [`Event::PrepareFailed`] or [`Event::StartFailed`].
    Prepare,
    /// Start the prepared run.
    Launch,
    /// End the live run.
    StopRun {
        /// Who, for the record.
        who: String,
        /// Why, for the record.
        why: String,
    },
    /// Fire [`Event::Timer`] after this time.
    Arm(Duration),
    /// Forget the timer.
    Disarm,
    /// Post what the outbox holds.
    Deliver,
    /// Report live children now and at every change.
    WatchChildren,
    /// Do to the children what is being done to this task.
    StopChildren(StopIntent),
    /// Rename `DONE`, durably.
    SetDoneAside,
}

struct Step<'a> {
    state: LoopState,
    effects: Vec<Effect>,
    cx: Context<'a>,
}

/// The next state and what is to be done.
#[must_use]
pub fn step(state: &LoopState, event: Event, cx: Context<'_>) -> (LoopState, Vec<Effect>) {
    let mut step = Step { state: state.clone(), effects: Vec::new(), cx };
    step.handle(event);
    (step.state, step.effects)
}

impl Step<'_> {
    fn handle(&mut self, event: Event) {
        match (event, self.state.phase) {
            (Event::Posted { key }, phase) => {
                self.state.outbox.retain(|entry| entry.key != key);
                // While the loop goes on the next change writes this too; after the last one, nothing would.
                if phase == Phase::Finished && self.state.outbox.is_empty() {
                    self.effects.push(Effect::Persist);
                }
            }
            // A crash came between the end and its entries.
            (Event::Begin, Phase::Finished) if !self.state.outbox.is_empty() => self.effects.push(Effect::Deliver),
            (Event::ResumeAsked, Phase::Finished) => self.resume(),
            (_, Phase::Finished) => {}
            (Event::Begin, _) => self.begin(),
            (Event::StopAsked { intent }, _) => self.stop(intent),
            (Event::InterruptAsked { who }, phase) => self.interrupt(who, phase),
            (Event::SlotGranted, Phase::Queued) => self.slot_granted(),
            (Event::SlotGranted, _) => self.effects.push(Effect::ReleaseSlot),
            (Event::Checked(marker), Phase::Starting) => self.checked_before_start(marker),
            (Event::Checked(marker), Phase::Running | Phase::Stopping) if self.state.run.is_none() => {
                self.checked_after_exit(marker);
            }
            (Event::Prepared { run, heard }, Phase::Starting) => self.prepared(run, heard),
            (Event::PrepareFailed { problem }, Phase::Starting) => self.needs_attention(&problem),
            (Event::StartFailed { problem }, Phase::Starting) => self.start_failed(&problem),
            (Event::AccountLimited { limit }, Phase::Starting) => {
                self.effects.push(Effect::ReleaseSlot);
                self.wait_for_reset(limit);
            }
            (Event::Started { run }, Phase::Running | Phase::Stopping) if self.state.run.as_ref() == Some(&run) => {
                self.release_start_notes();
                self.effects.push(Effect::Deliver);
            }
            (Event::IdleWarned { run, since, body }, Phase::Running) if self.state.run.as_ref() == Some(&run) => {
                self.note(&format!("idle:{run}:{}", since.as_millisecond()), "WARNING", body, Some(run));
                self.effects.extend([Effect::Persist, Effect::Deliver]);
            }
            (Event::RunEnded(end), Phase::Running | Phase::Stopping)
                if self.state.run.as_ref() == Some(&end.last.run) =>
            {
                self.run_ended(*end);
            }
            (Event::Timer, Phase::Backoff) => self.queue(),
            (Event::Timer, Phase::WaitingLimit) => match self.state.not_before {
                Some(at) if at > self.cx.now => self.arm_reset(at),
                _ => self.queue(),
            },
            (Event::LimitLifted, Phase::WaitingLimit) => {
                self.effects.push(Effect::Disarm);
                self.queue();
            }
            (Event::Timer, Phase::WaitingChildren) => self.child_timeout(),
            (Event::Children { live }, Phase::WaitingChildren) => self.children(&live),
            _ => {}
        }
    }

    /// The state as recovery finds it is taken up where it was.
    fn begin(&mut self) {
        if !self.state.outbox.is_empty() {
            self.effects.push(Effect::Deliver);
        }
        if self.state.run.is_some() {
            if let Some(intent) = self.state.intent.clone() {
                self.effects.push(Effect::StopRun { who: intent.who, why: intent.why });
            } else if self.state.interrupting {
                self.end_turn("conductord".to_owned());
            }
            return;
        }
        if let Some(intent) = self.state.intent.clone() {
            return self.end_by_intent(&intent);
        }
        match self.state.phase {
            Phase::Queued | Phase::Starting => {
                self.state.phase = Phase::Queued;
                self.effects.push(Effect::RequestSlot);
            }
            Phase::Backoff => {
                let rest = self.state.not_before.map_or(Duration::ZERO, |at| until(self.cx.now, at));
                self.effects.push(Effect::Arm(rest.min(self.longest_pause())));
            }
            Phase::WaitingLimit => self.arm_reset(self.state.not_before.unwrap_or(self.cx.now)),
            Phase::WaitingChildren => {
                self.arm_child_deadline();
                self.effects.push(Effect::WatchChildren);
            }
            Phase::Running | Phase::Stopping => self.effects.push(Effect::CheckDone),
            Phase::Finished => {}
        }
    }

    /// A clock that was set back while we were away must not make a pause longer than any pause can be.
    fn longest_pause(&self) -> Duration {
        self.cx.backoff.max.max(self.cx.spec.restart_delay)
    }

    fn slot_granted(&mut self) {
        self.state.phase = Phase::Starting;
        self.effects.push(Effect::CheckDone);
    }

    fn checked_before_start(&mut self, marker: DoneMarker) {
        match marker {
            DoneMarker::NotAFile => self.done_is_no_file(),
            DoneMarker::Present => {
                self.effects.push(Effect::ReleaseSlot);
                self.finish_or_wait();
            }
            DoneMarker::Absent if self.state.used >= self.cx.spec.max_restarts && !self.state.continue_attempt => {
                self.out_of_attempts();
            }
            DoneMarker::Absent => self.effects.push(Effect::Prepare),
        }
    }

    fn prepared(&mut self, run: RunId, heard: Option<MessageId>) {
        if std::mem::take(&mut self.state.interrupting) {
            return self.effects.push(Effect::Prepare);
        }
        let continuing = self.state.continue_attempt && self.state.attempt > 0;
        if !continuing {
            self.state.attempt += 1;
            self.state.used += 1;
        }
        self.state.continue_attempt = false;
        self.state.heard_before = self.state.heard.clone();
        self.state.heard = heard.or_else(|| self.state.heard.clone());
        self.state.not_before = None;
        self.state.trouble = None;
        self.state.limit = None;
        self.state.phase = Phase::Running;
        let restart = self.state.attempt - 1;
        let verb = if continuing { "continuing" } else { "starting" };
        self.note(&format!("begin:{run}"), "INFO", format!("{verb} root agent (restart #{restart})"), None);
        let folder = self.run_folder(&run);
        self.state.outbox.push(PostIntent {
            key: format!("start:{run}"),
            bus: BusTarget::Task,
            kind: "RUN_START".into(),
            body: format!(
                "run started\nrun_dir: {folder}\nprompt: {folder}/prompt.md\nstdout: {folder}/agent-stdout.txt\n\
                 stderr: {folder}/agent-stderr.txt\noutput: {folder}/output.md"
            ),
            run: Some(run.clone()),
            when_started: true,
            position: None,
        });
        self.state.run = Some(run);
        self.effects.extend([Effect::Persist, Effect::Deliver, Effect::Launch]);
    }

    fn start_failed(&mut self, problem: &str) {
        self.state.crashes += 1;
        self.effects.push(Effect::ReleaseSlot);
        self.state.trouble = Some(problem.to_owned());
        self.pause(backoff_delay(self.cx.backoff, self.state.crashes, self.cx.spec.restart_delay, self.cx.jitter));
    }

    fn run_ended(&mut self, end: RunEnd) {
        let run = end.last.run.clone();
        self.state.run = None;
        if end.interruption == Some(Interruption::NeverStarted) {
            self.state.outbox.retain(|entry| !entry.when_started);
        }
        self.release_start_notes();
        self.post_run_end(&end);
        let cut = end.interruption.is_some() || self.state.interrupting;
        let limited = end.last.outcome == Outcome::UsageLimited;
        // An outage is nobody's attempt: it goes on when the service does.
        let outage = !cut && end.limit.as_ref().is_some_and(|limit| limit.kind == LimitKind::Overload);
        self.state.continue_attempt = cut || limited || outage;
        self.state.session = end.session.filter(|_| cut || limited || outage).or_else(|| {
            // A run that never started leaves the session of the run before it.
            self.state.session.take().filter(|_| end.interruption == Some(Interruption::NeverStarted))
        });
        if end.interruption == Some(Interruption::NeverStarted) {
            self.state.heard = self.state.heard_before.take();
        }
        self.state.limit = None;
        if limited {
            // A run of an older version says no more than that it was limited.
            let unknown = Limit { kind: LimitKind::Window, resets_at: None, source: LimitSource::Text };
            let account = end.account.unwrap_or_else(|| self.cx.spec.agent.clone());
            self.state.limit = Some(AccountLimit::new(account, &end.limit.unwrap_or(unknown), self.cx.now));
        }
        let never_started = end.interruption == Some(Interruption::NeverStarted);
        let crashed = !cut
            && !limited
            && matches!(
                end.last.outcome,
                Outcome::Failed
                    | Outcome::Signaled
                    | Outcome::Oom
                    | Outcome::TimedOut
                    | Outcome::LogLimit
                    | Outcome::Lost
            );
        if (end.progressed && !outage) || end.last.outcome == Outcome::Completed {
            self.state.crashes = 0;
        }
        if crashed || never_started {
            self.state.crashes += 1;
        }
        debug_assert_eq!(run, end.last.run, "the event was matched to the run");
        self.state.last = Some(end.last);
        self.effects.extend([Effect::ReleaseSlot, Effect::CheckDone]);
    }

    fn checked_after_exit(&mut self, marker: DoneMarker) {
        let completed = self.state.last.as_ref().is_some_and(|last| last.outcome == Outcome::Completed);
        if let Some(intent) = self.state.intent.clone() {
            let done = marker == DoneMarker::Present && completed && intent.kind == IntentKind::Stop;
            return if done {
                self.finish_done("task completed (DONE marker present)")
            } else {
                self.end_by_intent(&intent)
            };
        }
        match marker {
            DoneMarker::NotAFile => self.done_is_no_file(),
            DoneMarker::Present => self.finish_or_wait(),
            DoneMarker::Absent if self.cx.spec.mode == Mode::Once && !self.runs_again() => self.once_ended(completed),
            DoneMarker::Absent => self.next_attempt(),
        }
    }

    /// Whether even a single job goes on: its run was cut by something that was no answer to it.
    fn runs_again(&self) -> bool {
        let answered = matches!(
            self.state.last.as_ref().map(|last| last.outcome),
            Some(Outcome::UsageLimited | Outcome::Stopped | Outcome::Failed)
        );
        self.state.continue_attempt && (self.state.interrupting || !answered)
    }

    fn once_ended(&mut self, completed: bool) {
        if completed {
            return self.finish_or_wait();
        }
        let how = self.state.last.as_ref().map_or_else(|| "it did not run".into(), LastRun::describe);
        let detail = format!("its only run ended with {how}");
        self.finish(EndReason::MaxRestarts, detail.clone(), "ERROR", format!("task failed: {detail}"));
    }

    fn next_attempt(&mut self) {
        let outcome = self.state.last.as_ref().map(|last| last.outcome);
        let summary = self.state.last.as_ref().map(LastRun::describe).unwrap_or_default();
        if self.state.interrupting {
            self.state.interrupting = false;
            return self.queue_durably();
        }
        match outcome {
            Some(Outcome::AuthFailed | Outcome::SpawnFailed) if !self.state.continue_attempt => {
                return self.needs_attention(&summary);
            }
            _ => {}
        }
        if self.state.used >= self.cx.spec.max_restarts && !self.state.continue_attempt {
            return self.out_of_attempts();
        }
        if let Some(limit) = self.state.limit.take().filter(|_| outcome == Some(Outcome::UsageLimited)) {
            return self.wait_for_reset(limit);
        }
        let delay = if self.state.crashes > 0 {
            backoff_delay(self.cx.backoff, self.state.crashes, self.cx.spec.restart_delay, self.cx.jitter)
        } else {
            self.cx.spec.restart_delay
        };
        self.pause(delay);
    }

    fn wait_for_reset(&mut self, limit: AccountLimit) {
        let body = format!("waiting for a usage limit: {}", limit.describe());
        let key = format!("limit:{}:{}:{}", self.state.attempt, self.state.ends, limit.until.as_millisecond());
        if !self.state.outbox.iter().any(|entry| entry.key == key) {
            self.note(&key, "INFO", body, None);
        }
        let spread = RESET_MARGIN + RESET_SPREAD.mul_f64(self.cx.jitter.clamp(0.0, 1.0));
        let at = later(limit.until, spread);
        self.state.phase = Phase::WaitingLimit;
        self.state.not_before = Some(at);
        self.state.limit = Some(limit);
        self.effects.extend([Effect::Persist, Effect::Deliver]);
        self.arm_reset(at);
    }

    fn arm_reset(&mut self, at: Timestamp) {
        self.effects.push(Effect::Arm(until(self.cx.now, at).min(RESET_LOOK)));
    }

    fn pause(&mut self, delay: Duration) {
        self.state.phase = Phase::Backoff;
        self.state.not_before = Some(later(self.cx.now, delay));
        self.effects.extend([Effect::Persist, Effect::Deliver, Effect::Arm(delay)]);
    }

    /// The place in the queue is not written: a crash leaves `backoff` with a pause that is over, which queues again.
    fn queue(&mut self) {
        self.state.phase = Phase::Queued;
        self.state.not_before = None;
        self.effects.push(Effect::RequestSlot);
    }

    fn queue_durably(&mut self) {
        self.state.phase = Phase::Queued;
        self.effects.extend([Effect::Persist, Effect::Deliver, Effect::RequestSlot]);
    }

    fn finish_or_wait(&mut self) {
        self.state.phase = Phase::WaitingChildren;
        self.state.child_deadline = None;
        self.effects.push(Effect::WatchChildren);
    }

    fn children(&mut self, live: &[String]) {
        match (live, self.state.child_deadline) {
            ([], None) if self.cx.spec.mode == Mode::Once => self.finish_done("task completed (its run ended with 0)"),
            ([], None) => self.finish_done("task completed (DONE marker present, no active children)"),
            ([], Some(_)) => self.finish_done("task completed (all children finished)"),
            (live, None) => {
                let body = format!("waiting for {} children to complete: [{}]", live.len(), names(live));
                self.note(&format!("children:{}:{}", self.state.attempt, self.state.ends), "INFO", body, None);
                self.state.child_deadline = Some(later(self.cx.now, self.cx.spec.child_wait_timeout));
                self.effects.extend([Effect::Persist, Effect::Deliver]);
                self.arm_child_deadline();
            }
            (_, Some(_)) => {}
        }
    }

    fn arm_child_deadline(&mut self) {
        if let Some(at) = self.state.child_deadline {
            self.effects.push(Effect::Arm(until(self.cx.now, at).min(self.cx.spec.child_wait_timeout)));
        }
    }

    fn child_timeout(&mut self) {
        let waited = humane(self.cx.spec.child_wait_timeout);
        match self.cx.spec.on_child_timeout {
            ChildPolicy::Wait => {}
            ChildPolicy::Stop => {
                let why = format!("the task {} is done and waited {waited} for its children", self.cx.key);
                let intent =
                    StopIntent { kind: IntentKind::Stop, who: self.cx.key.to_string(), why, time: self.cx.now };
                self.effects.push(Effect::StopChildren(intent));
            }
            ChildPolicy::Detach => {
                let body = format!("timeout waiting for children after {waited}: they go on without this task");
                self.note(&format!("detach:{}:{}", self.state.attempt, self.state.ends), "WARNING", body, None);
                self.finish_done("task completed (its children go on)");
            }
        }
    }

    fn stop(&mut self, intent: StopIntent) {
        let stronger = match &self.state.intent {
            Some(old) => old.kind == IntentKind::Stop && intent.kind == IntentKind::Cancel,
            None => true,
        };
        if stronger {
            self.state.intent = Some(intent.clone());
        }
        self.state.interrupting = false;
        if self.state.run.is_some() {
            self.state.phase = Phase::Stopping;
            self.effects.extend([Effect::Persist, Effect::StopRun { who: intent.who, why: intent.why }]);
            return;
        }
        match self.state.phase {
            // What is under way answers first: `Checked` ends it.
            Phase::Running | Phase::Stopping => self.effects.push(Effect::Persist),
            _ => {
                self.effects.push(Effect::ReleaseSlot);
                let intent = self.state.intent.clone().unwrap_or(intent);
                self.end_by_intent(&intent);
            }
        }
    }

    fn interrupt(&mut self, who: String, phase: Phase) {
        match phase {
            Phase::Running if self.state.run.is_some() => {
                self.state.interrupting = true;
                self.effects.push(Effect::Persist);
                self.end_turn(who);
            }
            // The prompt that is being made may have missed the message: it is made again.
            Phase::Starting => self.state.interrupting = true,
            Phase::Backoff => {
                self.effects.push(Effect::Disarm);
                self.queue();
            }
            _ => {}
        }
    }

    fn end_turn(&mut self, who: String) {
        let why = "a message is to be read now".to_owned();
        self.effects.push(Effect::StopRun { who, why });
    }

    fn resume(&mut self) {
        if self.state.end.as_ref().is_some_and(|end| end.reason == EndReason::Cancelled) {
            return;
        }
        // An attempt that a stop cut goes on where it was; any other end is followed by a new attempt.
        let cut =
            self.state.end.as_ref().is_some_and(|end| end.reason == EndReason::Stopped) && self.state.continue_attempt;
        self.state.continue_attempt = cut;
        if !cut {
            self.state.session = None;
        }
        self.state.intent = None;
        self.state.end = None;
        self.state.used = 0;
        self.state.crashes = 0;
        self.state.not_before = None;
        self.state.limit = None;
        self.state.child_deadline = None;
        self.state.phase = Phase::Queued;
        self.effects.extend([Effect::SetDoneAside, Effect::Persist, Effect::Deliver, Effect::RequestSlot]);
    }

    fn done_is_no_file(&mut self) {
        self.needs_attention(&format!("{}/DONE is not a regular file; remove it", self.cx.folder));
    }

    fn needs_attention(&mut self, problem: &str) {
        let detail = format!("{problem}; then `conductorctl task resume {}`", self.cx.key.task);
        self.effects.push(Effect::ReleaseSlot);
        self.finish(EndReason::NeedsAttention, detail.clone(), "ERROR", format!("task needs attention: {detail}"));
    }

    fn out_of_attempts(&mut self) {
        let n = self.cx.spec.max_restarts;
        self.effects.push(Effect::ReleaseSlot);
        let detail = match &self.state.last {
            Some(last) => format!("all {n} attempts were used; the last ended with {}", last.describe()),
            None => format!("all {n} attempts were used"),
        };
        self.finish(EndReason::MaxRestarts, detail, "ERROR", format!("task failed: max restarts ({n}) exceeded"));
    }

    fn end_by_intent(&mut self, intent: &StopIntent) {
        let (reason, verb) = match intent.kind {
            IntentKind::Stop => (EndReason::Stopped, "stopped"),
            IntentKind::Cancel => (EndReason::Cancelled, "cancelled"),
        };
        let why = if intent.why.is_empty() { String::new() } else { format!(": {}", intent.why) };
        let detail = format!("{verb} by {}{why}", intent.who);
        self.finish(reason, detail.clone(), "INFO", format!("task {detail}"));
    }

    fn finish_done(&mut self, message: &str) {
        self.finish(EndReason::Done, message.to_owned(), "INFO", message.to_owned());
    }

    /// The one way to an end: its entry here, one FACT for the project and one for the parent.
    fn finish(&mut self, reason: EndReason, detail: String, kind: &str, body: String) {
        self.state.ends += 1;
        let ends = self.state.ends;
        self.note(&format!("end:{ends}"), kind, body, None);
        let attempts = self.state.attempt;
        let noun = if attempts == 1 { "attempt" } else { "attempts" };
        let outcome = reason.name();
        let key = self.cx.key;
        let fact = format!(
            "task {key} ended: {outcome} after {attempts} {noun}: {detail}\ntask_dir: {}\noutput: {}",
            self.cx.folder,
            self.state
                .last
                .as_ref()
                .map_or_else(|| "none".into(), |last| format!("{}/output.md", self.run_folder(&last.run))),
        );
        let mut targets = vec![BusTarget::Project];
        targets.extend(self.cx.spec.parent.as_ref().map(|parent| BusTarget::Parent(parent.task.clone())));
        for bus in targets {
            let name = if bus == BusTarget::Project { "project" } else { "parent" };
            self.state.outbox.push(PostIntent {
                key: format!("end:{}:{ends}:{name}", key.task),
                bus,
                kind: "FACT".into(),
                body: fact.clone(),
                run: None,
                when_started: false,
                position: None,
            });
        }
        self.state.end = Some(End { reason, detail, time: self.cx.now });
        self.state.phase = Phase::Finished;
        self.state.not_before = None;
        self.state.child_deadline = None;
        self.effects.extend([Effect::Disarm, Effect::Persist, Effect::Deliver]);
    }

    /// The run has started: what says so may be posted.
    fn release_start_notes(&mut self) {
        for entry in &mut self.state.outbox {
            entry.when_started = false;
        }
    }

    fn post_run_end(&mut self, end: &RunEnd) {
        let run = &end.last.run;
        if end.interruption == Some(Interruption::NeverStarted) {
            let body = "run did not start: conductord ended before the agent was executed".to_owned();
            return self.note(&format!("stop:{run}"), "RUN_STOP", body, Some(run.clone()));
        }
        let folder = self.run_folder(run);
        let what = match (end.last.exit_code, end.last.signal) {
            (Some(code), _) => format!("run stopped with code {code}"),
            (None, Some(signal)) => format!("run stopped by signal {signal}"),
            (None, None) => format!("run ended: {}", end.last.outcome.name()),
        };
        let mut body = format!("{what}\nrun_dir: {folder}\noutput: {folder}/output.md");
        let crash = !matches!(end.last.outcome, Outcome::Completed | Outcome::Stopped);
        if crash {
            if let Some(summary) = &end.last.summary {
                body.push_str(&format!("\nreason: {summary}"));
            }
            if !end.stderr_tail.is_empty() {
                body.push_str("\n\n## stderr (last 50 lines)\n");
                body.push_str(&end.stderr_tail);
            }
        }
        let kind = if crash { "RUN_CRASH" } else { "RUN_STOP" };
        self.note(&format!("stop:{run}"), kind, body, Some(run.clone()));
    }

    fn note(&mut self, key: &str, kind: &str, body: String, run: Option<RunId>) {
        self.state.outbox.push(PostIntent {
            key: key.to_owned(),
            bus: BusTarget::Task,
            kind: kind.to_owned(),
            body,
            run,
            when_started: false,
            position: None,
        });
    }

    fn run_folder(&self, run: &RunId) -> String {
        format!("{}/runs/{run}", self.cx.folder)
    }
}

fn later(now: Timestamp, delay: Duration) -> Timestamp {
    now.checked_add(delay).unwrap_or(Timestamp::MAX)
}

fn until(now: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}

fn names(live: &[String]) -> String {
    let mut text = live.iter().take(NAMED_CHILDREN).cloned().collect::<Vec<_>>().join(", ");
    if live.len() > NAMED_CHILDREN {
        text.push_str(&format!(" and {} more", live.len() - NAMED_CHILDREN));
    }
    text
}

/// `5m0s` in the manner of conductor-loop's messages.
fn humane(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) if time.subsec_millis() > 0 => format!("{s}.{:03}s", time.subsec_millis()),
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}
