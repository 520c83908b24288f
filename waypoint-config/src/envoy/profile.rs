// SPDX-License-Identifier: Apache-2.0
//! For which Envoy the resources are: what it can do, where it finds its certificates, and where it stands. Told from the node it announces itself as.

use std::sync::Arc;

use crate::view::Locality;

/// For which Envoy the resources are. Waypoints with equal profiles share resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Profile {
    /// Which build.
    pub flavour: Flavour,
    /// Where its certificates come from.
    pub secrets: Secrets,
    /// Where it stands.
    pub viewer: Viewer,
    /// Whether it can listen on IPv6.
    pub ipv6: bool,
}

/// A build of Envoy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flavour {
    /// As the Envoy project releases it.
    #[default]
    Stock,
    /// Istio's, with its filters for telemetry.
    Istio {
        /// Whether it can tell connection pools apart by a string.
        hashable_strings: bool,
    },
}

impl Flavour {
    /// The build that announces these extensions (`Node.extensions`).
    pub fn of<'a>(extensions: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut stats, mut metadata, mut hashable_strings) = (false, false, false);
        for extension in extensions {
            stats |= extension == "istio.stats";
            metadata |= extension == "envoy.filters.http.peer_metadata";
            hashable_strings |= extension == "istio.hashable_string";
        }
        if stats && metadata { Self::Istio { hashable_strings } } else { Self::Stock }
    }
}

/// Where an Envoy finds its certificate (`default`) and the roots (`ROOTCA`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Secrets {
    /// In two files of discovery responses or resources, replaced by rename within a folder.
    Files {
        /// The file with `default`.
        certificate: Arc<str>,
        /// The file with `ROOTCA`.
        roots: Arc<str>,
    },
    /// From the agent beside it, through this cluster of its bootstrap.
    Agent {
        /// The cluster.
        cluster: Arc<str>,
    },
}

impl Default for Secrets {
    fn default() -> Self {
        Self::Agent { cluster: "sds-grpc".into() }
    }
}

/// Where an Envoy stands: for services that prefer near endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Viewer {
    /// Region, zone, subzone.
    pub region: String,
    /// See `region`.
    pub zone: String,
    /// See `region`.
    pub subzone: String,
    /// Its node.
    pub node: String,
}

impl Viewer {
    /// How far an endpoint is: 0 the nearest. `by_node` also counts subzone and node.
    pub(super) fn distance(&self, locality: &Locality, node: &str, by_node: bool) -> u32 {
        let mut steps = vec![self.region == locality.region, self.zone == locality.zone];
        if by_node {
            steps.extend([self.subzone == locality.subzone, self.node == *node]);
        }
        let shared = steps.iter().take_while(|same| **same).count();
        u32::try_from(steps.len() - shared).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istios_build_is_known_by_its_filters() {
        assert_eq!(Flavour::of(["envoy.filters.http.router"]), Flavour::Stock);
        let istio = ["istio.stats", "envoy.filters.http.peer_metadata"];
        assert_eq!(Flavour::of(istio), Flavour::Istio { hashable_strings: false });
        let newer = istio.into_iter().chain(["istio.hashable_string"]);
        assert_eq!(Flavour::of(newer), Flavour::Istio { hashable_strings: true });
    }
}
