//! Agents.

use conductor_proto::v1::{AccountTrouble, Agent, LimitKind};
use serde::Serialize;

use super::super::details::{Line, line, or_dash, toned};
use super::super::table::{Cell, Kind, Table};
use super::super::{Resource, Tone, time, words};
use super::{timestamp, yes_no};

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
    account: String,
    trouble: Option<TroubleView>,
}

#[derive(Serialize)]
struct TroubleView {
    kind: Option<String>,
    since: Option<String>,
    until: Option<String>,
    until_known: bool,
    source: Option<String>,
    agent: String,
    run: String,
    message: String,
}

fn trouble(trouble: &AccountTrouble) -> TroubleView {
    TroubleView {
        kind: words::limit_kind(trouble.kind()),
        since: timestamp(trouble.since.as_ref()),
        until: timestamp(trouble.until.as_ref()),
        until_known: trouble.until_known,
        source: words::limit_source(trouble.source()),
        agent: trouble.agent.clone(),
        run: trouble.run.clone(),
        message: trouble.message.clone(),
    }
}

/// `ok`, `window limit until 17:46`, `login refused`.
fn state(agent: &Agent) -> (String, Tone) {
    let Some(trouble) = &agent.trouble else { return ("ok".to_owned(), Tone::Good) };
    let kind = words::limit_kind(trouble.kind()).unwrap_or_default();
    match &trouble.until {
        None if trouble.kind() == LimitKind::Auth => ("login refused".to_owned(), Tone::Failed),
        None => (format!("{kind} limit"), Tone::Failed),
        Some(at) if time::is_past(at) => (format!("{kind} limit, over since {}", time::clock(at)), Tone::Quiet),
        Some(at) if trouble.until_known => (format!("{kind} limit until {}", time::clock(at)), Tone::Waiting),
        Some(at) => (format!("{kind} limit, reset not known, next try {}", time::clock(at)), Tone::Waiting),
    }
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
            account: self.account.clone(),
            trouble: self.trouble.as_ref().map(trouble),
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn table(agents: &[Self], wide: bool) -> Table {
        let mut columns =
            vec![("AGENT", Kind::Word), ("TYPE", Kind::Extra), ("INSTALLED", Kind::Word), ("DEFAULT", Kind::Word)];
        columns.extend([("STATE", Kind::Text), ("VERSION", Kind::Word), ("LOGIN", Kind::Text)]);
        if wide {
            columns.extend([("MODEL", Kind::Word), ("ACCOUNT", Kind::Text), ("PROGRAM", Kind::Text)]);
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
                {
                    let (text, tone) = state(agent);
                    Cell::toned(if agent.installed { text.as_str() } else { "" }, tone)
                },
                agent.version.as_str().into(),
                agent.login.as_str().into(),
            ];
            if wide {
                row.push(agent.model.as_str().into());
                row.push(agent.account.as_str().into());
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
            or_dash("account", &self.account),
            {
                let (text, tone) = state(self);
                toned("state", text, tone)
            },
            line("default", yes_no(self.is_default)),
            or_dash("problem", &self.problem),
        ]
    }
}
