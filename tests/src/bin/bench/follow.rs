//! From an agent's write to a follower of its log, over gRPC. The same to a browser comes with the gateway.

use anyhow::{Context, Result, ensure};
use conductor_proto::v1;
use conductor_tests::Sandbox;
use conductor_tests::client::run_ref;

use crate::agent::now_ns;
use crate::report::{Limit, Report, Spread};
use crate::setup::{begin, config, job};

/// Lines that are followed, and the pause between two: long enough that each is on its own.
const LINES: u32 = 1000;
const PAUSE_MS: u64 = 4;

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let sandbox = Sandbox::new()?;
    let go = sandbox.path().join("go");
    let program = std::env::current_exe()?;
    let yaml = format!(
        "{{type: command, program: {}, args: [lines, {}, '{LINES}', '{PAUSE_MS}']}}",
        program.display(),
        go.display()
    );
    let (_daemon, client) = begin(&sandbox, &config(&sandbox).agent("lines", &yaml))?;
    let task = client.submit(job("lines"))?;
    let run = client.wait_running(&task.task_id)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let delays = runtime.block_on(async {
        let (channel, _) = conductor_proto::client::connect(&[sandbox.socket()]).await?;
        let mut runs = v1::run_service_client::RunServiceClient::new(channel);
        let request = v1::StreamRunLogRequest {
            run: Some(run_ref(&run)),
            stream: v1::LogStream::Stdout.into(),
            follow: true,
            ..v1::StreamRunLogRequest::default()
        };
        let mut chunks = runs.stream_run_log(request).await?.into_inner();
        std::fs::write(&go, "")?;
        let (mut delays, mut rest) = (Vec::new(), Vec::new());
        while let Some(chunk) = chunks.message().await? {
            let now = now_ns()?;
            rest.extend_from_slice(&chunk.data);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let written: i64 = std::str::from_utf8(&line)?.trim().parse().context("a line is a time")?;
                delays.push((now - written) as f64 / 1e6);
            }
        }
        anyhow::Ok(delays)
    })?;
    ensure!(delays.len() == LINES as usize, "{} of {LINES} lines arrived", delays.len());
    let spread = Spread::of(delays)?;
    let how = format!(
        "{LINES} lines {PAUSE_MS} ms apart, agent's clock before the write to the follower of StreamRunLog: {spread}; \
         the way to a browser comes with the gateway"
    );
    report.row("agent writes a line, gRPC follower has it, p50", spread.median, "ms", Limit::AtMost(2.0), how.clone());
    report.row("agent writes a line, gRPC follower has it, p99", spread.p99, "ms", Limit::AtMost(10.0), how);
    Ok(())
}
