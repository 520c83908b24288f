// SPDX-License-Identifier: Apache-2.0
//! A workload: one endpoint of the mesh as discovery describes it (a pod, a virtual machine, an address outside).
//! Made from `istio.workload.Workload` or from a static file; serialised as `config_dump` shows it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mesh_proto::spiffe::{Identity, IdentityError};
use mesh_proto::workload as proto;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::address::{self, AddressError, GatewayAddress};
use super::memberships::Memberships;
use super::ports::PortMap;
use super::text::{Shared, Text, is_default};

/// One endpoint of the mesh.
///
/// Empty texts mean "not known". `trust_domain`, `service_account` and `cluster_id` are never empty: what the message
/// leaves out has its default already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    /// Unique in the whole mesh. In a static file it may be left out.
    #[serde(default)]
    pub uid: Text,
    /// Name of the pod (or other object) it stands for.
    #[serde(default)]
    pub name: Text,
    /// Its namespace.
    pub namespace: Text,
    /// First part of its identity.
    #[serde(default = "default_trust_domain")]
    pub trust_domain: Text,
    /// Last part of its identity.
    #[serde(default = "default_service_account")]
    pub service_account: Text,
    /// Where it is; empty if only `hostname` tells.
    #[serde(rename = "workloadIps")]
    pub addresses: Vec<IpAddr>,
    /// To be resolved when there is no address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hostname: Text,
    /// The network its addresses are valid in.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: Text,
    /// How it is reached.
    #[serde(default)]
    pub protocol: Protocol,
    /// Whether the addresses are its own.
    #[serde(default)]
    pub network_mode: NetworkMode,
    /// Through which traffic addressed to this workload itself goes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub waypoint: Option<GatewayAddress>,
    /// Through which it is reached from another network.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network_gateway: Option<GatewayAddress>,
    /// The node it runs on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub node: Text,
    /// The application's name for people.
    #[serde(default, skip_serializing_if = "is_default")]
    pub canonical_name: Text,
    /// The application's version for people.
    #[serde(default, skip_serializing_if = "is_default")]
    pub canonical_revision: Text,
    /// Kind of the controller that made it.
    #[serde(default)]
    pub workload_type: WorkloadType,
    /// Name of the controller that made it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub workload_name: Text,
    /// It terminates HBONE itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub native_tunnel: bool,
    /// What it wants inside the tunnel instead of the plain bytes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub application_tunnel: Option<ApplicationTunnel>,
    /// The services it is an endpoint of, and on which ports.
    #[serde(default, skip_serializing_if = "is_default")]
    pub services: Memberships,
    /// `namespace/name` of the policies that select it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub authorization_policies: Vec<Text>,
    /// Whether it should get traffic.
    #[serde(default)]
    pub status: Health,
    /// The cluster it was found in.
    #[serde(default = "default_cluster_id")]
    pub cluster_id: Text,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub locality: Locality,
    /// Share of the load relative to its siblings.
    #[serde(default = "default_capacity")]
    pub capacity: u32,
    /// Who it is; none if the parts make no SPIFFE id, which only a plain TCP workload may have.
    #[serde(skip)]
    pub identity: Option<Identity>,
}

/// How a workload is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Protocol {
    /// Plain TCP: it is not in the mesh.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// HTTP CONNECT over mutual TLS.
    #[serde(rename = "HBONE")]
    Hbone,
}

/// Whether addresses tell who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The addresses are the workload's own.
    #[default]
    Standard,
    /// The addresses are the node's, shared with everything else on it.
    HostNetwork,
}

/// Whether a workload should get traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Health {
    /// Yes.
    #[default]
    Healthy,
    /// Only from services that take unhealthy endpoints.
    Unhealthy,
}

/// Kind of controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadType {
    /// A Deployment, and whatever is not known.
    #[default]
    Deployment,
    /// A CronJob.
    CronJob,
    /// A pod without (known) controller.
    Pod,
    /// A Job.
    Job,
}

/// What a workload wants inside the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplicationTunnel {
    /// The protocol.
    pub protocol: TunnelProtocol,
    /// The port it listens on; the requested port if none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub port: Option<u16>,
}

/// The protocol of an [`ApplicationTunnel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TunnelProtocol {
    /// The bytes as they are.
    None,
    /// A PROXY protocol v2 header first.
    Proxy,
}

/// Where something runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Locality {
    /// Region.
    pub region: Text,
    /// Zone within the region.
    pub zone: Text,
    /// Part of the zone.
    pub subzone: Text,
}

