// SPDX-License-Identifier: Apache-2.0
//! What a node proxy cannot do of a policy, in istiod's words where it has some. Made by `authorization`, shown in logs and in the
//! `ZtunnelAccepted` condition of the object.

use std::fmt;

use crate::view::status::Condition;

/// Why a policy is not enforced as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It is for waypoints and gateways (`targetRefs`); node proxies never get it.
    ForGateways,
    /// Node proxies know ALLOW and DENY only.
    Action(&'static str),
    /// It is a dry run.
    DryRun,
    /// It speaks of attributes a node proxy cannot see.
    Attributes {
        /// The attributes.
        found: Vec<String>,
        /// What that means.
        effect: Effect,
    },
}

/// What leaving attributes out does to a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// ALLOW rules are left out: less is allowed.
    AllowsLess,
    /// DENY rules lose their HTTP part: more is denied.
    DeniesMore,
    /// A part of a DENY rule has nothing left: what it stood for is not denied.
    DeniesNothing,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForGateways => {
                f.write_str("has targetRefs: only a waypoint or gateway enforces it, node proxies do not")
            }
            Self::Action(action) => write!(f, "ztunnel does not support the {action} action"),
            Self::DryRun => f.write_str("is a dry run (annotation istio.io/dry-run): it is not sent to node proxies"),
            Self::Attributes { found, effect } => {
                write!(
                    f,
                    "ztunnel does not support HTTP attributes (found: {}). In ambient mode you must use a waypoint proxy to enforce HTTP rules. {effect}",
                    found.join(", ")
                )
            }
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllowsLess => {
                "Within an ALLOW policy, rules matching HTTP attributes are omitted. This will be more restrictive than requested."
            }
            Self::DeniesMore => {
                "Within a DENY policy, rules matching HTTP attributes are enforced without the HTTP rules. This will be more restrictive than requested."
            }
            Self::DeniesNothing => {
                "Within a DENY policy, a from, to or when that matches HTTP attributes only has no enforceable rules at ztunnel and will have no effect: such requests are NOT denied without a waypoint."
            }
        })
    }
}

/// What the author of an AuthorizationPolicy hears of node proxies. Nothing, if it is not for them.
pub fn ztunnel_accepted(notice: Option<&Notice>) -> Option<Condition> {
    match notice {
        Some(Notice::ForGateways) => None,
        Some(notice) => Some(Condition::new(ZTUNNEL_ACCEPTED, false, "UnsupportedValue", notice.to_string())),
        None => Some(Condition::new(ZTUNNEL_ACCEPTED, true, "Accepted", "attached to ztunnel")),
    }
}

/// The condition's type (control-plane.md §1.7).
const ZTUNNEL_ACCEPTED: &str = "ZtunnelAccepted";
