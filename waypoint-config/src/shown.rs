// SPDX-License-Identifier: Apache-2.0
//! Resources as people read them: JSON, for Envoy's messages Envoy's own, with the messages inside messages opened and everything in a fixed order. Called by whoever shows or
//! compares resources; never on the way to an Envoy.

use std::{net::IpAddr, sync::OnceLock};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use mesh_proto::discovery::Any;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;

/// Why a resource cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// It is of a type this program does not send to an Envoy.
    #[error("the type {0} is not among the descriptors: build.rs lists those that are")]
    Unknown(String),
    /// Its bytes are no such message, or it holds something that is unknown.
    #[error("cannot be shown as JSON: {0}")]
    Content(String),
}

/// The message as JSON.
pub fn json(resource: &Any) -> Result<Value, ShowError> {
    let name = resource.type_url.rsplit('/').next().unwrap_or_default();
    let kind = pool()
        .and_then(|pool| pool.get_message_by_name(name))
        .ok_or_else(|| ShowError::Unknown(resource.type_url.clone()))?;
    let content = |error: &dyn std::fmt::Display| ShowError::Content(error.to_string());
    let message = DynamicMessage::decode(kind, resource.value.as_slice()).map_err(|error| content(&error))?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| content(&error))
}

/// The message for node proxies as JSON, its addresses as people write them and not as bytes.
///
/// # Errors
/// As [`json`].
pub fn workload(resource: &Any) -> Result<Value, ShowError> {
    let mut value = json(resource)?;
    write_addresses(&mut value);
    Ok(value)
}

fn write_addresses(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match name.as_str() {
                    "address" | "addresses" => write_address(value),
                    _ => write_addresses(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(write_addresses),
        _ => {}
    }
}

/// An address, a list of addresses, or messages with addresses in them.
fn write_address(value: &mut Value) {
    match value {
        Value::String(text) => {
            let bytes = BASE64_STANDARD.decode(text.as_str()).unwrap_or_default();
            let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from);
            if let Ok(address) = v4.or(v6) {
                *text = address.to_string();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(write_address),
        Value::Object(_) => write_addresses(value),
        _ => {}
    }
}

fn pool() -> Option<&'static DescriptorPool> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    let pool = POOL
        .get_or_init(|| DescriptorPool::decode(include_bytes!(concat!(env!("OUT_DIR"), "/envoy.bin")).as_slice()).ok());
    pool.as_ref()
}
