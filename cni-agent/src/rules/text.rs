// SPDX-License-Identifier: Apache-2.0
//! A plan in nft's notation, for people: logs, differences, golden files. Nothing reads it back.

use std::fmt;
use std::net::IpAddr;

use super::plan::{Marked, Plan};
use super::rule::{Action, Base, ChainKind, Hook, Interface, Is, Match, Rule, Transport};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            writeln!(f, "table inet {} {{", table.name)?;
            for (index, chain) in table.chains.iter().enumerate() {
                if index > 0 {
                    writeln!(f)?;
                }
                writeln!(f, "\tchain {} {{", chain.name)?;
                if let Some(base) = &chain.base {
                    writeln!(f, "\t\t{base}")?;
                }
                for rule in &chain.rules {
                    writeln!(f, "\t\t{rule}")?;
                }
                writeln!(f, "\t}}")?;
            }
            writeln!(f, "}}")?;
        }
        let route = &self.policy_route;
        for family in ["-4", "-6"].iter().take(if route.ipv6 { 2 } else { 1 }) {
            let Marked { value, mask } = route.mark;
            writeln!(
                f,
                "ip {family} rule: {}: from all fwmark {value:#x}/{mask:#x} lookup {}",
                route.priority, route.table
            )?;
            writeln!(f, "ip {family} route: local default dev lo scope host table {}", route.table)?;
        }
        Ok(())
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        };
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Output => "output",
        };
        let priority = match self.priority {
            -150 => "mangle".to_owned(),
            -300 => "raw".to_owned(),
            other => other.to_string(),
        };
        write!(f, "type {kind} hook {hook} priority {priority}; policy accept;")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in &self.matches {
            write!(f, "{one} ")?;
        }
        if !matches!(self.action, Action::Jump(_)) {
            write!(f, "counter ")?;
        }
        match &self.action {
            Action::Accept => write!(f, "accept"),
            Action::Return => write!(f, "return"),
            Action::Jump(chain) => write!(f, "jump {chain}"),
            Action::Redirect(port) => write!(f, "redirect to :{port}"),
            // As nft prints it: the bits that are set count as kept before they are set.
            Action::MarkConnection(Marked { value, mask }) => {
                write!(f, "ct mark set ct mark & {:#010x} | {value:#010x}", !mask | value)
            }
            Action::RestoreMark => write!(f, "meta mark set ct mark"),
            Action::Zone(zone) => write!(f, "ct zone set {zone}"),
            Action::ZoneOneWay(zone) => write!(f, "ct original zone set {zone}"),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(transport) => write!(f, "meta l4proto {transport}"),
            Self::Source(address) => write!(f, "{} saddr {address}", family(address)),
            Self::Destination(is, address) => write!(f, "{} daddr {}{address}", family(address), unequal(*is)),
            Self::SourcePort(transport, port) => write!(f, "{transport} sport {port}"),
            Self::DestinationPort(transport, is, port) => write!(f, "{transport} dport {}{port}", unequal(*is)),
            Self::OpeningSegment => write!(f, "tcp flags & (fin | syn | rst | ack) == syn"),
            Self::PacketMark(is, marked) => mark(f, "meta mark", *is, *marked),
            Self::ConnectionMark(is, marked) => mark(f, "ct mark", *is, *marked),
            Self::InInterface(interface) => write!(f, "iifname {interface}"),
            Self::OutInterface(is, interface) => write!(f, "oifname {}{interface}", unequal(*is)),
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "\"{name}\""),
            Self::Starting(start) => write!(f, "\"{start}*\""),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

fn mark(f: &mut fmt::Formatter<'_>, what: &str, is: Is, Marked { value, mask }: Marked) -> fmt::Result {
    let operator = match is {
        Is::Equal => "==",
        Is::Unequal => "!=",
    };
    write!(f, "{what} & {mask:#010x} {operator} {value:#010x}")
}

fn family(address: &IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    }
}

fn unequal(is: Is) -> &'static str {
    match is {
        Is::Equal => "",
        Is::Unequal => "!= ",
    }
}
