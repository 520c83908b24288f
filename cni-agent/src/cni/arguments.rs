// SPDX-License-Identifier: Apache-2.0
//! `CNI_ARGS`, in which Kubernetes' runtimes name the pod (cni-agent.md P-03).

use super::{CniError, Code};
use crate::names::{is_label, is_subdomain, is_uid};

/// The pod a sandbox is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; older runtimes do not tell.
    pub uid: Option<String>,
}

/// Reads `KEY=VALUE;KEY=VALUE`. `None` if that names no pod: the sandbox is not Kubernetes'.
///
/// Keys that nobody knows are an error unless `IgnoreUnknown` is true, which every runtime sets.
pub fn parse_arguments(text: &str) -> Result<Option<Pod>, CniError> {
    let (mut namespace, mut name, mut uid) = ("", "", "");
    let (mut unknown, mut ignore_unknown) = (None, false);
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| invalid(format!("CNI_ARGS holds {pair:?}, which is not KEY=VALUE")))?;
        match key {
            "IgnoreUnknown" => ignore_unknown = parse_flag(value)?,
            "K8S_POD_NAMESPACE" => namespace = value,
            "K8S_POD_NAME" => name = value,
            "K8S_POD_UID" => uid = value,
            "K8S_POD_INFRA_CONTAINER_ID" => {}
            other => unknown = unknown.or(Some(other)),
        }
    }
    match unknown {
        Some(key) if !ignore_unknown => {
            Err(invalid(format!("CNI_ARGS holds {key:?}, which this plugin does not know, without IgnoreUnknown=1")))
        }
        _ if namespace.is_empty() || name.is_empty() => Ok(None),
        _ => {
            named("K8S_POD_NAMESPACE", namespace, is_label(namespace))?;
            named("K8S_POD_NAME", name, is_subdomain(name))?;
            named("K8S_POD_UID", uid, uid.is_empty() || is_uid(uid))?;
            let uid = (!uid.is_empty()).then(|| uid.to_owned());
            Ok(Some(Pod { namespace: namespace.to_owned(), name: name.to_owned(), uid }))
        }
    }
}

fn parse_flag(text: &str) -> Result<bool, CniError> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(invalid(format!("IgnoreUnknown in CNI_ARGS is {text:?}, neither true nor false"))),
    }
}

fn named(key: &str, value: &str, is_good: bool) -> Result<(), CniError> {
    let wrong = || invalid(format!("{key} in CNI_ARGS is {value:?}, which Kubernetes allows in no such place"));
    is_good.then_some(()).ok_or_else(wrong)
}

fn invalid(message: String) -> CniError {
    CniError::new(Code::InvalidEnvironment, message)
}
