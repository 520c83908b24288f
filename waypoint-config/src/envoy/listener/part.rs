// SPDX-License-Identifier: Apache-2.0
//! Filters and sources in their wrappings. Used by all files of the room, and by `access`.

use envoy_types::pb::envoy::{
    config::{
        core::v3::{AggregatedConfigSource, ApiVersion, ConfigSource, config_source::ConfigSourceSpecifier},
        listener::v3::{Filter, Listener, ListenerFilter, filter, listener, listener_filter},
    },
    extensions::filters::{
        listener::original_dst::v3::OriginalDst,
        network::http_connection_manager::v3::{HttpFilter, http_filter},
    },
};
use mesh_proto::discovery::Any;

use super::state::ORIGINAL_DST;
use crate::envoy::encode::{pack, seconds};

/// A filter of requests.
pub(in crate::envoy) fn http_filter(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

/// A filter of connections.
pub(in crate::envoy) fn network_filter(name: &str, config: Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

pub(super) fn listener_filter(name: &str, config: Any) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

/// A listener only this Envoy itself reaches. Connections keep the addresses they had outside.
pub(super) fn internal_listener(name: &str) -> Listener {
    Listener {
        name: name.to_owned(),
        listener_specifier: Some(listener::ListenerSpecifier::InternalListener(Default::default())),
        listener_filters: vec![listener_filter(ORIGINAL_DST, pack(&OriginalDst::default()))],
        ..Default::default()
    }
}

/// From us, on the stream all resources travel on.
pub(in crate::envoy) fn ads() -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: seconds(0),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource::default())),
        ..Default::default()
    }
}
