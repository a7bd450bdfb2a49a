//! Projects.

use conductor_proto::v1::Project;
use serde::Serialize;

use super::super::details::{Line, line, or_dash, toned};
use super::super::table::{Cell, Kind, Table};
use super::super::{Resource, Tone, time};
use super::timestamp;

/// A project for programs.
#[derive(Serialize)]
pub(crate) struct ProjectView {
    project_id: String,
    root_path: String,
    create_time: Option<String>,
    task_count: u32,
    live_task_count: u32,
    revision: u64,
}

impl Resource for Project {
    type View = ProjectView;
    const EMPTY: &'static str = "no projects; the first task makes one: conductorctl start \"what to do\"";

    fn view(&self) -> ProjectView {
        ProjectView {
            project_id: self.project_id.clone(),
            root_path: self.root_path.clone(),
            create_time: timestamp(self.create_time.as_ref()),
            task_count: self.task_count,
            live_task_count: self.live_task_count,
            revision: self.revision,
        }
    }

    fn name(&self) -> String {
        self.project_id.clone()
    }

    fn table(projects: &[Self], wide: bool) -> Table {
        let mut columns = vec![("PROJECT", Kind::Word), ("LIVE", Kind::Number), ("TASKS", Kind::Number)];
        if wide {
            columns.push(("CREATED", Kind::Word));
        }
        columns.push(("FOLDER", Kind::Text));
        let mut table = Table::new(&columns);
        for project in projects {
            let tone = if project.live_task_count > 0 { Tone::Running } else { Tone::Plain };
            let mut row = vec![
                project.project_id.as_str().into(),
                Cell::toned(project.live_task_count.to_string(), tone),
                project.task_count.to_string().into(),
            ];
            if wide {
                row.push(project.create_time.as_ref().map_or("–".into(), time::clock).into());
            }
            row.push(project.root_path.as_str().into());
            table.row(row);
        }
        table
    }

    fn details(&self) -> Vec<Line> {
        vec![
            toned("project", &self.project_id, Tone::Strong),
            or_dash("folder", &self.root_path),
            line("tasks", format!("{}, {} live", self.task_count, self.live_task_count)),
            or_dash("created", self.create_time.as_ref().map_or(String::new(), time::clock)),
        ]
    }
}
