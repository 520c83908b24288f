// SPDX-License-Identifier: Apache-2.0
//! What is written is what is read back, and every kind of drift is seen.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cni_agent::find::{FindError, Finder, PodNetns, Wanted};
use cni_agent::rules::{
    Applied, Difference, Observed, Options, Plan, RulesError, apply, observe, release_redirects, remove,
};

use crate::pod::{NODE, POD, Pod};
use crate::raw::{self, INET};

crate::tests![
    a_plan_is_read_back_as_written_whatever_the_options,
    a_plan_in_place_is_left_alone,
    one_plan_replaces_another,
    every_kind_of_tampering_is_seen_and_repaired,
    what_others_write_in_tables_of_their_own_is_none_of_our_business,
    rules_are_found_among_thousands_of_others,
    a_release_takes_the_redirects_first_and_everything_later,
    nothing_is_left_after_a_removal_and_it_can_be_repeated,
    a_pod_without_ipv6_is_complete_without_its_route,
    the_agent_s_own_namespace_is_refused,
    a_loopback_interface_that_is_down_is_named_as_the_cause,
    a_plan_the_kernel_refuses_leaves_a_clean_pod_clean,
    an_odd_interface_name_matches_exactly_what_is_meant,
    a_namespace_is_opened_by_path_and_known_again,
    a_pod_s_namespace_is_found_by_its_oldest_process_and_its_address,
];

fn variants() -> Vec<Options> {
    let node = Options::default();
    vec![
        node.clone(),
        Options { ipv6: false, ..node.clone() },
        Options { dns_capture: true, ..node.clone() },
        Options { dns_capture: true, ipv6: false, ..node.clone() },
        Options { bypass_inbound: true, ..node.clone() },
        Options { virtual_interfaces: vec!["tap0".to_owned(), "br-*".to_owned()], ..node.clone() },
        Options { probe_source: [169, 254, 1, 2].into(), ..node },
    ]
}

fn a_plan_is_read_back_as_written_whatever_the_options() {
    for options in variants() {
        let (pod, plan) = (Pod::bare(), Plan::new(&options));
        assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::Missing);
        assert_eq!(apply(pod.as_fd(), &plan).unwrap(), Applied::Written { before: Observed::Missing });
        assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::InPlace, "{options:?}");
    }
}

fn a_plan_in_place_is_left_alone() {
    let (pod, plan) = (Pod::bare(), Plan::new(&Options::default()));
    apply(pod.as_fd(), &plan).unwrap();
    assert_eq!(apply(pod.as_fd(), &plan).unwrap(), Applied::Unchanged);
}

fn one_plan_replaces_another() {
    let pod = Pod::bare();
    for options in variants() {
        let plan = Plan::new(&options);
        apply(pod.as_fd(), &plan).unwrap();
        assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::InPlace, "{options:?}");
        for other in variants().into_iter().filter(|other| *other != options) {
            let observed = observe(pod.as_fd(), &Plan::new(&other)).unwrap();
            assert!(matches!(observed, Observed::Differs(_)), "{other:?} looks like {options:?}: {observed}");
        }
    }
}

fn every_kind_of_tampering_is_seen_and_repaired() {
    let (pod, plan) = (Pod::bare(), Plan::new(&Options::default()));
    let (nat, mangle) = ("istio-ambient-nat", "istio-ambient-mangle");
    let tampering: Vec<(Vec<raw::Message>, &str)> = vec![
        (vec![raw::delete_table(INET, mangle)], "table inet istio-ambient-mangle is missing"),
        (
            vec![raw::flush_chain(INET, mangle, "istio-output")],
            "chain inet istio-ambient-mangle istio-output, rule 1: `ct mark",
        ),
        (
            vec![raw::flush_chain(INET, nat, "istio-output")],
            "chain inet istio-ambient-nat istio-output, rule 1: `meta l4proto tcp ip daddr",
        ),
        (
            vec![raw::flush_chain(INET, nat, "first-output")],
            "chain inet istio-ambient-nat first-output, rule 1: `jump istio-output` is missing",
        ),
        (
            vec![raw::accept(INET, nat, "istio-output", false)],
            "istio-output, rule 1: should be `meta l4proto tcp ip daddr",
        ),
        (vec![raw::accept(INET, nat, "istio-output", true)], "istio-output, rule 8: [ accept ] was added by somebody"),
        (vec![raw::new_chain(INET, nat, "mine")], "chain inet istio-ambient-nat mine was added by somebody"),
        (vec![raw::sleep_table(INET, nat)], "table inet istio-ambient-nat has flags 0x1"),
        (
            vec![raw::closed_chain(INET, mangle, "output")],
            "chain inet istio-ambient-mangle output has another hook, priority, type or policy",
        ),
        (
            vec![
                raw::flush_chain(INET, mangle, "output"),
                raw::delete_chain(INET, mangle, "output"),
                raw::base_chain(INET, mangle, "output", ("filter", 3, -150)),
                raw::jump(INET, mangle, "output", "istio-output", true),
            ],
            "chain inet istio-ambient-mangle output has another hook, priority, type or policy",
        ),
        (vec![raw::new_table(INET, "istio-ambient-raw")], "table inet istio-ambient-raw is left over"),
    ];
    for (messages, expected) in tampering {
        apply(pod.as_fd(), &plan).unwrap();
        raw::send(&pod, &messages);
        let observed = observe(pod.as_fd(), &plan).unwrap();
        assert!(matches!(observed, Observed::Differs(_)), "{expected}: {observed:?}");
        assert!(observed.to_string().contains(expected), "wanted {expected:?} in {observed}");
        assert_eq!(apply(pod.as_fd(), &plan).unwrap(), Applied::Written { before: observed });
        assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::InPlace, "after {expected}");
    }
}

