//! `AgentService`.

use std::sync::Arc;

use conductor_proto::v1;
use conductor_proto::v1::agent_service_server::AgentService;
use tonic::{Request, Response, Status};

use super::context::Context;
use super::to_proto;

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
}
