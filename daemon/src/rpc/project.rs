//! `ProjectService`.

use std::sync::Arc;

use conductor_core::store::catalog::Order;
use conductor_core::types::ProjectId;
use conductor_proto::v1;
use conductor_proto::v1::project_service_server::ProjectService;
use tonic::{Request, Response, Status};

use super::context::{Call, Context};
use super::{error, from_proto, to_proto};
use crate::auth::Action;

/// The handler.
pub(super) struct Projects(pub(super) Arc<Context>);

impl Projects {
    fn begin<T>(&self, verb: &'static str, request: Request<T>) -> Result<(Call, T), Status> {
        Ok((self.0.call(verb, &request)?, request.into_inner()))
    }

    fn show(&self, project: &conductor_core::store::ProjectRecord) -> v1::Project {
        to_proto::project(project, self.0.supervisor.catalog())
    }
}

#[tonic::async_trait]
impl ProjectService for Projects {
    async fn create_project(
        &self,
        request: Request<v1::CreateProjectRequest>,
    ) -> Result<Response<v1::CreateProjectResponse>, Status> {
        let (call, request) = self.begin("CreateProject", request)?;
        let id: ProjectId = from_proto::id("project_id", &request.project_id)?;
        let root = from_proto::path("root_path", &request.root_path)?;
        let request_id = from_proto::request_id(&request.request_id)?;
        let work = async {
            let made = self.0.supervisor.create_project(call.caller(), id.clone(), root, request_id.clone()).await;
            made.map_err(|error| error::command(&error))
        };
        let project = call.change(Action::ChangeProjects, &id, request_id.as_ref(), work).await?;
        Ok(Response::new(v1::CreateProjectResponse { project: Some(self.show(&project)) }))
    }

    async fn ensure_project(
        &self,
        request: Request<v1::EnsureProjectRequest>,
    ) -> Result<Response<v1::EnsureProjectResponse>, Status> {
        let (call, request) = self.begin("EnsureProject", request)?;
        let root = from_proto::path("root_path", &request.root_path)?;
        let root = root.ok_or_else(|| error::field("root_path", "a path is needed"))?;
        let work = async {
            let ensured = self.0.supervisor.ensure_project(call.caller(), root).await;
            ensured.map_err(|error| error::command(&error))
        };
        let (project, created) = call.change(Action::ChangeProjects, &request.root_path, None, work).await?;
        Ok(Response::new(v1::EnsureProjectResponse { project: Some(self.show(&project)), created }))
    }

    async fn get_project(
        &self,
        request: Request<v1::GetProjectRequest>,
    ) -> Result<Response<v1::GetProjectResponse>, Status> {
        let (call, request) = self.begin("GetProject", request)?;
        let id: ProjectId = from_proto::id("project_id", &request.project_id)?;
        call.allow(Action::Read(&id))?;
        let found = self.0.supervisor.catalog().find_project(id.as_str());
        let project = found.map_err(|error| error::find("project", &error))?;
        Ok(Response::new(v1::GetProjectResponse { project: Some(self.show(&project)) }))
    }

    async fn list_projects(
        &self,
        request: Request<v1::ListProjectsRequest>,
    ) -> Result<Response<v1::ListProjectsResponse>, Status> {
        let (call, request) = self.begin("ListProjects", request)?;
        let catalog = self.0.supervisor.catalog();
        if let Some(only) = call.identity.scope.project() {
            let projects = catalog.project(only).iter().map(|project| self.show(project)).collect();
            return Ok(Response::new(v1::ListProjectsResponse { projects, next_page_token: String::new() }));
        }
        let mut page = from_proto::page(request.page_size, request.page_token, 0)?;
        // By id from A to Z.
        page.order = Order::OldestFirst;
        let page = catalog.list_projects(&page).map_err(|error| error::list(&error))?;
        let projects = page.items.iter().map(|project| self.show(project)).collect();
        Ok(Response::new(v1::ListProjectsResponse { projects, next_page_token: page.next.unwrap_or_default() }))
    }

    async fn delete_project(
        &self,
        request: Request<v1::DeleteProjectRequest>,
    ) -> Result<Response<v1::DeleteProjectResponse>, Status> {
        let (call, request) = self.begin("DeleteProject", request)?;
        let id: ProjectId = from_proto::id("project_id", &request.project_id)?;
        let request_id = from_proto::request_id(&request.request_id)?;
        let work = async {
            let deleted = self.0.supervisor.delete_project(call.caller(), &id, request_id.clone()).await;
            deleted.map_err(|error| error::command(&error))
        };
        call.change(Action::ChangeProjects, &id, request_id.as_ref(), work).await?;
        Ok(Response::new(v1::DeleteProjectResponse {}))
    }
}
