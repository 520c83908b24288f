// SPDX-License-Identifier: Apache-2.0
//! Parameters, configurations and results as runtimes send them, and as nobody should.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    let found = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    Environment::read(found).unwrap()
}

fn config(members: Value) -> Result<Config, CniError> {
    let mut object = json!({ "cniVersion": "1.0.0", "name": "net" });
    for (key, value) in members.as_object().unwrap() {
        object[key] = value.clone();
    }
    Config::parse(object.to_string().as_bytes())
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn pod(namespace: &str, name: &str) -> Pod {
    Pod { namespace: namespace.to_owned(), name: name.to_owned(), uid: None }
}

#[test]
fn the_arguments_of_kubernetes_runtimes_name_the_pod() {
    let text = "IgnoreUnknown=1;K8S_POD_NAMESPACE=n;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=u;MORE=x=y";
    assert_eq!(parse_arguments(text).unwrap(), Some(Pod { uid: Some("u".to_owned()), ..pod("n", "p") }));
    assert_eq!(parse_arguments("K8S_POD_NAME=p;K8S_POD_NAMESPACE=n;").unwrap(), Some(pod("n", "p")));
    for nobody in ["", ";", "K8S_POD_NAME=p", "K8S_POD_NAME=p;K8S_POD_NAMESPACE=", "IgnoreUnknown=true;A=b"] {
        assert_eq!(parse_arguments(nobody).unwrap(), None, "{nobody}");
    }
    for wrong in ["A=b", "IgnoreUnknown=0;A=b", "K8S_POD_NAME", "IgnoreUnknown=perhaps"] {
        assert_eq!(parse_arguments(wrong).unwrap_err().code, Code::InvalidEnvironment, "{wrong}");
    }
}

#[test]
fn names_that_kubernetes_does_not_allow_are_refused() {
    for (key, value) in [
        ("K8S_POD_NAMESPACE", "../../etc"),
        ("K8S_POD_NAMESPACE", "a.b"),
        ("K8S_POD_NAME", "a/b"),
        ("K8S_POD_NAME", ".."),
        ("K8S_POD_NAME", "Web"),
        ("K8S_POD_UID", "u/.."),
    ] {
        let text = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=n;K8S_POD_NAME=p;{key}={value}");
        let error = parse_arguments(&text).unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment, "{text}");
        assert!(error.to_string().contains(key), "{error}");
    }
}

const LABEL: &str = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";

#[test]
fn every_command_of_the_specification_is_known_and_no_other() {
    use Command::{Add, Check, Del, Gc, Status, Version};
    for command in [Add, Del, Check, Version, Status, Gc] {
        assert_eq!(environment(&[("CNI_COMMAND", command.as_str())]).command().unwrap(), command);
    }
    for wrong in ["", "add", "ADD ", "UPDATE"] {
        let error = environment(&[("CNI_COMMAND", wrong)]).command().unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment, "{wrong}");
    }
}

