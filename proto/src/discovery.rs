// SPDX-License-Identifier: Apache-2.0
//! The discovery protocol (xDS, version 3): messages, client and server of the aggregated service, and resources in and out of `Any`.
//!
//! The messages are Envoy's own, from the `envoy-types` crate. The delta flavour is what node proxies speak (ztunnel.md §4.1 X-01).

use envoy_types::pb::envoy::service::discovery::v3;
use prost::{DecodeError, Message, Name};

pub use envoy_types::pb::envoy::config::core::v3::Node;
pub use envoy_types::pb::google::protobuf::{Any, ListValue, Struct, Value, value};
pub use envoy_types::pb::google::rpc::Status;
pub use v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
pub use v3::aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer};
pub use v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource};

/// A resource as it travels inside a [`Resource`].
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// The resource inside `any`, if it is of the type asked for.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, UnpackError> {
    let expected = M::type_url();
    if any.type_url != expected {
        return Err(UnpackError::Type { expected, found: any.type_url.clone() });
    }
    M::decode(any.value.as_slice()).map_err(|source| UnpackError::Bytes { expected, source })
}

/// Why the content of an `Any` could not be used.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It holds another type.
    #[error(
        "holds a resource of type {found:?} where {expected} was expected: compare the versions of sender and receiver"
    )]
    Type {
        /// The type URL of the message asked for.
        expected: String,
        /// The type URL it carries.
        found: String,
    },
    /// It holds bytes that are no such message.
    #[error("cannot be decoded as {expected}: compare the versions of sender and receiver")]
    Bytes {
        /// The type URL of the message asked for.
        expected: String,
        /// What the decoder met.
        source: DecodeError,
    },
}

/// A string as a protobuf `Value`, as node metadata and certificate requests carry them.
pub fn string_value(text: impl Into<String>) -> Value {
    Value { kind: Some(value::Kind::StringValue(text.into())) }
}

/// The string under `key`, if there is one and it is a string.
pub fn string_field<'a>(metadata: &'a Struct, key: &str) -> Option<&'a str> {
    match metadata.fields.get(key)?.kind.as_ref()? {
        value::Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::Authorization;
    use crate::workload::{Address, Workload, address};

    fn workload() -> Address {
        let workload = Workload { uid: "Kubernetes//Pod/demo/client".to_owned(), ..Workload::default() };
        Address { r#type: Some(address::Type::Workload(workload)) }
    }

    #[test]
    fn a_resource_comes_out_of_any_as_it_went_in() {
        assert_eq!(unpack::<Address>(&pack(&workload())).unwrap(), workload());
    }

    #[test]
    fn another_type_or_damaged_bytes_are_told_apart() {
        let mut any = pack(&workload());
        let error = unpack::<Authorization>(&any).unwrap_err();
        assert!(matches!(&error, UnpackError::Type { found, .. } if *found == any.type_url), "{error}");
        any.value.pop();
        assert!(matches!(unpack::<Address>(&any), Err(UnpackError::Bytes { .. })));
    }

    #[test]
    fn only_strings_are_read_as_strings() {
        let number = Value { kind: Some(value::Kind::NumberValue(1.0)) };
        let fields = [("NAME", string_value("client")), ("PORT", number), ("NOTHING", Value { kind: None })];
        let metadata = Struct { fields: fields.map(|(key, value)| (key.to_owned(), value)).into() };
        assert_eq!(string_field(&metadata, "NAME"), Some("client"));
        for key in ["PORT", "NOTHING", "NAMESPACE"] {
            assert_eq!(string_field(&metadata, key), None);
        }
    }
}
