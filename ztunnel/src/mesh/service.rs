// SPDX-License-Identifier: Apache-2.0
//! A service: a name and virtual addresses in front of endpoints. Its endpoints are kept beside it (see `snapshot`),
//! because they come with the workloads and may be known before the service is.

use std::collections::BTreeMap;

use ipnet::IpNet;
use mesh_proto::spiffe::Identity;
use mesh_proto::workload as proto;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::address::{self, AddressError, GatewayAddress, NetworkAddress, NetworkCidr, ServiceKey};
use super::ports::PortMap;
use super::text::{Text, is_default};
use super::workload::Health;

/// A name and virtual addresses in front of endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// Name of the Kubernetes object.
    pub name: Text,
    /// Its namespace.
    pub namespace: Text,
    /// Fully qualified name.
    pub hostname: Text,
    /// Virtual addresses.
    pub vips: Vec<NetworkAddress>,
    /// Ranges of virtual addresses.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cidr_vips: Vec<NetworkCidr>,
    /// Service port to target port; 0 leaves the target to the endpoint.
    pub ports: BTreeMap<u16, u16>,
    /// Endpoints named in a static file; empty in services that came over the wire, and once a file is taken apart.
    #[serde(default, skip_serializing)]
    pub endpoints: BTreeMap<Text, StaticEndpoint>,
    /// Identities an endpoint may show besides its own, as they were written.
    #[serde(default)]
    pub subject_alt_names: Vec<Text>,
    /// Through which clients must send.
    #[serde(default, skip_serializing_if = "is_default")]
    pub waypoint: Option<GatewayAddress>,
    /// Several waypoints that share the load.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weighted_waypoints: Vec<WeightedWaypoint>,
    /// Which endpoints are preferred.
    #[serde(default, skip_serializing_if = "is_default")]
    pub load_balancer: Option<LoadBalancer>,
    /// Address families its endpoints may be reached by; any if none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ip_families: Option<IpFamilies>,
    /// This definition wins over others of the same host name.
    #[serde(default)]
    pub canonical: bool,
    /// Who may see it.
    #[serde(default)]
    pub visibility: Visibility,
    #[serde(skip)]
    key: ServiceKey,
    #[serde(skip)]
    identities: Vec<Identity>,
}

/// An endpoint written into a static service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StaticEndpoint {
    /// Which workload.
    pub workload_uid: Text,
    /// Service port to target port.
    pub port: PortMap,
    /// Whether it should get traffic.
    #[serde(default)]
    pub status: Health,
}

/// One of several waypoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WeightedWaypoint {
    /// The waypoint.
    pub destination: GatewayAddress,
    /// Its share.
    pub weight: u32,
}

/// Which endpoints of a service are preferred.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LoadBalancer {
    /// From the most to the least important.
    pub routing_preferences: Vec<Scope>,
    /// What the preferences mean.
    pub mode: Mode,
    /// Whether unhealthy endpoints count.
    pub health_policy: HealthPolicy,
}

/// What two workloads may have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// The region.
    Region,
    /// The zone.
    Zone,
    /// The subzone.
    Subzone,
    /// The node.
    Node,
    /// The cluster.
    Cluster,
    /// The network.
    Network,
}

/// What the preferences of a [`LoadBalancer`] mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Mode {
    /// Nothing: all endpoints alike.
    #[default]
    Standard,
    /// Only endpoints that share every listed scope.
    Strict,
    /// The endpoints that share most of them.
    Failover,
    /// No endpoints: to the address the client asked for.
    Passthrough,
}

/// Whether unhealthy endpoints count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum HealthPolicy {
    /// No.
    #[default]
    OnlyHealthy,
    /// Yes.
    AllowAll,
}

/// Address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpFamilies {
    /// Both.
    Dual,
    /// Only IPv4.
    IPv4,
    /// Only IPv6.
    IPv6,
}

/// Who may see a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Visibility {
    /// Everybody.
    #[default]
    Public,
    /// Only clients of its own namespace.
    Namespace,
}

/// Why a service cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ServiceError {
    /// An address, port, name or waypoint in it.
    #[error("field {field}: {error}")]
    Field {
        /// The field of the message.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        error: AddressError,
    },
    /// A value this program does not know.
    #[error("field {field} has the value {value}, which this version does not support")]
    Unsupported {
        /// The field of the message.
        field: &'static str,
        /// Its number on the wire.
        value: i32,
    },
}

impl Service {
    /// Completes a service that was made from text: works out its key and the identities it names.
    pub fn complete(mut self) -> Result<Self, ServiceError> {
        self.key = ServiceKey::new(&self.namespace, &self.hostname).map_err(in_field("hostname"))?;
        self.identities = self.subject_alt_names.iter().filter_map(|name| name.parse().ok()).collect();
        Ok(self)
    }

    /// Its name in discovery and in every table.
    pub fn key(&self) -> &ServiceKey {
        &self.key
    }

    /// The identities of `subject_alt_names`. One that cannot be parsed could never be verified and is left out.
    pub fn identities(&self) -> &[Identity] {
        &self.identities
    }

    /// Whether clients of that namespace may see it; lookups on nobody's behalf see everything.
    pub fn is_visible_to(&self, namespace: Option<&str>) -> bool {
        self.visibility == Visibility::Public || namespace.is_none_or(|namespace| self.namespace == namespace)
    }

    /// What its preferences mean.
    pub fn mode(&self) -> Mode {
        self.load_balancer.as_ref().map_or(Mode::Standard, |balancer| balancer.mode)
    }

    /// Its preferences, the most important first.
    pub fn preferences(&self) -> &[Scope] {
        self.load_balancer.as_ref().map_or(&[], |balancer| &balancer.routing_preferences)
    }

