// SPDX-License-Identifier: Apache-2.0
//! Where nft and iptables are installed: `nft` lists what we wrote as we meant it, and rules that the real programs wrote (recorded from Istio's agent) are
//! recognised and taken over. None of them is required anywhere.

use std::env;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use cni_agent::rules::{Applied, Observed, Options, Plan, apply, legacy_tables, observe, remove};

use crate::pod::Pod;
use crate::{Test, test};

const ISTIO_NFT: &str = include_str!("../../src/rules/plan/golden/istio.nft");
const ISTIO_IPTABLES: &str = include_str!("recorded/istio.iptables");
const ISTIO_IP6TABLES: &str = include_str!("recorded/istio.ip6tables");

/// The tests whose programs are there.
pub(crate) fn tests() -> Vec<Test> {
    let known = [
        ("nft", test("nft_lists_what_was_planned", nft_lists_what_was_planned)),
        (
            "nft",
            test(
                "rules_that_nft_wrote_are_taken_over_and_may_come_back",
                rules_that_nft_wrote_are_taken_over_and_may_come_back,
            ),
        ),
        (
            "iptables-nft-restore",
            test("chains_that_iptables_nft_wrote_are_taken_over", chains_that_iptables_nft_wrote_are_taken_over),
        ),
        (
            "iptables-legacy-restore",
            test("chains_that_iptables_legacy_wrote_are_reported", chains_that_iptables_legacy_wrote_are_reported),
        ),
    ];
    known.into_iter().filter(|(program, _)| find(program).is_some()).map(|(_, test)| test).collect()
}

fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .chain(["/usr/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Runs a program in the pod and gives back what it printed.
fn run(pod: &Pod, program: &str, arguments: &[&str], input: &str) -> String {
    pod.run(|| {
        let mut command = Command::new(find(program).unwrap());
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    })
}

fn nft_lists_what_was_planned() {
    let options = Options {
        dns_capture: true,
        virtual_interfaces: vec!["tap0".to_owned(), "br-*".to_owned()],
        ..Options::default()
    };
    let (pod, plan) = (Pod::bare(), Plan::new(&options));
    apply(pod.as_fd(), &plan).unwrap();
    let mut found = String::new();
    for line in run(&pod, "nft", &["list", "ruleset"], "").lines() {
        let mut line = line.to_owned();
        if let Some((before, behind)) = line.split_once(" packets ") {
            line = format!("{before} {}", behind.splitn(4, ' ').nth(3).unwrap());
        }
        // As newer versions print a position and the flags.
        line = line.replace("priority dstnat - 1;", "priority -101;");
        line = line.replace("tcp flags syn / fin,syn,rst,ack", "tcp flags & (fin | syn | rst | ack) == syn");
        found.push_str(&line);
        found.push('\n');
    }
    let planned = plan.to_string();
    let expected = planned.split_once("ip -4 rule").unwrap().0;
    // It does not print a match that another one implies.
    let implied =
        |line: &str| if line.contains("tcp flags") { line.replace("meta l4proto tcp ", "") } else { line.to_owned() };
    let expected: String = expected.lines().map(|line| implied(line) + "\n").collect();
    assert!(found == expected, "nft says:\n{found}\nplanned:\n{expected}");
}

fn rules_that_nft_wrote_are_taken_over_and_may_come_back() {
    let (pod, plan) = (Pod::bare(), Plan::new(&Options::default()));
    // Istio's agent adds and empties each table before it adds chains and rules.
    let tables = ["istio-ambient-nat", "istio-ambient-mangle", "istio-ambient-raw"];
    let istio =
        tables.iter().map(|table| format!("add table inet {table}\nflush table inet {table}\n")).collect::<String>()
            + ISTIO_NFT;
    for _ in 0..2 {
        // First in a clean pod, then over our own rules.
        run(&pod, "nft", &["-f", "-"], &istio);
        let observed = observe(pod.as_fd(), &plan).unwrap();
        assert!(matches!(observed, Observed::Foreign(_)), "{observed}");
        assert_eq!(apply(pod.as_fd(), &plan).unwrap(), Applied::Written { before: observed });
    }
    remove(pod.as_fd(), &plan).unwrap();
    assert_eq!(run(&pod, "nft", &["list", "ruleset"], ""), "");
}

fn chains_that_iptables_nft_wrote_are_taken_over() {
    let (pod, plan) = (Pod::bare(), Plan::new(&Options::default()));
    run(&pod, "iptables-nft-restore", &[], ISTIO_IPTABLES);
    run(&pod, "ip6tables-nft-restore", &[], ISTIO_IP6TABLES);
    let observed = observe(pod.as_fd(), &plan).unwrap();
    assert!(matches!(observed, Observed::Foreign(_)), "{observed}");
    assert_eq!(legacy_tables(pod.as_fd()).unwrap(), Vec::<String>::new());
    apply(pod.as_fd(), &plan).unwrap();
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::InPlace);
    if find("nft").is_some() {
        let left = run(&pod, "nft", &["list", "ruleset"], "");
        assert!(!left.contains("ISTIO_"), "{left}");
    }
}

fn chains_that_iptables_legacy_wrote_are_reported() {
    let (pod, plan) = (Pod::bare(), Plan::new(&Options::default()));
    run(&pod, "iptables-legacy-restore", &[], ISTIO_IPTABLES);
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::Missing, "they cannot be seen over nf_tables");
    let mut tables = legacy_tables(pod.as_fd()).unwrap();
    tables.sort();
    assert_eq!(tables, ["mangle", "nat", "raw"]);
}
