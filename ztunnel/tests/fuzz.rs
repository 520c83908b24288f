// SPDX-License-Identifier: Apache-2.0
//! The bodies of the fuzz targets (`tests/fuzz`) as bounded properties, and on the seeds that are kept there.
#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "../../tests/fuzz/bodies/choices.rs"]
mod choices;
#[path = "../../tests/fuzz/bodies/mesh.rs"]
mod mesh;
#[path = "../../tests/fuzz/bodies/zds.rs"]
mod zds;

use std::fs;
use std::path::Path;

use mesh_proto::zds::{WorkloadRequest, WorkloadResponse};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

/// Every seed of a target.
fn seeds(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        body(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", folder.display());
}

#[test]
fn the_seeds_of_every_target_hold() {
    seeds("resources", mesh::resources);
    seeds("mesh", choices::mesh);
    seeds("proxy", zds::proxy);
}

/// Records of `proxy` of which many are packets an agent sends.
fn nearly_packets() -> impl Strategy<Value = Vec<u8>> {
    use mesh_proto::zds::workload_request::Payload;
    use mesh_proto::zds::{AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, WorkloadInfo};
    let payload = (0..4u8, 0..3u8).prop_map(|(kind, pod)| {
        let uid = format!("u{pod}");
        let info = || WorkloadInfo { name: uid.clone(), namespace: "n".into(), service_account: "s".into() };
        match kind {
            0 => Payload::Add(AddWorkload { uid: uid.clone(), workload_info: Some(info()) }),
            1 => Payload::Keep(KeepWorkload { uid }),
            2 => Payload::Del(DelWorkload { uid }),
            _ => Payload::SnapshotSent(SnapshotSent {}),
        }
    });
    let packet = (payload, any::<u8>()).prop_map(|(payload, space)| {
        let descriptor = if matches!(payload, Payload::Add(_)) { 0 } else { 0x10 };
        let bytes = WorkloadRequest { payload: Some(payload) }.encode_to_vec();
        [vec![(space & 0x20) | descriptor, bytes.len() as u8], bytes].concat()
    });
    let event = (4..8u8, any::<u8>()).prop_map(|(kind, argument)| vec![kind, argument]);
    let answer = Just([vec![0x10, 2], WorkloadResponse::done().encode_to_vec()].concat());
    let noise = vec(any::<u8>(), 0..12);
    vec(prop_oneof![6 => packet, 5 => event, 1 => answer, 1 => noise], 0..40).prop_map(|records| records.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_of_an_agent_is_answered_once(input in nearly_packets()) {
        zds::proxy(&input);
    }

    #[test]
    fn resources_that_are_not_understood_widen_nothing(records in vec((0..6u8, vec(any::<u8>(), 0..40)), 0..12)) {
        let records = records.into_iter().map(|(kind, bytes)| [&[kind, bytes.len() as u8, 0][..], &bytes].concat());
        mesh::resources(&records.collect::<Vec<_>>().concat());
    }

    #[test]
    fn no_mesh_makes_a_decision_unsafe(input in vec(any::<u8>(), 0..400)) {
        choices::mesh(&input);
    }
}
