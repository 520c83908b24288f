// SPDX-License-Identifier: Apache-2.0
//! What the resolved mesh consists of: plain values without a trace of where they came from. Built by `build`, read by everybody above.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use mesh_proto::{contract::default, spiffe::Identity};

use super::waypoint::ApplicationTunnel;
use crate::api::{AuthorizationPolicy, Resolution};

/// What is the same for the whole mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// Of every identity.
    pub trust_domain: String,
    /// Of this cluster.
    pub cluster_id: String,
    /// Behind `svc.` in the name of a service.
    pub cluster_domain: String,
    /// Whose policies hold for the whole mesh.
    pub root_namespace: String,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            trust_domain: default::TRUST_DOMAIN.into(),
            cluster_id: default::CLUSTER_ID.into(),
            cluster_domain: default::CLUSTER_DOMAIN.into(),
            root_namespace: default::SYSTEM_NAMESPACE.into(),
        }
    }
}

impl Mesh {
    /// The full host name of a service, by its key. A name with a dot in it is one already: that of a ServiceEntry's host, for the names of
    /// Kubernetes services have no dots.
    pub fn hostname(&self, service: &Name) -> String {
        match service.name.contains('.') {
            true => service.name.to_string(),
            false => format!("{}.{}.svc.{}", service.name, service.namespace, self.cluster_domain),
        }
    }

    /// The key of the service a host name means in a namespace; the way back from [`Self::hostname`].
    pub fn service_key(&self, namespace: &str, host: &str) -> Name {
        let suffix = format!(".{namespace}.svc.{}", self.cluster_domain);
        let short = host.strip_suffix(&suffix).filter(|name| !name.is_empty() && !name.contains('.'));
        Name::new(namespace, short.unwrap_or(host))
    }

    /// The key of the service with this id; the way back from [`Self::service_id`].
    pub fn service_of_id(&self, id: &str) -> Name {
        let (namespace, host) = id.split_once('/').unwrap_or_default();
        self.service_key(namespace, host)
    }

    /// What its resource is called: `namespace/hostname`.
    pub fn service_id(&self, service: &Name) -> Arc<str> {
        format!("{}/{}", service.namespace, self.hostname(service)).into()
    }
}

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Name {
    /// A name.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which object a workload stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadId {
    /// A pod.
    Pod(Name),
    /// An address of an EndpointSlice behind which there is no pod.
    Endpoint {
        /// The slice.
        slice: Name,
        /// The address.
        address: IpAddr,
    },
    /// A WorkloadEntry.
    Entry(Name),
    /// An endpoint of a ServiceEntry.
    EntryEndpoint {
        /// The ServiceEntry.
        entry: Name,
        /// The endpoint's address or host name, as written.
        address: Arc<str>,
    },
}

/// One endpoint of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Which.
    pub id: WorkloadId,
    /// Name of its object: the pod, or the service of the slice.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The name to look up where it has no addresses; empty otherwise.
    pub hostname: Arc<str>,
    /// The network they are valid in.
    pub network: Arc<str>,
    /// How it is reached.
    pub tunnel: Tunnel,
    /// Whom its certificates name; empty when nobody can tell.
    pub service_account: Arc<str>,
    /// Where it runs.
    pub node: Arc<str>,
    /// Where that node stands.
    pub locality: Locality,
    /// Name of the application.
    pub canonical_name: Arc<str>,
    /// Version of the application.
    pub canonical_revision: Arc<str>,
    /// Name of its controller.
    pub workload_name: Arc<str>,
    /// Whether its addresses are its node's, so that they do not tell who speaks.
    pub on_host_network: bool,
    /// Whether it takes traffic.
    pub ready: bool,
    /// The services it is an endpoint of, by `namespace/hostname`, and its ports there.
    pub services: BTreeMap<Arc<str>, Vec<PortMapping>>,
    /// The policies that select it.
    pub policies: BTreeSet<Name>,
    /// The Gateway through which traffic to its addresses goes.
    pub waypoint: Option<Name>,
    /// How the application behind the tunnel wants its connections; only instances of a gateway have this.
    pub application_tunnel: Option<ApplicationTunnel>,
    /// Its share of the traffic among equals, where somebody gave one.
    pub weight: Option<u32>,
}

