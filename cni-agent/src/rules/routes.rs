// SPDX-License-Identifier: Apache-2.0
//! The policy rule and the route that keep a delivered connection inside the pod, over rtnetlink.
//!
//! The proxy delivers to the application in the remote client's name. The application's answers carry the delivery mark; the rule sends them to a table
//! whose only route says that everything is local, so they come back to the proxy instead of leaving the pod. Per address family, and each of the
//! two parts by itself: whatever is missing is added, whatever is there stays.

use std::{fs, io};

use netlink_packet_core::{Emitable, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleHeader, RuleMessage};
use nix::net::if_::if_nametoindex;

use super::compare::Difference;
use super::error::RulesError;
use super::netlink::Netlink;
use super::plan::{Marked, PolicyRoute};

/// What is there of the rule and the route, per address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FoundRoutes {
    v4: FoundFamily,
    v6: FoundFamily,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FoundFamily {
    rule: bool,
    route: bool,
    possible: Possible,
}

/// What the pod's kernel settings admit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Possible {
    #[default]
    Everything,
    /// The family is switched off on the loopback interface: it carries no route.
    NoRoute,
    /// The kernel does not have the family at all.
    Nothing,
}

impl FoundRoutes {
    /// Both families, both parts.
    #[cfg(test)]
    pub(super) fn complete() -> Self {
        let family = FoundFamily { rule: true, route: true, possible: Possible::Everything };
        Self { v4: family, v6: family }
    }

    pub(super) fn is_empty(&self) -> bool {
        [self.v4, self.v6].iter().all(|family| !family.rule && !family.route)
    }

    pub(super) fn compare(&self, planned: &PolicyRoute, differences: &mut Vec<Difference>) {
        for (family, found, wanted) in [("IPv4", self.v4, true), ("IPv6", self.v6, planned.ipv6)] {
            if !wanted {
                if found.rule || found.route {
                    differences.push(Difference::UnplannedRoute { family });
                }
                continue;
            }
            if !found.rule && found.possible != Possible::Nothing {
                differences.push(Difference::NoPolicyRule { family });
            }
            if !found.route && found.possible == Possible::Everything {
                differences.push(Difference::NoRoute { family });
            }
        }
    }
}

/// Looks for the rule and the route in the calling thread's network namespace.
pub(super) fn read(planned: &PolicyRoute) -> Result<FoundRoutes, RulesError> {
    let netlink = Netlink::open(libc::NETLINK_ROUTE)?;
    let loopback = loopback()?;
    Ok(FoundRoutes {
        v4: find(&netlink, Family::V4, planned, loopback)?,
        v6: find(&netlink, Family::V6, planned, loopback)?,
    })
}

/// Adds what is missing, and takes out what the plan does not want any more.
pub(super) fn write(planned: &PolicyRoute) -> Result<(), RulesError> {
    let netlink = Netlink::open(libc::NETLINK_ROUTE)?;
    let loopback = loopback()?;
    for family in [Family::V4, Family::V6] {
        let found = find(&netlink, family, planned, loopback)?;
        if family == Family::V6 && !planned.ipv6 {
            take_out(&netlink, family, planned, loopback, found)?;
            continue;
        }
        let create = libc::NLM_F_CREATE as u16;
        if !found.route && found.possible == Possible::Everything {
            let route = bytes(&route(family, planned, loopback));
            netlink.request(
                NEW_ROUTE,
                create | libc::NLM_F_REPLACE as u16,
                &route,
                &format!("add the {} local route to table {}", family.name(), planned.table),
            )?;
        }
        if !found.rule && found.possible != Possible::Nothing {
            let added = netlink.request(
                NEW_RULE,
                create | libc::NLM_F_EXCL as u16,
                &bytes(&rule(family, planned)),
                &format!("add {} policy rule {}", family.name(), planned.priority),
            );
            allow(added, &[libc::EEXIST])?;
        }
    }
    Ok(())
}

/// Takes out whatever is there.
pub(super) fn remove(planned: &PolicyRoute) -> Result<(), RulesError> {
    let netlink = Netlink::open(libc::NETLINK_ROUTE)?;
    let loopback = loopback()?;
    let mut outcome = Ok(());
    for family in [Family::V4, Family::V6] {
        let removed = find(&netlink, family, planned, loopback)
            .and_then(|found| take_out(&netlink, family, planned, loopback, found));
        outcome = outcome.and(removed);
    }
    outcome
}

/// The rule before the route: a marked packet that finds neither is routed as any other.
fn take_out(
    netlink: &Netlink,
    family: Family,
    planned: &PolicyRoute,
    loopback: u32,
    found: FoundFamily,
) -> Result<(), RulesError> {
    if found.rule {
        let purpose = format!("delete {} policy rule {}", family.name(), planned.priority);
        allow(netlink.request(DELETE_RULE, 0, &bytes(&rule(family, planned)), &purpose), &[libc::ENOENT])?;
    }
    if found.route {
        let purpose = format!("delete the {} local route from table {}", family.name(), planned.table);
        allow(
            netlink.request(DELETE_ROUTE, 0, &bytes(&route(family, planned, loopback)), &purpose),
            &[libc::ESRCH, libc::ENOENT],
        )?;
    }
    Ok(())
}

