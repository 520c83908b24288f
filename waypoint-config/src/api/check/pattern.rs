// SPDX-License-Identifier: Apache-2.0
//! Whether Envoy can compile a regular expression. It uses RE2: no look-around, no backreferences, bounded repetition, bounded size. An expression it
//! refuses costs the whole waypoint its update, so what is not surely understood by both is refused here. Called by `route`, and by whoever translates.
//!
//! The parser is that of Rust's `regex`; what it has beyond RE2 (set operations, the flags `x`, `u` and `R`, special word boundaries) is refused. The
//! size is an estimate of RE2's instructions; Envoy must be told to allow as many (`re2.max_program_size.error_level`, 100 by itself).

use regex_syntax::ast::{
    self, AssertionKind, Ast, ClassSetBinaryOp, ClassSetItem, ClassUnicodeKind, FlagsItemKind, GroupKind,
    RepetitionKind, RepetitionRange, Visitor, parse::Parser, visit,
};

/// What is wrong with a regular expression, if anything.
pub fn regex_fault(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("is empty".to_owned());
    }
    if text.len() > MAX_LENGTH {
        return Some(format!("is {} bytes long; at most {MAX_LENGTH} are allowed", text.len()));
    }
    match Parser::new().parse(text) {
        Err(error) => Some(format!("is no regular expression Envoy understands (RE2): {}", error.kind())),
        Ok(parsed) => visit(&parsed, Walk { times: vec![1], size: 0 }).err(),
    }
}

/// Goes over an expression once, deepest first.
struct Walk {
    /// How often what stands here is repeated, for every repetition around it.
    times: Vec<u64>,
    size: u64,
}

impl Walk {
    fn times(&self) -> u64 {
        self.times.last().copied().unwrap_or(1)
    }

    fn grow(&mut self, by: u64) -> Result<(), String> {
        self.size = self.size.saturating_add(by.saturating_mul(self.times()));
        match self.size <= MAX_SIZE {
            true => Ok(()),
            false => Err("is too large for Envoy once its repetitions are written out".to_owned()),
        }
    }
}

impl Visitor for Walk {
    type Output = ();
    type Err = String;

    fn finish(self) -> Result<(), String> {
        Ok(())
    }

