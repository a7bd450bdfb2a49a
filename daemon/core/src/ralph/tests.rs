//! The loop, driven by a small model of the world: every path to an end, and properties of arbitrary event sequences.

use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::types::{
    ChildPolicy, EndReason, ExitPolicy, IntentKind, Limit, LimitKind, LimitSource, Mode, Outcome, Phase, RunId,
    StopIntent, TaskKey, TaskSpec,
};

fn spec(max_restarts: u32) -> TaskSpec {
    TaskSpec {
        title: "t".into(),
        agent: "fake".into(),
        mode: Mode::Loop,
        cwd: "/w".into(),
        model: None,
        extra_args: Vec::new(),
        parent: None,
        depth: 0,
        max_restarts,
        restart_delay: Duration::from_secs(1),
        child_wait_timeout: Duration::from_secs(300),
        on_child_timeout: ChildPolicy::Detach,
        wall_time: None,
        log_limit: None,
        idle_warn: None,
        idle_timeout: None,
        on_exit: ExitPolicy::Sweep,
        permissions: None,
        probe: false,
    }
}

fn key() -> TaskKey {
    TaskKey::new("demo".parse().expect("id"), "task-20260101-000000-demo".parse().expect("id"))
}

fn run(n: u32) -> RunId {
    format!("20260101-0000000000-1-{n}").parse().expect("id")
}

/// Feeds events and keeps what came out.
struct Driver {
    state: LoopState,
    spec: TaskSpec,
    key: TaskKey,
    now: Timestamp,
    effects: Vec<Effect>,
    /// The state as the last `Persist` wrote it.
    disk: LoopState,
    runs: u32,
    /// What the next run is refused for.
    limit: Option<Limit>,
}

impl Driver {
    fn new(spec: TaskSpec) -> Self {
        let state = LoopState::new(1);
        let now = "2026-01-01T00:00:00Z".parse().expect("time");
        Self { disk: state.clone(), state, spec, key: key(), now, effects: Vec::new(), runs: 0, limit: None }
    }

    fn send(&mut self, event: Event) -> &[Effect] {
        let cx = Context {
            key: &self.key,
            spec: &self.spec,
            folder: "/t",
            backoff: BackoffPolicy::default(),
            now: self.now,
            jitter: 1.0,
        };
        let (state, effects) = step(&self.state, event, cx);
        self.state = state;
        if effects.contains(&Effect::Persist) {
            self.disk = self.state.clone();
        }
        self.effects = effects;
        &self.effects
    }

    /// One whole run, from the slot to the check after its exit.
    fn attempt(&mut self, outcome: Outcome, code: Option<i32>, marker: DoneMarker) {
        self.send(Event::SlotGranted);
        self.send(Event::Checked(DoneMarker::Absent));
        assert_eq!(self.effects, [Effect::Prepare]);
        self.start();
        self.end(outcome, code, None);
        self.send(Event::Checked(marker));
    }

    fn start(&mut self) -> RunId {
        self.runs += 1;
        let id = run(self.runs);
        self.send(Event::Prepared { run: id.clone(), heard: None });
        assert_eq!(self.effects, [Effect::Persist, Effect::Deliver, Effect::Launch]);
        self.send(Event::Started { run: id.clone() });
        id
    }

    fn end(&mut self, outcome: Outcome, code: Option<i32>, interruption: Option<Interruption>) {
        let last = LastRun { run: run(self.runs), outcome, exit_code: code, signal: None, summary: None };
        let end = RunEnd {
            last,
            session: Some("s".into()),
            progressed: false,
            interruption,
            limit: self.limit.clone(),
            account: Some("claude/login".into()),
            stderr_tail: "boom".into(),
        };
        self.send(Event::RunEnded(Box::new(end)));
    }

    fn reason(&self) -> Option<EndReason> {
        self.state.end.as_ref().map(|end| end.reason)
    }

    fn posted(&self, kind: &str) -> Vec<&str> {
        self.state.outbox.iter().filter(|entry| entry.kind == kind).map(|entry| entry.body.as_str()).collect()
    }

    fn pause(&self) -> Option<Duration> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Arm(time) => Some(*time),
            _ => None,
        })
    }
}

