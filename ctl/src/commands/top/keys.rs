//! What the keys of `top` do.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::state::{State, View};

/// Rows of a page key.
const PAGE: isize = 10;

/// Lines of a task's and a run's details together are fewer.
const MAX_DETAILS: usize = 60;

/// What is left to do after a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    Stop,
    OpenLog,
    CloseLog,
}

pub(super) fn action(state: &mut State, key: KeyEvent) -> Action {
    if key.kind == KeyEventKind::Release {
        return Action::None;
    }
    if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
        return Action::Quit;
    }
    state.message = None;
    if state.confirm_stop {
        state.confirm_stop = false;
        return if matches!(key.code, KeyCode::Char('y' | 'Y')) { Action::Stop } else { Action::None };
    }
    match key.code {
        KeyCode::Char('q') if state.view == View::Table => Action::Quit,
        KeyCode::Char('q') | KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => back(state),
        KeyCode::Char('s') => {
            state.confirm_stop = state.selected().is_some_and(|task| task.end.is_none());
            if !state.confirm_stop {
                state.message = Some("it has ended".into());
            }
            Action::None
        }
        KeyCode::Char('l') if state.view != View::Log => Action::OpenLog,
        KeyCode::Enter if state.view == View::Table && state.selected().is_some() => {
            state.view = View::Details;
            state.scroll = 0;
            Action::None
        }
        code => {
            movement(state, code);
            Action::None
        }
    }
}

fn back(state: &mut State) -> Action {
    let log = state.view == View::Log;
    state.view = View::Table;
    if log { Action::CloseLog } else { Action::None }
}

fn movement(state: &mut State, code: KeyCode) {
    let by = match code {
        KeyCode::Up | KeyCode::Char('k') => -1,
        KeyCode::Down | KeyCode::Char('j') => 1,
        KeyCode::PageUp => -PAGE,
        KeyCode::PageDown | KeyCode::Char(' ') => PAGE,
        KeyCode::Home | KeyCode::Char('g') => isize::MIN / 2,
        KeyCode::End | KeyCode::Char('G') => isize::MAX / 2,
        _ => return,
    };
    if state.view == View::Details && by.abs() == PAGE {
        state.scroll = state.scroll.saturating_add_signed(by).min(MAX_DETAILS);
    } else if state.view == View::Log {
        state.scroll = state.scroll.saturating_add_signed(-by).min(state.log.len());
    } else {
        if state.view == View::Details {
            state.scroll = 0;
        }
        state.step(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follow::Change;
    use conductor_proto::v1::Task;

    fn press(state: &mut State, code: KeyCode) -> Action {
        action(state, KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn nothing_is_stopped_without_a_yes() {
        let mut state = State::new(false);
        state.change(Change::Task(Box::new(Task { task_id: "t".into(), ..Task::default() })));
        assert_eq!(press(&mut state, KeyCode::Char('s')), Action::None);
        assert!(state.confirm_stop);
        assert_eq!(press(&mut state, KeyCode::Enter), Action::None);
        assert_eq!(press(&mut state, KeyCode::Char('s')), Action::None);
        assert_eq!(press(&mut state, KeyCode::Char('y')), Action::Stop);
    }

    #[test]
    fn q_goes_back_before_it_quits() {
        let mut state = State::new(false);
        state.begin_log("r");
        assert_eq!(press(&mut state, KeyCode::Char('q')), Action::CloseLog);
        assert_eq!(press(&mut state, KeyCode::Char('q')), Action::Quit);
    }
}
