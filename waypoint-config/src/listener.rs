// SPDX-License-Identifier: Apache-2.0
//! The TLS listener of discovery and certificates (15012): accepts, shakes hands, and hands on who is there.
//!
//! Client certificates are optional: node proxies come with a token, waypoints with a certificate. One that is shown
//! must be of the mesh. Handshakes are bounded in number and time, for each peer and in all; a peer that has shaken hands
//! has half a minute to prove who it is with a call, and a caller may have only so many connections. So peers that say
//! nothing, or nothing but nonsense, cost little and nobody else their place.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mesh_common::lifecycle::{Drain, Tasks};
use mesh_common::telemetry::Seldom;
use mesh_proto::contract::hbone_header::ALPN;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use crate::ca::ServingCertificate;
use crate::caller::{CallerKey, Peer, Share, Shares};

/// Why there is no TLS to serve with.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The roots of the mesh cannot verify clients.
    #[error(
        "the roots of the mesh cannot verify client certificates: {0}; check root-cert.pem in the authority's directory"
    )]
    Roots(String),
    /// The serving certificate and its key do not make a server.
    #[error("the serving certificate cannot be used: {0}")]
    Serving(#[from] rustls::Error),
}

/// A handshake must be done in this time.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// Handshakes under way at once; further connections wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 1024;
/// Connections of one address that have not proved whose they are, handshakes included; further ones are closed. Behind
/// one address there may be many callers, but each proves itself within milliseconds.
const MAX_STRANGERS: usize = 64;
/// A connection must carry a call of a known caller in this time.
const PROOF_PATIENCE: Duration = Duration::from_secs(30);
/// Connections of one caller: a node proxy has two.
const MAX_CONNECTIONS: usize = 32;
/// How long to wait after the system refused to accept: out of descriptors is not mended by asking faster.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The serving certificate, which can be changed under running listeners.
#[derive(Debug)]
pub struct Serving {
    current: ArcSwap<CertifiedKey>,
}

impl Serving {
    /// Serves with `certificate` from now on.
    ///
    /// # Errors
    /// A key the TLS library does not take.
    pub fn new(certificate: ServingCertificate) -> Result<Self, TlsError> {
        Ok(Self { current: ArcSwap::from_pointee(certified(certificate)?) })
    }

    /// Serves new connections with `certificate`.
    ///
    /// # Errors
    /// A key the TLS library does not take; the old certificate stays.
    pub fn replace(&self, certificate: ServingCertificate) -> Result<(), TlsError> {
        self.current.store(Arc::new(certified(certificate)?));
        Ok(())
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn certified(certificate: ServingCertificate) -> Result<CertifiedKey, TlsError> {
    Ok(CertifiedKey::from_der(certificate.chain, certificate.key, &provider())?)
}

fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// The TLS side of the listener: `serving` as our certificate, clients verified against `roots` (PEM) if they show one.
///
/// # Errors
/// Roots that verify nothing.
pub fn tls(serving: Arc<Serving>, roots: &str) -> Result<TlsAcceptor, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(client_verifier(roots)?)
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn client_verifier(roots: &str) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(CertificateDer::pem_slice_iter(roots.as_bytes()).flatten());
    WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::new(provider()))
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::Roots(error.to_string()))
}

/// Connections that have shaken hands, as tonic takes them. Ends when the drain starts.
pub fn connections(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    tasks: &Tasks,
    drain: Drain,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(16);
    let accepting = Accepting {
        listener,
        acceptor,
        ready,
        tasks: tasks.clone(),
        drain: drain.clone(),
        strangers: Shares::new(MAX_STRANGERS),
        callers: Shares::new(MAX_CONNECTIONS),
    };
    let _ = tasks.spawn("accept discovery and certificates", async move {
        tokio::select! {
            () = accepting.run() => {}
            () = drain.started() => {}
        }
    });
    ReceiverStream::new(connections)
}

struct Accepting {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<io::Result<Connection>>,
    tasks: Tasks,
    drain: Drain,
    strangers: Arc<Shares<IpAddr>>,
    callers: Arc<Shares<CallerKey>>,
}

