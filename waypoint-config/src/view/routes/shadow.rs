// SPDX-License-Identifier: Apache-2.0
//! Matches that are never reached, because the same match of another route stands before them: nothing is wrong with such a route, but its author should
//! hear of it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::status::{ConditionKind, RouteStatus};
use crate::{
    api::Key,
    view::rule::{HttpEntry, HttpMatch},
};

/// By route: how many of its matches are shadowed, and by whom the first of them is.
#[derive(Default)]
pub(super) struct Shadows(BTreeMap<Key, (usize, Key)>);

impl Shadows {
    /// Looks at the entries of a port, which are in order.
    pub(super) fn note(&mut self, entries: &[HttpEntry]) {
        let mut here: BTreeMap<&Key, (usize, &Key)> = BTreeMap::new();
        let mut first: HashMap<(&Option<Arc<str>>, &HttpMatch), &Key> = HashMap::with_capacity(entries.len());
        for entry in entries {
            let route = &entry.rule.origin.route;
            let before = *first.entry((&entry.client_namespace, &entry.matches)).or_insert(route);
            if before != route {
                here.entry(route).or_insert((0, before)).0 += 1;
            }
        }
        // A route on several ports has the same matches on each.
        for (route, (count, before)) in here {
            let known = self.0.entry(route.clone()).or_insert_with(|| (0, before.clone()));
            known.0 = known.0.max(count);
        }
    }

    /// Tells the authors.
    pub(super) fn tell(&self, statuses: &mut [RouteStatus]) {
        for status in statuses {
            let Some((count, before)) = self.0.get(&status.route) else { continue };
            let accepted = |kind: ConditionKind, is_true: bool| kind == ConditionKind::Accepted && is_true;
            for condition in status.conditions.iter_mut().filter(|one| accepted(one.kind, one.is_true)) {
                let text = format!(
                    "; {count} of its matches are never reached, as the same stand before them in others, the first in {before}"
                );
                condition.message.push_str(&text);
            }
        }
    }
}
