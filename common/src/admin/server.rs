// SPDX-License-Identifier: Apache-2.0
//! Listens, accepts, and guards against clients that are slow, greedy or many.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{StatusCode, http};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use super::exchange::{Peer, Request, Response, parse_query};
use super::patience::Patience;
use super::places::{Place, Places};
use super::routes::Routes;
use crate::lifecycle::{Drain, Tasks};

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// On 127.0.0.1 and, where the machine has it, on ::1.
    Loopback(u16),
    /// On all addresses of both families, or of IPv4 where there is no IPv6.
    Everywhere(u16),
    /// On this one.
    Exact(SocketAddr),
}

/// A server that holds its addresses but does not accept yet.
pub struct Server {
    name: &'static str,
    listeners: Vec<Listener>,
    shared: Arc<Shared>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

struct Shared {
    routes: Routes,
    limits: Limits,
    places: Arc<Places>,
    /// How many requests are answered at once.
    desks: Semaphore,
}

/// What a client may spend (ztunnel.md M-01 for head and buffer).
#[derive(Debug, Clone, Copy)]
struct Limits {
    head: Duration,
    body: Duration,
    stalled: Duration,
    body_bytes: usize,
    connections: usize,
    at_once: usize,
    answer_bytes: usize,
}

const LIMITS: Limits = Limits {
    head: Duration::from_secs(2),
    body: Duration::from_secs(2),
    stalled: Duration::from_secs(10),
    body_bytes: 64 * 1024,
    connections: 128,
    at_once: 4,
    answer_bytes: 64 << 20,
};
const BUFFER_BYTES: usize = 8 * 1024;
/// After a failed accept, which most often means that the process is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

impl Server {
    /// Binds every address, or fails. `name` is for logs and errors.
    pub async fn bind(name: &'static str, listen: &[Listen], routes: Routes) -> Result<Self, AdminError> {
        let mut listeners = Vec::new();
        for wanted in listen {
            listeners.extend(bind(name, *wanted).await?.into_iter().map(Listener::Tcp));
        }
        Ok(Self::of(name, listeners, routes, LIMITS))
    }

    /// Serves a Unix socket the caller has bound.
    ///
    /// Here, unlike over TCP, a client that closes its side before it has its answer has given up, and the future of its route is dropped.
    /// Every client may wait for its answer at the same time: who may connect at all is decided by the socket's mode.
    pub fn on_unix(name: &'static str, listener: UnixListener, routes: Routes) -> Self {
        Self::of(name, vec![Listener::Unix(listener)], routes, Limits { at_once: LIMITS.connections, ..LIMITS })
    }

    fn of(name: &'static str, listeners: Vec<Listener>, routes: Routes, limits: Limits) -> Self {
        let places = Arc::new(Places::new(name, limits.connections, limits.answer_bytes));
        let desks = Semaphore::new(limits.at_once);
        Self { name, listeners, shared: Arc::new(Shared { routes, limits, places, desks }) }
    }

    /// The TCP addresses it is bound to.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let tcp = |listener: &Listener| match listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        };
        self.listeners.iter().filter_map(tcp).collect()
    }

    /// Accepts until the drain starts, then finishes the requests under way (ztunnel.md P-16).
    pub fn serve(self, tasks: &Tasks, drain: &Drain) {
        let name = self.name;
        for listener in self.listeners {
            let acceptor =
                Acceptor { name, shared: Arc::clone(&self.shared), tasks: tasks.clone(), drain: drain.clone() };
            tasks.spawn(format!("{name} listener"), async move {
                tokio::select! {
                    () = acceptor.drain.started() => {}
                    never = acceptor.accept(&listener) => match never {},
                }
            });
        }
    }
}

