//! The server: all services with their limits, health and reflection.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use conductor_proto::{FILE_DESCRIPTOR_SET, metadata, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
use tower::util::MapResponseLayer;
use tracing::{Span, field::Empty, info_span};

use super::context::Context;
use super::deadline::DeadlineLayer;
use super::requests::Requests;
use super::{agent, bus, daemon, details, project, run, task, usage, watch};
use crate::socket::PeerStream;

/// Largest request in bytes: a prompt of 16 MiB with room for the rest.
const MAX_REQUEST: usize = 17 * 1024 * 1024;
/// Largest answer in bytes: what clients accept.
const MAX_ANSWER: usize = conductor_proto::client::MAX_MESSAGE;
/// Pause after which a silent client is asked whether it is there, so that streams of vanished ones end.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long it has to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls at the same time on one connection; further ones wait.
const MAX_CONCURRENT_STREAMS: u32 = 256;
/// Characters of a client's request id that go into the log.
const MAX_LOGGED_ID: usize = 128;

/// Says whether the services serve.
pub struct Health(HealthReporter);

/// The services whose health is told, and "" for the whole.
const SERVICES: [&str; 9] = [
    "",
    "conductor.v1.ProjectService",
    "conductor.v1.TaskService",
    "conductor.v1.RunService",
    "conductor.v1.BusService",
    "conductor.v1.WatchService",
    "conductor.v1.AgentService",
    "conductor.v1.UsageService",
    "conductor.v1.DaemonService",
];

impl Health {
    /// Tells everybody who asks or watches.
    pub async fn set(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in SERVICES {
            self.0.set_service_status(service, status).await;
        }
    }
}

/// Serves the accepted connections until `stopped`, then until the open calls have ended. The health is "serving" until
/// the returned [`Health`] is told otherwise.
///
/// # Errors
/// The reflection's descriptors can't be read, which a test excludes.
pub async fn serve(
    context: Arc<Context>,
    incoming: ReceiverStream<std::io::Result<PeerStream>>,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Result<(Health, impl Future<Output = Result<(), tonic::transport::Error>>), tonic_reflection::server::Error> {
    let (reporter, health_service) = health_reporter();
    let health = Health(reporter);
    health.set(true).await;
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    macro_rules! limited {
        ($server:ident :: $service:ident, $handler:expr) => {
            v1::$server::$service::new($handler)
                .max_decoding_message_size(MAX_REQUEST)
                .max_encoding_message_size(MAX_ANSWER)
        };
    }
    let share = || Arc::clone(&context);
    let buses = bus::Buses { context: share(), requests: Requests::new() };
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .trace_fn(span)
        // Outermost, so that it sees the errors of the others.
        .layer(MapResponseLayer::new(details::add::<tonic::body::Body>))
        .layer(DeadlineLayer)
        .add_service(health_service)
        .add_service(descriptors().build_v1()?)
        .add_service(descriptors().build_v1alpha()?)
        .add_service(limited!(project_service_server::ProjectServiceServer, project::Projects(share())))
        .add_service(limited!(task_service_server::TaskServiceServer, task::Tasks(share())))
        .add_service(limited!(run_service_server::RunServiceServer, run::Runs(share())))
        .add_service(limited!(bus_service_server::BusServiceServer, buses))
        .add_service(limited!(watch_service_server::WatchServiceServer, watch::Watches(share())))
        .add_service(limited!(agent_service_server::AgentServiceServer, agent::Agents(share())))
        .add_service(limited!(usage_service_server::UsageServiceServer, usage::Ledger(share())))
        .add_service(limited!(daemon_service_server::DaemonServiceServer, daemon::Daemon(share())));
    Ok((health, router.serve_with_incoming_shutdown(incoming, stopped)))
}

/// The span of a call: its method, and the client's own id for it.
fn span(request: &http::Request<()>) -> Span {
    let span = info_span!("rpc", method = request.uri().path(), request_id = Empty);
    if let Some(id) = request.headers().get(metadata::REQUEST_ID).and_then(|id| id.to_str().ok()) {
        span.record("request_id", id.chars().take(MAX_LOGGED_ID).collect::<String>());
    }
    span
}
