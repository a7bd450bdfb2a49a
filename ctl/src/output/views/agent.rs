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
    permissions: Option<String>,
    permissions_problem: String,
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

/// `ok`, `window limit until 17:46 UTC`, `login refused`, `not installed`.
fn state(agent: &Agent) -> (String, Tone) {
    if let (true, Some(trouble)) = (agent.installed, &agent.trouble) {
        return in_trouble(trouble);
    }
    let (text, tone) = match agent {
        agent if agent.program.is_empty() => ("not installed", Tone::Quiet),
        agent if !agent.installed => ("no key", Tone::Quiet),
        agent if !agent.problem.is_empty() => ("problem", Tone::Failed),
        agent if !agent.permissions_problem.is_empty() => ("can't be confined", Tone::Failed),
        _ => ("ok", Tone::Good),
    };
    (text.to_owned(), tone)
}

fn in_trouble(trouble: &AccountTrouble) -> (String, Tone) {
    let kind = words::limit_kind(trouble.kind()).unwrap_or_default();
    match &trouble.until {
        None if trouble.kind() == LimitKind::Auth => ("login refused".to_owned(), Tone::Failed),
        None => (format!("{kind} limit"), Tone::Failed),
        Some(at) if time::is_past(at) => (format!("{kind} limit, over since {}", time::clock(at)), Tone::Quiet),
        Some(at) if trouble.until_known => (format!("{kind} limit until {}", time::clock(at)), Tone::Waiting),
        Some(at) => (format!("{kind} limit, reset not known, next try {}", time::clock(at)), Tone::Waiting),
    }
}

/// The same in 17 columns at most.
fn short_state(agent: &Agent) -> (String, Tone) {
    let (text, tone) = state(agent);
    let text = match agent.trouble.as_ref().filter(|_| agent.installed).map(|trouble| (trouble, &trouble.until)) {
        Some((_, Some(at))) if time::is_past(at) => "limit is over".to_owned(),
        Some((trouble, Some(at))) if trouble.until_known => format!("limit until {}", time::short_clock(at)),
        Some((_, Some(at))) => format!("limit, try {}", time::short_clock(at)),
        _ => text,
    };
    (text, tone)
}

/// The number in what a program says of its version: `2.1.197` of `2.1.197 (Claude Code)`.
fn short(version: &str) -> &str {
    let is_number =
        |word: &&str| word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    version.split_whitespace().find(is_number).unwrap_or(version)
}

/// What a run may write to, or that it can't start.
fn writes(agent: &Agent) -> Cell {
    match words::permissions(agent.permissions()) {
        Some(word) => Cell::from(word),
        None if agent.permissions_problem.is_empty() => Cell::from(""),
        None => Cell::toned("none", Tone::Failed),
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
            permissions: words::permissions(self.permissions()),
            permissions_problem: self.permissions_problem.clone(),
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn table(agents: &[Self], wide: bool) -> Table {
        if !wide {
            return narrow(agents);
        }
        let mut table = Table::new(&[
            ("AGENT", Kind::Word),
            ("TYPE", Kind::Word),
            ("DEFAULT", Kind::Word),
            ("STATE", Kind::Text),
            ("VERSION", Kind::Word),
            ("LOGIN", Kind::Text),
            ("ACCOUNT", Kind::Text),
            ("PERMISSIONS", Kind::Word),
            ("MODEL", Kind::Word),
            ("PROGRAM", Kind::Text),
            ("PROBLEM", Kind::Text),
        ]);
        for agent in agents {
            let (text, tone) = state(agent);
            let problem = if agent.problem.is_empty() { &agent.permissions_problem } else { &agent.problem };
            table.row(vec![
                agent.name.as_str().into(),
                agent.r#type.as_str().into(),
                if agent.is_default { "default" } else { "" }.into(),
                Cell::toned(text, tone),
                agent.version.as_str().into(),
                agent.login.as_str().into(),
                agent.account.as_str().into(),
                writes(agent),
                agent.model.as_str().into(),
                agent.program.as_str().into(),
                Cell::toned(problem, Tone::Failed),
            ]);
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
            or_dash("permissions", words::permissions(self.permissions()).unwrap_or_default()),
            {
                let (text, tone) = state(self);
                toned("state", text, tone)
            },
            line("default", yes_no(self.is_default)),
            or_dash("problem", [self.problem.as_str(), &self.permissions_problem].join("\n").trim()),
        ]
    }
}

/// What fits 80 columns: the default is marked by a star, what is wrong is for `doctor`.
fn narrow(agents: &[Agent]) -> Table {
    let mut table = Table::new(&[
        ("AGENT", Kind::Word),
        ("STATE (UTC)", Kind::Word),
        ("VERSION", Kind::Word),
        ("LOGIN", Kind::Text),
        ("WRITES", Kind::Word),
        ("PROGRAM", Kind::Id),
        ("ACCOUNT", Kind::Extra),
    ]);
    for agent in agents {
        let (text, tone) = short_state(agent);
        let here = |text: &str| if agent.installed { text.to_owned() } else { String::new() };
        table.row(vec![
            if agent.is_default { format!("{} *", agent.name) } else { agent.name.clone() }.into(),
            Cell::toned(text, tone),
            short(&agent.version).into(),
            here(&agent.login).into(),
            if agent.installed { writes(agent) } else { Cell::from("") },
            agent.program.as_str().into(),
            here(&agent.account).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_its_number() {
        for (told, number) in
            [("2.1.197 (Claude Code)", "2.1.197"), ("codex-cli 0.169.0", "0.169.0"), ("v3.1", "v3.1"), ("odd", "odd")]
        {
            assert_eq!(short(told), number);
        }
    }
}
