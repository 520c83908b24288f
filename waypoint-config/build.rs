// SPDX-License-Identifier: Apache-2.0
//! Makes descriptors of Envoy's messages from the definitions that `envoy-types` brings along, and of ours, for `shown`. Without a `protoc`, and without the network.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where the messages for node proxies are defined.
const OURS: &str = "../proto/api";

/// The files with the messages we send; what they import comes with them.
const FILES: &[&str] = &[
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/config/trace/v3/opentelemetry.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/bootstrap/internal_listener/v3/internal_listener.proto",
    "envoy/extensions/clusters/dns/v3/dns_cluster.proto",
    "envoy/extensions/filters/common/set_filter_state/v3/value.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/grpc_stats/v3/config.proto",
    "envoy/extensions/filters/http/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/filters/http/jwt_authn/v3/config.proto",
    "envoy/extensions/filters/http/rbac/v3/rbac.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/set_filter_state/v3/set_filter_state.proto",
    "envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto",
    "envoy/extensions/filters/listener/original_dst/v3/original_dst.proto",
    "envoy/extensions/filters/network/ext_authz/v3/ext_authz.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/rbac/v3/rbac.proto",
    "envoy/extensions/filters/network/set_filter_state/v3/set_filter_state.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/matching/common_inputs/network/v3/network_inputs.proto",
    "envoy/extensions/matching/input_matchers/ip/v3/ip.proto",
    "envoy/extensions/request_id/uuid/v3/uuid.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/transport_sockets/internal_upstream/v3/internal_upstream.proto",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "google/protobuf/any.proto",
    "google/protobuf/duration.proto",
    "google/protobuf/struct.proto",
    "google/protobuf/wrappers.proto",
    "xds/type/matcher/v3/ip.proto",
    "xds/type/v3/typed_struct.proto",
    "workload.proto",
    "authorization.proto",
];

#[allow(clippy::disallowed_methods, reason = "a build script is told by cargo through the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=descriptors");
    println!("cargo::rerun-if-changed={OURS}");
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let definitions = definitions()?;
    let mut roots = vec![PathBuf::from("descriptors"), PathBuf::from(OURS)];
    for folder in fs::read_dir(&definitions)? {
        let folder = folder?.path();
        // One of them has its files a step further inside.
        let inner = folder.join("proto");
        roots.push(if inner.is_dir() { inner } else { folder });
    }
    let set = protox::Compiler::new(roots)?
        .include_imports(true)
        .open_files(FILES.iter().copied())?
        .encode_file_descriptor_set();
    fs::write(Path::new(&env::var_os("OUT_DIR").ok_or("no OUT_DIR")?).join("envoy.bin"), set)?;
    Ok(())
}

/// Where cargo has put `envoy-types`.
#[allow(clippy::disallowed_methods, reason = "a build script is told by cargo through the environment")]
fn definitions() -> Result<PathBuf, Box<dyn Error>> {
    let cargo = env::var_os("CARGO").ok_or("no CARGO")?;
    // Only what this build needs is there: packages of other platforms need not be.
    let platform = env::var("TARGET")?;
    let arguments = ["metadata", "--format-version", "1", "--offline", "--filter-platform", &platform];
    let output = Command::new(cargo).args(arguments).output()?;
    let text = String::from_utf8(output.stdout)?;
    let metadata: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| format!("cargo metadata: {error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages
        .filter(|package| package["name"] == "envoy-types")
        .find_map(|package| package["manifest_path"].as_str())
        .ok_or("cargo metadata knows no envoy-types")?;
    Ok(Path::new(manifest).parent().ok_or("a manifest without a folder")?.join("proto"))
}
