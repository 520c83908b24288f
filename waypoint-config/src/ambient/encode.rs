// SPDX-License-Identifier: Apache-2.0
//! Messages into resources: the bytes, their version, and the small spellings of the wire. Called by the files that make messages.

use std::{net::IpAddr, sync::Arc};

use mesh_proto::{contract::default, discovery};
use prost::{Message, Name};
use twox_hash::XxHash64;

use super::resources::{Resource, Type};

/// A resource without aliases, node and services.
pub(super) fn resource<M: Message + Name>(kind: Type, name: impl Into<Arc<str>>, message: &M) -> Resource {
    let body = discovery::pack(message);
    // istiod's own version of an Address, in its own spelling: a proxy that comes over from it with the versions it holds is not sent them again.
    let version = format!("{:x}", XxHash64::oneshot(0, &body.value)).into();
    Resource { kind, name: name.into(), version, aliases: Vec::new(), body, node: None, services: Vec::new() }
}

/// 4 or 16 bytes in network order.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The alias of an address.
pub(super) fn alias(network: &str, address: IpAddr) -> Arc<str> {
    format!("{network}/{address}").into()
}

/// The usual trust domain is left out.
pub(super) fn trust_domain(domain: &str) -> String {
    if domain == default::TRUST_DOMAIN { String::new() } else { domain.to_owned() }
}
