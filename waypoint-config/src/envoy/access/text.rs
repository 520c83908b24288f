// SPDX-License-Identifier: Apache-2.0
//! Values of policies as matchers of strings. Called by `attribute`.
//!
//! `*` alone stands for anything, at the start or the end of a value for any beginning or ending; elsewhere it is a letter.

use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern};

/// A value of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Glob<'a> {
    Any,
    Exact(&'a str),
    Prefix(&'a str),
    Suffix(&'a str),
}

impl<'a> Glob<'a> {
    pub(super) fn of(value: &'a str) -> Self {
        match (value.strip_prefix('*'), value.strip_suffix('*')) {
            (Some(""), _) => Self::Any,
            (Some(suffix), _) => Self::Suffix(suffix),
            (None, Some(prefix)) => Self::Prefix(prefix),
            (None, None) => Self::Exact(value),
        }
    }

    /// As a matcher. Anything: at least one letter.
    pub(super) fn matcher(self) -> StringMatcher {
        match self {
            Self::Any => regex(".+".to_owned()),
            Self::Exact(text) => exact(text),
            Self::Prefix(text) => pattern(MatchPattern::Prefix(text.to_owned())),
            Self::Suffix(text) => pattern(MatchPattern::Suffix(text.to_owned())),
        }
    }

    /// As a part of a regular expression in which no letter of `not` may stand for the star.
    pub(super) fn expression(self, star: &str) -> String {
        match self {
            Self::Any => star.replace('*', "+"),
            Self::Exact(text) => quote(text),
            Self::Prefix(text) => format!("{}{star}", quote(text)),
            Self::Suffix(text) => format!("{star}{}", quote(text)),
        }
    }
}

pub(super) fn exact(text: &str) -> StringMatcher {
    pattern(MatchPattern::Exact(text.to_owned()))
}

/// The whole of it.
pub(super) fn regex(regex: String) -> StringMatcher {
    pattern(MatchPattern::SafeRegex(RegexMatcher { regex, ..Default::default() }))
}

fn pattern(of: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(of), ..Default::default() }
}

/// A host, whatever its case, with or without a port.
pub(super) fn host(value: &str) -> StringMatcher {
    match Glob::of(value) {
        Glob::Any => Glob::Any.matcher(),
        Glob::Prefix(_) => StringMatcher { ignore_case: true, ..Glob::of(value).matcher() },
        glob => regex(format!("(?i){}(:[0-9]+)?", glob.expression(".*"))),
    }
}

/// A path without its query, which may be a template: `{*}` stands for one element, `{**}` for any number.
pub(super) fn path(value: &str) -> StringMatcher {
    if !value.contains("{*}") && !value.contains("{**}") {
        return Glob::of(value).matcher();
    }
    let elements = value.split("{**}").map(|part| part.split("{*}").map(quote).collect::<Vec<_>>().join("[^/]+"));
    regex(elements.collect::<Vec<_>>().join(".*"))
}

/// The text itself as a regular expression (RE2).
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter == '\0' {
            quoted.push_str("\\x00");
            continue;
        }
        if letter.is_ascii() && !letter.is_ascii_alphanumeric() && letter != '_' {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted
}

/// Whether Envoy takes it for the name of a header.
pub(super) fn is_header_name(name: &str) -> bool {
    let name = name.strip_prefix(':').unwrap_or(name);
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_something_at_either_end_only() {
        let cases = [
            ("*", Glob::Any),
            ("a", Glob::Exact("a")),
            ("a*", Glob::Prefix("a")),
            ("*a", Glob::Suffix("a")),
            ("a*b", Glob::Exact("a*b")),
            ("", Glob::Exact("")),
        ];
        for (value, expected) in cases {
            assert_eq!(Glob::of(value), expected, "{value}");
        }
    }

    #[test]
    fn a_path_template_becomes_an_expression_of_the_whole_path() {
        assert_eq!(path("/a/{*}/b.c/{**}"), regex("\\/a\\/[^/]+\\/b\\.c\\/.*".into()));
        assert_eq!(path("/a/*"), Glob::Prefix("/a/").matcher());
    }

    #[test]
    fn a_host_matches_whatever_its_case_and_port() {
        assert_eq!(host("a.b"), regex("(?i)a\\.b(:[0-9]+)?".into()));
        assert_eq!(host("*.b"), regex("(?i).*\\.b(:[0-9]+)?".into()));
    }
}
