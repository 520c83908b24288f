// SPDX-License-Identifier: Apache-2.0
//! What the launcher asks Envoy on its admin port. Called by `app` during the drain.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

use super::bootstrap::ADMIN;

/// Envoy did not do what it was asked.
#[derive(Debug, Error)]
pub(super) enum AdminError {
    /// No connection, or it broke.
    #[error("{path}: {source}")]
    Io { path: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    /// Another status.
    #[error("{path}: {status}")]
    Status { path: &'static str, status: hyper::StatusCode },
    /// No answer.
    #[error("{path}: no answer within {} s", PATIENCE.as_secs())]
    Silent { path: &'static str },
}

/// Makes it unhealthy and tells its clients to go elsewhere.
pub(super) async fn drain() -> Result<(), AdminError> {
    ask(Method::POST, "/healthcheck/fail").await?;
    ask(Method::POST, "/drain_listeners?graceful&inboundonly").await?;
    Ok(())
}

/// How many connections it carries. A tunnel without streams carries none: its client lets go of it when it is gone, and sends it nothing new, for the waypoint
/// calls itself unhealthy.
pub(super) async fn connections() -> Result<u64, AdminError> {
    ask(Method::GET, "/stats?filter=downstream_rq_active").await.map(|text| count(&text))
}

fn count(stats: &str) -> u64 {
    let open = |line: &str| line.strip_prefix(CARRIED)?.strip_prefix(": ")?.trim().parse::<u64>().ok();
    stats.lines().filter_map(open).sum()
}

async fn ask(method: Method, path: &'static str) -> Result<String, AdminError> {
    let exchange = async {
        let stream = TcpStream::connect(SocketAddr::from(ADMIN)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.body(Empty::<Bytes>::new())?;
        let answering = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((status, body.to_bytes()))
        };
        tokio::pin!(connection, answering);
        // The connection moves only while it is waited for.
        tokio::select! {
            answer = &mut answering => answer,
            ended = &mut connection => { ended?; answering.await }
        }
    };
    let (status, body) = tokio::time::timeout(PATIENCE, exchange)
        .await
        .map_err(|_| AdminError::Silent { path })?
        .map_err(|source| AdminError::Io { path, source })?;
    if status.is_success() {
        Ok(String::from_utf8_lossy(&body).into_owned())
    } else {
        Err(AdminError::Status { path, status })
    }
}

/// Streams of tunnels, by the name that the control plane gives to what ends them.
const CARRIED: &str = "http.connect_terminate.downstream_rq_active";
const PATIENCE: Duration = Duration::from_secs(2);
const MAX_ANSWER: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_carried_are_the_streams_of_tunnels() {
        let stats = "http.admin.downstream_rq_active: 1\n\
            http.connect_terminate.downstream_rq_active: 3\n\
            http.connect_terminate.downstream_rq_active_more: 9\n\
            http.web.downstream_rq_active: 3\n\
            nonsense\n";
        assert_eq!(count(stats), 3);
        assert_eq!(count(""), 0);
    }
}
