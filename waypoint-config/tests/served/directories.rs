// SPDX-License-Identifier: Apache-2.0
//! What `lateen render` prints of directories a person would write, as golden files, each of them taken by a real Envoy. A test that fails leaves what it
//! got and says how to accept it.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use waypoint_config::{
    fleet::Key,
    line::Line,
    source::files::{Directory, Options},
    view::{Mesh, Name},
};

use crate::judge::{envoy, profile, refusal};

fn check(name: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/directories");
    let directory = folder.join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
    // What the machine says of its own mesh has no place here.
    let output = command.args(["render", "--dir"]).arg(&directory).env_clear().output().unwrap();
    let found = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let golden = folder.join(name).with_extension("yaml");
    let draft = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name).with_extension("yaml");
    // One that outlives its run would be accepted by mistake.
    let _ = fs::remove_file(&draft);
    if found != fs::read_to_string(&golden).unwrap_or_default() {
        fs::write(&draft, &found).unwrap();
        panic!("{name} differs; look at it and accept it with\n  cp {} {}", draft.display(), golden.display());
    }
    let mut line = Line::new(Mesh::default());
    line.apply(Directory::open(Options::new(directory)).unwrap().read().changes);
    let key = Key { waypoint: Name::new("shop", "waypoint"), profile: profile() };
    line.want(BTreeSet::from([key.clone()]));
    if envoy().is_some() {
        let resources = &line.fleet().waypoints().get(&key).unwrap().resources;
        assert_eq!(refusal(&format!("directory-{name}"), resources), None, "{name}");
    }
}

#[test]
fn http_with_policies() {
    check("http");
}

#[test]
fn bytes_undeclared_ports_and_near_endpoints() {
    check("bytes");
}

#[test]
fn routes_of_every_kind() {
    check("routes");
}
