// SPDX-License-Identifier: Apache-2.0
//! The `:authority` of a CONNECT: where the tunnelled connection is to go.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

/// `ip:port`, `[v6]:port` or `name:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Authority {
    /// An address, the usual case between node proxies.
    Ip(SocketAddr),
    /// A host name, sent to gateways and waypoints. In lower case, without the dot at the end.
    Name {
        /// The name.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
}

/// Why a text is no authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// No port, or not one from 1 to 65535.
    #[error("the authority has no port from 1 to 65535")]
    Port,
    /// Neither an address nor a host name.
    #[error("the authority is neither an address nor a host name")]
    Host,
}

impl Authority {
    /// The port asked for.
    pub fn port(&self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Name { port, .. } => *port,
        }
    }

    /// The address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Name { .. } => None,
        }
    }
}

impl From<SocketAddr> for Authority {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Through SocketAddr a scope id would be shown, which an authority has no form for.
            Self::Ip(SocketAddr::V6(address)) => write!(f, "[{}]:{}", address.ip(), address.port()),
            Self::Ip(address) => write!(f, "{address}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for Authority {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        let (host, port) = text.rsplit_once(':').ok_or(AuthorityError::Port)?;
        let port = parse_port(port)?;
        if let Some(inside) = host.strip_prefix('[') {
            let address: Ipv6Addr =
                inside.strip_suffix(']').and_then(|host| host.parse().ok()).ok_or(AuthorityError::Host)?;
            return Ok(Self::Ip(SocketAddr::new(address.into(), port)));
        }
        if let Ok(address) = host.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(SocketAddr::new(address.into(), port)));
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        if !is_host_name(host) {
            return Err(AuthorityError::Host);
        }
        Ok(Self::Name { host: host.to_ascii_lowercase().into(), port })
    }
}

/// Digits only: `u16::from_str` would take a sign too.
fn parse_port(text: &str) -> Result<u16, AuthorityError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AuthorityError::Port);
    }
    text.parse().ok().filter(|&port| port != 0).ok_or(AuthorityError::Port)
}

/// A DNS name as services have them. What only looks like an IPv4 address (all labels numeric) is refused, lest two
/// readers of the same request take it for different things.
fn is_host_name(host: &str) -> bool {
    const MAX_NAME: usize = 253;
    const MAX_LABEL: usize = 63;
    let label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let numeric = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    host.len() <= MAX_NAME && host.split('.').all(label) && !host.split('.').all(numeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Authority, AuthorityError> {
        text.parse()
    }

    #[test]
    fn every_form_survives_the_way_there_and_back() {
        for text in ["10.0.0.1:80", "[2001:db8::1]:15008", "web.default.svc.cluster.local:8080", "[::ffff:10.0.0.1]:1"]
        {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn port_and_address_are_those_written() {
        let (ip, name) = (parse("10.0.0.1:80").unwrap(), parse("web:81").unwrap());
        assert_eq!((ip.port(), ip.ip()), (80, Some([10, 0, 0, 1].into())));
        assert_eq!((name.port(), name.ip()), (81, None));
    }

    #[test]
    fn names_are_brought_into_one_form() {
        assert_eq!(parse("Web.Default.:80").unwrap(), Authority::Name { host: "web.default".into(), port: 80 });
    }

    #[test]
    fn a_port_is_required() {
        for text in ["", "10.0.0.1", "web", "web:", "web:0", "web:65536", "web:+80", "[::1]", "10.0.0.1:8o"] {
            assert_eq!(parse(text), Err(AuthorityError::Port), "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = format!("{}:80", "a.".repeat(127) + "a");
        let label = format!("{}:80", "a".repeat(64));
        for text in [
            ":80",
            "2001:db8::1:80",
            "[10.0.0.1]:80",
            "[::1:80",
            "::1]:80",
            "user@web:80",
            "a b:80",
            "a..b:80",
            ".:80",
            "1.2.3:80",
            "010.0.0.256:80",
            "[fe80::1%eth0]:80",
            "wéb:80",
            "a/b:80",
            &long,
            &label,
        ] {
            assert_eq!(parse(text), Err(AuthorityError::Host), "{text}");
        }
    }
}
