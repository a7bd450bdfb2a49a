//! Bad input, large input, repeated input.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use anyhow::{Result, ensure};
use conductor_proto::v1::{
    CreateProjectRequest, EndReason, GetConfigRequest, ReloadConfigRequest, RunFile, RunOutcome,
};
use conductor_tests::client::{PROJECT, project_bus};
use conductor_tests::{Config, DEADLINE, Daemon, Refusal, Submit, in_sandbox, tree, wait_until};
use tonic::Code;

use crate::common::{again, finish, once, reason, script, start, start_with};

#[test]
fn bad_ids_are_refused_with_their_field_and_touch_nothing() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let before = tree::list(&sandbox.root());
        for id in ["..", "a/b", "/etc", "A", "", "a\0b", "-a", "%2e%2e"] {
            let request = CreateProjectRequest { project_id: id.to_owned(), ..CreateProjectRequest::default() };
            let refused = client.wait(client.projects().create_project(request)).expect_err(id);
            let refusal = Refusal::of(&refused);
            assert_eq!(refusal.code, Code::InvalidArgument, "{id:?}: {refused:?}");
            assert_eq!(refusal.fields, ["project_id"], "{id:?}");
            assert_eq!(refusal.reason, "INVALID_FIELD");
        }
        for slug in ["..", "ab", "-abc", "with space", "a/b"] {
            let refused = client.submit(Submit { slug: slug.to_owned(), ..script("", &["done"]) }).expect_err(slug);
            assert_eq!(Refusal::of(&refused).fields, ["slug"], "{slug:?}: {refused:?}");
        }
        let mut submit = script("relative", &["done"]);
        submit.spec.cwd = "relative/folder".to_owned();
        assert_eq!(client.submit(submit).expect_err("relative").code(), Code::InvalidArgument);
        assert_eq!(
            client.submit(Submit { prompt: String::new(), ..script("empty", &[]) }).expect_err("empty").code(),
            Code::InvalidArgument
        );
        assert_eq!(client.task("../../etc").expect_err("a path").code(), Code::InvalidArgument);
        let after = tree::list(&sandbox.root());
        let new: Vec<_> =
            after.keys().filter(|path| !before.contains_key(*path) && !path.starts_with(".conductor")).collect();
        assert!(new.is_empty(), "{new:?}");
        Ok(())
    });
}

#[test]
fn messages_that_are_too_large_or_nameless_are_refused_and_nothing_is_written() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let path = sandbox.root().join(PROJECT).join("PROJECT-MESSAGE-BUS.md");
        let before = std::fs::read(&path).unwrap_or_default();
        let large = client.post(&project_bus(PROJECT), "FACT", &"x".repeat((1 << 20) + 1)).expect_err("over 1 MiB");
        assert!(large.message().contains("1 MiB") || large.message().contains("1048576"), "{large:?}");
        assert_eq!(client.post(&project_bus(PROJECT), "", "text").expect_err("no type").code(), Code::InvalidArgument);
        assert_eq!(std::fs::read(&path).unwrap_or_default(), before);
        client.post(&project_bus(PROJECT), "FACT", &"x".repeat(1 << 20))?;
        Ok(())
    });
}

#[test]
fn large_prompts_reach_the_agent_whole_and_one_byte_too_many_is_refused() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        for size in [200_000, 10 << 20, 16 << 20] {
            let mut prompt = crate::common::prompt(&["done"]);
            prompt.push_str(&"x".repeat(size - prompt.len()));
            let task = finish(&client, Submit { prompt: prompt.clone(), ..script("large-one", &[]) })?;
            assert_eq!(reason(&task), EndReason::Done, "{size}");
            let read = client.run_file(&client.last_run(&task)?, RunFile::Prompt)?.unwrap_or_default();
            assert!(String::from_utf8(read)?.contains(&prompt), "the agent's prompt holds all {size} bytes");
        }
        let refused = client
            .submit(Submit { prompt: "x".repeat((16 << 20) + 1), ..script("too-large", &[]) })
            .expect_err("over 16 MiB");
        assert!(refused.message().contains("16 MiB"), "{refused:?}");
        Ok(())
    });
}

#[test]
fn a_repeated_request_is_harmless_also_after_a_kill() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let submit = || Submit { request_id: "once-only".to_owned(), ..script("only-one", &["done"]) };
        let first = client.submit(submit())?;
        assert_eq!(client.submit(submit())?.task_id, first.task_id);
        let other = Submit { request_id: "once-only".to_owned(), ..script("another", &["done"]) };
        let refusal = Refusal::of(&client.submit(other.clone()).expect_err("other content"));
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        assert_eq!(client.submit(submit())?.task_id, first.task_id);
        let refusal = Refusal::of(&client.submit(other).expect_err("other content"));
        assert_eq!(refusal.reason, "REQUEST_ID_REUSED");
        assert_eq!(reason(&client.wait_task(&first.task_id)?), EndReason::Done);
        Ok(())
    });
}

