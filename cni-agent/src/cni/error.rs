// SPDX-License-Identifier: Apache-2.0
//! How the plugin says that something failed: a JSON object on standard output and exit status 1.

use serde_json::json;

/// What went wrong, for programs. Below 100: the specification's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// The configuration is of a version that is not known, or too old for the command.
    IncompatibleVersion = 1,
    /// A variable of the environment is missing or wrong.
    InvalidEnvironment = 4,
    /// Something could not be read or written.
    Io = 5,
    /// The configuration is not JSON.
    Decoding = 6,
    /// The configuration is JSON but wrong.
    InvalidConfig = 7,
    /// The network namespace is not that of a container (the specification's library uses this number).
    InvalidNetns = 8,
    /// It may go better a little later.
    TryAgainLater = 11,
    /// No `ADD` can succeed now.
    NotAvailable = 50,
    /// The agent was reached and said no.
    Refused = 100,
    /// The sandbox is not as `ADD` left it.
    Changed = 101,
    /// A bug in the plugin.
    Bug = 199,
}

/// An error as the runtime gets it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CniError {
    /// What went wrong, for programs.
    pub code: Code,
    /// The same for people, with what to look at next.
    pub message: String,
    /// The cause, if that is something else.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, cause: impl ToString) -> Self {
        self.details = cause.to_string();
        self
    }

    /// The JSON of it. `version` is that of the configuration, as it came, or empty if it was never learnt.
    pub fn to_json(&self, version: &str) -> String {
        let version = if version.is_empty() { super::Version::NEWEST.as_str() } else { version };
        let mut object = json!({ "cniVersion": version, "code": self.code as u32, "msg": self.message });
        if !self.details.is_empty() {
            object["details"] = json!(self.details);
        }
        object.to_string()
    }
}
