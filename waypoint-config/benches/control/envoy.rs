// SPDX-License-Identifier: Apache-2.0
//! The real Envoy of the bench, with a certificate of its own making, whose discovery is pointed at the program.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

/// By `ENVOY_BIN`, else among the tools of this build.
pub(crate) fn found() -> Option<PathBuf> {
    let named = std::env::var_os("ENVOY_BIN").map(PathBuf::from);
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("tools");
    let unpacked =
        std::fs::read_dir(tools).into_iter().flatten().filter_map(Result::ok).map(|one| one.path().join("envoy"));
    named.into_iter().chain(unpacked).find(|path| path.is_file())
}

/// A process that ends with its owner.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it; `folder` takes its files, `root` is who signed the server's certificate.
pub(crate) fn start(envoy: &Path, folder: &Path, root: &Path, server: SocketAddr, token: &str) -> Running {
    let pair = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["bench".to_owned()]).unwrap().self_signed(&pair).unwrap();
    let secret = |name: &str, field: &str, value: Value| {
        let kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
        let path = folder.join(format!("{name}.json"));
        std::fs::write(&path, json!({"resources": [{"@type": kind, "name": name, field: value}]}).to_string()).unwrap();
        path.display().to_string()
    };
    let inline = |text: String| json!({"inline_string": text});
    let own = json!({"certificate_chain": inline(certificate.pem()), "private_key": inline(pair.serialize_pem())});
    let own = secret("default", "tls_certificate", own);
    let roots = std::fs::read_to_string(root).unwrap();
    let roots = secret("ROOTCA", "validation_context", json!({"trusted_ca": inline(roots)}));
    let any = |kind: &str, mut value: Value| {
        value["@type"] = json!(format!("type.googleapis.com/{kind}"));
        value
    };
    let http = any(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        json!({"explicit_http_config": {"http2_protocol_options": {}}}),
    );
    let tls = any(
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        json!({"sni": "istiod.istio-system.svc",
            "common_tls_context": {"validation_context": {"trusted_ca": {"filename": root.display().to_string()}}}}),
    );
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": server.port()}});
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    let bootstrap = json!({
        "node": {"id": "waypoint~10.255.0.9~waypoint-1.shop~shop.svc.cluster.local", "cluster": "waypoint.shop",
            "metadata": {"NAMESPACE": "shop", "LATEEN_CERTIFICATE_FILE": own, "LATEEN_ROOTS_FILE": roots}},
        "bootstrap_extensions": [{"name": "internal", "typed_config":
            any("envoy.extensions.bootstrap.internal_listener.v3.InternalListener", json!({}))}],
        "dynamic_resources": {
            "cds_config": ads, "lds_config": ads,
            "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [{
                "envoy_grpc": {"cluster_name": "xds"},
                "initial_metadata": [{"key": "authorization", "value": token}]}]},
        },
        "static_resources": {"clusters": [{
            "name": "xds", "type": "STATIC", "connect_timeout": "5s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http},
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            "load_assignment": {"cluster_name": "xds",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
        }]},
    });
    let path = folder.join("bootstrap.json");
    std::fs::write(&path, bootstrap.to_string()).unwrap();
    let log = std::fs::File::create(folder.join("envoy.log")).unwrap();
    let mut command = Command::new(envoy);
    command.args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning", "-c"]).arg(&path);
    Running(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
}
