// SPDX-License-Identifier: Apache-2.0
//! What the plugin sends to the agent: the JSON body of Istio's plugin (cni-agent.md P-11) with optional members of our own.
//!
//! Members that are not known are ignored on both sides, so that a plugin and an agent of different ages understand each other.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

/// Where it is asked, all `POST`, all with a [`Question`] but the last.
pub mod path {
    /// May this sandbox start?
    pub const ADD: &str = mesh_proto::contract::path::PLUGIN_ADD;
    /// This sandbox goes away.
    pub const DELETE: &str = "/cmddel";
    /// Is this sandbox as it was left?
    pub const CHECK: &str = "/cmdcheck";
    /// Is anybody there?
    pub const STATUS: &str = "/status";
}

/// The name of the agent's socket in its run directory (cni-agent.md §0).
pub const SOCKET_NAME: &str = "pluginevent.sock";

/// A sandbox, on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Question {
    /// The file of the network namespace. Empty where the runtime does not know it any more.
    #[serde(default)]
    pub netns: PathBuf,
    /// Name of the pod.
    pub pod_name: String,
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// The addresses; Go writes an empty list as `null`.
    #[serde(rename = "IPs", default, deserialize_with = "null_as_default")]
    pub ips: Vec<Ip>,
    /// Uid of the pod; ours.
    #[serde(rename = "PodUID", default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The runtime's id of the sandbox; ours. Also tells the agent that it talks to our plugin, which asks for every pod: Istio's asks only for those it
    /// wants enrolled.
    #[serde(rename = "ContainerID", default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The interface inside the sandbox; ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_name: Option<String>,
}

/// One address of a sandbox. Gateway, mask and interface number of Istio's plugin are not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ip {
    /// The address.
    pub address: Address,
}

/// Go's `net.IPNet` without the mask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// As text. An IPv4 address may come in IPv6 notation.
    #[serde(rename = "IP")]
    pub ip: IpAddr,
}

impl Ip {
    /// Of this address.
    pub fn new(ip: IpAddr) -> Self {
        Self { address: Address { ip } }
    }
}

impl Question {
    /// The addresses, IPv4 ones never in IPv6 notation.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.ips.iter().map(|ip| ip.address.ip.to_canonical()).collect()
    }
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(value: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_istios_plugin_is_understood() {
        let body = r#"{"Netns":"/var/run/netns/cni-1","PodName":"p","PodNamespace":"n","IPs":[
            {"Interface":0,"Address":{"IP":"10.0.0.2","Mask":"////AA=="},"Gateway":"10.0.0.1"},
            {"Interface":null,"Address":{"IP":"::ffff:10.0.0.3","Mask":"////AA=="},"Gateway":""},
            {"Interface":2,"Address":{"IP":"fd00::2","Mask":"//////////8AAAAAAAAAAA=="},"Gateway":""}]}"#;
        let question: Question = serde_json::from_str(body).unwrap();
        let addresses: Vec<String> = question.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.2", "10.0.0.3", "fd00::2"]);
        assert_eq!((question.pod_namespace.as_str(), question.pod_name.as_str()), ("n", "p"));
        assert_eq!(question.netns.to_str(), Some("/var/run/netns/cni-1"));
        assert_eq!((question.pod_uid, question.container_id, question.if_name), (None, None, None));
        let none: Question =
            serde_json::from_str(r#"{"Netns":"/x","PodName":"p","PodNamespace":"n","IPs":null}"#).unwrap();
        assert_eq!(none.ips, []);
    }

    #[test]
    fn the_names_on_the_wire_are_istios() {
        let question = Question {
            netns: "/x".into(),
            pod_name: "p".to_owned(),
            pod_namespace: "n".to_owned(),
            ips: vec![Ip::new([10, 0, 0, 2].into())],
            pod_uid: Some("u".to_owned()),
            container_id: Some("c".to_owned()),
            if_name: Some("eth0".to_owned()),
        };
        let text = r#"{"Netns":"/x","PodName":"p","PodNamespace":"n","IPs":[{"Address":{"IP":"10.0.0.2"}}],"PodUID":"u","ContainerID":"c","IfName":"eth0"}"#;
        assert_eq!(serde_json::to_string(&question).unwrap(), text);
        assert_eq!(serde_json::from_str::<Question>(text).unwrap(), question);
    }
}
