// SPDX-License-Identifier: Apache-2.0
//! What belongs into an enrolled pod's network namespace: [`Options`] in, [`Plan`] out, nothing else.
//!
//! The agent builds a plan per pod and hands it to `rules::apply` and `rules::observe`. The sets are Istio's (table names, chain names, marks, ports),
//! so that either agent finds, replaces and deletes what the other left. Where ours differ, and why:
//!
//! - Redirects match only the segment that opens a connection. When nat rules appear in a namespace that had no connection tracking, the next packet of
//!   every open connection counts as its first and would be redirected: both ends hang.
//! - Our nat base chains have names of their own and come one step earlier (priority -101). Among nat chains of equal priority the one registered last
//!   wins, so a program that adds its own later would go first; and Istio's agent can still add its `prerouting` and `output` at -100 to the same table,
//!   which it could not if ours bore those names at another priority (the kernel refuses to move a base chain).
//! - Connections that the proxy opens in a client's name are tracked apart from those the client opens itself. Both lead from the client's address to the
//!   application, and their ports are chosen by two parties that do not know of each other. Where they chose the same, the kernel would take the second
//!   for a part of the first: a client that came second would get no answer, one that came first would be reset. Connections opened under this rule
//!   need it as long as they live. So it has a table of its own, which Istio's agent does not touch; and it goes by a mark that only our proxy sets, so
//!   that what Istio's has open survives a take-over. What our proxy opened before the rule stood does not: replace the agent before the proxy.
//! - Tables the plan has no use for are planned as absent, so that one left over from earlier options is found and taken out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mesh_proto::contract::{mark, port, probe};

use super::rule::{Action, Base, Chain, ChainKind, Hook, Interface, Is, Match, Rule, Table, Transport};

/// Bits of a mark, and the value they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The value of the bits in `mask`.
    pub value: u32,
    /// Which bits count; the others belong to somebody else.
    pub mask: u32,
}

/// The proxy's ports inside a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Takes what the pod's programs open.
    pub outbound: u16,
    /// Takes plaintext that arrives.
    pub inbound: u16,
    /// Takes HBONE, addressed directly and therefore never redirected.
    pub hbone: u16,
    /// Takes name queries.
    pub dns: u16,
}

/// What shapes the rules of one pod: the node's settings with the pod's own wishes laid over them ([`super::Overrides`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Capture IPv6 as well. Without it IPv6 traffic is neither captured nor blocked.
    pub ipv6: bool,
    /// Send name queries to the proxy. Off until ztunnel serves them.
    pub dns_capture: bool,
    /// Leave arriving traffic alone: the pod is itself a gateway that takes any client.
    pub bypass_inbound: bool,
    /// Interfaces behind which virtual machines or nested containers send traffic that counts as the pod's own. A trailing `*` stands for any ending.
    pub virtual_interfaces: Vec<String>,
    /// The source address the node gives the kubelet's IPv4 probes; they pass by the proxy.
    pub probe_source: Ipv4Addr,
    /// The same for IPv6.
    pub probe_source_v6: Ipv6Addr,
    /// The proxy's ports.
    pub ports: Ports,
    /// The mark of the proxy's own sockets.
    pub proxy_mark: Marked,
    /// The mark of those of them that have the source address of a remote client.
    pub in_client_s_name: Marked,
    /// The mark of connections the proxy made to the application in the name of a remote client.
    pub delivery_mark: Marked,
}

/// Everything that belongs into one pod's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub(crate) tables: Vec<Table>,
    pub(crate) policy_route: PolicyRoute,
    pub(crate) ports: Ports,
    pub(crate) proxy_mark: Marked,
}

/// Packets with this mark are looked up in a table that keeps them on the loopback interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PolicyRoute {
    pub(crate) mark: Marked,
    pub(crate) priority: u32,
    pub(crate) table: u32,
    pub(crate) ipv6: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ipv6: true,
            dns_capture: false,
            bypass_inbound: false,
            virtual_interfaces: Vec::new(),
            probe_source: probe::SOURCE_V4,
            probe_source_v6: probe::SOURCE_V6,
            ports: Ports {
                outbound: port::OUTBOUND,
                inbound: port::INBOUND_PLAINTEXT,
                hbone: port::INBOUND_HBONE,
                dns: port::DNS,
            },
            proxy_mark: Marked { value: mark::PROXY, mask: mark::MASK },
            in_client_s_name: Marked {
                value: mark::PROXY | mark::IN_CLIENT_S_NAME,
                mask: mark::MASK | mark::IN_CLIENT_S_NAME,
            },
            delivery_mark: Marked { value: mark::TRANSPARENT, mask: mark::MASK },
        }
    }
}

