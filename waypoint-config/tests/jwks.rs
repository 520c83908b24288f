// SPDX-License-Identifier: Apache-2.0
//! Keys of token issuers fetched from real servers on this machine, good ones and such as want to do harm.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;
use waypoint_config::{
    api::KeySource,
    envoy::input::KeySets,
    jwks::{FetchError, Fetcher, Wanted, run},
};

const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"a","y":"b","kid":"1"}]}"#;
const LIMIT: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(5);

/// A server that answers each path as it says, and counts.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

type Expected = fn(&FetchError) -> bool;
type Respond = fn(&str, SocketAddr) -> String;

impl Server {
    async fn start(respond: Respond) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, respond, address));
            }
        });
        Self { address, asked }
    }

    fn url(&self, path: &str) -> KeySource {
        KeySource::Url(format!("http://{}{path}", self.address))
    }

    /// By a name that means a loopback address.
    fn named(&self, path: &str) -> KeySource {
        KeySource::Url(format!("http://localhost:{}{path}", self.address.port()))
    }

    fn count(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    respond: Respond,
    own: SocketAddr,
) {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(1..) => {}
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let answer = respond(&path, own);
    if stream.write_all(answer.as_bytes()).await.is_err() {
        return;
    }
    match path.as_str() {
        "/endless" => while stream.write_all(&[b' '; 4096]).await.is_ok() {},
        "/endless-head" => while stream.write_all(b"x: y\r\n").await.is_ok() {},
        "/silent" => _ = stream.read_u8().await,
        "/slow" => loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if stream.write_all(b" ").await.is_err() {
                return;
            }
        },
        _ => _ = stream.shutdown().await,
    }
}

