//! Agents.

use conductor_proto::v1::Agent;
use serde::Serialize;

use super::super::details::{Line, line, or_dash, toned};
use super::super::table::{Cell, Kind, Table};
use super::super::{Resource, Tone};
use super::yes_no;

/// An agent for programs.
#[derive(Serialize)]
pub(crate) struct AgentView {
    name: String,
    r#type: String,
    program: String,
    installed: bool,
    version: String,
    login: String,
    is_default: bool,
    problem: String,
    model: String,
}

impl Resource for Agent {
    type View = AgentView;
    const EMPTY: &'static str = "no agents are configured";

    fn view(&self) -> AgentView {
        AgentView {
            name: self.name.clone(),
            r#type: self.r#type.clone(),
            program: self.program.clone(),
            installed: self.installed,
            version: self.version.clone(),
            login: self.login.clone(),
            is_default: self.is_default,
            problem: self.problem.clone(),
            model: self.model.clone(),
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn table(agents: &[Self], wide: bool) -> Table {
        let mut columns =
            vec![("AGENT", Kind::Word), ("TYPE", Kind::Extra), ("INSTALLED", Kind::Word), ("DEFAULT", Kind::Word)];
        columns.extend([("VERSION", Kind::Word), ("LOGIN", Kind::Text)]);
        if wide {
            columns.extend([("MODEL", Kind::Word), ("PROGRAM", Kind::Text)]);
        }
        columns.push(("PROBLEM", Kind::Text));
        let mut table = Table::new(&columns);
        for agent in agents {
            let tone = if agent.installed { Tone::Good } else { Tone::Quiet };
            let mut row = vec![
                agent.name.as_str().into(),
                agent.r#type.as_str().into(),
                Cell::toned(yes_no(agent.installed), tone),
                if agent.is_default { "default" } else { "" }.into(),
                agent.version.as_str().into(),
                agent.login.as_str().into(),
            ];
            if wide {
                row.push(agent.model.as_str().into());
                row.push(agent.program.as_str().into());
            }
            row.push(Cell::toned(&agent.problem, Tone::Failed));
            table.row(row);
        }
        table
    }

    fn details(&self) -> Vec<Line> {
        vec![
            toned("agent", &self.name, Tone::Strong),
            line("type", &self.r#type),
            line("installed", yes_no(self.installed)),
            or_dash("program", &self.program),
            or_dash("version", &self.version),
            or_dash("login", &self.login),
            or_dash("model", &self.model),
            line("default", yes_no(self.is_default)),
            or_dash("problem", &self.problem),
        ]
    }
}
