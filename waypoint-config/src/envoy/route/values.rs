// SPDX-License-Identifier: Apache-2.0
//! Envoy's small messages.

use std::time::Duration;

use envoy_types::pb::{
    envoy::{
        config::core::v3::RuntimeFractionalPercent,
        r#type::{
            matcher::v3::{RegexMatchAndSubstitute, RegexMatcher, StringMatcher, string_matcher::MatchPattern},
            v3::{FractionalPercent, fractional_percent::DenominatorType},
        },
    },
    google::protobuf,
};

use crate::view::rule::Pattern;

/// Envoy refuses more: ten thousand years.
const LONGEST: u64 = 315_576_000_000;

pub(super) fn duration(duration: Duration) -> protobuf::Duration {
    // Both fit: of the seconds by the bound, the nanoseconds by what they are.
    let seconds = duration.as_secs().min(LONGEST);
    protobuf::Duration { seconds: seconds as i64, nanos: duration.subsec_nanos() as i32 }
}

pub(super) fn uint32(value: u32) -> Option<protobuf::UInt32Value> {
    Some(protobuf::UInt32Value { value })
}

pub(super) fn boolean(value: bool) -> Option<protobuf::BoolValue> {
    Some(protobuf::BoolValue { value })
}

pub(super) fn regex(pattern: impl Into<String>) -> RegexMatcher {
    RegexMatcher { regex: pattern.into(), engine_type: None }
}

pub(super) fn substitute(pattern: String, substitution: String) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute { pattern: Some(regex(pattern)), substitution }
}

pub(super) fn string_regex(pattern: impl Into<String>) -> StringMatcher {
    StringMatcher { ignore_case: false, match_pattern: Some(MatchPattern::SafeRegex(regex(pattern))) }
}

pub(super) fn string(pattern: &Pattern) -> StringMatcher {
    match pattern {
        Pattern::Exact(text) => {
            StringMatcher { ignore_case: false, match_pattern: Some(MatchPattern::Exact(text.clone())) }
        }
        Pattern::Regex(pattern) => string_regex(pattern.as_str()),
    }
}

pub(super) fn share(parts_per_million: u32) -> RuntimeFractionalPercent {
    let percent = FractionalPercent { numerator: parts_per_million, denominator: DenominatorType::Million.into() };
    RuntimeFractionalPercent { default_value: Some(percent), runtime_key: String::new() }
}

/// A text as an expression that matches only it.
pub(super) fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii_punctuation() && !"_-/".contains(letter) {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}
