// SPDX-License-Identifier: Apache-2.0
//! The bodies of the fuzz targets (`tests/fuzz`) as bounded properties, and on the seeds that are kept there.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod shell;

#[path = "../../../tests/fuzz/bodies/hbone.rs"]
mod bodies;

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

/// Every seed of a target.
fn seeds(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        body(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", folder.display());
}

#[test]
fn the_seeds_of_every_target_hold() {
    seeds("frames", bodies::frames);
    seeds("headers", bodies::headers);
    seeds("operations", bodies::operations);
    seeds("values", bodies::values);
}

/// Bytes of which many are the first bytes of frames that mean something.
fn nearly_frames() -> impl Strategy<Value = Vec<u8>> {
    let whole = (0..11u8, any::<u8>(), 0..6u32, vec(any::<u8>(), 0..40))
        .prop_map(|(kind, flags, stream, payload)| shell::frame(kind, flags & 0x2d, stream, &payload));
    let fitting = (prop_oneof![Just((3u8, 4usize)), Just((8, 4)), Just((6, 8)), Just((4, 6))], 0..6u32).prop_flat_map(
        |((kind, length), stream)| {
            vec(any::<u8>(), length).prop_map(move |payload| {
                shell::frame(kind, 0, if matches!(kind, 4 | 6) { 0 } else { stream }, &payload)
            })
        },
    );
    let connect = (0..6u32, any::<bool>()).prop_map(|(stream, end)| {
        let block = b"\0\x07:method\x07CONNECT\0\x0a:authority\x0b10.0.0.2:80";
        shell::frame(1, 4 | u8::from(end), 2 * stream + 1, block)
    });
    let noise = vec(any::<u8>(), 0..20);
    (any::<u8>(), vec(prop_oneof![3 => whole, 3 => fitting, 3 => connect, 1 => noise], 0..20))
        .prop_map(|(first, frames)| [vec![first], frames.concat()].concat())
}

/// Blocks of which many begin like fields.
fn nearly_blocks() -> impl Strategy<Value = Vec<u8>> {
    let field = prop_oneof![
        Just(b"\0\x07:method\x07CONNECT".to_vec()),
        Just(b"\x01\x0b10.0.0.2:80".to_vec()),
        Just(b"\x41\x8a\x08\x17\x75\xd5\xc4\xbb\x37\x1e\x03\xc0".to_vec()),
        Just(b"\x40\x07baggage\x03a=b".to_vec()),
        (0x80..0xc4u8).prop_map(|index| vec![index]),
        vec(any::<u8>(), 1..12),
    ];
    let block = vec(field, 0..6).prop_map(|fields| {
        let mut block = fields.concat();
        block.resize(block.len().div_ceil(4) * 4, 0x82);
        [vec![(block.len() / 4) as u8], block].concat()
    });
    vec(block, 1..8).prop_map(|blocks| blocks.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_mean_the_same_however_they_are_cut(input in nearly_frames()) {
        bodies::frames(&input);
    }

    #[test]
    fn header_blocks_are_understood_as_by_the_library(input in nearly_blocks()) {
        bodies::headers(&input);
    }

    #[test]
    fn values_survive_the_way_there_and_back(text in "\\PC{0,60}", noise in vec(any::<u8>(), 0..60)) {
        bodies::values(text.as_bytes());
        bodies::values(&noise);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_ends_serve_each_other_whatever_they_do(input in vec(any::<u8>(), 0..300)) {
        bodies::operations(&input);
    }
}