fn what_others_write_in_tables_of_their_own_is_none_of_our_business() {
    let (pod, plan) = (Pod::bare(), Plan::new(&Options::default()));
    apply(pod.as_fd(), &plan).unwrap();
    raw::send(
        &pod,
        &[
            raw::new_table(INET, "theirs"),
            raw::base_chain(INET, "theirs", "output", ("nat", 3, -100)),
            raw::accept(INET, "theirs", "output", true),
            raw::new_table(raw::IPV4, "nat"),
            raw::new_chain(raw::IPV4, "nat", "ISTIO_OUTPUT"),
        ],
    );
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::InPlace);
    remove(pod.as_fd(), &plan).unwrap();
    // Adding without asking for creation finds it still there.
    raw::send(&pod, &[raw::flush_chain(INET, "theirs", "output"), raw::flush_chain(raw::IPV4, "nat", "ISTIO_OUTPUT")]);
}

fn rules_are_found_among_thousands_of_others() {
    let (pod, plan) = (Pod::bare(), Plan::new(&Options::default()));
    raw::send(&pod, &[raw::new_table(INET, "theirs"), raw::new_chain(INET, "theirs", "long")]);
    for _ in 0..30 {
        raw::send(&pod, &vec![raw::accept(INET, "theirs", "long", true); 100]);
    }
    // The kernel hands the list over in many pieces.
    apply(pod.as_fd(), &plan).unwrap();
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::InPlace);
    remove(pod.as_fd(), &plan).unwrap();
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::Missing);
}

fn a_release_takes_the_redirects_first_and_everything_later() {
    let (pod, plan) = (Pod::bare(), Plan::new(&Options { dns_capture: true, ..Options::default() }));
    release_redirects(pod.as_fd()).unwrap();
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::Missing);
    apply(pod.as_fd(), &plan).unwrap();
    release_redirects(pod.as_fd()).unwrap();
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::Released);
    release_redirects(pod.as_fd()).unwrap();
    // Enrolled anew before the release was over.
    assert_eq!(apply(pod.as_fd(), &plan).unwrap(), Applied::Written { before: Observed::Released });
    release_redirects(pod.as_fd()).unwrap();
    remove(pod.as_fd(), &plan).unwrap();
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::Missing);
}

fn nothing_is_left_after_a_removal_and_it_can_be_repeated() {
    let (pod, plan) = (Pod::bare(), Plan::new(&Options::default()));
    remove(pod.as_fd(), &plan).unwrap();
    apply(pod.as_fd(), &plan).unwrap();
    for _ in 0..2 {
        remove(pod.as_fd(), &plan).unwrap();
        assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::Missing);
    }
}

fn a_pod_without_ipv6_is_complete_without_its_route() {
    let (pod, plan) = (Pod::bare(), Plan::new(&Options::default()));
    pod.run(|| fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "1").unwrap());
    apply(pod.as_fd(), &plan).unwrap();
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::InPlace);
    // Switched on later, the route is missed.
    pod.run(|| fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0").unwrap());
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::Differs(vec![Difference::NoRoute { family: "IPv6" }]));
    apply(pod.as_fd(), &plan).unwrap();
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::InPlace);
}

fn the_agent_s_own_namespace_is_refused() {
    let own = fs::File::open("/proc/self/ns/net").unwrap();
    let plan = Plan::new(&Options::default());
    assert!(matches!(apply(own.as_fd(), &plan), Err(RulesError::OwnNamespace)));
    assert!(matches!(release_redirects(own.as_fd()), Err(RulesError::OwnNamespace)));
    assert!(matches!(remove(own.as_fd(), &plan), Err(RulesError::OwnNamespace)));
    assert_eq!(observe(own.as_fd(), &plan).unwrap(), Observed::Missing);
}

