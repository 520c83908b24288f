// SPDX-License-Identifier: Apache-2.0
//! Which pods belong into the mesh, and why. Pure; called by `agent` whenever a pod or its namespace has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use mesh_proto::contract::{annotation, default, label};

use crate::names::{is_label, is_subdomain, is_uid};

/// A pod, as far as the agent needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.uid`: one life of a pod.
    pub uid: String,
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `spec.serviceAccountName`
    pub service_account: String,
    /// `spec.nodeName`; empty before the pod was given to a node.
    pub node: String,
    /// `metadata.labels`
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`
    pub annotations: BTreeMap<String, String>,
    /// `status.podIPs`
    pub addresses: Vec<IpAddr>,
    /// `spec.hostNetwork`
    pub host_network: bool,
    /// `status.phase` is Succeeded or Failed: its containers will not run again.
    pub ended: bool,
}

/// A namespace, as far as the agent needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata.name`
    pub name: String,
    /// `metadata.labels`
    pub labels: BTreeMap<String, String>,
}

/// What is set for the whole node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Namespaces whose pods are never enrolled, whatever their labels say (E-04).
    pub excluded_namespaces: BTreeSet<String>,
    /// The mesh's own namespace: its node proxies are never enrolled (E-06).
    pub system_namespace: String,
}

/// What is to be done with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolment {
    /// It belongs into the mesh.
    Enrol,
    /// It does not; if it is in, it leaves.
    Leave(Reason),
}

/// Why a pod is not in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Neither the pod nor its namespace asks for it.
    NotLabelled,
    /// The pod's own label says no.
    OptedOut,
    /// It uses the node's network.
    HostNetwork,
    /// It has a sidecar.
    Sidecar,
    /// Its namespace is excluded on this node.
    ExcludedNamespace,
    /// It is a node proxy.
    NodeProxy,
    /// It terminates HBONE by itself, as waypoints do.
    NativeTunnel,
    /// Its namespace is not known yet.
    UnknownNamespace,
    /// It has ended.
    Ended,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotLabelled => "neither the pod nor its namespace has the label istio.io/dataplane-mode=ambient",
            Self::OptedOut => "the pod has the label istio.io/dataplane-mode=none",
            Self::HostNetwork => "the pod uses the node's network (hostNetwork)",
            Self::Sidecar => "the pod has a sidecar (annotation sidecar.istio.io/status)",
            Self::ExcludedNamespace => "its namespace is excluded on this node (--exclude-namespaces)",
            Self::NodeProxy => "it is a node proxy of the mesh",
            Self::NativeTunnel => {
                "it terminates HBONE by itself, as a waypoint does (label networking.istio.io/tunnel or gateway.istio.io/managed)"
            }
            Self::UnknownNamespace => "its namespace is not known yet",
            Self::Ended => "the pod has ended",
        })
    }
}

/// Decides about `pod`, whose namespace is `namespace` if it is known.
///
/// A pod whose namespace is not known is only enrolled if its own label asks for it.
#[must_use]
pub fn decide(pod: &Pod, namespace: Option<&Namespace>, policy: &Policy) -> Enrolment {
    if pod.ended {
        return Enrolment::Leave(Reason::Ended);
    }
    if pod.host_network {
        return Enrolment::Leave(Reason::HostNetwork);
    }
    if policy.excluded_namespaces.contains(&pod.namespace) {
        return Enrolment::Leave(Reason::ExcludedNamespace);
    }
    if pod.annotations.contains_key(annotation::SIDECAR_STATUS) {
        return Enrolment::Leave(Reason::Sidecar);
    }
    if pod.namespace == policy.system_namespace && pod.labels.get("app").is_some_and(|app| app == NODE_PROXY) {
        return Enrolment::Leave(Reason::NodeProxy);
    }
    if is_native_tunnel(pod) {
        return Enrolment::Leave(Reason::NativeTunnel);
    }
    let mode = |labels: &BTreeMap<String, String>| match labels.get(label::DATAPLANE_MODE).map(String::as_str) {
        Some(label::DATAPLANE_MODE_AMBIENT) => Some(true),
        Some(label::DATAPLANE_MODE_NONE) => Some(false),
        _ => None,
    };
    match (mode(&pod.labels), namespace.map(|namespace| mode(&namespace.labels))) {
        (Some(true), _) | (None, Some(Some(true))) => Enrolment::Enrol,
        (Some(false), _) => Enrolment::Leave(Reason::OptedOut),
        (None, None) => Enrolment::Leave(Reason::UnknownNamespace),
        (None, Some(_)) => Enrolment::Leave(Reason::NotLabelled),
    }
}

