// SPDX-License-Identifier: Apache-2.0
//! The versions of the specification.

use std::fmt;

/// A version of the specification, older ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// What a configuration without a version is taken for.
    V0_1_0,
    /// 0.2.0
    V0_2_0,
    /// The first with `ips` instead of `ip4` and `ip6` in results.
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// The first with `CHECK`.
    V0_4_0,
    /// 1.0.0
    V1_0_0,
    /// The first with `STATUS` and `GC`.
    V1_1_0,
}

impl Version {
    /// All of them (cni-agent.md P-01).
    pub const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// The newest.
    pub const NEWEST: Self = Self::V1_1_0;

    /// As it is written in configurations and results.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads one; an empty one is 0.1.0.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::V0_1_0);
        }
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
