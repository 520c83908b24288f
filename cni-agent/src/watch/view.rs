// SPDX-License-Identifier: Apache-2.0
//! The texts of a directory's files into pods and namespaces, and what is new since last time. Pure.
//!
//! A directory holds objects, written by people, and below its status folder observations: partial Pods that programs wrote (who gave the pod to which
//! node, its addresses), laid over the Pod of their name; one with another uid than the Pod's speaks of a former life and does not count. Later paths win.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1 as core;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::observation;
use crate::enrol::{Namespace, Pod};

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A pod of this node is now this.
    Pod(Pod),
    /// A pod is gone, or is no longer this node's.
    PodGone {
        /// Its uid.
        uid: String,
    },
    /// A namespace is now this.
    Namespace(Namespace),
    /// A namespace is gone.
    NamespaceGone {
        /// Its name.
        name: String,
    },
    /// All there was at the start has been told.
    Synced,
}

/// One file's documents that concern us.
pub(super) type Documents = Vec<Value>;

/// Reads a file. Documents of other kinds are left out.
///
/// # Errors
/// Why not, in words: the whole file counts as unread then.
pub(super) fn read(text: &str) -> Result<Documents, String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    let mut kept = Vec::new();
    for document in documents {
        take(document, &mut kept)?;
    }
    Ok(kept)
}

fn take(document: Value, kept: &mut Documents) -> Result<(), String> {
    let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        ("v1", "Pod" | "Namespace") => {
            if name_of(&document).is_none() {
                return Err("metadata.name: is missing".to_owned());
            }
            kept.push(document);
        }
        (_, kind) if kind.ends_with("List") => {
            if let Some(Value::Array(items)) = document.get("items") {
                for item in items {
                    take(item.clone(), kept)?;
                }
            }
        }
        ("", _) | (_, "") if !document.is_null() => {
            return Err("an object begins with apiVersion and kind; one is missing".to_owned());
        }
        _ => {}
    }
    Ok(())
}

fn name_of(document: &Value) -> Option<(String, String)> {
    let metadata = document.get("metadata")?;
    let namespace = metadata.get("namespace").and_then(Value::as_str).unwrap_or("default");
    let name = metadata.get("name").and_then(Value::as_str).filter(|name| !name.is_empty())?;
    Some((namespace.to_owned(), name.to_owned()))
}

/// What stands in the directory, and what was last told of it.
#[derive(Debug, Default)]
pub(super) struct View {
    node: String,
    pods: BTreeMap<String, Pod>,
    namespaces: BTreeMap<String, Namespace>,
    /// The last good state of each object, for the time it cannot be read.
    good: BTreeMap<(String, String), Pod>,
}

impl View {
    pub(super) fn new(node: String) -> Self {
        Self { node, ..Self::default() }
    }

    /// Compares the files with what was told; gives the news, and what is wrong, each with its file and object.
    pub(super) fn update(
        &mut self,
        objects: &BTreeMap<PathBuf, Documents>,
        observations: &BTreeMap<PathBuf, Documents>,
    ) -> (Vec<News>, Vec<String>) {
        let mut faults = Vec::new();
        let (pods, namespaces) = self.resolve(objects, observations, &mut faults);
        let mut news = Vec::new();
        for (name, namespace) in &namespaces {
            if self.namespaces.get(name) != Some(namespace) {
                news.push(News::Namespace(namespace.clone()));
            }
        }
        for (uid, pod) in &pods {
            if self.pods.get(uid) != Some(pod) {
                news.push(News::Pod(pod.clone()));
            }
        }
        let gone = self.pods.keys().filter(|uid| !pods.contains_key(*uid));
        news.extend(gone.map(|uid| News::PodGone { uid: uid.clone() }));
        let gone = self.namespaces.keys().filter(|name| !namespaces.contains_key(*name));
        news.extend(gone.map(|name| News::NamespaceGone { name: name.clone() }));
        (self.pods, self.namespaces) = (pods, namespaces);
        (news, faults)
    }

    fn resolve(
        &mut self,
        objects: &BTreeMap<PathBuf, Documents>,
        observations: &BTreeMap<PathBuf, Documents>,
        faults: &mut Vec<String>,
    ) -> (BTreeMap<String, Pod>, BTreeMap<String, Namespace>) {
        let mut found: BTreeMap<(String, String), (&Path, Value)> = BTreeMap::new();
        let mut namespaces = BTreeMap::new();
        for (path, document) in flat(objects) {
            let Some(name) = name_of(document) else { continue };
            if is(document, "Namespace") {
                match typed::<core::Namespace, Namespace>(document) {
                    Ok(namespace) => _ = namespaces.entry(namespace.name.clone()).or_insert(namespace),
                    Err(reason) => {
                        faults.push(format!("{}: Namespace {}: {reason}", path.display(), name.1));
                        // The last good state stands.
                        if let Some(known) = self.namespaces.get(&name.1) {
                            namespaces.entry(name.1).or_insert_with(|| known.clone());
                        }
                    }
                }
            } else if let Some((first, _)) = found.get(&name) {
                let (namespace, name) = name;
                faults.push(format!(
                    "{}: Pod {namespace}/{name} stands in {} already; that one counts",
                    path.display(),
                    first.display()
                ));
            } else {
                found.insert(name, (path, document.clone()));
            }
        }
        for (_, patch) in flat(observations).filter(|(_, document)| is(document, "Pod")) {
            let Some((_, pod)) = name_of(patch).and_then(|name| found.get_mut(&name)) else { continue };
            let uid = |value: &Value| value.pointer("/metadata/uid").cloned().filter(|uid| !uid.is_null());
            if uid(pod).is_none() || uid(patch).is_none() || uid(pod) == uid(patch) {
                observation::lay(pod, patch);
            }
        }
        let mut pods = BTreeMap::new();
        let mut good = BTreeMap::new();
        for (name, (path, document)) in found {
            // A pod without a uid has not begun to live.
            if document.pointer("/metadata/uid").is_none() {
                continue;
            }
            let pod = typed::<core::Pod, Pod>(&document).map_err(|reason| {
                faults.push(format!("{}: Pod {}/{}: {reason}", path.display(), name.0, name.1));
            });
            let Some(pod) = pod.ok().or_else(|| self.good.get(&name).cloned()) else { continue };
            good.insert(name, pod.clone());
            if pod.node == self.node {
                pods.insert(pod.uid.clone(), pod);
            }
        }
        self.good = good;
        (pods, namespaces)
    }
}

