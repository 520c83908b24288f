// SPDX-License-Identifier: Apache-2.0
//! Reads what h2spec writes about its cases (`--junit-report`). Its XML has one element per line and no surprises, so no XML reader is needed.

/// One case and what became of it.
#[derive(Debug)]
pub(crate) struct Case {
    /// `http2/6.9.1` and the like.
    pub(crate) section: String,
    /// What h2spec does in it.
    pub(crate) title: String,
    /// What became of it.
    pub(crate) outcome: Outcome,
}

/// What became of a case.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server did what the case wants.
    Passed,
    /// h2spec did not run it, because the server does not do what it needs.
    Skipped,
    /// What was expected, one line each, and last what came.
    Failed(String),
}

/// The cases of a report.
pub(crate) fn read(xml: &str) -> Vec<Case> {
    xml.split("<testcase ").skip(1).filter_map(case).collect()
}

fn case(text: &str) -> Option<Case> {
    let attribute = |name: &str| {
        let (_, after) = text.split_once(&format!("{name}=\""))?;
        Some(plain(after.split_once('"')?.0))
    };
    let body = text.split_once("</testcase>")?.0;
    let outcome = if let Some((_, after)) = body.split_once("<error>") {
        Outcome::Failed(plain(after.split_once("</error>")?.0))
    } else if body.contains("<error") || body.contains("<failure") {
        Outcome::Failed("h2spec does not say how".to_owned())
    } else if body.contains("<skipped") {
        Outcome::Skipped
    } else {
        Outcome::Passed
    };
    Some(Case { section: attribute("package")?, title: attribute("classname")?, outcome })
}

fn plain(text: &str) -> String {
    [("&#34;", "\""), ("&quot;", "\""), ("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (coded, plain)| text.replace(coded, plain))
}
