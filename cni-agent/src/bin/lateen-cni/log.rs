// SPDX-License-Identifier: Apache-2.0
//! Log lines on standard error, as JSON. They must never hinder a call: what cannot be written is lost.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::SystemTime;

use cni_agent::cni::{CniError, Command, Pod, Sandbox};
use mesh_common::telemetry::{Format, Head, Line};
use tracing::Level;

/// Writes lines about one call.
pub(crate) struct Log {
    /// Lines less grave than this are not written.
    pub(crate) level: Level,
    command: &'static str,
    pod: Option<(String, String)>,
    container_id: String,
}

impl Log {
    /// About a call with this command.
    pub(crate) fn new(command: Option<Command>) -> Self {
        let command = command.map_or("", Command::as_str);
        Self { level: Level::INFO, command, pod: None, container_id: String::new() }
    }

    /// From here on lines name the pod and the sandbox.
    pub(crate) fn about(&mut self, pod: Option<&Pod>, sandbox: &Sandbox) {
        self.pod = pod.map(|pod| (pod.namespace.clone(), pod.name.clone()));
        self.container_id.clone_from(&sandbox.container_id);
    }

    pub(crate) fn info(&self, message: &str, reason: &str) {
        self.write(Level::INFO, message, &[("reason", reason)]);
    }

    pub(crate) fn warn(&self, message: &str, reason: &impl Display) {
        self.write(Level::WARN, message, &[("reason", &reason.to_string())]);
    }

    pub(crate) fn error(&self, message: &str, error: &CniError) {
        let code = (error.code as u32).to_string();
        self.write(Level::ERROR, message, &[("code", &code), ("error", &error.message), ("details", &error.details)]);
    }

    fn write(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        if level > self.level {
            return;
        }
        let mut out = Vec::new();
        let head = Head { format: Format::Json, time: SystemTime::now(), level, scope: "cni-plugin" };
        let mut line = Line::begin(&mut out, head, message);
        let (namespace, name) = self.pod.as_ref().map_or(("", ""), |(namespace, name)| (namespace, name));
        let about =
            [("command", self.command), ("namespace", namespace), ("pod", name), ("container", &self.container_id)];
        for (key, value) in about.iter().chain(fields).filter(|(_, value)| !value.is_empty()) {
            line.text(key, value);
        }
        line.end();
        let _ = io::stderr().write_all(&out);
    }
}
