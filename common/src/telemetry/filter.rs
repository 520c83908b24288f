// SPDX-License-Identifier: Apache-2.0
//! Which lines are written: directives such as `info,ztunnel::xds=debug` (ztunnel.md M-04, T-13). Pure.
//!
//! Stricter than most programs: a clause that is neither a level nor `target=level` is an error, so that a misspelt level does not silence everything.

use std::fmt;
use std::str::FromStr;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// Directives. A later clause for the same target replaces an earlier one; the longest matching target decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Filter {
    clauses: Vec<(Option<String>, LevelFilter)>,
}

impl Filter {
    /// Adds the clauses of `other` behind these.
    pub(super) fn append(&mut self, other: Self) {
        for (target, level) in other.clauses {
            self.clauses.retain(|(present, _)| *present != target);
            self.clauses.push((target, level));
        }
    }

    /// The same as `tracing` understands it.
    pub(super) fn targets(&self) -> Targets {
        self.clauses.iter().fold(Targets::new(), |targets, (target, level)| match target {
            Some(target) => targets.with_target(target.clone(), *level),
            None => targets.with_default(*level),
        })
    }

    /// The most detailed level at which `target` is written.
    pub(super) fn level_of(&self, target: &str) -> LevelFilter {
        let targets = self.targets();
        [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR]
            .into_iter()
            .find(|level| targets.would_enable(target, level))
            .map_or(LevelFilter::OFF, LevelFilter::from_level)
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for clause in text.split(',').map(str::trim).filter(|clause| !clause.is_empty()) {
            let (target, level) = match clause.split_once('=') {
                Some((target, level)) => (Some(target.trim()), level.trim()),
                None => (None, clause),
            };
            let well_formed = target.is_none_or(|target| {
                !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"[]{}".contains(&byte))
            });
            match parse_level(level) {
                Some(level) if well_formed => {
                    filter.append(Self { clauses: vec![(target.map(str::to_owned), level)] });
                }
                _ => return Err(FilterError { clause: clause.to_owned() }),
            }
        }
        Ok(filter)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (target, level)) in self.clauses.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match target {
                Some(target) => write!(f, "{comma}{target}={level}")?,
                None => write!(f, "{comma}{level}")?,
            }
        }
        Ok(())
    }
}

/// A clause of a filter that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("log filter clause {clause:?} is neither a level (off, error, warn, info, debug, trace) nor target=level")]
pub struct FilterError {
    /// The clause.
    pub clause: String,
}

fn parse_level(text: &str) -> Option<LevelFilter> {
    [
        ("off", LevelFilter::OFF),
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ]
    .into_iter()
    .find_map(|(name, level)| name.eq_ignore_ascii_case(text).then_some(level))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(text: &str) -> Filter {
        text.parse().unwrap()
    }

    #[test]
    fn a_filter_prints_its_clauses_in_order() {
        assert_eq!(
            filter("hickory_server::server=off, INFO,,access=debug").to_string(),
            "hickory_server::server=off,info,access=debug"
        );
        assert_eq!(filter("").to_string(), "");
    }

    #[test]
    fn the_last_clause_for_a_target_stands() {
        let mut current = filter("info,access=off");
        current.append(filter("access=debug,warn"));
        assert_eq!(current.to_string(), "access=debug,warn");
    }

    #[test]
    fn the_longest_target_decides() {
        let current = filter("warn,ztunnel=info,ztunnel::xds=trace");
        assert_eq!(current.level_of("ztunnel::xds::client"), LevelFilter::TRACE);
        assert_eq!(current.level_of("ztunnel::engine"), LevelFilter::INFO);
        assert_eq!(current.level_of("access"), LevelFilter::WARN);
        assert_eq!(filter("access=off,info").level_of("access"), LevelFilter::OFF);
        assert_eq!(filter("").level_of("access"), LevelFilter::OFF);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in
            ["inof", "access", "access=", "=info", "access:debug", "a=b=info", "access=info,verbose", "[span]=info"]
        {
            assert!(text.parse::<Filter>().is_err(), "{text:?} was accepted");
        }
        assert_eq!(
            "access:debug".parse::<Filter>().unwrap_err().to_string(),
            "log filter clause \"access:debug\" is neither a level (off, error, warn, info, debug, trace) nor target=level"
        );
    }

    proptest! {
        #[test]
        fn what_is_accepted_prints_as_something_that_means_the_same(text in "([a-z:_]{0,6}=?(info|debug|off|x),?){0,4}") {
            if let Ok(accepted) = text.parse::<Filter>() {
                prop_assert_eq!(filter(&accepted.to_string()), accepted);
            }
        }

        #[test]
        fn any_text_is_accepted_or_refused(text in any::<String>()) {
            let _ = text.parse::<Filter>();
        }
    }
}
