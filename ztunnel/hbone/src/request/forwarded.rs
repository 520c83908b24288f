// SPDX-License-Identifier: Apache-2.0
//! The `forwarded` header: the application's own address and the service it asked for.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// `for="ip:port"`, and `;host=name` if the target is a known service. Telemetry only: nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Forwarded {
    /// The application's end of the connection.
    pub client: Option<SocketAddr>,
    /// The host name of the service the application addressed.
    pub host: Option<Arc<str>>,
}

impl Forwarded {
    /// Reads a header value: ASCII only, the first `for` and `host` with a value, quotes optional. Never fails: what is not
    /// understood is absent.
    pub fn parse(value: &[u8]) -> Self {
        let mut forwarded = Self::default();
        let Some(text) = std::str::from_utf8(value).ok().filter(|text| text.is_ascii()) else {
            return forwarded;
        };
        for (key, value) in text.split(';').filter_map(|part| part.split_once('=')) {
            let (key, value) = (key.trim(), unquote(value.trim()));
            if key.eq_ignore_ascii_case("for") && forwarded.client.is_none() {
                forwarded.client = value.parse().ok();
            } else if key.eq_ignore_ascii_case("host") && forwarded.host.is_none() && is_host(value) {
                forwarded.host = Some(value.into());
            }
        }
        forwarded
    }

    /// Whether there is anything to send.
    pub fn is_empty(&self) -> bool {
        self.client.is_none() && self.host.is_none()
    }
}

fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// No host name has spaces or quotes in it, and one that had would be read as another when it is written without quotes.
fn is_host(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')
}

impl fmt::Display for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        if let Some(client) = self.client {
            write!(f, "for=\"{client}\"")?;
            between = ";";
        }
        match &self.host {
            Some(host) => write!(f, "{between}host={host}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_ztunnel_are_written() {
        let client = Some("10.77.1.2:50694".parse().unwrap());
        assert_eq!(Forwarded { client, host: None }.to_string(), "for=\"10.77.1.2:50694\"");
        let client = Some("[2001:db8::1]:1".parse().unwrap());
        let host = Some("web.default.svc.cluster.local".into());
        assert_eq!(
            Forwarded { client, host }.to_string(),
            "for=\"[2001:db8::1]:1\";host=web.default.svc.cluster.local"
        );
    }

    #[test]
    fn what_is_written_is_read() {
        let value = Forwarded { client: Some("[::1]:1".parse().unwrap()), host: Some("a.b".into()) };
        assert_eq!(Forwarded::parse(value.to_string().as_bytes()), value);
    }

    #[test]
    fn the_first_host_with_a_value_counts_and_quotes_are_optional() {
        assert_eq!(Forwarded::parse(b"host=;Host=\"a\";host=b").host.as_deref(), Some("a"));
        assert_eq!(Forwarded::parse(b"for=unknown ; host=a").host.as_deref(), Some("a"));
    }

    #[test]
    fn a_host_that_could_not_be_written_as_it_is_is_absent() {
        for value in [&b"host=\"\n\""[..], b"host=\" a\"", b"host=a b", b"host=\"\"a\"\"", b"host=\"a"] {
            assert!(Forwarded::parse(value).is_empty(), "{value:?}");
        }
        assert_eq!(Forwarded::parse(b"host=a b;host=\"c\"").host.as_deref(), Some("c"));
    }

    #[test]
    fn nonsense_is_absent() {
        for value in [&b""[..], b"host", b"host=\"\"", b"host=\xc3\xa9", b"\xff", b"=;=;;", b"hostx=1"] {
            assert!(Forwarded::parse(value).is_empty(), "{value:?}");
        }
    }
}
