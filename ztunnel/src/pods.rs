// SPDX-License-Identifier: Apache-2.0
//! Pods of this node between the control side and the data threads: orders of the node agent become listeners, news of
//! the mesh and of certificates become commands, and demands of the data threads become orders for certificates.
//!
//! It keeps the list of identities that are wanted here: those of the pods we carry, and those of workloads that
//! discovery places on this node, whose pods are probably about to come (A-12).

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_proto::spiffe::Identity;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::certs::{self, Outcome, Wanted};
use crate::control_plane::explain;
use crate::engine::{CloseHow, Demand, Handle, ListenAt, Pod, Shared};
use crate::mesh::{Changed, PodName, Protocol, Snapshot};
use crate::zds::{Held, Order, Report};

/// Who talks to the pods.
pub struct Inlets {
    /// The node agent's orders.
    pub orders: UnboundedReceiver<Order>,
    /// What has changed in the mesh.
    pub news: UnboundedReceiver<Changed>,
    /// What has become of certificates.
    pub outcomes: UnboundedReceiver<Outcome>,
    /// What data threads need.
    pub demands: UnboundedReceiver<Demand>,
}

/// Whom the pods talk to.
pub struct Outlets {
    /// How orders ended.
    pub reports: UnboundedSender<Report>,
    /// The keeper of certificates.
    pub keeper: UnboundedSender<certs::Order>,
}

/// The pods; see the module's text.
pub struct Pods {
    engine: Arc<Handle>,
    shared: Shared,
    outlets: Outlets,
    /// Without it nobody knows which workloads are here, and only pods want certificates.
    node: Option<String>,
    carried: BTreeMap<String, PodName>,
    wanted: BTreeMap<Wanted, Identity>,
}

impl Pods {
    /// None yet. `node` is this node's name.
    pub fn new(engine: Arc<Handle>, shared: Shared, outlets: Outlets, node: Option<String>) -> Self {
        Self { engine, shared, outlets, node, carried: BTreeMap::new(), wanted: BTreeMap::new() }
    }

    /// Open our own pod's HBONE listener: mesh clients reach our metrics through it (P-04).
    pub fn open_own(&mut self, pod: Pod, at: ListenAt) {
        let (uid, name) = (pod.uid.clone(), name_of(&pod));
        match self.engine.open_at(Arc::new(pod), None, at) {
            Ok(()) => {
                self.carried.insert(uid, name);
                self.settle();
            }
            Err(error) => {
                let error = explain(&error);
                tracing::warn!(error, "mesh clients cannot reach this ztunnel's own ports over HBONE");
            }
        }
    }

