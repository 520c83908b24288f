// SPDX-License-Identifier: Apache-2.0
//! Plans against golden files, and against what Istio's agent was seen to leave in a pod.

use super::*;

/// With `LATEEN_WRITE_GOLDEN` set the files are written anew, to be read in the diff.
fn golden(name: &str, options: &Options) {
    let path = format!("{}/src/rules/plan/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    let planned = Plan::new(options).to_string();
    if std::env::var_os("LATEEN_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &planned).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(planned == expected, "{name} differs from the plan:\n{planned}");
}

#[test]
fn the_default_plan() {
    golden("default.nft", &Options::default());
}

#[test]
fn with_name_queries_captured() {
    golden("dns.nft", &Options { dns_capture: true, ..Options::default() });
}

#[test]
fn without_ipv6() {
    golden("ipv4.nft", &Options { ipv6: false, dns_capture: true, ..Options::default() });
}

#[test]
fn for_a_gateway_that_takes_arriving_traffic_itself() {
    golden("gateway.nft", &Options { bypass_inbound: true, ..Options::default() });
}

#[test]
fn with_virtual_interfaces_and_other_probe_sources() {
    golden(
        "virtual.nft",
        &Options {
            virtual_interfaces: vec!["tap0".to_owned(), "br-*".to_owned()],
            probe_source: Ipv4Addr::new(169, 254, 1, 2),
            probe_source_v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
            ..Options::default()
        },
    );
}

/// What Istio's agent left in a pod with name queries captured, as nft listed it, becomes our plan by exactly these changes.
#[test]
fn our_rules_are_istio_s_with_four_changes() {
    let mut expected = String::new();
    for line in include_str!("golden/istio.nft").lines() {
        let mut line = line.to_owned();
        // How much was counted is no part of a rule.
        if let Some((before, behind)) = line.split_once(" packets ") {
            let verdict = behind.splitn(4, ' ').nth(3).unwrap();
            line = format!("{before} {verdict}");
        }
        // First: a redirect of TCP takes only the segment that opens a connection.
        let tcp = line.contains("l4proto tcp") || line.contains("tcp dport");
        if tcp && line.contains("redirect to") {
            line = line.replace(" counter", " tcp flags & (fin | syn | rst | ack) == syn counter");
        }
        expected.push_str(&line);
        expected.push('\n');
    }
    // Second and third: nat's base chains come one step before everybody else's (X-3; `dstnat` is -100), and have names of their own, so that Istio's
    // agent can still add its chains beside them.
    for (hook, priority) in [("prerouting", "dstnat"), ("output", "-100")] {
        expected = expected.replace(
            &format!("chain {hook} {{\n\t\ttype nat hook {hook} priority {priority}"),
            &format!("chain first-{hook} {{\n\t\ttype nat hook {hook} priority -101"),
        );
    }
    // Fourth: what the proxy delivers in a client's name is tracked apart.
    expected.push_str(
        "table inet lateen-delivery {\n\tchain output {\n\t\ttype filter hook output priority raw; policy accept;\n\t\tmeta mark & 0x00001fff == 0x00001539 counter ct original zone set 2\n\t}\n}\n",
    );
    let planned = Plan::new(&Options { dns_capture: true, ..Options::default() }).to_string();
    // The listing has no policy routes; those stand in the golden files.
    let tables = planned.split_once("ip -4 rule").unwrap().0;
    assert_eq!(tables, expected);
}