fn intent(kind: IntentKind) -> StopIntent {
    StopIntent { kind, who: "dev".into(), why: "enough".into(), time: Timestamp::UNIX_EPOCH }
}

#[test]
fn an_exit_without_done_restarts_whatever_the_code_until_the_attempts_are_used() {
    let mut d = Driver::new(spec(3));
    d.send(Event::Begin);
    for _ in 0..2 {
        d.attempt(Outcome::Completed, Some(0), DoneMarker::Absent);
        assert_eq!(d.state.phase, Phase::Backoff);
        assert_eq!(d.pause(), Some(Duration::from_secs(1)));
        d.send(Event::Timer);
        assert_eq!(d.effects, [Effect::RequestSlot]);
    }
    d.attempt(Outcome::Completed, Some(0), DoneMarker::Absent);
    assert_eq!(d.reason(), Some(EndReason::MaxRestarts));
    assert_eq!(d.posted("ERROR"), ["task failed: max restarts (3) exceeded"]);
    assert_eq!(d.state.attempt, 3);
    let begun = d.posted("INFO");
    assert_eq!(begun[0], "starting root agent (restart #0)");
    assert_eq!(begun[2], "starting root agent (restart #2)");
}

#[test]
fn done_ends_the_loop_and_tells_the_project_and_the_parent() {
    let mut child = spec(3);
    child.parent = Some(key().run(run(9)));
    let mut d = Driver::new(child);
    d.send(Event::Begin);
    d.attempt(Outcome::Completed, Some(0), DoneMarker::Present);
    assert_eq!(d.effects, [Effect::WatchChildren]);
    d.send(Event::Children { live: vec![] });
    assert_eq!(d.reason(), Some(EndReason::Done));
    let facts: Vec<_> = d.state.outbox.iter().filter(|entry| entry.kind == "FACT").map(|entry| &entry.bus).collect();
    assert_eq!(facts, [&BusTarget::Project, &BusTarget::Parent(key())]);
}

#[test]
fn done_before_the_first_start_starts_nothing() {
    let mut d = Driver::new(spec(3));
    d.send(Event::Begin);
    d.send(Event::SlotGranted);
    d.send(Event::Checked(DoneMarker::Present));
    d.send(Event::Children { live: vec![] });
    assert_eq!((d.reason(), d.state.attempt), (Some(EndReason::Done), 0));
}

#[test]
fn a_done_folder_needs_a_person_and_names_the_way_out() {
    let mut d = Driver::new(spec(3));
    d.send(Event::Begin);
    d.attempt(Outcome::Completed, Some(0), DoneMarker::NotAFile);
    assert_eq!(d.reason(), Some(EndReason::NeedsAttention));
    let detail = &d.state.end.as_ref().expect("ended").detail;
    assert!(detail.contains("DONE is not a regular file") && detail.contains("conductorctl task resume"), "{detail}");
}

#[test]
fn done_waits_for_children_and_then_detaches_stops_or_waits_on() {
    for (policy, reason) in
        [(ChildPolicy::Detach, Some(EndReason::Done)), (ChildPolicy::Stop, None), (ChildPolicy::Wait, None)]
    {
        let mut d = Driver::new(TaskSpec { on_child_timeout: policy, ..spec(3) });
        d.send(Event::Begin);
        d.attempt(Outcome::Completed, Some(0), DoneMarker::Present);
        d.send(Event::Children { live: vec!["c".into()] });
        assert_eq!(d.pause(), Some(Duration::from_secs(300)));
        assert_eq!(d.state.phase, Phase::WaitingChildren);
        d.send(Event::Timer);
        assert_eq!(d.reason(), reason);
        assert_eq!(policy == ChildPolicy::Stop, d.effects.iter().any(|e| matches!(e, Effect::StopChildren(_))));
        d.send(Event::Children { live: vec![] });
        assert_eq!(d.reason(), Some(EndReason::Done));
    }
}

#[test]
fn crashes_back_off_and_a_clean_exit_resets_the_pause() {
    let mut d = Driver::new(spec(100));
    d.send(Event::Begin);
    let mut pauses = Vec::new();
    for outcome in [Outcome::Failed, Outcome::Signaled, Outcome::Failed, Outcome::Completed, Outcome::Failed] {
        d.attempt(outcome, None, DoneMarker::Absent);
        pauses.push(d.pause().expect("a pause").as_secs());
        d.send(Event::Timer);
    }
    assert_eq!(pauses, [1, 2, 4, 1, 1]);
}

