// SPDX-License-Identifier: Apache-2.0
//! A bootstrap with routes and endpoints inline, on sockets of the file system.

use std::path::Path;

use envoy_types::pb::{
    envoy::{
        config::{
            bootstrap::v3::{
                Bootstrap, LayeredRuntime, RuntimeLayer, bootstrap::StaticResources, runtime_layer::LayerSpecifier,
            },
            cluster::v3::{Cluster, cluster::ClusterDiscoveryType},
            core::v3::{
                Address, DataSource, Node, Pipe, SubstitutionFormatString, address, data_source,
                substitution_format_string::Format,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
            },
            listener::v3::{Filter, FilterChain, Listener, filter},
            route::v3::{
                DirectResponseAction, Route, RouteConfiguration, RouteMatch, VirtualHost, route::Action,
                route_match::PathSpecifier,
            },
        },
        extensions::filters::{
            common::set_filter_state::v3::{FilterStateValue, filter_state_value},
            http::{cors::v3::Cors, router::v3::Router},
            network::{
                http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier, http_filter,
                },
                set_filter_state::v3::Config,
            },
        },
    },
    google::protobuf::{Struct, Value, value},
};
use mesh_proto::discovery::{Any, pack};
use waypoint_config::{
    envoy::names::{CORS_FILTER, PEER_PRINCIPAL},
    view::routes::MAX_PROGRAM_SIZE,
};

/// What the bootstrap of every waypoint must say about expressions.
fn runtime() -> LayeredRuntime {
    let size = Value { kind: Some(value::Kind::NumberValue(MAX_PROGRAM_SIZE.into())) };
    let layer = Struct { fields: [("re2.max_program_size.error_level".to_owned(), size)].into() };
    LayeredRuntime {
        layers: vec![RuntimeLayer {
            name: "static".to_owned(),
            layer_specifier: Some(LayerSpecifier::StaticLayer(layer)),
        }],
    }
}

pub(crate) fn bootstrap(listeners: Vec<Listener>, clusters: Vec<Cluster>) -> Bootstrap {
    Bootstrap {
        node: Some(Node { id: "test".to_owned(), cluster: "test".to_owned(), ..Node::default() }),
        static_resources: Some(StaticResources { listeners, clusters, secrets: Vec::new() }),
        layered_runtime: Some(runtime()),
        ..Bootstrap::default()
    }
}

/// Serves routes to a client of that identity.
pub(crate) fn listener(socket: &Path, identity: Option<&str>, routes: RouteConfiguration) -> Listener {
    let state = identity.map(|identity| {
        let value = FilterStateValue {
            factory_key: "envoy.string".to_owned(),
            key: Some(filter_state_value::Key::ObjectKey(PEER_PRINCIPAL.to_owned())),
            value: Some(filter_state_value::Value::FormatString(format(identity))),
            ..FilterStateValue::default()
        };
        filter(
            "envoy.filters.network.set_filter_state",
            pack(&Config { on_new_connection: vec![value], ..Config::default() }),
        )
    });
    let http_filter = |name: &str, config: Any| HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    };
    let manager = HttpConnectionManager {
        stat_prefix: "test".to_owned(),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
        http_filters: vec![
            http_filter(CORS_FILTER, pack(&Cors {})),
            http_filter("envoy.filters.http.router", pack(&Router::default())),
        ],
        ..HttpConnectionManager::default()
    };
    let manager = filter("envoy.filters.network.http_connection_manager", pack(&manager));
    Listener {
        name: socket.to_string_lossy().into_owned(),
        address: Some(pipe(socket)),
        filter_chains: vec![FilterChain {
            filters: state.into_iter().chain([manager]).collect(),
            ..FilterChain::default()
        }],
        ..Listener::default()
    }
}

/// Answers with what it was asked.
pub(crate) fn echo(socket: &Path, name: &str) -> Listener {
    let text = format!(
        "{name} %REQ(:METHOD)% %REQ(:PATH)% host=%REQ(:AUTHORITY)% set=[%REQ(x-set)%] add=[%REQ(x-add)%] gone=[%REQ(x-gone)%] to=[%REQ(x-to)%]\n"
    );
    let answer = DirectResponseAction {
        status: 200,
        body: Some(DataSource {
            specifier: Some(data_source::Specifier::InlineString(String::new())),
            ..DataSource::default()
        }),
        body_format: Some(format(&text)),
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(Action::DirectResponse(answer)),
        ..Route::default()
    };
    let host = VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    listener(
        socket,
        None,
        RouteConfiguration { name: name.to_owned(), virtual_hosts: vec![host], ..RouteConfiguration::default() },
    )
}

pub(crate) fn cluster(name: &str, socket: &Path) -> Cluster {
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(pipe(socket)),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    let locality = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() };
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(0)),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            endpoints: vec![locality],
            ..ClusterLoadAssignment::default()
        }),
        ..Cluster::default()
    }
}

fn filter(name: &str, config: Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

fn format(text: &str) -> SubstitutionFormatString {
    let source =
        DataSource { specifier: Some(data_source::Specifier::InlineString(text.to_owned())), ..DataSource::default() };
    SubstitutionFormatString { format: Some(Format::TextFormatSource(source)), ..SubstitutionFormatString::default() }
}

fn pipe(socket: &Path) -> Address {
    let pipe = Pipe { path: socket.to_string_lossy().into_owned(), mode: 0 };
    Address { address: Some(address::Address::Pipe(pipe)) }
}
