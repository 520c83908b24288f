// SPDX-License-Identifier: Apache-2.0
//! What Istio's agent leaves in a pod is recognised and taken over, and it can come back after us.

use std::os::fd::AsFd;

use cni_agent::rules::{Applied, Observed, Options, Plan, apply, observe, release_redirects, remove};

use crate::pod::Pod;
use crate::raw::{self, INET, IPV4, IPV6, Message};

crate::tests![
    istio_s_nftables_rules_are_recognised_and_taken_over,
    istio_s_iptables_chains_are_recognised_and_taken_over,
    istio_s_agent_can_write_over_our_rules_and_delete_them,
    chains_of_a_sidecar_are_left_alone,
];

/// What Istio's agent sends: add, flush, add chains, add rules; none of it fails for being there already.
fn istio_nftables() -> Vec<Message> {
    let (nat, mangle) = ("istio-ambient-nat", "istio-ambient-mangle");
    let mut messages = vec![raw::new_table(INET, nat), raw::flush_table(INET, nat)];
    messages.push(raw::base_chain(INET, nat, "prerouting", ("nat", 0, -100)));
    messages.push(raw::base_chain(INET, nat, "output", ("nat", 3, -100)));
    messages.extend([raw::new_table(INET, mangle), raw::flush_table(INET, mangle)]);
    messages.push(raw::base_chain(INET, mangle, "prerouting", ("filter", 0, -150)));
    messages.push(raw::base_chain(INET, mangle, "output", ("route", 3, -150)));
    for table in [nat, mangle] {
        messages.extend([raw::new_chain(INET, table, "istio-prerouting"), raw::new_chain(INET, table, "istio-output")]);
        messages.push(raw::jump(INET, table, "prerouting", "istio-prerouting", true));
        messages.push(raw::jump(INET, table, "output", "istio-output", true));
        messages.push(raw::accept(INET, table, "istio-output", true));
    }
    messages
}

fn istio_iptables() -> Vec<Message> {
    let mut messages = Vec::new();
    for family in [IPV4, IPV6] {
        for (table, kind, priority) in [("nat", "nat", -100), ("mangle", "filter", -150), ("raw", "filter", -300)] {
            messages.push(raw::new_table(family, table));
            messages.push(raw::base_chain(family, table, "PREROUTING", (kind, 0, priority)));
            messages.push(raw::base_chain(family, table, "OUTPUT", (kind, 3, priority)));
            messages
                .extend([raw::new_chain(family, table, "ISTIO_PRERT"), raw::new_chain(family, table, "ISTIO_OUTPUT")]);
            messages.push(raw::accept(family, table, "PREROUTING", true));
            messages.push(raw::jump(family, table, "PREROUTING", "ISTIO_PRERT", true));
            messages.push(raw::jump(family, table, "OUTPUT", "ISTIO_OUTPUT", true));
            messages.push(raw::accept(family, table, "ISTIO_OUTPUT", true));
        }
    }
    messages
}

fn istio_s_nftables_rules_are_recognised_and_taken_over() {
    let (pod, plan) = (Pod::bare(), Plan::new(&Options::default()));
    raw::send(&pod, &istio_nftables());
    let observed = observe(pod.as_fd(), &plan).unwrap();
    assert!(matches!(observed, Observed::Foreign(_)), "{observed}");
    assert_eq!(apply(pod.as_fd(), &plan).unwrap(), Applied::Written { before: observed });
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::InPlace);
    // A pod that left the mesh while Istio's rules stood in it.
    remove(pod.as_fd(), &plan).unwrap();
    raw::send(&pod, &istio_nftables());
    release_redirects(pod.as_fd()).unwrap();
    remove(pod.as_fd(), &plan).unwrap();
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::Missing);
}

fn istio_s_iptables_chains_are_recognised_and_taken_over() {
    let (pod, plan) = (Pod::bare(), Plan::new(&Options::default()));
    raw::send(&pod, &istio_iptables());
    let observed = observe(pod.as_fd(), &plan).unwrap();
    assert!(observed.to_string().contains("iptables chain ip nat ISTIO_PRERT"), "{observed}");
    assert!(observed.to_string().contains("iptables chain ip6 raw ISTIO_OUTPUT"), "{observed}");
    assert_eq!(apply(pod.as_fd(), &plan).unwrap(), Applied::Written { before: observed });
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::InPlace);
    // Tables, base chains and the rules of others stay.
    raw::send(&pod, &[raw::flush_chain(IPV4, "nat", "PREROUTING"), raw::flush_chain(IPV6, "raw", "OUTPUT")]);
}

fn istio_s_agent_can_write_over_our_rules_and_delete_them() {
    let (pod, plan) = (Pod::bare(), Plan::new(&Options::default()));
    apply(pod.as_fd(), &plan).unwrap();
    raw::send(&pod, &istio_nftables());
    assert!(matches!(observe(pod.as_fd(), &plan).unwrap(), Observed::Foreign(_)));
    raw::send(&pod, &[raw::delete_table(INET, "istio-ambient-nat"), raw::delete_table(INET, "istio-ambient-mangle")]);
    let left = observe(pod.as_fd(), &plan).unwrap();
    assert!(left.to_string().starts_with("table inet istio-ambient-nat is missing"), "{left}");
}

fn chains_of_a_sidecar_are_left_alone() {
    let (pod, plan) = (Pod::bare(), Plan::new(&Options::default()));
    raw::send(
        &pod,
        &[
            raw::new_table(IPV4, "nat"),
            raw::base_chain(IPV4, "nat", "OUTPUT", ("nat", 3, -100)),
            raw::new_chain(IPV4, "nat", "ISTIO_OUTPUT"),
            raw::new_chain(IPV4, "nat", "ISTIO_REDIRECT"),
            raw::jump(IPV4, "nat", "OUTPUT", "ISTIO_OUTPUT", true),
        ],
    );
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::Missing);
}