    /// Until everybody who talks to it is gone.
    pub async fn run(mut self, mut inlets: Inlets) {
        loop {
            tokio::select! {
                Some(order) = inlets.orders.recv() => self.obey(order),
                Some(changed) = inlets.news.recv() => {
                    self.engine.mesh_changed(changed.must_judge_again());
                    if changed.local {
                        self.settle();
                    }
                }
                Some(outcome) = inlets.outcomes.recv() => match outcome {
                    Outcome::Changed(identity) => self.engine.credential_changed(&identity),
                    Outcome::Refused(identity, reason) => self.engine.credential_failed(&identity, reason),
                },
                Some(demand) = inlets.demands.recv() => match demand {
                    Demand::Certificate { identity } => self.ask(certs::Order::Need(identity)),
                    // With wildcard discovery there is nobody to ask: it comes, or the connection gives up.
                    Demand::Workload { namespace, name } => {
                        tracing::debug!(namespace, name, "a connection waits for its own workload's record");
                    }
                },
                else => return,
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Open { uid, attempt, info, netns } => {
                let (name, namespace, service_account) = (info.name, info.namespace, info.service_account);
                let pod = Pod { uid: uid.clone(), name, namespace, service_account };
                let result = self.open(pod, &netns);
                // The client ends only after this task.
                let _ = self.outlets.reports.send(Report { uid, attempt, result });
            }
            Order::Close { uid, why } => {
                tracing::debug!(uid, ?why, "closing a pod");
                // When the agent says so there is nothing left to wait for: see `zds::session`.
                drop(self.engine.close(&uid, CloseHow::Immediate));
                self.carried.remove(&uid);
                self.settle();
            }
        }
    }

    fn open(&mut self, pod: Pod, netns: &Held) -> Result<(), String> {
        let (uid, name) = (pod.uid.clone(), name_of(&pod));
        let fd = netns.duplicate().map_err(|error| format!("cannot duplicate its descriptor: {error}"))?;
        self.engine.open(Arc::new(pod), Some(fd)).map_err(|error| explain(&error))?;
        self.carried.insert(uid, name);
        self.settle();
        Ok(())
    }

    /// Tell the keeper what is wanted now and was not, and the reverse.
    fn settle(&mut self) {
        let snapshot = self.shared.mesh.load();
        let wanted = wishes(&snapshot, &self.carried, self.node.is_some(), &self.wanted);
        for (owner, identity) in &wanted {
            if self.wanted.get(owner) != Some(identity) {
                self.ask(certs::Order::Want(owner.clone(), Some(identity.clone())));
            }
        }
        for owner in self.wanted.keys().filter(|owner| !wanted.contains_key(owner)) {
            self.ask(certs::Order::Want(owner.clone(), None));
        }
        self.wanted = wanted;
    }

    fn ask(&self, order: certs::Order) {
        // The keeper ends only after this task.
        let _ = self.outlets.keeper.send(order);
    }
}

/// Who wants which identity. A pod's identity is known when its workload is: that has the trust domain (A-02). A pod we
/// carry keeps it while the record is away: a control plane that loses its pods for a moment must not cost us theirs.
fn wishes(
    snapshot: &Snapshot,
    carried: &BTreeMap<String, PodName>,
    local: bool,
    before: &BTreeMap<Wanted, Identity>,
) -> BTreeMap<Wanted, Identity> {
    let pods = carried.iter().filter_map(|(uid, pod)| {
        let owner = Wanted::Pod(uid.clone());
        let known = snapshot.own(pod).and_then(|workload| workload.identity.clone());
        let identity = known.or_else(|| before.get(&owner).cloned())?;
        Some((owner, identity))
    });
    let local = snapshot.local_workloads().filter(|workload| local && workload.protocol == Protocol::Hbone);
    let workloads = local
        .filter_map(|workload| Some((Wanted::Workload(workload.uid.as_str().to_owned()), workload.identity.clone()?)));
    pods.chain(workloads).collect()
}

fn name_of(pod: &Pod) -> PodName {
    PodName {
        namespace: pod.namespace.as_str().into(),
        name: pod.name.as_str().into(),
        service_account: pod.service_account.as_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{Change, Store};
    use crate::xds::LocalConfig;

    fn changes() -> Vec<Change> {
        let text = r#"
workloads:
- {uid: here, name: a, namespace: demo, serviceAccount: sa-a, node: n1, protocol: HBONE, workloadIps: ["10.0.0.1"]}
- {uid: plain, name: b, namespace: demo, serviceAccount: sa-b, node: n1, protocol: TCP, workloadIps: ["10.0.0.2"]}
- {uid: there, name: c, namespace: demo, serviceAccount: sa-c, node: n2, protocol: HBONE, workloadIps: ["10.0.0.3"]}
"#;
        LocalConfig::Inline(text.into()).read().unwrap().1
    }

    fn id(name: &str) -> Identity {
        Identity::new("cluster.local", "demo", name).unwrap()
    }

    fn pod(name: &str, account: &str) -> (String, PodName) {
        let pod = Pod {
            uid: format!("uid-{name}"),
            name: name.into(),
            namespace: "demo".into(),
            service_account: account.into(),
        };
        (pod.uid.clone(), name_of(&pod))
    }

    #[test]
    fn identities_of_this_nodes_mesh_workloads_and_of_carried_pods_are_wanted() {
        let mut store = Store::new("n1");
        let snapshot = store.apply(changes()).snapshot;
        let none = BTreeMap::new();
        let here = (Wanted::Workload("here".into()), id("sa-a"));
        assert_eq!(wishes(&snapshot, &none_carried(), true, &none), BTreeMap::from([here.clone()]));

        let carried = BTreeMap::from([pod("b", "sa-b"), pod("c", "sa-c"), pod("b2", "sa-b")]);
        let wanted = wishes(&snapshot, &carried, true, &none);
        let plain = (Wanted::Pod("uid-b".into()), id("sa-b"));
        assert_eq!(wanted, BTreeMap::from([here, plain.clone()]), "neither another node's pod nor an unknown one");

        let snapshot =
            store.apply([Change::RemoveAddress("plain".into()), Change::RemoveAddress("here".into())]).snapshot;
        assert_eq!(wishes(&snapshot, &carried, true, &wanted), BTreeMap::from([plain]), "it is still carried");
        assert_eq!(wishes(&snapshot, &none_carried(), true, &wanted), none);
    }

    #[test]
    fn without_a_node_name_only_pods_want_identities() {
        let snapshot = Store::new("").apply(changes()).snapshot;
        assert_eq!(wishes(&snapshot, &none_carried(), false, &BTreeMap::new()), BTreeMap::new());
    }

    fn none_carried() -> BTreeMap<String, PodName> {
        BTreeMap::new()
    }
}