/// How the node agent names a pod: what a workload record must match to be that pod's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// Name of the pod.
    pub name: Text,
    /// Its namespace.
    pub namespace: Text,
    /// Its service account.
    pub service_account: Text,
}

/// Why a workload cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WorkloadError {
    /// No key.
    #[error("the workload has no uid")]
    NoUid,
    /// An address, port, service name or waypoint in it.
    #[error("field {field}: {error}")]
    Field {
        /// The field of the message.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        error: AddressError,
    },
    /// A value this program does not know; a newer control plane may mean something that must not be ignored.
    #[error("field {field} has the value {value}, which this version does not support")]
    Unsupported {
        /// The field of the message.
        field: &'static str,
        /// Its number on the wire.
        value: i32,
    },
    /// An HBONE workload whom nobody could verify.
    #[error("an HBONE workload needs an identity")]
    Identity(#[source] IdentityError),
}

impl Workload {
    /// Completes a workload that was made from text: works out its identity, and a uid if it has none.
    pub fn complete(mut self) -> Result<Self, WorkloadError> {
        if self.uid.is_empty() {
            let first = self.addresses.first().map(ToString::to_string).unwrap_or_default();
            let name = if self.name.is_empty() { first.as_str() } else { self.name.as_str() };
            self.uid = format!("static//{}/{name}", self.namespace).into();
        }
        self.identity = match Identity::new(&self.trust_domain, &self.namespace, &self.service_account) {
            Ok(identity) => Some(identity),
            Err(_) if self.protocol == Protocol::Tcp => None,
            Err(error) => return Err(WorkloadError::Identity(error)),
        };
        Ok(self)
    }

    /// Whether this is the record of that pod.
    pub fn is_pod(&self, pod: &PodName) -> bool {
        self.name == pod.name && self.namespace == pod.namespace && self.service_account == pod.service_account
    }

    /// The name its own pod has with the node agent.
    pub fn pod_name(&self) -> PodName {
        PodName {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
        }
    }

    /// Takes shared copies of the texts that many workloads have in common.
    pub(super) fn share(&mut self, shared: &mut Shared) {
        let Locality { region, zone, subzone } = &mut self.locality;
        let own = [
            &mut self.namespace,
            &mut self.trust_domain,
            &mut self.service_account,
            &mut self.network,
            &mut self.node,
            &mut self.canonical_name,
            &mut self.canonical_revision,
            &mut self.workload_name,
            &mut self.cluster_id,
            region,
            zone,
            subzone,
        ];
        let keys = self.services.keys_mut().map(|key| &mut key.0);
        own.into_iter().chain(&mut self.authorization_policies).chain(keys).for_each(|text| shared.share(text));
    }

    /// Which record speaks for an address that several claim: pods before others, HBONE before TCP.
    pub(super) fn rank(&self) -> u8 {
        let pod = if self.uid.contains("//Pod/") { 2 } else { 0 };
        pod + u8::from(self.protocol == Protocol::Hbone)
    }
}

impl WorkloadType {
    /// As it stands in the baggage key `k8s.<type>.name`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::CronJob => "cronjob",
            Self::Pod => "pod",
            Self::Job => "job",
        }
    }
}

fn default_trust_domain() -> Text {
    DEFAULT_TRUST_DOMAIN.into()
}

fn default_service_account() -> Text {
    DEFAULT_SERVICE_ACCOUNT.into()
}

fn default_cluster_id() -> Text {
    DEFAULT_CLUSTER.into()
}

fn default_capacity() -> u32 {
    1
}

const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
const DEFAULT_SERVICE_ACCOUNT: &str = "default";
const DEFAULT_CLUSTER: &str = "Kubernetes";

impl TryFrom<proto::Workload> for Workload {
    type Error = WorkloadError;

