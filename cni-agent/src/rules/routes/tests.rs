// SPDX-License-Identifier: Apache-2.0
//! Routes and rules as messages.

use super::super::plan::{Options, Plan};
use super::*;

#[test]
fn only_what_somebody_else_did_before_us_is_no_error() {
    let refused = |code| {
        let source = io::Error::from_raw_os_error(code);
        Err(RulesError::Refused { what: "add".to_owned(), source, said: None, advice: "" })
    };
    assert!(allow(Ok(()), &[libc::EEXIST]).is_ok());
    assert!(allow(refused(libc::EEXIST), &[libc::ENOENT, libc::EEXIST]).is_ok());
    assert!(allow(refused(libc::EPERM), &[libc::ENOENT, libc::EEXIST]).is_err());
    assert!(allow(Err(RulesError::Unsettled), &[libc::EEXIST]).is_err());
}

fn planned() -> PolicyRoute {
    Plan::new(&Options::default()).policy_route
}

#[test]
fn our_rule_is_known_and_any_other_is_not() {
    let planned = planned();
    for family in [Family::V4, Family::V6] {
        let ours = rule(family, &planned);
        assert!(is_ours(&bytes(&ours), &planned));
        for index in 0..ours.attributes.len() {
            let mut other = ours.clone();
            other.attributes.remove(index);
            assert!(!is_ours(&bytes(&other), &planned), "without {:?}", ours.attributes[index]);
        }
        let mut other = ours.clone();
        other.header.action = RuleAction::Unreachable;
        assert!(!is_ours(&bytes(&other), &planned));
        let with = |attribute: RuleAttribute| {
            let mut other = ours.clone();
            other.attributes.push(attribute);
            is_ours(&bytes(&other), &planned)
        };
        assert!(!with(RuleAttribute::Iifname("eth0".to_owned())), "it would not catch what comes from elsewhere");
        assert!(!with(RuleAttribute::TunId(7)) && !with(RuleAttribute::SuppressIfGroup(7)));
        assert!(!with(RuleAttribute::SuppressPrefixLen(0)), "it would pass over our route");
        assert!(with(RuleAttribute::SuppressPrefixLen(u32::MAX)), "what the kernel says of every rule");
        let mut other = ours.clone();
        other.header.flags = RuleFlags::Invert;
        assert!(!is_ours(&bytes(&other), &planned), "it catches all but what is marked");
        let mut other = ours;
        other.header.tos = 8;
        assert!(!is_ours(&bytes(&other), &planned), "it catches one kind of packet");
    }
    for mark in [Marked { value: 0x112, ..planned.mark }, Marked { mask: 0xffff, ..planned.mark }] {
        assert!(!is_ours(&bytes(&rule(Family::V4, &PolicyRoute { mark, ..planned })), &planned));
    }
}

#[test]
fn our_route_is_known_and_any_other_is_not() {
    let planned = planned();
    for family in [Family::V4, Family::V6] {
        assert!(is_local_default(&bytes(&route(family, &planned, 1)), &planned, 1));
        assert!(!is_local_default(&bytes(&route(family, &planned, 2)), &planned, 1), "another interface");
        assert!(
            !is_local_default(&bytes(&route(family, &PolicyRoute { table: 101, ..planned }, 1)), &planned, 1),
            "another table"
        );
        let mut unicast = route(family, &planned, 1);
        unicast.header.kind = RouteType::Unicast;
        assert!(!is_local_default(&bytes(&unicast), &planned, 1));
        for narrow in [
            (|header| header.destination_prefix_length = 8) as fn(&mut RouteHeader),
            |header| header.source_prefix_length = 8,
            |header| header.tos = 8,
        ] {
            let mut part = route(family, &planned, 1);
            narrow(&mut part.header);
            assert!(!is_local_default(&bytes(&part), &planned, 1));
        }
    }
}

#[test]
fn one_part_in_one_family_is_something_left_over() {
    let without_ipv6 = Plan::new(&Options { ipv6: false, ..Options::default() }).policy_route;
    let complete = FoundRoutes::complete();
    assert!(FoundRoutes::default().is_empty());
    for (rule, route) in [(true, false), (false, true)] {
        let part = FoundFamily { rule, route, ..FoundFamily::default() };
        assert!(!FoundRoutes { v4: part, ..FoundRoutes::default() }.is_empty());
        assert!(!FoundRoutes { v6: part, ..FoundRoutes::default() }.is_empty());
        let mut differences = Vec::new();
        FoundRoutes { v6: part, ..complete }.compare(&without_ipv6, &mut differences);
        assert_eq!(differences, [Difference::UnplannedRoute { family: "IPv6" }]);
    }
}

#[test]
fn only_a_switch_that_is_set_or_not_there_says_what_cannot_be() {
    assert_eq!(possible_by(Ok("0\n".to_owned())), Possible::Everything);
    assert_eq!(possible_by(Ok("1\n".to_owned())), Possible::NoRoute);
    assert_eq!(possible_by(Err(io::ErrorKind::NotFound.into())), Possible::Nothing);
    assert_eq!(possible_by(Err(io::ErrorKind::PermissionDenied.into())), Possible::Everything);
}

#[test]
fn what_a_kernel_without_ipv6_cannot_have_is_not_missed() {
    let (planned, complete) = (planned(), FoundRoutes::complete());
    let missed = |possible, rule| {
        let mut differences = Vec::new();
        let v6 = FoundFamily { rule, route: false, possible };
        FoundRoutes { v6, ..complete }.compare(&planned, &mut differences);
        differences
    };
    assert_eq!(missed(Possible::Nothing, false), []);
    assert_eq!(missed(Possible::NoRoute, true), []);
    assert_eq!(missed(Possible::NoRoute, false), [Difference::NoPolicyRule { family: "IPv6" }]);
    assert_eq!(missed(Possible::Everything, true), [Difference::NoRoute { family: "IPv6" }]);
}
