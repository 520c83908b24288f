// SPDX-License-Identifier: Apache-2.0
//! Results: what the plugin before ours left, what ours prints, and the answer to `VERSION` (cni-agent.md P-04).

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{CniError, Code, Version};

/// The addresses in the result of the plugin before, in order, IPv4 ones never in IPv6 notation.
///
/// Both forms are looked at, `ips` (from 0.3.0 on) and `ip4` with `ip6` (before). An address that cannot be read is an error: the agent would take the pod
/// for one without it.
pub fn addresses(previous: &Map<String, Value>) -> Result<Vec<IpAddr>, CniError> {
    let invalid = |what: String| CniError::new(Code::InvalidConfig, format!("prevResult {what}"));
    let mut written = Vec::new();
    match previous.get("ips") {
        None | Some(Value::Null) => {}
        Some(Value::Array(ips)) => written.extend(ips.iter().map(|ip| ip.get("address"))),
        Some(_) => return Err(invalid("has ips that are no list".to_owned())),
    }
    for family in ["ip4", "ip6"] {
        if let Some(ip) = previous.get(family).filter(|ip| !ip.is_null()) {
            written.push(ip.get("ip"));
        }
    }
    written
        .into_iter()
        .map(|address| {
            let text =
                address.and_then(Value::as_str).ok_or_else(|| invalid("has an ip without address".to_owned()))?;
            let ip = text.split_once('/').map_or(text, |(ip, _prefix)| ip);
            ip.parse::<IpAddr>()
                .map(|ip| ip.to_canonical())
                .map_err(|_| invalid(format!("has the address {text:?}, which is none")))
        })
        .collect()
}

/// What a successful `ADD` prints: the result of the plugin before, in the version of the configuration; or an empty one.
pub fn result(version: Version, previous: Option<Map<String, Value>>) -> String {
    let mut object = previous.unwrap_or_else(|| {
        let lists: &[&str] = if version < Version::V0_3_0 { &[] } else { &["interfaces", "ips"] };
        lists.iter().map(|name| ((*name).to_owned(), json!([]))).chain([("dns".to_owned(), json!({}))]).collect()
    });
    object.insert("cniVersion".to_owned(), json!(version.as_str()));
    Value::Object(object).to_string()
}

/// What `VERSION` prints. `claimed` is the version in the configuration, if one came.
pub fn versions(claimed: &str) -> String {
    let claimed = if claimed.is_empty() { Version::NEWEST.as_str() } else { claimed };
    json!({ "cniVersion": claimed, "supportedVersions": Version::ALL.map(Version::as_str) }).to_string()
}
