// SPDX-License-Identifier: Apache-2.0
//! What programs observed of a Pod: partial Pods that may hold only what machinery writes in Kubernetes, laid over the Pod of their name. Pure.

use serde_json::{Map, Value};

use super::view::Documents;

/// What every observation names its pod by.
const ALWAYS: [&str; 4] = ["apiVersion", "kind", "metadata.namespace", "metadata.name"];
/// What replaces the pod's own as a whole.
const REPLACED: [&str; 5] =
    ["metadata.uid", "metadata.creationTimestamp", "metadata.deletionTimestamp", "spec.nodeName", "status"];
/// What is merged key by key.
const ANNOTATIONS: &str = "metadata.annotations";

/// Reads a file of observations.
///
/// # Errors
/// Why not; a field that is not for observations is named.
pub(super) fn read(text: &str) -> Result<Documents, String> {
    let documents = super::view::read(text)?;
    for document in &documents {
        let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default();
        if kind != "Pod" {
            return Err(format!("nothing is observed of a {kind}; it belongs outside the status folder"));
        }
        if let Some(field) = first_other(document) {
            return Err(format!("{field} is not for observations; it belongs into the Pod itself"));
        }
        if field(document, ANNOTATIONS).is_some_and(|annotations| !annotations.is_object()) {
            return Err(format!("{ANNOTATIONS} is no map"));
        }
    }
    Ok(documents)
}

/// Lays a checked observation over its pod.
pub(super) fn lay(pod: &mut Value, observation: &Value) {
    for path in REPLACED {
        if let Some(value) = field(observation, path) {
            put(pod, path, value.clone());
        }
    }
    if let Some(seen) = field(observation, ANNOTATIONS).and_then(Value::as_object) {
        let own = field(pod, ANNOTATIONS).and_then(Value::as_object);
        let mut annotations: Map<String, Value> = own.cloned().unwrap_or_default();
        annotations.extend(seen.clone());
        put(pod, ANNOTATIONS, annotations.into());
    }
}

/// The first field that an observation may not hold.
fn first_other(document: &Value) -> Option<String> {
    let is_allowed = |path: &str| ALWAYS.contains(&path) || REPLACED.contains(&path) || path == ANNOTATIONS;
    for (top, value) in document.as_object()? {
        if is_allowed(top) {
            continue;
        }
        let Some(inside) = value.as_object().filter(|_| top == "metadata" || top == "spec") else {
            return Some(top.clone());
        };
        let paths = inside.keys().map(|key| format!("{top}.{key}"));
        if let Some(path) = paths.into_iter().find(|path| !is_allowed(path)) {
            return Some(path);
        }
    }
    None
}

fn field<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, key| value.get(key)).filter(|value| !value.is_null())
}

fn put(target: &mut Value, path: &str, value: Value) {
    let mut target = target;
    for key in path.split('.') {
        if !target.is_object() {
            *target = Value::Object(Map::new());
        }
        let Some(fields) = target.as_object_mut() else { return };
        target = fields.entry(key).or_insert(Value::Null);
    }
    *target = value;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HEAD: &str = "apiVersion: v1\nkind: Pod\n";

    #[test]
    fn a_field_that_machinery_does_not_write_is_named() {
        for (rest, named) in [
            ("metadata: {name: a, labels: {x: y}}\n", "metadata.labels"),
            ("metadata: {name: a}\nspec: {hostNetwork: true}\n", "spec.hostNetwork"),
            ("metadata: {name: a}\nspec: {nodeName: n, serviceAccountName: root}\n", "spec.serviceAccountName"),
            ("metadata: {name: a}\nspec: []\n", "spec"),
            ("metadata: {name: a}\ndata: {}\n", "data"),
            ("metadata: {name: a, annotations: [1]}\n", "metadata.annotations"),
        ] {
            let error = read(&format!("{HEAD}{rest}")).unwrap_err();
            assert!(error.starts_with(&format!("{named} ")), "{error}");
        }
        assert!(read("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n").unwrap_err().contains("Namespace"));
        let all = "metadata: {name: a, namespace: b, uid: u, creationTimestamp: null, deletionTimestamp: null, \
                   annotations: {}}\nspec: {nodeName: n}\nstatus: {phase: Running}\n";
        assert_eq!(read(&format!("{HEAD}{all}")).unwrap().len(), 1);
    }

    #[test]
    fn annotations_merge_and_everything_else_replaces() {
        let mut pod = json!({
            "metadata": {"name": "a", "annotations": {"mine": "1", "both": "1"}},
            "spec": {"containers": []},
            "status": {"phase": "Pending", "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}, {"ip": "fd00::9"}]},
        });
        let seen = json!({
            "metadata": {"name": "a", "uid": "u", "annotations": {"both": "2"}, "creationTimestamp": null},
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
        });
        lay(&mut pod, &seen);
        assert_eq!(
            pod,
            json!({
                "metadata": {"name": "a", "uid": "u", "annotations": {"mine": "1", "both": "2"}},
                "spec": {"containers": [], "nodeName": "n1"},
                "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
            })
        );
    }
}
