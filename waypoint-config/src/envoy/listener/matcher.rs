// SPDX-License-Identifier: Apache-2.0
//! How a listener finds the chain of a connection: by address, then by port, then by what the client speaks. Called by `internal`.

use std::collections::BTreeMap;

use envoy_types::pb::{
    envoy::extensions::matching::common_inputs::network::v3::{
        ApplicationProtocolInput, DestinationIpInput, DestinationPortInput,
    },
    google::protobuf::StringValue,
    xds::{
        core::v3::{CidrRange, TypedExtensionConfig},
        r#type::matcher::v3::{
            Matcher,
            matcher::{
                MatcherList, MatcherTree, MatcherType, OnMatch,
                matcher_list::FieldMatcher,
                matcher_tree::{MatchMap, TreeType},
                on_match,
            },
        },
    },
};
use ipnet::IpNet;
use mesh_proto::discovery::Any;

use crate::envoy::{
    access::Refused,
    encode::{number, pack},
    message::{IpMatcher, IpRangeMatcher},
};

/// Where connections to an address go.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::envoy) enum Ports {
    /// To the chain of their port; other ports nowhere.
    Each(BTreeMap<u16, Way>),
    /// To the same, whatever the port.
    All(Way),
}

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::envoy) enum Way {
    /// To this chain.
    Chain(String),
    /// To this chain, unless it is refused.
    Guarded(Guarded),
    /// To one of two chains.
    BySpeech {
        /// For HTTP.
        http: String,
        /// For everything else.
        tcp: Guarded,
    },
}

/// A chain of bytes and whom it is closed to.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::envoy) struct Guarded {
    /// The chain.
    pub(in crate::envoy) chain: String,
    /// Which connections go nowhere.
    pub(in crate::envoy) refused: Refused,
}

/// `None` when there is no address: Envoy refuses an empty table.
pub(super) fn matcher(table: &BTreeMap<IpNet, Ports>) -> Option<Matcher> {
    let range = |(range, ports): (&IpNet, &Ports)| {
        let range =
            CidrRange { address_prefix: range.network().to_string(), prefix_len: number(range.prefix_len().into()) };
        Some(IpRangeMatcher { ranges: vec![range], on_match: Some(on_address(ports)?) })
    };
    let range_matchers: Vec<_> = table.iter().filter_map(range).collect();
    let custom = extension("ip", pack(&IpMatcher { range_matchers: range_matchers.clone() }));
    let tree = MatcherTree {
        input: Some(extension("ip", pack(&DestinationIpInput::default()))),
        tree_type: Some(TreeType::CustomMatch(custom)),
    };
    (!range_matchers.is_empty()).then(|| of_tree(tree))
}

fn on_address(ports: &Ports) -> Option<OnMatch> {
    match ports {
        Ports::All(way) => Some(on_way(way)),
        Ports::Each(ports) => {
            let map = ports.iter().map(|(port, way)| (port.to_string(), on_way(way)));
            let input = extension("port", pack(&DestinationPortInput::default()));
            (!ports.is_empty()).then(|| deeper(of_tree(exact(input, map))))
        }
    }
}

fn on_way(way: &Way) -> OnMatch {
    match way {
        Way::Chain(chain) => to(chain),
        Way::Guarded(guarded) => on_guarded(guarded),
        Way::BySpeech { http, tcp } => {
            let input = extension("protocol", pack(&ApplicationProtocolInput::default()));
            let map = HTTP_PROTOCOLS.map(|protocol| (protocol.to_owned(), to(http)));
            deeper(Matcher { on_no_match: Some(Box::new(on_guarded(tcp))), ..of_tree(exact(input, map)) })
        }
    }
}

fn on_guarded(of: &Guarded) -> OnMatch {
    let predicate = match &of.refused {
        Refused::Never => return to(&of.chain),
        Refused::Always => return to(REFUSED),
        Refused::When(predicate) => predicate.clone(),
    };
    let matcher = FieldMatcher { predicate: Some(predicate), on_match: Some(to(REFUSED)) };
    let list = MatcherType::MatcherList(MatcherList { matchers: vec![matcher] });
    deeper(Matcher { on_no_match: Some(Box::new(to(&of.chain))), matcher_type: Some(list) })
}

fn to(chain: &str) -> OnMatch {
    let action = extension(chain, pack(&StringValue { value: chain.to_owned() }));
    OnMatch { on_match: Some(on_match::OnMatch::Action(action)), ..Default::default() }
}

fn deeper(matcher: Matcher) -> OnMatch {
    OnMatch { on_match: Some(on_match::OnMatch::Matcher(Box::new(matcher))), ..Default::default() }
}

fn exact(input: TypedExtensionConfig, map: impl IntoIterator<Item = (String, OnMatch)>) -> MatcherTree {
    let map = MatchMap { map: map.into_iter().collect() };
    MatcherTree { input: Some(input), tree_type: Some(TreeType::ExactMatchMap(map)) }
}

fn of_tree(tree: MatcherTree) -> Matcher {
    Matcher { matcher_type: Some(MatcherType::MatcherTree(tree)), ..Default::default() }
}

fn extension(name: &str, config: Any) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) }
}

/// The chain that closes what it is given.
pub(super) const REFUSED: &str = "refused";

/// As the inspector of listeners names them; the quotes are part of it.
const HTTP_PROTOCOLS: [&str; 3] = ["'h2c'", "'http/1.0'", "'http/1.1'"];
