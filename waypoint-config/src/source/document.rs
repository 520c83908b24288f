// SPDX-License-Identifier: Apache-2.0
//! The bytes of one file into the objects it holds, each by itself: a document that cannot be read says so and leaves the others alone. Pure.
//! Called by `files`, and by everything that takes YAML from a person.

use serde_json::Value;

use super::observation;
use crate::api::{Key, Kind, Object, ObjectError, ParentRef};

/// What the files of a folder are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Whole objects, written by people.
    Objects,
    /// Parts of objects, written by programs that saw something (see `observation`).
    Observations,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The objects that could be told apart, in order.
    pub entries: Vec<Entry>,
    /// What could not even be told apart: the file may hold more objects than are listed.
    pub broken: Vec<Broken>,
}

/// One object of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where its document begins.
    pub line: usize,
    /// Which object.
    pub key: Key,
    /// The object, or what is wrong with it.
    pub object: Result<Object, ObjectError>,
    /// Of a route with something wrong: its parents, as far as they can be read.
    pub parents: Vec<ParentRef>,
}

/// Something that is no object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Where; 0 is the whole file.
    pub line: usize,
    /// Why.
    pub reason: String,
}

/// Nobody writes such files by hand, and one must not take the memory of all.
pub const MAX_FILE_BYTES: u64 = 32 << 20;

impl Reading {
    /// A file that could not be read at all.
    pub fn unreadable(reason: impl Into<String>) -> Self {
        Self { entries: Vec::new(), broken: vec![Broken { line: 0, reason: reason.into() }] }
    }

    /// Reads YAML (or JSON, which is YAML) of any number of documents; lists as `kubectl get -o yaml` prints them are taken apart.
    pub fn of(bytes: &[u8], role: Role) -> Self {
        let mut reading = Self::default();
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Self::unreadable(format!("is larger than {MAX_FILE_BYTES} bytes; split it"));
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
            Err(error) => return Self::unreadable(format!("is not UTF-8 from byte {} on", error.valid_up_to())),
        };
        for document in documents(text) {
            match parse(&document) {
                Ok(Value::Null) => {}
                Ok(value) => reading.take(value, document.line, role),
                Err(broken) => reading.broken.push(broken),
            }
        }
        reading
    }

    fn take(&mut self, mut value: Value, line: usize, role: Role) {
        let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (text(&value, "apiVersion"), text(&value, "kind"));
        if api_version.is_empty() || kind.is_empty() {
            let field = if kind.is_empty() { "kind" } else { "apiVersion" };
            self.broken.push(Broken {
                line,
                reason: format!("{field}: is missing or no text; an object begins with apiVersion and kind"),
            });
            return;
        }
        if kind.ends_with("List") && value.get("items").is_some_and(Value::is_array) {
            if let Some(Value::Array(items)) = value.get_mut("items").map(Value::take) {
                items.into_iter().for_each(|item| self.take(item, line, role));
            }
            return;
        }
        let Ok(kind) = Kind::of(&api_version, &kind) else {
            // Not ours; but a program that reports on something it may not report on should hear of it.
            if role == Role::Observations {
                self.broken.push(Broken { line, reason: format!("kind: nothing is observed of a {kind}") });
            }
            return;
        };
        match identify(kind, &mut value) {
            Ok(key) => {
                let parents = if kind.is_route() { ParentRef::of_route(&value) } else { Vec::new() };
                let object = match role {
                    Role::Objects => Object::read(kind, value),
                    Role::Observations => observation::read(kind, value),
                };
                let parents = if object.is_err() { parents } else { Vec::new() };
                self.entries.push(Entry { line, key, object, parents });
            }
            Err(reason) => self.broken.push(Broken { line, reason }),
        }
    }
}

/// The key, and the value as an API server would keep it: with the namespace people leave out, without what nobody reads.
fn identify(kind: Kind, value: &mut Value) -> Result<Key, String> {
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else {
        return Err(format!("metadata: is missing; which {} is it?", kind.name()));
    };
    metadata.remove("managedFields");
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    if kind.is_namespaced() && metadata.get("namespace").is_none_or(Value::is_null) {
        metadata.insert("namespace".into(), "default".into());
    }
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let Some(name) = text("name") else {
        return Err(format!("metadata.name: is missing or no text; which {} is it?", kind.name()));
    };
    match (kind.is_namespaced(), text("namespace")) {
        (true, None) => Err("metadata.namespace: is no text".to_owned()),
        (true, Some(namespace)) => Ok(Key::new(kind, namespace, name)),
        // Given all the same: `Object::read` says that it lives in none.
        (false, _) => Ok(Key::new(kind, "", name)),
    }
}

struct Document<'a> {
    /// Lines of the file before it.
    above: usize,
    /// The line of the file with its first word.
    line: usize,
    text: &'a str,
}

/// Cuts at the document markers. YAML forbids them inside any content, even in a block of text, so no parser is needed, and a mistake in one document
/// cannot hide the next.
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut found = Vec::new();
    let (mut start, mut above, mut offset) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line, "---") {
            found.push((above, &text[start..offset]));
            (start, above) = (offset, number);
        }
        offset += line.len();
        if is_marker(line, "...") {
            found.push((above, &text[start..offset]));
            (start, above) = (offset, number + 1);
        }
    }
    found.push((above, &text[start..]));
    let with_words = found.into_iter().filter_map(|(above, text)| {
        let first = text.lines().position(says_something)?;
        Some(Document { above, line: above + first + 1, text })
    });
    with_words.collect()
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn says_something(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with(['#', '%']) && line != "---" && line != "..."
}

/// Aliases are allowed, for people use them; what they unfold to is bounded, as is everything else a few bytes could blow up.
fn parse(document: &Document<'_>) -> Result<Value, Broken> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 2_000_000,
            max_nodes: 1_000_000,
            max_depth: 64,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(document.text, options).map_err(|error| Broken {
        line: error
            .location()
            .map_or(document.line, |at| document.above + usize::try_from(at.line()).unwrap_or_default()),
        reason: error.render_with_options(serde_saphyr::render_options! { line_offset: document.above as u64 }),
    })
}

#[cfg(test)]
mod tests;
