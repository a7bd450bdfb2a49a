//! `top`: live tasks on the whole screen. It only watches; `s` asks before it stops anything.
//!
//! ```text
//! keys ──┐
//! watch ─┼─> one loop: state changes, then one drawing
//! logs  ─┘
//! ```

mod draw;
mod keys;
mod state;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use conductor_proto::v1::{LogStream, StopTaskRequest, Task};
use crossterm::event::Event;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Context, request_id};
use crate::cli::Top;
use crate::connect::Daemon;
use crate::errors::Failure;
use crate::follow::{Change, LogReader, Watcher};
use crate::resolve::run_ref;
use keys::Action;
use state::{State, View};

/// Clocks on the screen go on at this pace.
const TICK: Duration = Duration::from_secs(1);

/// Lines of the last output are asked for at this pace.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Runs whose last line is asked for at most: a screen's worth.
const MAX_LAST_LINES: usize = 40;

/// Lines of a log that are shown before those to come.
const LOG_TAIL: u32 = 500;

/// Events between their sources and the loop.
const QUEUE: usize = 256;

enum Input {
    Key(Event),
    Change(Change),
    Log(Vec<u8>),
    LastLine(String, String),
    Said(String),
    Failed(Failure),
}

pub(super) async fn run(context: &Context, args: &Top) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::Usage("top needs a terminal; for scripts: conductorctl ps -o json".into()));
    }
    let daemon = context.daemon().await?;
    context.outage.silence();
    let (inputs, mut queue) = mpsc::channel(QUEUE);
    let watcher = Watcher::new(&daemon, args.project.as_deref().unwrap_or_default(), "", true);
    let pump = tokio::spawn(pump_watch(watcher, inputs.clone()));
    read_keys(inputs.clone());
    // Restores the screen also when something panics.
    let mut terminal = ratatui::try_init().map_err(|error| Failure::io("use the terminal", error))?;
    let colors = !context.globals.no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut app = App { context, daemon, inputs, state: State::new(colors), log: None };
    let result = app.run(&mut terminal, &mut queue).await;
    ratatui::restore();
    pump.abort();
    result
}

async fn pump_watch(mut watcher: Watcher, inputs: mpsc::Sender<Input>) {
    loop {
        let (input, last) = match watcher.next().await {
            Ok(change) => (Input::Change(change), false),
            Err(failure) => (Input::Failed(failure), true),
        };
        if inputs.send(input).await.is_err() || last {
            return;
        }
    }
}

/// A thread of its own: reading keys blocks. It ends with the program.
fn read_keys(inputs: mpsc::Sender<Input>) {
    std::thread::spawn(move || {
        while let Ok(event) = crossterm::event::read() {
            if inputs.blocking_send(Input::Key(event)).is_err() {
                return;
            }
        }
    });
}

struct App<'a> {
    context: &'a Context,
    daemon: Daemon,
    inputs: mpsc::Sender<Input>,
    state: State,
    log: Option<JoinHandle<()>>,
}

impl App<'_> {
    async fn run(
        &mut self,
        terminal: &mut ratatui::DefaultTerminal,
        queue: &mut mpsc::Receiver<Input>,
    ) -> Result<(), Failure> {
        let mut tick = tokio::time::interval(TICK);
        let mut last_lines = tokio::time::interval(LAST_LINES);
        loop {
            self.state.away = self.context.outage.away();
            terminal.draw(|frame| draw::draw(frame, &mut self.state)).map_err(|error| Failure::io("draw", error))?;
            tokio::select! {
                input = queue.recv() => {
                    let Some(input) = input else { return Ok(()) };
                    if self.take(input)? { return Ok(()) }
                    // What has piled up is drawn once.
                    while let Ok(input) = queue.try_recv() {
                        if self.take(input)? { return Ok(()) }
                    }
                }
                _ = tick.tick() => {}
                _ = last_lines.tick() => self.ask_last_lines(),
            }
        }
    }

    /// Takes an event; `true`: quit.
    fn take(&mut self, input: Input) -> Result<bool, Failure> {
        match input {
            Input::Key(Event::Key(key)) => {
                let action = keys::action(&mut self.state, key);
                return Ok(self.act(action));
            }
            Input::Key(_) => {}
            Input::Change(change) => self.state.change(change),
            Input::Log(bytes) => self.state.add_log(&bytes),
            Input::LastLine(run, line) => self.state.set_last_line(run, line),
            Input::Said(text) => self.state.message = Some(text),
            Input::Failed(failure) => return Err(failure),
        }
        Ok(false)
    }

    fn act(&mut self, action: Action) -> bool {
        match action {
            Action::None => {}
            Action::Quit => return true,
            Action::Stop => self.stop(),
            Action::OpenLog => self.open_log(),
            Action::CloseLog => self.close_log(),
        }
        false
    }

    fn close_log(&mut self) {
        if let Some(log) = self.log.take() {
            log.abort();
        }
    }

    fn open_log(&mut self) {
        self.close_log();
        let Some(run) = self.state.selected_run() else {
            self.state.message = Some("it has no run yet".into());
            return;
        };
        self.state.begin_log(&run.run_id);
        let mut reader = LogReader::new(&self.daemon, run_ref(&run), LogStream::Stdout, Some(LOG_TAIL), true);
        let inputs = self.inputs.clone();
        self.log = Some(tokio::spawn(async move {
            loop {
                let input = match reader.next().await {
                    Ok(Some(bytes)) => Input::Log(bytes),
                    Ok(None) => return,
                    Err(failure) => Input::Said(failure.to_string()),
                };
                let last = matches!(input, Input::Said(_));
                if inputs.send(input).await.is_err() || last {
                    return;
                }
            }
        }));
    }

    fn stop(&mut self) {
        let Some(task) = self.state.selected() else { return };
        let (daemon, inputs, request) = (self.daemon.clone(), self.inputs.clone(), stop_request(task));
        tokio::spawn(async move {
            let name = request.task_id.clone();
            let said = match Box::pin(daemon.tasks().stop_task(request)).await {
                Ok(_) => format!("{name} is being stopped"),
                Err(status) => Failure::status("stop the task", status).to_string(),
            };
            // The screen may be gone.
            let _ = inputs.send(Input::Said(said)).await;
        });
    }

    fn ask_last_lines(&self) {
        if !matches!(self.state.view, View::Table) || self.state.away.is_some() {
            return;
        }
        for run in self.state.live_runs().take(MAX_LAST_LINES) {
            let mut reader = LogReader::new(&self.daemon, run_ref(run), LogStream::Stdout, Some(1), false);
            let (inputs, id) = (self.inputs.clone(), run.run_id.clone());
            tokio::spawn(async move {
                let mut line = Vec::new();
                while let Ok(Some(bytes)) = reader.next().await {
                    line.extend(bytes);
                    // A screen's width is enough of a line of megabytes.
                    if line.len() > 4_096 {
                        break;
                    }
                }
                let text = String::from_utf8_lossy(&line).into_owned();
                let _ = inputs.send(Input::LastLine(id, text)).await;
            });
        }
    }
}

fn stop_request(task: &Task) -> StopTaskRequest {
    StopTaskRequest {
        project_id: task.project_id.clone(),
        task_id: task.task_id.clone(),
        reason: "stopped in conductorctl top".into(),
        request_id: request_id(None),
        ..StopTaskRequest::default()
    }
}
