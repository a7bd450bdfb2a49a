//! `doctor`: what would keep an agent from working, as the daemon sees it and as this shell does. Changes nothing.

use std::path::Path;

use conductor_proto::v1::{CheckAgentsRequest, CheckAgentsResponse, Finding, FindingLevel, GetDaemonInfoResponse};

use super::{Context, agent, daemon, start};
use crate::cli::{Doctor, Format};
use crate::connect::Daemon;
use crate::environment;
use crate::errors::Failure;
use crate::output::views::doctor::{About, Report, Section};

pub(super) async fn run(context: &Context, args: &Doctor) -> Result<(), Failure> {
    let daemon = context.daemon().await?.patient(agent::ALL_VERSIONS);
    let progress = context.screen.progress("asking the programs for their versions …");
    let info = daemon::info(&daemon).await?;
    let answer = ask(&daemon, args).await?;
    drop(progress);
    let report = report(&daemon, &info, answer);
    match context.screen.format {
        Format::Json | Format::Yaml => context.screen.value(&report.view())?,
        Format::Name => report.problems().try_for_each(|name| context.screen.line(&name))?,
        Format::Table | Format::Wide => context.screen.data(report.render(&context.screen).as_bytes())?,
    }
    if report.count(FindingLevel::Problem) == 0 { Ok(()) } else { Err(Failure::NotDone) }
}

async fn ask(daemon: &Daemon, args: &Doctor) -> Result<CheckAgentsResponse, Failure> {
    let set = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    let request = CheckAgentsRequest {
        agents: args.agents.clone(),
        shell_variables: set.filter_map(|(name, _)| name.into_string().ok()).collect(),
        shell_path: environment::var("PATH").unwrap_or_default(),
    };
    let call = async |request| daemon.agents().check_agents(request).await;
    daemon.call("check the agents", request, call).await
}

fn report(daemon: &Daemon, info: &GetDaemonInfoResponse, answer: CheckAgentsResponse) -> Report {
    let mut own = vec![reached(daemon, info), configuration(info)];
    own.extend(answer.machine);
    own.push(tier(info));
    own.extend(records(info));
    let mut sections = vec![Section { about: About::Conductor, findings: own }];
    let mut absent = Vec::new();
    let mut usable = 0;
    for checked in answer.agents {
        let agent = checked.agent.unwrap_or_default();
        let mut findings = checked.findings;
        // One line for an agent that is not here, and that nobody asked for.
        if let [only] = &mut findings[..] {
            only.subject.clone_from(&agent.name);
            absent.append(&mut findings);
            continue;
        }
        usable += usize::from(findings.iter().all(|finding| finding.level() != FindingLevel::Problem));
        let about = About::Agent { name: agent.name, is_default: agent.is_default };
        sections.push(Section { about, findings });
    }
    if usable == 0 {
        let text = "no agent can be used yet".to_owned();
        let fix = "install one of them, and log in or set its token_file".to_owned();
        let finding = Finding { level: FindingLevel::Problem.into(), subject: "agents".to_owned(), text, fix };
        absent.insert(0, finding);
    }
    sections.push(Section { about: About::Others, findings: absent });
    sections.push(Section { about: About::Shell, findings: answer.shell });
    if let Ok(folder) = start::folder(None) {
        sections.push(Section { about: About::Folder(folder.display().to_string()), findings: vec![git(&folder)] });
    }
    sections.retain(|section| !section.findings.is_empty());
    Report { sections }
}

fn good(subject: &str, text: impl Into<String>) -> Finding {
    Finding { level: FindingLevel::Good.into(), subject: subject.to_owned(), text: text.into(), fix: String::new() }
}

fn notice(subject: &str, text: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { level: FindingLevel::Notice.into(), fix: fix.into(), ..good(subject, text) }
}

fn reached(daemon: &Daemon, info: &GetDaemonInfoResponse) -> Finding {
    let (own, theirs) = (env!("CARGO_PKG_VERSION"), info.version.as_str());
    let text = format!("conductord {theirs} at {}", daemon.socket.display());
    if own == theirs {
        return good("daemon", text);
    }
    let fix = "conductorctl daemon stop; conductorctl daemon start (agents that run go on)";
    notice("daemon", format!("{text}; this is conductorctl {own}"), fix)
}

fn configuration(info: &GetDaemonInfoResponse) -> Finding {
    let path = &info.config_path;
    if !info.config_problem.is_empty() {
        let text = format!("the file is not in force: {}", info.config_problem);
        let fix = "put it right; it is read again when it changes (check: conductord config check)".to_owned();
        return Finding { level: FindingLevel::Problem.into(), fix, ..good("config", text) };
    }
    match environment::var("CONDUCTOR_CONFIG") {
        Some(named) if named != *path => {
            let text = format!("CONDUCTOR_CONFIG of your shell is {named}; conductord has {}", or_defaults(path));
            notice("config", text, "start the daemon from a shell with that variable, or with --config")
        }
        _ => good("config", or_defaults(path)),
    }
}

fn or_defaults(path: &str) -> &str {
    if path.is_empty() { "no file: defaults" } else { path }
}

fn tier(info: &GetDaemonInfoResponse) -> Finding {
    let text = |how: &str| {
        if info.tier_reason.is_empty() { how.to_owned() } else { format!("{how}: {}", info.tier_reason) }
    };
    match info.tier.as_str() {
        "cgroup" => good("processes", text("by cgroup")),
        _ => good("processes", text("by looking through /proc, without cgroups")),
    }
}

fn records(info: &GetDaemonInfoResponse) -> Option<Finding> {
    let first = info.problems.first()?;
    let text = match info.problems.len() {
        1 => format!("a file can't be read: {first}"),
        count => format!("{count} files can't be read; the first: {first}"),
    };
    Some(notice("records", text, "conductorctl daemon info shows all of them"))
}

/// Whether a repository is there. Codex is told not to ask for one.
fn git(folder: &Path) -> Finding {
    match folder.ancestors().find(|up| up.join(".git").exists()) {
        Some(top) => good("git", format!("the repository {}", top.display())),
        None => {
            let text = "no git repository: agents work without one, and nothing shows or undoes what they change";
            notice("git", text, "git init")
        }
    }
}
