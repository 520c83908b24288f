// SPDX-License-Identifier: Apache-2.0
//! Tells the mesh which pods take HBONE. In a cluster that is an annotation on the Pod; here, without an API server, it is one small file a pod in the
//! status folder of the directory of objects, which the control plane lays over the Pod.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use mesh_proto::contract::annotation;
use serde_json::json;

use crate::enrol::Pod;

/// A file could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; the agent must be able to write its folder of observations (--status-dir)", path.display())]
pub(super) struct StatusError {
    path: PathBuf,
    source: io::Error,
}

/// This agent's folder of observations.
#[derive(Clone, Debug)]
pub(super) struct StatusFolder {
    folder: PathBuf,
}

impl StatusFolder {
    /// Makes the folder.
    pub(super) fn create(folder: &Path) -> Result<Self, StatusError> {
        fs::create_dir_all(folder).map_err(|source| StatusError { path: folder.to_owned(), source })?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Tells that the pod takes HBONE.
    pub(super) fn enable(&self, pod: &Pod) -> Result<(), StatusError> {
        let observation = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": pod.namespace,
                "name": pod.name,
                "uid": pod.uid,
                "annotations": { annotation::REDIRECTION: annotation::REDIRECTION_ENABLED },
            },
        });
        let path = self.path(pod);
        let text = format!("{observation:#}\n");
        if fs::read_to_string(&path).is_ok_and(|told| told == text) {
            return Ok(());
        }
        let partial = self.folder.join(format!(".{}.partial", file_name(pod)));
        let failed = |source| StatusError { path: path.clone(), source };
        // JSON is YAML. Readers see the old file or the new one, never half of one.
        let _ = fs::remove_file(&partial);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&partial).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        fs::rename(&partial, &path).map_err(failed)
    }

    /// Tells it no more. What is told of another life under the same name stays.
    pub(super) fn withdraw(&self, pod: &Pod) -> Result<(), StatusError> {
        let path = self.path(pod);
        let told: Option<serde_json::Value> = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if told.is_some_and(|told| told["metadata"]["uid"] != pod.uid.as_str()) {
            return Ok(());
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StatusError { path, source: error }),
            _ => Ok(()),
        }
    }

    /// Removes what a former life of the agent told of pods that are gone.
    pub(super) fn keep_only<'a>(&self, pods: impl Iterator<Item = &'a Pod>) -> Result<(), StatusError> {
        let known: BTreeSet<String> = pods.map(file_name).collect();
        let failed = |source| StatusError { path: self.folder.clone(), source };
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !entry.file_name().to_str().is_some_and(|name| known.contains(name)) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn path(&self, pod: &Pod) -> PathBuf {
        self.folder.join(file_name(pod))
    }
}

fn file_name(pod: &Pod) -> String {
    format!("{}.yaml", file_stem(&pod.namespace, &pod.name))
}

/// A file's name for a pod. An underscore is in no name of Kubernetes. Two long names can be more than a file's name may have:
/// those end in a hash (FNV-1a) of the whole.
pub(super) fn file_stem(namespace: &str, name: &str) -> String {
    let whole = format!("{namespace}_{name}");
    if whole.len() <= LONGEST_STEM {
        return whole;
    }
    let hash = whole
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{}_{hash:016x}", &whole[..whole.floor_char_boundary(LONGEST_STEM - 17)])
}

/// Leaves room for what is put around it.
const LONGEST_STEM: usize = 220;

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Pod {
        Pod { uid: format!("u-{name}"), namespace: "shop".into(), name: name.into(), ..Pod::default() }
    }

    #[test]
    fn what_is_told_names_the_life_it_was_seen_in_and_can_be_withdrawn_twice() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("b-agent-n1");
        let status = StatusFolder::create(&folder).unwrap();
        status.enable(&pod("a")).unwrap();
        let told: serde_json::Value =
            serde_saphyr::from_str(&fs::read_to_string(folder.join("shop_a.yaml")).unwrap()).unwrap();
        assert_eq!(told["metadata"]["uid"], "u-a");
        assert_eq!(told["metadata"]["annotations"]["ambient.istio.io/redirection"], "enabled");
        status.withdraw(&pod("a")).unwrap();
        status.withdraw(&pod("a")).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_former_life_does_not_withdraw_what_is_told_of_the_next() {
        let root = tempfile::tempdir().unwrap();
        let status = StatusFolder::create(root.path()).unwrap();
        let next = Pod { uid: "u-next".into(), ..pod("a") };
        status.enable(&next).unwrap();
        status.withdraw(&pod("a")).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        status.withdraw(&next).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_longest_names_make_files_that_can_be_told_apart() {
        let (namespace, name) = ("n".repeat(63), "p".repeat(252));
        let stems = [file_stem(&namespace, &format!("{name}a")), file_stem(&namespace, &format!("{name}b"))];
        assert!(stems[0] != stems[1] && stems.iter().all(|stem| stem.len() <= LONGEST_STEM));
        assert_eq!(file_stem("shop", "a"), "shop_a");
    }

    #[test]
    fn what_was_told_of_pods_that_are_gone_goes_too() {
        let root = tempfile::tempdir().unwrap();
        let status = StatusFolder::create(root.path()).unwrap();
        status.enable(&pod("a")).unwrap();
        status.enable(&pod("b")).unwrap();
        status.keep_only([pod("b")].iter()).unwrap();
        let left: Vec<_> = fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["shop_b.yaml"]);
    }
}
