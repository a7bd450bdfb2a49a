//! `usage`

use conductor_proto::v1::{GetUsageRequest, GetUsageResponse, UsageGroup};

use super::Context;
use crate::cli::{Usage, UsageBy};
use crate::errors::Failure;
use crate::output::views::usage::UsageReport;
use crate::resolve;

pub(super) async fn run(context: &Context, args: &Usage) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let wire = |time: jiff::Timestamp| {
        prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }.normalized()
    };
    let mut request = GetUsageRequest {
        project_id: args.project.clone().unwrap_or_default(),
        descendants: args.tree,
        since: args.since.map(wire),
        until: args.until.map(wire),
        group: match args.by {
            UsageBy::Task => UsageGroup::Task,
            UsageBy::Agent => UsageGroup::Agent,
            UsageBy::Model => UsageGroup::Model,
            UsageBy::Project => UsageGroup::Project,
            UsageBy::Day => UsageGroup::Day,
            UsageBy::Account => UsageGroup::Account,
        }
        .into(),
        ..GetUsageRequest::default()
    };
    if let Some(name) = &args.task {
        let task = resolve::task(context, &daemon, name, args.project.as_deref()).await?;
        request.project_id = task.project_id;
        request.task_id = task.task_id;
    }
    let call = async |request| daemon.usage().get_usage(request).await;
    let GetUsageResponse { rows, total } = daemon.call("add up the usage", request, call).await?;
    let report = UsageReport { group: args.by, rows, total: total.unwrap_or_default() };
    if context.screen.format.is_human() {
        if report.total.runs == 0 {
            context.screen.aside("no runs have ended in that time");
            return Ok(());
        }
        return context.screen.table(report.to_table());
    }
    context.screen.show(&report)
}