fn a_loopback_interface_that_is_down_is_named_as_the_cause() {
    let (pod, plan) = (Pod::down(), Plan::new(&Options::default()));
    let error = apply(pod.as_fd(), &plan).unwrap_err().to_string();
    assert!(error.contains("loopback interface is down"), "{error}");
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::Missing, "nothing half done");
}

fn a_plan_the_kernel_refuses_leaves_a_clean_pod_clean() {
    let pod = Pod::bare();
    // No register holds that much. The routes are written before the kernel sees it.
    let refused =
        Plan::new(&Options { virtual_interfaces: vec![format!("{}*", "x".repeat(80))], ..Options::default() });
    let error = apply(pod.as_fd(), &refused).unwrap_err();
    assert!(matches!(error, RulesError::Refused { .. }), "{error}");
    assert_eq!(observe(pod.as_fd(), &Plan::new(&Options::default())).unwrap(), Observed::Missing);
    // What stood before stays, with its routes.
    let plan = Plan::new(&Options::default());
    apply(pod.as_fd(), &plan).unwrap();
    apply(pod.as_fd(), &refused).unwrap_err();
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::InPlace);
}

fn an_odd_interface_name_matches_exactly_what_is_meant() {
    let pod = Pod::bare();
    let plan = Plan::new(&Options {
        virtual_interfaces: vec!["fifteen-bytes-x".to_owned(), "a*".to_owned(), "ü".to_owned()],
        ..Options::default()
    });
    apply(pod.as_fd(), &plan).unwrap();
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::InPlace);
}

fn a_namespace_is_opened_by_path_and_known_again() {
    let pod = Pod::bare();
    let path = format!("/proc/self/fd/{}", pod.as_fd().as_raw_fd());
    let (first, second) = (PodNetns::open(path.as_ref()).unwrap(), PodNetns::open(path.as_ref()).unwrap());
    assert_eq!(first.id(), second.id());
    assert_ne!(first.id(), PodNetns::open("/proc/self/ns/net".as_ref()).unwrap().id());
    let plan = Plan::new(&Options::default());
    apply(first.as_fd(), &plan).unwrap();
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::InPlace);
}

/// A process as /proc shows it, in the namespace that a link points to.
fn process(proc: &Path, id: u32, uid: &str, start: u64, netns: &Path) {
    let folder = proc.join(id.to_string());
    fs::create_dir_all(folder.join("ns")).unwrap();
    symlink(netns, folder.join("ns/net")).unwrap();
    fs::write(folder.join("cgroup"), format!("0::/kubepods/pod{uid}/{id}\n")).unwrap();
    fs::write(folder.join("stat"), format!("{id} (a program) S{} {start} 0", " 0".repeat(18))).unwrap();
}

fn a_pod_s_namespace_is_found_by_its_oldest_process_and_its_address() {
    let uid = "2c48913c-b29f-11e7-9350-020968147796";
    let (pod, elsewhere) = (Pod::wired(), Pod::bare());
    let link = |pod: &Pod| PathBuf::from(format!("/proc/self/fd/{}", pod.as_fd().as_raw_fd()));
    let folder = tempfile::tempdir().unwrap();
    let proc = folder.path();
    process(proc, 1, "init", 0, Path::new("/proc/self/ns/net"));
    // In the pod's control group and still in the node's namespace; in it and in a namespace without the pod's address; ended while we look.
    process(proc, 10, uid, 100, Path::new("/proc/self/ns/net"));
    process(proc, 11, uid, 101, &link(&elsewhere));
    process(proc, 12, uid, 102, Path::new("/not/there"));
    process(proc, 13, uid, 105, &link(&pod));
    process(proc, 14, uid, 103, &link(&pod));
    fs::create_dir(proc.join("self")).unwrap();
    let wanted = |addresses: &[IpAddr]| [Wanted { uid: uid.to_owned(), addresses: addresses.to_vec() }];
    let finder = Finder::new(proc);
    let netns = PodNetns::open(&link(&pod)).unwrap().id();
    for addresses in [&POD[..], &POD[..1], &POD[1..]] {
        let found = finder.find(&wanted(addresses)).unwrap();
        assert_eq!(found[uid].id(), netns, "{addresses:?}");
    }
    assert!(
        finder.find(&wanted(&[])).unwrap().is_empty(),
        "without an address nothing proves a namespace to be the pod's"
    );
    assert!(finder.find(&wanted(&NODE)).unwrap().is_empty(), "another pod's address");
    // An older process of the same pod, in another namespace with the pod's address: the sandbox.
    elsewhere.wire("eth1", [NODE[0], NODE[1]], [POD[0], POD[1]]);
    let found = finder.find(&wanted(&POD)).unwrap();
    assert_eq!(found[uid].id(), PodNetns::open(&link(&elsewhere)).unwrap().id());
    fs::remove_dir_all(proc.join("1")).unwrap();
    assert!(matches!(finder.find(&wanted(&POD)), Err(FindError::HostNetns { .. })), "the node's own must be known");
}