/// What a connection that is refused is told of in the log, and how often at most.
static TURNED_AWAY: Seldom = Seldom::new(5, Duration::from_secs(10));

impl Accepting {
    async fn run(self) {
        let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "cannot accept; is the limit of open files reached?");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(stranger) = self.strangers.take(address.ip()) else {
                if let Some(times) = TURNED_AWAY.due(Instant::now()) {
                    let address = address.ip();
                    warn!(%address, limit = MAX_STRANGERS, times, "a connection was closed: too many from this address have not proved whose they are; what runs there?");
                }
                continue;
            };
            let arrival = Arrival { stream, address, stranger, callers: Arc::clone(&self.callers) };
            let acceptor = self.acceptor.clone();
            let (ready, drain) = (self.ready.clone(), self.drain.clone());
            let _ = self.tasks.spawn("TLS handshake", async move {
                let shaken = tokio::select! {
                    shaken = tokio::time::timeout(HANDSHAKE_PATIENCE, shake_hands(acceptor, arrival)) => shaken,
                    () = drain.started() => return,
                };
                match shaken {
                    // A receiver that is gone means that the server ends.
                    Ok(Ok(connection)) => _ = ready.send(Ok(connection)).await,
                    Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
                    Err(_) => debug!("TLS handshake took too long"),
                }
                drop(place);
            });
        }
    }
}

/// A connection before its handshake.
struct Arrival {
    stream: TcpStream,
    address: SocketAddr,
    stranger: Share<IpAddr>,
    callers: Arc<Shares<CallerKey>>,
}

async fn shake_hands(acceptor: TlsAcceptor, arrival: Arrival) -> io::Result<Connection> {
    let Arrival { stream, address, stranger, callers } = arrival;
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
    let peer = Peer::new(address, certificate.map(CertificateDer::into_owned), stranger, callers);
    Ok(Connection { stream, probation: Probation::new(peer) })
}

/// One client's connection.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    probation: Probation,
}

/// The time a stranger has to prove who it is.
struct Probation {
    peer: Peer,
    /// Until it is known whose the connection is.
    due: Option<Pin<Box<Sleep>>>,
}

impl Probation {
    fn new(peer: Peer) -> Self {
        Self { peer, due: Some(Box::pin(tokio::time::sleep(PROOF_PATIENCE))) }
    }

    /// Ready once a stranger has had its time.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(due) = &mut self.due else { return Poll::Pending };
        if self.peer.is_known() {
            self.due = None;
            return Poll::Pending;
        }
        ready!(due.as_mut().poll(cx));
        if let Some(times) = TURNED_AWAY.due(Instant::now()) {
            let address = self.peer.address();
            warn!(%address, times, "a connection was closed: no call on it has proved whose it is");
        }
        let text = format!("no call has proved within {} s whose connection it is", PROOF_PATIENCE.as_secs());
        // It may be read once more while it is being closed.
        due.as_mut().reset(tokio::time::Instant::now());
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, text))
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.probation.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(overdue) = self.probation.poll(cx) {
            return Poll::Ready(Err(overdue));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::caller::Caller;

    fn stranger() -> Peer {
        let address: SocketAddr = "10.0.0.1:4000".parse().unwrap();
        Peer::new(address, None, Shares::new(1).take(address.ip()).unwrap(), Shares::new(1))
    }

    async fn ends(probation: &mut Probation, within: Duration) -> bool {
        tokio::time::timeout(within, poll_fn(|cx| probation.poll(cx))).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nobody_proves_who_it_is_ends() {
        let mut probation = Probation::new(stranger());
        assert!(!ends(&mut probation, PROOF_PATIENCE / 2).await);
        assert!(ends(&mut probation, PROOF_PATIENCE).await);
        assert!(ends(&mut probation, PROOF_PATIENCE).await, "and stays so");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_of_a_known_caller_stays() {
        let mut probation = Probation::new(stranger());
        assert!(!ends(&mut probation, PROOF_PATIENCE / 2).await);
        assert!(probation.peer.admit(&Caller::assumed("spiffe://td/ns/a/sa/b".parse().unwrap(), None)));
        assert!(!ends(&mut probation, PROOF_PATIENCE * 100).await);
    }
}
