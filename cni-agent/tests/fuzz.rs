// SPDX-License-Identifier: Apache-2.0
//! The body of the fuzz target `plugin` (`tests/fuzz`) as a bounded property, and on the seeds that are kept there.
#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "../../tests/fuzz/bodies/plugin.rs"]
mod bodies;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[test]
fn the_seeds_of_the_target_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/plugin");
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        bodies::plugin(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", folder.display());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_runtime_says_is_understood_or_refused(
        arguments in "(IgnoreUnknown=1;)?(K8S_POD_NAMESPACE=[a-z./]{0,6};)?(K8S_POD_NAME=[a-z0-9./-]{0,8};)?(K8S_POD_UID=[a-f./]{0,4})?",
        members in proptest::collection::vec(
            prop_oneof![
                Just(r#""cniVersion":"1.0.0""#),
                Just(r#""cniVersion":null"#),
                Just(r#""name":"net""#),
                Just(r#""exclude_namespaces":["a","kube-system"]"#),
                Just(r#""pod_namespace":"a""#),
                Just(r#""agent_pod_prefix":"""#),
                Just(r#""cni_agent_run_dir":"x/..""#),
                Just(r#""prevResult":{"cniVersion":"0.2.0","ips":[{"address":"::ffff:10.0.0.1/24"}]}"#),
                Just(r#""prevResult":{"ip4":{"ip":7}}"#),
                Just(r#""snapshot_max_age_seconds":18446744073709551615"#),
                Just(r#""PodName":"p","PodNamespace":"n""#),
                Just(r#""IPs":[{"Address":{"IP":"::ffff:10.0.0.1"}}]"#),
            ],
            0..6,
        ),
    ) {
        bodies::plugin(format!("{arguments}\n{{{}}}", members.join(",")).as_bytes());
    }
}
