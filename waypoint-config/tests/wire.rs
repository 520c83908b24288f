// SPDX-License-Identifier: Apache-2.0
//! What istiod sent for the objects of a real cluster (`wire/istiod.jsonl`, recorded) against what we make of the same objects: byte for byte, versions
//! included, but for what holds a waypoint, which is equal as a message. One thing is done otherwise on purpose: istiod lets policies with a selector hold for the endpoints of a ServiceEntry without labels.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use mesh_proto::{
    discovery::{self, DeltaDiscoveryResponse, unpack},
    security::Authorization,
    workload::{Address, address},
};
use prost::Message;
use waypoint_config::{
    ambient::{Resources, Type},
    line::Line,
    source::{Ledger, Reading, Role},
    view::Mesh,
};

fn ours() -> Resources {
    let reading = Reading::of(include_bytes!("wire/objects.yaml"), Role::Objects);
    let mut ledger = Ledger::default();
    let changes = ledger.update([("objects.yaml".into(), Role::Objects, Some(reading))]);
    assert_eq!(ledger.faults(), []);
    let mut line = Line::new(Mesh::default());
    line.apply(changes);
    line.resources().clone()
}

fn recorded(kind: Type) -> BTreeMap<String, discovery::Resource> {
    let lines =
        include_str!("wire/istiod.jsonl").lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let bytes = lines
        .filter(|line| line["who"].as_str().unwrap().ends_with(kind.url()))
        .map(|line| hex(line["hex"].as_str().unwrap()));
    let responses = bytes.map(|bytes| DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap());
    responses.flat_map(|response| response.resources).map(|resource| (resource.name.clone(), resource)).collect()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn addresses_are_those_of_istiod_byte_for_byte() {
    let ours = ours();
    let theirs = recorded(Type::Address);
    assert_eq!(theirs.len(), 21);
    assert_eq!(ours.all(Type::Address).map(|one| &*one.name).collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    let mut with_waypoint = 0;
    for (name, theirs) in &theirs {
        let ours = ours.named(Type::Address, name).unwrap();
        let mut expected: Address = unpack(theirs.resource.as_ref().unwrap()).unwrap();
        let found: Address = unpack(&ours.body).unwrap();
        match &mut expected.r#type {
            Some(address::Type::Workload(workload)) if workload.name == "ext" => {
                assert_eq!(
                    workload.authorization_policies,
                    ["demo/only-client", "demo/ports", "istio-system/istio_converted_static_strict"]
                );
                workload.authorization_policies.drain(..2);
                assert_eq!(found, expected, "{name}");
            }
            // Go writes the one-of of a GatewayAddress behind its other fields, we in the order of their numbers.
            Some(address::Type::Service(service)) if service.waypoint.is_some() => {
                with_waypoint += 1;
                assert_eq!(found, expected, "{name}");
                assert_eq!(ours.body.value.len(), theirs.resource.as_ref().unwrap().value.len(), "{name}");
            }
            _ => {
                assert_eq!(Some(&ours.body), theirs.resource.as_ref(), "{name}: {found:#?}\n{expected:#?}");
                assert_eq!(*ours.version, theirs.version, "{name}");
            }
        }
    }
    assert_eq!(with_waypoint, 3);
}

#[test]
fn authorizations_are_those_of_istiod_byte_for_byte() {
    let ours = ours();
    let theirs = recorded(Type::Authorization);
    assert_eq!(
        ours.all(Type::Authorization).map(|one| &*one.name).collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>()
    );
    for (name, theirs) in &theirs {
        let ours = ours.named(Type::Authorization, name).unwrap();
        let found: Authorization = unpack(&ours.body).unwrap();
        assert_eq!(Some(&ours.body), theirs.resource.as_ref(), "{name}: {found:#?}");
    }
}
