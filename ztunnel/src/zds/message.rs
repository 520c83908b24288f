// SPDX-License-Identifier: Apache-2.0
//! One packet from the node agent, narrowed: what it asks for and the file descriptor it brought.
//!
//! Contract: ztunnel.md §3.1. Exactly an `Add` carries a descriptor (the pod's network namespace); anything else that
//! does, or an `Add` without one, is a packet that cannot be trusted and ends the connection (Z-04, Z-21).

use mesh_proto::zds::WorkloadRequest;
use mesh_proto::zds::workload_request::Payload;

/// Who a pod says it is; from the agent, which read it from Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInfo {
    /// The pod's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account: with the namespace, its identity.
    pub service_account: String,
}

/// What the agent asks. `N` holds the pod's network namespace open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<N> {
    /// Carry this pod. `info` is missing only if the agent is broken.
    Add {
        /// The agent's key for the pod (Kubernetes' pod UID).
        uid: String,
        /// Who it is.
        info: Option<PodInfo>,
        /// Its network namespace.
        netns: N,
    },
    /// The agent knows this pod but cannot hand its namespace over again: keep what runs.
    Keep {
        /// The pod.
        uid: String,
    },
    /// Carry this pod no longer.
    Del {
        /// The pod.
        uid: String,
    },
    /// Everything the agent knew when we connected has been named.
    SnapshotSent,
}

/// A packet that cannot be read as a message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No payload, or one this version does not know.
    #[error("the request has no payload this version knows; is the node agent newer than this ztunnel?")]
    NoPayload,
    /// An `Add` came without its network namespace.
    #[error("add of pod {uid} came without the file descriptor of its network namespace")]
    AddWithoutDescriptor {
        /// The pod.
        uid: String,
    },
    /// A descriptor came with a message that must not have one.
    #[error("a file descriptor came with a {message} message; only add may carry one")]
    StrayDescriptor {
        /// The kind of message.
        message: &'static str,
    },
}

impl<N> Message<N> {
    /// Put a decoded request and the descriptor that came with it together.
    pub fn new(request: WorkloadRequest, passed: Option<N>) -> Result<Self, ReadError> {
        let stray = |message| ReadError::StrayDescriptor { message };
        match (request.payload.ok_or(ReadError::NoPayload)?, passed) {
            (Payload::Add(add), Some(netns)) => {
                let info = add.workload_info.map(|info| PodInfo {
                    name: info.name,
                    namespace: info.namespace,
                    service_account: info.service_account,
                });
                Ok(Self::Add { uid: add.uid, info, netns })
            }
            (Payload::Add(add), None) => Err(ReadError::AddWithoutDescriptor { uid: add.uid }),
            (Payload::Keep(keep), None) => Ok(Self::Keep { uid: keep.uid }),
            (Payload::Keep(_), Some(_)) => Err(stray("keep")),
            (Payload::Del(del), None) => Ok(Self::Del { uid: del.uid }),
            (Payload::Del(_), Some(_)) => Err(stray("del")),
            (Payload::SnapshotSent(_), None) => Ok(Self::SnapshotSent),
            (Payload::SnapshotSent(_), Some(_)) => Err(stray("snapshot_sent")),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// What the agent of Istio sent, with how many descriptors.
    fn recorded() -> Vec<(WorkloadRequest, Option<()>)> {
        let records =
            [include_str!("../../tests/wire/zds-agent.jsonl"), include_str!("../../tests/wire/zds-ztunnel.jsonl")];
        let lines = records.iter().flat_map(|records| records.lines());
        let records = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let requests = records.filter(|record| record["who"].as_str().unwrap().starts_with("WorkloadRequest"));
        requests
            .map(|record| {
                let (who, hex) = (record["who"].as_str().unwrap(), record["hex"].as_str().unwrap());
                let bytes: Vec<u8> =
                    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
                let one = who.contains("1 fds") || who.contains("one fd");
                (WorkloadRequest::decode(bytes.as_slice()).unwrap(), one.then_some(()))
            })
            .collect()
    }

    #[test]
    fn recorded_requests_are_understood() {
        let messages: Vec<_> = recorded().into_iter().map(|(request, fd)| Message::new(request, fd).unwrap()).collect();
        let count = |kind: fn(&Message<()>) -> bool| messages.iter().filter(|message| kind(message)).count();
        assert_eq!(count(|message| matches!(message, Message::Add { info: Some(_), .. })), 4);
        assert_eq!(count(|message| matches!(message, Message::Del { uid } if uid == "server-uid")), 1);
        assert_eq!(count(|message| matches!(message, Message::SnapshotSent)), 3);
        assert!(messages.contains(&Message::Add {
            uid: "client-uid".into(),
            info: Some(PodInfo {
                name: "client".into(),
                namespace: "default".into(),
                service_account: "client".into(),
            }),
            netns: (),
        }));
    }

    #[test]
    fn a_descriptor_goes_with_an_add_and_with_nothing_else() {
        for (request, fd) in recorded() {
            let other = if fd.is_some() { None } else { Some(()) };
            assert!(Message::new(request, other).is_err());
        }
        assert_eq!(Message::<()>::new(WorkloadRequest::default(), None), Err(ReadError::NoPayload));
    }
}
