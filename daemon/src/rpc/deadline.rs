//! A limit for unary calls that bring no deadline of their own, so that none stays for ever.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::{Code, Status};
use tower::{Layer, Service};

/// The limit. Longer than the longest that a handler takes by design: a stop or a post that waits for a lock (10 s), a
/// probe of versions (10 s each).
pub const UNARY_DEADLINE: Duration = Duration::from_secs(60);
/// Methods that wait for as long as the caller likes. (Streaming calls answer at once; their streams are not limited.)
/// Stopping the daemon with its runs takes their graces.
const UNLIMITED: [&str; 3] = ["WaitTask", "WaitChildren", "StopDaemon"];

/// Makes [`Deadline`] services.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner }
    }
}

/// Ends a call that takes too long with `DEADLINE_EXCEEDED`. A change that was begun goes on.
#[derive(Clone, Debug)]
pub(super) struct Deadline<S> {
    inner: S,
}

impl<S, B, R> Service<http::Request<B>> for Deadline<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    R: Default,
{
    type Response = http::Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let is_limited = !request.headers().contains_key("grpc-timeout") && !UNLIMITED.contains(&method);
        let answer = self.inner.call(request);
        if !is_limited {
            return Box::pin(answer);
        }
        Box::pin(async move {
            match tokio::time::timeout(UNARY_DEADLINE, answer).await {
                Ok(answer) => answer,
                Err(_) => {
                    let text = format!("no answer within {} s; send a deadline for more", UNARY_DEADLINE.as_secs());
                    Ok(Status::new(Code::DeadlineExceeded, text).into_http())
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn code_of(path: &str, timeout: Option<&str>, takes: Duration) -> Option<String> {
        let service = tower::service_fn(move |_: http::Request<()>| async move {
            tokio::time::sleep(takes).await;
            Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
        });
        let mut service = DeadlineLayer.layer(service);
        let mut request = http::Request::builder().uri(path);
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let answer = service.call(request.body(()).expect("a request")).await.expect("infallible");
        answer.headers().get("grpc-status").map(|code| code.to_str().expect("digits").to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_a_deadline_ends_and_waiting_calls_go_on() {
        let long = UNARY_DEADLINE * 2;
        assert_eq!(code_of("/conductor.v1.TaskService/GetTask", None, long).await.as_deref(), Some("4"));
        assert_eq!(code_of("/conductor.v1.TaskService/GetTask", Some("1H"), long).await, None);
        assert_eq!(code_of("/conductor.v1.TaskService/WaitTask", None, long).await, None);
        assert_eq!(code_of("/conductor.v1.TaskService/GetTask", None, UNARY_DEADLINE / 2).await, None);
    }
}
