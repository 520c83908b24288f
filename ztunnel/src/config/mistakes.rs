// SPDX-License-Identifier: Apache-2.0
//! Collects what is wrong, so that it is reported together.

use std::fmt;

/// All that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub(super) mistakes: Vec<(&'static str, String)>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is not usable:")?;
        self.mistakes.iter().try_for_each(|(name, reason)| write!(f, "\n  {name}: {reason}"))
    }
}

impl std::error::Error for ConfigError {}

/// What is wrong so far.
#[derive(Default)]
pub(super) struct Mistakes(Vec<(&'static str, String)>);

impl Mistakes {
    /// A value, or any one and a mistake more: with a mistake the whole is never used.
    pub(super) fn read<T: Default>(
        &mut self,
        name: &'static str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        parse(text).unwrap_or_else(|reason| {
            self.add(name, reason);
            T::default()
        })
    }

    /// The same for what may be left out. Empty is left out.
    pub(super) fn read_some<T>(
        &mut self,
        name: &'static str,
        text: &Option<String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let parsed = parse(text.as_deref().filter(|text| !text.is_empty())?);
        parsed.map_err(|reason| self.add(name, reason)).ok()
    }

    pub(super) fn add(&mut self, name: &'static str, reason: impl Into<String>) {
        self.0.push((name, reason.into()));
    }

    pub(super) fn none(self) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigError { mistakes: self.0 }) }
    }
}
