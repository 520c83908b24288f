// SPDX-License-Identifier: Apache-2.0
//! The bodies of the fuzz targets (`tests/fuzz`) as bounded properties, and on the seeds that are kept there.
#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "../../tests/fuzz/bodies/packets.rs"]
mod bodies;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[test]
fn the_seeds_of_the_target_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/packets");
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        bodies::packets(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", folder.display());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packets_arrive_whole_or_are_refused_whole(input in proptest::collection::vec(any::<u8>(), 0..120)) {
        bodies::packets(&input);
    }
}
