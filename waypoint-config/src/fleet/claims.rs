// SPDX-License-Identifier: Apache-2.0
//! Which of several services with one host name a waypoint speaks of: the one that sorts first. Called by `tended`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::view::Name;

/// Host names and who claims them.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    by_host: BTreeMap<Arc<str>, BTreeSet<Name>>,
    hosts: BTreeMap<Name, Arc<str>>,
}

impl Claims {
    /// Whether the host name of a service means that service.
    pub(super) fn wins(&self, service: &Name) -> bool {
        let host = self.hosts.get(service);
        host.and_then(|host| self.by_host.get(host)).and_then(BTreeSet::first) == Some(service)
    }

    /// What a service claims now; gives every service that may have won or lost by that, itself too.
    pub(super) fn set(&mut self, service: &Name, host: Option<&Arc<str>>) -> BTreeSet<Name> {
        let mut concerned = BTreeSet::from([service.clone()]);
        let old = match host {
            Some(host) => self.hosts.insert(service.clone(), Arc::clone(host)),
            None => self.hosts.remove(service),
        };
        if let Some(old) = old
            && let Some(rivals) = self.by_host.get_mut(&old)
        {
            rivals.remove(service);
            concerned.extend(rivals.first().cloned());
            if rivals.is_empty() {
                self.by_host.remove(&old);
            }
        }
        if let Some(host) = host {
            let rivals = self.by_host.entry(Arc::clone(host)).or_default();
            concerned.extend(rivals.first().cloned());
            rivals.insert(service.clone());
        }
        concerned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_services_with_one_host_the_first_by_name_has_it() {
        let (a, b, host) = (Name::new("a", "x"), Name::new("b", "x"), Arc::from("x.example"));
        let mut claims = Claims::default();
        assert_eq!(claims.set(&b, Some(&host)), BTreeSet::from([b.clone()]));
        assert!(claims.wins(&b));
        assert_eq!(claims.set(&a, Some(&host)), BTreeSet::from([a.clone(), b.clone()]));
        assert!(claims.wins(&a) && !claims.wins(&b));
        assert_eq!(claims.set(&a, None), BTreeSet::from([a.clone(), b.clone()]));
        assert!(claims.wins(&b) && !claims.wins(&a));
    }
}