/// Why a server could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is taken, or not there.
    #[error("cannot bind the {name} server to {address}: check that no other process has the port")]
    Bind {
        /// The name of the server.
        name: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

async fn bind(name: &'static str, listen: Listen) -> Result<Vec<TcpListener>, AdminError> {
    let one = async |ip: IpAddr, port: u16| {
        let address = SocketAddr::from((ip, port));
        TcpListener::bind(address).await.map_err(|source| AdminError::Bind { name, address, source })
    };
    match listen {
        Listen::Exact(address) => Ok(vec![one(address.ip(), address.port()).await?]),
        Listen::Loopback(port) => {
            let mut listeners = vec![one(Ipv4Addr::LOCALHOST.into(), port).await?];
            match one(Ipv6Addr::LOCALHOST.into(), port).await {
                Ok(listener) => listeners.push(listener),
                Err(error) if is_missing_family(&error) => {}
                Err(error) => return Err(error),
            }
            Ok(listeners)
        }
        Listen::Everywhere(port) => match one(Ipv6Addr::UNSPECIFIED.into(), port).await {
            Err(error) if is_missing_family(&error) => Ok(vec![one(Ipv4Addr::UNSPECIFIED.into(), port).await?]),
            other => Ok(vec![other?]),
        },
    }
}

/// Whether IPv6 is not there at all, as opposed to the port being taken or forbidden.
fn is_missing_family(AdminError::Bind { source, .. }: &AdminError) -> bool {
    !matches!(source.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

struct Acceptor {
    name: &'static str,
    shared: Arc<Shared>,
    tasks: Tasks,
    drain: Drain,
}

impl Acceptor {
    async fn accept(&self, listener: &Listener) -> Infallible {
        loop {
            let failed = match listener {
                Listener::Tcp(listener) => match listener.accept().await {
                    Ok((stream, address)) => {
                        let _ = stream.set_nodelay(true);
                        self.start(self.shared.places.take().await, stream, Peer::Tcp(address));
                        None
                    }
                    Err(error) => Some(error),
                },
                Listener::Unix(listener) => match listener.accept().await {
                    Ok((stream, _)) => {
                        let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                        self.start(self.shared.places.take().await, stream, Peer::Unix { uid });
                        None
                    }
                    Err(error) => Some(error),
                },
            };
            if let Some(error) = failed {
                tracing::warn!(server = self.name, error = &error as &dyn std::error::Error, "cannot accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn start<S>(&self, place: Place, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (shared, drain) = (Arc::clone(&self.shared), self.drain.clone());
        let hold = drain.hold(self.name);
        self.tasks.spawn(self.name, async move {
            let _kept_until_the_end = hold;
            serve_connection(&shared, Arc::new(place), (stream, peer), &drain).await;
        });
    }
}

async fn serve_connection<S>(shared: &Arc<Shared>, place: Arc<Place>, (stream, peer): (S, Peer), drain: &Drain)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let here = &place;
    let service = service_fn(|request: http::Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let answer = respond(shared, here, head, body, peer).await;
        here.answered(answer.body.len());
        Ok::<_, Infallible>(into_hyper(answer))
    });
    let reading = Arc::clone(&place);
    let stream = TokioIo::new(Patience::new(stream, shared.limits.stalled, move || reading.progress()));
    // People send a request with `nc` over TCP; whether a program still waits at the other end of a Unix socket has to be known.
    let may_half_close = matches!(peer, Peer::Tcp(_));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.head)
        .max_buf_size(BUFFER_BYTES)
        .half_close(may_half_close)
        .serve_connection(stream, service);
    tokio::pin!(connection);
    // How a connection ends is the client's business: nothing to report.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = place.given_up() => return,
        () = drain.started() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection => {}
        () = drain.forced() => {}
    }
}

async fn respond(shared: &Shared, place: &Place, head: http::request::Parts, body: Incoming, peer: Peer) -> Response {
    if let Some(refusal) = shared.routes.refusal(&head.method, head.uri.path()) {
        return refusal;
    }
    if body.size_hint().lower() > shared.limits.body_bytes as u64 {
        return Response::failed(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long");
    }
    let body = Limited::new(body, shared.limits.body_bytes).collect();
    let body = match tokio::time::timeout(shared.limits.body, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Response::failed(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long");
        }
        Ok(Err(error)) => return Response::failed(StatusCode::BAD_REQUEST, error),
        Err(_) => return Response::failed(StatusCode::REQUEST_TIMEOUT, "the body came too slowly"),
    };
    // From here on it is we who take the time.
    place.begin();
    let _desk = shared.desks.acquire().await;
    let request = Request {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: parse_query(head.uri.query().unwrap_or_default()),
        headers: head.headers,
        body,
        peer,
    };
    shared.routes.answer(request).await
}

fn into_hyper(response: Response) -> http::Response<Full<Bytes>> {
    let mut answer = http::Response::new(Full::new(response.body));
    *answer.status_mut() = response.status;
    if !response.content_type.is_empty() {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(response.content_type));
    }
    answer
}

#[cfg(test)]
mod tests;