fn find(netlink: &Netlink, family: Family, planned: &PolicyRoute, loopback: u32) -> Result<FoundFamily, RulesError> {
    let possible = family.possible();
    if possible == Possible::Nothing {
        return Ok(FoundFamily { possible, ..FoundFamily::default() });
    }
    let mut header = RuleMessage::default();
    header.header.family = family.number();
    let rules = netlink.list(GET_RULE, &bytes(&header), "list the policy rules")?;
    let mut header = RouteMessage::default();
    header.header.address_family = family.number();
    let routes = netlink.list(GET_ROUTE, &bytes(&header), "list the routes")?;
    Ok(FoundFamily {
        rule: rules.iter().any(|answer| is_ours(&answer.payload, planned)),
        route: routes.iter().any(|answer| is_local_default(&answer.payload, planned, loopback)),
        possible,
    })
}

/// What cannot be parsed is a rule of a kind that ours is not.
pub(super) fn is_ours(payload: &[u8], planned: &PolicyRoute) -> bool {
    let Ok(found) = RuleMessage::parse(payload) else { return false };
    let Marked { value, mask } = planned.mark;
    let has = |wanted: RuleAttribute| found.attributes.contains(&wanted);
    let narrower = |attribute: &RuleAttribute| {
        matches!(
            attribute,
            RuleAttribute::Iifname(_)
                | RuleAttribute::Oifname(_)
                | RuleAttribute::Source(_)
                | RuleAttribute::Destination(_)
                | RuleAttribute::IpProtocol(_)
                | RuleAttribute::SourcePortRange(_)
                | RuleAttribute::DestinationPortRange(_)
                | RuleAttribute::UidRange(_)
                | RuleAttribute::TunId(_)
                | RuleAttribute::SuppressIfGroup(_)
        ) || matches!(attribute, RuleAttribute::SuppressPrefixLen(length) if *length != NOTHING_SUPPRESSED)
    };
    found.header.action == RuleAction::ToTable
        && !found.header.flags.contains(RuleFlags::Invert)
        && found.header.tos == 0
        && has(RuleAttribute::Table(planned.table))
        && has(RuleAttribute::FwMark(value))
        && has(RuleAttribute::FwMask(mask))
        && has(RuleAttribute::Priority(planned.priority))
        && !found.attributes.iter().any(narrower)
}

pub(super) fn is_local_default(payload: &[u8], planned: &PolicyRoute, loopback: u32) -> bool {
    let Ok(found) = RouteMessage::parse(payload) else { return false };
    let has = |wanted: RouteAttribute| found.attributes.contains(&wanted);
    found.header.kind == RouteType::Local
        && found.header.destination_prefix_length == 0
        && found.header.source_prefix_length == 0
        && found.header.tos == 0
        && has(RouteAttribute::Table(planned.table))
        && has(RouteAttribute::Oif(loopback))
}

fn rule(family: Family, planned: &PolicyRoute) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header = RuleHeader { family: family.number(), action: RuleAction::ToTable, ..RuleHeader::default() };
    message.attributes = vec![
        RuleAttribute::Priority(planned.priority),
        RuleAttribute::FwMark(planned.mark.value),
        RuleAttribute::FwMask(planned.mark.mask),
        RuleAttribute::Table(planned.table),
    ];
    message
}

fn route(family: Family, planned: &PolicyRoute, loopback: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family.number(),
        protocol: RouteProtocol::Boot,
        scope: RouteScope::Host,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Table(planned.table), RouteAttribute::Oif(loopback)];
    message
}

/// Somebody else may have done the same in between.
fn allow(outcome: Result<(), RulesError>, harmless: &[i32]) -> Result<(), RulesError> {
    match outcome {
        Err(RulesError::Refused { source, .. })
            if source.raw_os_error().is_some_and(|code| harmless.contains(&code)) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn bytes(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn loopback() -> Result<u32, RulesError> {
    if_nametoindex("lo").map_err(|errno| RulesError::Socket {
        operation: "find the pod's loopback interface",
        source: io::Error::from(errno),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn number(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The file shows the settings of the namespace the reading thread is in. One that cannot be read decides nothing: then the kernel is tried.
    fn possible(self) -> Possible {
        if self == Self::V4 {
            return Possible::Everything;
        }
        possible_by(fs::read_to_string(IPV6_SWITCH))
    }
}

fn possible_by(switch: io::Result<String>) -> Possible {
    match switch {
        Ok(text) if text.trim() == "1" => Possible::NoRoute,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Possible::Nothing,
        Ok(_) | Err(_) => Possible::Everything,
    }
}

/// The kernel always says which prefixes a rule passes over; this stands for none.
const NOTHING_SUPPRESSED: u32 = u32::MAX;
const IPV6_SWITCH: &str = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
const NEW_ROUTE: u16 = libc::RTM_NEWROUTE;
const DELETE_ROUTE: u16 = libc::RTM_DELROUTE;
const GET_ROUTE: u16 = libc::RTM_GETROUTE;
const NEW_RULE: u16 = libc::RTM_NEWRULE;
const DELETE_RULE: u16 = libc::RTM_DELRULE;
const GET_RULE: u16 = libc::RTM_GETRULE;

#[cfg(test)]
mod tests;
