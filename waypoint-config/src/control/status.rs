// SPDX-License-Identifier: Apache-2.0
//! What is said of an object, in the form Kubernetes has for it: conditions of routes by parent, of Gateways with their listeners, of everything else
//! alone. Pure: the time is an argument. Called by whoever writes it.

use serde_json::{Map, Value, json};

use crate::{
    api::{Key, Kind},
    view::{
        routes::{CONTROLLER, supported_features},
        status::{Condition, ListenerStatus, ParentStatus, Status},
    },
};

/// The object with its status and nothing else, or `None` if nothing is said. `before` is what was written last: what still holds keeps its time.
#[must_use]
pub fn document(key: &Key, status: &Status, before: Option<&Value>, now: &str) -> Option<Value> {
    if *status == Status::default() {
        return None;
    }
    let writing = Writing { before: before.and_then(|before| before.get("status")), now };
    let mut metadata = Map::new();
    if !key.namespace.is_empty() {
        metadata.insert("namespace".to_owned(), json!(&*key.namespace));
    }
    metadata.insert("name".to_owned(), json!(&*key.name));
    let said = match key.kind.is_route() && !status.parents.is_empty() {
        true => json!({"parents": writing.parents(status)}),
        false => writing.whole(key.kind, status),
    };
    Some(json!({"apiVersion": key.kind.api_version(), "kind": key.kind.name(), "metadata": metadata, "status": said}))
}

struct Writing<'a> {
    before: Option<&'a Value>,
    now: &'a str,
}

impl Writing<'_> {
    fn whole(&self, kind: Kind, status: &Status) -> Value {
        let mut all = Map::new();
        all.insert("conditions".to_owned(), self.conditions(&status.conditions, self.before));
        if !status.listeners.is_empty() {
            let listeners: Vec<Value> = status.listeners.iter().map(|one| self.listener(one)).collect();
            all.insert("listeners".to_owned(), Value::Array(listeners));
        }
        if kind == Kind::GatewayClass {
            let names: Vec<Value> = supported_features().iter().map(|one| json!({"name": one.name})).collect();
            all.insert("supportedFeatures".to_owned(), Value::Array(names));
        }
        Value::Object(all)
    }

    fn listener(&self, listener: &ListenerStatus) -> Value {
        let kinds = listener.supported_kinds.iter();
        let kinds: Vec<Value> =
            kinds.map(|kind| json!({"group": "gateway.networking.k8s.io", "kind": kind.name()})).collect();
        let before = self.entry("listeners", "name", &json!(listener.name));
        json!({
            "name": listener.name,
            "attachedRoutes": listener.attached_routes,
            "supportedKinds": kinds,
            "conditions": self.conditions(&listener.conditions, before),
        })
    }

    /// What is said of a route as a whole has its place at each of its parents.
    fn parents(&self, status: &Status) -> Vec<Value> {
        let one = |said: &ParentStatus| {
            let parent = said.parent.to_value();
            let conditions: Vec<Condition> = said.conditions.iter().chain(&status.conditions).cloned().collect();
            let conditions = self.conditions(&conditions, self.entry("parents", "parentRef", &parent));
            json!({"parentRef": parent, "controllerName": CONTROLLER, "conditions": conditions})
        };
        status.parents.iter().map(one).collect()
    }

    /// What was written before of one of several.
    fn entry(&self, list: &str, by: &str, is: &Value) -> Option<&Value> {
        let all = self.before?.get(list)?.as_array()?;
        all.iter().find(|one| one.get(by) == Some(is))
    }

    fn conditions(&self, conditions: &[Condition], before: Option<&Value>) -> Value {
        let before = before.and_then(|before| before.get("conditions")).and_then(Value::as_array);
        let one = |condition: &Condition| {
            let status = if condition.holds { "True" } else { "False" };
            let same = |old: &&Value| old["type"] == condition.kind && old["status"] == status;
            let since = before.and_then(|all| all.iter().find(same)).and_then(|old| old["lastTransitionTime"].as_str());
            json!({
                "type": condition.kind,
                "status": status,
                "reason": condition.reason,
                "message": condition.message,
                "lastTransitionTime": since.unwrap_or(self.now),
            })
        };
        Value::Array(conditions.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ParentRef;

    fn route(holds: bool, message: &str) -> Status {
        let parent = ParentRef { kind: Some("Service".into()), name: "cart".into(), ..ParentRef::default() };
        let conditions = vec![Condition::new("Accepted", holds, "Because", message)];
        let whole = vec![Condition::new("lateen.io/TakenByWaypoint", false, "RefusedByEnvoy", "no")];
        Status { conditions: whole, parents: vec![ParentStatus { parent, conditions }], ..Status::default() }
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let key = Key::new(Kind::HttpRoute, "shop", "cart");
        let first = document(&key, &route(true, "a"), None, "t1").unwrap();
        assert_eq!(first["apiVersion"], "gateway.networking.k8s.io/v1");
        let parent = &first["status"]["parents"][0];
        assert_eq!(parent["parentRef"], json!({"kind": "Service", "name": "cart"}));
        assert_eq!(parent["controllerName"], CONTROLLER);
        assert_eq!(parent["conditions"][1]["reason"], "RefusedByEnvoy");
        let again = document(&key, &route(true, "a"), Some(&first), "t2").unwrap();
        assert_eq!(again, first);
        let other = document(&key, &route(true, "b"), Some(&first), "t2").unwrap();
        assert_eq!(other["status"]["parents"][0]["conditions"][0]["lastTransitionTime"], "t1");
        let turned = document(&key, &route(false, "b"), Some(&first), "t2").unwrap();
        assert_eq!(turned["status"]["parents"][0]["conditions"][0]["lastTransitionTime"], "t2");
        assert_eq!(turned["status"]["parents"][0]["conditions"][1]["lastTransitionTime"], "t1");
    }

    #[test]
    fn nothing_said_is_nothing_written() {
        assert_eq!(document(&Key::new(Kind::Pod, "shop", "cart"), &Status::default(), None, "t1"), None);
    }

    #[test]
    fn a_class_lists_the_features_that_work() {
        let accepted = vec![Condition::new("Accepted", true, "Accepted", "")];
        let status = Status { conditions: accepted, ..Status::default() };
        let class = document(&Key::new(Kind::GatewayClass, "", "istio-waypoint"), &status, None, "t1").unwrap();
        assert_eq!(class["status"]["supportedFeatures"].as_array().unwrap().len(), supported_features().len());
        assert!(class["metadata"].get("namespace").is_none());
    }
}
