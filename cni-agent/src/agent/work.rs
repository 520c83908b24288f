// SPDX-License-Identifier: Apache-2.0
//! Carries out steps. Each waits for whatever it needs and answers with what it saw; nothing is decided here.

use std::error::Error;
use std::fmt::Write as _;
use std::os::fd::AsFd as _;

use mesh_common::lifecycle::Tasks;

use crate::enrol::Pod;
use crate::find::{Finder, PodNetns, Wanted};
use crate::rules::{self, Observed, Options, Overrides, Plan, RulesError};
use crate::zds::{PodInfo, Proxies};

use super::entry::{Rules, Seen, Step};
use super::status::StatusFolder;

/// What steps work with.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) tasks: Tasks,
    pub(super) finder: Finder,
    pub(super) proxies: Proxies,
    pub(super) rules: Options,
    pub(super) status: StatusFolder,
}

impl Tools {
    pub(super) async fn take(&self, pod: Pod, netns: Option<PodNetns>, step: Step) -> Result<Seen<PodNetns>, String> {
        match (step, netns) {
            (Step::FindNetns, _) => self.find(pod).await,
            (Step::StopListening, _) => {
                self.proxies.leave(&pod.uid).await;
                Ok(Seen::Done)
            }
            (Step::WithdrawStatus, _) => self.status.withdraw(&pod).map(|()| Seen::Done).map_err(|e| chain(&e)),
            (Step::WriteStatus, _) => self.status.enable(&pod).map(|()| Seen::Done).map_err(|e| chain(&e)),
            (Step::Hold, Some(netns)) => {
                self.proxies.hold(&pod.uid, info(&pod), netns);
                Ok(Seen::Done)
            }
            (Step::Listen, Some(netns)) => {
                let listening = self.proxies.listen(&pod.uid, info(&pod), netns).await;
                listening.map(|()| Seen::Done).map_err(|error| chain(&error))
            }
            (Step::ApplyRules, Some(netns)) => {
                self.inside(pod, netns, |netns, plan| {
                    let legacy = rules::legacy_tables(netns.as_fd())?;
                    if !legacy.is_empty() {
                        tracing::warn!(
                            tables = legacy.join(","),
                            "iptables-legacy rules stand in a pod, which cannot be seen or replaced; if an Istio agent \
                             made them, restart the pod"
                        );
                    }
                    rules::apply(netns.as_fd(), plan).map(|_| Seen::Done)
                })
                .await
            }
            (Step::Observe, Some(netns)) => {
                self.inside(pod, netns, |netns, plan| {
                    rules::observe(netns.as_fd(), plan).map(|observed| Seen::Rules(judge(&observed)))
                })
                .await
            }
            (Step::ReleaseRedirects, Some(netns)) => {
                self.inside(pod, netns, |netns, _| rules::release_redirects(netns.as_fd()).map(|()| Seen::Done)).await
            }
            (Step::CountProxied, Some(netns)) => {
                self.inside(pod, netns, |netns, plan| {
                    rules::proxied_connections(netns.as_fd(), plan).map(|counted| Seen::Proxied(counted.total()))
                })
                .await
            }
            (Step::RemoveRules, Some(netns)) => {
                self.inside(pod, netns, |netns, plan| rules::remove(netns.as_fd(), plan).map(|()| Seen::Done)).await
            }
            (_, None) => Err("the pod has no network namespace any more".to_owned()),
        }
    }

    async fn find(&self, pod: Pod) -> Result<Seen<PodNetns>, String> {
        let finder = self.finder.clone();
        let wanted = Wanted { uid: pod.uid.clone(), addresses: pod.addresses };
        let found = self.tasks.spawn_blocking("find a network namespace", move || finder.find(&[wanted]));
        let mut found = found.output().await.map_err(|lost| lost.to_string())?.map_err(|error| chain(&error))?;
        found.remove(&pod.uid).map(Seen::Netns).ok_or_else(|| {
            "no process of it runs on this node, and no container runtime has told of it; normal while it starts"
                .to_owned()
        })
    }

    /// Works inside the pod, off the loop: netlink calls block.
    async fn inside(
        &self,
        pod: Pod,
        netns: PodNetns,
        work: impl FnOnce(&PodNetns, &Plan) -> Result<Seen<PodNetns>, RulesError> + Send + 'static,
    ) -> Result<Seen<PodNetns>, String> {
        let annotations = pod.annotations.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let (overrides, ignored) = Overrides::read(annotations);
        for ignored in ignored {
            tracing::warn!(namespace = pod.namespace, pod = pod.name, "{ignored}");
        }
        // Off until the node proxy answers name queries, also where an annotation asks for it.
        let plan = Plan::new(&Options { dns_capture: self.rules.dns_capture, ..overrides.over(&self.rules) });
        let working = self.tasks.spawn_blocking("rules of a pod", move || work(&netns, &plan));
        working.output().await.map_err(|lost| lost.to_string())?.map_err(|error| chain(&error))
    }
}

fn info(pod: &Pod) -> PodInfo {
    PodInfo { name: pod.name.clone(), namespace: pod.namespace.clone(), service_account: pod.service_account.clone() }
}

fn judge(observed: &Observed) -> Rules {
    match observed {
        Observed::InPlace => Rules::InPlace,
        Observed::Missing => Rules::Absent,
        Observed::Released => Rules::Released,
        Observed::Differs(_) | Observed::Foreign(_) => Rules::Wrong,
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
