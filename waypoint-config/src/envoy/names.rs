// SPDX-License-Identifier: Apache-2.0
//! What clusters, chains and route configurations are called: Istio's spelling, so that its tools and its users' eyes find their way.

/// Cluster, chain and routes of HTTP on a port of a service the waypoint serves.
pub fn http(port: u16, hostname: &str) -> String {
    format!("inbound-vip|{port}|http|{hostname}")
}

/// Cluster and chain of bytes on a port of a service the waypoint serves.
pub fn tcp(port: u16, hostname: &str) -> String {
    format!("inbound-vip|{port}|tcp|{hostname}")
}

/// Cluster of a port of a service the waypoint does not serve.
pub fn outbound(port: u16, hostname: &str) -> String {
    format!("outbound|{port}||{hostname}")
}

/// Endpoints of a port of a service, shared by all its clusters.
pub fn endpoints(port: u16, hostname: &str) -> String {
    format!("{port}||{hostname}")
}