fn found(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn respond(path: &str, own: SocketAddr) -> String {
    let to = |place: String| format!("HTTP/1.1 302 Found\r\nlocation: {place}\r\ncontent-length: 0\r\n\r\n");
    match path {
        "/keys" => found(KEYS),
        "/.well-known/openid-configuration" => found(&format!(r#"{{"issuer":"x","jwks_uri":"http://{own}/keys"}}"#)),
        "/file/.well-known/openid-configuration" => found(r#"{"jwks_uri":"file:///etc/passwd"}"#),
        "/elsewhere" => to("/keys".into()),
        "/loop" => to("/loop".into()),
        "/to-loopback" => to(format!("http://127.0.0.1:{}/keys", own.port())),
        "/to-mapped" => to(format!("http://[::ffff:127.0.0.1]:{}/keys", own.port())),
        "/to-metadata" => to("http://169.254.169.254/latest/meta-data/".into()),
        "/to-file" => to("file:///etc/passwd".into()),
        "/garbage" => "\u{1}\u{2}\u{3} not http at all\r\n\r\n".into(),
        "/html" => found("<html>SECRET</html>"),
        "/missing" => "HTTP/1.1 404 Not Found\r\ncontent-length: 6\r\n\r\nSECRET".into(),
        "/short" => "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{".into(),
        "/endless" | "/slow" => "HTTP/1.1 200 OK\r\n\r\n{".into(),
        "/endless-head" => "HTTP/1.1 200 OK\r\n".into(),
        "/silent" => String::new(),
        _ => "HTTP/1.1 500 No\r\n\r\n".into(),
    }
}

fn allowing(allowed: &str) -> Fetcher {
    Fetcher { allowed: allowed.parse().unwrap(), roots: None }
}

/// The error of a fetch, which must not take much longer than it may.
async fn fails(fetcher: &Fetcher, source: &KeySource, patience: Duration) -> FetchError {
    let start = Instant::now();
    let error = fetcher.fetch(source, patience).await.expect_err("no keys");
    assert!(start.elapsed() < patience + Duration::from_secs(5), "{:?} for {error}", start.elapsed());
    let text = error.to_string();
    assert!(!text.contains("SECRET") && text.len() < 500, "{text}");
    error
}

#[tokio::test]
async fn keys_come_from_a_url_after_a_redirect_and_from_an_issuers_configuration() {
    let server = Server::start(respond).await;
    let fetcher = allowing("127.0.0.1");
    for source in
        [server.url("/keys"), server.url("/elsewhere"), KeySource::Issuer(format!("http://{}/", server.address))]
    {
        let keys = fetcher.fetch(&source, PATIENCE).await.unwrap();
        assert!(keys.contains("P-256"), "{keys}");
    }
}

#[tokio::test]
async fn a_loopback_address_is_refused_by_number_by_name_and_after_a_redirect() {
    let server = Server::start(respond).await;
    for source in [server.url("/keys"), server.named("/keys")] {
        let error = fails(&allowing(""), &source, PATIENCE).await;
        assert!(matches!(error, FetchError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("--jwks-allow"), "{error}");
    }
    assert_eq!(server.count(), 0, "nobody connected");
    // The first step is allowed by its name; the second is another host.
    for path in ["/to-loopback", "/to-mapped", "/to-metadata"] {
        let error = fails(&allowing("localhost"), &server.named(path), PATIENCE).await;
        assert!(matches!(error, FetchError::Refused { .. }), "{path}: {error}");
    }
    assert_eq!(server.count(), 3, "only the first steps");
    let issuer = KeySource::Issuer(format!("http://localhost:{}", server.address.port()));
    let error = fails(&allowing("localhost"), &issuer, PATIENCE).await;
    assert!(matches!(error, FetchError::Refused { .. }), "what an issuer's configuration names: {error}");
    assert!(allowing("localhost").fetch(&server.named("/keys"), PATIENCE).await.is_ok());
}

#[tokio::test]
async fn hostile_answers_end_in_bounded_time_and_size_with_a_reason() {
    let server = Server::start(respond).await;
    let fetcher = allowing("127.0.0.1");
    let cases: [(&str, Expected); 11] = [
        ("/endless", |error| matches!(error, FetchError::Answer(_))),
        ("/endless-head", |error| matches!(error, FetchError::Http { .. })),
        ("/loop", |error| matches!(error, FetchError::Redirects(_))),
        ("/to-file", |error| matches!(error, FetchError::Place(_))),
        ("/garbage", |error| matches!(error, FetchError::Http { .. })),
        ("/html", |error| matches!(error, FetchError::Content { .. })),
        ("/missing", |error| matches!(error, FetchError::Status { .. })),
        ("/short", |error| matches!(error, FetchError::Answer(_))),
        ("/silent", |error| matches!(error, FetchError::Silent { .. })),
        ("/slow", |error| matches!(error, FetchError::Silent { .. })),
        ("/nowhere", |error| matches!(error, FetchError::Status { .. })),
    ];
    for (path, is_expected) in cases {
        let patience = if path.starts_with("/s") { Duration::from_millis(300) } else { PATIENCE };
        let error = fails(&fetcher, &server.url(path), patience).await;
        assert!(is_expected(&error), "{path}: {error:?}");
    }
    let file = KeySource::Issuer(format!("http://{}/file", server.address));
    assert!(matches!(fails(&fetcher, &file, PATIENCE).await, FetchError::Place(_)));
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let closed = KeySource::Url(format!("http://{nobody}/keys"));
    assert!(matches!(fails(&fetcher, &closed, PATIENCE).await, FetchError::Connect { .. }));
    let unknown = KeySource::Url("http://no-such-host.invalid/keys".into());
    assert!(matches!(fails(&fetcher, &unknown, PATIENCE).await, FetchError::LookUp { .. } | FetchError::Silent { .. }));
}

#[tokio::test]
async fn a_server_with_tls_must_prove_its_name_and_sends_nobody_out_of_tls() {
    let key = KeyPair::generate().unwrap();
    let mut of_root = CertificateParams::new(Vec::new()).unwrap();
    of_root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = of_root.self_signed(&key).unwrap();
    let issuer = Issuer::new(of_root, key);
    let server_key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&server_key, &issuer).unwrap();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _): (TcpStream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, respond, address).await;
                }
            });
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, root.pem()).unwrap();
    let fetcher = Fetcher { roots: Some(roots), ..allowing("127.0.0.1") };
    let url = |host: &str, path: &str| KeySource::Url(format!("https://{host}:{}{path}", address.port()));
    assert!(fetcher.fetch(&url("localhost", "/keys"), PATIENCE).await.is_ok());
    assert!(matches!(fails(&fetcher, &url("127.0.0.1", "/keys"), PATIENCE).await, FetchError::Connect { .. }));
    assert!(matches!(fails(&fetcher, &url("localhost", "/to-loopback"), PATIENCE).await, FetchError::Place(_)));
    let without = Fetcher { roots: Some(folder.path().join("none.pem")), ..allowing("127.0.0.1") };
    assert!(matches!(fails(&without, &url("localhost", "/keys"), PATIENCE).await, FetchError::Roots { .. }));
}

async fn until(keys: &mut watch::Receiver<Arc<KeySets>>, look: impl Fn(&KeySets) -> bool) {
    let waited = tokio::time::timeout(LIMIT, keys.wait_for(|keys| look(keys))).await;
    assert!(matches!(waited, Ok(Ok(_))), "waited too long");
}

#[tokio::test]
async fn a_source_that_many_name_is_fetched_once_and_a_failing_one_again_and_beside_it() {
    let server = Server::start(respond).await;
    let (want, wanted) = watch::channel(Arc::new(Wanted::new()));
    let (keep, mut keys) = watch::channel(Arc::new(KeySets::new()));
    let running = tokio::spawn(run(allowing("127.0.0.1"), wanted, keep));
    let (good, bad) = (server.url("/keys"), server.url("/missing"));
    for _ in 0..3 {
        want.send_replace(Arc::new(Wanted::from([(good.clone(), PATIENCE), (bad.clone(), PATIENCE)])));
        tokio::task::yield_now().await;
    }
    until(&mut keys, |keys| keys.get(&good).is_some_and(Result::is_ok) && keys.get(&bad).is_some_and(Result::is_err))
        .await;
    // The bad one is asked again, a second or so later; the good one is not.
    let waited = tokio::time::timeout(LIMIT, async {
        while server.count() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "asked {} times", server.count());
    assert_eq!(server.count(), 3);
    want.send_replace(Arc::default());
    until(&mut keys, KeySets::is_empty).await;
    drop(want);
    tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
}