#[test]
fn login_and_program_problems_need_a_person_at_once() {
    for outcome in [Outcome::AuthFailed, Outcome::SpawnFailed] {
        let mut d = Driver::new(spec(100));
        d.send(Event::Begin);
        d.attempt(outcome, None, DoneMarker::Absent);
        assert_eq!(d.reason(), Some(EndReason::NeedsAttention));
    }
    let mut d = Driver::new(spec(100));
    d.send(Event::Begin);
    d.send(Event::SlotGranted);
    d.send(Event::Checked(DoneMarker::Absent));
    d.send(Event::PrepareFailed { problem: "claude is not installed".into() });
    assert_eq!(d.reason(), Some(EndReason::NeedsAttention));
}

#[test]
fn a_reboot_and_a_usage_limit_continue_the_same_attempt_in_its_session() {
    let mut d = Driver::new(spec(1));
    d.send(Event::Begin);
    d.send(Event::SlotGranted);
    d.send(Event::Checked(DoneMarker::Absent));
    d.start();
    d.end(Outcome::Lost, None, Some(Interruption::Reboot));
    d.send(Event::Checked(DoneMarker::Absent));
    assert_eq!((d.state.phase, d.state.session.as_deref()), (Phase::Backoff, Some("s")));
    d.send(Event::Timer);
    d.attempt(Outcome::UsageLimited, Some(1), DoneMarker::Absent);
    assert_eq!((d.state.attempt, d.state.used), (1, 1));
    assert_eq!(d.state.phase, Phase::WaitingLimit);
    let at = d.state.not_before.expect("a time");
    assert_eq!(at.duration_since(d.now).as_secs(), 905, "15 minutes, as the reset is not known, and the spread");
    // The clock is looked at once a minute, and nothing happens before its time.
    assert_eq!(d.pause(), Some(Duration::from_secs(60)));
    d.send(Event::Timer);
    assert_eq!((d.state.phase, d.pause()), (Phase::WaitingLimit, Some(Duration::from_secs(60))));
    d.now = at;
    d.send(Event::Timer);
    assert_eq!(d.effects, [Effect::RequestSlot]);
    d.attempt(Outcome::Completed, Some(0), DoneMarker::Absent);
    assert_eq!(d.reason(), Some(EndReason::MaxRestarts), "an ordinary exit does count");
}

fn account_limit(until: &str) -> AccountLimit {
    let until = until.parse().expect("time");
    AccountLimit { account: "claude/login".into(), kind: LimitKind::Window, until, known: true }
}

#[test]
fn a_known_reset_is_waited_for_across_a_restart_and_can_be_tried_at_once() {
    let mut d = Driver::new(spec(1));
    d.send(Event::Begin);
    let reset = "2026-01-01T05:00:00Z".parse().expect("time");
    d.limit = Some(Limit { kind: LimitKind::Window, resets_at: Some(reset), source: LimitSource::Json });
    d.attempt(Outcome::UsageLimited, Some(1), DoneMarker::Absent);
    assert!(
        d.posted("INFO")
            .iter()
            .any(|body| body.contains("window limit of the account claude/login until 2026-01-01T05:00:00Z"))
    );
    // conductord is killed; five hours later it starts again.
    d.state = d.disk.clone();
    d.send(Event::Begin);
    assert_eq!(d.pause(), Some(Duration::from_secs(60)));
    d.now = "2026-01-01T05:00:06Z".parse().expect("time");
    d.send(Event::Begin);
    assert_eq!(d.pause(), Some(Duration::ZERO));
    d.send(Event::LimitLifted);
    assert_eq!(d.effects, [Effect::Disarm, Effect::RequestSlot]);
    assert_eq!((d.state.session.as_deref(), d.state.continue_attempt), (Some("s"), true));
}

