//! The way to the daemon: deadlines, the run's token, harmless repeats. What is asked is up to `commands`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use conductor_proto::client::{self, ConnectError, MAX_MESSAGE};
use conductor_proto::v1::agent_service_client::AgentServiceClient;
use conductor_proto::v1::bus_service_client::BusServiceClient;
use conductor_proto::v1::daemon_service_client::DaemonServiceClient;
use conductor_proto::v1::project_service_client::ProjectServiceClient;
use conductor_proto::v1::run_service_client::RunServiceClient;
use conductor_proto::v1::task_service_client::TaskServiceClient;
use conductor_proto::v1::usage_service_client::UsageServiceClient;
use conductor_proto::v1::watch_service_client::WatchServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::environment::{self, Inside};
use crate::errors::{self, Failure};
use crate::follow::Outage;

/// Longest time for one call: a slow disk answers in it, a hung daemon does not keep a script for ever.
pub(crate) const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// Pauses before a call is made again whose connection broke: a restart of the daemon takes less than their sum.
const REPEATS: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1_500),
];

/// A channel that proves which run we are.
pub(crate) type Way = InterceptedService<Channel, Auth>;

/// Puts the run's token into every call.
#[derive(Clone)]
pub(crate) struct Auth(Option<MetadataValue<Ascii>>);

impl Interceptor for Auth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert(conductor_proto::metadata::AUTHORIZATION, token.clone());
        }
        Ok(request)
    }
}

/// The daemon, reached.
#[derive(Clone)]
pub(crate) struct Daemon {
    channel: Channel,
    auth: Auth,
    deadline: Duration,
    /// The socket in use.
    pub(crate) socket: PathBuf,
    /// What followers know of a lost connection, together.
    pub(crate) outage: Outage,
}

/// The sockets to try, in order.
pub(crate) fn candidates(named: Option<&Path>) -> Vec<PathBuf> {
    client::candidates(named, &environment::var)
}

impl Daemon {
    /// Connects to the first socket of `paths` at which somebody listens.
    pub(crate) async fn reach(
        paths: &[PathBuf],
        inside: Option<&Inside>,
        deadline: Option<Duration>,
        outage: Outage,
    ) -> Result<Self, ConnectError> {
        let (channel, socket) = client::connect(paths).await?;
        let token = inside.and_then(|inside| inside.token.as_deref());
        let mut value = token.and_then(|token| MetadataValue::try_from(format!("Bearer {token}")).ok());
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        Ok(Self { channel, auth: Auth(value), deadline: deadline.unwrap_or(DEFAULT_DEADLINE), socket, outage })
    }

    /// The same with a longer time for each call, unless the user has set one.
    pub(crate) fn patient(mut self, deadline: Duration) -> Self {
        if self.deadline == DEFAULT_DEADLINE {
            self.deadline = deadline;
        }
        self
    }

    fn way(&self) -> Way {
        InterceptedService::new(self.channel.clone(), self.auth.clone())
    }

    pub(crate) fn tasks(&self) -> TaskServiceClient<Way> {
        TaskServiceClient::new(self.way()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn runs(&self) -> RunServiceClient<Way> {
        RunServiceClient::new(self.way()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn projects(&self) -> ProjectServiceClient<Way> {
        ProjectServiceClient::new(self.way()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn buses(&self) -> BusServiceClient<Way> {
        BusServiceClient::new(self.way()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn watch(&self) -> WatchServiceClient<Way> {
        WatchServiceClient::new(self.way()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn agents(&self) -> AgentServiceClient<Way> {
        AgentServiceClient::new(self.way()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn usage(&self) -> UsageServiceClient<Way> {
        UsageServiceClient::new(self.way()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn daemon(&self) -> DaemonServiceClient<Way> {
        DaemonServiceClient::new(self.way()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Makes a call with the deadline. A call whose connection broke is made again: every request here either only
    /// reads, or carries a request id, or says the same thing twice.
    pub(crate) async fn call<Req, Res>(
        &self,
        action: &str,
        request: Req,
        call: impl AsyncFn(Request<Req>) -> Result<Response<Res>, Status>,
    ) -> Result<Res, Failure>
    where
        Req: Clone,
    {
        let mut repeats = REPEATS.iter();
        loop {
            let mut attempt = Request::new(request.clone());
            attempt.set_timeout(self.deadline);
            let timed_out = || Failure::TimedOut { action: format!("failed to {action}"), after: self.deadline };
            let answer = tokio::time::timeout(self.deadline, Box::pin(call(attempt)));
            let status = match answer.await {
                Err(_) => return Err(timed_out()),
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) if is_deadline(&status) => return Err(timed_out()),
                Ok(Err(status)) => status,
            };
            match repeats.next() {
                Some(pause) if errors::is_lost(&status) => tokio::time::sleep(*pause).await,
                _ => return Err(Failure::status(action, status)),
            }
        }
    }
}

/// Whether the deadline passed, on either side; the client's own comes as CANCELLED from older tonic.
fn is_deadline(status: &Status) -> bool {
    status.code() == Code::DeadlineExceeded
        || (status.code() == Code::Cancelled && status.message().contains("Timeout expired"))
}
