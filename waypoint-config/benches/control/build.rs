// SPDX-License-Identifier: Apache-2.0
//! A whole mesh built at once, in a process of its own, so that its memory is its own.

use std::{collections::BTreeSet, process::Command, process::ExitCode, time::Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use waypoint_config::{
    api::{Kind, Object},
    envoy::{Profile, Type},
    fleet::Key,
    line::Line,
    store::Change,
    view::{Mesh, Name},
};

use crate::objects;

/// What a build took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Built {
    /// From objects to everything node proxies and one waypoint are sent, in seconds.
    pub(crate) seconds: f64,
    /// Memory of the process with all of it, in bytes.
    pub(crate) resident: u64,
    /// How many resources the waypoint has.
    pub(crate) resources: usize,
    /// Reading the objects strictly, before that, in seconds.
    pub(crate) reading: f64,
}

/// In another process.
pub(crate) fn apart(count: u32) -> Built {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(["--build", &count.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// In this process; prints what it took.
pub(crate) fn here(count: u32) -> ExitCode {
    let begun = Instant::now();
    let values = objects::waypoint().into_iter();
    // One service after the other: the plain values of all would be a part of the memory.
    let values = values.chain((0..count).flat_map(|number| {
        let mut all = objects::service(number, "/a");
        all.push(objects::pod(number, 0));
        all
    }));
    let changes: Vec<Change> = values.map(put).collect();
    let reading = begun.elapsed().as_secs_f64();
    let key = Key { waypoint: Name::new("shop", "waypoint"), profile: Profile::default() };
    let begun = Instant::now();
    let mut line = Line::new(Mesh::default());
    line.apply(changes);
    line.want(BTreeSet::from([key.clone()]));
    let seconds = begun.elapsed().as_secs_f64();
    let rendered = line.fleet().waypoints().get(&key).unwrap();
    let resources = Type::ALL.into_iter().map(|kind| rendered.resources.all(kind).count()).sum();
    let built = Built { seconds, resident: resident("self"), resources, reading };
    println!("{}", serde_json::to_string(&built).unwrap());
    ExitCode::SUCCESS
}

fn put(object: Value) -> Change {
    let kind = Kind::of(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap()).unwrap();
    Change::Put(Object::read(kind, object).unwrap())
}

/// Memory of a process that is resident, in bytes.
pub(crate) fn resident(process: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
