//! `TaskService`.

use std::sync::Arc;

use conductor_core::store::catalog::TaskFilter;
use conductor_core::store::{TaskRecord, root::task_rel};
use conductor_core::supervisor::{MAX_PROMPT, ResumeRequest, StopRequest, Submit, UsageQuery};
use conductor_core::types::{IntentKind, ProjectId, TaskId, TaskKey};
use conductor_proto::v1;
use conductor_proto::v1::task_service_server::TaskService;
use tonic::{Request, Response, Status};

use super::context::{Call, Context};
use super::{error, from_proto, to_proto};
use crate::auth::Action;

/// The handler.
pub(super) struct Tasks(pub(super) Arc<Context>);

impl Tasks {
    fn begin<T>(&self, verb: &'static str, request: Request<T>) -> Result<(Call, T), Status> {
        Ok((self.0.call(verb, &request)?, request.into_inner()))
    }

    fn show(&self, task: &TaskRecord) -> Option<v1::Task> {
        Some(to_proto::task(task, &self.0.supervisor))
    }

    /// What stopping and cancelling have in common.
    async fn end_task(
        &self,
        call: &Call,
        key: &TaskKey,
        stop: StopRequest,
        kind: IntentKind,
    ) -> Result<Option<v1::Task>, Status> {
        let request_id = stop.request_id.clone();
        let work = async {
            self.0.supervisor.end_task(call.caller(), key, stop, kind).await.map_err(|error| error::command(&error))
        };
        let task = call.change(Action::Control(key), key, request_id.as_ref(), work).await?;
        Ok(self.show(&task))
    }
}

