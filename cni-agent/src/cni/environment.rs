// SPDX-License-Identifier: Apache-2.0
//! The parameters of a call, which come as environment variables (cni-agent.md P-02).

use std::ffi::OsString;
use std::path::PathBuf;

use super::{CniError, Code};

/// What the runtime wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// A sandbox was made.
    Add,
    /// A sandbox goes away.
    Del,
    /// Is the sandbox as it was left?
    Check,
    /// Which versions are spoken?
    Version,
    /// Can sandboxes be added at all?
    Status,
    /// Which sandboxes exist; all others may be forgotten.
    Gc,
}

impl Command {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "VERSION" => Self::Version,
            "STATUS" => Self::Status,
            "GC" => Self::Gc,
            _ => return None,
        })
    }

    /// As the specification writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Version => "VERSION",
            Self::Status => "STATUS",
            Self::Gc => "GC",
        }
    }
}

/// The variables, unchecked but for their being text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    command: String,
    container_id: String,
    netns: PathBuf,
    interface: String,
    /// `CNI_ARGS`, empty if not set.
    pub arguments: String,
}

/// Which sandbox a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id for it.
    pub container_id: String,
    /// The interface inside.
    pub interface: String,
    /// The file of the network namespace. Only in a `DEL` it may be empty.
    pub netns: PathBuf,
}

impl Environment {
    /// Reads the variables that matter.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, CniError> {
        let text = |name: &str| {
            variable(name).unwrap_or_default().into_string().map_err(|_| invalid(format!("{name} is not valid UTF-8")))
        };
        Ok(Self {
            command: text("CNI_COMMAND")?,
            container_id: text("CNI_CONTAINERID")?,
            netns: variable("CNI_NETNS").unwrap_or_default().into(),
            interface: text("CNI_IFNAME")?,
            arguments: text("CNI_ARGS")?,
        })
    }

    /// What the runtime wants.
    pub fn command(&self) -> Result<Command, CniError> {
        match self.command.as_str() {
            "" => Err(invalid(
                "CNI_COMMAND is not set: this program is a CNI plugin and meant to be called by a container runtime",
            )),
            command => Command::parse(command)
                .ok_or_else(|| invalid(format!("CNI_COMMAND is {command:?}, which is not known"))),
        }
    }

    /// The sandbox of an `ADD`, `CHECK` or `DEL`.
    pub fn sandbox(&self, command: Command) -> Result<Sandbox, CniError> {
        if !is_name(&self.container_id) {
            return Err(invalid(format!(
                "CNI_CONTAINERID is {:?}, which is not the id of a container",
                self.container_id
            )));
        }
        if !is_interface(&self.interface) {
            return Err(invalid(format!("CNI_IFNAME is {:?}, which is not the name of an interface", self.interface)));
        }
        if self.netns.as_os_str().is_empty() && command != Command::Del {
            return Err(invalid("CNI_NETNS is not set"));
        }
        Ok(Sandbox {
            container_id: self.container_id.clone(),
            interface: self.interface.clone(),
            netns: self.netns.clone(),
        })
    }
}

/// What the specification allows as the id of a container and the name of a network.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// What the kernel and the specification allow as the name of an interface.
fn is_interface(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 15
        && text != "."
        && text != ".."
        && !text.contains(|character: char| matches!(character, '/' | ':' | '\0') || character.is_whitespace())
}

fn invalid(message: impl Into<String>) -> CniError {
    CniError::new(Code::InvalidEnvironment, message)
}
