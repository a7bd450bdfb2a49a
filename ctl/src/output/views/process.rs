//! Live processes of a run.

use conductor_proto::v1::Process;
use serde::Serialize;

use super::super::details::{Line, line};
use super::super::table::{Kind, Table};
use super::super::{Resource, time};
use super::duration;

/// A process for programs.
#[derive(Serialize)]
pub(crate) struct ProcessView {
    pid: i32,
    parent_pid: i32,
    process_group: i32,
    session: i32,
    name: String,
    state: String,
    rss_bytes: u64,
    cpu_time: Option<String>,
}

impl Resource for Process {
    type View = ProcessView;
    const EMPTY: &'static str = "no live processes";

    fn view(&self) -> ProcessView {
        ProcessView {
            pid: self.pid,
            parent_pid: self.parent_pid,
            process_group: self.process_group,
            session: self.session,
            name: self.name.clone(),
            state: self.state.clone(),
            rss_bytes: self.rss_bytes,
            cpu_time: duration(self.cpu_time.as_ref()),
        }
    }

    fn name(&self) -> String {
        self.pid.to_string()
    }

    fn table(processes: &[Self], _wide: bool) -> Table {
        let number = |name| (name, Kind::Number);
        let mut table = Table::new(&[
            number("PID"),
            number("PARENT"),
            number("GROUP"),
            number("SESSION"),
            ("STATE", Kind::Word),
            number("CPU"),
            number("MEMORY"),
            ("NAME", Kind::Text),
        ]);
        for process in processes {
            table.row(vec![
                process.pid.to_string().into(),
                process.parent_pid.to_string().into(),
                process.process_group.to_string().into(),
                process.session.to_string().into(),
                process.state.as_str().into(),
                process.cpu_time.as_ref().map_or("–".into(), |cpu| time::duration(time::from_wire(cpu))).into(),
                time::bytes(process.rss_bytes).into(),
                process.name.as_str().into(),
            ]);
        }
        table
    }

    fn details(&self) -> Vec<Line> {
        vec![line("pid", self.pid.to_string()), line("name", &self.name)]
    }
}
