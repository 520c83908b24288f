// SPDX-License-Identifier: Apache-2.0
//! Which regular expressions the proxy takes. It compiles them with RE2 and refuses everything that stands beside one that does not compile, so whatever is
//! not surely an RE2 expression is refused here, with a text for its author. Not an engine: nothing is matched.
//!
//! The grammar accepted is what RE2 and the `regex-syntax` crate read alike. RE2's `\Q..\E`, `\C`, octal escapes, names of scripts and an unescaped `{` are
//! left out; write them another way.

use regex_syntax::ast::{
    AssertionKind, Ast, ClassSet, ClassSetItem, ClassUnicode, ClassUnicodeKind, Flag, Flags, FlagsItemKind, Group,
    GroupKind, HexLiteralKind, Literal, LiteralKind, Repetition, RepetitionKind, RepetitionRange, SpecialLiteralKind,
    parse::ParserBuilder,
};

use super::syntax::{MAX_VALUE, quoted};

/// The largest RE2 program an expression accepted here becomes. The proxy's own limit (`re2.max_program_size.error_level` in its layered runtime) is 100
/// unless it is told otherwise, so its bootstrap must name this number.
pub const MAX_PROGRAM_SIZE: u32 = 65_536;

/// Estimates are rough; this is what keeps them below [`MAX_PROGRAM_SIZE`].
const MAX_ESTIMATE: u64 = 16_384;
/// RE2's own bound on counted repetitions, those inside one another multiplied.
const MAX_REPEATS: u32 = 1000;
/// Groups inside one another.
const MAX_DEPTH: u32 = 100;

/// Whether RE2 compiles it.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    let refuse = |why: &str| format!("the regular expression {} cannot be used: {why}", quoted(pattern));
    if pattern.len() > MAX_VALUE {
        return Err(refuse("it is longer than 4096 bytes"));
    }
    let parsed = ParserBuilder::new().nest_limit(MAX_DEPTH).build().parse(pattern);
    let ast = parsed.map_err(|error| refuse(&error.kind().to_string()))?;
    let mut reading = Reading { pattern, ignores_case: false };
    let size = reading.size(&ast, 1).map_err(|why| refuse(&why))?;
    if size.saturating_mul(if reading.ignores_case { 2 } else { 1 }) > MAX_ESTIMATE {
        return Err(refuse("it is too large when its repetitions are written out"));
    }
    Ok(())
}

struct Reading<'a> {
    pattern: &'a str,
    ignores_case: bool,
}

impl Reading<'_> {
    /// About how many instructions; depth is bounded by the parser.
    fn size(&mut self, ast: &Ast, repeats: u32) -> Result<u64, String> {
        match ast {
            Ast::Empty(_) => Ok(1),
            Ast::Flags(set) => self.flags(&set.flags).map(|()| 0),
            Ast::Literal(literal) => self.literal(literal),
            Ast::Dot(_) => Ok(12),
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText
                | AssertionKind::WordBoundary
                | AssertionKind::NotWordBoundary => Ok(1),
                _ => Err("of the word boundaries only \\b and \\B are known".to_owned()),
            },
            Ast::ClassUnicode(class) => property(class),
            Ast::ClassPerl(class) => Ok(if class.negated { 16 } else { 4 }),
            Ast::ClassBracketed(class) => {
                let inside = self.class(&class.kind)?;
                Ok(if class.negated { inside + 16 } else { inside })
            }
            Ast::Repetition(repetition) => self.repetition(repetition, repeats),
            Ast::Group(group) => self.group(group, repeats),
            Ast::Alternation(list) => self.sum(&list.asts, repeats),
            Ast::Concat(list) => self.sum(&list.asts, repeats),
        }
    }

    fn sum(&mut self, list: &[Ast], repeats: u32) -> Result<u64, String> {
        list.iter().try_fold(1_u64, |sum, ast| Ok(sum.saturating_add(self.size(ast, repeats)?).saturating_add(1)))
    }

    fn repetition(&mut self, repetition: &Repetition, repeats: u32) -> Result<u64, String> {
        if matches!(*repetition.ast, Ast::Repetition(_)) {
            return Err("two repetitions stand beside each other; put the first in (?:...)".to_owned());
        }
        let (least, times) = match repetition.op.kind {
            RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => (0, 1),
            RepetitionKind::Range(RepetitionRange::Exactly(times)) => (times, times),
            RepetitionKind::Range(RepetitionRange::AtLeast(times)) => (times, times.saturating_add(1)),
            RepetitionKind::Range(RepetitionRange::Bounded(least, most)) => (least, most),
        };
        if matches!(repetition.op.kind, RepetitionKind::Range(_)) && !self.is_plain_count(repetition) {
            return Err("a count is written {2}, {2,} or {2,5}".to_owned());
        }
        let repeats = repeats.saturating_mul(times.max(least).max(1));
        if repeats > MAX_REPEATS {
            return Err("it repeats something more than 1000 times".to_owned());
        }
        let once = self.size(&repetition.ast, repeats)?;
        Ok(once.saturating_add(1).saturating_mul(u64::from(times.max(1))).saturating_add(1))
    }

    /// The other parser allows spaces, and a missing lower bound; RE2 takes such braces literally.
    fn is_plain_count(&self, repetition: &Repetition) -> bool {
        let span = repetition.op.span;
        let text = self.pattern.get(span.start.offset..span.end.offset).unwrap_or_default();
        let text = text.strip_suffix('?').unwrap_or(text);
        let inside = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or_default();
        inside.starts_with(|letter: char| letter.is_ascii_digit())
            && inside.bytes().all(|byte| byte.is_ascii_digit() || byte == b',')
    }

    fn group(&mut self, group: &Group, repeats: u32) -> Result<u64, String> {
        match &group.kind {
            GroupKind::CaptureIndex(_) => {}
            GroupKind::CaptureName { name, starts_with_p } => {
                let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                if !starts_with_p || !name.name.bytes().all(is_word) {
                    return Err("a group is named (?P<name>...) with letters, digits and _".to_owned());
                }
            }
            GroupKind::NonCapturing(flags) => self.flags(flags)?,
        }
        Ok(self.size(&group.ast, repeats)?.saturating_add(2))
    }

    fn flags(&mut self, flags: &Flags) -> Result<(), String> {
        for item in &flags.items {
            match item.kind {
                FlagsItemKind::Flag(Flag::CaseInsensitive) => self.ignores_case = true,
                FlagsItemKind::Negation
                | FlagsItemKind::Flag(Flag::MultiLine | Flag::DotMatchesNewLine | Flag::SwapGreed) => {}
                FlagsItemKind::Flag(_) => return Err("of the flags only i, m, s and U are known".to_owned()),
            }
        }
        Ok(())
    }

    fn literal(&self, literal: &Literal) -> Result<u64, String> {
        let known = match &literal.kind {
            LiteralKind::Verbatim | LiteralKind::Meta => true,
            LiteralKind::Superfluous => literal.c.is_ascii_punctuation(),
            LiteralKind::Octal => false,
            LiteralKind::HexFixed(kind) | LiteralKind::HexBrace(kind) => *kind == HexLiteralKind::X,
            LiteralKind::Special(kind) => *kind != SpecialLiteralKind::Space,
        };
        if !known {
            return Err(format!("it has the escape {:?}; write \\x{{...}}", literal.c));
        }
        Ok(literal.c.len_utf8() as u64)
    }

    fn class(&self, class: &ClassSet) -> Result<u64, String> {
        match class {
            ClassSet::Item(item) => self.item(item),
            ClassSet::BinaryOp(_) => {
                Err("within [...] the characters && -- ~~ are written \\&\\& \\-\\- \\~\\~".to_owned())
            }
        }
    }

    fn item(&self, item: &ClassSetItem) -> Result<u64, String> {
        match item {
            ClassSetItem::Empty(_) => Ok(0),
            ClassSetItem::Literal(literal) => self.literal(literal),
            ClassSetItem::Range(range) => {
                self.literal(&range.start)?;
                self.literal(&range.end)?;
                Ok(if range.end.c.is_ascii() { 1 } else { 16 })
            }
            ClassSetItem::Ascii(class) => Ok(if class.negated { 20 } else { 8 }),
            ClassSetItem::Unicode(class) => property(class),
            ClassSetItem::Perl(class) => Ok(if class.negated { 16 } else { 4 }),
            ClassSetItem::Bracketed(_) => Err("within [...] the character [ is written \\[".to_owned()),
            ClassSetItem::Union(union) => {
                union.items.iter().try_fold(0_u64, |sum, item| Ok(sum.saturating_add(self.item(item)?)))
            }
        }
    }
}

