// SPDX-License-Identifier: Apache-2.0
//! What a directory of objects would come to, without a running control plane: for `lateen render` and `lateen validate`. Pure; equal objects give equal
//! text.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{
    ambient,
    api::{Key, Object},
    envoy::{Profile, Type},
    fleet,
    line::Line,
    shown::{self, ShowError},
    source::Batch,
    view::{
        Mesh, Name,
        status::{Condition, Status},
    },
};

/// A mesh of these objects, with every waypoint this control plane configures, made for stock Envoy.
#[must_use]
pub fn line(mesh: Mesh, batch: Batch) -> Line {
    let mut line = Line::new(mesh);
    line.apply(batch.changes);
    line.fault(&batch.faults);
    let ours = line.snapshot().waypoints.values().filter(|waypoint| waypoint.is_ours).map(|waypoint| &waypoint.name);
    let key = |name: &Name| fleet::Key { waypoint: name.clone(), profile: Profile::default() };
    let wanted: BTreeSet<fleet::Key> = ours.map(key).collect();
    line.want(wanted);
    line
}

/// The waypoints there are.
pub fn waypoints(line: &Line) -> impl Iterator<Item = &Name> {
    line.fleet().waypoints().iter().map(|(key, _)| &key.waypoint)
}

/// What node proxies and waypoints are sent, as JSON: of waypoints by waypoint, type and name, of workloads by type and name.
///
/// # Errors
/// A resource that cannot be shown, which is a mistake in this program.
pub fn everything(line: &Line) -> Result<Value, ShowError> {
    let mut all = Map::new();
    for (key, rendered) in line.fleet().waypoints().iter() {
        all.insert(key.waypoint.to_string(), of_waypoint(rendered)?);
    }
    let waypoints = Value::Object(all);
    let mut types = Map::new();
    for (kind, word) in [(ambient::Type::Address, "addresses"), (ambient::Type::Authorization, "authorizations")] {
        let mut resources = Map::new();
        for resource in line.resources().all(kind) {
            resources.insert(resource.name.to_string(), shown::workload(&resource.body)?);
        }
        types.insert(word.to_owned(), Value::Object(resources));
    }
    Ok(Value::Object(Map::from_iter([
        ("waypoints".to_owned(), waypoints),
        ("workloads".to_owned(), Value::Object(types)),
    ])))
}

/// What one waypoint is sent, by type and name; `None` where there is no such waypoint.
///
/// # Errors
/// As [`everything`].
pub fn waypoint(line: &Line, name: &Name) -> Result<Option<Value>, ShowError> {
    let found = line.fleet().waypoints().iter().find(|(key, _)| key.waypoint == *name);
    found.map(|(_, rendered)| of_waypoint(rendered)).transpose()
}

fn of_waypoint(rendered: &fleet::Rendered) -> Result<Value, ShowError> {
    let mut types = Map::new();
    for kind in Type::ALL {
        let mut resources = Map::new();
        for resource in rendered.resources.all(kind) {
            resources.insert(resource.name.to_string(), shown::json(&resource.body)?);
        }
        types.insert(word(kind).to_owned(), Value::Object(resources));
    }
    Ok(Value::Object(types))
}

const fn word(kind: Type) -> &'static str {
    match kind {
        Type::Cluster => "clusters",
        Type::Endpoints => "endpoints",
        Type::Listener => "listeners",
        Type::Routes => "routes",
    }
}

/// One thing the author of an object is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The object.
    pub object: Key,
    /// Where in it: a parent of a route, a listener of a Gateway; or empty.
    pub at: String,
    /// What.
    pub condition: Condition,
}

/// Everything the authors of objects are told, by object, in a fixed order.
#[must_use]
pub fn verdicts(line: &Line, batch_faults: &[crate::source::Fault]) -> Vec<Verdict> {
    let faulty = batch_faults.iter().filter_map(|fault| fault.object.clone());
    let keys: BTreeSet<Key> = line.store().objects().map(Object::key).chain(faulty).collect();
    let of = |key: Key| {
        let Status { conditions, listeners, parents } = line.status(&key);
        let whole = conditions.into_iter().map(|condition| (String::new(), condition));
        let listeners = listeners
            .into_iter()
            .flat_map(|one| one.conditions.into_iter().map(move |it| (format!("listener {}", one.name), it)));
        let parents = parents.into_iter().flat_map(|one| {
            let at = format!("parent {}", parent(&one.parent));
            one.conditions.into_iter().map(move |it| (at.clone(), it))
        });
        let all: Vec<_> = whole.chain(listeners).chain(parents).collect();
        all.into_iter().map(move |(at, condition)| Verdict { object: key.clone(), at, condition })
    };
    keys.into_iter().flat_map(of).collect()
}

fn parent(reference: &crate::api::ParentRef) -> String {
    let mut text = reference.kind.clone().unwrap_or_else(|| "Gateway".to_owned()) + " ";
    if let Some(namespace) = &reference.namespace {
        text += &format!("{namespace}/");
    }
    text += &reference.name;
    if let Some(section) = &reference.section_name {
        text += &format!(" section {section}");
    }
    if let Some(port) = reference.port {
        text += &format!(" port {port}");
    }
    text
}

/// Where two renderings differ, one line each: the path, and what stands there before and after.
#[must_use]
pub fn differences(before: &Value, after: &Value) -> Vec<String> {
    let mut found = Vec::new();
    differ("", Some(before), Some(after), &mut found);
    found
}

fn differ(path: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<String>) {
    let within = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path} > {key}") };
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for key in keys {
                differ(&within(key), before.get(key), after.get(key), found);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => match (named(before), named(after)) {
            // An entry that comes first in a list is not a change of all that follow.
            (Some(before), Some(after)) => {
                let keys: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
                for key in keys {
                    differ(&within(key), before.get(key).copied(), after.get(key).copied(), found);
                }
            }
            _ => {
                for at in 0..before.len().max(after.len()) {
                    differ(&within(&at.to_string()), before.get(at), after.get(at), found);
                }
            }
        },
        (Some(before), Some(after)) => found.push(format!("~ {path}: {before} -> {after}")),
        (Some(before), None) => found.push(format!("- {path}: {before}")),
        (None, Some(after)) => found.push(format!("+ {path}: {after}")),
        (None, None) => {}
    }
}

/// A list by the names of its entries, if each has one of its own.
fn named(list: &[Value]) -> Option<BTreeMap<&str, &Value>> {
    let by_name: Option<BTreeMap<&str, &Value>> =
        list.iter().map(|one| Some((one.get("name")?.as_str()?, one))).collect();
    by_name.filter(|all| all.len() == list.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_is_told_at_its_place() {
        let before = json!({"a": {"b": 1, "c": [1, 2]}, "l": [{"name": "x", "v": 1}, {"name": "y", "v": 2}]});
        let after =
            json!({"a": {"b": 2, "c": [1]}, "l": [{"name": "w"}, {"name": "x", "v": 1}, {"name": "y", "v": 3}]});
        let found = differences(&before, &after);
        assert_eq!(found, ["~ a > b: 1 -> 2", "- a > c > 1: 2", r#"+ l > w: {"name":"w"}"#, "~ l > y > v: 2 -> 3"]);
        assert!(differences(&before, &before).is_empty());
    }
}