/// Whether it terminates HBONE by itself: it says so, or it was deployed as a waypoint. Capture would take port 15008 from it. Istio leaves this to the
/// label `istio.io/dataplane-mode: none` that its waypoints are deployed with; a waypoint somebody deploys without it would be captured there.
fn is_native_tunnel(pod: &Pod) -> bool {
    let says = |tunnel: &String| tunnel.split(',').any(|kind| kind.trim() == "http");
    pod.labels.get(label::TUNNEL).is_some_and(says) || pod.labels.get(label::MANAGED).is_some_and(|by| by == WAYPOINTS)
}

/// The controller waypoints are deployed by.
const WAYPOINTS: &str = "istio.io-mesh-controller";

/// The label `app` of Istio's node proxies, and of ours.
const NODE_PROXY: &str = "ztunnel";

impl TryFrom<core::Pod> for Pod {
    type Error = Unnamed;

    fn try_from(pod: core::Pod) -> Result<Self, Unnamed> {
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let listed = status.pod_ips.unwrap_or_default().into_iter().map(|one| one.ip);
        let mut addresses: Vec<IpAddr> = listed.filter_map(|ip| ip.parse().ok()).collect();
        if addresses.is_empty() {
            addresses.extend(status.pod_ip.and_then(|ip| ip.parse::<IpAddr>().ok()));
        }
        Ok(Self {
            uid: required(pod.metadata.uid, "metadata.uid", is_uid)?,
            namespace: required(pod.metadata.namespace, "metadata.namespace", is_label)?,
            name: required(pod.metadata.name, "metadata.name", is_subdomain)?,
            service_account: spec.service_account_name.unwrap_or_else(|| default::SERVICE_ACCOUNT.to_owned()),
            node: spec.node_name.unwrap_or_default(),
            labels: pod.metadata.labels.unwrap_or_default(),
            annotations: pod.metadata.annotations.unwrap_or_default(),
            addresses,
            host_network: spec.host_network.unwrap_or_default(),
            ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        })
    }
}

impl TryFrom<core::Namespace> for Namespace {
    type Error = Unnamed;

    fn try_from(namespace: core::Namespace) -> Result<Self, Unnamed> {
        Ok(Self {
            name: required(namespace.metadata.name, "metadata.name", is_label)?,
            labels: namespace.metadata.labels.unwrap_or_default(),
        })
    }
}

/// An object that has no name to go by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unnamed {
    /// Every such object has this field.
    #[error("{field} is missing")]
    Missing {
        /// Its path.
        field: &'static str,
    },
    /// Names end up in paths; nothing goes there that an API server would not let pass.
    #[error(
        "{field} is {value:?}; Kubernetes allows a namespace a DNS label, a name a DNS subdomain, a uid letters, digits and `-`"
    )]
    NotAllowed {
        /// Its path.
        field: &'static str,
        /// What it holds.
        value: String,
    },
}

