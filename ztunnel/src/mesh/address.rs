// SPDX-License-Identifier: Apache-2.0
//! The kinds of address the mesh speaks of: an IP within a network, a range of them, a host name within a namespace,
//! and the gateway or waypoint that is named by one of these. Text forms are those of `config_dump` and static files.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use mesh_proto::workload as proto;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::text::Text;

/// Why an address in a message or file cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Neither IPv4 nor IPv6.
    #[error("an address has {0} bytes; it must have 4 (IPv4) or 16 (IPv6)")]
    Bytes(usize),
    /// A prefix longer than the address.
    #[error("prefix length {length} is too long for {address}")]
    Length {
        /// The address before the prefix length.
        address: IpAddr,
        /// The length that does not fit.
        length: u32,
    },
    /// Not `network/ip`.
    #[error("{0:?} is not of the form `network/ip` (the network may be empty: `/10.0.0.1`)")]
    NetworkAddress(String),
    /// Not `namespace/hostname`.
    #[error("{0:?} is not of the form `namespace/hostname`")]
    ServiceKey(String),
    /// A gateway or waypoint that says neither host name nor address.
    #[error("a gateway or waypoint has neither host name nor address")]
    NoDestination,
    /// A port that does not fit 16 bits, or 0 where a port is needed.
    #[error("{0} is not a port number")]
    Port(u32),
}

/// An IP address together with the network it is valid in. Networks of one mesh may overlap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct NetworkAddress {
    /// The network; empty is the default one.
    pub network: Text,
    /// The address within it.
    pub address: IpAddr,
}

/// A range of addresses within a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkCidr {
    /// The network; empty is the default one.
    pub network: Text,
    /// The range.
    pub cidr: IpNet,
}

/// The name of a service, `namespace/hostname`: its discovery name and its key in every table.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ServiceKey(pub(super) Text);

/// A waypoint or network gateway, and the port on which it speaks HBONE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayAddress {
    /// Where it is.
    pub destination: Destination,
    /// Its HBONE port.
    #[serde(default = "default_hbone_port")]
    pub hbone_mtls_port: u16,
}

/// What a [`GatewayAddress`] points to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Destination {
    /// A service or workload by name.
    Hostname(ServiceKey),
    /// A virtual or pod address.
    Address(NetworkAddress),
}

impl ServiceKey {
    /// Joins the two names.
    pub fn new(namespace: &str, hostname: &str) -> Result<Self, AddressError> {
        format!("{namespace}/{hostname}").parse()
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The host name.
    pub fn hostname(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, hostname)| hostname)
    }

    /// Both, as on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ServiceKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ServiceKey {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.split_once('/') {
            Some((_, hostname)) if !hostname.is_empty() && !hostname.contains('/') => Ok(Self(text.into())),
            _ => Err(AddressError::ServiceKey(text.to_owned())),
        }
    }
}

impl TryFrom<String> for ServiceKey {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<ServiceKey> for String {
    fn from(key: ServiceKey) -> Self {
        key.as_str().to_owned()
    }
}

impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.address)
    }
}

impl FromStr for NetworkAddress {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let malformed = || AddressError::NetworkAddress(text.to_owned());
        let (network, address) = text.split_once('/').ok_or_else(malformed)?;
        Ok(Self { network: network.into(), address: address.parse().map_err(|_| malformed())? })
    }
}

impl TryFrom<String> for NetworkAddress {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<NetworkAddress> for String {
    fn from(address: NetworkAddress) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for Destination {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        // An IP address never contains what makes a host name, so the order decides nothing but the error.
        text.parse().map(Self::Address).or_else(|_: AddressError| text.parse().map(Self::Hostname))
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.to_string()
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hostname(key) => key.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.destination, self.hbone_mtls_port)
    }
}

/// The same socket address with an IPv4 address written as such: a dual-stack listener reports `::ffff:10.0.0.1`.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// An address of 4 or 16 bytes. One of IPv4 in IPv6 notation is one of IPv4, as it is where connections come from and go to
/// (see [`canonical`]): in a table or a policy it would be found by nobody.
pub(super) fn ip(bytes: &[u8]) -> Result<IpAddr, AddressError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(Ipv4Addr::from(v4).into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).map_err(|_| AddressError::Bytes(bytes.len()))?;
    Ok(Ipv6Addr::from(v6).to_canonical())
}

/// A range from the bytes of its address and a prefix length; bits behind the prefix are cleared.
pub(super) fn cidr(bytes: &[u8], length: u32) -> Result<IpNet, AddressError> {
    let mut address = ip(bytes)?;
    let mut length = length;
    if let (IpAddr::V4(v4), 16) = (address, bytes.len()) {
        // The length counts the bits of the notation. A range wider than all of IPv4 is one of IPv6.
        match length.checked_sub(IPV4_PREFIX) {
            Some(within) => length = within,
            None => address = v4.to_ipv6_mapped().into(),
        }
    }
    let prefix = u8::try_from(length).map_err(|_| AddressError::Length { address, length })?;
    IpNet::new(address, prefix).map(|net| net.trunc()).map_err(|_| AddressError::Length { address, length })
}

/// A port number of 1 to 65535.
pub(super) fn port(number: u32) -> Result<u16, AddressError> {
    u16::try_from(number).ok().filter(|&port| port != 0).ok_or(AddressError::Port(number))
}

/// Service port to target port, where 0 as a target leaves it to somebody else.
pub(super) fn ports(list: &[proto::Port]) -> Result<BTreeMap<u16, u16>, AddressError> {
    let target = |number| if number == 0 { Ok(0) } else { port(number) };
    list.iter().map(|listed| Ok((port(listed.service_port)?, target(listed.target_port)?))).collect()
}

/// How many bits stand before an IPv4 address in IPv6 notation.
const IPV4_PREFIX: u32 = 96;

fn default_hbone_port() -> u16 {
    HBONE_PORT
}

/// Where a workload takes HBONE.
pub const HBONE_PORT: u16 = 15008;

impl TryFrom<&proto::NetworkAddress> for NetworkAddress {
    type Error = AddressError;
    fn try_from(message: &proto::NetworkAddress) -> Result<Self, AddressError> {
        Ok(Self { network: message.network.as_str().into(), address: ip(&message.address)? })
    }
}

impl TryFrom<&proto::GatewayAddress> for GatewayAddress {
    type Error = AddressError;
    fn try_from(message: &proto::GatewayAddress) -> Result<Self, AddressError> {
        use proto::gateway_address::Destination as Message;
        let destination = match message.destination.as_ref().ok_or(AddressError::NoDestination)? {
            Message::Hostname(name) => Destination::Hostname(ServiceKey::new(&name.namespace, &name.hostname)?),
            Message::Address(address) => Destination::Address(address.try_into()?),
        };
        let hbone_mtls_port = match message.hbone_mtls_port {
            0 => HBONE_PORT,
            number => port(number)?,
        };
        Ok(Self { destination, hbone_mtls_port })
    }
}
