// SPDX-License-Identifier: Apache-2.0
//! What things are called in Envoy's configuration: Istio's names, which dashboards and people know. Whoever makes a resource and whoever refers to it ask
//! here.

/// The filter state in which the identity of the client stands, as `spiffe://domain/ns/namespace/sa/account`.
///
/// Routes of clients' namespaces ([`route`](super::route)) are chosen by it, before any filter of the service's chain runs. So it must come with the
/// connection: the `set_filter_state` filter (`envoy.filters.http.set_filter_state`) of `connect_terminate` sets it from `%DOWNSTREAM_PEER_URI_SAN%` with the
/// factory `envoy.string` and shares it with the upstream (`TRANSITIVE` where there is more than one internal listener on the way). A client cannot set it.
pub const PEER_PRINCIPAL: &str = "io.istio.peer_principal";

/// The filter that answers cross-origin requests by the configuration that routes carry: it must be in every HTTP chain, before the router.
pub const CORS_FILTER: &str = "envoy.filters.http.cors";

/// A cluster that never exists: what is sent there is answered with an error, or closed.
pub const NOBODY: &str = "UnknownService";

/// The cluster, and the filter chain, of an HTTP port of a service that this waypoint serves.
pub fn inbound_http(hostname: &str, port: u16) -> String {
    format!("inbound-vip|{port}|http|{hostname}")
}

/// The same of a port with connections.
pub fn inbound_tcp(hostname: &str, port: u16) -> String {
    format!("inbound-vip|{port}|tcp|{hostname}")
}

/// The cluster of a service that this waypoint does not serve.
pub fn outbound(hostname: &str, port: u16) -> String {
    format!("outbound|{port}||{hostname}")
}

/// The RouteConfiguration of an HTTP port of a service that this waypoint serves.
pub fn route_config(hostname: &str, port: u16) -> String {
    inbound_http(hostname, port)
}

/// The endpoints of a port of a service, shared by all its clusters.
pub fn endpoints(hostname: &str, port: u16) -> String {
    format!("{port}||{hostname}")
}
