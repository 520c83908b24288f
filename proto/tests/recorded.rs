// SPDX-License-Identifier: Apache-2.0
//! Our messages against the bytes of real programs: decoded, read field by field against what was recorded as text, and encoded to the same bytes again.
//!
//! Both ends being ours proves nothing about the wire, these do.
#![allow(clippy::unwrap_used)]

use std::fmt::Debug;
use std::path::Path;

use mesh_proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use mesh_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, pack, string_field, unpack};
use mesh_proto::security::{Action, Authorization, Scope, string_match::MatchType};
use mesh_proto::workload::{Address, TunnelProtocol, WorkloadType, address};
use mesh_proto::zds::{WorkloadRequest, WorkloadResponse, ZdsHello};
use mesh_proto::{contract, spiffe};
use proptest::prelude::*;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    who: String,
    hex: String,
    text: String,
}

impl Recorded {
    fn bytes(&self) -> Vec<u8> {
        let digits = self.hex.as_bytes().chunks(2);
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }
}

const FILES: [&str; 5] = ["zds-agent", "zds-ztunnel", "xds-ztunnel", "istiod", "ca-ztunnel"];

fn recorded(file: &str) -> Vec<Recorded> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire").join(format!("{file}.jsonl"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every recorded message: who sent it, its type, its bytes, its text.
fn all() -> impl Iterator<Item = (&'static str, Recorded)> {
    FILES.into_iter().flat_map(recorded).filter(|message| !message.hex.is_empty()).map(|message| {
        let kind = message.who.split([' ', ',']).next().unwrap();
        let kind = match kind {
            "ZdsHello" => "istio.workload.zds.ZdsHello",
            "WorkloadRequest" => "istio.workload.zds.WorkloadRequest",
            "WorkloadResponse" => "istio.workload.zds.WorkloadResponse",
            "DeltaDiscoveryRequest" => "envoy.service.discovery.v3.DeltaDiscoveryRequest",
            "DeltaDiscoveryResponse" => "envoy.service.discovery.v3.DeltaDiscoveryResponse",
            "IstioCertificateRequest" => "istio.v1.auth.IstioCertificateRequest",
            "IstioCertificateResponse" | "CreateCertificate:" => "istio.v1.auth.IstioCertificateResponse",
            other => panic!("a recording of {other:?}"),
        };
        (kind, message)
    })
}

fn decode<M: Message + Default>(bytes: &[u8]) -> M {
    M::decode(bytes).unwrap()
}

/// What is decoded holds everything that was in the bytes, in the order the encoding prescribes.
fn same_bytes<M: Message + Default>(bytes: &[u8]) {
    assert_eq!(decode::<M>(bytes).encode_to_vec(), bytes);
}

/// The same for messages with a map in them that Envoy's generated code keeps unsorted.
fn same_content<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) {
    let message = decode::<M>(bytes);
    let again = message.encode_to_vec();
    assert_eq!(again.len(), bytes.len());
    assert_eq!(decode::<M>(&again), message);
}

#[test]
fn every_recorded_message_decodes_and_encodes_to_the_same_bytes() {
    let mut count = 0;
    for (kind, message) in all() {
        let bytes = message.bytes();
        match kind {
            "istio.workload.zds.ZdsHello" => same_bytes::<ZdsHello>(&bytes),
            "istio.workload.zds.WorkloadRequest" => same_bytes::<WorkloadRequest>(&bytes),
            "istio.workload.zds.WorkloadResponse" => same_bytes::<WorkloadResponse>(&bytes),
            "istio.v1.auth.IstioCertificateRequest" => same_bytes::<IstioCertificateRequest>(&bytes),
            "istio.v1.auth.IstioCertificateResponse" => same_bytes::<IstioCertificateResponse>(&bytes),
            "envoy.service.discovery.v3.DeltaDiscoveryRequest" => same_content::<DeltaDiscoveryRequest>(&bytes),
            _ => same_bytes::<DeltaDiscoveryResponse>(&bytes),
        }
        count += 1;
    }
    assert_eq!(count, 64);
}

