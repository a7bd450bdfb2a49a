//! `AgentService`.

use std::sync::Arc;

use conductor_core::supervisor::CheckRequest;
use conductor_proto::v1;
use conductor_proto::v1::agent_service_server::AgentService;
use tonic::{Request, Response, Status};

use super::context::Context;
use super::{error, to_proto};
use crate::auth::Action;

/// The handler.
pub(super) struct Agents(pub(super) Arc<Context>);

#[tonic::async_trait]
impl AgentService for Agents {
    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        // Every caller may see them: an agent chooses one for a child.
        self.0.call("ListAgents", &request)?;
        let agents = self.0.supervisor.agents(request.into_inner().probe).await;
        Ok(Response::new(v1::ListAgentsResponse { agents: agents.into_iter().map(to_proto::agent).collect() }))
    }

    async fn check_agents(
        &self,
        request: Request<v1::CheckAgentsRequest>,
    ) -> Result<Response<v1::CheckAgentsResponse>, Status> {
        let call = self.0.call("CheckAgents", &request)?;
        // It tells of the machine, and of files outside of any project.
        call.allow(Action::Administer)?;
        let request = request.into_inner();
        let asked = CheckRequest {
            agents: request.agents,
            variables: request.shell_variables,
            path: Some(request.shell_path).filter(|path| !path.is_empty()),
        };
        let report = self.0.supervisor.check(asked).await.map_err(|error| error::command(&error))?;
        Ok(Response::new(to_proto::check(report)))
    }
}
