// SPDX-License-Identifier: Apache-2.0
//! Which addresses keys may be fetched from. Pure. Called by `fetch` with the address that is about to be connected to: a name is nothing to go by, for
//! its owner can let it mean another address at every look.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;
use thiserror::Error;

use crate::api::{is_dns_subdomain, parse_range};

/// What an operator allows beside what is allowed to all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    hosts: BTreeSet<String>,
    ranges: Vec<IpNet>,
}

/// A value that allows nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} is neither a host name nor an address nor a range; write for example idp.local,127.0.0.1,169.254.20.0/24"
)]
pub struct AllowedError(String);

impl FromStr for Allowed {
    type Err = AllowedError;

    /// Separated by commas.
    fn from_str(text: &str) -> Result<Self, AllowedError> {
        let mut allowed = Self::default();
        for value in text.split(',').map(str::trim).filter(|value| !value.is_empty()) {
            match parse_range(value) {
                Some(range) => allowed.ranges.push(range),
                None if is_dns_subdomain(value) => _ = allowed.hosts.insert(value.to_owned()),
                None => return Err(AllowedError(value.to_owned())),
            }
        }
        Ok(allowed)
    }
}

impl Allowed {
    /// Whether `address` may be connected to for `host`; else what it is.
    ///
    /// # Errors
    /// In words that follow "is".
    pub fn permits(&self, host: &str, address: IpAddr) -> Result<(), &'static str> {
        let named = self.hosts.contains(&host.trim_end_matches('.').to_ascii_lowercase());
        let canonical = address.to_canonical();
        if named || self.ranges.iter().any(|range| range.contains(&canonical)) {
            return Ok(());
        }
        match canonical {
            IpAddr::V4(address) => v4(address),
            IpAddr::V6(address) => v6(address),
        }
    }
}

fn v4(address: Ipv4Addr) -> Result<(), &'static str> {
    let first = address.octets()[0];
    match address {
        _ if address.is_loopback() => Err("a loopback address"),
        // All of 0.0.0.0/8 means this host.
        _ if first == 0 => Err("no address of a host"),
        _ if address.is_link_local() => Err("a link-local address"),
        _ if address.is_multicast() => Err("a multicast address"),
        // With the broadcast address.
        _ if first >= 240 => Err("a reserved address"),
        _ if METADATA_V4.contains(&address) => Err("a metadata service of a cloud"),
        _ => Ok(()),
    }
}

fn v6(address: Ipv6Addr) -> Result<(), &'static str> {
    let parts = address.segments();
    match address {
        _ if address.is_loopback() => return Err("a loopback address"),
        _ if address.is_unspecified() => return Err("no address of a host"),
        _ if address.is_unicast_link_local() => return Err("a link-local address"),
        _ if address.is_multicast() => return Err("a multicast address"),
        _ if METADATA_V6.contains(&address) || parts[..2] == AWS => return Err("a metadata service of a cloud"),
        _ if parts[0] & 0xffc0 == 0xfec0 => return Err("a site-local address"),
        _ => {}
    }
    let joined = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    // Ways to an IPv4 address inside an IPv6 one: NAT64 (RFC 6052), 6to4 (RFC 3056), stateless translation (RFC 2765), and the long forgotten compatible form.
    match parts {
        // Where the IPv4 address stands in it is a network's own affair (RFC 8215); in Teredo's (RFC 4380) it is a server's and a disguised client's.
        [0x64, 0xff9b, 1, ..] => Err("an address of a network's own translation"),
        [0x2001, 0, ..] => Err("a Teredo address"),
        [0x64, 0xff9b, _, _, _, _, high, low] | [0, 0, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => {
            v4(joined(high, low))
        }
        [0x2002, high, low, ..] => v4(joined(high, low)),
        _ => Ok(()),
    }
}

/// Those of clouds that are not link-local: Azure, Alibaba, Oracle.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
/// What AWS has for its services on each host.
const AWS: [u16; 2] = [0xfd00, 0xec2];
/// Google, Oracle.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)];

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(allowed: &str, host: &str, address: &str) -> bool {
        allowed.parse::<Allowed>().unwrap().permits(host, address.parse().unwrap()).is_ok()
    }

    #[test]
    fn this_host_and_its_link_are_refused_in_every_spelling() {
        let refused = [
            "127.0.0.1",
            "127.255.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "168.63.129.16",
            "100.100.100.200",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::169.254.169.254",
            "2002:7f00:1::",
            "64:ff9b:1:a9fe:a9:fe00:808:808",
            "::ffff:0:127.0.0.1",
            "2001:0:102:304::1",
            "fec0::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
        ];
        for address in refused {
            assert!(!permits("", "idp.example.com", address), "{address}");
        }
    }

    #[test]
    fn other_addresses_are_permitted_those_of_private_networks_too() {
        for address in [
            "1.1.1.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "2606::1",
            "fd00::1",
            "64:ff9b::10.0.0.1",
        ] {
            assert!(permits("", "idp.example.com", address), "{address}");
        }
    }

    #[test]
    fn an_operator_allows_hosts_and_addresses_and_nothing_beside_them() {
        let allowed = "idp.local, 127.0.0.1,169.254.20.0/24, ::1";
        assert!(permits(allowed, "IDP.local.", "127.0.0.2"), "the host");
        assert!(permits(allowed, "other", "127.0.0.1"), "the address");
        assert!(permits(allowed, "other", "::ffff:127.0.0.1"), "the address in another spelling");
        assert!(permits(allowed, "other", "169.254.20.9") && permits(allowed, "other", "::1"));
        assert!(!permits(allowed, "other", "127.0.0.2"));
        assert!(!permits(allowed, "sub.idp.local", "127.0.0.2"));
        assert!(!permits(allowed, "other", "169.254.169.254"));
        assert_eq!("a b".parse::<Allowed>(), Err(AllowedError("a b".into())));
        assert_eq!(" , ".parse::<Allowed>(), Ok(Allowed::default()));
    }
}
