// SPDX-License-Identifier: Apache-2.0
//! A stream whose reader may not stand still for ever: a write that makes no progress for a while fails, and one that does is told of.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Wraps a stream.
pub(super) struct Patience<S, P> {
    stream: S,
    limit: Duration,
    progress: P,
    /// Set while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S, P: FnMut()> Patience<S, P> {
    /// Writes may wait for `limit`; `progress` is called when bytes were taken.
    pub(super) fn new(stream: S, limit: Duration, progress: P) -> Self {
        Self { stream, limit, progress, waiting: None }
    }

    fn told(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            (self.progress)();
        }
        written
    }

    fn limited<T>(
        &mut self,
        context: &mut Context<'_>,
        progress: impl FnOnce(&mut S, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(result) = progress(&mut self.stream, context) {
            self.waiting = None;
            return Poll::Ready(result);
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(waiting.as_mut().poll(context));
        // The stream may be polled again while it is being closed.
        waiting.as_mut().reset(Instant::now() + limit);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for Patience<S, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin, P: FnMut() + Unpin> AsyncWrite for Patience<S, P> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.limited(context, |stream, context| Pin::new(stream).poll_write(context, bytes));
        self.told(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.limited(context, |stream, context| Pin::new(stream).poll_write_vectored(context, slices));
        self.told(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.limited(context, |stream, context| Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.limited(context, |stream, context| Pin::new(stream).poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_reads_fails_and_one_that_is_read_slowly_does_not() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut steps = 0;
        let mut near = Patience::new(near, Duration::from_secs(10), || steps += 1);
        let slow_reader = async {
            for _ in 0..5 {
                sleep(Duration::from_secs(9)).await;
                far.read_exact(&mut [0; 4]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(near.write_all(&[0; 20]), slow_reader);
        written.unwrap();
        near.write_all(&[0; 4]).await.unwrap();
        let before = Instant::now();
        assert_eq!(near.write_all(&[0]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(before.elapsed(), Duration::from_secs(10));
        drop(near);
        assert_eq!(steps, 6, "of four bytes each");
    }
}
