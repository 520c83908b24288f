// SPDX-License-Identifier: Apache-2.0
//! What people call the application of a pod (control-plane.md §1.2): istiod's heuristic from labels and owner. Called by `pod` and `entry`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use mesh_proto::contract::label;

use crate::api::Labels;

/// The names of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) workload: Arc<str>,
    pub(super) canonical: Arc<str>,
    pub(super) revision: Arc<str>,
}

pub(super) fn names(pod: &Pod) -> Names {
    let none = Labels::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    labelled(labels, || controller(pod, labels))
}

/// What the labels say; otherwise, and for the rest, the workload's name.
pub(super) fn labelled(labels: &Labels, otherwise: impl FnOnce() -> String) -> Names {
    let first = |keys: [&str; 3]| keys.iter().filter_map(|key| labels.get(*key)).find(|value| !value.is_empty());
    let workload = labels.get(label::WORKLOAD_NAME).cloned().unwrap_or_else(otherwise);
    let canonical =
        first([label::CANONICAL_NAME, "app.kubernetes.io/name", "app"]).map_or(workload.as_str(), String::as_str);
    let revision =
        first([label::CANONICAL_REVISION, "app.kubernetes.io/version", "version"]).map_or("latest", String::as_str);
    Names { canonical: canonical.into(), revision: revision.into(), workload: workload.into() }
}

/// The controller's name without what Kubernetes adds to it. Only a pod whose name was generated has a controller worth naming.
fn controller(pod: &Pod, labels: &Labels) -> String {
    let own = || pod.metadata.name.clone().unwrap_or_default();
    if pod.metadata.generate_name.as_deref().unwrap_or_default().is_empty() {
        return own();
    }
    let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let Some(owner) = owner.filter(|owner| !owner.name.is_empty()) else { return own() };
    let trimmed = match owner.kind.as_str() {
        "ReplicaSet" => ["pod-template-hash", "rollouts-pod-template-hash"]
            .iter()
            .filter_map(|key| labels.get(*key).filter(|hash| !hash.is_empty()))
            .find_map(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')),
        "ReplicationController" => labels.get("deploymentconfig").filter(|name| !name.is_empty()).map(String::as_str),
        "Job" => owner
            .name
            .rsplit_once('-')
            .filter(|(name, time)| !name.is_empty() && is_schedule(time))
            .map(|(name, _)| name),
        _ => None,
    };
    trimmed.unwrap_or(&owner.name).to_owned()
}

/// The minutes since 1970 that a CronJob puts behind the names of its jobs.
fn is_schedule(text: &str) -> bool {
    (8..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}
