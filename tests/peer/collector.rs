// SPDX-License-Identifier: Apache-2.0
//! Takes in exports of OpenTelemetry's gRPC protocol as bytes: what is in them is shown as the texts they hold.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use h2::{RecvStream, server};
use http::{HeaderMap, HeaderValue, Response};
use tokio::net::TcpStream;

/// Serves for ever, each connection on a thread of its own.
pub(crate) fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    loop {
        let (stream, _) = listener.accept()?;
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            stream.set_nonblocking(true)?;
            // A connection that breaks is Envoy's to begin anew.
            runtime.block_on(async { connection(TcpStream::from_std(stream)?).await })
        });
    }
}

async fn connection(stream: TcpStream) -> Result<()> {
    let mut connection = server::handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        let path = request.uri().path().to_owned();
        // The body comes while the connection is waited for, and is small.
        let body = request.into_body();
        let mut answer =
            respond.send_response(Response::builder().header("content-type", "application/grpc").body(())?, false)?;
        let receiving = receive(body);
        tokio::pin!(receiving);
        let bytes = tokio::select! {
            bytes = &mut receiving => bytes?,
            _ = std::future::poll_fn(|context| connection.poll_closed(context)) => return Err(anyhow!("closed")),
        };
        let texts: String =
            bytes.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { ' ' }).collect();
        println!("{path} {texts}");
        answer.send_data(Bytes::from_static(&[0; 5]), false)?;
        answer.send_trailers(HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from_static("0"))]))?;
    }
    Ok(())
}

async fn receive(mut body: RecvStream) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}
