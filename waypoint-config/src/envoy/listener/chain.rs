// SPDX-License-Identifier: Apache-2.0
//! The chains of one service, and those for workloads addressed by themselves; built once and kept by `render` until something they are made of changes.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::{
    config::{
        listener::v3::FilterChain,
        route::v3::{
            Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route::Action,
            route_action::ClusterSpecifier as RouteTo, route_match::PathSpecifier,
        },
    },
    extensions::filters::network::{
        http_connection_manager::v3::{Rds, http_connection_manager::RouteSpecifier},
        tcp_proxy::v3::tcp_proxy::ClusterSpecifier,
    },
};

use ipnet::IpNet;

use super::{
    internal::SNIFF_CHAIN,
    matcher::{Guarded, Ports, Way},
    metrics,
    part::ads,
    requests::{self, HttpChain},
    state,
    tcp::{self, TcpChain},
};
use crate::{
    envoy::{
        Profile,
        access::{Refused, Said},
        cluster::{PASSTHROUGH, encap_name, stat_name},
        encode::seconds,
        input::{ServedService, Serving, Speech, identity, ports},
        names,
        route::{self, Protocol},
    },
    view::{Name, ServicePort, Tunnel},
};

/// Chains and the addresses that lead to them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::envoy) struct Chains {
    /// In `main_internal`.
    pub(in crate::envoy) main: Chain,
    /// In `sniff_internal`.
    pub(in crate::envoy) sniffed: Chain,
    /// What must be said about policies.
    pub(in crate::envoy) said: Vec<Said>,
}

/// Chains of one listener.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::envoy) struct Chain {
    /// The chains.
    pub(in crate::envoy) chains: Vec<FilterChain>,
    /// The ways to them.
    pub(in crate::envoy) table: BTreeMap<IpNet, Ports>,
}

/// Of a service the waypoint serves.
pub(in crate::envoy) fn of_service(serving: &Serving, profile: &Profile, served: &ServedService) -> Chains {
    let mut all = Chains::default();
    let (mut main, mut sniffed) = (BTreeMap::new(), BTreeMap::new());
    for port in ports(&served.destination.service) {
        let speech = Speech::of(port.protocol);
        let place = if speech == Speech::Undeclared { &mut all.sniffed } else { &mut all.main };
        let mut put = |chain: FilterChain, said: Vec<Said>| {
            let name = chain.name.clone();
            place.chains.push(chain);
            all.said.extend(said);
            name
        };
        let http = speech.has_http().then(|| http_chain(serving, profile, served, port));
        let http = http.map(|(chain, said)| put(chain, said));
        let tcp = speech.has_tcp().then(|| tcp_chain(serving, served, port));
        let tcp = tcp.map(|(chain, said, refused)| Guarded { chain: put(chain, said), refused });
        let way = match (http, tcp) {
            (Some(http), Some(tcp)) => {
                sniffed.insert(port.port, Way::BySpeech { http, tcp });
                Way::Chain(SNIFF_CHAIN.to_owned())
            }
            (Some(http), None) => Way::Chain(http),
            (None, Some(tcp)) => Way::Guarded(tcp),
            (None, None) => continue,
        };
        main.insert(port.port, way);
    }
    let service = &served.destination.service;
    let addresses = service.addresses.iter().map(|address| IpNet::from(*address));
    for range in addresses.chain(service.ranges.iter().map(IpNet::trunc)) {
        all.main.table.insert(range, Ports::Each(main.clone()));
        all.sniffed.table.insert(range, Ports::Each(sniffed.clone()));
    }
    all
}

fn http_chain(
    serving: &Serving,
    profile: &Profile,
    served: &ServedService,
    port: ServicePort,
) -> (FilterChain, Vec<Said>) {
    let service = &served.destination.service;
    let name = names::inbound_http(&service.hostname, port.port);
    let routes = Rds { config_source: Some(ads()), route_config_name: name.clone() };
    let of = HttpChain {
        name,
        stat_prefix: stat_name(service, port.port),
        routes: RouteSpecifier::Rds(routes),
        access: &[&serving.access, &served.access],
        metrics: metrics::of_requests(serving, profile, service, port.protocol),
        before: Vec::new(),
    };
    requests::chain(serving, profile, of)
}