impl Plan {
    /// Plans one pod.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let mut tables = vec![nat(options), mangle(options)];
        if options.dns_capture {
            tables.push(raw(options));
        }
        tables.push(delivery(options));
        Self {
            tables,
            policy_route: PolicyRoute {
                mark: options.delivery_mark,
                priority: mark::RULE_PRIORITY,
                table: mark::ROUTE_TABLE,
                ipv6: options.ipv6,
            },
            ports: options.ports,
            proxy_mark: options.proxy_mark,
        }
    }
}

/// The redirects. First match wins, so the exceptions stand before them.
fn nat(options: &Options) -> Table {
    let base = |hook| Base { kind: ChainKind::Nat, hook, priority: NAT_PRIORITY };
    Table {
        name: NAT_TABLE,
        chains: vec![
            Chain { name: FIRST_PREROUTING, base: Some(base(Hook::Prerouting)), rules: vec![jump(PREROUTING)] },
            Chain { name: FIRST_OUTPUT, base: Some(base(Hook::Output)), rules: vec![jump(OUTPUT)] },
            Chain { name: PREROUTING, base: None, rules: arriving(options) },
            Chain { name: OUTPUT, base: None, rules: leaving(options) },
        ],
    }
}

fn arriving(options: &Options) -> Vec<Rule> {
    let not_proxy = Match::PacketMark(Is::Unequal, options.proxy_mark);
    let mut rules = Vec::new();
    for name in &options.virtual_interfaces {
        let from = || Match::InInterface(interface(name));
        let tcp = Match::Protocol(Transport::Tcp);
        rules.push(rule([from(), tcp.clone(), Match::OpeningSegment], Action::Redirect(options.ports.outbound)));
        // Returns from our chain only: other programs' chains still see the packet.
        rules.push(rule([from(), tcp], Action::Return));
    }
    if options.bypass_inbound {
        return rules;
    }
    for probe in probe_sources(options) {
        rules.push(rule([Match::Protocol(Transport::Tcp), Match::Source(probe)], Action::Accept));
    }
    for loopback in loopbacks(options) {
        rules.push(rule(
            [
                Match::Destination(Is::Unequal, loopback),
                Match::DestinationPort(Transport::Tcp, Is::Unequal, options.ports.hbone),
                not_proxy.clone(),
                Match::OpeningSegment,
            ],
            Action::Redirect(options.ports.inbound),
        ));
    }
    rules
}

fn leaving(options: &Options) -> Vec<Rule> {
    let not_proxy = Match::PacketMark(Is::Unequal, options.proxy_mark);
    let tcp = Match::Protocol(Transport::Tcp);
    let lo = || Interface::Named("lo".to_owned());
    let mut rules = Vec::new();
    for probe in probe_sources(options) {
        rules.push(rule([tcp.clone(), Match::Destination(Is::Equal, probe)], Action::Accept));
    }
    if options.dns_capture {
        let asks = |transport| Match::DestinationPort(transport, Is::Equal, DNS_PORT);
        let to_proxy = Action::Redirect(options.ports.dns);
        rules.push(rule(
            [Match::OutInterface(Is::Unequal, lo()), not_proxy.clone(), asks(Transport::Udp)],
            to_proxy.clone(),
        ));
        for loopback in loopbacks(options) {
            rules.push(rule(
                [
                    Match::Destination(Is::Unequal, loopback),
                    asks(Transport::Tcp),
                    not_proxy.clone(),
                    Match::OpeningSegment,
                ],
                to_proxy.clone(),
            ));
        }
    }
    rules.push(rule([tcp.clone(), Match::PacketMark(Is::Equal, options.delivery_mark)], Action::Accept));
    // A pod that calls its own address stays inside.
    for loopback in loopbacks(options) {
        rules.push(rule(
            [Match::OutInterface(Is::Equal, lo()), Match::Destination(Is::Unequal, loopback)],
            Action::Accept,
        ));
    }
    for loopback in loopbacks(options) {
        rules.push(rule(
            [tcp.clone(), Match::Destination(Is::Unequal, loopback), not_proxy.clone(), Match::OpeningSegment],
            Action::Redirect(options.ports.outbound),
        ));
    }
    rules
}

