//! `daemon …`

use std::time::{Duration, Instant};

use conductor_proto::v1::{GetDaemonInfoRequest, GetDaemonInfoResponse, ReloadConfigRequest, StopDaemonRequest};

use super::{Context, start};
use crate::cli::{DaemonCommand, DaemonStop, Format};
use crate::connect::Daemon;
use crate::errors::Failure;

/// How long `daemon stop` waits for the socket to fall silent: the graces of a stop and the daemon's drain.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Pause between two looks at the socket.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn run(context: &Context, command: DaemonCommand) -> Result<(), Failure> {
    match command {
        DaemonCommand::Info => {
            let daemon = context.daemon().await?;
            context.screen.show(&info(&daemon).await?)
        }
        DaemonCommand::Start => start_it(context).await,
        DaemonCommand::Reload => reload(context).await,
        DaemonCommand::Stop(args) => stop(context, &args).await,
    }
}

/// What the daemon says of itself.
pub(super) async fn info(daemon: &Daemon) -> Result<GetDaemonInfoResponse, Failure> {
    let call = async |request| daemon.daemon().get_daemon_info(request).await;
    daemon.call("ask the daemon", GetDaemonInfoRequest {}, call).await
}

async fn start_it(context: &Context) -> Result<(), Failure> {
    if context.inside.is_some() {
        return Err(Failure::Usage("a run does not start a daemon: its own would not know it".into()));
    }
    let daemon = match context.daemon().await {
        Ok(daemon) => {
            context.screen.note(&format!("it runs already, at {}", daemon.socket.display()));
            daemon
        }
        Err(Failure::Unreachable(_)) => start::start_daemon(context).await?,
        Err(failure) => return Err(failure),
    };
    let info = info(&daemon).await?;
    match context.screen.format {
        Format::Table => {
            context.screen.line(&format!("conductord {} (pid {}) at {}", info.version, info.pid, info.socket))
        }
        _ => context.screen.show(&info),
    }
}

async fn reload(context: &Context) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let call = async |request| daemon.daemon().reload_config(request).await;
    let answer = daemon.call("reload the configuration", ReloadConfigRequest {}, call).await?;
    context.screen.note("the configuration was read again");
    if !answer.restart_needed.is_empty() {
        context.screen.note("these keys take effect when the daemon starts again:");
        answer.restart_needed.iter().try_for_each(|key| context.screen.line(key))?;
    }
    Ok(())
}

async fn stop(context: &Context, args: &DaemonStop) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let request = StopDaemonRequest { stop_runs: args.runs };
    let call = async |request| daemon.daemon().stop_daemon(request).await;
    let answer = match daemon.call("stop the daemon", request, call).await {
        Ok(answer) => Some(answer),
        // It ended before its answer was on the way.
        Err(Failure::Gone { .. }) => None,
        Err(failure) => return Err(failure),
    };
    let limit = context.globals.timeout.unwrap_or(STOP_LIMIT);
    let began = Instant::now();
    while tokio::net::UnixStream::connect(&daemon.socket).await.is_ok() {
        if began.elapsed() > limit {
            return Err(Failure::TimedOut { action: "the daemon still answers".into(), after: limit });
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    match answer.map(|answer| answer.runs_left) {
        Some(0) => context.screen.note("the daemon has ended; no run is left"),
        Some(1) => context.screen.note("the daemon has ended; 1 run goes on and is adopted at the next start"),
        Some(left) => {
            context.screen.note(&format!("the daemon has ended; {left} runs go on and are adopted at the next start"))
        }
        None => context.screen.note("the daemon has ended"),
    }
    Ok(())
}
