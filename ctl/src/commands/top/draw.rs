//! One drawing of `top`.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Wrap};

use super::state::{State, View};
use crate::output::table::{cut, middle};
use crate::output::views::attempts;
use crate::output::{Resource as _, Tone, plain, time, words};
use conductor_proto::v1::{Task, TaskPhase};

/// Columns from which the project has room.
const WITH_PROJECT: u16 = 110;

/// Columns from which attempt and agent have room beside the last line.
const WITH_AGENT: u16 = 100;

pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State) {
    let areas = Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]);
    let [head, body, foot] = areas.areas(frame.area());
    frame.render_widget(head_line(state), head);
    match state.view {
        View::Table => table(frame, state, body),
        View::Details => details(frame, state, body),
        View::Log => log(frame, state, body),
    }
    frame.render_widget(foot_line(state), foot);
}

fn style(state: &State, tone: Tone) -> Style {
    let color = match tone {
        Tone::Plain => return Style::new(),
        Tone::Strong => return Style::new().add_modifier(Modifier::BOLD),
        Tone::Quiet => return Style::new().add_modifier(Modifier::DIM),
        Tone::Running => Color::Blue,
        Tone::Good => Color::Green,
        Tone::Waiting => Color::Yellow,
        Tone::Failed => Color::Red,
    };
    if state.colors { Style::new().fg(color) } else { Style::new() }
}

fn head_line(state: &State) -> Line<'static> {
    let tasks = state.tasks();
    let live = tasks.iter().filter(|task| task.phase() != TaskPhase::Finished).count();
    let runs = state.live_runs().count();
    let mut spans = vec![
        Span::styled("conductor", style(state, Tone::Strong)),
        Span::raw(format!("  {}, {}", count(live, "live task"), count(runs, "run"))),
    ];
    if let Some(away) = state.away {
        spans.push(Span::styled(
            format!("  the daemon is gone for {}", time::duration(away)),
            style(state, Tone::Failed),
        ));
    }
    Line::from(spans)
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn foot_line(state: &State) -> Line<'static> {
    if state.confirm_stop {
        let name = state.selected().map(|task| task.task_id.clone()).unwrap_or_default();
        return Line::styled(format!("Stop {name} and its children? y/N"), style(state, Tone::Waiting));
    }
    if let Some(message) = &state.message {
        return Line::styled(plain(message), style(state, Tone::Waiting));
    }
    let keys = match state.view {
        View::Table => "↑↓ select   enter details   l logs   s stop   q quit",
        View::Details => "↑↓ other task   PgUp PgDn scroll   l logs   s stop   q back",
        View::Log if state.scroll > 0 => "↑↓ scroll   G follow   s stop   q back",
        View::Log => "following   ↑↓ scroll   s stop   q back",
    };
    Line::styled(keys, style(state, Tone::Quiet))
}

fn table(frame: &mut Frame<'_>, state: &mut State, area: Rect) {
    if state.tasks().is_empty() {
        let text = "nothing runs\n\nstart a task: conductorctl start \"what to do\"";
        frame.render_widget(Paragraph::new(text).style(style(state, Tone::Quiet)).centered(), area);
        return;
    }
    let (project, agent) = (area.width >= WITH_PROJECT, area.width >= WITH_AGENT);
    let id_width = if area.width >= 120 { 44 } else { 28 };
    let mut widths = vec![Constraint::Length(id_width), Constraint::Length(16)];
    let mut heads = vec!["TASK", "STATE"];
    if agent {
        widths.extend([Constraint::Length(7), Constraint::Length(8)]);
        heads.extend(["ATTEMPT", "AGENT"]);
    }
    widths.extend([Constraint::Length(8), Constraint::Fill(1)]);
    heads.extend(["TIME", "LAST LINE"]);
    if project {
        widths.insert(0, Constraint::Length(14));
        heads.insert(0, "PROJECT");
    }
    let rows: Vec<Row<'_>> =
        state.tasks().into_iter().map(|task| row(state, task, (project, agent), id_width)).collect();
    let table = Table::new(rows, widths)
        .header(Row::new(heads).style(style(state, Tone::Quiet)))
        .column_spacing(1)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(table, area, &mut state.rows);
}

fn row<'a>(state: &State, task: &Task, (project, agent): (bool, bool), id_width: u16) -> Row<'a> {
    let run = state.run_of(task);
    let end = task.end.as_ref().and_then(|end| end.time.as_ref());
    let start = run.and_then(|run| run.start_time.as_ref()).or(task.create_time.as_ref());
    let line = run.and_then(|run| state.last_line(run)).filter(|line| !line.is_empty());
    let line = match line {
        Some(line) => Span::raw(line.to_owned()),
        None => Span::styled(plain(&task.why), style(state, Tone::Quiet)),
    };
    let mut cells = vec![
        Cell::from(middle(&task.task_id, usize::from(id_width))),
        Cell::from(Span::styled(words::task_state(task), style(state, words::task_tone(task)))),
        Cell::from(time::elapsed_text(start, end)),
        Cell::from(line),
    ];
    if agent {
        let name = task.spec.as_ref().map_or("", |spec| spec.agent.as_str());
        cells.splice(2..2, [Cell::from(attempts(task)), Cell::from(cut(name, 8))]);
    }
    if project {
        cells.insert(0, Cell::from(Span::styled(cut(&task.project_id, 14), style(state, Tone::Quiet))));
    }
    Row::new(cells)
}

fn details(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let Some(task) = state.selected() else { return };
    let mut lines: Vec<Line<'_>> = Vec::new();
    let mut all = task.details();
    if let Some(run) = state.run_of(task) {
        all.extend(run.details());
    }
    for detail in all {
        let (label, value, tone) = detail.parts();
        if lines.len() > 1 && label == "run" {
            lines.push(Line::default());
        }
        lines.push(Line::from(vec![
            Span::styled(format!("{label:<16}"), style(state, Tone::Quiet)),
            Span::styled(plain(value), style(state, tone)),
        ]));
    }
    let top = u16::try_from(state.scroll.min(lines.len().saturating_sub(1))).unwrap_or(0);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((top, 0)), area);
}

fn log(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    frame.render_widget(Line::styled(format!("── {} ──", state.log_run), style(state, Tone::Strong)), head);
    let height = usize::from(body.height);
    let rest = state.unfinished();
    let shown = if rest.is_empty() || state.scroll > 0 { height } else { height.saturating_sub(1) };
    let end = state.log.len().saturating_sub(state.scroll).max(shown.min(state.log.len()));
    let begin = end.saturating_sub(shown);
    let mut lines: Vec<Line<'_>> = state.log.range(begin..end).map(|line| Line::raw(line.as_str())).collect();
    if lines.len() < height && !rest.is_empty() {
        lines.push(Line::raw(rest));
    }
    frame.render_widget(Paragraph::new(lines), body);
}
