// SPDX-License-Identifier: Apache-2.0
//! The two listeners in which connections meet the chain of their destination. Called by `render`.
//!
//! `main_internal` decides by address and port and never waits for a byte, so a server that speaks first is heard at once. Only connections to ports whose
//! protocol is undeclared go on to `sniff_internal`, which looks at what the client sends, and stops waiting after a while.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use envoy_types::pb::envoy::{
    config::{
        core::v3::TrafficDirection,
        listener::v3::{FilterChain, Listener},
    },
    extensions::filters::listener::http_inspector::v3::HttpInspector,
};

use ipnet::IpNet;

use super::{
    chain::Chain,
    log, matcher,
    matcher::{Ports, REFUSED},
    part::{internal_listener, listener_filter},
    state,
    tcp::hop,
};
use crate::envoy::{
    Profile,
    cluster::{MAIN, SNIFF},
    encode::{duration, pack},
    input::Serving,
    names::NOBODY,
};

/// Chains of many services, put together. Of two that claim the same port of an address, or the same name, the first counts.
#[derive(Debug, Default)]
pub(in crate::envoy) struct Tables {
    chains: Vec<FilterChain>,
    names: BTreeSet<String>,
    table: BTreeMap<IpNet, Ports>,
}

impl Tables {
    /// Adds those of one service.
    pub(in crate::envoy) fn add(&mut self, of: &Chain) {
        for chain in &of.chains {
            if self.names.insert(chain.name.clone()) {
                self.chains.push(chain.clone());
            }
        }
        for (address, ports) in &of.table {
            match (self.table.entry(*address), ports) {
                (Entry::Vacant(free), ports) => {
                    free.insert(ports.clone());
                }
                (Entry::Occupied(mut taken), Ports::Each(more)) => {
                    if let Ports::Each(ports) = taken.get_mut() {
                        more.iter().for_each(|(port, way)| {
                            ports.entry(*port).or_insert_with(|| way.clone());
                        });
                    }
                }
                (Entry::Occupied(_), Ports::All(_)) => {}
            }
        }
    }
}

/// The listener of declared ports.
pub(in crate::envoy) fn main(serving: &Serving, profile: &Profile, tables: Tables) -> Listener {
    let log = log::of_tunnels(&serving.settings);
    let sniff = hop(SNIFF_CHAIN, SNIFF, vec![state::again(profile.flavour)], log);
    listener(serving, MAIN, tables, vec![sniff])
}

/// The listener of undeclared ports.
pub(in crate::envoy) fn sniff(serving: &Serving, tables: Tables) -> Listener {
    let mut listener = listener(serving, SNIFF, tables, Vec::new());
    let inspector = listener_filter("envoy.filters.listener.http_inspector", pack(&HttpInspector::default()));
    listener.listener_filters.push(inspector);
    listener.listener_filters_timeout = duration(serving.settings.detection_timeout);
    listener.continue_on_listener_filters_timeout = true;
    listener
}

fn listener(serving: &Serving, name: &str, tables: Tables, also: Vec<FilterChain>) -> Listener {
    let refused = hop(REFUSED, NOBODY, Vec::new(), log::of_services(&serving.settings, false));
    let filter_chain_matcher = matcher::matcher(&tables.table);
    let filter_chains = match filter_chain_matcher {
        Some(_) => tables.chains.into_iter().chain(also).chain([refused]).collect(),
        // Envoy refuses a listener without chains, and without a matcher its only chain takes everything.
        None => vec![refused],
    };
    Listener {
        filter_chains,
        filter_chain_matcher,
        traffic_direction: TrafficDirection::Inbound.into(),
        ..internal_listener(name)
    }
}

/// The chain that hands on to the listener of undeclared ports.
pub(super) const SNIFF_CHAIN: &str = "sniff";
