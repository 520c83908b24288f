// SPDX-License-Identifier: Apache-2.0
//! The TLS listener of discovery and certificates (15012): accepts, shakes hands, and hands on who is there.
//!
//! Client certificates are optional: node proxies come with a token, waypoints with a certificate. One that is shown
//! must be of the mesh. Handshakes are bounded in number and time, so that a peer that says nothing costs nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh_common::lifecycle::{Drain, Tasks};
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
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use crate::ca::ServingCertificate;
use crate::caller::Peer;

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
const MAX_HANDSHAKES: usize = 256;
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
    let accepting = Accepting { listener, acceptor, ready, tasks: tasks.clone(), drain: drain.clone() };
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
}

impl Accepting {
    async fn run(self) {
        let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept; is the limit of open files reached?");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let acceptor = self.acceptor.clone();
            let (ready, drain) = (self.ready.clone(), self.drain.clone());
            let _ = self.tasks.spawn("TLS handshake", async move {
                let shaken = tokio::select! {
                    shaken = tokio::time::timeout(HANDSHAKE_PATIENCE, shake_hands(acceptor, stream)) => shaken,
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

async fn shake_hands(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let address = stream.peer_addr()?;
    let stream = acceptor.accept(stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
    Ok(Connection { stream, peer: Peer::new(address, certificate.map(CertificateDer::into_owned)) })
}

/// One client's connection.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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
