// SPDX-License-Identifier: Apache-2.0
//! A string that many records share. Names, namespaces and nodes repeat tens of thousands of times in a mesh, and labels
//! made from them are kept by every connection: cloning one must cost a counter, not a copy.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An immutable string that is cheap to clone. The empty one, which is frequent, takes no memory of its own.
#[derive(Clone, Default)]
pub struct Text(Option<Arc<str>>);

impl Text {
    /// The characters.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether nobody else holds these characters.
    pub(super) fn is_alone(&self) -> bool {
        self.0.as_ref().is_none_or(|text| Arc::strong_count(text) == 1)
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(if text.is_empty() { None } else { Some(Arc::from(text)) })
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        // Equal texts are mostly the same one.
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

/// As the characters hash, so that tables can be asked with a plain string.
impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// The texts that records share. Records come from separate messages; what they have in common is kept once.
#[derive(Debug, Default)]
pub(super) struct Shared {
    known: HashSet<Text>,
    clean_at: usize,
}

impl Shared {
    /// Puts the shared copy in the place of an equal text.
    pub(super) fn share(&mut self, text: &mut Text) {
        if text.is_empty() {
            return;
        }
        if let Some(known) = self.known.get(text.as_str()) {
            text.clone_from(known);
        } else {
            self.clean();
            self.known.insert(text.clone());
        }
    }

    /// Forgets what nobody holds any more, each time the table has doubled.
    fn clean(&mut self) {
        if self.known.len() >= self.clean_at {
            self.known.retain(|text| !text.is_alone());
            self.clean_at = (self.known.len() * 2).max(FEW);
        }
    }
}

/// Below this the table is not worth cleaning.
const FEW: usize = 1024;

/// For `skip_serializing_if`: leaves out what has its default value.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_become_one_and_are_forgotten_with_their_last_holder() {
        let mut shared = Shared::default();
        let (mut one, mut other) = (Text::from("node-1"), Text::from("node-1"));
        shared.share(&mut one);
        shared.share(&mut other);
        assert_eq!(one.as_str().as_ptr(), other.as_str().as_ptr());
        for number in 0..3 * FEW {
            shared.share(&mut Text::from(format!("gone-{number}")));
        }
        assert!(shared.known.len() <= FEW + 1, "{} kept", shared.known.len());
        assert!(shared.known.contains("node-1"));
    }

    #[test]
    fn the_empty_text_is_like_any_other() {
        assert_eq!(Text::default(), Text::from(""));
        assert_eq!((Text::from("").as_str(), Text::default().to_string()), ("", String::new()));
        assert!(Text::default() < "a".into() && Text::default() != "a");
        assert!(HashSet::from([Text::default()]).contains(""));
    }
}
