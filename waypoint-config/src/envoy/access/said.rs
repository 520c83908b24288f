// SPDX-License-Identifier: Apache-2.0
//! Notices with the policy they are about.

use crate::{envoy::Notice, view::Name};

/// Something the author of a policy should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    /// The policy.
    pub about: About,
    /// What is to be known.
    pub notice: Notice,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// An AuthorizationPolicy.
    Authorization(Name),
    /// A RequestAuthentication.
    Authentication(Name),
}
