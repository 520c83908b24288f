// SPDX-License-Identifier: Apache-2.0
//! Who may import whom: reads every `crate::` path and every outside crate's name, and fails on an upward arrow or on a
//! crate used outside the rooms that own it (the table in CONTRIBUTING.md).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A package's rooms, top to bottom. A room imports only what stands in a later row, and itself.
struct Package {
    source: &'static str,
    rows: &'static [&'static [&'static str]],
}

const PACKAGES: &[Package] = &[
    Package {
        source: "ztunnel/src",
        rows: &[
            &["main", "app"],
            &["admin", "takeover"],
            &["config"],
            &["pods"],
            &["engine", "dns"],
            &["xds", "zds", "certs"],
            &["control_plane"],
            &["tls"],
            &["net"],
            &["decide"],
            &["mesh", "metrics", "backoff"],
        ],
    },
    Package {
        source: "cni-agent/src",
        rows: &[
            &["main", "bin"],
            &["app"],
            &["config"],
            &["agent"],
            &["watch", "zds", "install", "plugin"],
            &["find"],
            &["rules"],
            &["enrol", "cni"],
            &["names"],
        ],
    },
    Package {
        source: "waypoint-config/src",
        rows: &[
            &["main", "bin"],
            &["app"],
            &["config", "waypoint"],
            &["listener"],
            &["control", "xds", "ca", "check", "preview"],
            &["caller"],
            &["line"],
            &["fleet", "jwks", "settings"],
            &["ambient", "envoy", "shown"],
            &["view"],
            &["source"],
            &["store"],
            &["api"],
        ],
    },
];

/// Which of our own packages each may name.
const ARROWS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("common", &[]),
    ("ztunnel/hbone", &[]),
    ("ztunnel", &["hbone", "mesh_proto", "mesh_common"]),
    ("cni-agent", &["mesh_proto", "mesh_common"]),
    ("waypoint-config", &["mesh_proto", "mesh_common"]),
];

const OUR_CRATES: &[&str] =
    &["hbone", "mesh_proto", "mesh_common", "ztunnel", "cni_agent", "waypoint_config", "harness"];

#[test]
fn rooms_import_only_what_stands_below_them() {
    let mut found = String::new();
    for package in PACKAGES {
        let source = root().join(package.source);
        for file in rust_files(&source) {
            let path = file.strip_prefix(&source).expect("listed below it");
            if is_test(path) {
                continue;
            }
            let from = room_of(path);
            let Some(from_row) = row_of(package, &from) else {
                if from != "lib" {
                    writeln!(found, "{}: room `{from}` has no row in tests/layering.rs", file.display())
                        .expect("a string");
                }
                continue;
            };
            for (line, to) in crate_paths(&read(&file), module_depth(path)) {
                let Some(to_row) = row_of(package, &to) else { continue };
                if to != from && to_row <= from_row {
                    writeln!(
                        found,
                        "{}:{line}: `{from}` imports `{to}`, which stands beside or above it",
                        file.display()
                    )
                    .expect("a string");
                }
            }
        }
    }
    assert!(found.is_empty(), "{found}");
}

#[test]
fn packages_import_only_downward() {
    let mut found = String::new();
    for (package, allowed) in ARROWS {
        for file in rust_files(&root().join(package).join("src")) {
            for (line, name) in path_heads(&read(&file)) {
                let own = package.rsplit('/').next().unwrap_or(package).replace('-', "_");
                let itself = name == own || name == format!("mesh_{own}");
                if OUR_CRATES.contains(&name.as_str()) && !itself && !allowed.contains(&name.as_str()) {
                    writeln!(found, "{}:{line}: {package} names {name}", file.display()).expect("a string");
                }
            }
        }
    }
    assert!(found.is_empty(), "{found}");
}