/// How a workload is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// As it is.
    Plain,
    /// By HBONE, which the node proxy ends.
    Hbone,
    /// By HBONE, which it ends itself.
    NativeHbone,
}

/// Where something stands; all empty when nobody said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Part of the zone.
    pub subzone: String,
}

/// A port of a service and where an endpoint serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// Of the service.
    pub service_port: u16,
    /// Of the endpoint.
    pub target_port: u16,
}

/// A name with virtual addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name of its object.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Fully qualified.
    pub hostname: Arc<str>,
    /// Virtual addresses; none for a headless service.
    pub addresses: Vec<IpAddr>,
    /// Virtual ranges; only ServiceEntries have them.
    pub ranges: Vec<IpNet>,
    /// The network they are valid in.
    pub network: Arc<str>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Which families it has.
    pub families: Families,
    /// Which endpoints are preferred.
    pub preference: Preference,
    /// Whether endpoints that are not ready get traffic, too.
    pub publish_not_ready: bool,
    /// How a ServiceEntry's endpoints are found; `None` for a Kubernetes service.
    pub resolution: Option<Resolution>,
    /// Names the certificates of its endpoints may have, beside their own.
    pub subject_alt_names: Vec<Arc<str>>,
    /// Whether its host name means this service to clients of other namespaces, too.
    pub canonical: bool,
    /// The Gateway through which traffic to it goes.
    pub waypoint: Option<Name>,
    /// Whether gateways at the edge of the mesh send through the waypoint, too.
    pub ingress_use_waypoint: bool,
}

impl Service {
    /// What its resource is called: `namespace/hostname`.
    pub fn id(&self) -> Arc<str> {
        format!("{}/{}", self.namespace, self.hostname).into()
    }

    /// Its key in the snapshot.
    pub fn key(&self, mesh: &Mesh) -> Name {
        mesh.service_key(&self.namespace, &self.hostname)
    }
}

/// A port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The port.
    pub port: u16,
    /// Where endpoints serve it; `None` when it is a name and each endpoint says for itself.
    pub target: Option<u16>,
    /// What is spoken there.
    pub protocol: AppProtocol,
}

/// What is spoken on a port, as far as it matters to the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AppProtocol {
    Unknown,
    Http11,
    Http2,
    Grpc,
    Tcp,
    Tls,
}

/// Address families of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Families {
    Automatic,
    Ipv4,
    Ipv6,
    Dual,
}

/// Which endpoints of a service are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// All alike.
    Any,
    /// Only those on the client's node.
    OnlySameNode,
    /// The nearest by network, region, zone.
    SameZone,
    /// The nearest by network, region, zone, subzone, node.
    SameNode,
}

/// What a node proxy must enforce.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// An object somebody wrote, and whom it holds for.
    Authorization {
        /// Whom.
        scope: Scope,
        /// The object.
        object: Arc<AuthorizationPolicy>,
    },
    /// Nobody without an identity, for the workloads that list it.
    StaticStrict,
    /// The same, but not the same on every port.
    PortLevel(PortLevel),
}

/// Whom a policy holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The mesh.
    Global,
    /// Its namespace.
    Namespace,
    /// The workloads that list it.
    Selected,
}

/// Ports of a workload that differ from the rest of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortLevel {
    /// Identity is required on all ports but these.
    StrictExcept(BTreeSet<u16>),
    /// Identity is required on these ports only.
    StrictOn(BTreeSet<u16>),
}

/// A pod that exists and has not ended: who runs where. Pods without an address are here, too; their certificates are wanted first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// The pod's uid; empty when its object has none.
    pub uid: Arc<str>,
    /// The node it was given to; empty before that.
    pub node: Arc<str>,
    /// As whom it runs.
    pub identity: Identity,
}
