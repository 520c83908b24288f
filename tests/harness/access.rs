// SPDX-License-Identifier: Apache-2.0
//! Reading what a node proxy says about its connections: access-log lines, one JSON object each.

use std::{fmt, fs, path::Path};

use serde_json::Value;

/// A finished connection as its proxy reported it.
#[derive(Clone, Debug)]
pub struct Connection(Value);

impl Connection {
    /// A field as text, whatever its type; empty if it is absent.
    #[must_use]
    pub fn field(&self, name: &str) -> String {
        match &self.0[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// Whether it says `outbound`.
    #[must_use]
    pub fn is_outbound(&self) -> bool {
        self.field("direction") == "outbound"
    }

    /// Both SPIFFE ids, the caller's first; empty where there is none.
    #[must_use]
    pub fn identities(&self) -> (String, String) {
        (self.field("src.identity"), self.field("dst.identity"))
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// Every line about a connection in a proxy's log, from byte `from` on.
#[must_use]
pub fn connections(log: &Path, from: usize) -> Vec<Connection> {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned();
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["scope"] == "access" && line["message"] != "connection opened")
        .map(Connection)
        .collect()
}