    /// Whether an endpoint in that state gets traffic.
    pub fn takes(&self, health: Health) -> bool {
        let policy = self.load_balancer.as_ref().map_or(HealthPolicy::OnlyHealthy, |balancer| balancer.health_policy);
        health == Health::Healthy || policy == HealthPolicy::AllowAll
    }
}

impl TryFrom<proto::Service> for Service {
    type Error = ServiceError;

    fn try_from(message: proto::Service) -> Result<Self, ServiceError> {
        let mut vips = Vec::new();
        let mut cidr_vips = Vec::new();
        for listed in &message.addresses {
            let vip = NetworkAddress::try_from(listed).map_err(in_field("addresses"))?;
            let whole = if listed.address.len() == 4 { 32 } else { 128 };
            match listed.length {
                Some(length) if length != whole => {
                    let cidr: IpNet = address::cidr(&listed.address, length).map_err(in_field("addresses"))?;
                    cidr_vips.push(NetworkCidr { network: vip.network, cidr });
                }
                _ => vips.push(vip),
            }
        }
        let weighted: Result<Vec<_>, ServiceError> = message.weighted_waypoints.iter().map(weighted_waypoint).collect();
        Self {
            name: message.name.into(),
            namespace: message.namespace.into(),
            hostname: message.hostname.into(),
            vips,
            cidr_vips,
            ports: address::ports(&message.ports).map_err(in_field("ports"))?,
            endpoints: BTreeMap::new(),
            subject_alt_names: message.subject_alt_names.into_iter().map(Text::from).collect(),
            waypoint: gateway("waypoint", message.waypoint.as_ref())?,
            weighted_waypoints: weighted?,
            load_balancer: message.load_balancing.as_ref().map(load_balancer).transpose()?,
            ip_families: ip_families(message.ip_families)?,
            canonical: message.canonical,
            visibility: visibility(message.visibility),
            key: ServiceKey::default(),
            identities: Vec::new(),
        }
        .complete()
    }
}

fn in_field(field: &'static str) -> impl Fn(AddressError) -> ServiceError {
    move |error| ServiceError::Field { field, error }
}

fn gateway(
    field: &'static str,
    message: Option<&proto::GatewayAddress>,
) -> Result<Option<GatewayAddress>, ServiceError> {
    message.map(|message| message.try_into().map_err(in_field(field))).transpose()
}

fn weighted_waypoint(message: &proto::WeightedWaypoint) -> Result<WeightedWaypoint, ServiceError> {
    const FIELD: &str = "weighted_waypoints";
    let destination = gateway(FIELD, message.destination.as_ref())?
        .ok_or(ServiceError::Field { field: FIELD, error: AddressError::NoDestination })?;
    Ok(WeightedWaypoint { destination, weight: message.weight })
}

fn load_balancer(message: &proto::LoadBalancing) -> Result<LoadBalancer, ServiceError> {
    use proto::load_balancing::{HealthPolicy as Policy, Mode as Message};
    let unsupported = |field, value| ServiceError::Unsupported { field, value };
    Ok(LoadBalancer {
        routing_preferences: message.routing_preference.iter().copied().map(scope).collect::<Result<_, _>>()?,
        mode: match Message::try_from(message.mode) {
            Ok(Message::UnspecifiedMode) => Mode::Standard,
            Ok(Message::Strict) => Mode::Strict,
            Ok(Message::Failover) => Mode::Failover,
            Ok(Message::Passthrough) => Mode::Passthrough,
            Err(_) => return Err(unsupported("load_balancing.mode", message.mode)),
        },
        health_policy: match Policy::try_from(message.health_policy) {
            Ok(Policy::OnlyHealthy) => HealthPolicy::OnlyHealthy,
            Ok(Policy::AllowAll) => HealthPolicy::AllowAll,
            Err(_) => return Err(unsupported("load_balancing.health_policy", message.health_policy)),
        },
    })
}

fn scope(value: i32) -> Result<Scope, ServiceError> {
    use proto::load_balancing::Scope as Message;
    match Message::try_from(value) {
        Ok(Message::Region) => Ok(Scope::Region),
        Ok(Message::Zone) => Ok(Scope::Zone),
        Ok(Message::Subzone) => Ok(Scope::Subzone),
        Ok(Message::Node) => Ok(Scope::Node),
        Ok(Message::Cluster) => Ok(Scope::Cluster),
        Ok(Message::Network) => Ok(Scope::Network),
        Ok(Message::UnspecifiedScope) | Err(_) => {
            Err(ServiceError::Unsupported { field: "load_balancing.routing_preference", value })
        }
    }
}

fn ip_families(value: i32) -> Result<Option<IpFamilies>, ServiceError> {
    match proto::IpFamilies::try_from(value) {
        Ok(proto::IpFamilies::Automatic) => Ok(None),
        Ok(proto::IpFamilies::Ipv4Only) => Ok(Some(IpFamilies::IPv4)),
        Ok(proto::IpFamilies::Ipv6Only) => Ok(Some(IpFamilies::IPv6)),
        Ok(proto::IpFamilies::Dual) => Ok(Some(IpFamilies::Dual)),
        Err(_) => Err(ServiceError::Unsupported { field: "ip_families", value }),
    }
}

/// An unknown visibility is public: hiding the service would let its clients past the mesh.
fn visibility(value: i32) -> Visibility {
    match proto::ServiceVisibility::try_from(value) {
        Ok(proto::ServiceVisibility::Namespace) => Visibility::Namespace,
        Ok(proto::ServiceVisibility::Public) | Err(_) => Visibility::Public,
    }
}