    fn try_from(message: proto::Workload) -> Result<Self, WorkloadError> {
        if message.uid.is_empty() {
            return Err(WorkloadError::NoUid);
        }
        let or = |text: String, default: &str| if text.is_empty() { default.into() } else { Text::from(text) };
        let addresses: Result<_, _> = message.addresses.iter().map(|bytes| address::ip(bytes)).collect();
        let mut services = BTreeMap::new();
        for (name, list) in message.services {
            services.insert(name.parse().map_err(in_field("services"))?, ports("services", &list.ports)?);
        }
        Self {
            addresses: addresses.map_err(in_field("addresses"))?,
            hostname: message.hostname.into(),
            network: message.network.into(),
            protocol: protocol(message.tunnel_protocol)?,
            network_mode: network_mode(message.network_mode)?,
            waypoint: gateway("waypoint", message.waypoint.as_ref())?,
            network_gateway: gateway("network_gateway", message.network_gateway.as_ref())?,
            workload_type: workload_type(message.workload_type),
            application_tunnel: message.application_tunnel.as_ref().map(application_tunnel).transpose()?,
            services: services.into(),
            status: status(message.status)?,
            uid: message.uid.into(),
            name: message.name.into(),
            namespace: message.namespace.into(),
            trust_domain: or(message.trust_domain, DEFAULT_TRUST_DOMAIN),
            service_account: or(message.service_account, DEFAULT_SERVICE_ACCOUNT),
            node: message.node.into(),
            canonical_name: message.canonical_name.into(),
            canonical_revision: message.canonical_revision.into(),
            workload_name: message.workload_name.into(),
            native_tunnel: message.native_tunnel,
            authorization_policies: message.authorization_policies.into_iter().map(Text::from).collect(),
            cluster_id: or(message.cluster_id, DEFAULT_CLUSTER),
            locality: message.locality.map(Locality::from).unwrap_or_default(),
            capacity: message.capacity.unwrap_or(1),
            identity: None,
        }
        .complete()
    }
}

impl From<proto::Locality> for Locality {
    fn from(message: proto::Locality) -> Self {
        Self { region: message.region.into(), zone: message.zone.into(), subzone: message.subzone.into() }
    }
}

fn in_field(field: &'static str) -> impl Fn(AddressError) -> WorkloadError {
    move |error| WorkloadError::Field { field, error }
}

fn gateway(
    field: &'static str,
    message: Option<&proto::GatewayAddress>,
) -> Result<Option<GatewayAddress>, WorkloadError> {
    message.map(|message| message.try_into().map_err(in_field(field))).transpose()
}

fn ports(field: &'static str, list: &[proto::Port]) -> Result<PortMap, WorkloadError> {
    address::ports(list).map(PortMap::from).map_err(in_field(field))
}

fn protocol(value: i32) -> Result<Protocol, WorkloadError> {
    match proto::TunnelProtocol::try_from(value) {
        Ok(proto::TunnelProtocol::None) => Ok(Protocol::Tcp),
        Ok(proto::TunnelProtocol::Hbone) => Ok(Protocol::Hbone),
        Ok(proto::TunnelProtocol::LegacyIstioMtls) | Err(_) => {
            Err(WorkloadError::Unsupported { field: "tunnel_protocol", value })
        }
    }
}

fn network_mode(value: i32) -> Result<NetworkMode, WorkloadError> {
    match proto::NetworkMode::try_from(value) {
        Ok(proto::NetworkMode::Standard) => Ok(NetworkMode::Standard),
        Ok(proto::NetworkMode::HostNetwork) => Ok(NetworkMode::HostNetwork),
        Err(_) => Err(WorkloadError::Unsupported { field: "network_mode", value }),
    }
}

fn status(value: i32) -> Result<Health, WorkloadError> {
    match proto::WorkloadStatus::try_from(value) {
        Ok(proto::WorkloadStatus::Healthy) => Ok(Health::Healthy),
        Ok(proto::WorkloadStatus::Unhealthy) => Ok(Health::Unhealthy),
        Err(_) => Err(WorkloadError::Unsupported { field: "status", value }),
    }
}

/// Only names things in telemetry, so an unknown kind harms nobody.
fn workload_type(value: i32) -> WorkloadType {
    match proto::WorkloadType::try_from(value) {
        Ok(proto::WorkloadType::Deployment) | Err(_) => WorkloadType::Deployment,
        Ok(proto::WorkloadType::Cronjob) => WorkloadType::CronJob,
        Ok(proto::WorkloadType::Pod) => WorkloadType::Pod,
        Ok(proto::WorkloadType::Job) => WorkloadType::Job,
    }
}

fn application_tunnel(message: &proto::ApplicationTunnel) -> Result<ApplicationTunnel, WorkloadError> {
    use proto::application_tunnel::Protocol as Message;
    const FIELD: &str = "application_tunnel";
    let protocol = match Message::try_from(message.protocol) {
        Ok(Message::None) => TunnelProtocol::None,
        Ok(Message::Proxy) => TunnelProtocol::Proxy,
        Err(_) => return Err(WorkloadError::Unsupported { field: FIELD, value: message.protocol }),
    };
    let port = match message.port {
        0 => None,
        number => Some(address::port(number).map_err(in_field(FIELD))?),
    };
    Ok(ApplicationTunnel { protocol, port })
}
