// SPDX-License-Identifier: Apache-2.0
//! SPIFFE ids of workloads: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>` (ztunnel.md §10 A-01).
//!
//! Parsing is strict: what is accepted prints as it was read, so that two spellings never name one identity and text from a certificate can stand in
//! logs, headers and policies as it is.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

/// Who a workload is. Cheap to clone: one shared text.
#[derive(Clone)]
pub struct Identity {
    uri: Arc<str>,
    /// Where in `uri` the trust domain, the namespace and the service account end or begin.
    trust_domain_end: u16,
    namespace_end: u16,
}

impl Identity {
    /// The identity of `service_account` in `namespace`.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, IdentityError> {
        check(Part::TrustDomain, trust_domain)?;
        check(Part::Namespace, namespace)?;
        check(Part::ServiceAccount, service_account)?;
        let uri = format!("{SCHEME}{trust_domain}{NAMESPACE}{namespace}{SERVICE_ACCOUNT}{service_account}");
        // No part is longer than 255 bytes, so the sums stay far below 65535.
        let trust_domain_end = SCHEME.len() + trust_domain.len();
        let namespace_end = trust_domain_end + NAMESPACE.len() + namespace.len();
        Ok(Self { uri: uri.into(), trust_domain_end: trust_domain_end as u16, namespace_end: namespace_end as u16 })
    }

    /// The trust domain, e.g. `cluster.local`.
    pub fn trust_domain(&self) -> &str {
        &self.uri[SCHEME.len()..usize::from(self.trust_domain_end)]
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.uri[usize::from(self.trust_domain_end) + NAMESPACE.len()..usize::from(self.namespace_end)]
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &str {
        &self.uri[usize::from(self.namespace_end) + SERVICE_ACCOUNT.len()..]
    }

    /// The whole id as a URI, as certificates carry it.
    pub fn as_uri(&self) -> &str {
        &self.uri
    }

    /// The id without its scheme, as policies name principals.
    pub fn as_principal(&self) -> &str {
        &self.uri[SCHEME.len()..]
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let shape = || IdentityError::Shape { text: shortened(text) };
        let mut parts = text.strip_prefix(SCHEME).ok_or_else(shape)?.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(trust_domain), Some("ns"), Some(namespace), Some("sa"), Some(service_account), None) => {
                Self::new(trust_domain, namespace, service_account)
            }
            _ => Err(shape()),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.uri == other.uri
    }
}

impl Eq for Identity {}

impl PartialOrd for Identity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Identity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.uri.cmp(&other.uri)
    }
}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uri.hash(state);
    }
}

/// Why a text is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It does not have the five segments.
    #[error("{text:?} is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    Shape {
        /// The text, shortened.
        text: String,
    },
    /// One part is empty, too long, or holds something other than letters, digits, `.`, `-` and `_`.
    #[error("{part} {text:?} of a SPIFFE id must be 1 to 255 letters, digits, '.', '-' or '_', and not just dots")]
    Part {
        /// Which one.
        part: Part,
        /// What it was, shortened.
        text: String,
    },
}

/// A part of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The authority of the URI.
    TrustDomain,
    /// Behind `ns`.
    Namespace,
    /// Behind `sa`.
    ServiceAccount,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TrustDomain => "trust domain",
            Self::Namespace => "namespace",
            Self::ServiceAccount => "service account",
        })
    }
}

const SCHEME: &str = "spiffe://";
const NAMESPACE: &str = "/ns/";
const SERVICE_ACCOUNT: &str = "/sa/";
const LONGEST_PART: usize = 255;

/// The characters are those of the SPIFFE specification (§2.1, §2.2); upper case in the trust domain is let through because Istio never refused it.
fn check(part: Part, text: &str) -> Result<(), IdentityError> {
    let well_formed = (1..=LONGEST_PART).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        && !matches!(text, "." | "..");
    if well_formed { Ok(()) } else { Err(IdentityError::Part { part, text: shortened(text) }) }
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST_PART).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_identity_prints_as_it_was_read() {
        let identity: Identity = "spiffe://cluster.local/ns/demo/sa/client".parse().unwrap();
        assert_eq!(identity.trust_domain(), "cluster.local");
        assert_eq!(identity.namespace(), "demo");
        assert_eq!(identity.service_account(), "client");
        assert_eq!(identity.as_principal(), "cluster.local/ns/demo/sa/client");
        assert_eq!(identity.to_string(), "spiffe://cluster.local/ns/demo/sa/client");
        assert_eq!(identity, Identity::new("cluster.local", "demo", "client").unwrap());
    }

    #[test]
    fn what_is_not_exactly_an_identity_is_refused() {
        for text in [
            "",
            "spiffe://",
            "cluster.local/ns/demo/sa/client",
            "SPIFFE://cluster.local/ns/demo/sa/client",
            "spiffe://cluster.local/ns/demo/sa/client/",
            "spiffe://cluster.local/ns/demo/sa/client/more",
            "spiffe://cluster.local/sa/client/ns/demo",
            "spiffe://cluster.local/ns/demo",
            "spiffe:///ns/demo/sa/client",
            "spiffe://cluster.local/ns//sa/client",
            "spiffe://cluster.local/ns/demo/sa/",
            "spiffe://cluster.local/ns/../sa/client",
            "spiffe://cluster.local/ns/demo/sa/cli%65nt",
            "spiffe://cluster.local/ns/demo/sa/client?x=1",
            "spiffe://user@cluster.local/ns/demo/sa/client",
            "spiffe://cluster.local:8080/ns/demo/sa/client",
            "spiffe://cluster.local/ns/demo/sa/client\n",
            "spiffe://clüster.local/ns/demo/sa/client",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text:?} was accepted");
        }
        assert!(Identity::new("a/ns/b/sa/c", "demo", "client").is_err());
        assert!(Identity::new(&"a".repeat(256), "demo", "client").is_err());
        assert!(Identity::new(&"a".repeat(255), &"b".repeat(255), &"c".repeat(255)).is_ok());
    }

    #[test]
    fn the_error_says_what_was_wrong() {
        let error = "spiffe://cluster.local/ns/a b/sa/c".parse::<Identity>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "namespace \"a b\" of a SPIFFE id must be 1 to 255 letters, digits, '.', '-' or '_', and not just dots"
        );
    }

    proptest! {
        #[test]
        fn parsing_and_printing_are_inverse(td in "[a-z0-9.-]{3,40}", ns in "[a-z0-9-]{1,63}", sa in "[a-z0-9_-]{1,80}") {
            let identity = Identity::new(&td, &ns, &sa).unwrap();
            let again: Identity = identity.to_string().parse().unwrap();
            prop_assert_eq!((again.trust_domain(), again.namespace(), again.service_account()), (&*td, &*ns, &*sa));
            prop_assert_eq!(again, identity);
        }

        #[test]
        fn any_text_is_refused_or_kept_as_it_is(text in "(spiffe://)?[a-z./ns%é ]{0,30}(/ns/[a-z/.]{0,4}/sa/[a-z/]{0,4})?") {
            if let Ok(identity) = text.parse::<Identity>() {
                prop_assert_eq!(identity.to_string(), text);
            }
        }
    }
}
