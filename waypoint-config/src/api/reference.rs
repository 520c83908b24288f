// SPDX-License-Identifier: Apache-2.0
//! What a route names as its parent, as it was written: the same for all kinds of routes, and readable of a route that is otherwise wrong, so that its
//! author can be told at each of its parents.

use serde_json::{Map, Value};

/// A `parentRef` as it was written; what is absent means the API's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParentRef {
    /// Absent: the group of the Gateway API.
    pub group: Option<String>,
    /// Absent: `Gateway`.
    pub kind: Option<String>,
    /// Absent: that of the route.
    pub namespace: Option<String>,
    /// The name of the object.
    pub name: String,
    /// The name of one of its ports.
    pub section_name: Option<String>,
    /// One of its ports.
    pub port: Option<i32>,
}

impl ParentRef {
    /// Those of a route's value that can be read, at most as many as the API allows.
    pub fn of_route(route: &Value) -> Vec<Self> {
        let all = route.pointer("/spec/parentRefs").and_then(Value::as_array);
        all.into_iter().flatten().take(MAX_PARENTS).filter_map(Self::of).collect()
    }

    fn of(value: &Value) -> Option<Self> {
        let text = |field: &str| {
            let text = value.get(field)?.as_str()?;
            (text.len() <= MAX_NAME).then(|| text.to_owned())
        };
        Some(Self {
            group: text("group"),
            kind: text("kind"),
            namespace: text("namespace"),
            name: text("name")?,
            section_name: text("sectionName"),
            port: value.get("port").and_then(Value::as_i64).and_then(|port| i32::try_from(port).ok()),
        })
    }

    /// As it was written.
    pub fn to_value(&self) -> Value {
        let mut all = Map::new();
        let mut put = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                all.insert(field.to_owned(), value);
            }
        };
        let text = |value: &Option<String>| value.clone().map(Value::String);
        put("group", text(&self.group));
        put("kind", text(&self.kind));
        put("namespace", text(&self.namespace));
        put("name", Some(Value::String(self.name.clone())));
        put("sectionName", text(&self.section_name));
        put("port", self.port.map(Value::from));
        Value::Object(all)
    }
}

/// The API allows no more.
const MAX_PARENTS: usize = 32;
/// The longest name there can be.
const MAX_NAME: usize = 253;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_can_be_read_of_parents_is_read_and_written_alike() {
        let good = json!({"group": "", "kind": "Service", "name": "a", "port": 80});
        let route = json!({"spec": {"parentRefs": [good, 7, {"kind": "Service"}, {"name": "x".repeat(300)}, {"name": "b", "port": "no"}]}});
        let read = ParentRef::of_route(&route);
        assert_eq!(read.iter().map(ParentRef::to_value).collect::<Vec<_>>(), [good, json!({"name": "b"})]);
        assert!(ParentRef::of_route(&json!({"spec": 7})).is_empty());
        assert_eq!(ParentRef::of_route(&json!({"spec": {"parentRefs": vec![json!({"name": "a"}); 100]}})).len(), 32);
    }
}
