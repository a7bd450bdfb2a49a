//! What agents are told to type is what conductorctl understands.

use conductor_tests::client::task_bus;
use conductor_tests::in_sandbox;

use crate::common::{finish, folder, script, start};

#[test]
fn every_command_of_a_prompt_parses_by_the_real_grammar() {
    let commands = conductor_core::agents::prompt::commands();
    assert!(commands.len() >= 10, "{commands:?}");
    for command in commands {
        assert_eq!(command[0], "conductorctl");
        if let Err(error) = conductorctl::cli::command().try_get_matches_from(&command) {
            panic!("{command:?}: {error}");
        }
    }
}

#[test]
fn every_command_of_a_prompt_works_as_it_is_typed_inside_a_run() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        // The lines as the agent's own prompt shows them, run by a shell; ids of examples are replaced by real ones.
        let script_text = r#"set -e
cd "$CONDUCTOR_TASK_FOLDER"
first=$(conductorctl bus post --type QUESTION "is it on?")
child=$(printf '@fake output fine\n@fake done\n' | conductorctl start --detach -f -)
conductorctl wait --children --timeout 30s
grep -o 'conductorctl [^#]*#' "$CONDUCTOR_RUN_FOLDER/prompt.md" | sed -e 's/ *#$//' \
  -e "s/MSG-20260101-000000-000000000-PID00001-0001/$first/" -e "s/task-20260101-000000-example/$child/" \
  -e 's/"what the child is to do"/"@fake done"/' > typed
while read -r line; do echo "\$ $line"; sh -c "$line" < /dev/null || { echo "failed: $line"; exit 1; }; done < typed
"#;
        std::fs::write(sandbox.work().join("type-all.sh"), script_text)?;
        let steps = [
            "sh sh type-all.sh > $CONDUCTOR_TASK_FOLDER/said 2>&1 || { cat $CONDUCTOR_TASK_FOLDER/said; exit 1; }",
            "done",
        ];
        let mut submit = script("typing", &steps);
        submit.spec.max_restarts = 1;
        let task = finish(&client, submit)?;
        let said = std::fs::read_to_string(folder(sandbox, &task).join("said"))?;
        assert_eq!(crate::common::reason(&task), conductor_proto::v1::EndReason::Done, "{said}");
        let typed = said.matches("$ conductorctl").count();
        assert!(typed >= 8, "{typed}:\n{said}");
        let answer = client.messages(&task_bus(&task))?.into_iter().find(|message| message.r#type == "ANSWER");
        assert!(answer.is_some_and(|message| message.parents.len() == 1));
        Ok(())
    });
}