/// General categories only: the names of scripts are spelt differently.
fn property(class: &ClassUnicode) -> Result<u64, String> {
    const CATEGORIES: &[&str] = &[
        "C", "Cc", "Cf", "Co", "Cs", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl", "No",
        "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp", "Zs",
    ];
    let known = match &class.kind {
        ClassUnicodeKind::OneLetter(letter) => CATEGORIES.contains(&letter.to_string().as_str()),
        ClassUnicodeKind::Named(name) => !name.starts_with('^') && CATEGORIES.contains(&name.as_str()),
        ClassUnicodeKind::NamedValue { .. } => false,
    };
    if known {
        Ok(1500)
    } else {
        Err("of the classes \\p{...} only general categories like \\p{Lu} are known".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both lists were compared with RE2 in the proxy itself (tests/regexes.txt).
    #[test]
    fn what_re2_compiles_is_accepted() {
        for good in [
            "",
            "/a/b",
            "/users/[0-9]+",
            "/v[12]/.*",
            "(?i)/abc",
            "^/a$",
            "a{2,5}?",
            "(a|b)*",
            "(?P<id>\\d+)",
            "\\x41",
            "\\x{e4}",
            "[^/]+",
            "[[:alpha:]]",
            "[^[:^digit:]]",
            "\\pL",
            "\\p{Lu}+",
            "\\.\\-\\/",
            "a\\b",
            "(?:a)",
            "ä+",
            "[a-zä-ü]",
            "()",
            "a|",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_re2_does_not_compile_or_reads_otherwise_is_refused() {
        for bad in [
            "(",
            ")",
            "[",
            "*",
            "a**",
            "a*+",
            "(?=a)",
            "(?!a)",
            "(?<=a)",
            "\\1",
            "a{1001}",
            "(a{100}){100}",
            "(?x)a",
            "(?u)a",
            "[a&&b]",
            "[a--b]",
            "[a[b]]",
            "\\p{Greek}",
            "\\p{gc=Lu}",
            "\\u0041",
            "a{ 2 }",
            "(?P<a>x)(?P<a>y)",
            "(?P<a.b>x)",
            "\\<a",
            "\\b{start}",
            "\\Qa\\E",
            "\\Z",
            "{",
            "a{,3}",
            "[b-a]",
            "(?R)a",
            "\\pX",
            "a{5,2}",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_expression_that_becomes_huge_is_refused() {
        assert!(check(&"\\pL".repeat(100)).is_err());
        assert!(check(".{1000}.{1000}").is_err());
        assert!(check(&"(".repeat(2000)).is_err());
        assert!(check(&"a".repeat(5_000_000)).unwrap_err().len() < 300);
        assert_eq!(check(&"a".repeat(4000)), Ok(()));
    }
}