#[test]
fn a_bad_configuration_is_refused_with_its_place_and_a_reload_keeps_the_last_good_one() {
    in_sandbox(|sandbox| {
        for (text, named) in [
            ("agentz: {}\n", "agentz"),
            ("defaults:\n  restart_delay: fast\n", "restart_delay"),
            ("agents:\n  claude: {type: claude, token_file: /nonexistent/token}\n", "token_file"),
            ("agents: [\n", ":1:"),
        ] {
            std::fs::write(sandbox.config_path(), text)?;
            let mut daemon = Daemon::spawn(sandbox, &[])?;
            let status = daemon.wait_end(DEADLINE)?;
            let log = daemon.log_text();
            assert!(!status.success() && log.contains(named) && log.contains("conductor.yaml"), "{text:?}: {log}");
        }
        let (daemon, client) = start_with(sandbox, &Config::new(sandbox).set("defaults.max_concurrent_runs", "3"))?;
        std::fs::write(sandbox.config_path(), "nonsense: 1\n")?;
        daemon.signal(libc::SIGHUP);
        conductor_tests::wait_until("the problem is shown", DEADLINE, || {
            client.daemon_info().is_ok_and(|info| info.config_problem.contains("nonsense"))
        })?;
        assert_eq!(client.daemon_info()?.max_concurrent_runs, 3, "the last good one is in force");
        std::fs::write(sandbox.config_path(), Config::new(sandbox).set("defaults.max_concurrent_runs", "5").yaml())?;
        daemon.signal(libc::SIGHUP);
        conductor_tests::wait_until("the good one is in force", DEADLINE, || {
            client.daemon_info().is_ok_and(|info| info.config_problem.is_empty() && info.max_concurrent_runs == 5)
        })?;
        Ok(())
    });
}

#[test]
fn garbage_floods_and_vanishing_clients_harm_nobody() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        for _ in 0..50 {
            let mut stream = UnixStream::connect(sandbox.socket())?;
            // The peer may close at the first byte that is no HTTP/2.
            let _ = stream.write_all(&[0xff; 4096]);
        }
        let silent: Vec<UnixStream> =
            (0..100).map(|_| UnixStream::connect(sandbox.socket())).collect::<Result<_, _>>()?;
        let task = finish(&client, once("undisturbed", &["print fine"]))?;
        assert_eq!(reason(&task), EndReason::Done);
        drop(silent);
        client.daemon_info()?;
        Ok(())
    });
}

#[test]
fn damaged_records_cost_themselves_and_are_counted() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let good = finish(&client, script("good-one", &["done"]))?;
        let bad = finish(&client, script("bad-one", &["done"]))?;
        daemon.terminate()?;
        let run = tree::runs(&crate::common::folder(sandbox, &bad)).remove(0).join("run-info.yaml");
        std::fs::write(&run, b"\xff\xfe not yaml: [")?;
        let (_daemon, client) = again(sandbox)?;
        assert_eq!(reason(&client.task(&good.task_id)?), EndReason::Done);
        assert!(client.task(&bad.task_id).is_ok(), "the task itself is readable");
        // The loss is told, and the end of the run comes from the shim's records.
        let problems = client.daemon_info()?.problems;
        let named = format!("{PROJECT}/{}/", bad.task_id);
        assert!(
            matches!(&problems[..], [one] if one.starts_with(&named) && one.contains("run-info.yaml is damaged")),
            "{problems:?}"
        );
        conductor_tests::wait_until("the run has its outcome again", DEADLINE, || {
            let runs = client.task_runs(&bad).unwrap_or_default();
            matches!(&runs[..], [one] if one.outcome() == RunOutcome::Completed && one.exit_code == Some(0))
        })?;
        assert!(std::fs::read_to_string(&run)?.starts_with("version: 1\n"), "the record is whole again");
        Ok(())
    });
}

#[test]
fn a_configuration_that_is_made_after_the_start_is_found_by_a_reload_and_followed_from_then_on() {
    in_sandbox(|sandbox| {
        // No file, and no variable that names one.
        let mut daemon = Daemon::spawn(sandbox, &[("CONDUCTOR_CONFIG", "")])?;
        daemon.ready()?;
        let client = daemon.client()?;
        ensure!(client.daemon_info()?.config_path.is_empty());
        let folder = sandbox.path().join("config/conductor");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join("conductor.yaml");
        std::fs::write(&path, "defaults: {max_restarts: 7}\n")?;
        client.wait(client.daemon().reload_config(ReloadConfigRequest {}))?;
        ensure!(client.daemon_info()?.config_path == path.display().to_string());
        let shows = |text: &str| -> Result<bool> {
            Ok(client.wait(client.daemon().get_config(GetConfigRequest {}))?.yaml.contains(text))
        };
        ensure!(shows("max_restarts: 7")?);
        std::fs::write(&path, "defaults: {max_restarts: 8}\n")?;
        wait_until("the change is noticed", std::time::Duration::from_secs(20), || {
            shows("max_restarts: 8").unwrap_or(false)
        })
    });
}
