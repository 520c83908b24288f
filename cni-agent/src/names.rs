// SPDX-License-Identifier: Apache-2.0
//! What Kubernetes allows in names. Names come from files and from the runtime and end up in paths, so nothing else gets past the readers.

/// A DNS-1123 label, as namespaces are named.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last()).is_some_and(|(first, last)| inner(*first) && inner(*last));
    ends && bytes.len() <= 63 && bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
}

/// A DNS-1123 subdomain, as most objects are named.
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A uid: mostly a UUID, for pods of a node's own manifests a hash.
#[must_use]
pub fn is_uid(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kubernetes_and_no_paths() {
        for good in ["a", "shop", "web-1", "0"] {
            assert!(is_label(good) && is_subdomain(good) && is_uid(good), "{good}");
        }
        assert!(is_subdomain("web.shop-1") && !is_label("web.shop-1"));
        for bad in ["", ".", "..", "../a", "a/b", "A_b", "-a", "a-", "a..b", "a\n", "a b", "\u{e4}", &"a".repeat(254)] {
            assert!(!is_subdomain(bad) && !is_label(bad), "{bad:?}");
        }
        assert!(is_uid("5E0c1f7e-0000-4000-8000-000000000000"));
        for bad in ["", "..", "a/b", "a_b", "a.b", &"a".repeat(65)] {
            assert!(!is_uid(bad), "{bad:?}");
        }
    }
}
