//! `bus …`

use conductor_proto::v1::{BusMessage, BusRef, MessageLink, MessageParent, PostMessageRequest};

use super::{Context, interrupted, prompt, request_id};
use crate::cli::{BusCommand, BusPost, BusRead, BusTail, BusWhere, Format};
use crate::connect::Daemon;
use crate::errors::Failure;
use crate::follow::{BusPages, BusReader};
use crate::output::views::MessageView;
use crate::output::{Tone, plain, printable, time};
use crate::resolve;

pub(super) async fn run(context: &Context, command: BusCommand) -> Result<(), Failure> {
    match command {
        BusCommand::Post(args) => post(context, &args).await,
        BusCommand::Read(args) => read(context, &args).await,
        BusCommand::Tail(args) => tail(context, &args).await,
    }
}

/// Which bus is meant: the named one; inside a run its task's.
async fn bus(context: &Context, daemon: &Daemon, args: &BusWhere) -> Result<BusRef, Failure> {
    if let Some(task) = &args.task {
        // An agent's own task needs no question.
        let inside = context.inside.as_ref().filter(|inside| inside.task == *task && args.project.is_none());
        if let Some(inside) = inside.filter(|inside| !inside.project.is_empty()) {
            return Ok(BusRef { project_id: inside.project.clone(), task_id: inside.task.clone() });
        }
        let task = resolve::task(context, daemon, task, args.project.as_deref()).await?;
        return Ok(BusRef { project_id: task.project_id, task_id: task.task_id });
    }
    match (&args.project, &context.inside) {
        (Some(project), _) => Ok(BusRef { project_id: project.clone(), task_id: String::new() }),
        (None, Some(inside)) => Ok(BusRef { project_id: inside.project.clone(), task_id: inside.task.clone() }),
        (None, None) => Err(Failure::Usage("which bus? name one with --task or --project".into())),
    }
}

async fn post(context: &Context, args: &BusPost) -> Result<(), Failure> {
    let body = prompt::from_words(&args.text, "a text: conductorctl bus post \"…\", or a pipe")?;
    let daemon = context.daemon().await?;
    let bus = bus(context, &daemon, &args.bus).await?;
    let reply = |id: &String| MessageParent { msg_id: id.clone(), kind: "reply".into(), ..MessageParent::default() };
    let request = PostMessageRequest {
        bus: Some(bus),
        r#type: args.kind.clone(),
        body,
        run_id: context.inside.as_ref().map(|inside| inside.run.clone()).unwrap_or_default(),
        issue_id: args.issue.clone(),
        parents: args.reply_to.iter().map(reply).collect(),
        links: args.link.iter().map(|url| MessageLink { url: url.clone(), ..MessageLink::default() }).collect(),
        meta: args.meta.iter().cloned().collect(),
        request_id: request_id(args.request_id.as_deref()),
    };
    let call = async |request| daemon.buses().post_message(request).await;
    let answer = daemon.call("post the message", request, call).await?;
    context.screen.line(&answer.msg_id)
}

async fn read(context: &Context, args: &BusRead) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let bus = bus(context, &daemon, &args.bus).await?;
    print_pages(context, BusPages::new(&daemon, bus, args.after.clone(), args.tail.unwrap_or(0)), &args.kinds).await
}

async fn print_pages(context: &Context, mut pages: BusPages<'_>, kinds: &[String]) -> Result<(), Failure> {
    let mut printer = Printer::new(context, kinds);
    let mut views = Vec::new();
    while let Some(messages) = pages.next().await? {
        for message in &messages {
            if !printer.wants(message) {
                continue;
            }
            if context.screen.format.is_human() || context.screen.format == Format::Name {
                printer.print(message)?;
            } else {
                views.push(MessageView::from(message));
            }
        }
    }
    if pages.skipped > 0 {
        context.screen.aside(&format!("{} entries can't be read and were left out", pages.skipped));
    }
    match context.screen.format {
        Format::Json | Format::Yaml => context.screen.value(&views),
        _ if !printer.printed => {
            context.screen.aside("no messages");
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn tail(context: &Context, args: &BusTail) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let bus = bus(context, &daemon, &args.bus).await?;
    if !args.follow {
        return print_pages(context, BusPages::new(&daemon, bus, String::new(), args.tail), &args.kinds).await;
    }
    let mut reader = BusReader::new(&daemon, bus, String::new(), args.tail);
    let mut printer = Printer::new(context, &args.kinds);
    tokio::select! {
        biased;
        () = interrupted() => Err(Failure::Interrupted),
        failure = async {
            loop {
                match reader.next().await {
                    Ok(message) if printer.wants(&message) => {
                        if let Err(failure) = printer.print(&message) {
                            return failure;
                        }
                    }
                    Ok(_) => {}
                    Err(failure) => return failure,
                }
            }
        } => Err(failure),
    }
}

/// Prints messages as a conversation.
struct Printer<'a> {
    context: &'a Context,
    kinds: &'a [String],
    printed: bool,
}

impl<'a> Printer<'a> {
    fn new(context: &'a Context, kinds: &'a [String]) -> Self {
        Self { context, kinds, printed: false }
    }

    fn wants(&self, message: &BusMessage) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|kind| kind.eq_ignore_ascii_case(&message.r#type))
    }

    fn print(&mut self, message: &BusMessage) -> Result<(), Failure> {
        self.printed = true;
        let screen = &self.context.screen;
        match screen.format {
            Format::Name => screen.line(&message.msg_id),
            Format::Json | Format::Yaml => screen.stream_value(&MessageView::from(message)),
            Format::Table | Format::Wide => screen.data(self.text(message).as_bytes()),
        }
    }

    fn text(&self, message: &BusMessage) -> String {
        let screen = &self.context.screen;
        let at = message.time.as_ref().map_or_else(|| "–".into(), time::clock);
        let mut facts = vec![at, plain(&message.msg_id)];
        if screen.format == Format::Wide {
            facts.extend([&message.task_id, &message.run_id, &message.issue_id].map(|id| plain(id)));
        }
        let parents = message.parents.iter().map(|parent| {
            let kind = if parent.kind.is_empty() { "follows" } else { &parent.kind };
            format!("{} {}", plain(kind), plain(&parent.msg_id))
        });
        facts.extend(parents);
        facts.retain(|fact| !fact.is_empty());
        let kind = screen.paint(tone(&message.r#type), &format!("{:<9}", plain(&message.r#type)));
        let mut text = format!("{kind} {}\n", screen.paint(Tone::Quiet, &facts.join("  ")));
        for line in printable(&message.body).lines() {
            text += &format!("  {line}\n");
        }
        for link in &message.links {
            let label = if link.label.is_empty() { String::new() } else { format!("{}: ", link.label) };
            text += &format!("  → {}{}\n", plain(&label), plain(&link.url));
        }
        text
    }
}

fn tone(kind: &str) -> Tone {
    match kind {
        "ERROR" | "RUN_CRASH" => Tone::Failed,
        "QUESTION" | "USER" | "APPROVAL" => Tone::Waiting,
        "FACT" | "ANSWER" | "DECISION" => Tone::Good,
        "PROGRESS" | "RUN_START" => Tone::Running,
        _ => Tone::Plain,
    }
}
