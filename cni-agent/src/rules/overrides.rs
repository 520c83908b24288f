// SPDX-License-Identifier: Apache-2.0
//! A pod's own wishes about its rules, read from its annotations and laid over the node's [`Options`].
//!
//! The agent reads them whenever it looks at the pod, so that a changed annotation changes the plan. An annotation that cannot be understood counts as
//! absent, as Istio has it, and is handed back for the log and the pod's events: it is never passed over in silence.

use super::plan::Options;

/// What a pod's annotations ask for; `None` where the node's setting stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `ambient.istio.io/dns-capture`
    pub dns_capture: Option<bool>,
    /// `ambient.istio.io/bypass-inbound-capture`
    pub bypass_inbound: Option<bool>,
    /// `istio.io/reroute-virtual-interfaces`
    pub virtual_interfaces: Vec<String>,
}

/// An annotation, or a part of one, that was not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// Neither true nor false.
    #[error("annotation {annotation} is ignored: {value:?} is neither true nor false")]
    NotBoolean {
        /// Its name.
        annotation: &'static str,
        /// Its value.
        value: String,
    },
    /// No interface can have this name.
    #[error(
        "interface {name:?} in annotation {annotation} is ignored: an interface name has 1 to 15 bytes without spaces and slashes"
    )]
    NotAnInterface {
        /// The annotation's name.
        annotation: &'static str,
        /// The entry.
        name: String,
    },
}

impl Overrides {
    /// Reads a pod's annotations.
    pub fn read<'a>(annotations: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Self, Vec<Ignored>) {
        let mut overrides = Self::default();
        let mut ignored = Vec::new();
        for (name, value) in annotations {
            match name {
                DNS_CAPTURE => overrides.dns_capture = boolean(DNS_CAPTURE, value, &mut ignored),
                BYPASS_INBOUND => overrides.bypass_inbound = boolean(BYPASS_INBOUND, value, &mut ignored),
                VIRTUAL_INTERFACES => overrides.virtual_interfaces = interfaces(value, &mut ignored),
                _ => {}
            }
        }
        (overrides, ignored)
    }

    /// The node's options with these wishes laid over them.
    #[must_use]
    pub fn over(&self, node: &Options) -> Options {
        Options {
            dns_capture: self.dns_capture.unwrap_or(node.dns_capture),
            bypass_inbound: self.bypass_inbound.unwrap_or(node.bypass_inbound),
            virtual_interfaces: self.virtual_interfaces.clone(),
            ..node.clone()
        }
    }
}

/// What Go's `strconv.ParseBool` takes, for Istio reads these annotations with it.
fn boolean(annotation: &'static str, value: &str, ignored: &mut Vec<Ignored>) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => {
            ignored.push(Ignored::NotBoolean { annotation, value: value.to_owned() });
            None
        }
    }
}

fn interfaces(value: &str, ignored: &mut Vec<Ignored>) -> Vec<String> {
    let mut found = Vec::new();
    for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !may_name_an_interface(name) {
            ignored.push(Ignored::NotAnInterface { annotation: VIRTUAL_INTERFACES, name: name.to_owned() });
        } else if !found.iter().any(|known| known == name) {
            found.push(name.to_owned());
        }
    }
    found
}

/// The kernel's own test, and a bare `*` is refused: it would swallow everything that arrives.
fn may_name_an_interface(name: &str) -> bool {
    let forbidden = |byte: u8| byte == b'/' || byte == b':' || byte == 0 || byte.is_ascii_whitespace();
    name.len() < libc::IFNAMSIZ && name != "." && name != ".." && name != "*" && !name.bytes().any(forbidden)
}

const DNS_CAPTURE: &str = "ambient.istio.io/dns-capture";
const BYPASS_INBOUND: &str = "ambient.istio.io/bypass-inbound-capture";
const VIRTUAL_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_lay_themselves_over_the_node_s_options() {
        let node = Options { dns_capture: true, ..Options::default() };
        let (overrides, ignored) = Overrides::read([
            ("ambient.istio.io/dns-capture", "F"),
            ("ambient.istio.io/bypass-inbound-capture", "true"),
            ("istio.io/reroute-virtual-interfaces", " tap0, ,br-*,tap0"),
            ("ambient.istio.io/redirection", "enabled"),
        ]);
        assert_eq!(ignored, []);
        let options = overrides.over(&node);
        assert!(!options.dns_capture && options.bypass_inbound);
        assert_eq!(options.virtual_interfaces, ["tap0", "br-*"]);
    }

    #[test]
    fn without_annotations_the_node_s_options_stand() {
        let node = Options { dns_capture: true, ipv6: false, ..Options::default() };
        let (overrides, ignored) = Overrides::read([]);
        assert_eq!((overrides.over(&node), ignored.len()), (node, 0));
    }

    #[test]
    fn what_cannot_be_understood_counts_as_absent_and_is_reported() {
        let (overrides, ignored) = Overrides::read([
            ("ambient.istio.io/dns-capture", "yes"),
            ("istio.io/reroute-virtual-interfaces", "tap0,a name,*,longer-than-fifteen"),
        ]);
        assert_eq!(overrides.dns_capture, None);
        assert_eq!(overrides.virtual_interfaces, ["tap0"]);
        assert_eq!(ignored.len(), 4);
        assert!(ignored[0].to_string().contains("\"yes\" is neither true nor false"));
    }

    #[test]
    fn a_name_no_interface_can_have_is_refused() {
        for name in ["eth0", "a", "fifteen-bytes-x", "...", "br-*", "**"] {
            assert!(may_name_an_interface(name), "{name}");
        }
        for name in [".", "..", "*", "a/b", "a:b", "a\0b", "a b", "a\tb", "sixteen-bytes-xy", "longer-than-fifteen"] {
            assert!(!may_name_an_interface(name), "{name}");
        }
    }
}
