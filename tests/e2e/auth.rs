//! Who may do what: people on the socket, agents with their run's token, agents without one.

use conductor_proto::v1::{EndReason, GetDaemonInfoRequest};
use conductor_tests::client::{PROJECT, project_bus, task_bus};
use conductor_tests::{Client, Refusal, in_sandbox};
use tonic::Code;

use crate::common::{finish, folder, reason, script, start, touch, wait_file};

#[test]
fn a_token_acts_on_its_own_project_only() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        client.create_project("other", &sandbox.path().join("tmp"))?;
        let mut elsewhere = script("elsewhere", &["wait-file go", "done"]);
        elsewhere.project = "other".to_owned();
        let elsewhere = client.submit(elsewhere)?;
        let steps = ["sh printenv CONDUCTOR_TOKEN > $CONDUCTOR_TASK_FOLDER/token", "touch up", "wait-file go", "done"];
        let task = client.submit(script("with-token", &steps))?;
        wait_file(sandbox, &task, "up")?;
        let token = std::fs::read_to_string(folder(sandbox, &task).join("token"))?.trim().to_owned();
        assert!(token.len() >= 32, "a token of 128 bits or more");

        let agent = Client::lazy(&sandbox.socket(), Some(&token))?;
        agent.post(&task_bus(&task), "FACT", "mine")?;
        let refused = agent.post(&project_bus("other"), "FACT", "not mine").expect_err("another project");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
        let refused = agent.stop(&elsewhere.task_id, 0).expect_err("another project");
        assert!(matches!(refused.code(), Code::PermissionDenied | Code::NotFound), "{refused:?}");
        let stop = conductor_proto::v1::StopDaemonRequest { stop_runs: true };
        let refused = agent.wait(agent.daemon().stop_daemon(stop)).expect_err("not for agents");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");

        for task in [&task, &elsewhere] {
            touch(sandbox, task, "go")?;
        }
        let task = client.wait_task(&task.task_id)?;
        assert_eq!(reason(&task), EndReason::Done);
        let refused = agent.post(&task_bus(&task), "FACT", "too late").expect_err("the run has ended");
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
        Ok(())
    });
}

#[test]
fn a_process_inside_a_run_without_its_token_is_refused() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        // The run's other variables stay, so that only the token is missing.
        let step = "sh env -u CONDUCTOR_TOKEN conductorctl bus post --type FACT forged > $CONDUCTOR_TASK_FOLDER/said 2>&1; echo $? > $CONDUCTOR_TASK_FOLDER/code";
        let task = finish(&client, script("tokenless", &[step, "done"]))?;
        let code = std::fs::read_to_string(folder(sandbox, &task).join("code"))?;
        let said = std::fs::read_to_string(folder(sandbox, &task).join("said"))?;
        assert_eq!(code.trim(), "4", "denied: {said}");
        assert!(client.messages(&task_bus(&task))?.iter().all(|message| message.body != "forged"));
        Ok(())
    });
}

#[test]
fn a_wrong_token_is_refused_and_says_so() {
    in_sandbox(|sandbox| {
        let (_daemon, _client) = start(sandbox)?;
        let stranger = Client::lazy(&sandbox.socket(), Some("0123456789abcdef0123456789abcdef"))?;
        let refused = stranger.wait(stranger.daemon().get_daemon_info(GetDaemonInfoRequest {})).expect_err("unknown");
        let refusal = Refusal::of(&refused);
        assert_eq!(refusal.code, Code::Unauthenticated, "{refused:?}");
        assert!(!refusal.reason.is_empty());
        Ok(())
    });
}

#[test]
fn tokens_are_in_no_file_log_or_argument() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let steps = ["sh printenv CONDUCTOR_TOKEN > $TMPDIR/token", "touch up", "wait-file go", "done"];
        let task = client.submit(script("secretive", &steps))?;
        wait_file(sandbox, &task, "up")?;
        let token = sandbox.read("tmp/token").trim().to_owned();
        assert!(!token.is_empty());
        let mut holders = Vec::new();
        for (path, kind) in conductor_tests::tree::list(sandbox.path()) {
            let full = sandbox.path().join(&path);
            if kind == 'f' && path != "tmp/token" {
                let bytes = std::fs::read(&full).unwrap_or_default();
                if String::from_utf8_lossy(&bytes).contains(&token) {
                    holders.push(path);
                }
            }
        }
        assert!(holders.is_empty(), "the token is in {holders:?}");
        assert!(sandbox.processes().iter().all(|process| !process.command.contains(&token)));
        touch(sandbox, &task, "go")?;
        client.wait_task(&task.task_id)?;
        let audit = sandbox.root().join(".conductor/audit.jsonl");
        let text = std::fs::read_to_string(audit)?;
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        assert!(text.contains(&task.task_id) && text.contains(PROJECT), "{text}");
        Ok(())
    });
}
