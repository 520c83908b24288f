// SPDX-License-Identifier: Apache-2.0
//! The directory of YAML that stands in for the API server: objects as a person would write them, and beside them what a kubelet observes.
//!
//! `DIR/*.yaml` hold whole objects; `DIR/status/<writer>/<namespace>_<name>.yaml` hold observations, partial objects with fields that in Kubernetes are
//! written by machinery. Every file is written under a temporary name and renamed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

/// Kind, namespace (empty for cluster-wide kinds) and name.
pub type Key = (String, String, String);

/// The directory.
#[derive(Debug)]
pub struct Objects {
    folder: PathBuf,
    known: BTreeMap<Key, Value>,
}

impl Objects {
    /// An empty directory.
    pub fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join("status")).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self { folder: folder.to_owned(), known: BTreeMap::new() })
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes an object into a file of its own, in place of an older one.
    pub fn put(&mut self, object: Value) -> Result<()> {
        self.write(&object)?;
        self.known.insert(key(&object)?, object);
        Ok(())
    }

    /// Writes an object that its writer keeps account of, not this: several threads may do so at once.
    pub fn write(&self, object: &Value) -> Result<()> {
        write_whole(&self.file(&key(object)?), &to_yaml(object)?)
    }

    /// Takes away an object that was written so.
    pub fn erase(&self, object: &Value) -> Result<()> {
        let file = self.file(&key(object)?);
        fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
    }

    /// Takes an object away.
    pub fn remove(&mut self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        self.known.remove(&key).ok_or_else(|| anyhow!("no {kind} {namespace}/{name}"))?;
        fs::remove_file(self.file(&key))?;
        Ok(())
    }

    /// An object as it was written last.
    pub fn find(&self, kind: &str, namespace: &str, name: &str) -> Result<&Value> {
        self.known
            .get(&(kind.to_owned(), namespace.to_owned(), name.to_owned()))
            .ok_or_else(|| anyhow!("no {kind} {namespace}/{name} was applied"))
    }

    /// Every object of a kind.
    pub fn all(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.known.iter().filter(move |((of, _, _), _)| of == kind).map(|(_, object)| object)
    }

    /// Changes one object.
    pub fn change(&mut self, kind: &str, namespace: &str, name: &str, edit: impl FnOnce(&mut Value)) -> Result<()> {
        let mut object = self.find(kind, namespace, name)?.clone();
        edit(&mut object);
        self.put(object)
    }

    /// Writes what the kubelet of `node` observes of a pod.
    pub fn observe(&self, node: &str, observation: &Value) -> Result<()> {
        let (_, namespace, name) = key(observation)?;
        let folder = self.folder.join("status").join(format!("a-kubelet-{node}"));
        fs::create_dir_all(&folder)?;
        write_whole(&folder.join(format!("{namespace}_{name}.yaml")), &to_yaml(observation)?)
    }

    /// Forgets what the kubelet of `node` observed of a pod.
    pub fn unobserve(&self, node: &str, namespace: &str, name: &str) -> Result<()> {
        fs::remove_file(self.folder.join(format!("status/a-kubelet-{node}/{namespace}_{name}.yaml")))?;
        Ok(())
    }

    /// The value of the status annotation that the agent of `node` wrote for a pod, if any.
    #[must_use]
    pub fn redirection(&self, node: &str, namespace: &str, name: &str) -> Option<String> {
        let file = self.folder.join(format!("status/b-agent-{node}/{namespace}_{name}.yaml"));
        let object = parse(&fs::read_to_string(file).ok()?).ok()?.into_iter().next()?;
        Some(object["metadata"]["annotations"]["ambient.istio.io/redirection"].as_str()?.to_owned())
    }

    fn file(&self, (kind, namespace, name): &Key) -> PathBuf {
        let scope = if namespace.is_empty() { "cluster" } else { namespace };
        self.folder.join(format!("{scope}_{}_{name}.yaml", kind.to_lowercase()))
    }
}

/// Every object of a YAML text with any number of documents.
pub fn parse(yaml: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).map_err(|error| anyhow!("YAML: {error}"))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// The key of an object.
pub fn key(object: &Value) -> Result<Key> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kind = text(&object["kind"]).ok_or_else(|| anyhow!("an object without a kind: {object}"))?;
    let name = text(&object["metadata"]["name"]).ok_or_else(|| anyhow!("a {kind} without a name"))?;
    let cluster_wide = matches!(kind.as_str(), "Namespace" | "Node");
    let namespace =
        text(&object["metadata"]["namespace"]).unwrap_or_else(|| if cluster_wide { "" } else { "default" }.to_owned());
    Ok((kind, namespace, name))
}

/// Sets or removes (`None`) a label of an object.
pub fn set_label(object: &mut Value, label: &str, value: Option<&str>) {
    if !object["metadata"]["labels"].is_object() {
        object["metadata"]["labels"] = json!({});
    }
    match (object["metadata"]["labels"].as_object_mut(), value) {
        (Some(labels), Some(value)) => {
            labels.insert(label.to_owned(), json!(value));
        }
        (Some(labels), None) => {
            labels.remove(label);
        }
        (None, _) => {}
    }
}

fn to_yaml(object: &Value) -> Result<String> {
    serde_saphyr::to_string(object).map_err(|error| anyhow!("write YAML: {error}"))
}

fn write_whole(file: &Path, text: &str) -> Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let temporary = file.with_file_name(format!(".{name}.tmp"));
    fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, file))
        .with_context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_is_an_object_with_a_key() {
        let objects =
            parse("kind: Namespace\nmetadata: {name: a}\n---\n# nothing\n---\nkind: Pod\nmetadata: {name: b}\n")
                .unwrap();
        let keys: Vec<Key> = objects.iter().map(|object| key(object).unwrap()).collect();
        let text = |kind: &str, namespace: &str, name: &str| (kind.to_owned(), namespace.to_owned(), name.to_owned());
        assert_eq!(keys, [text("Namespace", "", "a"), text("Pod", "default", "b")]);
        assert!(key(&json!({ "kind": "Pod" })).is_err());
    }

    #[test]
    fn a_label_is_set_and_taken_away() {
        let mut object = json!({ "metadata": { "name": "a" } });
        set_label(&mut object, "x", Some("y"));
        assert_eq!(object["metadata"]["labels"]["x"], "y");
        set_label(&mut object, "x", None);
        assert_eq!(object["metadata"]["labels"], json!({}));
    }
}
