//! A stream that several owners may use from one task: a split whose halves can also ask how it fares.

use libp2p::Stream;
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

#[derive(Clone)]
pub struct StreamHalf(Arc<Mutex<Compat<Stream>>>);

impl StreamHalf {
    pub fn new(stream: Stream) -> Self {
        StreamHalf(Arc::new(Mutex::new(stream.compat())))
    }

    fn lock(&self) -> MutexGuard<'_, Compat<Stream>> {
        self.0.lock().expect("no panic while polling")
    }

    /// Whether an empty write fails at once, which it does on a stream that was reset.
    pub async fn is_reset(&self) -> bool {
        poll_fn(|context| {
            let written = Pin::new(&mut *self.lock()).poll_write(context, &[]);
            Poll::Ready(matches!(written, Poll::Ready(Err(_))))
        })
        .await
    }
}

impl AsyncRead for StreamHalf {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_read(context, buffer)
    }
}

impl AsyncWrite for StreamHalf {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(context)
    }
}
