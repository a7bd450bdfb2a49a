//! `UsageService`.

use std::sync::Arc;

use conductor_core::supervisor::{UsageGroup, UsageQuery};
use conductor_core::types::{TaskKey, Timestamp};
use conductor_proto::v1;
use conductor_proto::v1::usage_service_server::UsageService;
use tonic::{Request, Response, Status};

use super::context::Context;
use super::error::field;
use super::{from_proto, to_proto};

/// The handler.
pub(super) struct Ledger(pub(super) Arc<Context>);

#[tonic::async_trait]
impl UsageService for Ledger {
    async fn get_usage(&self, request: Request<v1::GetUsageRequest>) -> Result<Response<v1::GetUsageResponse>, Status> {
        let call = self.0.call("GetUsage", &request)?;
        let request = request.into_inner();
        let group = group(request.group)?;
        let project = call.project(from_proto::optional_id("project_id", &request.project_id)?)?;
        let task = match (&project, from_proto::optional_id("task_id", &request.task_id)?) {
            (Some(project), Some(task)) => Some(TaskKey::new(project.clone(), task)),
            (None, Some(_)) => return Err(field("project_id", "a project is needed with a task")),
            (_, None) => None,
        };
        let query = UsageQuery {
            project,
            task,
            descendants: request.descendants,
            since: time("since", request.since)?,
            until: time("until", request.until)?,
            group,
        };
        let report = self.0.supervisor.usage(query).await;
        Ok(Response::new(v1::GetUsageResponse {
            rows: report.rows.into_iter().map(to_proto::usage_row).collect(),
            total: Some(to_proto::usage_row(report.total)),
        }))
    }
}

fn group(group: i32) -> Result<UsageGroup, Status> {
    let unknown = |_| field("group", "this value is not known to this version");
    Ok(match v1::UsageGroup::try_from(group).map_err(unknown)? {
        v1::UsageGroup::Unspecified => UsageGroup::All,
        v1::UsageGroup::Task => UsageGroup::Task,
        v1::UsageGroup::Agent => UsageGroup::Agent,
        v1::UsageGroup::Model => UsageGroup::Model,
        v1::UsageGroup::Project => UsageGroup::Project,
        v1::UsageGroup::Day => UsageGroup::Day,
        v1::UsageGroup::Account => UsageGroup::Account,
    })
}

fn time(name: &str, time: Option<prost_types::Timestamp>) -> Result<Option<Timestamp>, Status> {
    let bad = || field(name, "a time between the years -9999 and 9999 is needed");
    time.map(|time| Timestamp::new(time.seconds, time.nanos).map_err(|_| bad())).transpose()
}
