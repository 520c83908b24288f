// SPDX-License-Identifier: Apache-2.0
//! Who wants which identity: an identity is wanted while any pod or workload of this node has it. Pure.

use std::collections::{BTreeMap, HashMap};

use mesh_proto::spiffe::Identity;

/// A wish's owner. The two are kept apart: a workload record may come long before its pod, and go before it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wanted {
    /// A workload of this node, by its uid in workload discovery.
    Workload(String),
    /// An enrolled pod, by its uid in ZDS.
    Pod(String),
}

/// The wishes of this node.
#[derive(Debug, Default)]
pub struct Interest {
    wishes: BTreeMap<Wanted, Identity>,
    counts: HashMap<Identity, usize>,
}

impl Interest {
    /// The owner wants this identity now, or none. Gives the identity that is new and the one that nobody wants any more.
    pub fn set(&mut self, owner: Wanted, identity: Option<Identity>) -> (Option<Identity>, Option<Identity>) {
        let old = match &identity {
            Some(identity) => self.wishes.insert(owner, identity.clone()),
            None => self.wishes.remove(&owner),
        };
        if old == identity {
            return (None, None);
        }
        let added = identity.filter(|identity| {
            let count = self.counts.entry(identity.clone()).or_insert(0);
            *count += 1;
            *count == 1
        });
        let dropped = old.filter(|identity| match self.counts.get_mut(identity) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => {
                self.counts.remove(identity);
                true
            }
        });
        (added, dropped)
    }

    /// Does anybody want it?
    pub fn is_wanted(&self, identity: &Identity) -> bool {
        self.counts.contains_key(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Option<Identity> {
        Some(Identity::new("cluster.local", "demo", name).unwrap())
    }

    fn pod(uid: &str) -> Wanted {
        Wanted::Pod(uid.into())
    }

    #[test]
    fn an_identity_is_wanted_from_its_first_owner_to_its_last() {
        let mut interest = Interest::default();
        assert_eq!(interest.set(Wanted::Workload("w".into()), id("a")), (id("a"), None));
        assert_eq!(interest.set(pod("p"), id("a")), (None, None));
        assert_eq!(interest.set(Wanted::Workload("w".into()), None), (None, None));
        assert_eq!(interest.set(pod("p"), id("a")), (None, None), "no change");
        assert!(interest.is_wanted(&id("a").unwrap()));
        assert_eq!(interest.set(pod("p"), id("b")), (id("b"), id("a")));
        assert_eq!(interest.set(pod("p"), None), (None, id("b")));
        assert_eq!(interest.set(pod("p"), None), (None, None));
    }
}
