// SPDX-License-Identifier: Apache-2.0
//! Messages into `Any`, and the small wrappers protobuf wants. Called by every file of the room that makes messages.

use std::time::Duration;

use envoy_types::pb::google::protobuf;
use mesh_proto::discovery::{Any, ListValue, Struct, Value, value};
use prost::{Message, Name};

use super::canonical;

/// The message as it travels. Equal messages give equal bytes, whatever order their maps were in.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: canonical::encode(message) }
}

pub(super) fn duration(of: Duration) -> Option<protobuf::Duration> {
    let nanos = i32::try_from(of.subsec_nanos()).unwrap_or_default();
    // Three hundred thousand years: beyond that Envoy refuses a duration.
    let seconds = i64::try_from(of.as_secs()).unwrap_or(MAX_SECONDS).min(MAX_SECONDS);
    Some(protobuf::Duration { seconds, nanos })
}

pub(super) fn seconds(seconds: u64) -> Option<protobuf::Duration> {
    duration(Duration::from_secs(seconds))
}

pub(super) fn number(value: u32) -> Option<protobuf::UInt32Value> {
    Some(protobuf::UInt32Value { value })
}

pub(super) fn flag(value: bool) -> Option<protobuf::BoolValue> {
    Some(protobuf::BoolValue { value })
}

pub(super) fn text(value: impl Into<String>) -> Value {
    Value { kind: Some(value::Kind::StringValue(value.into())) }
}

pub(super) fn structure<K: Into<String>>(fields: impl IntoIterator<Item = (K, Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(key, value)| (key.into(), value)).collect() }
}

pub(super) fn nested<K: Into<String>>(fields: impl IntoIterator<Item = (K, Value)>) -> Value {
    Value { kind: Some(value::Kind::StructValue(structure(fields))) }
}

pub(super) fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(value::Kind::ListValue(ListValue { values })) }
}

pub(super) fn boolean(value: bool) -> Value {
    Value { kind: Some(value::Kind::BoolValue(value)) }
}

const MAX_SECONDS: i64 = 315_576_000_000;