fn flat(files: &BTreeMap<PathBuf, Documents>) -> impl Iterator<Item = (&Path, &Value)> {
    files.iter().flat_map(|(path, documents)| documents.iter().map(move |document| (path.as_path(), document)))
}

fn is(document: &Value, kind: &str) -> bool {
    document.get("kind").and_then(Value::as_str) == Some(kind)
}

fn typed<O: DeserializeOwned, T: TryFrom<O, Error: std::fmt::Display>>(document: &Value) -> Result<T, String> {
    let mut document = document.clone();
    // As an API server would fill it in.
    if is(&document, "Pod")
        && let Some(metadata) = document.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.entry("namespace").or_insert_with(|| "default".into());
    }
    let object: O = serde_json::from_value(document).map_err(|error| error.to_string())?;
    T::try_from(object).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[(&str, &str)]) -> BTreeMap<PathBuf, Documents> {
        texts.iter().map(|(path, text)| (PathBuf::from(path), read(text).unwrap())).collect()
    }

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {namespace: shop, name: a}\nspec: {containers: []}\n";
    const SEEN: &str = "apiVersion: v1\nkind: Pod\nmetadata: {namespace: shop, name: a, uid: u1}\n\
                        spec: {nodeName: n1}\nstatus: {phase: Running, podIPs: [{ip: 10.0.0.1}]}\n";

    #[test]
    fn a_pod_lives_where_its_kubelet_says_it_does() {
        let mut view = View::new("n1".into());
        let (news, faults) = view.update(&files(&[("a.yaml", POD)]), &BTreeMap::new());
        assert!(news.is_empty() && faults.is_empty());
        let objects =
            files(&[("a.yaml", &format!("{POD}---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: x}}\n"))]);
        let (news, _) = view.update(&objects, &files(&[("status/k/shop_a.yaml", SEEN)]));
        let [News::Pod(pod)] = &news[..] else { panic!("{news:?}") };
        assert_eq!((pod.uid.as_str(), pod.node.as_str(), pod.service_account.as_str()), ("u1", "n1", "default"));
        assert_eq!(pod.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
        let (news, _) = view.update(&objects, &files(&[("status/k/shop_a.yaml", SEEN)]));
        assert!(news.is_empty());
        let (news, _) = view.update(&BTreeMap::new(), &files(&[("status/k/shop_a.yaml", SEEN)]));
        assert_eq!(news, [News::PodGone { uid: "u1".into() }]);
    }

    #[test]
    fn a_pod_of_another_node_is_none_of_ours() {
        let mut view = View::new("n2".into());
        let (news, _) = view.update(&files(&[("a.yaml", POD)]), &files(&[("s.yaml", SEEN)]));
        assert!(news.is_empty());
    }

    #[test]
    fn an_observation_of_a_former_life_does_not_count() {
        let mut view = View::new("n1".into());
        let mine = "apiVersion: v1\nkind: Pod\nmetadata: {namespace: shop, name: a, uid: u2}\nspec: {nodeName: n1, containers: []}\n";
        let stale = "apiVersion: v1\nkind: Pod\nmetadata: {namespace: shop, name: a, uid: u1, annotations: {x: y}}\n";
        let (news, _) = view.update(&files(&[("a.yaml", mine)]), &files(&[("s.yaml", stale)]));
        let [News::Pod(pod)] = &news[..] else { panic!("{news:?}") };
        assert!(pod.annotations.is_empty());
    }

    #[test]
    fn what_is_wrong_with_one_object_leaves_its_last_good_state_and_the_others() {
        let mut view = View::new("n1".into());
        let label =
            |value: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {value}}}\n");
        view.update(&files(&[("n.yaml", &label("{a: b}")), ("a.yaml", SEEN)]), &BTreeMap::new());
        let broken = SEEN.replace("phase: Running", "phase: [1]");
        let (news, faults) = view.update(&files(&[("n.yaml", &label("7")), ("a.yaml", &broken)]), &BTreeMap::new());
        assert!(news.is_empty(), "{news:?}");
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("n.yaml") && faults[1].contains("shop/a"), "{faults:?}");
    }

    #[test]
    fn of_two_pods_of_one_name_the_first_file_counts() {
        let mut view = View::new("n1".into());
        let other = SEEN.replace("u1", "u9");
        let (news, faults) = view.update(&files(&[("a.yaml", SEEN), ("b.yaml", &other)]), &BTreeMap::new());
        assert!(matches!(&news[..], [News::Pod(pod)] if pod.uid == "u1"));
        assert!(faults[0].contains("a.yaml") && faults[0].contains("b.yaml"));
    }

    #[test]
    fn a_text_that_is_no_object_is_a_fault_of_its_file() {
        for bad in ["{", "kind: Pod\n", "apiVersion: v1\nkind: Pod\n", "- 1\n- 2\n", "text"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        assert!(read("").unwrap().is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in ".{0,200}") {
            let _ = read(&text);
        }
    }
}
