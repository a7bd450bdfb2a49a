//! `config …`

use conductor_proto::v1::GetConfigRequest;
use serde::Serialize;

use super::Context;
use crate::cli::{ConfigCommand, Format};
use crate::errors::Failure;

#[derive(Serialize)]
struct ConfigView {
    path: String,
    config: serde_yaml::Value,
}

pub(super) async fn run(context: &Context, command: ConfigCommand) -> Result<(), Failure> {
    let ConfigCommand::Show = command;
    let daemon = context.daemon().await?;
    let call = async |request| daemon.daemon().get_config(request).await;
    let answer = daemon.call("read the configuration", GetConfigRequest {}, call).await?;
    match context.screen.format {
        Format::Name => context.screen.line(&answer.path),
        Format::Json => {
            let config = serde_yaml::from_str(&answer.yaml)
                .map_err(|error| Failure::io("read the daemon's YAML", std::io::Error::other(error)))?;
            context.screen.value(&ConfigView { path: answer.path, config })
        }
        Format::Table | Format::Wide | Format::Yaml => {
            let from = if answer.path.is_empty() { "defaults only, no file" } else { &answer.path };
            context.screen.aside(&format!("# {from}"));
            context.screen.data(answer.yaml.as_bytes())
        }
    }
}
