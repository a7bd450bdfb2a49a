//! `RunService`, but for the reading of logs, which is in `log`.

use std::sync::Arc;

use conductor_core::store::catalog::RunFilter;
use conductor_core::supervisor::StopRequest;
use conductor_core::types::{ProjectId, RunId, RunInfo, TaskId, TaskKey};
use conductor_proto::v1;
use conductor_proto::v1::run_service_server::RunService;
use tonic::{Request, Response, Status};

use super::context::{Answers, Call, Context};
use super::{error, events, from_proto, log, to_proto};
use crate::auth::Action;

/// The handler.
pub(super) struct Runs(pub(super) Arc<Context>);

impl Runs {
    fn begin<T>(&self, verb: &'static str, request: Request<T>) -> Result<(Call, T), Status> {
        Ok((self.0.call(verb, &request)?, request.into_inner()))
    }

    /// The run with this id or beginning, in a task if one is named.
    fn find(&self, call: &Call, request: &v1::GetRunRequest) -> Result<Arc<RunInfo>, Status> {
        if request.run_id.is_empty() {
            return Err(error::field("run_id", "a run is needed"));
        }
        let catalog = self.0.supervisor.catalog();
        if request.task_id.is_empty() {
            let project: Option<ProjectId> = from_proto::optional_id("project_id", &request.project_id)?;
            let project = call.project(project)?;
            return catalog.find_run(&request.run_id, project.as_ref()).map_err(|error| error::find("run", &error));
        }
        let task = call.task(&request.project_id, &request.task_id)?;
        if let Some(run) = request.run_id.parse::<RunId>().ok().and_then(|run| catalog.run(&task.run(run))) {
            return Ok(run);
        }
        let mut found = catalog.runs_of(&task);
        found.retain(|run| run.run_id.as_str().starts_with(&request.run_id));
        match found.as_slice() {
            [run] => Ok(Arc::clone(run)),
            [] => Err(error::not_found("run", format!("no run {:?} of task {task}", request.run_id), &[])),
            several => {
                let candidates = several.iter().take(10).map(|run| run.run_id.to_string()).collect();
                Err(error::command(&conductor_core::supervisor::CommandError::Ambiguous {
                    what: "run",
                    name: request.run_id.clone(),
                    candidates,
                }))
            }
        }
    }
}

#[tonic::async_trait]
impl RunService for Runs {
    type StreamRunLogStream = Answers<v1::StreamRunLogResponse>;
    type StreamRunEventsStream = Answers<v1::StreamRunEventsResponse>;
    type ReadRunFileStream = Answers<v1::ReadRunFileResponse>;

    async fn get_run(&self, request: Request<v1::GetRunRequest>) -> Result<Response<v1::GetRunResponse>, Status> {
        let (call, request) = self.begin("GetRun", request)?;
        let revision = self.0.supervisor.catalog().revision();
        let run = self.find(&call, &request)?;
        Ok(Response::new(v1::GetRunResponse { run: Some(self.0.run(&run, revision)) }))
    }

    async fn list_runs(&self, request: Request<v1::ListRunsRequest>) -> Result<Response<v1::ListRunsResponse>, Status> {
        let (call, request) = self.begin("ListRuns", request)?;
        let project = call.project(from_proto::optional_id("project_id", &request.project_id)?)?;
        let task: Option<TaskId> = from_proto::optional_id("task_id", &request.task_id)?;
        let task = match (&project, task) {
            (Some(project), Some(task)) => Some(TaskKey::new(project.clone(), task)),
            (None, Some(_)) => return Err(error::field("project_id", "a project is needed with a task")),
            (_, None) => None,
        };
        let filter = RunFilter {
            project,
            task,
            parent: None,
            statuses: request.statuses.into_iter().map(from_proto::run_status).collect::<Result<_, _>>()?,
            agent: from_proto::optional(request.agent),
        };
        let page = from_proto::page(request.page_size, request.page_token, request.order)?;
        let page = self.0.supervisor.catalog().list_runs(&filter, &page).map_err(|error| error::list(&error))?;
        let runs = page.items.iter().map(|run| self.0.run(run, page.revision)).collect();
        Ok(Response::new(v1::ListRunsResponse { runs, next_page_token: page.next.unwrap_or_default() }))
    }

    async fn stop_run(&self, request: Request<v1::StopRunRequest>) -> Result<Response<v1::StopRunResponse>, Status> {
        let (call, request) = self.begin("StopRun", request)?;
        let key = from_proto::needed_run_key(request.run.as_ref())?;
        let stop = StopRequest {
            reason: request.reason,
            int_grace: from_proto::duration("int_grace", request.int_grace)?,
            term_grace: from_proto::duration("term_grace", request.term_grace)?,
            keep_children: true,
            request_id: from_proto::request_id(&request.request_id)?,
        };
        let request_id = stop.request_id.clone();
        let work = async {
            self.0.supervisor.stop_run(call.caller(), &key, stop).await.map_err(|error| error::command(&error))
        };
        let run = call.change(Action::Control(&key.task), &key, request_id.as_ref(), work).await?;
        let revision = self.0.supervisor.catalog().revision();
        Ok(Response::new(v1::StopRunResponse { run: Some(self.0.run(&run, revision)) }))
    }

    async fn stream_run_log(
        &self,
        request: Request<v1::StreamRunLogRequest>,
    ) -> Result<Response<Self::StreamRunLogStream>, Status> {
        let (call, request) = self.begin("StreamRunLog", request)?;
        log::stream(call, &request).await.map(Response::new)
    }

    async fn stream_run_events(
        &self,
        request: Request<v1::StreamRunEventsRequest>,
    ) -> Result<Response<Self::StreamRunEventsStream>, Status> {
        let (call, request) = self.begin("StreamRunEvents", request)?;
        events::stream(call, &request).await.map(Response::new)
    }

    async fn read_run_file(
        &self,
        request: Request<v1::ReadRunFileRequest>,
    ) -> Result<Response<Self::ReadRunFileStream>, Status> {
        let (call, request) = self.begin("ReadRunFile", request)?;
        log::read_file(call, &request).await.map(Response::new)
    }

    async fn list_run_processes(
        &self,
        request: Request<v1::ListRunProcessesRequest>,
    ) -> Result<Response<v1::ListRunProcessesResponse>, Status> {
        let (call, request) = self.begin("ListRunProcesses", request)?;
        let key = from_proto::needed_run_key(request.run.as_ref())?;
        call.allow(Action::Read(&key.task.project))?;
        let processes = self.0.supervisor.processes(&key).await.map_err(|error| error::command(&error))?;
        let processes = processes.iter().map(to_proto::process).collect();
        Ok(Response::new(v1::ListRunProcessesResponse { processes }))
    }
}
