// SPDX-License-Identifier: Apache-2.0
//! Which workloads a policy means. Read by the policies of this folder, asked by `view`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Istio's workload selector: every listed label must be there with that value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// What must match.
    pub match_labels: Labels,
}

impl WorkloadSelector {
    /// Whether a workload with these labels is meant.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// The selector if it narrows anything. A selector without labels is no selector: istiod attaches such a policy to nothing,
/// which for a DENY means that it silently does not deny.
pub(super) fn narrowing(selector: Option<&WorkloadSelector>) -> Option<&WorkloadSelector> {
    selector.filter(|selector| !selector.match_labels.is_empty())
}

/// Whether labels are picked by a selector of Kubernetes. One that cannot be understood picks nothing.
pub fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|one| {
            let values = one.values.as_deref().unwrap_or_default();
            let value = labels.get(&one.key);
            match one.operator.as_str() {
                "In" => value.is_some_and(|value| values.contains(value)),
                "NotIn" => value.is_none_or(|value| !values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