fn tcp_chain(serving: &Serving, served: &ServedService, port: ServicePort) -> (FilterChain, Vec<Said>, Refused) {
    let service = &served.destination.service;
    let name = names::inbound_tcp(&service.hostname, port.port);
    let cluster_of = |name: &Name, port, protocol| serving.cluster_of(name, port, protocol);
    let to = route::tcp_clusters(&service.hostname, port.port, served.rules(port.port), &cluster_of);
    let of = TcpChain {
        name,
        stat_prefix: stat_name(service, port.port),
        to,
        access: &[&serving.access, &served.access],
        before: Vec::new(),
    };
    tcp::chain(serving, of)
}

/// Of workloads addressed by themselves: what they speak is not declared, and each identity has its own way, because the other end must prove it.
pub(in crate::envoy) fn direct(serving: &Serving, profile: &Profile) -> Chains {
    let mut all = Chains::default();
    let mut made = BTreeMap::new();
    for workload in &serving.workloads {
        let (key, cluster) = match workload.tunnel {
            Tunnel::Plain => ("plain".to_owned(), PASSTHROUGH.to_owned()),
            Tunnel::Hbone | Tunnel::NativeHbone => {
                let identity = identity(&serving.mesh, workload);
                (identity.clone(), encap_name(&identity))
            }
        };
        let way = made.entry(key).or_insert_with_key(|key| {
            let (http, said) = direct_http(serving, profile, &format!("direct-http|{key}"), &cluster);
            let (tcp, more, refused) = direct_tcp(serving, &format!("direct-tcp|{key}"), &cluster);
            let way = Way::BySpeech { http: http.name.clone(), tcp: Guarded { chain: tcp.name.clone(), refused } };
            all.sniffed.chains.extend([http, tcp]);
            all.said.extend(said.into_iter().chain(more));
            way
        });
        for range in workload.addresses.iter().map(|address| IpNet::from(*address)) {
            all.main.table.insert(range, Ports::All(Way::Chain(SNIFF_CHAIN.to_owned())));
            all.sniffed.table.insert(range, Ports::All(way.clone()));
        }
    }
    all
}

fn direct_http(serving: &Serving, profile: &Profile, name: &str, cluster: &str) -> (FilterChain, Vec<Said>) {
    let action = RouteAction {
        cluster_specifier: Some(RouteTo::Cluster(cluster.to_owned())),
        timeout: seconds(0),
        ..Default::default()
    };
    let route = Route {
        name: "default".into(),
        r#match: Some(RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..Default::default() }),
        action: Some(Action::Route(action)),
        ..Default::default()
    };
    let host =
        VirtualHost { name: "direct".into(), domains: vec!["*".into()], routes: vec![route], ..Default::default() };
    let routes = RouteConfiguration { name: name.to_owned(), virtual_hosts: vec![host], ..Default::default() };
    let of = HttpChain {
        name: name.to_owned(),
        stat_prefix: "direct".into(),
        routes: RouteSpecifier::RouteConfig(routes),
        access: &[&serving.access],
        metrics: None,
        before: vec![state::destination()],
    };
    requests::chain(serving, profile, of)
}

fn direct_tcp(serving: &Serving, name: &str, cluster: &str) -> (FilterChain, Vec<Said>, Refused) {
    let of = TcpChain {
        name: name.to_owned(),
        stat_prefix: "direct".into(),
        to: ClusterSpecifier::Cluster(cluster.to_owned()),
        access: &[&serving.access],
        before: vec![state::destination()],
    };
    tcp::chain(serving, of)
}

impl Serving {
    /// The cluster that leads to a port of a service; `None` when there is no such port. A service the waypoint serves has one for HTTP or for bytes or both,
    /// as its port is declared; if the wanted one is missing, the other carries it.
    pub fn cluster_of(&self, service: &Name, port: u16, protocol: Protocol) -> Option<String> {
        let (destination, is_served) = self.destination(service)?;
        let declared = ports(&destination.service).into_iter().find(|one| one.port == port)?;
        let hostname = &destination.service.hostname;
        let speech = Speech::of(declared.protocol);
        Some(match (is_served, protocol == Protocol::Http && speech.has_http() || !speech.has_tcp()) {
            (false, _) => names::outbound(hostname, port),
            (true, true) => names::inbound_http(hostname, port),
            (true, false) => names::inbound_tcp(hostname, port),
        })
    }
}