#[test]
fn every_recorded_resource_decodes_and_packs_to_the_same_bytes() {
    let (mut addresses, mut policies) = (0, 0);
    for (kind, message) in all() {
        if !kind.ends_with("DeltaDiscoveryResponse") {
            continue;
        }
        let response: DeltaDiscoveryResponse = decode(&message.bytes());
        for any in response.resources.iter().map(|resource| resource.resource.as_ref().unwrap()) {
            assert_eq!(any.type_url, response.type_url);
            if any.type_url == contract::type_url::ADDRESS {
                let address = unpack::<Address>(any).unwrap();
                if matches!(&address.r#type, Some(address::Type::Service(service)) if service.waypoint.is_some()) {
                    // Go writes the port of a waypoint before the choice of its destination.
                    same_content::<Address>(&any.value);
                } else {
                    assert_eq!(pack(&address), *any);
                }
                addresses += 1;
            } else {
                assert_eq!(pack(&unpack::<Authorization>(any).unwrap()), *any);
                policies += 1;
            }
        }
    }
    assert_eq!((addresses, policies), (29, 5));
}

/// Our definitions, those of the standard library of protobuf, and the few of Envoy's that occur.
fn definitions() -> DescriptorPool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["workload.proto", "authorization.proto", "zds.proto", "citadel.proto", "discovery.proto"];
    let set = protox::compile(files, [root.join("api"), root.join("tests/wire")]).unwrap();
    DescriptorPool::from_file_descriptor_set(set).unwrap()
}

/// Numbers alone prove little: with two text fields exchanged, the bytes would be the same. Here each field has the name and the value that was recorded.
#[test]
fn every_field_means_what_it_means_to_the_recorded_programs() {
    let definitions = definitions();
    let parse = |kind: &str, text: &str| {
        let kind = definitions.get_message_by_name(kind).unwrap();
        DynamicMessage::parse_text_format(kind, text).unwrap_or_else(|error| panic!("{error:?} in {text}"))
    };
    for (kind, message) in all() {
        let bytes = message.bytes();
        let ours = DynamicMessage::decode(definitions.get_message_by_name(kind).unwrap(), bytes.as_slice()).unwrap();
        if let Ok(summary) = serde_json::from_str::<Summary>(&message.text) {
            // The control plane's answers were recorded as a summary with each resource as text.
            let response: DeltaDiscoveryResponse = decode(&bytes);
            assert_eq!(summary.resources.len(), response.resources.len());
            for (theirs, ours) in summary.resources.iter().zip(&response.resources) {
                let any = ours.resource.as_ref().unwrap();
                let kind = any.type_url.rsplit('/').next().unwrap();
                assert_eq!(theirs.name, ours.name);
                let descriptor = definitions.get_message_by_name(kind).unwrap();
                let ours = DynamicMessage::decode(descriptor, any.value.as_slice()).unwrap();
                assert_eq!(parse(kind, &theirs.resource), ours);
            }
        } else if !message.who.starts_with("CreateCertificate") {
            assert_eq!(parse(kind, &message.text), ours, "{}", message.text);
        }
    }
}

#[derive(Deserialize)]
struct Summary {
    resources: Vec<SummaryResource>,
}

#[derive(Deserialize)]
struct SummaryResource {
    name: String,
    resource: String,
}

#[test]
fn type_urls_are_those_of_the_contract() {
    assert_eq!(Address::type_url(), contract::type_url::ADDRESS);
    assert_eq!(mesh_proto::workload::Workload::type_url(), contract::type_url::WORKLOAD);
    assert_eq!(Authorization::type_url(), contract::type_url::AUTHORIZATION);
}

