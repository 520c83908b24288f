// SPDX-License-Identifier: Apache-2.0
//! One encoding per message. The maps of Envoy's messages are hash maps here and come out in another order each time, but the version of a resource
//! is a hash of its bytes: it must be the same after a restart. So the entries of every map are sorted, by a table of where the maps are. Called by
//! `encode`; `tests/envoy` encodes everything several times and fails when the table lacks one.

use prost::{
    Message, Name,
    encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint},
};

/// The bytes of a message, with its maps in order.
pub(super) fn encode<M: Message + Name>(message: &M) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    match shape(&M::full_name()) {
        // What prost wrote can be read; if not, it is still the message.
        Some(shape) => sort(&bytes, shape).unwrap_or(bytes),
        None => bytes,
    }
}

/// Where a message has maps, in itself or further inside.
struct Shape {
    /// Fields that are maps, and the shape of their values.
    maps: &'static [(u32, &'static Self)],
    /// Fields that are messages with maps inside.
    inside: &'static [(u32, &'static Self)],
}

fn shape(message: &str) -> Option<&'static Shape> {
    Some(match message {
        "envoy.config.cluster.v3.Cluster" => &CLUSTER,
        "envoy.config.endpoint.v3.ClusterLoadAssignment" => &ASSIGNMENT,
        "envoy.config.listener.v3.Listener" => &LISTENER,
        "envoy.config.route.v3.RouteConfiguration" => &ROUTES,
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => &LOG,
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication" => &JWT,
        "envoy.extensions.filters.http.rbac.v3.RBAC" | "envoy.extensions.filters.network.rbac.v3.RBAC" => &RBAC_FILTER,
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => &HTTP,
        "xds.type.matcher.v3.IPMatcher" => &IP_MATCHER,
        "xds.type.v3.TypedStruct" => &TYPED_STRUCT,
        _ => return None,
    })
}

static LEAF: Shape = Shape { maps: &[], inside: &[] };
static STRUCT: Shape = Shape { maps: &[(1, &VALUE)], inside: &[] };
static VALUE: Shape = Shape { maps: &[], inside: &[(5, &STRUCT), (6, &LIST)] };
static LIST: Shape = Shape { maps: &[], inside: &[(1, &VALUE)] };
static TYPED_STRUCT: Shape = Shape { maps: &[], inside: &[(2, &STRUCT)] };
static METADATA: Shape = Shape { maps: &[(1, &STRUCT), (2, &LEAF)], inside: &[] };

static CLUSTER: Shape = Shape { maps: &[(36, &LEAF)], inside: &[(25, &METADATA), (33, &ASSIGNMENT)] };
static ASSIGNMENT: Shape = Shape { maps: &[(5, &LEAF)], inside: &[(2, &LOCALITY)] };
static LOCALITY: Shape = Shape { maps: &[], inside: &[(2, &ENDPOINT), (9, &METADATA)] };
static ENDPOINT: Shape = Shape { maps: &[], inside: &[(3, &METADATA)] };

static LISTENER: Shape = Shape { maps: &[], inside: &[(32, &MATCHER)] };
static MATCHER: Shape = Shape { maps: &[], inside: &[(2, &TREE), (3, &ON_MATCH)] };
static TREE: Shape = Shape { maps: &[], inside: &[(2, &MATCH_MAP)] };
static MATCH_MAP: Shape = Shape { maps: &[(1, &ON_MATCH)], inside: &[] };
static ON_MATCH: Shape = Shape { maps: &[], inside: &[(1, &MATCHER)] };
static IP_MATCHER: Shape = Shape { maps: &[], inside: &[(1, &IP_RANGE)] };
static IP_RANGE: Shape = Shape { maps: &[], inside: &[(2, &ON_MATCH)] };

static HTTP: Shape = Shape { maps: &[], inside: &[(4, &ROUTES)] };
static ROUTES: Shape = Shape { maps: &[(16, &LEAF)], inside: &[(2, &HOST), (17, &METADATA)] };
static HOST: Shape = Shape { maps: &[(15, &LEAF)], inside: &[(3, &ROUTE), (24, &METADATA)] };
static ROUTE: Shape = Shape { maps: &[(13, &LEAF)], inside: &[(2, &ACTION), (4, &METADATA)] };
static ACTION: Shape = Shape { maps: &[], inside: &[(3, &WEIGHTED), (4, &METADATA)] };
static WEIGHTED: Shape = Shape { maps: &[], inside: &[(1, &WEIGHT)] };
static WEIGHT: Shape = Shape { maps: &[(10, &LEAF)], inside: &[(3, &METADATA)] };

