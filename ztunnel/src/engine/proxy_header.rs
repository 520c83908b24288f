// SPDX-License-Identifier: Apache-2.0
//! The PROXY protocol header, version 2, that an application tunnel may want before the bytes (ztunnel.md I-30). Pure.

use std::net::{IpAddr, SocketAddr};

use crate::decide::ProxyHeader;

/// The bytes of the header: addresses and the client's identity.
pub(super) fn encode(header: &ProxyHeader) -> Vec<u8> {
    let mut addresses = Vec::with_capacity(36);
    let family = match (header.source, header.destination) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => IPV4_STREAM,
        (SocketAddr::V6(_), SocketAddr::V6(_)) => IPV6_STREAM,
        _ => UNSPECIFIED,
    };
    if family != UNSPECIFIED {
        for address in [header.source, header.destination] {
            match address.ip() {
                IpAddr::V4(ip) => addresses.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => addresses.extend_from_slice(&ip.octets()),
            }
        }
        for address in [header.source, header.destination] {
            addresses.extend_from_slice(&address.port().to_be_bytes());
        }
    }
    let identity = header.identity.as_uri().as_bytes();
    // An identity is at most three times 255 bytes and a few more.
    let identity_length = identity.len() as u16;
    let length = addresses.len() as u16 + 3 + identity_length;
    let mut bytes = Vec::with_capacity(16 + usize::from(length));
    bytes.extend_from_slice(SIGNATURE);
    bytes.extend_from_slice(&[VERSION_2_PROXY, family]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&addresses);
    bytes.push(TLV_IDENTITY);
    bytes.extend_from_slice(&identity_length.to_be_bytes());
    bytes.extend_from_slice(identity);
    bytes
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_PROXY: u8 = 0x21;
const IPV4_STREAM: u8 = 0x11;
const IPV6_STREAM: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TLV_IDENTITY: u8 = 0xd0;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(source: &str, destination: &str) -> Vec<u8> {
        encode(&ProxyHeader {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            identity: "spiffe://td/ns/n/sa/s".parse().unwrap(),
        })
    }

    #[test]
    fn addresses_and_identity_are_told() {
        let bytes = header("10.0.0.1:1000", "10.0.0.2:80");
        let (head, tlv) = bytes.split_at(28);
        let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x24\x0a\0\0\x01\x0a\0\0\x02\x03\xe8\0\x50";
        assert_eq!(head, expected);
        assert_eq!(tlv, b"\xd0\0\x15spiffe://td/ns/n/sa/s");
        assert_eq!(header("[::1]:1", "[::2]:2")[12..16], [0x21, 0x21, 0, 60]);
    }

    #[test]
    fn mixed_families_leave_the_addresses_out() {
        assert_eq!(header("10.0.0.1:1000", "[::1]:80")[12..16], [0x21, 0, 0, 24]);
    }
}
