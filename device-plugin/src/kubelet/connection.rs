//! A connection of kubelet's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;

/// A connection whose answers of up to a kilobyte leave in one piece.
///
/// It says that it cannot write from several places at once, which Unix sockets can: HTTP/2 would not copy a message of 256
/// bytes or more behind its headers then, and write its trailers apart from it. Each piece wakes kubelet.
#[derive(Debug)]
pub(super) struct Connection(UnixStream);

impl From<UnixStream> for Connection {
    fn from(stream: UnixStream) -> Self {
        Self(stream)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

// Writing from several places is left out.
impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_written_comes_through_and_only_from_one_place() {
        let (stream, mut kubelet) = UnixStream::pair().unwrap();
        assert!(stream.is_write_vectored());
        let mut connection = Connection::from(stream);
        assert!(!connection.is_write_vectored());
        connection.write_all(b"answer").await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = Vec::new();
        kubelet.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        kubelet.write_all(b"call").await.unwrap();
        drop(kubelet);
        let mut call = String::new();
        connection.read_to_string(&mut call).await.unwrap();
        assert_eq!(call, "call");
    }
}
