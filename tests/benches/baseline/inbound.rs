// SPDX-License-Identifier: Apache-2.0
//! What arrives for the pod by HBONE: each stream a connection to the application, made in the client's name.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{Method, Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{CONNECTION_WINDOW, FRAME, STREAM_WINDOW, copy, pod::PodNetns};

/// Accepts for ever.
pub(crate) async fn serve(listener: TcpListener, pod: Arc<PodNetns>, acceptor: TlsAcceptor) -> Result<()> {
    loop {
        let (stream, from) = listener.accept().await?;
        let (pod, acceptor) = (Arc::clone(&pod), acceptor.clone());
        tokio::spawn(async move {
            // Tunnels that break are everyday life, and there is no log.
            let _ = tunnel(stream, from.ip(), &pod, &acceptor).await;
        });
    }
}

async fn tunnel(stream: TcpStream, from: IpAddr, pod: &Arc<PodNetns>, acceptor: &TlsAcceptor) -> Result<()> {
    let stream = acceptor.accept(stream).await.context("TLS")?;
    let mut connection = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .handshake(stream)
        .await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        let pod = Arc::clone(pod);
        tokio::spawn(async move {
            let _ = deliver(request, respond, from, &pod).await;
        });
    }
    Ok(())
}

async fn deliver(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    from: IpAddr,
    pod: &PodNetns,
) -> Result<()> {
    let target = request.uri().authority().and_then(|authority| authority.as_str().parse::<SocketAddr>().ok());
    let (&Method::CONNECT, Some(target)) = (request.method(), target) else {
        respond.send_response(answer(StatusCode::BAD_REQUEST), true)?;
        return Ok(());
    };
    let app = match pod.connect(target, Some(from)).await {
        Ok(app) => app,
        Err(error) => {
            respond.send_response(answer(StatusCode::SERVICE_UNAVAILABLE), true)?;
            return Err(error);
        }
    };
    let send = respond.send_response(answer(StatusCode::OK), false)?;
    copy::both_ways(app, send, request.into_body()).await
}

fn answer(status: StatusCode) -> Response<()> {
    let mut answer = Response::new(());
    *answer.status_mut() = status;
    answer
}