/// The proxy delivers to the application in the client's name. Its segment is recognised as it arrives over the loopback interface, the connection is
/// marked, and the application's answers get that mark back, by which the policy route keeps them in the pod.
fn mangle(options: &Options) -> Table {
    let base = |kind, hook| Base { kind, hook, priority: MANGLE_PRIORITY };
    Table {
        name: MANGLE_TABLE,
        chains: vec![
            Chain {
                name: "prerouting",
                base: Some(base(ChainKind::Filter, Hook::Prerouting)),
                rules: vec![jump(PREROUTING)],
            },
            Chain { name: "output", base: Some(base(ChainKind::Route, Hook::Output)), rules: vec![jump(OUTPUT)] },
            Chain {
                name: PREROUTING,
                base: None,
                rules: vec![rule(
                    [Match::PacketMark(Is::Equal, options.proxy_mark)],
                    Action::MarkConnection(options.delivery_mark),
                )],
            },
            Chain {
                name: OUTPUT,
                base: None,
                rules: vec![rule([Match::ConnectionMark(Is::Equal, options.delivery_mark)], Action::RestoreMark)],
            },
        ],
    }
}

/// The proxy's own name queries are tracked apart, so that their ports cannot meet those of redirected ones (istio#33469).
fn raw(options: &Options) -> Table {
    let base = |hook| Base { kind: ChainKind::Filter, hook, priority: RAW_PRIORITY };
    let answer = [Match::SourcePort(Transport::Udp, DNS_PORT), Match::PacketMark(Is::Unequal, options.proxy_mark)];
    let question =
        [Match::DestinationPort(Transport::Udp, Is::Equal, DNS_PORT), Match::PacketMark(Is::Equal, options.proxy_mark)];
    Table {
        name: RAW_TABLE,
        chains: vec![
            Chain { name: "prerouting", base: Some(base(Hook::Prerouting)), rules: vec![jump(PREROUTING)] },
            Chain { name: "output", base: Some(base(Hook::Output)), rules: vec![jump(OUTPUT)] },
            Chain { name: PREROUTING, base: None, rules: vec![rule(answer, Action::Zone(DNS_ZONE))] },
            Chain { name: OUTPUT, base: None, rules: vec![rule(question, Action::Zone(DNS_ZONE))] },
        ],
    }
}

/// Only one way: the application's answers bear no mark by which they could be told.
fn delivery(options: &Options) -> Table {
    Table {
        name: DELIVERY_TABLE,
        chains: vec![Chain {
            name: "output",
            base: Some(Base { kind: ChainKind::Filter, hook: Hook::Output, priority: RAW_PRIORITY }),
            rules: vec![rule(
                [Match::PacketMark(Is::Equal, options.in_client_s_name)],
                Action::ZoneOneWay(DELIVERY_ZONE),
            )],
        }],
    }
}

fn rule(matches: impl IntoIterator<Item = Match>, action: Action) -> Rule {
    Rule { matches: matches.into_iter().collect(), action }
}

fn jump(chain: &'static str) -> Rule {
    rule([], Action::Jump(chain))
}

fn interface(name: &str) -> Interface {
    name.strip_suffix('*')
        .map_or_else(|| Interface::Named(name.to_owned()), |start| Interface::Starting(start.to_owned()))
}

fn loopbacks(options: &Options) -> impl Iterator<Item = IpAddr> + use<> {
    families(options, Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST)
}

fn probe_sources(options: &Options) -> impl Iterator<Item = IpAddr> + use<> {
    families(options, options.probe_source, options.probe_source_v6)
}

fn families(options: &Options, v4: Ipv4Addr, v6: Ipv6Addr) -> impl Iterator<Item = IpAddr> + use<> {
    [Some(IpAddr::V4(v4)), options.ipv6.then_some(IpAddr::V6(v6))].into_iter().flatten()
}

/// Istio's names; whoever of the two agents comes second finds what the first one wrote.
pub(crate) const NAT_TABLE: &str = "istio-ambient-nat";
pub(crate) const MANGLE_TABLE: &str = "istio-ambient-mangle";
pub(crate) const RAW_TABLE: &str = "istio-ambient-raw";
/// Ours alone.
pub(crate) const DELIVERY_TABLE: &str = "lateen-delivery";
/// Every table that may be ours, whether or not a plan uses it.
pub(crate) const OUR_TABLES: [&str; 4] = [NAT_TABLE, MANGLE_TABLE, RAW_TABLE, DELIVERY_TABLE];
pub(crate) const PREROUTING: &str = "istio-prerouting";
pub(crate) const OUTPUT: &str = "istio-output";
/// Our own names for the nat base chains: see the head of this file.
pub(crate) const FIRST_PREROUTING: &str = "first-prerouting";
pub(crate) const FIRST_OUTPUT: &str = "first-output";

const NAT_PRIORITY: i32 = -101;
const MANGLE_PRIORITY: i32 = -150;
const RAW_PRIORITY: i32 = -300;
const DNS_PORT: u16 = 53;
const DNS_ZONE: u16 = 1;
const DELIVERY_ZONE: u16 = 2;

#[cfg(test)]
mod tests;
