//! `version`: ours, and the daemon's if it answers.

use serde::Serialize;

use super::{Context, daemon};
use crate::cli::Format;
use crate::errors::Failure;

#[derive(Serialize)]
struct Versions {
    conductorctl: &'static str,
    conductord: Option<String>,
    socket: Option<String>,
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let reached = context.daemon().await;
    let (conductord, socket) = match &reached {
        Ok(daemon) => {
            (daemon::info(daemon).await.ok().map(|info| info.version), Some(daemon.socket.display().to_string()))
        }
        Err(_) => (None, None),
    };
    match context.screen.format {
        Format::Name => context.screen.line(own),
        Format::Json | Format::Yaml => context.screen.value(&Versions { conductorctl: own, conductord, socket }),
        Format::Table | Format::Wide => {
            context.screen.line(&format!("conductorctl {own}"))?;
            match (conductord, socket) {
                (Some(version), Some(socket)) => context.screen.line(&format!("conductord   {version}  at {socket}")),
                _ => {
                    context.screen.aside("conductord   does not answer; start it: conductorctl daemon start");
                    Ok(())
                }
            }
        }
    }
}