static RBAC_FILTER: Shape = Shape { maps: &[], inside: &[(1, &RBAC), (2, &RBAC)] };
static RBAC: Shape = Shape { maps: &[(2, &LEAF)], inside: &[] };
static JWT: Shape = Shape { maps: &[(1, &LEAF), (5, &LEAF)], inside: &[] };
static LOG: Shape = Shape { maps: &[], inside: &[(3, &STRUCT), (4, &STRUCT), (5, &LOG_FORMAT)] };
static LOG_FORMAT: Shape = Shape { maps: &[], inside: &[(2, &STRUCT)] };

/// An entry of a map has its key in field 1 and its value in field 2.
const MAP_VALUE: u32 = 2;

fn sort(mut bytes: &[u8], shape: &Shape) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut entries: Vec<(u32, Vec<u8>)> = Vec::new();
    while !bytes.is_empty() {
        let start = bytes;
        let (tag, wire) = decode_key(&mut bytes).ok()?;
        let field = match wire {
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                take(&mut bytes, length)?
            }
            WireType::Varint => {
                decode_varint(&mut bytes).ok()?;
                &[]
            }
            WireType::ThirtyTwoBit => take(&mut bytes, 4)?,
            WireType::SixtyFourBit => take(&mut bytes, 8)?,
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        if wire == WireType::LengthDelimited {
            if let Some(of) = find(shape.maps, tag) {
                entries.push((tag, sort_entry(field, of)?));
                continue;
            }
            if let Some(of) = find(shape.inside, tag) {
                put(&mut out, tag, &sort(field, of)?);
                continue;
            }
        }
        out.extend_from_slice(&start[..start.len() - bytes.len()]);
    }
    // Behind the other fields: readers do not care where a field stands.
    entries.sort();
    entries.iter().for_each(|(tag, entry)| put(&mut out, *tag, entry));
    Some(out)
}

/// An entry has no maps but those in its value.
fn sort_entry(mut bytes: &[u8], value: &'static Shape) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    while !bytes.is_empty() {
        let start = bytes;
        let (tag, wire) = decode_key(&mut bytes).ok()?;
        if wire != WireType::LengthDelimited {
            return None;
        }
        let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
        let field = take(&mut bytes, length)?;
        match tag {
            MAP_VALUE => put(&mut out, tag, &sort(field, value)?),
            _ => out.extend_from_slice(&start[..start.len() - bytes.len()]),
        }
    }
    Some(out)
}

fn find(table: &[(u32, &'static Shape)], tag: u32) -> Option<&'static Shape> {
    table.iter().find(|(known, _)| *known == tag).map(|(_, shape)| *shape)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(head)
}

fn put(out: &mut Vec<u8>, tag: u32, field: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(field.len() as u64, out);
    out.extend_from_slice(field);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use envoy_types::pb::envoy::config::{
        core::v3::Metadata,
        endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints},
    };

    use super::*;
    use crate::envoy::encode::{nested, structure, text};

    fn assignment() -> ClusterLoadAssignment {
        let inner = || nested((0..20).map(|n| (format!("in{n}"), text("x"))));
        let fields = || structure((0..20).map(|n| (format!("key{n}"), inner())));
        let filter_metadata: HashMap<_, _> = (0..20).map(|n| (format!("filter{n}"), fields())).collect();
        let metadata = Some(Metadata { filter_metadata, ..Default::default() });
        let endpoint = LbEndpoint { metadata, health_status: 1, ..Default::default() };
        let group = LocalityLbEndpoints { lb_endpoints: vec![endpoint; 2], priority: 3, ..Default::default() };
        ClusterLoadAssignment { cluster_name: "c".into(), endpoints: vec![group], ..Default::default() }
    }

    #[test]
    fn equal_messages_have_equal_bytes_whatever_the_order_of_their_maps() {
        let bytes = encode(&assignment());
        for _ in 0..10 {
            assert_eq!(encode(&assignment()), bytes);
        }
        assert_ne!(assignment().encode_to_vec(), assignment().encode_to_vec(), "this test could not fail");
    }

    #[test]
    fn sorting_changes_nothing_a_reader_sees() {
        assert_eq!(ClusterLoadAssignment::decode(encode(&assignment()).as_slice()).unwrap(), assignment());
    }
}