/// One row of CONTRIBUTING.md's table: `| crate | rooms | what for |`. Tests may use what they like.
#[test]
fn outside_crates_stay_in_the_rooms_that_own_them() {
    let owners = owners(&fs::read_to_string(root().join("CONTRIBUTING.md")).expect("CONTRIBUTING.md"));
    assert!(owners.len() > 20, "the table of crates in CONTRIBUTING.md was not found");
    let mut found = String::new();
    let mut used = BTreeSet::new();
    for package in ["proto", "common", "ztunnel", "cni-agent", "waypoint-config", "tests"] {
        for file in rust_files(&root().join(package)) {
            let relative = file.strip_prefix(root()).expect("listed below it");
            let text = relative.to_string_lossy();
            let source = read(&file);
            let (code, tests) = source.split_once("#[cfg(test)]").unwrap_or((&source, ""));
            used.extend(path_heads(tests).into_iter().map(|(_, name)| name));
            if is_test(relative) {
                used.extend(path_heads(code).into_iter().map(|(_, name)| name));
                continue;
            }
            for (line, name) in path_heads(code) {
                let Some((name, rooms)) = owners.get_key_value(name.as_str()) else { continue };
                used.insert(name.clone());
                if !rooms.iter().any(|room| room == "everywhere" || text.starts_with(room.as_str())) {
                    writeln!(found, "{text}:{line}: {name} belongs to {}", rooms.join(", ")).expect("a string");
                }
            }
        }
    }
    for dependency in workspace_dependencies() {
        if !owners.contains_key(&dependency) {
            writeln!(found, "Cargo.toml: {dependency} has no row in CONTRIBUTING.md's table").expect("a string");
        }
    }
    // Only code that is made at build time names it.
    used.insert("tonic_prost".to_owned());
    for name in owners.keys().filter(|name| !used.contains(*name)) {
        writeln!(found, "CONTRIBUTING.md: {name} has a row and no user").expect("a string");
    }
    assert!(found.is_empty(), "{found}");
}

#[test]
fn files_open_with_their_licence_and_purpose_and_stay_short() {
    let mut found = String::new();
    for package in ["proto", "common", "ztunnel", "cni-agent", "waypoint-config", "tests"] {
        for file in rust_files(&root().join(package)) {
            let text = fs::read_to_string(&file).expect("a source file");
            let mut lines = text.lines();
            if lines.next() != Some("// SPDX-License-Identifier: Apache-2.0") {
                writeln!(found, "{}: first line is not the SPDX line", file.display()).expect("a string");
            }
            if !lines.next().is_some_and(|line| line.starts_with("//!")) {
                writeln!(found, "{}: second line does not open the file's purpose (//!)", file.display())
                    .expect("a string");
            }
            let code = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
            if code > 600 && !is_test(file.strip_prefix(root()).expect("listed below it")) {
                writeln!(found, "{}: {code} lines; split by what it decides", file.display()).expect("a string");
            }
        }
    }
    assert!(found.is_empty(), "{found}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// Tests and benches may use what they like.
fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "benches")
        || path.file_name().is_some_and(|name| name == "tests.rs" || name == "properties.rs")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("a folder entry").path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("fuzz") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The source without comments and text literals, so that words in them are not taken for paths.
fn read(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut in_text = false;
        let mut previous = ' ';
        let mut kept = String::with_capacity(line.len());
        for (at, letter) in line.char_indices() {
            if !in_text && line[at..].starts_with("//") {
                break;
            }
            if letter == '"' && previous != '\\' && previous != '\'' {
                in_text = !in_text;
            } else if !in_text {
                kept.push(letter);
            }
            previous = letter;
        }
        out.push_str(&kept);
        out.push('\n');
    }
    out
}

/// `engine/pool.rs` -> `engine`; `bin/x.rs` -> `bin`; `app.rs` -> `app`.
fn room_of(path: &Path) -> String {
    let first = path.components().next().expect("a file").as_os_str().to_string_lossy().into_owned();
    first.strip_suffix(".rs").unwrap_or(&first).to_owned()
}

/// How many `super::` lead from the file's module to the crate's root.
fn module_depth(path: &Path) -> usize {
    let folders = path.components().count() - 1;
    let door = path.file_name().is_some_and(|name| name == "mod.rs" || name == "lib.rs");
    if door { folders } else { folders + 1 }
}

fn row_of(package: &Package, room: &str) -> Option<usize> {
    package.rows.iter().position(|row| row.contains(&room))
}

