//! A server that plays a script: one answer for each connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// What it does with a connection.
pub(crate) enum Act {
    /// Sends these bytes, then closes.
    Send(Vec<u8>),
    /// Sends these bytes, then keeps the connection open until the client closes it.
    Hold(Vec<u8>),
    /// Closes without reading.
    Slam,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Request line and headers.
    pub(crate) head: String,
    /// Body.
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// A server that plays `script`, and then closes what comes.
    pub(crate) fn new(script: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        // It ends with the test's process.
        thread::spawn(move || {
            let mut script = script.into_iter();
            for stream in listener.incoming() {
                let act = script.next().unwrap_or(Act::Slam);
                play(stream.unwrap(), act, &seen);
            }
        });
        Self { address, requests }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn play(mut stream: TcpStream, act: Act, seen: &Mutex<Vec<Request>>) {
    let (bytes, hold) = match act {
        Act::Slam => {
            seen.lock().unwrap().push(Request { head: String::new(), body: Vec::new() });
            return;
        }
        Act::Send(bytes) => (bytes, false),
        Act::Hold(bytes) => (bytes, true),
    };
    let Some(request) = read(&mut stream) else { return };
    seen.lock().unwrap().push(request);
    // The client may be gone already.
    let _ = stream.write_all(&bytes);
    if hold {
        let _ = stream.read(&mut [0]);
    }
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 65_536];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                return Some(Request { head, body: bytes[end + 4..].to_vec() });
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}

/// An answer that ends when the connection does.
pub(crate) fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n").into_bytes();
    bytes.extend_from_slice(body.as_ref());
    bytes
}

/// A stream of events.
pub(crate) fn stream(events: &[Value]) -> Vec<u8> {
    let body: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    answer("200 OK", "Content-Type: text/event-stream; charset=utf-8\r\n", body)
}
