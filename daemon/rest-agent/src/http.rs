//! One HTTP client for one server: TLS, proxies, timeouts, bodies in bounded memory. What answers mean is not known here.

use std::error::Error as _;
use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, Url, redirect};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::key::Key;
use crate::reset;

/// Bytes of an answer that is no stream at most: as for one event of a stream.
pub const MAX_DOCUMENT: usize = crate::sse::MAX_DATA;
/// Bytes of the body of a refusal that are read.
pub const MAX_REFUSAL: usize = 64 << 10;

/// Why nothing came, or no more.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The key is no header. Keys are checked before.
    #[error("the key is no header value")]
    Key,
    /// No client can be made of the environment's settings.
    #[error("{0}")]
    Setup(String),
    /// No server can be trusted.
    #[error("no CA certificates were found{0}; install the system's (ca-certificates) or set SSL_CERT_FILE")]
    NoRoots(String),
    /// The server's certificate is not trusted.
    #[error("{0}; if it is yours, set SSL_CERT_FILE to its CA")]
    Untrusted(String),
    /// The network, or what the server does to it.
    #[error("{0}")]
    Network(String),
    /// Silence.
    #[error("nothing came for {} s", .0.as_secs_f64())]
    Idle(Duration),
    /// An answer that is too long.
    #[error("its answer is over {MAX_DOCUMENT} bytes long")]
    TooLong,
}

/// The client.
#[derive(Debug)]
pub struct Http {
    client: Client,
    authorization: HeaderValue,
    idle: Duration,
}

impl Http {
    /// A client for `url` with this key.
    ///
    /// # Errors
    /// [`HttpError::Key`], [`HttpError::Setup`], [`HttpError::NoRoots`].
    pub fn new(url: &Url, key: &Key, connect: Duration, idle: Duration) -> Result<Self, HttpError> {
        let mut authorization = HeaderValue::from_str(&key.bearer()).map_err(|_| HttpError::Key)?;
        authorization.set_sensitive(true);
        let client = Client::builder()
            .tls_backend_preconfigured(tls(needs_tls(url))?)
            .redirect(redirect::Policy::none())
            .connect_timeout(connect)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("conductor-rest-agent/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| HttpError::Setup(chain(&error)))?;
        Ok(Self { client, authorization, idle })
    }

    /// Sends a body and waits for the head of the answer.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn post(&self, url: Url, body: bytes::Bytes) -> Result<Response, HttpError> {
        let request = self.client.post(url).header(CONTENT_TYPE, "application/json").body(body);
        self.send(request.header(ACCEPT, "text/event-stream, application/json")).await
    }

    /// Asks for a document and waits for the head of the answer.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn get(&self, url: Url) -> Result<Response, HttpError> {
        self.send(self.client.get(url).header(ACCEPT, "application/json")).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, HttpError> {
        self.timed(request.header(AUTHORIZATION, self.authorization.clone()).send()).await
    }

    /// The next bytes of an answer; `None`: its end.
    ///
    /// # Errors
    /// [`HttpError::Network`], [`HttpError::Idle`].
    pub async fn chunk(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, HttpError> {
        self.timed(response.chunk()).await
    }

    /// A whole body of at most `limit` bytes; what is longer is cut if `cut`, else an error.
    ///
    /// # Errors
    /// [`HttpError::Network`], [`HttpError::Idle`], [`HttpError::TooLong`].
    pub async fn body(&self, response: &mut Response, limit: usize, cut: bool) -> Result<Vec<u8>, HttpError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(response).await? {
            let room = limit - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                return if cut { Ok(body) } else { Err(HttpError::TooLong) };
            }
        }
        Ok(body)
    }

    async fn timed<T>(&self, work: impl Future<Output = reqwest::Result<T>>) -> Result<T, HttpError> {
        match tokio::time::timeout(self.idle, work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(classify(error)),
            Err(_) => Err(HttpError::Idle(self.idle)),
        }
    }
}

/// Headers of an answer.
impl reset::Headers for reqwest::header::HeaderMap {
    fn get(&self, name: &str) -> Option<&str> {
        self.get(name)?.to_str().ok()
    }
}

/// Whether any connection may need certificates: that to the server, or that to a proxy.
fn needs_tls(url: &Url) -> bool {
    let proxies = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    url.scheme() == "https"
        || proxies.iter().any(|name| std::env::var(name).is_ok_and(|proxy| proxy.starts_with("https://")))
}

/// TLS with the system's certificates, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
fn tls(needed: bool) -> Result<ClientConfig, HttpError> {
    let mut roots = RootCertStore::empty();
    if needed {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            return Err(HttpError::NoRoots(why));
        }
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpError::Setup(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn classify(error: reqwest::Error) -> HttpError {
    let text = chain(&error.without_url());
    if text.contains("invalid peer certificate") { HttpError::Untrusted(text) } else { HttpError::Network(text) }
}

/// An error and its causes on one line. The address is told by who prints it.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            // Writing into a string can't fail.
            let _ = write!(text, ": {next}");
        }
        cause = error.source();
    }
    text
}