#[test]
fn parameters_that_are_missing_or_wrong_are_named() {
    let good = [("CNI_CONTAINERID", "a-1.b_2"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/run/netns/x")];
    let sandbox = environment(&good).sandbox(Command::Add).unwrap();
    assert_eq!((sandbox.container_id.as_str(), sandbox.interface.as_str()), ("a-1.b_2", "eth0"));
    assert_eq!(sandbox.netns, Path::new("/run/netns/x"));
    environment(&good[..2]).sandbox(Command::Del).unwrap();
    let wrong = [
        ("CNI_CONTAINERID", vec!["", "-a", "a/b", "a b"]),
        ("CNI_IFNAME", vec!["", ".", "..", "a/b", "a:b", "a b", "sixteen-letters-"]),
        ("CNI_NETNS", vec![""]),
    ];
    for (name, values) in wrong {
        for value in values {
            let pairs = good.map(|(key, good)| (key, if key == name { value } else { good }));
            let error = environment(&pairs).sandbox(Command::Check).unwrap_err();
            assert_eq!(error.code, Code::InvalidEnvironment);
            assert!(error.message.contains(name), "{error}");
        }
    }
    let not_text = Environment::read(|name| (name == "CNI_ARGS").then(|| OsString::from_vec(vec![0xff])));
    assert!(not_text.unwrap_err().message.contains("CNI_ARGS"));
}

#[test]
fn the_entry_of_istios_installer_is_understood() {
    let config = config(json!({
        "type": "istio-cni", "plugin_log_level": "debug", "cni_agent_run_dir": "/run/x", "ambient_enabled": true,
        "enablement_selectors": [{ "podSelector": {}, "namespaceSelector": {} }], "exclude_namespaces": ["kube-system", " b ", ""],
        "pod_namespace": "istio-system", "native_nftables": true, "enable_ambient_detection_retry": false, "ipam": {}, "dns": {},
        "runtimeConfig": { "anything": [1, 2] }, "prevResult": { "ips": [] },
    }))
    .unwrap();
    assert_eq!(config.run_dir, Path::new("/run/x"));
    assert_eq!(config.exclude_namespaces, BTreeSet::from(["kube-system".to_owned(), "b".to_owned()]));
    assert_eq!((config.pod_namespace.as_str(), config.log_level), ("istio-system", tracing::Level::DEBUG));
    assert_eq!(config.previous, Some(object(json!({ "ips": [] }))));
}

#[test]
fn what_is_not_said_has_a_default() {
    for members in [json!({}), json!({ "exclude_namespaces": null, "prevResult": null, "cni_agent_run_dir": "" })] {
        let config = config(members).unwrap();
        assert_eq!(config.run_dir, Path::new("/var/run/istio-cni"));
        assert_eq!((config.version, config.previous), (Version::V1_0_0, None));
        assert_eq!(config.agent_pod_prefix, "istio-cni-node-");
        assert_eq!(config.snapshot_max_age, Duration::from_secs(600));
        assert!(config.exclude_namespaces.is_empty() && config.status_follows_agent);
    }
    assert_eq!(Config::parse(br#"{"name":"n"}"#).unwrap().version, Version::V0_1_0);
}

#[test]
fn a_wrong_configuration_has_the_code_of_its_fault() {
    let parsed = |text: &str| Config::parse(text.as_bytes()).unwrap_err().code;
    let nested = format!("{{\"name\":\"n\",\"x\":{}", "[".repeat(100_000));
    for text in ["", "{", "nonsense", "{\"name\":\"n\"} {}", &nested] {
        assert_eq!(parsed(text), Code::Decoding, "{text:.20}");
    }
    for text in
        ["[]", r#"["1.0.0","n"]"#, "{}", r#"{"name":7}"#, r#"{"name":"-"}"#, r#"{"name":"n","exclude_namespaces":"a"}"#]
    {
        assert_eq!(parsed(text), Code::InvalidConfig, "{text}");
    }
    assert_eq!(config(json!({ "cni_agent_run_dir": "here" })).unwrap_err().code, Code::InvalidConfig);
    let error = config(json!({ "cniVersion": "9.9.9" })).unwrap_err();
    assert_eq!(error.code, Code::IncompatibleVersion);
    assert!(error.details.contains("1.1.0") && error.message.contains("9.9.9"));
}

#[test]
fn the_agents_own_pods_and_excluded_namespaces_pass_and_all_others_are_asked_about() {
    let config = config(json!({ "pod_namespace": "istio-system", "exclude_namespaces": ["kube-system"] })).unwrap();
    let passes = |pod| matches!(config.admit(pod), Admission::Start(_));
    assert!(passes(None));
    assert!(passes(Some(pod("istio-system", "istio-cni-node-x7"))));
    assert!(passes(Some(pod("kube-system", "coredns"))));
    for (namespace, name) in [("default", "istio-cni-node-x7"), ("istio-system", "ztunnel-x"), ("kube-system2", "a")] {
        assert_eq!(config.admit(Some(pod(namespace, name))), Admission::Ask(pod(namespace, name)));
    }
}

#[test]
fn without_a_namespace_of_its_own_the_agent_has_no_pods_that_pass() {
    let config = config(json!({})).unwrap();
    assert!(matches!(config.admit(Some(pod("default", "istio-cni-node-x"))), Admission::Ask(_)));
}

#[test]
fn addresses_are_found_in_both_forms_of_results() {
    let found =
        |value: Value| addresses(&object(value)).map(|ips| ips.iter().map(ToString::to_string).collect::<Vec<_>>());
    let newer = json!({ "ips": [{ "address": "10.0.0.2/24", "interface": 2 }, { "address": "fd00::2/64", "gateway": "fd00::1" }] });
    assert_eq!(found(newer).unwrap(), ["10.0.0.2", "fd00::2"]);
    let older = json!({ "ip4": { "ip": "10.0.0.2/24" }, "ip6": { "ip": "fd00::2/64", "routes": [] } });
    assert_eq!(found(older).unwrap(), ["10.0.0.2", "fd00::2"]);
    assert_eq!(
        found(json!({ "ips": [{ "address": "::ffff:10.0.0.2/120" }, { "address": "10.0.0.3" }] })).unwrap(),
        ["10.0.0.2", "10.0.0.3"]
    );
    assert_eq!(found(json!({ "ips": null, "ip4": null })).unwrap(), [""; 0]);
    for wrong in [
        json!({ "ips": {} }),
        json!({ "ips": [{}] }),
        json!({ "ips": [{ "address": 7 }] }),
        json!({ "ip4": { "ip": "all" } }),
    ] {
        assert_eq!(found(wrong).unwrap_err().code, Code::InvalidConfig);
    }
}

#[test]
fn a_result_passes_unchanged_in_the_version_of_the_configuration() {
    let previous =
        json!({ "cniVersion": "0.3.1", "ips": [{ "address": "10.0.0.2/24" }], "ours": { "deep": [1.5, null] } });
    for version in Version::ALL {
        let printed: Value = serde_json::from_str(&result(version, Some(object(previous.clone())))).unwrap();
        let mut expected = previous.clone();
        expected["cniVersion"] = json!(version.as_str());
        assert_eq!(printed, expected);
    }
}

#[test]
fn without_a_result_before_an_empty_one_is_printed() {
    let empty = |version| serde_json::from_str::<Value>(&result(version, None)).unwrap();
    assert_eq!(empty(Version::V0_2_0), json!({ "cniVersion": "0.2.0", "dns": {} }));
    assert_eq!(empty(Version::V1_1_0), json!({ "cniVersion": "1.1.0", "interfaces": [], "ips": [], "dns": {} }));
}

#[test]
fn errors_have_the_form_of_the_specification() {
    let error = CniError::new(Code::TryAgainLater, "wait");
    assert_eq!(
        serde_json::from_str::<Value>(&error.to_json("0.4.0")).unwrap(),
        json!({ "cniVersion": "0.4.0", "code": 11, "msg": "wait" })
    );
    assert_eq!(
        serde_json::from_str::<Value>(&error.because("a \"cause\"").to_json("")).unwrap(),
        json!({ "cniVersion": "1.1.0", "code": 11, "msg": "wait", "details": "a \"cause\"" })
    );
}

/// JSON that may be anything, often with the members that matter.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z0-9./:]{0,12}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        "[a-z]{0,4}",
        prop::sample::select(vec![
            "cniVersion",
            "name",
            "prevResult",
            "ips",
            "ip4",
            "ip",
            "address",
            "exclude_namespaces"
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_input_is_a_configuration_or_an_error(input in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = (Config::claimed_version(&input), Config::parse(&input));
    }

    #[test]
    fn any_json_is_a_configuration_or_an_error(value in any_json()) {
        if let Ok(config) = Config::parse(value.to_string().as_bytes()) {
            let previous = config.previous.clone();
            if let Some(previous) = &previous {
                let _ = addresses(previous);
            }
            let printed: Value = serde_json::from_str(&result(config.version, previous.clone())).unwrap();
            let mut printed = object(printed);
            prop_assert_eq!(printed.remove("cniVersion"), Some(json!(config.version.as_str())));
            if let Some(mut previous) = previous {
                previous.remove("cniVersion");
                prop_assert_eq!(printed, previous);
            }
        }
    }

    #[test]
    fn any_arguments_are_a_pod_or_an_error(text in "([A-Z0-9_]{0,20}=?[a-z0-9=]{0,5};?){0,6}|.{0,60}") {
        if let Ok(Some(pod)) = parse_arguments(&text) {
            prop_assert!(!pod.namespace.is_empty() && !pod.name.is_empty());
        }
    }

    #[test]
    fn a_pod_comes_back_from_its_arguments(namespace in LABEL, name in "[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?(\\.[a-z0-9]{1,20}){0,3}", extra in "[A-Z]{1,8}") {
        let text = format!("IgnoreUnknown=1;{extra}=1;K8S_POD_NAME={name};K8S_POD_NAMESPACE={namespace}");
        prop_assert_eq!(parse_arguments(&text).unwrap(), Some(pod(&namespace, &name)));
    }
}