fn required(value: Option<String>, field: &'static str, is_allowed: fn(&str) -> bool) -> Result<String, Unnamed> {
    let value = value.filter(|value| !value.is_empty()).ok_or(Unnamed::Missing { field })?;
    if is_allowed(&value) { Ok(value) } else { Err(Unnamed::NotAllowed { field, value }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(mode: Option<&str>) -> BTreeMap<String, String> {
        mode.map(|mode| ("istio.io/dataplane-mode".to_owned(), mode.to_owned())).into_iter().collect()
    }

    fn decided(pod: Option<&str>, namespace: Option<&str>) -> Enrolment {
        let pod = Pod { namespace: "shop".into(), labels: labels(pod), ..Pod::default() };
        let namespace = Namespace { name: "shop".into(), labels: labels(namespace) };
        decide(&pod, Some(&namespace), &policy())
    }

    fn policy() -> Policy {
        Policy { excluded_namespaces: ["kube-system".to_owned()].into(), system_namespace: "istio-system".to_owned() }
    }

    #[test]
    fn the_pods_label_goes_before_its_namespaces() {
        assert_eq!(decided(None, Some("ambient")), Enrolment::Enrol);
        assert_eq!(decided(Some("ambient"), None), Enrolment::Enrol);
        assert_eq!(decided(Some("none"), Some("ambient")), Enrolment::Leave(Reason::OptedOut));
        assert_eq!(decided(None, None), Enrolment::Leave(Reason::NotLabelled));
        // A word nobody knows on the pod is no answer: the namespace decides, as Istio's selectors have it.
        assert_eq!(decided(Some("sidecar"), Some("ambient")), Enrolment::Enrol);
        assert_eq!(decided(None, Some("none")), Enrolment::Leave(Reason::NotLabelled));
    }

    #[test]
    fn some_pods_are_never_enrolled() {
        let asking = Pod { namespace: "shop".into(), labels: labels(Some("ambient")), ..Pod::default() };
        let decided = |pod: &Pod| decide(pod, None, &policy());
        assert_eq!(decided(&asking), Enrolment::Enrol);
        let host = Pod { host_network: true, ..asking.clone() };
        assert_eq!(decided(&host), Enrolment::Leave(Reason::HostNetwork));
        let ended = Pod { ended: true, ..asking.clone() };
        assert_eq!(decided(&ended), Enrolment::Leave(Reason::Ended));
        let excluded = Pod { namespace: "kube-system".into(), ..asking.clone() };
        assert_eq!(decided(&excluded), Enrolment::Leave(Reason::ExcludedNamespace));
        let annotations = [("sidecar.istio.io/status".to_owned(), String::new())].into();
        assert_eq!(decided(&Pod { annotations, ..asking.clone() }), Enrolment::Leave(Reason::Sidecar));
        let mut proxy = Pod { namespace: "istio-system".into(), ..asking };
        proxy.labels.insert("app".into(), "ztunnel".into());
        assert_eq!(decided(&proxy), Enrolment::Leave(Reason::NodeProxy));
    }

    #[test]
    fn waypoints_are_never_enrolled_whatever_they_or_their_namespace_ask_for() {
        let decided = |label: &str, value: &str| {
            let mut labels = labels(Some("ambient"));
            labels.insert(label.to_owned(), value.to_owned());
            decide(&Pod { namespace: "shop".into(), labels, ..Pod::default() }, None, &policy())
        };
        let native = Enrolment::Leave(Reason::NativeTunnel);
        assert_eq!(decided("networking.istio.io/tunnel", "http"), native);
        assert_eq!(decided("networking.istio.io/tunnel", "none, http"), native);
        assert_eq!(decided("gateway.istio.io/managed", "istio.io-mesh-controller"), native);
        // Gateways for ingress speak no HBONE towards their clients: they are ordinary pods.
        assert_eq!(decided("gateway.istio.io/managed", "istio.io-gateway-controller"), Enrolment::Enrol);
        assert_eq!(decided("gateway.networking.k8s.io/gateway-name", "ingress"), Enrolment::Enrol);
        assert_eq!(decided("networking.istio.io/tunnel", "https"), Enrolment::Enrol);
    }

    #[test]
    fn names_that_would_lead_elsewhere_are_refused() {
        let read = |namespace: &str, name: &str, uid: &str| {
            let [namespace, name, uid] = [namespace, name, uid].map(|text| Some(text.to_owned()));
            let mut pod = core::Pod::default();
            (pod.metadata.namespace, pod.metadata.name, pod.metadata.uid) = (namespace, name, uid);
            Pod::try_from(pod).map_err(|error| error.to_string())
        };
        assert!(read("shop", "web.1", "5e0c1f7e-1").is_ok());
        for (namespace, name, uid, field) in [
            ("../x", "a", "u", "metadata.namespace"),
            ("shop", "a/b", "u", "metadata.name"),
            ("shop", "..", "u", "metadata.name"),
            ("shop", "a", "../u", "metadata.uid"),
            ("shop", "", "u", "metadata.name is missing"),
        ] {
            let error = read(namespace, name, uid).unwrap_err();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn without_its_namespace_only_the_pods_own_word_counts() {
        let silent = Pod { namespace: "shop".into(), ..Pod::default() };
        assert_eq!(decide(&silent, None, &policy()), Enrolment::Leave(Reason::UnknownNamespace));
    }
}
