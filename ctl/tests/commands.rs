//! The commands against a scripted daemon: what they print, what they ask, how they exit.

mod support;

use conductor_proto::reason;
use conductor_proto::v1::{
    AccountTrouble, Agent, AgentCheck, CheckAgentsResponse, EndReason, Finding, FindingLevel, LimitKind, Permissions,
    Project, Run, RunRef, RunStatus, Straggler, Task, TaskPhase, Usage,
};
use serde_json::Value;
use support::{Fake, RUN, RUN2, TASK, agent, at, ended, err, finish, out, refusal, run, task};
use tonic::Code;

fn busy() -> Fake {
    let fake = Fake::start();
    fake.with(|world| {
        world.put_task(Task { current_run_id: RUN.into(), ..task(TaskPhase::Running) });
        world.put_run(run(RUN, 1, RunStatus::Running));
        world.agents = vec![agent("claude", true), agent("codex", true)];
        let root_path = "/src/app".to_owned();
        world.projects = vec![Project {
            project_id: "app".into(),
            root_path,
            task_count: 2,
            live_task_count: 1,
            ..Project::default()
        }];
    });
    fake
}

fn json(fake: &Fake, args: &[&str]) -> Value {
    let output = fake.run(&[args, &["-o", "json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    serde_json::from_str(&out(&output)).expect("JSON")
}

/// A call's request as text.
fn asked(fake: &Fake, call: &str) -> String {
    let found = fake.with(|world| world.calls.iter().rev().find(|(name, _)| name == call).cloned());
    found.unwrap_or_else(|| panic!("no call of {call}")).1
}

#[test]
fn every_reason_has_its_exit_code() {
    let fake = busy();
    for (code, reason, exit) in [
        (Code::InvalidArgument, reason::INVALID_FIELD, 2),
        (Code::InvalidArgument, reason::AMBIGUOUS_ID, 2),
        (Code::InvalidArgument, reason::BAD_PAGE_TOKEN, 2),
        (Code::NotFound, reason::NOT_FOUND, 3),
        (Code::NotFound, reason::UNKNOWN_CURSOR, 3),
        (Code::PermissionDenied, reason::DENIED, 4),
        (Code::Unauthenticated, reason::TOKEN_REQUIRED, 4),
        (Code::Unavailable, reason::SHUTTING_DOWN, 5),
        (Code::AlreadyExists, reason::ALREADY_EXISTS, 6),
        (Code::AlreadyExists, reason::REQUEST_ID_REUSED, 6),
        (Code::FailedPrecondition, reason::WRONG_STATE, 6),
        (Code::FailedPrecondition, reason::FOREIGN, 6),
        (Code::FailedPrecondition, reason::AGENT_UNAVAILABLE, 1),
        (Code::FailedPrecondition, reason::CONFIG_INVALID, 1),
        (Code::ResourceExhausted, reason::LIMIT, 1),
        (Code::ResourceExhausted, reason::DISK_FULL, 1),
        (Code::Unavailable, reason::BUS_LOCKED, 1),
        (Code::Internal, reason::INTERNAL, 1),
    ] {
        fake.with(|world| world.refusals.insert("ListTasks", refusal(code, reason, "the message")));
        let output = fake.run(&["task", "list"]);
        assert_eq!(output.status.code(), Some(exit), "{reason}: {}", err(&output));
        assert_eq!(out(&output), "", "{reason}");
    }
}

#[test]
fn an_error_is_one_line_with_the_servers_words_and_a_hint() {
    let fake = busy();
    let output = fake.run(&["task", "show", "nope"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(err(&output), format!("error: failed to find the task: no task \"nope\"; did you mean {TASK}?\n"));
}

#[test]
fn no_daemon_is_exit_5_and_says_how_to_start_it() {
    let home = tempfile::tempdir().expect("a folder");
    for args in [&["ps"][..], &["start", "--no-start", "x"], &["task", "submit", "x"]] {
        let output = finish(support::plain_ctl(home.path(), args));
        assert_eq!(output.status.code(), Some(5), "{args:?}");
        assert!(err(&output).contains("conductorctl daemon start"), "{}", err(&output));
        assert!(err(&output).contains(".local/state/conductor/conductor.sock"), "{}", err(&output));
    }
}

#[test]
fn a_daemon_that_hangs_is_exit_124() {
    let fake = busy();
    fake.with(|world| world.hang = Some("ListTasks"));
    let output = fake.run(&["ps", "--timeout", "150ms"]);
    assert_eq!(output.status.code(), Some(124), "{}", err(&output));
}

#[test]
fn bad_command_lines_are_exit_2() {
    let fake = busy();
    for args in [
        &["nope"][..],
        &["task", "shwo"],
        &["wait"],
        &["wait", "--children"],
        &["start", "--max-restarts", "0", "x"],
        &["start", "--wall-time", "5", "x"],
        &["start", ""],
        &["start", "--cwd", "/nonexistent", "x"],
        &["bus", "read"],
        &["task", "show", "a/b/c/d"],
        &["top"],
        &["stop", TASK, "--kill", "--int-grace", "1s"],
    ] {
        let output = fake.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", err(&output));
    }
    assert!(err(&fake.run(&["task", "shwo"])).contains("show"));
}

#[test]
fn several_agents_without_a_default_are_listed_and_exit_2() {
    let fake = busy();
    let output = fake.run(&["start", "x"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("choose one with --agent: claude, codex"), "{}", err(&output));
    fake.with(|world| world.agents[1].is_default = true);
    assert_eq!(fake.run(&["start", "-d", "x"]).status.code(), Some(0));
    assert!(asked(&fake, "SubmitTask").contains("agent: \"codex\""));
}

#[test]
fn detach_prints_the_id_only() {
    let fake = busy();
    let output = fake.run(&["start", "-d", "--agent", "claude", "--once", "x", "--", "--verbose"]);
    assert_eq!(out(&output), format!("{TASK}\n"));
    assert_eq!(err(&output), "");
    let submit = asked(&fake, "SubmitTask");
    assert!(submit.contains("extra_args: [\"--verbose\"]") && submit.contains("mode: Once"), "{submit}");
}

#[test]
fn inside_a_run_everything_comes_from_the_environment() {
    let fake = busy();
    let inside = |args: &[&str]| {
        let mut command = fake.ctl(args);
        let ids = [("PROJECT_ID", "app"), ("TASK_ID", TASK), ("RUN_ID", RUN), ("TOKEN", "secret-token")];
        ids.iter().for_each(|(name, value)| {
            command.env(format!("CONDUCTOR_{name}"), value);
        });
        finish(command)
    };
    assert_eq!(inside(&["task", "submit", "child work"]).status.code(), Some(0));
    let submit = asked(&fake, "SubmitTask");
    assert!(submit.contains("Bearer") || submit.contains("Sensitive"), "{submit}");
    assert!(submit.contains(&format!("parent: Some(RunRef {{ project_id: \"app\", task_id: \"{TASK}\"")), "{submit}");
    assert!(fake.with(|world| world.calls.iter().all(|(name, _)| name != "EnsureProject")));

    let posted = inside(&["bus", "post", "--type", "FACT", "--reply-to", "MSG-9", "found it"]);
    assert!(out(&posted).starts_with("MSG-"), "{}", err(&posted));
    let post = asked(&fake, "PostMessage");
    for text in [&format!("task_id: \"{TASK}\""), "msg_id: \"MSG-9\"", "kind: \"reply\"", RUN] {
        assert!(post.contains(text), "{text} in {post}");
    }
    fake.with(|world| world.tasks = vec![ended(EndReason::Done)]);
    assert_eq!(inside(&["wait", "--children"]).status.code(), Some(0));
    let all = fake.with(|world| format!("{:?}", world.refusals));
    assert!(!all.contains("secret-token"));
}

#[test]
fn inside_a_run_no_daemon_is_ever_started() {
    let home = tempfile::tempdir().expect("a folder");
    let mut command = support::plain_ctl(home.path(), &["start", "x"]);
    command.env("CONDUCTOR_RUN_ID", RUN).env("CONDUCTOR_SOCKET", home.path().join("none.sock"));
    assert_eq!(finish(command).status.code(), Some(5));
    assert!(!home.path().join(".local").exists());
}

#[test]
fn json_has_the_names_of_the_proto() {
    let fake = busy();
    let list = json(&fake, &["task", "list"]);
    let first = &list[0];
    assert_eq!(first["task_id"], TASK);
    assert_eq!(first["phase"], "running");
    assert_eq!(first["create_time"], "2026-01-01T00:00:00Z");
    assert_eq!(first["spec"]["restart_delay"], "1.5s");
    assert_eq!(first["spec"]["on_exit"], "sweep");
    assert_eq!(first["end"], Value::Null);
    let ps = json(&fake, &["ps"]);
    assert_eq!(ps["runs"][0]["run_id"], RUN);
    assert_eq!(json(&fake, &["run", "show", RUN])["exit_code"], Value::Null);
    assert_eq!(json(&fake, &["daemon", "info"])["recovery"]["adopted"], 2);
    assert_eq!(json(&fake, &["agent", "list"])[0]["installed"], true);
    assert_eq!(json(&fake, &["project", "list"])[0]["live_task_count"], 1);
    assert_eq!(json(&fake, &["config", "show"])["config"]["max_concurrent_runs"], 16);
    assert_eq!(json(&fake, &["run", "show", RUN, "--processes"])[0]["name"], "node");
    let yaml = fake.run(&["task", "show", TASK, "-o", "yaml"]);
    assert!(out(&yaml).contains("phase: running\n"), "{}", out(&yaml));
    assert_eq!(out(&fake.run(&["task", "list", "-o", "name"])), format!("{TASK}\n"));
}

/// All fields, so that a change of a name is seen.
#[test]
fn the_json_of_a_task_and_a_run_is_stable() {
    let fake = busy();
    insta::assert_snapshot!("task_json", out(&fake.run(&["task", "show", TASK, "-o", "json"])));
    insta::assert_snapshot!("run_json", out(&fake.run(&["run", "show", RUN, "-o", "json"])));
}

#[test]
fn tables_fit_80_and_120_columns() {
    let fake = busy();
    fake.with(|world| {
        world.put_task(ended(EndReason::NeedsAttention));
        let mut other = Task { task_id: "task-20260101-000900-write-the-user-guide".into(), ..ended(EndReason::Done) };
        other.title = "write the user guide with all the options that the program has".into();
        world.put_task(other);
        world.put_run(Run {
            error_summary: "the tests failed: 3 of 120".into(),
            usage: Some(Usage { cost_usd: Some(0.42), ..Usage::default() }),
            ..run(RUN2, 2, RunStatus::Failed)
        });
        world.put_run(Run { end_time: Some(at(61)), ..run(RUN, 1, RunStatus::Completed) });
    });
    for columns in ["80", "120"] {
        for args in [&["task", "list"][..], &["run", "list"], &["ps", "-a"], &["agent", "list"], &["project", "list"]] {
            let mut command = fake.ctl(args);
            let text = out(&finish({
                command.env("COLUMNS", columns);
                command
            }));
            let width: usize = columns.parse().expect("a number");
            assert!(text.lines().all(|line| line.chars().count() <= width), "{columns}:\n{text}");
            // Ages grow while the test stands still.
            let stable = args[0] == "run" || args[0] == "project";
            if stable {
                insta::assert_snapshot!(format!("{}_{columns}", args.join("_")), text);
            }
        }
    }
}

#[test]
fn a_run_is_shown_with_what_is_not_known_as_a_dash() {
    let fake = busy();
    fake.with(|world| {
        let stragglers = vec![Straggler { pid: 5, name: "mcp".into(), ended: true }];
        world.put_run(Run { stragglers, ..run(RUN, 1, RunStatus::Completed) });
    });
    insta::assert_snapshot!("run_show", out(&fake.run(&["run", "show", RUN])));
}

#[test]
fn the_tree_has_runs_below_tasks_and_children_below_runs() {
    let fake = busy();
    fake.with(|world| {
        world.put_task(ended(EndReason::Done));
        world.put_run(run(RUN, 1, RunStatus::Failed));
        world.put_run(run(RUN2, 2, RunStatus::Completed));
        let parent = RunRef { project_id: "app".into(), task_id: TASK.into(), run_id: RUN.into() };
        let child = "task-20260101-000003-write-docs";
        world.put_task(Task { task_id: child.into(), parent: Some(parent), ..ended(EndReason::Done) });
        let id = "20260101-0000031234-4713-1".into();
        world.put_run(Run { task_id: child.into(), run_id: id, ..run(RUN, 1, RunStatus::Completed) });
    });
    insta::assert_snapshot!("run_tree", out(&fake.run(&["run", "tree", TASK])));
    assert!(out(&fake.run(&["run", "tree", TASK, "-o", "yaml"])).contains("children:"));
    assert_eq!(json(&fake, &["run", "tree", TASK])["runs"][0]["children"][0]["runs"][0]["attempt"], 1);
}

#[test]
fn a_tree_of_many_tasks_is_listed_in_pages_and_not_task_by_task() {
    let fake = busy();
    fake.with(|world| {
        world.put_task(ended(EndReason::Done));
        world.put_run(run(RUN, 1, RunStatus::Completed));
        for number in 0..300 {
            let parent = RunRef { project_id: "app".into(), task_id: TASK.into(), run_id: RUN.into() };
            let child = format!("task-20260101-000003-child-{number}");
            world.put_task(Task { task_id: child, parent: Some(parent), ..ended(EndReason::Done) });
        }
    });
    let before = fake.with(|world| world.calls.len());
    let tree = json(&fake, &["run", "tree", TASK]);
    assert_eq!(tree["runs"][0]["children"].as_array().map(Vec::len), Some(300));
    let calls: Vec<String> = fake.with(|world| world.calls[before..].iter().map(|(name, _)| name.clone()).collect());
    let lists = calls.iter().filter(|call| call.starts_with("List")).count();
    assert!(lists <= 4, "{lists} lists: {calls:?}");
}

#[test]
fn stop_returns_when_it_has_ended_and_kill_has_no_graces() {
    let fake = busy();
    let output = fake.run(&["stop", TASK, "--kill", "--reason", "enough"]);
    assert_eq!(out(&output), format!("{TASK}  stopped\n"), "{}", err(&output));
    let stop = asked(&fake, "StopTask");
    assert!(stop.contains("int_grace: Some(Duration { seconds: 0, nanos: 0 })") && stop.contains("enough"), "{stop}");
    let output = fake.run(&["stop", RUN]);
    assert_eq!(out(&output), format!("{RUN}  stopped\n"), "{}", err(&output));
    assert!(asked(&fake, "StopRun").contains("int_grace: None"));
}

#[test]
fn the_short_commands_do_what_they_say() {
    let fake = busy();
    fake.with(|world| world.outputs.insert(RUN.into(), "the answer".into()));
    assert_eq!(out(&fake.run(&["output", TASK])), "the answer");
    assert_eq!(out(&fake.run(&["say", TASK, "--now", "look", "here"])), "MSG-1\n");
    assert!(asked(&fake, "SayToTask").contains("text: \"look here\", now: true"));
    assert_eq!(out(&fake.run(&["task", "why", TASK])), "running: attempt 1 of 100 runs\n");
    assert_eq!(out(&fake.run(&["task", "show", "--prompt", TASK])), "fix it\n");
    assert!(out(&fake.run(&["task", "cancel", TASK])).ends_with("cancelled\n"));
    assert!(out(&fake.run(&["task", "resume", TASK, "--message", "go on"])).contains("queued"));
    assert!(asked(&fake, "ResumeTask").contains("adopt_spec: None"));
    assert_eq!(fake.run(&["task", "delete", TASK]).status.code(), Some(0));
    assert_eq!(out(&fake.run(&["project", "create", "p2"])), "p2\n");
    assert_eq!(fake.run(&["project", "delete", "p2", "--yes"]).status.code(), Some(0));
    assert_eq!(out(&fake.run(&["daemon", "reload"])), "root\n");
    assert!(out(&fake.run(&["config", "show"])).contains("max_concurrent_runs: 16"));
    assert!(out(&fake.run(&["version"])).contains("conductord   0.1.0"));
    assert_eq!(fake.run(&["output", RUN2]).status.code(), Some(3));
}

#[test]
fn messages_read_like_a_conversation() {
    let fake = busy();
    fake.with(|world| {
        world.post("QUESTION", "which database?\nstaging or test");
        world.post("ANSWER", "staging");
        world.messages[0].body += "\x1b[2J";
    });
    insta::assert_snapshot!("bus_read", out(&fake.run(&["bus", "read", "--task", TASK])));
    let one = json(&fake, &["bus", "read", "--task", TASK, "--type", "answer"]);
    assert_eq!(one.as_array().map(Vec::len), Some(1));
    assert_eq!(one[0]["body"], "staging");
}

#[test]
fn colours_follow_the_environment() {
    let fake = busy();
    let colored = |name: &str, value: &str, args: &[&str]| {
        let mut command = fake.ctl(args);
        command.env(name, value);
        out(&finish(command)).contains('\x1b')
    };
    assert!(colored("CLICOLOR_FORCE", "1", &["ps"]));
    assert!(!colored("CLICOLOR_FORCE", "0", &["ps"]));
    assert!(!colored("CLICOLOR_FORCE", "1", &["ps", "--no-color"]));
    assert!(!colored("LANG", "C", &["ps"]));
}

#[test]
fn long_lists_are_cut_and_say_so() {
    let fake = busy();
    fake.with(|world| {
        for number in 0..1_200 {
            world.put_task(Task { task_id: format!("task-20260101-000000-n{number:04}"), ..task(TaskPhase::Finished) });
        }
    });
    let some = fake.run(&["task", "list", "-o", "name"]);
    assert_eq!(out(&some).lines().count(), 50);
    assert!(err(&some).contains("--limit 0"));
    assert_eq!(out(&fake.run(&["task", "list", "-o", "name", "--limit", "0"])).lines().count(), 1_201);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let fake = busy();
    fake.with(|world| {
        for number in 0..5_000 {
            world.put_task(Task { task_id: format!("task-20260101-000000-n{number:04}"), ..task(TaskPhase::Running) });
        }
    });
    let mut child = fake.ctl(&["task", "list", "--limit", "0", "-o", "json"]).spawn().expect("it runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
}

/// An agent with a limit, one with no login, and what its machine has.
fn checked() -> CheckAgentsResponse {
    let finding = |level: FindingLevel, subject: &str, text: &str, fix: &str| Finding {
        level: level.into(),
        subject: subject.into(),
        text: text.into(),
        fix: fix.into(),
    };
    let (good, notice, problem) = (FindingLevel::Good, FindingLevel::Notice, FindingLevel::Problem);
    let agent = |name: &str, is_default| Some(Agent { is_default, ..support::agent(name, true) });
    CheckAgentsResponse {
        machine: vec![
            finding(good, "data", "/home/dev/.local/state/conductor/runs, 36 GiB free", ""),
            finding(
                problem,
                "confinement",
                "bubblewrap does not work here: bwrap: No permissions to create a new namespace",
                "apt-get install bubblewrap; or defaults.permissions: full; or --permissions full for one task",
            ),
        ],
        agents: vec![
            AgentCheck {
                agent: agent("claude", true),
                findings: vec![
                    finding(good, "program", "/usr/bin/claude", ""),
                    finding(good, "version", "2.1.197 (Claude Code)", ""),
                    finding(
                        notice,
                        "account",
                        "claude/login: window limit until 2026-01-01 17:46 UTC",
                        "its tasks wait; to ask now: conductorctl agent probe claude",
                    ),
                ],
            },
            AgentCheck {
                agent: agent("codex", false),
                findings: vec![finding(
                    notice,
                    "program",
                    "program codex was not found",
                    "npm install -g @openai/codex",
                )],
            },
        ],
        shell: ["JAVA_HOME", "NODE_OPTIONS"]
            .map(|name| finding(notice, name, "is set in your shell; agents don't see it unless env_pass names it", ""))
            .to_vec(),
    }
}

#[test]
fn a_doctor_says_one_thing_a_line_and_sends_names_alone() {
    let fake = busy();
    fake.with(|world| world.check = checked());
    let mut command = fake.ctl(&["doctor"]);
    command.env("COLUMNS", "80").env("NODE_OPTIONS", "--secret").current_dir("/");
    let output = finish(command);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    let text = out(&output);
    let socket = text.lines().find(|line| line.contains(".sock")).expect("the socket").to_owned();
    insta::assert_snapshot!("doctor_80", text.replace(&socket, "  ✓ daemon       conductord 0.1.0 at SOCKET"));
    let calls = fake.with(|world| world.calls.clone());
    let sent = calls.iter().find(|(name, _)| name == "CheckAgents").map(|(_, request)| request).expect("the call");
    assert!(sent.contains("NODE_OPTIONS") && !sent.contains("--secret"), "{sent}");
    let report: serde_json::Value = serde_json::from_str(&out(&fake.run(&["doctor", "-o", "json"]))).expect("JSON");
    assert_eq!((&report["ok"], &report["problems"]), (&false.into(), &1.into()));
    assert_eq!(out(&fake.run(&["doctor", "-o", "name"])), "confinement\n");
    fake.with(|world| world.check.machine.truncate(1));
    assert_eq!(fake.run(&["doctor"]).status.code(), Some(0));
}

#[test]
fn agents_fit_80_columns_with_their_state_and_its_clock() {
    let fake = busy();
    let trouble = |kind: LimitKind, until| {
        Some(AccountTrouble { kind: kind.into(), until, until_known: true, ..AccountTrouble::default() })
    };
    let full = Permissions::Full.into();
    fake.with(|world| {
        world.agents = vec![
            Agent {
                is_default: true,
                login: "key from token_file".into(),
                version: "2.1.197 (Claude Code)".into(),
                permissions: full,
                trouble: trouble(LimitKind::Window, Some(prost_types::Timestamp { seconds: 4_102_444_800, nanos: 0 })),
                ..support::agent("claude", true)
            },
            Agent { program: String::new(), version: String::new(), ..support::agent("codex", false) },
            Agent { permissions: full, trouble: trouble(LimitKind::Auth, None), ..support::agent("gemini", true) },
            Agent { permissions_problem: "bubblewrap is missing".into(), ..support::agent("perplexity", true) },
        ];
    });
    let mut command = fake.ctl(&["agent", "list"]);
    command.env("COLUMNS", "80");
    insta::assert_snapshot!("agent_list_80", out(&finish(command)));
    let wide = out(&fake.run(&["agent", "list", "-o", "wide"]));
    assert!(wide.contains("window limit until 2100-01-01 00:00:00 UTC") && wide.contains("bubblewrap"), "{wide}");
    assert!(out(&fake.run(&["agent", "show", "claude"])).contains("2.1.197 (Claude Code)"));
    assert_eq!(fake.run(&["agent", "show", "nobody"]).status.code(), Some(3));
}
