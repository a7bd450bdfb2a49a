//! The vendors' own programs against the fake of their services: by themselves, and under the real conductord.
//!
//! `make test-vendors` installs the pinned programs and names their folder in `CONDUCTOR_VENDORS_DIR`. No account, no key
//! and no network beyond the loopback is used.

mod bench;
mod confined;
mod direct;
mod done;
mod refused;
mod rest;
mod stopped;

use conductor_tests::vendors::programs::Program;

/// A test for each program, named by it.
macro_rules! of_every_program {
    ($($test:path as $name:ident),* $(,)?) => {
        of_every_program!(@ claude Claude [$($test as $name),*]);
        of_every_program!(@ codex Codex [$($test as $name),*]);
        of_every_program!(@ gemini Gemini [$($test as $name),*]);
        of_every_program!(@ grok Grok [$($test as $name),*]);
    };
    (@ $module:ident $program:ident [$($test:path as $name:ident),*]) => {
        mod $module {
            $(
                #[test]
                fn $name() {
                    $test(super::Program::$program);
                }
            )*
        }
    };
}

of_every_program! {
    crate::done::with_a_long_prompt as a_task_with_a_prompt_of_200_kb_gets_done_and_its_run_records_everything,
    crate::refused::by_a_limit as a_limit_is_waited_for_and_the_same_session_goes_on,
    crate::refused::by_a_short_outage as an_outage_that_is_short_is_bridged_by_the_program,
    crate::refused::by_a_long_outage as an_outage_that_lasts_is_bridged_by_the_loop_in_the_same_attempt,
    crate::refused::by_a_refused_key as a_refused_key_needs_a_person_at_once,
    crate::stopped::in_the_middle_of_a_tool as a_stop_in_the_middle_of_a_tool_leaves_nothing_and_a_resume_goes_on,
    crate::confined::confined as a_confined_agent_works_in_its_folders_and_nowhere_else,
    crate::confined::full as an_agent_with_full_permissions_may_write_elsewhere,
}
