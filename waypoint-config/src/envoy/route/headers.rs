// SPDX-License-Identifier: Apache-2.0
//! Changes of headers. Envoy removes first, then adds in order; values are templates to it, and ours are not.

use envoy_types::pb::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
};

use crate::view::rule::HeaderEdits;

/// What to add or replace, and what to remove.
pub(super) fn edits(edits: &HeaderEdits) -> (Vec<HeaderValueOption>, Vec<String>) {
    let option = |(name, value): &(String, String), action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue { key: name.clone(), value: value.replace('%', "%%"), raw_value: Vec::new() }),
        append_action: action.into(),
        keep_empty_value: true,
        ..HeaderValueOption::default()
    };
    let set = edits.set.iter().map(|header| option(header, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = edits.add.iter().map(|header| option(header, HeaderAppendAction::AppendIfExistsOrAdd));
    (set.chain(add).collect(), edits.remove.clone())
}
