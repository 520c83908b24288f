// SPDX-License-Identifier: Apache-2.0
//! The endpoints of one port of a service (control-plane.md §5.3). Each carries the identity it must prove, so that no pod can stand in for another. Called
//! by `render`.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::{
    core::v3::{Locality, Metadata},
    endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints},
};

use super::{
    fixed::CONNECT_ORIGINATE,
    part::{endpoint, inside, outside},
    service::ISTIO,
};
use crate::{
    envoy::{
        Flavour, Profile,
        encode::{number, structure, text},
        input::{Destination, Endpoints, Serving, identity, socket},
        listener::{DESCRIBED, IDENTITY, ORIGINAL_DST, are_kept},
        names,
    },
    view::{Mesh, Preference, Tunnel, Workload},
};

/// The endpoints of that port; `None` when Envoy looks them up by name.
pub(in crate::envoy) fn assignment(
    serving: &Serving,
    profile: &Profile,
    destination: &Destination,
    port: u16,
) -> Option<ClusterLoadAssignment> {
    let Endpoints::Workloads(workloads) = &destination.endpoints else { return None };
    let service = &destination.service;
    let id = service.id();
    let mut groups = Groups::new();
    for workload in workloads.iter().filter(|workload| workload.ready || service.publish_not_ready) {
        let mappings = workload.services.get(&id).into_iter().flatten();
        let Some(target) = mappings.into_iter().find(|mapping| mapping.service_port == port) else { continue };
        let Some(address) = workload.addresses.first() else { continue };
        let place = &workload.locality;
        let key = (distance(profile, service.preference, workload), [&*place.region, &*place.zone, &*place.subzone]);
        let socket = socket(*address, target.target_port);
        let end = end(serving, profile, workload, &socket, target.target_port);
        groups.entry(key).or_default().extend(end.map(|end| (socket, end)));
    }
    let endpoints = compacted(groups);
    Some(ClusterLoadAssignment {
        cluster_name: names::endpoints(&service.hostname, port),
        endpoints,
        ..Default::default()
    })
}

/// How far away, and where: region, zone, subzone.
type Place<'a> = (u32, [&'a str; 3]);

/// An endpoint with its address, by which it is sorted.
type Ending = (String, LbEndpoint);

/// Endpoints by where they are, the nearest first.
type Groups<'a> = BTreeMap<Place<'a>, Vec<Ending>>;

/// Priorities must not have gaps.
fn compacted(groups: Groups<'_>) -> Vec<LocalityLbEndpoints> {
    let mut priority = 0;
    let mut last = None;
    let group = |((distance, [region, zone, sub_zone]), mut ends): (Place<'_>, Vec<Ending>)| {
        if last.is_some_and(|last| last != distance) {
            priority += 1;
        }
        last = Some(distance);
        // In an order of their own, whatever order they became known in.
        ends.sort_by(|(one, _), (other, _)| one.cmp(other));
        ends.dedup_by(|(one, _), (other, _)| one == other);
        let locality = Locality { region: region.into(), zone: zone.into(), sub_zone: sub_zone.into() };
        LocalityLbEndpoints {
            locality: (locality != Locality::default()).then_some(locality),
            lb_endpoints: ends.into_iter().map(|(_, end)| end).collect(),
            priority,
            ..Default::default()
        }
    };
    groups.into_iter().filter(|(_, ends)| !ends.is_empty()).map(group).collect()
}

/// `OnlySameNode` speaks of the client's node, which is not the waypoint's: it counts as no preference.
fn distance(profile: &Profile, preference: Preference, workload: &Workload) -> u32 {
    let by_node = match preference {
        Preference::Any | Preference::OnlySameNode => return 0,
        Preference::SameZone => false,
        Preference::SameNode => true,
    };
    profile.viewer.distance(&workload.locality, &workload.node, by_node)
}

fn end(serving: &Serving, profile: &Profile, workload: &Workload, socket: &str, port: u16) -> Option<LbEndpoint> {
    let mesh = &serving.mesh;
    let mut metadata = Metadata::default();
    if are_kept(serving, profile) {
        let names = [("workload", &workload.workload_name), ("namespace", &workload.namespace)];
        let names = structure(names.map(|(key, name)| (key, text(&**name))));
        metadata.filter_metadata.insert(DESCRIBED.to_owned(), names);
    }
    let mut put = |filter: &str, key: &str, value: String| {
        metadata.filter_metadata.insert(filter.to_owned(), structure([(key, text(value))]));
    };
    if profile.flavour != Flavour::Stock {
        put(ISTIO, "workload", described(mesh, workload));
    }
    let address = match workload.tunnel {
        Tunnel::Plain => outside(workload.addresses.first()?.to_string(), port),
        Tunnel::Hbone | Tunnel::NativeHbone => {
            put(ORIGINAL_DST, "local", socket.to_owned());
            put(IDENTITY.filter, IDENTITY.key, identity(mesh, workload));
            inside(CONNECT_ORIGINATE, socket.to_owned())
        }
    };
    let metadata = (metadata != Metadata::default()).then_some(metadata);
    let load_balancing_weight = workload.weight.filter(|weight| *weight > 0).and_then(number);
    Some(LbEndpoint { metadata, load_balancing_weight, ..endpoint(address) })
}

/// As Istio's telemetry reads it.
fn described(mesh: &Mesh, workload: &Workload) -> String {
    let Workload { workload_name, namespace, canonical_name, canonical_revision, .. } = workload;
    format!("{workload_name};{namespace};{canonical_name};{canonical_revision};{}", mesh.cluster_id)
}
