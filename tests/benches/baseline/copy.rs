// SPDX-License-Identifier: Apache-2.0
//! Bytes between an application and a stream of a tunnel, both ways.

use std::{future::poll_fn, io, time::Duration};

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

/// Reads begin small and grow as the application fills them.
const SMALLEST: usize = 16 << 10;
const LARGEST: usize = 256 << 10;

/// Until both directions have ended, or one has failed.
pub(crate) async fn both_ways(mut app: TcpStream, mut send: SendStream<Bytes>, recv: RecvStream) -> Result<()> {
    let (reader, writer) = app.split();
    let done = tokio::try_join!(up(reader, &mut send), down(recv, writer)).map(drop);
    if done.is_err() {
        send.send_reset(Reason::CANCEL);
        // The peer shall not take it for a proper end.
        let _ = SockRef::from(&app).set_linger(Some(Duration::ZERO));
    }
    done
}

async fn up(app: ReadHalf<'_>, send: &mut SendStream<Bytes>) -> Result<()> {
    let mut size = SMALLEST;
    loop {
        app.readable().await?;
        // Lives only while there is something to read: an idle connection has none.
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(size);
            match app.try_read_buf(&mut buffer) {
                Ok(0) => return send.send_data(Bytes::new(), true).context("end the stream"),
                Ok(length) => {
                    if length >= size {
                        size = (size * 2).min(LARGEST);
                    }
                    put(send, buffer.split().freeze()).await?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("read from the application"),
            }
        }
    }
}

/// Hands bytes to the stream as its windows allow.
async fn put(send: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<()> {
    while !bytes.is_empty() {
        send.reserve_capacity(bytes.len());
        let granted = poll_fn(|context| send.poll_capacity(context)).await.context("the stream has ended")??;
        send.send_data(bytes.split_to(granted.min(bytes.len())), false).context("send")?;
    }
    Ok(())
}

async fn down(mut recv: RecvStream, mut app: WriteHalf<'_>) -> Result<()> {
    while let Some(bytes) = recv.data().await {
        let bytes = bytes.context("receive")?;
        app.write_all(&bytes).await.context("write to the application")?;
        recv.flow_control().release_capacity(bytes.len())?;
    }
    app.shutdown().await.context("end towards the application")
}
