//! The bus over one gRPC stream: a client that sends as fast as the stream takes it and reads every answer.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use conductor_proto::v1;
use conductor_proto::v1::bus_service_client::BusServiceClient;
use conductor_tests::Sandbox;
use conductor_tests::client::{PROJECT, project_bus};

use crate::bus::BODY;
use crate::report::{Limit, Report};
use crate::setup::{begin, config};

/// Messages of a round, and rounds: the first one is not counted.
const MESSAGES: usize = 60_000;
const ROUNDS: usize = 6;

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    for durability in ["none", "batch"] {
        let sandbox = Sandbox::new()?;
        let (_daemon, _client) = begin(&sandbox, &config(&sandbox).set("bus.durability", durability))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let rates = runtime.block_on(async {
            let (channel, _) = conductor_proto::client::connect(&[sandbox.socket()]).await?;
            let mut client = BusServiceClient::new(channel);
            let mut rates = Vec::new();
            for _ in 0..ROUNDS {
                let took = round(&mut client).await?;
                rates.push(MESSAGES as f64 / took.as_secs_f64());
            }
            anyhow::Ok(rates)
        })?;
        let counted = &rates[1..];
        let mean = counted.len() as f64 / counted.iter().map(|rate| 1.0 / rate).sum::<f64>();
        let each: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
        report.row(
            format!("bus over one gRPC stream, durability {durability}"),
            mean,
            "msg/s",
            Limit::AtLeast(100_000.0),
            format!(
                "{MESSAGES} messages a round, first sent to last answered, client on the same CPUs; rounds: {}",
                each.join(", ")
            ),
        );
    }
    Ok(())
}

async fn round(client: &mut BusServiceClient<tonic::transport::Channel>) -> Result<Duration> {
    let message = v1::PostMessagesRequest {
        message: Some(v1::PostMessageRequest {
            bus: Some(project_bus(PROJECT)),
            r#type: "PROGRESS".to_owned(),
            body: BODY.to_owned(),
            ..v1::PostMessageRequest::default()
        }),
    };
    let requests = tokio_stream::iter(std::iter::repeat_n(message, MESSAGES));
    let begun = Instant::now();
    let mut answers = client.post_messages(requests).await?.into_inner();
    let mut ids = Vec::with_capacity(MESSAGES);
    while let Some(answer) = answers.message().await? {
        ids.push(answer.msg_id);
    }
    let took = begun.elapsed();
    let distinct: HashSet<String> = ids.into_iter().collect();
    ensure!(distinct.len() == MESSAGES, "{} of {MESSAGES} were answered", distinct.len());
    Ok(took)
}