/// One of each kind, through the generated Rust types and not only through descriptors.
#[test]
fn a_recorded_pod_service_and_policy_read_as_they_should() {
    let responses: Vec<DeltaDiscoveryResponse> = recorded("istiod")
        .iter()
        .filter(|message| message.who.starts_with("DeltaDiscoveryResponse"))
        .map(|message| decode(&message.bytes()))
        .collect();
    let find = |name: &str| {
        let mut resources = responses.iter().flat_map(|response| &response.resources);
        resources.find(|resource| resource.name == name).unwrap().resource.as_ref().unwrap()
    };
    let Some(address::Type::Workload(pod)) =
        unpack::<Address>(find("Kubernetes//Pod/demo/server-c4cc8d89-pmxz6")).unwrap().r#type
    else {
        panic!("not a workload")
    };
    assert_eq!((pod.namespace.as_str(), pod.service_account.as_str(), pod.node.as_str()), ("demo", "server", "n2"));
    assert_eq!(pod.addresses, [vec![10, 244, 2, 5]]);
    assert_eq!((pod.tunnel_protocol(), pod.workload_type()), (TunnelProtocol::Hbone, WorkloadType::Pod));
    assert_eq!(pod.services["demo/server.demo.svc.cluster.local"].ports[0].target_port, 3000);
    assert_eq!(pod.capacity, None);

    let Some(address::Type::Service(service)) =
        unpack::<Address>(find("demo/server.demo.svc.cluster.local")).unwrap().r#type
    else {
        panic!("not a service")
    };
    assert_eq!((service.name.as_str(), service.hostname.as_str()), ("server", "server.demo.svc.cluster.local"));
    assert!(service.canonical && service.waypoint.is_some());

    let policy: Authorization = unpack(find("demo/only-client")).unwrap();
    assert_eq!((policy.scope(), policy.action()), (Scope::WorkloadSelector, Action::Allow));
    let principal = &policy.rules[0].clauses[0].matches[0].principals[0];
    assert_eq!(principal.match_type, Some(MatchType::Exact("cluster.local/ns/demo/sa/client".to_owned())));
}

#[test]
fn a_recorded_certificate_request_names_an_identity_we_accept() {
    for message in recorded("ca-ztunnel").iter().filter(|message| message.who == "IstioCertificateRequest") {
        let request: IstioCertificateRequest = decode(&message.bytes());
        assert_eq!(request.validity_duration, 86_400);
        assert!(request.csr.starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"));
        let text = string_field(request.metadata.as_ref().unwrap(), contract::grpc::IMPERSONATED_IDENTITY).unwrap();
        let identity: spiffe::Identity = text.parse().unwrap();
        assert_eq!((identity.to_string().as_str(), identity.namespace()), (text, "default"));
    }
}

/// Decoding must not panic, whatever comes, and what it accepts must survive a round trip.
fn survives<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        assert_eq!(decode::<M>(&message.encode_to_vec()), message);
    }
}

fn all_survive(bytes: &[u8]) {
    survives::<ZdsHello>(bytes);
    survives::<WorkloadRequest>(bytes);
    survives::<WorkloadResponse>(bytes);
    survives::<Address>(bytes);
    survives::<Authorization>(bytes);
    survives::<DeltaDiscoveryRequest>(bytes);
    survives::<DeltaDiscoveryResponse>(bytes);
    survives::<IstioCertificateRequest>(bytes);
    survives::<IstioCertificateResponse>(bytes);
}

/// Recorded messages and the resources in them: what hostile bytes are made of.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = all().map(|(_, message)| message.bytes()).collect();
    for response in recorded("istiod").iter().filter(|message| message.who.starts_with("DeltaDiscoveryResponse")) {
        let response: DeltaDiscoveryResponse = decode(&response.bytes());
        seeds.extend(response.resources.into_iter().map(|resource| resource.resource.unwrap().value));
    }
    seeds
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        all_survive(&bytes);
    }

    #[test]
    fn a_damaged_message_is_decoded_or_refused(
        seed in proptest::sample::select(seeds()),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        kept in any::<proptest::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = seed;
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if cut {
            bytes.truncate(kept.index(bytes.len()));
        }
        all_survive(&bytes);
    }
}
