// SPDX-License-Identifier: Apache-2.0
//! What is to hold for whatever a container runtime, or somebody at the agent's socket, says: the body of a fuzz target. `cargo test -p cni-agent --test
//! fuzz` runs it as a bounded property, `cargo fuzz run plugin` (in `tests/fuzz`) without bound. A plain function: it panics where something does not hold.

use cni_agent::cni::question::Question;
use cni_agent::cni::{Admission, Config, Pod, Version, addresses, parse_arguments, result, versions};
use serde_json::Value;

/// A line of `CNI_ARGS`, and what comes on standard input. What is printed is JSON; the result of the plugin before is handed on as it is; only the
/// agent's own pods and namespaces that the configuration names start unasked; a question is understood by the agent as the plugin meant it.
pub fn plugin(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (arguments, stdin) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    let pod = std::str::from_utf8(arguments).ok().and_then(|text| parse_arguments(text).ok()).flatten();
    if let Some(Pod { namespace, name, uid }) = &pod {
        for text in [Some(namespace), Some(name), uid.as_ref()].into_iter().flatten() {
            assert!(!text.is_empty() && !text.contains('/') && !text.contains(".."), "{text:?} in a path");
        }
    }
    let claimed = Config::claimed_version(stdin);
    read(&versions(&claimed));
    match Config::parse(stdin) {
        Ok(config) => {
            assert_eq!(Version::parse(&claimed), Some(config.version));
            assert!(config.run_dir.is_absolute());
            check_result(&config);
            check_admission(&config, pod);
        }
        Err(error) => _ = read(&error.to_json(&claimed)),
    }
    if let Ok(question) = serde_json::from_slice::<Question>(stdin) {
        assert!(question.addresses().iter().all(|ip| ip.to_canonical() == *ip));
        let again = serde_json::to_vec(&question).expect("a question can be written");
        assert_eq!(serde_json::from_slice::<Question>(&again).expect("what was written can be read"), question);
    }
}

fn check_result(config: &Config) {
    let mut printed = read(&result(config.version, config.previous.clone()));
    let printed = printed.as_object_mut().expect("a result is an object");
    assert_eq!(printed.remove("cniVersion"), Some(Value::from(config.version.as_str())));
    if let Some(previous) = &config.previous {
        let mut previous = previous.clone();
        previous.remove("cniVersion");
        assert_eq!(*printed, previous);
        if let Ok(found) = addresses(&previous) {
            assert!(found.iter().all(|ip| ip.to_canonical() == *ip));
        }
    }
}

fn check_admission(config: &Config, pod: Option<Pod>) {
    match config.admit(pod.clone()) {
        Admission::Ask(asked) => assert_eq!(Some(asked), pod),
        Admission::Start(_) => {
            let Some(pod) = pod else { return };
            let is_own = pod.namespace == config.pod_namespace && pod.name.starts_with(&config.agent_pod_prefix);
            assert!(is_own || config.exclude_namespaces.contains(&pod.namespace), "{pod:?} starts unasked");
        }
    }
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).expect("what is printed is JSON")
}
