//! An accepted connection: the socket with the repair of `:authority` on what is read, and the peer's identity.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use super::Peer;
use super::accept::Place;
use super::authority::Repair;

/// A byte that was read from the socket and not passed on.
#[derive(Debug, Clone, Copy)]
enum Kept {
    None,
    /// The repair may still change it.
    Held(u8),
    /// It only found no room.
    Ready(u8),
}

/// A connection, whose `ConnectInfo` is an [`Arc`] of [`Peer`].
#[derive(Debug)]
pub struct PeerStream<S = tokio::net::UnixStream> {
    socket: S,
    repair: Repair,
    kept: Kept,
    peer: Arc<Peer>,
    /// Its place among the connections, which is free again when this is dropped.
    _place: Option<Place>,
}

impl<S> PeerStream<S> {
    pub(super) fn new(socket: S, peer: Peer, place: Option<Place>) -> Self {
        Self { socket, repair: Repair::default(), kept: Kept::None, peer: Arc::new(peer), _place: place }
    }
}

impl<S> Connected for PeerStream<S> {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }
}

impl<S: AsyncRead + Unpin> PeerStream<S> {
    /// Reads into `buf`, which has room for two bytes at least. Nothing is read at the end of the stream only.
    fn read_wide(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        loop {
            if let Kept::Held(byte) = self.kept {
                buf.put_slice(&[byte]);
            }
            let before = buf.filled().len();
            let result = Pin::new(&mut self.socket).poll_read(cx, buf);
            if !matches!(result, Poll::Ready(Ok(()))) {
                buf.set_filled(start);
                return result;
            }
            if buf.filled().len() == before {
                // The end: what was held goes out as it is.
                self.kept = Kept::None;
                return Poll::Ready(Ok(()));
            }
            let read = &mut buf.filled_mut()[start..];
            let ready = self.repair.run(read);
            self.kept = read.get(ready).map_or(Kept::None, |byte| Kept::Held(*byte));
            buf.set_filled(start + ready);
            if ready > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reads by way of two bytes of our own, since the repair may need to see two at once.
    fn read_narrow(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut pair = [0; 2];
        let mut own = ReadBuf::new(&mut pair);
        ready!(self.read_wide(cx, &mut own))?;
        match *own.filled() {
            [first, second] => {
                buf.put_slice(&[first]);
                // With two bytes out of a buffer of two nothing is held back.
                self.kept = Kept::Ready(second);
            }
            ref fewer => buf.put_slice(fewer),
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PeerStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match (buf.remaining(), this.kept) {
            (0, _) => Poll::Ready(Ok(())),
            (_, Kept::Ready(byte)) => {
                buf.put_slice(&[byte]);
                this.kept = Kept::None;
                Poll::Ready(Ok(()))
            }
            (1, _) => this.read_narrow(cx, buf),
            _ => this.read_wide(cx, buf),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PeerStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::socket::Origin;

    /// `:authority` by its index, without indexing, `/a/%/b` Huffman-coded (`-` for each illegal character on the right).
    fn stream(value: &[u8]) -> Vec<u8> {
        let mut coded = Vec::new();
        httlib_huffman::encode(value, &mut coded).expect("encodes");
        let length = u8::try_from(coded.len()).expect("short");
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0, length + 2, 1, 4, 0, 0, 0, 1, 0x01, 0x80 | length]);
        bytes.extend(coded);
        bytes
    }

    async fn read_all(sent: Vec<u8>, pipe: usize, sizes: &[usize]) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(pipe);
        let peer = Peer::new(1, 1, 1, Origin::Outside);
        let mut server = PeerStream::new(server, peer, None);
        let write = async move { client.write_all(&sent).await.expect("written") };
        let read = async {
            let (mut out, mut buffer) = (Vec::new(), [0; 64]);
            for size in sizes.iter().cycle() {
                match server.read(&mut buffer[..*size]).await.expect("read") {
                    0 => break,
                    count => out.extend_from_slice(&buffer[..count]),
                }
            }
            out
        };
        tokio::join!(write, read).1
    }

    proptest! {
        #[test]
        fn the_repaired_bytes_arrive_whatever_the_pieces(
            pipe in 1usize..40,
            sizes in prop::collection::vec(1usize..40, 1..5),
            cut in 0usize..60,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let (sent, expected) = (stream(b"/a/%/b% tmp/x"), stream(b"-a---b--tmp-x"));
            prop_assert_ne!(sent.len(), 0);
            let sent = &sent[..sent.len() - cut.min(sent.len())];
            let out = runtime.block_on(read_all(sent.to_vec(), pipe, &sizes));
            prop_assert_eq!(out.len(), sent.len(), "also when the client ends in the middle");
            if cut == 0 {
                prop_assert_eq!(out, expected);
            }
        }
    }
}
