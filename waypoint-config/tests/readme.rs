// SPDX-License-Identifier: Apache-2.0
//! The README says what the program publishes: the features of the Gateway API that work, by their names there, and settings that exist.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::Path};

use clap::{Command, CommandFactory as _};
use waypoint_config::view::routes::supported_features;

const BEGIN: &str = "<!-- features: made from the list of waypoint-config/src/view/routes/features.rs -->\n";
const END: &str = "<!-- end of features -->\n";

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap()
}

fn table() -> String {
    let rows = supported_features().iter().map(|one| format!("| `{}` | {} |\n", one.name, one.meaning));
    format!("\n| feature | what it lets you do |\n|---|---|\n{}\n", rows.collect::<String>())
}

#[test]
fn the_table_of_features_in_the_readme_is_the_list_that_is_published() {
    let readme = readme();
    let found = readme.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map(|(table, _)| table);
    assert!(
        found == Some(&*table()),
        "between these lines README.md has another table; put this there:\n{BEGIN}{}{END}",
        table()
    );
}

#[test]
fn features_have_the_names_the_gateway_api_gives_them() {
    let known = include_str!("gateway-api/features.txt");
    let known: BTreeSet<&str> = known.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(known.len() > 50);
    let unknown: Vec<&str> =
        supported_features().iter().map(|one| one.name).filter(|name| !known.contains(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not in gateway-api/features.txt");
}

/// Settings a person would look for in vain cost an evening.
#[test]
fn the_settings_the_section_on_waypoints_names_exist() {
    let readme = readme();
    let section = readme.split_once("\n## Waypoints\n").unwrap().1.split("\n## ").next().unwrap().to_owned();
    let all = [waypoint_config::waypoint::config::Config::command(), waypoint_config::config::Config::command()];
    let has_variable = |word: &str| {
        all.iter().flat_map(Command::get_arguments).any(|flag| flag.get_env().is_some_and(|env| env == word))
    };
    let has_flag = |word: &str| all.iter().flat_map(Command::get_arguments).any(|flag| flag.get_long() == Some(word));
    let words = section.split('`').skip(1).step_by(2).flat_map(str::split_whitespace);
    let mut seen = 0;
    for word in words {
        let is_variable = word.contains('_')
            && word.chars().all(|one| one.is_ascii_uppercase() || one.is_ascii_digit() || one == '_');
        if is_variable {
            seen += 1;
            assert!(has_variable(word), "README.md names the setting {word}, which is in no --help");
        }
        if let Some(flag) =
            word.strip_prefix("--").filter(|flag| section.contains(&format!("lateen-waypoint --{flag}")))
        {
            assert!(flag == "help" || has_flag(flag), "README.md names --{flag}, which is in no --help");
        }
    }
    assert!(seen > 0, "the section names no setting any more; drop this test");
}