    fn visit_pre(&mut self, node: &Ast) -> Result<(), String> {
        match node {
            Ast::Repetition(repetition) => {
                if matches!(*repetition.ast, Ast::Repetition(_)) {
                    return Err("repeats a repetition, which RE2 does not; put parentheses around the inner one".into());
                }
                let times = match &repetition.op.kind {
                    RepetitionKind::ZeroOrOne => 1,
                    RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => 2,
                    RepetitionKind::Range(
                        RepetitionRange::Exactly(most)
                        | RepetitionRange::AtLeast(most)
                        | RepetitionRange::Bounded(_, most),
                    ) => u64::from(*most).max(1),
                };
                let times = match &repetition.op.kind {
                    RepetitionKind::Range(_) => times.saturating_mul(self.times()),
                    // These do not count towards RE2's limit of repetitions.
                    _ => self.times(),
                };
                if times > MAX_REPETITIONS {
                    return Err(format!("repeats more than {MAX_REPETITIONS} times, which RE2 does not"));
                }
                self.times.push(times);
                self.grow(2)
            }
            Ast::Flags(flags) => known_flags(&flags.flags),
            Ast::Group(group) => match &group.kind {
                GroupKind::NonCapturing(flags) => known_flags(flags),
                GroupKind::CaptureIndex(_) | GroupKind::CaptureName { .. } => self.grow(2),
            },
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText
                | AssertionKind::WordBoundary
                | AssertionKind::NotWordBoundary => self.grow(1),
                _ => Err("has a word boundary RE2 does not know; use \\b".to_owned()),
            },
            Ast::ClassUnicode(class) => {
                known_class(&class.kind)?;
                self.grow(UNICODE_CLASS)
            }
            Ast::Literal(_) => self.grow(4),
            Ast::Dot(_) | Ast::ClassPerl(_) => self.grow(12),
            Ast::ClassBracketed(_) | Ast::Empty(_) | Ast::Alternation(_) | Ast::Concat(_) => self.grow(1),
        }
    }

    fn visit_post(&mut self, node: &Ast) -> Result<(), String> {
        if let Ast::Repetition(_) = node {
            self.times.pop();
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), String> {
        match item {
            ClassSetItem::Bracketed(_) => Err("has a set within a set, which RE2 does not know".to_owned()),
            ClassSetItem::Unicode(class) => {
                known_class(&class.kind)?;
                self.grow(UNICODE_CLASS)
            }
            _ => self.grow(4),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ClassSetBinaryOp) -> Result<(), String> {
        Err("computes with sets (&&, --, ~~), which RE2 does not".to_owned())
    }
}

fn known_flags(flags: &ast::Flags) -> Result<(), String> {
    let known = |kind: &FlagsItemKind| match kind {
        FlagsItemKind::Negation => true,
        FlagsItemKind::Flag(flag) => matches!(
            flag,
            ast::Flag::CaseInsensitive | ast::Flag::MultiLine | ast::Flag::DotMatchesNewLine | ast::Flag::SwapGreed
        ),
    };
    match flags.items.iter().all(|item| known(&item.kind)) {
        true => Ok(()),
        false => Err("has a flag RE2 does not know; it knows i, m, s and U".to_owned()),
    }
}

/// General categories, by their one or two letters.
fn known_class(kind: &ClassUnicodeKind) -> Result<(), String> {
    let known = match kind {
        ClassUnicodeKind::OneLetter(letter) => "LMNPSZC".contains(*letter),
        ClassUnicodeKind::Named(name) => CATEGORIES.contains(&name.as_str()),
        ClassUnicodeKind::NamedValue { .. } => false,
    };
    match known {
        true => Ok(()),
        false => {
            Err("has a class of characters that is no general category; use for example \\pL or \\p{Lu}".to_owned())
        }
    }
}

/// As the Gateway API and Istio have it.
const MAX_LENGTH: usize = 1024;
/// As RE2 has it, nested repetitions multiplied.
const MAX_REPETITIONS: u64 = 1000;
/// Below what Istio tells its proxies to allow (32768).
const MAX_SIZE: u64 = 30_000;
/// About what the largest category takes in UTF-8.
const UNICODE_CLASS: u64 = 400;

const CATEGORIES: [&str; 36] = [
    "L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "Mn", "Mc", "Me", "N", "Nd", "Nl", "No", "P", "Pc", "Pd", "Ps", "Pe", "Pi",
    "Pf", "Po", "S", "Sm", "Sc", "Sk", "So", "Z", "Zs", "Zl", "Zp", "C", "Cc", "Cf", "Cs", "Co",
];

#[cfg(test)]
mod tests {
    use super::regex_fault;

    #[test]
    fn what_re2_compiles_passes() {
        for text in [
            "/v[0-9]+/.*",
            "(?i)abc",
            "a{0,1000}",
            "(?P<x>a|b)*?",
            r"\d+\.\w+",
            r"[^/]+",
            r"\bx\b",
            r"(a*)*",
            r"\pL{10}",
            "a++".split_at(2).0,
        ] {
            assert_eq!(regex_fault(text), None, "{text}");
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for text in [
            "",
            "(",
            "[",
            "a{2,1}",
            "(?=a)",
            "(?!a)",
            "(?<=a)",
            r"(a)\1",
            "a**",
            "a++",
            "a{3}{2}",
            "a{1001}",
            "(a{100}){11}",
            "[a&&b]",
            "[[a]b]",
            "(?x)a",
            r"\b{start}a",
            r"\p{Greek}",
            r"(\pL{300}){3}",
            "*a",
            r"(?R)a",
        ] {
            assert!(regex_fault(text).is_some(), "{text}");
        }
        assert!(regex_fault(&"a".repeat(1025)).is_some());
        assert!(regex_fault(&"(".repeat(1000)).is_some());
    }
}
