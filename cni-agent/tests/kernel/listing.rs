// SPDX-License-Identifier: Apache-2.0
//! An independent reader: where `nft` is installed, its listing of what we wrote must be what we meant. Not required anywhere.

use std::env;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

use cni_agent::rules::{Options, Plan, apply};

use crate::pod::Pod;
use crate::{Test, test};

/// One test, or none without `nft`.
pub(crate) fn tests() -> Vec<Test> {
    nft().map(|_| test("nft_lists_what_was_planned", nft_lists_what_was_planned)).into_iter().collect()
}

fn nft() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .chain(["/usr/sbin".into()])
        .map(|folder| folder.join("nft"))
        .find(|path| path.is_file())
}

fn nft_lists_what_was_planned() {
    let options = Options {
        dns_capture: true,
        virtual_interfaces: vec!["tap0".to_owned(), "br-*".to_owned()],
        ..Options::default()
    };
    let (pod, plan) = (Pod::bare(), Plan::new(&options));
    apply(pod.as_fd(), &plan).unwrap();
    let output = pod.run(|| Command::new(nft().unwrap()).args(["list", "ruleset"]).output()).unwrap();
    let listed = String::from_utf8_lossy(&output.stdout);
    let mut found = String::new();
    for line in listed.lines() {
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
    assert!(found == expected, "nft says:\n{found}\nplanned:\n{expected}\n{}", String::from_utf8_lossy(&output.stderr));
}
