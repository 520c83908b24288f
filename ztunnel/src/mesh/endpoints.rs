// SPDX-License-Identifier: Apache-2.0
//! The endpoints of one service, in the order of their uids. A flat list: choosing reads it for every connection, and it
//! changes once per batch of discovery at most.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use super::ports::PortMap;
use super::text::Text;
use super::workload::Workload;

/// One workload in its role as endpoint of one service.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// The workload.
    pub workload: Arc<Workload>,
    /// The ports on which it serves this service.
    pub ports: PortMap,
}

/// The endpoints of a service as readers see them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Endpoints<'a> {
    list: &'a [Endpoint],
    heaviest: u32,
}

/// The endpoints of a service as the tables hold them.
#[derive(Debug, Clone)]
pub(super) struct EndpointList {
    list: Arc<[Endpoint]>,
    heaviest: u32,
}

impl<'a> Endpoints<'a> {
    /// All of them, healthy or not.
    pub fn all(self) -> &'a [Endpoint] {
        self.list
    }

    /// One after the other.
    pub fn iter(self) -> std::slice::Iter<'a, Endpoint> {
        self.list.iter()
    }

    /// The greatest capacity among them.
    pub fn heaviest(self) -> u32 {
        self.heaviest
    }
}

impl Deref for Endpoints<'_> {
    type Target = [Endpoint];
    fn deref(&self) -> &[Endpoint] {
        self.list
    }
}

impl EndpointList {
    pub(super) fn read(&self) -> Endpoints<'_> {
        Endpoints { list: &self.list, heaviest: self.heaviest }
    }
}

/// A list of endpoints after some came and went; none if nobody is left.
pub(super) fn settle(old: Endpoints<'_>, changes: BTreeMap<Text, Option<Endpoint>>) -> Option<EndpointList> {
    let mut list = Vec::with_capacity(old.len() + changes.len());
    let mut rest = old.list;
    for (uid, change) in changes {
        let place = rest.partition_point(|endpoint| endpoint.workload.uid < uid);
        let (before, after) = rest.split_at(place);
        list.extend_from_slice(before);
        list.extend(change);
        let is_there = after.first().is_some_and(|endpoint| endpoint.workload.uid == uid);
        rest = if is_there { &after[1..] } else { after };
    }
    list.extend_from_slice(rest);
    let heaviest = list.iter().map(|endpoint| endpoint.workload.capacity).max()?;
    Some(EndpointList { list: list.into(), heaviest })
}
