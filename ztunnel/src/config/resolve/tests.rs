// SPDX-License-Identifier: Apache-2.0
//! What arguments mean, and what mistakes say.

use clap::{CommandFactory as _, Parser as _};

use super::*;
use crate::control_plane::{Roots, Token};

/// Arguments without the test runner's environment: everything that has a variable is given.
fn args(said: &[&str]) -> Args {
    Args::parse_from(std::iter::once(&"ztunnel").chain(said))
}

fn resolve(said: &[&str]) -> Result<Config, ConfigError> {
    resolve_in(said, Environment::default())
}

fn resolve_in(said: &[&str], environment: Environment) -> Result<Config, ConfigError> {
    let exists = |path: &Path| path.starts_with("/there");
    Config::resolve(&args(said), &World { environment, mesh_config: None, exists: &exists })
}

fn pairs(said: &[(&str, &str)]) -> Environment {
    Environment::new(said.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

#[test]
fn the_defaults_are_the_contracts() {
    let config = resolve(&[]).unwrap();
    let xds = config.xds.as_ref().unwrap();
    assert_eq!(xds.control_plane.address, "https://localhost:15012");
    assert_eq!(xds.control_plane.roots, Roots::File("./var/run/secrets/istio/root-cert.pem".into()));
    assert_eq!(xds.control_plane.token, Token::None);
    assert_eq!(xds.control_plane.cluster_id, "Kubernetes");
    assert_eq!(config.certificates.ttl, Duration::from_secs(86_400));
    assert_eq!((config.admin_port, config.stats_port), (15000, 15020));
    assert_eq!(config.sockets.mark, Some(0x539));
    assert_eq!(config.drain_deadline, Duration::from_secs(5));
    assert_eq!(config.hbone.stream_window, 4 << 20);
    assert_eq!(config.original_source, Transparent::Auto);
    assert_eq!(config.own_pod, None);
    assert!(config.expects_dns, "as it is on by default in Istio's");
    assert_eq!(xds.node.node().id, "ztunnel~1.1.1.1~.~.svc.cluster.local");
}

#[test]
fn in_kubernetes_the_control_plane_is_istiod() {
    let config = resolve(&["--kubernetes-service-host", "10.0.0.1"]).unwrap();
    assert_eq!(config.certificates.control_plane.address, "https://istiod.istio-system.svc:15012");
}

#[test]
fn addresses_get_a_scheme_and_never_lose_tls() {
    let config = resolve(&["--xds-address", "istiod:15012", "--ca-address", "https://ca:1"]).unwrap();
    assert_eq!(config.xds.unwrap().control_plane.address, "https://istiod:15012");
    assert_eq!(config.certificates.control_plane.address, "https://ca:1");
    assert!(resolve(&["--xds-address", ""]).unwrap().xds.is_none());
    assert!(resolve(&["--ca-address", "http://ca:1"]).unwrap_err().to_string().contains("plaintext"));
}

#[test]
fn every_mistake_is_reported() {
    let error = resolve(&[
        "--ipv6-enabled",
        "yes",
        "--secret-ttl",
        "soon",
        "--keepalive-retries=-0.5",
        "--http2-frame-size",
        "1",
        "--log-format",
        "xml",
        "--crl-path",
        "/x",
        "--local-xds",
        "{}",
        "--local-xds-path",
        "/x",
        "--instance-ip",
        "here",
        "--ztunnel-worker-threads",
        "many",
    ])
    .unwrap_err()
    .to_string();
    for name in [
        "IPV6_ENABLED",
        "SECRET_TTL",
        "KEEPALIVE_RETRIES",
        "HTTP2_FRAME_SIZE",
        "LOG_FORMAT",
        "CRL_PATH",
        "LOCAL_XDS",
        "INSTANCE_IP",
        "ZTUNNEL_WORKER_THREADS",
    ] {
        assert!(error.contains(name), "{name} is not in {error}");
    }
    let error = resolve_in(&[], pairs(&[("ISTIO_METAJSON_A", "{")])).unwrap_err();
    assert!(error.to_string().contains("value of A"));
}

#[test]
fn roots_and_tokens_are_files_or_what_they_are() {
    let config = resolve(&["--xds-root-ca=SYSTEM", "--ca-root-ca=-----BEGIN CERTIFICATE-----"]).unwrap();
    assert_eq!(config.xds.unwrap().control_plane.roots, Roots::System);
    assert!(matches!(config.certificates.control_plane.roots, Roots::Pem(_)));
    // A path whose volume is not mounted yet is a path, and no PEM text without a certificate in it.
    let config = resolve(&["--xds-root-ca", "/not/yet", "--auth-token", "/not/yet"]).unwrap();
    let plane = config.xds.unwrap().control_plane;
    assert_eq!(plane.roots, Roots::File("/not/yet".into()));
    assert_eq!(plane.token, Token::File("/not/yet".into()));
    let config = resolve(&["--auth-token", "abc"]).unwrap();
    assert_eq!(config.certificates.control_plane.token, Token::Literal("abc".into()));
    assert!(!format!("{config:?}").contains("abc"), "tokens are not printed");
}

#[test]
fn metadata_and_headers_come_from_open_names() {
    let environment = pairs(&[
        ("XDS_HEADER_A", "1"),
        ("CA_HEADER_B", "2"),
        ("ISTIO_META_CLUSTER_ID", "east"),
        ("ISTIO_META_ISTIO_VERSION", "1.30"),
        ("ISTIO_META_DNS_CAPTURE", "false"),
        ("ISTIO_METAJSON_LABELS", r#"{"a": 1}"#),
        ("PATH", "/bin"),
    ]);
    let config = resolve_in(&["--cluster-id", "west"], environment).unwrap();
    let xds = config.xds.unwrap();
    assert_eq!(xds.control_plane.cluster_id, "east");
    assert_eq!(xds.control_plane.headers, [("A".to_owned(), "1".to_owned())]);
    assert_eq!(config.certificates.control_plane.headers, [("B".to_owned(), "2".to_owned())]);
    assert_eq!(config.istio_version, "1.30");
    assert!(!config.expects_dns);
    assert_eq!(xds.node.json_metadata.len(), 1);
}

#[test]
fn the_drain_deadline_follows_the_grace_period() {
    let deadline = |said: &[&str]| resolve(said).unwrap().drain_deadline.as_secs();
    assert_eq!(deadline(&["--termination-grace-period-seconds", "30"]), 25);
    assert_eq!(deadline(&["--termination-grace-period-seconds", "10"]), 9);
    assert_eq!(deadline(&["--termination-grace-period-seconds", "0"]), 1);
    let both = ["--termination-grace-period-seconds", "30", "--connection-termination-deadline", "1m"];
    assert_eq!(deadline(&both), 60);
}

#[test]
fn the_own_pod_needs_all_three_names() {
    let said = ["--pod-name", "z", "--pod-namespace", "istio-system", "--service-account", "ztunnel"];
    let own = resolve(&said).unwrap().own_pod.unwrap();
    assert_eq!(own.identity.as_uri(), "spiffe://cluster.local/ns/istio-system/sa/ztunnel");
    assert_eq!(resolve(&said[..4]).unwrap().own_pod, None);
}

#[test]
fn commands_are_words() {
    assert_eq!(args(&[]).wanted(), Ok(Command::Proxy));
    assert_eq!(args(&["proxy", "ztunnel", "--whatever"]).wanted(), Ok(Command::Proxy));
    assert_eq!(args(&["version"]).wanted(), Ok(Command::Version));
    assert!(args(&["prox"]).wanted().is_err());
    assert_eq!(resolve(&["proxy", "ztunnel"]).unwrap().words, "proxy ztunnel");
}

#[test]
fn limits_and_deadlines_are_the_data_threads_own_unless_said_otherwise() {
    let config = resolve(&[]).unwrap();
    assert_eq!((config.limits, config.deadlines), (engine::Limits::default(), engine::Deadlines::default()));
    let said = [
        ("--max-sockets", "5000"),
        ("--max-dials", "100"),
        ("--max-handshakes", "50"),
        ("--max-handshakes-per-pod", "20"),
        ("--max-handshakes-per-source", "10"),
        ("--denied-log-lines", "0"),
        ("--tunnel-bytes", "1000"),
        ("--pod-bytes", "2000"),
        ("--node-bytes", "3000"),
        ("--connect-timeout", "3s"),
        ("--handshake-timeout", "4s"),
        ("--answer-timeout", "5s"),
    ];
    let words: Vec<_> = said.iter().flat_map(|(name, value)| [*name, *value]).collect();
    let config = resolve(&words).unwrap();
    let limits = engine::Limits {
        sockets: Some(5000),
        dials: Some(100),
        handshakes: Some(50),
        handshakes_per_pod: 20,
        handshakes_per_source: 10,
        denied_lines: 0,
        tunnel_bytes: 1000,
        pod_bytes: 2000,
        node_bytes: 3000,
    };
    let seconds = Duration::from_secs;
    let deadlines = engine::Deadlines {
        connect: seconds(3),
        handshake: seconds(4),
        answer: seconds(5),
        ..engine::Deadlines::default()
    };
    assert_eq!((config.limits, config.deadlines), (limits, deadlines));
    let words: Vec<_> = said.iter().flat_map(|(name, _)| [*name, "-1"]).collect();
    let words: Vec<_> = words.chunks(2).map(|pair| format!("{}={}", pair[0], pair[1])).collect();
    let error = resolve(&words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap_err();
    assert_eq!(error.mistakes.len(), said.len(), "{error}");
    assert!(
        resolve(&["--max-sockets", "0", "--connect-timeout", "1ms"])
            .unwrap_err()
            .to_string()
            .contains("LATEEN_CONNECT_TIMEOUT")
    );
}

#[test]
fn help_lists_every_variable() {
    Args::command().debug_assert();
    let help = Args::command().render_long_help().to_string();
    for argument in Args::command().get_arguments().filter(|argument| !argument.is_hide_set()) {
        if let Some(name) = argument.get_env() {
            assert!(help.contains(&*name.to_string_lossy()), "{name:?}");
        }
    }
}