#[test]
fn an_account_that_takes_no_work_makes_no_run_and_costs_no_attempt() {
    let mut d = Driver::new(spec(1));
    d.send(Event::Begin);
    d.send(Event::SlotGranted);
    d.send(Event::Checked(DoneMarker::Absent));
    d.send(Event::AccountLimited { limit: account_limit("2026-01-01T01:00:00Z") });
    assert_eq!((d.state.phase, d.state.attempt, d.state.used), (Phase::WaitingLimit, 0, 0));
    assert_eq!(d.effects[0], Effect::ReleaseSlot);
    // A stop ends the wait at once.
    d.send(Event::StopAsked { intent: intent(IntentKind::Stop) });
    assert_eq!(d.reason(), Some(EndReason::Stopped));
}

#[test]
fn an_outage_backs_off_and_costs_no_attempt_and_a_login_problem_needs_a_person() {
    let mut d = Driver::new(spec(1));
    d.send(Event::Begin);
    d.limit = Some(Limit { kind: LimitKind::Overload, resets_at: None, source: LimitSource::Json });
    for seconds in [1, 2, 4] {
        d.attempt(Outcome::Failed, Some(1), DoneMarker::Absent);
        assert_eq!((d.state.phase, d.state.used, d.pause()), (Phase::Backoff, 1, Some(Duration::from_secs(seconds))));
        d.send(Event::Timer);
    }
    d.limit = None;
    d.attempt(Outcome::AuthFailed, Some(1), DoneMarker::Absent);
    assert_eq!(d.reason(), Some(EndReason::NeedsAttention));
}

#[test]
fn a_run_that_never_started_gives_its_messages_back() {
    let mut d = Driver::new(spec(3));
    d.send(Event::Begin);
    d.send(Event::SlotGranted);
    d.send(Event::Checked(DoneMarker::Absent));
    d.runs = 1;
    d.send(Event::Prepared { run: run(1), heard: Some("MSG-1".parse().expect("id")) });
    d.end(Outcome::Lost, None, Some(Interruption::NeverStarted));
    assert_eq!(d.state.heard, None);
    assert!(d.posted("RUN_START").is_empty());
}

#[test]
fn a_stop_ends_every_phase_and_nothing_starts_after_it() {
    // Queued, backoff and waiting for children end at once; a live run is ended first.
    let mut d = Driver::new(spec(3));
    d.send(Event::Begin);
    d.send(Event::StopAsked { intent: intent(IntentKind::Stop) });
    assert_eq!(d.reason(), Some(EndReason::Stopped));
    assert!(d.send(Event::SlotGranted).is_empty());

    let mut d = Driver::new(spec(3));
    d.send(Event::Begin);
    d.send(Event::SlotGranted);
    d.send(Event::Checked(DoneMarker::Absent));
    d.start();
    d.send(Event::StopAsked { intent: intent(IntentKind::Stop) });
    assert!(matches!(d.effects[..], [Effect::Persist, Effect::StopRun { .. }]));
    assert_eq!(d.state.phase, Phase::Stopping);
    d.end(Outcome::Stopped, Some(1), Some(Interruption::Asked));
    d.send(Event::Checked(DoneMarker::Absent));
    assert_eq!(d.reason(), Some(EndReason::Stopped));
    d.send(Event::ResumeAsked);
    assert_eq!(d.effects, [Effect::SetDoneAside, Effect::Persist, Effect::Deliver, Effect::RequestSlot]);
    assert!(d.state.continue_attempt, "a stopped attempt goes on");
    d.attempt(Outcome::Completed, Some(0), DoneMarker::Present);
    assert_eq!(d.state.attempt, 1);
}

#[test]
fn a_cancel_is_stronger_than_a_stop_and_final() {
    let mut d = Driver::new(spec(3));
    d.send(Event::Begin);
    d.send(Event::SlotGranted);
    d.send(Event::Checked(DoneMarker::Absent));
    d.start();
    d.send(Event::StopAsked { intent: intent(IntentKind::Stop) });
    d.send(Event::StopAsked { intent: intent(IntentKind::Cancel) });
    d.send(Event::StopAsked { intent: intent(IntentKind::Stop) });
    d.end(Outcome::Stopped, None, Some(Interruption::Asked));
    d.send(Event::Checked(DoneMarker::Present));
    assert_eq!(d.reason(), Some(EndReason::Cancelled));
    assert!(d.send(Event::ResumeAsked).is_empty());
}

