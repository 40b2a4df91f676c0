//! Joins a stream and a TCP connection: EOF becomes half-close, any error an abort of both.

use crate::{report::emit, stream_half::StreamHalf};
use libp2p::Stream;
use serde_json::json;
use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, copy_buf},
    net::TcpStream,
};

pub async fn splice(stream: Stream, mut connection: TcpStream, buffer_kib: usize) {
    let outcome = both_ways(StreamHalf::new(stream), &mut connection, buffer_kib * 1024).await;
    if let Err(error) = outcome {
        // The stream is gone already, and its drop was its reset.
        let _already_gone = connection.set_zero_linger();
        emit("tunnel-aborted", json!({"message": error.to_string()}));
    }
}

async fn both_ways(stream: StreamHalf, connection: &mut TcpStream, buffer: usize) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let (from_tcp, mut to_tcp) = connection.split();
    let (from_stream, mut to_stream) = (stream.clone(), stream.clone());
    let closed = AtomicBool::new(false);
    let outbound = async {
        pump(from_tcp, &mut to_stream, buffer).await?;
        closed.store(true, Ordering::Relaxed);
        to_stream.shutdown().await
    };
    let inbound = async {
        pump(from_stream, &mut to_tcp, buffer).await?;
        // rust-yamux reads a reset as EOF; only a write can tell, and only while this side may write.
        if !closed.load(Ordering::Relaxed) && stream.is_reset().await {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        to_tcp.shutdown().await
    };
    tokio::try_join!(outbound, inbound).map(|_| ())
}

async fn pump(from: impl AsyncRead + Unpin, to: &mut (impl AsyncWrite + Unpin), buffer: usize) -> io::Result<()> {
    copy_buf(&mut BufReader::with_capacity(buffer, from), to).await?;
    Ok(())
}
