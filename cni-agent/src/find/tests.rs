// SPDX-License-Identifier: Apache-2.0
//! Namespaces found among processes that exist only in a folder.

use super::*;

#[test]
fn the_start_time_is_found_behind_any_program_name() {
    let stat = "4711 (a ) b (c) S 1 4711 4711 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
    assert_eq!(start_time(stat), Some(987_654));
    assert_eq!(start_time("4711 (a) S 1"), None);
    assert_eq!(start_time(""), None);
}

#[test]
fn what_is_no_network_namespace_is_refused_with_a_reason() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(PodNetns::open(file.path()), Err(FindError::NotNetns { .. })));
    assert!(matches!(PodNetns::open(Path::new("/proc/self/ns/uts")), Err(FindError::NotNetns { .. })));
    // Nobody will ever write into it.
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [&pipe, folder.path(), Path::new("/dev/null"), Path::new("/dev/zero")] {
        assert!(matches!(PodNetns::open(path), Err(FindError::NotNetns { .. })), "{}", path.display());
    }
    let missing = PodNetns::open(Path::new("/var/run/netns/not-there")).unwrap_err();
    assert!(missing.to_string().contains("HostToContainer"), "{missing}");
}

#[test]
fn the_nodes_own_namespace_is_no_pods() {
    let own = Path::new("/proc/self/ns/net");
    let netns = PodNetns::open(own).unwrap();
    let refused = Finder::new("/proc").must_be_a_pods(&netns, own).unwrap_err();
    assert!(matches!(refused, FindError::Node { .. }), "{refused}");
}

#[test]
fn uids_with_and_without_hyphens_are_the_same() {
    assert!(same_uid("2c48913c-b29f-11e7-9350-020968147796", "2C48913CB29F11E79350020968147796"));
    assert!(!same_uid("2c48913c-b29f-11e7-9350-020968147796", "2c48913c-b29f-11e7-9350-020968147797"));
}
