// SPDX-License-Identifier: Apache-2.0
//! The variables whose names are open: more headers, more node metadata.

use std::collections::BTreeMap;

/// What the environment says in variables with open names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `XDS_HEADER_<KEY>`.
    pub xds_headers: Vec<(String, String)>,
    /// `CA_HEADER_<KEY>`.
    pub ca_headers: Vec<(String, String)>,
    /// `ISTIO_META_<KEY>`.
    pub metadata: BTreeMap<String, String>,
    /// `ISTIO_METAJSON_<KEY>`, not parsed yet.
    pub json_metadata: BTreeMap<String, String>,
}

impl Environment {
    /// Sort variables out. They are handed in, and not read here, so that a test's are its own.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut found = Self::default();
        for (name, value) in variables {
            if let Some(key) = name.strip_prefix("XDS_HEADER_") {
                found.xds_headers.push((key.to_owned(), value));
            } else if let Some(key) = name.strip_prefix("CA_HEADER_") {
                found.ca_headers.push((key.to_owned(), value));
            } else if let Some(key) = name.strip_prefix("ISTIO_METAJSON_") {
                found.json_metadata.insert(key.to_owned(), value);
            } else if let Some(key) = name.strip_prefix(METADATA_PREFIX) {
                found.metadata.insert(key.to_owned(), value);
            }
        }
        found.xds_headers.sort();
        found.ca_headers.sort();
        found
    }
}

/// In front of the names of node metadata, here and in `proxyMetadata`.
pub(super) const METADATA_PREFIX: &str = "ISTIO_META_";