#[test]
fn say_now_ends_the_turn_and_goes_on_at_once_in_the_session() {
    let mut d = Driver::new(spec(3));
    d.send(Event::Begin);
    d.send(Event::SlotGranted);
    d.send(Event::Checked(DoneMarker::Absent));
    d.start();
    d.send(Event::InterruptAsked { who: "dev".into() });
    assert!(d.effects.iter().any(|e| matches!(e, Effect::StopRun { .. })));
    d.end(Outcome::Stopped, Some(1), Some(Interruption::Asked));
    d.send(Event::Checked(DoneMarker::Absent));
    assert!(d.effects.contains(&Effect::RequestSlot), "no pause");
    assert_eq!((d.state.session.as_deref(), d.state.continue_attempt), (Some("s"), true));
}

#[test]
fn a_session_that_is_gone_costs_no_attempt() {
    let mut d = Driver::new(spec(1));
    d.send(Event::Begin);
    d.send(Event::SlotGranted);
    d.send(Event::Checked(DoneMarker::Absent));
    d.start();
    d.end(Outcome::Failed, Some(42), Some(Interruption::SessionLost));
    d.send(Event::Checked(DoneMarker::Absent));
    assert_eq!((d.state.phase, d.state.crashes, d.state.continue_attempt), (Phase::Backoff, 0, true));
    assert_eq!(d.pause(), Some(spec(1).restart_delay));
}

#[test]
fn a_single_job_ends_with_its_run() {
    for (outcome, reason) in [(Outcome::Completed, EndReason::Done), (Outcome::Failed, EndReason::MaxRestarts)] {
        let mut d = Driver::new(TaskSpec { mode: Mode::Once, ..spec(1) });
        d.send(Event::Begin);
        d.attempt(outcome, Some(i32::from(outcome == Outcome::Failed)), DoneMarker::Absent);
        d.send(Event::Children { live: vec![] });
        assert_eq!(d.reason(), Some(reason));
    }
}

#[test]
fn recovery_takes_every_phase_up_where_it_was() {
    let mut d = Driver::new(spec(3));
    d.send(Event::Begin);
    assert_eq!(d.effects, [Effect::RequestSlot]);
    d.attempt(Outcome::Failed, Some(1), DoneMarker::Absent);
    d.state = d.disk.clone();
    d.send(Event::Begin);
    assert_eq!(d.pause(), Some(Duration::from_secs(1)));
    d.send(Event::Timer);
    d.send(Event::SlotGranted);
    d.send(Event::Checked(DoneMarker::Absent));
    d.start();
    // conductord dies and the run has ended meanwhile: the same event comes from its record.
    d.state = d.disk.clone();
    d.send(Event::Begin);
    d.end(Outcome::Completed, Some(0), None);
    d.state = d.disk.clone();
    d.end(Outcome::Completed, Some(0), None);
    d.send(Event::Checked(DoneMarker::Present));
    d.send(Event::Children { live: vec![] });
    assert_eq!(d.reason(), Some(EndReason::Done));
    let mut keys: Vec<_> = d.state.outbox.iter().map(|entry| entry.key.clone()).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), d.state.outbox.len(), "every key is there once");
}

#[test]
fn recovery_posts_what_an_end_left_in_the_outbox_and_then_writes_that_it_is_empty() {
    let mut d = Driver::new(spec(3));
    d.send(Event::Begin);
    d.send(Event::StopAsked { intent: intent(IntentKind::Stop) });
    d.state = d.disk.clone();
    assert!(!d.state.is_settled());
    d.send(Event::Begin);
    assert_eq!(d.effects, [Effect::Deliver]);
    for key in d.state.outbox.clone().into_iter().map(|entry| entry.key) {
        d.send(Event::Posted { key });
    }
    assert_eq!(d.effects, [Effect::Persist]);
    assert!(d.disk.is_settled());
}

