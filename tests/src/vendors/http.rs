//! As much HTTP/1.1 as the fake needs: one request a connection, bodies with a length or in chunks, answers at once or
//! piece by piece.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::sse;

/// Largest body that is read: the programs send their whole conversation with each request.
const MAX_BODY: usize = 64 << 20;

/// Seconds after which `retry-after` is not sent.
const FAR: u64 = 3600;

/// Headers that carry a key: never recorded.
const SECRET_HEADERS: &[&str] = &["authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie"];

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    /// `GET`, `POST`, …
    pub(super) method: String,
    /// Path without its query.
    pub(super) path: String,
    /// What follows the `?`; empty without one.
    pub(super) query: String,
    /// Names in lower case, in their order.
    pub(super) headers: Vec<(String, String)>,
    /// The whole body.
    pub(super) body: Vec<u8>,
}

impl Request {
    /// The value of a header, by its lower-case name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The headers without those that carry a key.
    pub(super) fn public_headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let public = self.headers.iter().filter(|(name, _)| !SECRET_HEADERS.contains(&name.as_str()));
        public.map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// What is sent after the headers.
#[derive(Debug)]
pub(super) enum Body {
    /// At once, with its length.
    Whole(String),
    /// In chunks, each after a pause; `cut`: the connection is closed in the middle.
    Pieces { pieces: Vec<String>, pause: Duration, cut: bool },
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// Status code; 0: the connection is closed without an answer.
    pub(super) status: u16,
    /// How long it takes until the first byte.
    pub(super) delay: Duration,
    /// Headers besides length and connection.
    pub(super) headers: Vec<(&'static str, String)>,
    /// The body.
    pub(super) body: Body,
}

impl Answer {
    /// JSON at once.
    pub(super) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }

    /// Any text at once.
    pub(super) fn text(status: u16, kind: &str, body: String) -> Self {
        let headers = vec![("content-type", kind.to_owned())];
        Self { status, delay: Duration::ZERO, headers, body: Body::Whole(body) }
    }

    /// With the header `retry-after`, if the time is near: services name no far one, and some programs wait for any.
    pub(super) fn retry_after(self, time: u64) -> Self {
        let wait = sse::seconds_until(time);
        if wait <= FAR { self.with("retry-after", wait.to_string()) } else { self }
    }

    /// With a further header.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Reads a request; `None` if the peer closed the connection before one.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Option<Request>> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().context("no method")?.to_owned();
    let target = words.next().context("no target")?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let (mut length, mut chunked, mut headers) = (0, false, Vec::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).await?;
        let Some((name, value)) = header.split_once(':') else { break };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        match name.as_str() {
            "content-length" => length = value.parse().context("content-length")?,
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            "expect" => reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?,
            _ => {}
        }
        headers.push((name, value));
    }
    ensure!(length <= MAX_BODY, "a body of {length} bytes");
    let mut body = vec![0; length];
    if chunked {
        body = chunks(&mut reader).await?;
    } else {
        reader.read_exact(&mut body).await?;
    }
    Ok(Some(Request { method, path, query, headers, body }))
}

async fn chunks(reader: &mut BufReader<&mut TcpStream>) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await?;
        let size = usize::from_str_radix(line.trim(), 16).with_context(|| format!("chunk size {line:?}"))?;
        if size > MAX_BODY - body.len() {
            bail!("a body over {MAX_BODY} bytes");
        }
        let start = body.len();
        body.resize(start + size + 2, 0);
        reader.read_exact(&mut body[start..]).await?;
        body.truncate(start + size);
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Writes an answer and closes the connection.
pub(super) async fn write(stream: &mut TcpStream, answer: &Answer) -> Result<()> {
    tokio::time::sleep(answer.delay).await;
    if answer.status == 0 {
        return Ok(());
    }
    let mut head = format!("HTTP/1.1 {} Fake\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match &answer.body {
        // A 204 has neither a body nor its length.
        Body::Whole(_) if answer.status == 204 => stream.write_all(format!("{head}\r\n").as_bytes()).await?,
        Body::Whole(body) => {
            stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
        }
        Body::Pieces { pieces, pause, cut } => {
            stream.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await?;
            for (number, piece) in pieces.iter().enumerate() {
                if number > 0 && !pause.is_zero() {
                    tokio::time::sleep(*pause).await;
                }
                stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await?;
            }
            if !cut {
                stream.write_all(b"0\r\n\r\n").await?;
            }
        }
    }
    stream.shutdown().await?;
    Ok(())
}
