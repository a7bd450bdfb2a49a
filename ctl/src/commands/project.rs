//! `project …`

use conductor_proto::v1::{
    CreateProjectRequest, DeleteProjectRequest, GetProjectRequest, ListProjectsRequest, Project,
};

use super::{Context, PAGE, request_id, start};
use crate::cli::{Format, ProjectCommand, ProjectCreate, ProjectDelete};
use crate::connect::Daemon;
use crate::errors::Failure;

pub(super) async fn run(context: &Context, command: ProjectCommand) -> Result<(), Failure> {
    match command {
        ProjectCommand::List => {
            let daemon = context.daemon().await?;
            context.screen.list(&all(&daemon).await?)
        }
        ProjectCommand::Show(args) => {
            let daemon = context.daemon().await?;
            context.screen.show(&get(&daemon, &args.project).await?)
        }
        ProjectCommand::Create(args) => create(context, &args).await,
        ProjectCommand::Delete(args) => delete(context, &args).await,
    }
}

async fn all(daemon: &Daemon) -> Result<Vec<Project>, Failure> {
    let mut all = Vec::new();
    let mut request = ListProjectsRequest { page_size: PAGE, ..ListProjectsRequest::default() };
    loop {
        let call = async |request| daemon.projects().list_projects(request).await;
        let page = daemon.call("list the projects", request.clone(), call).await?;
        all.extend(page.projects);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

async fn get(daemon: &Daemon, id: &str) -> Result<Project, Failure> {
    let request = GetProjectRequest { project_id: id.to_owned() };
    let call = async |request| daemon.projects().get_project(request).await;
    let answer = daemon.call("find the project", request, call).await?.project;
    answer.ok_or_else(|| Failure::Vanished("the daemon sent no project".into()))
}

async fn create(context: &Context, args: &ProjectCreate) -> Result<(), Failure> {
    let root = args.root.as_deref().map(|root| start::folder(Some(root))).transpose()?;
    let request = CreateProjectRequest {
        project_id: args.project.clone(),
        root_path: root.as_deref().map(start::text_of).transpose()?.unwrap_or_default(),
        request_id: request_id(None),
    };
    let daemon = context.daemon().await?;
    let call = async |request| daemon.projects().create_project(request).await;
    let answer = daemon.call("create the project", request, call).await?.project;
    let project = answer.ok_or_else(|| Failure::Vanished("the daemon sent no project".into()))?;
    match context.screen.format {
        Format::Json | Format::Yaml => context.screen.show(&project),
        _ => context.screen.line(&project.project_id),
    }
}

async fn delete(context: &Context, args: &ProjectDelete) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let project = get(&daemon, &args.name.project).await?;
    if !args.yes {
        context
            .confirm(&format!("Delete the project {} with its {} tasks?", project.project_id, project.task_count))?;
    }
    let request = DeleteProjectRequest { project_id: project.project_id.clone(), request_id: request_id(None) };
    let call = async |request| daemon.projects().delete_project(request).await;
    let progress = context.screen.progress(&format!("deleting {} …", project.project_id));
    daemon.call("delete the project", request, call).await?;
    drop(progress);
    if context.screen.format == Format::Name {
        return context.screen.line(&project.project_id);
    }
    context.screen.aside(&format!("deleted {}", project.project_id));
    Ok(())
}
