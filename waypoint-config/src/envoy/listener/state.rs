// SPDX-License-Identifier: Apache-2.0
//! Facts that travel with a connection from one listener of a waypoint to the next, as filter state: where the client wanted to go, where it comes from, who
//! it is. Set from what TLS proved, never from what a client says.

use envoy_types::pb::envoy::{
    config::{
        core::v3::{DataSource, SubstitutionFormatString, data_source::Specifier, substitution_format_string::Format},
        listener::v3::Filter,
    },
    extensions::filters::{
        common::set_filter_state::v3::{
            FilterStateValue,
            filter_state_value::{Key, SharedWithUpstream, Value},
        },
        http::set_filter_state::v3::Config as HttpConfig,
        network::{http_connection_manager::v3::HttpFilter, set_filter_state::v3::Config as NetworkConfig},
    },
};

use super::part::{http_filter, network_filter};
use crate::envoy::{Flavour, encode::pack, names::PEER_PRINCIPAL as PEER};

/// Namespace of the addresses a connection had outside; also the metadata that tells a tunnel its destination.
pub(in crate::envoy) const ORIGINAL_DST: &str = "envoy.filters.listener.original_dst";
/// Where the metadata of an endpoint says whom it must prove to be.
pub(in crate::envoy) const IDENTITY: Place = Place { filter: "lateen", key: "identity" };

const LOCAL_IP: &str = "envoy.filters.listener.original_dst.local_ip";
/// Where the client's connection came from.
pub(in crate::envoy) const REMOTE_IP: &str = "envoy.filters.listener.original_dst.remote_ip";
const AUTHORITY: &str = "io.istio.connect_authority";
const LOCAL_PRINCIPAL: &str = "io.istio.local_principal";
/// Envoy checks the peer of a new upstream connection against this, beside the rest.
const EXPECTED_SANS: &str = "envoy.network.upstream_subject_alt_names";
const STRING: &str = "envoy.string";
/// A string by which Istio's Envoy tells connection pools apart.
const HASHABLE: &str = "istio.hashable_string";

/// A place in metadata.
#[derive(Clone, Copy, Debug)]
pub(in crate::envoy) struct Place {
    /// Namespace.
    pub(in crate::envoy) filter: &'static str,
    /// Key.
    pub(in crate::envoy) key: &'static str,
}

/// Where HBONE ends: facts about the tunnel's stream.
pub(super) fn of_tunnel(flavour: Flavour) -> HttpFilter {
    let (string, peer) = factories(flavour);
    let config = HttpConfig {
        on_request_headers: vec![
            value(LOCAL_IP, "%REQ(:AUTHORITY)%", ""),
            value(AUTHORITY, "%REQ(:AUTHORITY)%", peer),
            value(REMOTE_IP, "%DOWNSTREAM_REMOTE_ADDRESS%", ""),
            value(PEER, "%DOWNSTREAM_PEER_URI_SAN%", peer),
            value(LOCAL_PRINCIPAL, "%DOWNSTREAM_LOCAL_URI_SAN%", string),
        ],
        ..Default::default()
    };
    http_filter("connect_authority", pack(&config))
}

/// On the way to another listener: the same facts, which would otherwise travel one step only.
pub(super) fn again(flavour: Flavour) -> Filter {
    let (string, peer) = factories(flavour);
    let same = |key, factory| value(key, &format!("%FILTER_STATE({key}:PLAIN)%"), factory);
    let values = vec![
        same(LOCAL_IP, ""),
        same(REMOTE_IP, ""),
        same(AUTHORITY, peer),
        same(PEER, peer),
        same(LOCAL_PRINCIPAL, string),
    ];
    set(values)
}

/// On the way into a tunnel whose destination is the address the client asked for.
pub(super) fn destination() -> Filter {
    set(vec![value(LOCAL_IP, &format!("%FILTER_STATE({LOCAL_IP}:PLAIN)%"), "")])
}

/// In the tunnel: whom the other end must prove to be. Without the metadata nobody can, which is as it should be.
pub(super) fn expected_identity() -> Filter {
    let Place { filter, key } = IDENTITY;
    set(vec![value(EXPECTED_SANS, &format!("%DYNAMIC_METADATA({filter}:{key})%"), EXPECTED_SANS)])
}

fn factories(flavour: Flavour) -> (&'static str, &'static str) {
    match flavour {
        Flavour::Istio { hashable_strings: true } => (STRING, HASHABLE),
        Flavour::Istio { hashable_strings: false } | Flavour::Stock => (STRING, STRING),
    }
}

fn set(on_new_connection: Vec<FilterStateValue>) -> Filter {
    network_filter("connect_authority", pack(&NetworkConfig { on_new_connection, ..Default::default() }))
}

/// With an empty factory, that of the key.
fn value(key: &str, format: &str, factory: &str) -> FilterStateValue {
    let source = DataSource { specifier: Some(Specifier::InlineString(format.to_owned())), ..Default::default() };
    let format = SubstitutionFormatString { format: Some(Format::TextFormatSource(source)), ..Default::default() };
    FilterStateValue {
        factory_key: factory.to_owned(),
        shared_with_upstream: SharedWithUpstream::Once.into(),
        key: Some(Key::ObjectKey(key.to_owned())),
        value: Some(Value::FormatString(format)),
        ..Default::default()
    }
}
