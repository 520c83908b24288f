// SPDX-License-Identifier: Apache-2.0
//! What a waypoint does not do of a policy as written, for the condition of the policy. Made by `access`.

use std::fmt;

/// Why a policy is not enforced as written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// Rules that allow were left out, because of attributes that cannot be seen or values that cannot be read.
    AllowsLess {
        /// The attributes.
        attributes: Vec<String>,
    },
    /// Rules that refuse lost conditions for the same reason, and refuse more.
    DeniesMore {
        /// The attributes.
        attributes: Vec<String>,
    },
    /// The provider of a CUSTOM policy is not in the mesh settings, or cannot serve this port: everything is refused.
    NoProvider {
        /// Its name.
        provider: String,
        /// Why.
        reason: &'static str,
    },
    /// A token issuer whose keys are not known: its tokens are rejected.
    NoKeys {
        /// The issuer.
        issuer: String,
        /// Why.
        reason: String,
    },
    /// A rule for tokens that cannot be carried out.
    BadTokenRule {
        /// The issuer.
        issuer: String,
        /// Why.
        reason: String,
    },
}

impl Notice {
    /// As the reason of a condition.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::AllowsLess { .. } => "AllowsLess",
            Self::DeniesMore { .. } => "DeniesMore",
            Self::NoProvider { .. } => "NoProvider",
            Self::NoKeys { .. } => "NoKeys",
            Self::BadTokenRule { .. } => "UnsupportedValue",
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllowsLess { attributes } => write!(
                f,
                "the waypoint cannot check {} here: the ALLOW rules that ask for it are left out, so less is allowed than written",
                attributes.join(", ")
            ),
            Self::DeniesMore { attributes } => write!(
                f,
                "the waypoint cannot check {} here: the rules that ask for it are enforced without it, so more is refused than written",
                attributes.join(", ")
            ),
            Self::NoProvider { provider, reason } => {
                write!(f, "the provider {provider:?} {reason}: everything is refused until that is mended")
            }
            Self::NoKeys { issuer, reason } => {
                write!(f, "the keys of issuer {issuer:?} are not known ({reason}): its tokens are rejected")
            }
            Self::BadTokenRule { issuer, reason } => {
                write!(f, "the rule for issuer {issuer:?} is not carried out as written: {reason}")
            }
        }
    }
}
