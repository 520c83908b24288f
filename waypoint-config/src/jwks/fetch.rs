// SPDX-License-Identifier: Apache-2.0
//! One fetch of keys. The address that is connected to is judged, after every look-up and every redirect; size, time and steps are bounded, and nothing of
//! an answer that is no key set goes anywhere. Called by `keeper`.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
};
use tokio_rustls::TlsConnector;

use super::{
    address::Allowed,
    keyset,
    place::{Place, PlaceError},
};
use crate::api::KeySource;

/// Fetches keys.
#[derive(Clone, Debug, Default)]
pub struct Fetcher {
    /// What an operator allows beside what is allowed to all.
    pub allowed: Allowed,
    /// A file with the roots servers are verified with; else those of the system.
    pub roots: Option<PathBuf>,
}

/// Why no keys came.
#[derive(Debug, Error)]
pub enum FetchError {
    /// No place that may be asked.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The name means nothing.
    #[error("{host} cannot be looked up: {source}")]
    LookUp {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// An address that keys are not fetched from.
    #[error("{host} is {address}, {what}, where no keys are fetched; the mesh's operator can allow it (--jwks-allow)")]
    Refused {
        /// The name.
        host: String,
        /// The address.
        address: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// No connection.
    #[error("{place}: cannot connect: {source}")]
    Connect {
        /// Where.
        place: Place,
        /// Why.
        source: io::Error,
    },
    /// No roots.
    #[error("{path}: no root certificates there to verify servers with; --jwks-roots names a file of them")]
    Roots {
        /// The file.
        path: PathBuf,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// A host no certificate can be for.
    #[error("{0}: no certificate can be for this host")]
    Name(Place),
    /// HTTP.
    #[error("{place}: {source}")]
    Http {
        /// Where.
        place: Place,
        /// Why.
        source: hyper::Error,
    },
    /// An answer that is too long, or broken off.
    #[error("{0}: the answer is longer than {MAX_ANSWER} bytes, or breaks off")]
    Answer(Place),
    /// Another status.
    #[error("{place}: answers {status}")]
    Status {
        /// Where.
        place: Place,
        /// The status.
        status: StatusCode,
    },
    /// Round and round.
    #[error("{0}: sends elsewhere for the {MAX_REDIRECTS}th time")]
    Redirects(Place),
    /// Something else than keys.
    #[error("{place}: {reason}")]
    Content {
        /// Where.
        place: Place,
        /// What is wrong.
        reason: String,
    },
    /// No answer in time.
    #[error("{from}: no whole answer within {} ms", patience.as_millis())]
    Silent {
        /// What was asked.
        from: KeySource,
        /// How long it was waited for.
        patience: Duration,
    },
}

/// Of a connection, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The resolver cannot be interrupted: a look-up that nobody waits for any more still has its thread, and its place among so many. Others share those threads.
async fn look_up(host: String, port: u16) -> io::Result<Vec<IpAddr>> {
    let place = LOOK_UPS.acquire().await.map_err(io::Error::other)?;
    let found = tokio::task::spawn_blocking(move || {
        let _place = place;
        (host.as_str(), port).to_socket_addrs().map(|all| all.map(|address| address.ip()).collect())
    });
    found.await.map_err(io::Error::other)?
}

/// Look-ups at once, in the whole program.
static LOOK_UPS: Semaphore = Semaphore::const_new(16);

impl Fetcher {
    /// The public keys of a source.
    ///
    /// # Errors
    /// Whatever stands between us and them; after `patience` at the latest.
    pub async fn fetch(&self, from: &KeySource, patience: Duration) -> Result<Arc<str>, FetchError> {
        let silent = |_| FetchError::Silent { from: from.clone(), patience };
        tokio::time::timeout(patience, self.keys(from)).await.map_err(silent)?
    }

    async fn keys(&self, from: &KeySource) -> Result<Arc<str>, FetchError> {
        let place = match from {
            KeySource::Url(url) => Place::parse(url)?,
            KeySource::Issuer(issuer) => {
                let (place, body) = self.get(Place::of_issuer(issuer)?).await?;
                let named = keyset::place_of_keys(&body);
                let named = named.map_err(|reason| FetchError::Content { place: place.clone(), reason })?;
                place.follow(&named)?
            }
        };
        let (place, body) = self.get(place).await?;
        keyset::keys(&body).map_err(|reason| FetchError::Content { place, reason })
    }

    /// What lies there, or where it sends to, and where that was.
    async fn get(&self, mut place: Place) -> Result<(Place, Bytes), FetchError> {
        for _ in 0..MAX_REDIRECTS {
            match self.ask(&place).await? {
                Answer::Body(body) => return Ok((place, body)),
                Answer::Elsewhere(location) => place = place.follow(&location)?,
            }
        }
        Err(FetchError::Redirects(place))
    }

    async fn ask(&self, place: &Place) -> Result<Answer, FetchError> {
        let stream = self.connect(place).await?;
        if !place.is_tls() {
            return exchange(place, stream).await;
        }
        let name = ServerName::try_from(place.host().to_owned()).map_err(|_| FetchError::Name(place.clone()))?;
        let connector = TlsConnector::from(Arc::new(self.tls().await?));
        let connect = |source| FetchError::Connect { place: place.clone(), source };
        exchange(place, connector.connect(name, stream).await.map_err(connect)?).await
    }

    /// To an address that was judged itself: nobody looks up the name again.
    async fn connect(&self, place: &Place) -> Result<TcpStream, FetchError> {
        let host = place.host().to_owned();
        let addresses: Vec<IpAddr> = match place.address() {
            Some(address) => vec![address],
            None => {
                let found = look_up(host.clone(), place.port()).await;
                found.map_err(|source| FetchError::LookUp { host: host.clone(), source })?
            }
        };
        let mut refused = FetchError::LookUp { host: host.clone(), source: io::Error::other("it has no address") };
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            if let Err(what) = self.allowed.permits(&host, address) {
                refused = FetchError::Refused { host: host.clone(), address, what };
                continue;
            }
            match TcpStream::connect(SocketAddr::new(address, place.port())).await {
                Ok(stream) => return Ok(stream),
                Err(source) => refused = FetchError::Connect { place: place.clone(), source },
            }
        }
        Err(refused)
    }

    /// The roots are read for every fetch: they may have been renewed.
    async fn tls(&self) -> Result<ClientConfig, FetchError> {
        let mut path = self.roots.clone();
        if path.is_none() {
            path = SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.is_file()).map(Path::to_owned);
        }
        let path = path.unwrap_or_else(|| SYSTEM_ROOTS[0].into());
        let pem = tokio::fs::read(&path).await.unwrap_or_default();
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
        if store.is_empty() {
            return Err(FetchError::Roots { path });
        }
        Ok(ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth())
    }
}

enum Answer {
    Body(Bytes),
    Elsewhere(String),
}

async fn exchange(place: &Place, stream: impl Stream) -> Result<Answer, FetchError> {
    let http = |source| FetchError::Http { place: place.clone(), source };
    let builder = http1::Builder::new().max_buf_size(MAX_HEAD).max_headers(100).to_owned();
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(http)?;
    let request = Request::get(place.path())
        .header(header::HOST, place.authority())
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "lateen")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let malformed = |_| FetchError::Place(PlaceError::Syntax(place.to_string()));
    let request = request.map_err(malformed)?;
    let answering = async {
        let answer = sender.send_request(request).await.map_err(http)?;
        let status = answer.status();
        if let (true, Some(location)) = (status.is_redirection(), answer.headers().get(header::LOCATION)) {
            return Ok(Answer::Elsewhere(String::from_utf8_lossy(location.as_bytes()).into_owned()));
        }
        if status != StatusCode::OK {
            return Err(FetchError::Status { place: place.clone(), status });
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        body.map(|body| Answer::Body(body.to_bytes())).map_err(|_| FetchError::Answer(place.clone()))
    };
    tokio::pin!(connection, answering);
    // The connection moves only while it is waited for, and may end before its last answer is read.
    let mut ended = false;
    loop {
        tokio::select! {
            biased;
            answer = &mut answering => return answer,
            _ = &mut connection, if !ended => ended = true,
        }
    }
}

/// In bytes.
const MAX_ANSWER: usize = 512 << 10;
/// Of status and headers, in bytes.
const MAX_HEAD: usize = 32 << 10;
const MAX_REDIRECTS: usize = 4;
/// Of one name.
const MAX_ADDRESSES: usize = 8;
/// Where systems keep the roots they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
