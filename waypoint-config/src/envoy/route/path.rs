// SPDX-License-Identifier: Apache-2.0
//! New paths in the place of old ones. Whole elements are replaced, and no `//` appears where two parts meet.

use super::values::literal;
use crate::view::rule::{PathMatch, PathRewrite};

/// How Envoy gets there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// As it is.
    Keep,
    /// What was matched becomes this.
    Prefix(String),
    /// What this expression matches becomes that.
    Regex(String, String),
    /// All of it becomes this.
    Full(String),
}

pub(super) fn edit(matched: Option<&PathMatch>, wanted: &PathRewrite) -> Edit {
    let replacement = match wanted {
        PathRewrite::Full(path) => return Edit::Full(path.clone()),
        PathRewrite::Prefix(path) => path.trim_end_matches('/'),
    };
    let prefix = match matched {
        None => "/",
        Some(PathMatch::Prefix(prefix)) => prefix,
        // There is no prefix; the rule is broken before it comes here.
        Some(PathMatch::Exact(_) | PathMatch::Regex(_)) => return Edit::Keep,
    };
    match (prefix, replacement) {
        ("/", "") => Edit::Keep,
        // Envoy matched the slash, too.
        ("/", _) => Edit::Prefix(format!("{replacement}/")),
        (_, "") => Edit::Regex(format!("^{}/*(.*)", literal(prefix)), "/\\1".to_owned()),
        _ => Edit::Prefix(replacement.to_owned()),
    }
}

/// Full as an expression, where Envoy knows no other way.
pub(super) fn full(path: &str) -> (String, String) {
    ("^/.*".to_owned(), path.replace('\\', "\\\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(matched: &str, replacement: &str) -> Edit {
        edit(Some(&PathMatch::Prefix(matched.to_owned())), &PathRewrite::Prefix(replacement.to_owned()))
    }

    #[test]
    fn a_prefix_is_replaced_by_whole_elements() {
        assert_eq!(prefix("/a", "/b"), Edit::Prefix("/b".to_owned()));
        assert_eq!(prefix("/a", "/b/"), Edit::Prefix("/b".to_owned()));
        assert_eq!(prefix("/", "/b"), Edit::Prefix("/b/".to_owned()));
        assert_eq!(prefix("/", "/"), Edit::Keep);
        assert_eq!(edit(None, &PathRewrite::Prefix("/b".to_owned())), Edit::Prefix("/b/".to_owned()));
    }

    #[test]
    fn a_prefix_that_goes_leaves_one_slash() {
        let expected = Edit::Regex("^/a\\.b/*(.*)".to_owned(), "/\\1".to_owned());
        assert_eq!(prefix("/a.b", "/"), expected);
        assert_eq!(prefix("/a.b", ""), expected);
    }
}