fn arbitrary_event() -> impl Strategy<Value = Event> {
    let marker = prop_oneof![Just(DoneMarker::Absent), Just(DoneMarker::Present), Just(DoneMarker::NotAFile)];
    let outcome = prop_oneof![
        Just(Outcome::Completed),
        Just(Outcome::Failed),
        Just(Outcome::Stopped),
        Just(Outcome::UsageLimited),
        Just(Outcome::SpawnFailed),
        Just(Outcome::Lost),
        Just(Outcome::AuthFailed)
    ];
    let cut = prop_oneof![
        Just(None),
        Just(Some(Interruption::NeverStarted)),
        Just(Some(Interruption::Asked)),
        Just(Some(Interruption::SessionLost))
    ];
    prop_oneof![
        Just(Event::Begin),
        Just(Event::SlotGranted),
        marker.prop_map(Event::Checked),
        (1u32..4).prop_map(|n| Event::Prepared { run: run(n), heard: None }),
        Just(Event::PrepareFailed { problem: "p".into() }),
        Just(Event::StartFailed { problem: "p".into() }),
        (1u32..4).prop_map(|n| Event::Started { run: run(n) }),
        (1u32..4, outcome, cut).prop_map(|(n, outcome, interruption)| {
            let last = LastRun { run: run(n), outcome, exit_code: None, signal: None, summary: None };
            let stderr_tail = String::new();
            Event::RunEnded(Box::new(RunEnd {
                last,
                session: None,
                progressed: false,
                interruption,
                limit: None,
                account: None,
                stderr_tail,
            }))
        }),
        Just(Event::Timer),
        Just(Event::AccountLimited { limit: account_limit("1970-01-01T05:00:00Z") }),
        Just(Event::LimitLifted),
        (0usize..3).prop_map(|n| Event::Children { live: vec!["c".into(); n] }),
        Just(Event::StopAsked { intent: intent(IntentKind::Stop) }),
        Just(Event::StopAsked { intent: intent(IntentKind::Cancel) }),
        Just(Event::ResumeAsked),
        Just(Event::InterruptAsked { who: "dev".into() }),
    ]
}

proptest! {
    #[test]
    fn no_sequence_of_events_breaks_the_invariants(events in prop::collection::vec(arbitrary_event(), 0..60)) {
        let mut d = Driver::new(spec(2));
        for event in events {
            let before = d.state.clone();
            d.send(event);
            let s = &d.state;
            // One run at a time, and only where one can be.
            prop_assert!(s.run.is_none() || matches!(s.phase, Phase::Running | Phase::Stopping));
            // A launch is always preceded by the durable record of its run.
            if let Some(at) = d.effects.iter().position(|e| *e == Effect::Launch) {
                prop_assert!(d.effects[..at].contains(&Effect::Persist));
                prop_assert!(before.run.is_none(), "never two runs");
                prop_assert!(before.intent.is_none(), "nothing starts against an intent");
            }
            // An end is there exactly in the finished phase, and the attempts stay within their bound.
            prop_assert_eq!(s.end.is_some(), s.phase == Phase::Finished);
            prop_assert!(s.used <= d.spec.max_restarts);
            // A change of phase to the end is durable.
            if before.phase != Phase::Finished && s.phase == Phase::Finished {
                prop_assert!(d.effects.contains(&Effect::Persist));
            }
            // Cancelled stays cancelled.
            if before.end.as_ref().is_some_and(|end| end.reason == EndReason::Cancelled) {
                prop_assert_eq!(s, &before);
            }
        }
    }
}

#[test]
fn an_idle_run_is_warned_of_once_for_each_silence_and_goes_on() {
    let mut driver = Driver::new(spec(3));
    driver.send(Event::Begin);
    driver.send(Event::SlotGranted);
    driver.send(Event::Checked(DoneMarker::Absent));
    driver.send(Event::Prepared { run: run(1), heard: None });
    driver.send(Event::Started { run: run(1) });
    let warned = |n: u32, minute: i64| Event::IdleWarned {
        run: run(n),
        since: Timestamp::from_second(60 * minute).expect("time"),
        body: format!("{IDLE_WARNING} of the run"),
    };
    assert_eq!(driver.send(warned(1, 1)), [Effect::Persist, Effect::Deliver]);
    driver.send(warned(1, 40));
    let keys: Vec<_> =
        driver.disk.outbox.iter().filter(|entry| entry.kind == "WARNING").map(|entry| &entry.key).collect();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
    assert!(driver.send(warned(2, 50)).is_empty(), "of a run that is not the live one");
    assert_eq!(driver.state.phase, Phase::Running);
}