#[tonic::async_trait]
impl TaskService for Tasks {
    async fn submit_task(
        &self,
        request: Request<v1::SubmitTaskRequest>,
    ) -> Result<Response<v1::SubmitTaskResponse>, Status> {
        let (call, request) = self.begin("SubmitTask", request)?;
        let own = call.run().map(|run| run.task.project.clone());
        let project: Option<ProjectId> = from_proto::optional_id("project_id", &request.project_id)?.or(own);
        let project = project.ok_or_else(|| error::field("project_id", "a project is needed outside of a run"))?;
        let parent = from_proto::run_key("parent", request.parent.as_ref())?.or_else(|| call.run().cloned());
        let request_id = from_proto::request_id(&request.request_id)?;
        let submit = Submit {
            project: Some(project.clone()),
            task: from_proto::optional_id::<TaskId>("task_id", &request.task_id)?,
            slug: from_proto::optional(request.slug),
            prompt: request.prompt,
            spec: request.spec.map(from_proto::spec).transpose()?.unwrap_or_default(),
            parent: parent.clone(),
            request_id: request_id.clone(),
        };
        let resource = submit.task.as_ref().map_or(project.to_string(), |task| format!("{project}/{task}"));
        let work =
            async { self.0.supervisor.submit(call.caller(), submit).await.map_err(|error| error::command(&error)) };
        let action = Action::Submit(&project, parent.as_ref());
        let name = |task: &Arc<TaskRecord>| Some(task.key.to_string());
        let task = call.make(action, resource, request_id.as_ref(), work, name).await?;
        Ok(Response::new(v1::SubmitTaskResponse { task: self.show(&task) }))
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::GetTaskResponse>, Status> {
        let (call, request) = self.begin("GetTask", request)?;
        let key = call.task(&request.project_id, &request.task_id)?;
        let task = self.0.supervisor.catalog().task(&key);
        let task = task.ok_or_else(|| error::not_found("task", format!("no task {key}"), &[]))?;
        let mut shown = self.show(&task);
        if let Some(shown) = &mut shown {
            let query = |descendants| UsageQuery { task: Some(key.clone()), descendants, ..UsageQuery::default() };
            shown.usage = Some(to_proto::usage_row(self.0.supervisor.usage(query(false)).await.total));
            shown.tree_usage = Some(to_proto::usage_row(self.0.supervisor.usage(query(true)).await.total));
        }
        Ok(Response::new(v1::GetTaskResponse { task: shown }))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let (call, request) = self.begin("ListTasks", request)?;
        let project = call.project(from_proto::optional_id("project_id", &request.project_id)?)?;
        let parent = request.parent.as_ref().map(|parent| from_proto::task_key(&parent.project_id, &parent.task_id));
        let filter = TaskFilter {
            project,
            parent: parent.transpose()?,
            phases: request.phases.into_iter().map(from_proto::phase).collect::<Result<_, _>>()?,
            agent: from_proto::optional(request.agent),
            ..TaskFilter::default()
        };
        let page = from_proto::page(request.page_size, request.page_token, request.order)?;
        let page = self.0.supervisor.catalog().list_tasks(&filter, &page).map_err(|error| error::list(&error))?;
        let tasks = page.items.iter().filter_map(|task| self.show(task)).collect();
        Ok(Response::new(v1::ListTasksResponse { tasks, next_page_token: page.next.unwrap_or_default() }))
    }

    async fn get_task_prompt(
        &self,
        request: Request<v1::GetTaskPromptRequest>,
    ) -> Result<Response<v1::GetTaskPromptResponse>, Status> {
        let (call, request) = self.begin("GetTaskPrompt", request)?;
        let key = call.task(&request.project_id, &request.task_id)?;
        let context = Arc::clone(&self.0);
        let read = tokio::task::spawn_blocking(move || {
            context.supervisor.root().read_file_beneath(task_rel(&key).join("TASK.md"), MAX_PROMPT as u64)
        });
        let bytes = read.await.map_err(|_| error::shutting_down())?;
        let bytes = bytes.map_err(|error| error::store("file", &error))?;
        Ok(Response::new(v1::GetTaskPromptResponse { prompt: String::from_utf8_lossy(&bytes).into_owned() }))
    }

    async fn wait_task(&self, request: Request<v1::WaitTaskRequest>) -> Result<Response<v1::WaitTaskResponse>, Status> {
        let (call, request) = self.begin("WaitTask", request)?;
        let key = call.task(&request.project_id, &request.task_id)?;
        let open = self.0.streams.open("WaitTask", &call.caller().who);
        let _waiting = call.run().map(|run| self.0.supervisor.waiting(run));
        let task = tokio::select! {
            task = self.0.supervisor.wait_task(&key) => task.map_err(|error| error::command(&error))?,
            () = open.ending() => return Err(error::shutting_down()),
        };
        Ok(Response::new(v1::WaitTaskResponse { task: self.show(&task) }))
    }

    async fn wait_children(
        &self,
        request: Request<v1::WaitChildrenRequest>,
    ) -> Result<Response<v1::WaitChildrenResponse>, Status> {
        let (call, request) = self.begin("WaitChildren", request)?;
        let run = from_proto::run_key("run", request.run.as_ref())?.or_else(|| call.run().cloned());
        let run = run.ok_or_else(|| error::field("run", "a run is needed outside of one"))?;
        let timeout = from_proto::duration("timeout", request.timeout)?;
        call.allow(Action::WaitAs(&run))?;
        let open = self.0.streams.open("WaitChildren", &call.caller().who);
        let (children, timed_out) = tokio::select! {
            waited = self.0.supervisor.wait_children(&run, timeout) => waited.map_err(|error| error::command(&error))?,
            () = open.ending() => return Err(error::shutting_down()),
        };
        let children = children.iter().take(MAX_CHILDREN).filter_map(|task| self.show(task)).collect();
        Ok(Response::new(v1::WaitChildrenResponse { children, timed_out }))
    }

    async fn stop_task(&self, request: Request<v1::StopTaskRequest>) -> Result<Response<v1::StopTaskResponse>, Status> {
        let (call, request) = self.begin("StopTask", request)?;
        let key = call.task(&request.project_id, &request.task_id)?;
        let stop = StopRequest {
            reason: request.reason,
            int_grace: from_proto::duration("int_grace", request.int_grace)?,
            term_grace: from_proto::duration("term_grace", request.term_grace)?,
            keep_children: request.keep_children,
            request_id: from_proto::request_id(&request.request_id)?,
        };
        let task = self.end_task(&call, &key, stop, IntentKind::Stop).await?;
        Ok(Response::new(v1::StopTaskResponse { task }))
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        let (call, request) = self.begin("CancelTask", request)?;
        let key = call.task(&request.project_id, &request.task_id)?;
        let stop = StopRequest {
            reason: request.reason,
            keep_children: request.keep_children,
            request_id: from_proto::request_id(&request.request_id)?,
            ..StopRequest::default()
        };
        let task = self.end_task(&call, &key, stop, IntentKind::Cancel).await?;
        Ok(Response::new(v1::CancelTaskResponse { task }))
    }

    async fn resume_task(
        &self,
        request: Request<v1::ResumeTaskRequest>,
    ) -> Result<Response<v1::ResumeTaskResponse>, Status> {
        let (call, request) = self.begin("ResumeTask", request)?;
        let key = call.task(&request.project_id, &request.task_id)?;
        let resume = ResumeRequest {
            message: from_proto::optional(request.message),
            adopt: request.adopt_spec.map(from_proto::spec).transpose()?,
            request_id: from_proto::request_id(&request.request_id)?,
        };
        let request_id = resume.request_id.clone();
        let work = async {
            self.0.supervisor.resume_task(call.caller(), &key, resume).await.map_err(|error| error::command(&error))
        };
        let task = call.change(Action::Control(&key), &key, request_id.as_ref(), work).await?;
        Ok(Response::new(v1::ResumeTaskResponse { task: self.show(&task) }))
    }

    async fn delete_task(
        &self,
        request: Request<v1::DeleteTaskRequest>,
    ) -> Result<Response<v1::DeleteTaskResponse>, Status> {
        let (call, request) = self.begin("DeleteTask", request)?;
        // What is deleted is named in full.
        let key = from_proto::task_key(&request.project_id, &request.task_id)?;
        let request_id = from_proto::request_id(&request.request_id)?;
        let work = async {
            let deleted = self.0.supervisor.delete_task(call.caller(), &key, request_id.clone()).await;
            deleted.map_err(|error| error::command(&error))
        };
        call.change(Action::Control(&key), &key, request_id.as_ref(), work).await?;
        Ok(Response::new(v1::DeleteTaskResponse {}))
    }

    async fn say_to_task(
        &self,
        request: Request<v1::SayToTaskRequest>,
    ) -> Result<Response<v1::SayToTaskResponse>, Status> {
        let (call, request) = self.begin("SayToTask", request)?;
        let key = call.task(&request.project_id, &request.task_id)?;
        let request_id = from_proto::request_id(&request.request_id)?;
        let work = async {
            let said = self.0.supervisor.say(call.caller(), &key, request.text, request.now, request_id.clone()).await;
            said.map_err(|error| error::command(&error))
        };
        let (message, task) = call.change(Action::Control(&key), &key, request_id.as_ref(), work).await?;
        Ok(Response::new(v1::SayToTaskResponse { msg_id: message.into(), task: self.show(&task) }))
    }
}

/// Children in an answer of `WaitChildren`, as the proto says.
const MAX_CHILDREN: usize = 500;