/// First names of all paths that start at the crate's root: `crate::x`, `crate::{x, y::z}`, enough `super::`s.
fn crate_paths(text: &str, depth: usize) -> Vec<(usize, String)> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let start = at;
        let mut rest = None;
        if tokens[at].1 == "crate" && tokens.get(at + 1).is_some_and(|t| t.1 == "::") {
            rest = Some(at + 2);
        } else if tokens[at].1 == "super" && (at == 0 || tokens[at - 1].1 != "::") {
            let mut supers = 0;
            let mut next = at;
            while tokens.get(next).is_some_and(|t| t.1 == "super") && tokens.get(next + 1).is_some_and(|t| t.1 == "::")
            {
                supers += 1;
                next += 2;
            }
            // A `mod tests` inside the file needs one more; then the first name is the file's own item, not a room.
            if supers >= depth.max(1) && supers > 0 && depth > 0 {
                rest = Some(next);
            }
        }
        if let Some(mut next) = rest {
            if tokens.get(next).is_some_and(|t| t.1 == "{") {
                let mut level = 1;
                let mut item = true;
                next += 1;
                while level > 0 && next < tokens.len() {
                    match tokens[next].1.as_str() {
                        "{" => level += 1,
                        "}" => level -= 1,
                        "," if level == 1 => item = true,
                        name if item && level == 1 => {
                            found.push((tokens[next].0, name.to_owned()));
                            item = false;
                        }
                        _ => {}
                    }
                    next += 1;
                }
            } else if let Some((line, name)) = tokens.get(next) {
                found.push((*line, name.clone()));
            }
            at = next.max(start + 1);
        } else {
            at += 1;
        }
    }
    found
}

/// Names that open a path (`name::...`) or a `use name;`. What stands in the braces of a longer path opens none.
fn path_heads(text: &str) -> Vec<(usize, String)> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    let mut within = Vec::new();
    for (at, (line, token)) in tokens.iter().enumerate() {
        let is_inside = within.last() == Some(&true);
        match token.as_str() {
            "{" => within.push(is_inside || at > 0 && tokens[at - 1].1 == "::"),
            "}" => _ = within.pop(),
            _ => {}
        }
        if is_inside {
            continue;
        }
        let opens = at == 0 || tokens[at - 1].1 != "::";
        let leads = tokens.get(at + 1).is_some_and(|t| t.1 == "::");
        let used = at > 0 && tokens[at - 1].1 == "use";
        if opens && (leads || used) && token.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c == '_') {
            found.push((*line, token.clone()));
        }
    }
    found
}

fn tokens(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let length = if word > 0 {
                word
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (token, tail) = rest.split_at(length);
            if !token.trim().is_empty() {
                found.push((number + 1, token.to_owned()));
            }
            rest = tail;
        }
    }
    found
}

fn owners(contributing: &str) -> BTreeMap<String, Vec<String>> {
    let rows = contributing.lines().skip_while(|line| !line.starts_with("| crate |")).skip(2);
    let mut owners = BTreeMap::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let (Some(names), Some(rooms)) = (cells.next(), cells.next()) else { continue };
        let rooms: Vec<String> = rooms.split(',').map(|room| room.trim().trim_matches('`').to_owned()).collect();
        for name in names.split(',') {
            owners.insert(name.trim().trim_matches('`').replace('-', "_"), rooms.clone());
        }
    }
    owners
}

fn workspace_dependencies() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let section = manifest.split("[workspace.dependencies]").nth(1).expect("the section");
    let section = section.split("\n[").next().unwrap_or_default();
    let ours = ["hbone", "mesh_common", "mesh_proto"];
    section
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.replace('-', "_"))
        .filter(|name| !ours.contains(&name.as_str()))
        .collect()
}

#[cfg(test)]
mod the_reader {
    use super::*;

    #[test]
    fn finds_every_form_of_a_path_from_the_root() {
        let text = "use crate::engine::pool;\nuse crate::{mesh::Snapshot, decide};\nlet x = crate::tls::new();\nuse super::super::net;\n";
        let names: Vec<String> = crate_paths(text, 2).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["engine", "mesh", "decide", "tls", "net"]);
    }

    #[test]
    fn does_not_take_words_in_comments_and_texts_for_paths() {
        let folder = std::env::temp_dir().join(format!("layering-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("a.rs");
        fs::write(&file, "// crate::engine\nlet a = \"crate::tls::x\";\n").expect("a file");
        assert!(crate_paths(&read(&file), 1).is_empty());
        fs::remove_dir_all(&folder).expect("removed");
    }
}
