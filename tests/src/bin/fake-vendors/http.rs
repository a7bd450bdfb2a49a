//! As much HTTP/1.1 as the fake needs: one request a connection, bodies with a length or in chunks.

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Largest body that is read: Claude Code sends its whole conversation with each request.
const MAX_BODY: usize = 64 << 20;

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    /// `GET`, `POST`, …
    pub(crate) method: String,
    /// Path without its query.
    pub(crate) path: String,
    /// The whole body.
    pub(crate) body: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status code.
    pub(crate) status: u16,
    /// Headers besides length and connection.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// The whole body.
    pub(crate) body: String,
}

/// Reads a request; `None` if the peer closed the connection before one.
pub(crate) async fn read(stream: &mut TcpStream) -> Result<Option<Request>> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().context("no method")?.to_owned();
    let target = words.next().context("no target")?;
    let path = target.split('?').next().unwrap_or(target).to_owned();
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).await?;
        let Some((name, value)) = header.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().context("content-length")?,
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            "expect" => reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?,
            _ => {}
        }
    }
    ensure!(length <= MAX_BODY, "a body of {length} bytes");
    let mut body = vec![0; length];
    if chunked {
        body = chunks(&mut reader).await?;
    } else {
        reader.read_exact(&mut body).await?;
    }
    Ok(Some(Request { method, path, body }))
}

async fn chunks(reader: &mut BufReader<&mut TcpStream>) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await?;
        let size = usize::from_str_radix(line.trim(), 16).with_context(|| format!("chunk size {line:?}"))?;
        if body.len() + size > MAX_BODY {
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
pub(crate) async fn write(stream: &mut TcpStream, answer: &Answer) -> Result<()> {
    let mut head =
        format!("HTTP/1.1 {} Fake\r\ncontent-length: {}\r\nconnection: close\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(answer.body.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}
