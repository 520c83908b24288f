// SPDX-License-Identifier: Apache-2.0
//! Turns `api/*.proto` into Rust without a `protoc` on the machine.

use std::error::Error;

const FILES: [&str; 5] = ["extension.proto", "workload.proto", "authorization.proto", "zds.proto", "citadel.proto"];
/// Messages of Google's that the discovery messages of `envoy-types` use as well: one Rust type for both.
const SHARED: [&str; 2] = ["Any", "Struct"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=api");
    let mut options = tonic_prost_build::Config::new();
    options.enable_type_names().type_name_domain(["."], "type.googleapis.com");
    // A BTreeMap, because resource versions are hashes of the encoding: it must not depend on the order of a HashMap.
    let mut builder = tonic_prost_build::configure().btree_map(".");
    for name in SHARED {
        builder = builder
            .extern_path(format!(".google.protobuf.{name}"), format!("::envoy_types::pb::google::protobuf::{name}"));
    }
    builder.compile_fds_with_config(protox::compile(FILES, ["api"])?, options)?;
    Ok(())
}
