// SPDX-License-Identifier: Apache-2.0
//! What the pod's programs open: each connection a stream of a pooled tunnel.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};
use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

use crate::{
    CONNECTION_WINDOW, FRAME, STREAM_WINDOW, STREAMS, copy,
    pod::{PodNetns, original_destination},
};

/// The tunnels to each destination.
struct Pool {
    pod: Arc<PodNetns>,
    connector: TlsConnector,
    tunnels: Mutex<HashMap<IpAddr, Arc<tokio::sync::Mutex<Vec<Tunnel>>>>>,
}

/// One tunnel.
struct Tunnel {
    sender: SendRequest<Bytes>,
    /// Each stream has a clone.
    streams: Arc<()>,
    connection: JoinHandle<()>,
}

/// Accepts for ever.
pub(crate) async fn serve(listener: TcpListener, pod: Arc<PodNetns>, connector: TlsConnector) -> Result<()> {
    let pool = Arc::new(Pool { pod, connector, tunnels: Mutex::default() });
    loop {
        let (stream, _) = listener.accept().await?;
        let pool = Arc::clone(&pool);
        tokio::spawn(async move {
            // Connections that break are everyday life, and there is no log.
            let _ = carry(stream, &pool).await;
        });
    }
}

async fn carry(stream: TcpStream, pool: &Pool) -> Result<()> {
    let to = original_destination(&stream)?;
    let (sender, _stream) = pool.tunnel(to.ip()).await?;
    let request = Request::builder().method(Method::CONNECT).uri(to.to_string()).body(())?;
    let (answer, send) = sender.ready().await?.send_request(request, false)?;
    let answer = answer.await?;
    ensure!(answer.status().is_success(), "{to} was answered {}", answer.status());
    copy::both_ways(stream, send, answer.into_body()).await
}

impl Pool {
    /// A tunnel with room for a stream; one dial at a time for each destination.
    async fn tunnel(&self, to: IpAddr) -> Result<(SendRequest<Bytes>, Arc<()>)> {
        let tunnels = {
            let mut all = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(to).or_default())
        };
        let mut tunnels = tunnels.lock().await;
        tunnels.retain(|tunnel| !tunnel.connection.is_finished());
        if let Some(tunnel) = tunnels.iter().find(|tunnel| Arc::strong_count(&tunnel.streams) <= STREAMS) {
            return Ok((tunnel.sender.clone(), Arc::clone(&tunnel.streams)));
        }
        let tunnel = self.dial(to).await?;
        let taken = (tunnel.sender.clone(), Arc::clone(&tunnel.streams));
        tunnels.push(tunnel);
        Ok(taken)
    }

    async fn dial(&self, to: IpAddr) -> Result<Tunnel> {
        let stream = self.pod.connect(SocketAddr::new(to, 15008), None).await?;
        let stream = self.connector.connect(ServerName::from(to), stream).await.context("TLS")?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .enable_push(false)
            .handshake(stream)
            .await?;
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Tunnel { sender, streams: Arc::new(()), connection })
    }
}
