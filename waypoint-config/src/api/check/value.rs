// SPDX-License-Identifier: Apache-2.0
//! Checks of single values, and a way over plain values that knows where it is. Called by the other files of this folder.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::api::object::ObjectError;

/// Whether it can name a namespace or a service (RFC 1123 label).
pub fn is_dns_label(name: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|byte| inside(byte) || byte == b'-')
        && name.bytes().next().is_some_and(inside)
        && name.bytes().last().is_some_and(inside)
}

/// Whether it can name most other objects (RFC 1123 subdomain).
pub fn is_dns_subdomain(name: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|part| {
            !part.is_empty()
                && part.bytes().all(|byte| inside(byte) || byte == b'-')
                && part.bytes().next().is_some_and(inside)
                && part.bytes().last().is_some_and(inside)
        })
}

/// An address, or a range in CIDR notation; the host part is cleared.
pub fn parse_range(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => text.parse::<IpNet>().ok().map(|range| range.trunc()),
    }
}

pub(super) fn ranges(path: &str, values: &[String]) -> Result<(), ObjectError> {
    values.iter().enumerate().try_for_each(|(i, value)| match parse_range(value) {
        Some(_) => Ok(()),
        None => refuse(format!("{path}[{i}]"), format!("{value:?} is neither an address nor a range like 10.0.0.0/8")),
    })
}

pub(super) fn ports(path: &str, values: &[String]) -> Result<(), ObjectError> {
    values.iter().enumerate().try_for_each(|(i, value)| match value.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => refuse(format!("{path}[{i}]"), format!("{value:?} is not a port number from 1 to 65535")),
    })
}

pub(super) fn no_empty_value(path: &str, values: &[String]) -> Result<(), ObjectError> {
    values.iter().enumerate().try_for_each(|(i, value)| length(&format!("{path}[{i}]"), value, 1, MAX_VALUE))
}

pub(super) fn ip(path: &str, text: &str) -> Result<(), ObjectError> {
    match text.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => refuse(path, format!("{text:?} is not an IP address")),
    }
}

pub(super) fn number(path: &str, port: i32) -> Result<(), ObjectError> {
    match port {
        1..=65535 => Ok(()),
        _ => refuse(path, format!("{port} is not a port number from 1 to 65535")),
    }
}

pub(super) fn refuse(path: impl Into<String>, reason: impl Into<String>) -> Result<(), ObjectError> {
    Err(ObjectError::new(path, reason))
}

/// No more than a list may hold.
pub(super) fn at_most(path: &str, found: usize, most: usize) -> Result<(), ObjectError> {
    match found <= most {
        true => Ok(()),
        false => refuse(path, format!("has {found} entries; at most {most} are allowed")),
    }
}

/// Whether a header may have that name (RFC 9110 token).
pub fn is_header_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.len() <= 256 && name.bytes().all(fits)
}

pub(super) fn header_name(path: &str, name: &str) -> Result<(), ObjectError> {
    match is_header_name(name) {
        true => Ok(()),
        false => refuse(path, format!("{} is not the name of a header: letters, digits and `-`", shown(name))),
    }
}

/// A value a header may have: what the Gateway API allows, and no bytes that would end the header.
pub(super) fn header_value(path: &str, value: &str) -> Result<(), ObjectError> {
    length(path, value, 1, MAX_HEADER_VALUE)?;
    match value.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
        true => refuse(path, "has control characters"),
        false => Ok(()),
    }
}

pub(super) fn length(path: &str, text: &str, least: usize, most: usize) -> Result<(), ObjectError> {
    match text.len() {
        0 if least > 0 => refuse(path, "is empty"),
        found if (least..=most).contains(&found) => Ok(()),
        found => refuse(path, format!("is {found} bytes long; at most {most} are allowed")),
    }
}

/// A host name; with a wildcard as its whole first part where that is allowed.
pub(super) fn hostname(path: &str, host: &str, wildcard: bool) -> Result<(), ObjectError> {
    let plain = if wildcard { host.strip_prefix("*.").unwrap_or(host) } else { host };
    match is_dns_subdomain(plain) && host.parse::<IpAddr>().is_err() {
        true => Ok(()),
        false => refuse(path, format!("{} is not a host name: small letters, digits, `-` and `.`", shown(host))),
    }
}

/// A value as a message may hold it: the start of it.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(64) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}.. ({} bytes)", &text[..end], text.len()),
    }
}

/// A plain value, and where in the object it stands. What is absent or of another type is passed over: reading it into its type tells of that.
#[derive(Clone)]
pub(super) struct At<'a> {
    pub(super) path: String,
    pub(super) value: &'a Value,
}

impl<'a> At<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    pub(super) fn field(&self, name: &str) -> Option<Self> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        self.value.get(name).map(|value| Self { path, value })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.value.get(name).is_some()
    }

    /// The entries of a list.
    pub(super) fn list(&self, name: &str) -> impl Iterator<Item = Self> + use<'a> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        let entries = self.value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        entries.iter().enumerate().map(move |(i, value)| Self { path: format!("{path}[{i}]"), value })
    }

    /// How many entries a list has, unless they are too many.
    pub(super) fn count(&self, name: &str, most: usize) -> Result<usize, ObjectError> {
        let found = self.value.get(name).and_then(Value::as_array).map_or(0, Vec::len);
        at_most(&self.path_of(name), found, most).map(|()| found)
    }

    pub(super) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.value.get(name).and_then(Value::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.value.get(name).and_then(Value::as_i64)
    }

    /// A number within bounds, if it is there.
    pub(super) fn within(&self, name: &str, least: i64, most: i64) -> Result<(), ObjectError> {
        match self.number(name) {
            Some(number) if !(least..=most).contains(&number) => {
                refuse(self.path_of(name), format!("{number} is not between {least} and {most}"))
            }
            _ => Ok(()),
        }
    }

    /// A checked text, if it is there.
    pub(super) fn checked(
        &self,
        name: &str,
        check: impl FnOnce(&str, &str) -> Result<(), ObjectError>,
    ) -> Result<(), ObjectError> {
        match self.text(name) {
            Some(text) => check(&self.path_of(name), text),
            None => Ok(()),
        }
    }
}

/// Of one value of a policy; no header, path or name worth comparing is longer.
const MAX_VALUE: usize = 8192;

/// As the Gateway API has it.
const MAX_HEADER_VALUE: usize = 4096;
