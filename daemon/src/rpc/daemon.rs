//! `DaemonService`.

use std::sync::Arc;

use conductor_core::store::catalog::{Order, PageRequest, TaskFilter};
use conductor_proto::v1::daemon_service_server::DaemonService;
use conductor_proto::{reason, v1};
use tonic::{Code, Request, Response, Status};

use super::context::Context;
use super::{error, to_proto};
use crate::auth::{Action, Scope};

/// Problems in an answer, as the proto says.
const MAX_PROBLEMS: usize = 100;

/// The handler.
pub(super) struct Daemon(pub(super) Arc<Context>);

impl Daemon {
    /// Files that can't be read.
    fn problems(&self) -> Vec<String> {
        let catalog = self.0.supervisor.catalog();
        let mut problems = self.0.supervisor.problems().to_vec();
        let page = PageRequest { order: Order::NewestFirst, ..PageRequest::default() };
        if let Ok(tasks) = catalog.list_tasks(&TaskFilter::default(), &page) {
            let broken =
                tasks.items.iter().filter_map(|task| Some(format!("{}: {}", task.key, task.problem.as_ref()?)));
            problems.extend(broken);
        }
        problems.sort();
        problems.dedup();
        problems.truncate(MAX_PROBLEMS);
        problems
    }
}

#[tonic::async_trait]
impl DaemonService for Daemon {
    async fn get_daemon_info(
        &self,
        request: Request<v1::GetDaemonInfoRequest>,
    ) -> Result<Response<v1::GetDaemonInfoResponse>, Status> {
        let call = self.0.call("GetDaemonInfo", &request)?;
        let supervisor = &self.0.supervisor;
        let counts = supervisor.counts();
        let recovery = supervisor.recovery();
        let (tier, tier_reason) = supervisor.tier();
        // Problems name other projects' files.
        let is_operator = call.identity.scope == Scope::Operator;
        let problems = if is_operator { self.problems() } else { Vec::new() };
        let config_problem = if is_operator { self.0.reloader.problem() } else { String::new() };
        Ok(Response::new(v1::GetDaemonInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: i32::try_from(std::process::id()).unwrap_or(0),
            start_time: Some(to_proto::time(self.0.started)),
            epoch: supervisor.epoch(),
            revision: supervisor.catalog().revision(),
            root: supervisor.root().path().display().to_string(),
            socket: self.0.socket.display().to_string(),
            config_path: self.0.reloader.path().map(|path| path.display().to_string()).unwrap_or_default(),
            tier: to_proto::tier(tier).to_owned(),
            tier_reason,
            live_runs: counts.live_runs,
            max_concurrent_runs: counts.max_concurrent_runs,
            queued_tasks: counts.queued_tasks,
            recovery: Some(v1::RecoverySummary {
                adopted: recovery.adopted,
                ended: recovery.ended,
                rescued: recovery.rescued,
                lost: recovery.lost,
                duration_ms: recovery.duration_ms,
            }),
            problems,
            config_problem,
        }))
    }

    async fn reload_config(
        &self,
        request: Request<v1::ReloadConfigRequest>,
    ) -> Result<Response<v1::ReloadConfigResponse>, Status> {
        let call = self.0.call("ReloadConfig", &request)?;
        let work = async {
            let reloaded = self.0.reloader.reload(&self.0.supervisor).await;
            reloaded.map_err(|problem| error::status(Code::FailedPrecondition, reason::CONFIG_INVALID, problem))
        };
        let keys = call.change(Action::Administer, "configuration", None, work).await?;
        let restart_needed = keys.into_iter().map(str::to_owned).collect();
        Ok(Response::new(v1::ReloadConfigResponse { restart_needed }))
    }

    async fn get_config(
        &self,
        request: Request<v1::GetConfigRequest>,
    ) -> Result<Response<v1::GetConfigResponse>, Status> {
        let call = self.0.call("GetConfig", &request)?;
        call.allow(Action::Administer)?;
        Ok(Response::new(v1::GetConfigResponse {
            yaml: self.0.supervisor.config().redacted_yaml(),
            path: self.0.reloader.path().map(|path| path.display().to_string()).unwrap_or_default(),
        }))
    }

    async fn stop_daemon(
        &self,
        request: Request<v1::StopDaemonRequest>,
    ) -> Result<Response<v1::StopDaemonResponse>, Status> {
        let call = self.0.call("StopDaemon", &request)?;
        let stop_runs = request.into_inner().stop_runs;
        let context = Arc::clone(&self.0);
        let resource = if stop_runs { "daemon, runs too" } else { "daemon" };
        let work = async move {
            // A task of its own: a caller that goes away does not stop the stop.
            let stop = tokio::spawn(async move {
                let left = context.shut_down(stop_runs).await;
                context.end.cancel();
                left
            });
            stop.await.map_err(|_| error::shutting_down())
        };
        let runs_left = call.change(Action::Administer, resource, None, work).await?;
        Ok(Response::new(v1::StopDaemonResponse { runs_left }))
    }
}
