// SPDX-License-Identifier: Apache-2.0
//! Names and numbers that two parties of the mesh must agree on, each with its source: ids such as X-02 are lines of the project's reference
//! (ztunnel.md, cni-agent.md, control-plane.md), which holds what Istio does.
//!
//! Only what crosses a border stands here: a default that one program alone knows belongs into its `config.rs`.

/// Type URLs of discovery resources.
pub mod type_url {
    /// Workloads and services (ztunnel.md §0, X-02).
    pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
    /// Workloads alone, for waypoints (control-plane.md §2.2).
    pub const WORKLOAD: &str = "type.googleapis.com/istio.workload.Workload";
    /// L4 policies (ztunnel.md §0, X-02).
    pub const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";
}

/// TCP and UDP ports.
pub mod port {
    /// In the pod: connections of the application to the outside are redirected here (ztunnel.md §2.1, cni-agent.md §0).
    pub const OUTBOUND: u16 = 15001;
    /// In the pod: plaintext connections from the outside are redirected here (ztunnel.md §2.1, cni-agent.md §0).
    pub const INBOUND_PLAINTEXT: u16 = 15006;
    /// In the pod: HBONE, reached directly and never redirected (ztunnel.md §2.1, N-13; cni-agent.md §0).
    pub const INBOUND_HBONE: u16 = 15008;
    /// In the pod: SOCKS5, where it is switched on (ztunnel.md §2.1).
    pub const SOCKS5: u16 = 15080;
    /// In the pod: DNS queries are redirected here (ztunnel.md §2.1, cni-agent.md §0).
    pub const DNS: u16 = 15053;
    /// Node proxy: administration, loopback only (ztunnel.md §2.1).
    pub const PROXY_ADMIN: u16 = 15000;
    /// Node proxy: metrics (ztunnel.md §2.1).
    pub const PROXY_METRICS: u16 = 15020;
    /// Node proxy and waypoints: readiness (ztunnel.md §2.1, P-10).
    pub const READINESS: u16 = 15021;
    /// Waypoints: statistics for Prometheus (control-plane.md §5.7).
    pub const WAYPOINT_METRICS: u16 = 15090;
    /// Control plane: discovery and certificates over TLS (control-plane.md §2.1).
    pub const DISCOVERY: u16 = 15012;
    /// Control plane and node agent: metrics (control-plane.md §2.1, cni-agent.md §0).
    pub const METRICS: u16 = 15014;
    /// Control plane: webhooks (control-plane.md §2.1).
    pub const WEBHOOK: u16 = 15017;
    /// Control plane: readiness and debugging (control-plane.md §2.1).
    pub const CONTROL_PLANE_HTTP: u16 = 8080;
    /// Node agent: health (cni-agent.md §0).
    pub const AGENT_HEALTH: u16 = 8000;
}

/// Marks and policy routing between the rules in a pod and the sockets of the node proxy.
pub mod mark {
    /// On every socket the node proxy has in a pod (ztunnel.md N-03, cni-agent.md §0): 1337.
    pub const PROXY: u32 = 0x539;
    /// Besides [`PROXY`], on sockets with the client's source address: the rules of our agent track these apart, so that the client may have the same ports
    /// for a connection of its own. It lies beyond [`MASK`], where Istio's rules do not look.
    pub const IN_CLIENT_S_NAME: u32 = 0x1000;
    /// On connections, and from there on packets, that belong to a leg with the client's source address (ztunnel.md N-14, cni-agent.md §0).
    pub const TRANSPARENT: u32 = 0x111;
    /// Which bits of a packet mark count (cni-agent.md §0).
    pub const MASK: u32 = 0xfff;
    /// Which bits move between connection and packet (cni-agent.md §0).
    pub const RESTORE_MASK: u32 = 0xffff_ffff;
    /// The routing table that leads answers back to the node proxy (cni-agent.md §0, R-07).
    pub const ROUTE_TABLE: u32 = 100;
    /// The priority of the routing rule that looks into it (cni-agent.md §0, R-06).
    pub const RULE_PRIORITY: u32 = 32764;
}

/// How probes of the kubelet are told from other traffic.
pub mod probe {
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// The source address the node gives them (ztunnel.md N-15, cni-agent.md §0).
    pub const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 7, 127);
    /// The same for IPv6 (ztunnel.md N-15, cni-agent.md §0).
    pub const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff);
    /// The set of enrolled pod addresses on the node (cni-agent.md §0).
    pub const SET_V4: &str = "istio-inpod-probes-v4";
    /// The same for IPv6 (cni-agent.md §0).
    pub const SET_V6: &str = "istio-inpod-probes-v6";
}

/// Files and sockets.
pub mod path {
    /// Where the node agent listens for node proxies (ztunnel.md §0, cni-agent.md §0).
    pub const ZDS_SOCKET: &str = "/var/run/ztunnel/ztunnel.sock";
    /// The node agent's directory on the node (cni-agent.md §0).
    pub const AGENT_RUN_DIR: &str = "/var/run/istio-cni";
    /// In it: where the agent listens for the CNI plugin (cni-agent.md §0, P-10).
    pub const PLUGIN_SOCKET_NAME: &str = "pluginevent.sock";
    /// On that socket: the path of the request that announces a pod (cni-agent.md P-10).
    pub const PLUGIN_ADD: &str = "/cmdadd";
    /// Where a node proxy finds the roots of the control plane (ztunnel.md §0; relative to its working directory).
    pub const ROOT_CERT: &str = "./var/run/secrets/istio/root-cert.pem";
    /// Where a node proxy finds its token (ztunnel.md §0; relative to its working directory).
    pub const TOKEN: &str = "./var/run/secrets/tokens/istio-token";
    /// The HTTP path that tells readiness (ztunnel.md P-10).
    pub const READY: &str = "/healthz/ready";
    /// The HTTP path of a waypoint's statistics (control-plane.md §5.7).
    pub const PROMETHEUS: &str = "/stats/prometheus";
}

/// Headers of an HBONE request and its answer.
pub mod hbone_header {
    /// Who the source (on a request) or the destination (on an answer) is, for telemetry (ztunnel.md O-14, I-18).
    pub const BAGGAGE: &str = "baggage";
    /// The client's address and the service it asked for (ztunnel.md O-15).
    pub const FORWARDED: &str = "forwarded";
    /// The connection's id in the logs of both proxies (ztunnel.md O-16).
    pub const TRACEPARENT: &str = "traceparent";
    /// The client's network, on a request that came through a gateway (ztunnel.md O-17).
    pub const FORWARDED_NETWORK: &str = "x-forwarded-network";
    /// The protocol agreed on in the TLS handshake (ztunnel.md H-12).
    pub const ALPN: &[u8] = b"h2";
}

/// Keys of the `baggage` header, in the order they are written (ztunnel.md O-14).
pub mod baggage {
    /// Cluster id.
    pub const CLUSTER: &str = "k8s.cluster.name";
    /// Namespace.
    pub const NAMESPACE: &str = "k8s.namespace.name";
    /// Name of the controller, one key for each kind of controller.
    pub const DEPLOYMENT: &str = "k8s.deployment.name";
    /// As above.
    pub const CRONJOB: &str = "k8s.cronjob.name";
    /// As above.
    pub const POD: &str = "k8s.pod.name";
    /// As above.
    pub const JOB: &str = "k8s.job.name";
    /// Canonical name.
    pub const SERVICE_NAME: &str = "service.name";
    /// Canonical revision.
    pub const SERVICE_VERSION: &str = "service.version";
    /// Region.
    pub const REGION: &str = "cloud.region";
    /// Zone.
    pub const ZONE: &str = "cloud.availability_zone";
}

/// gRPC metadata and the keys inside messages to the control plane.
pub mod grpc {
    /// The caller's token, `Bearer <token>` (ztunnel.md X-06, control-plane.md §2.6).
    pub const AUTHORIZATION: &str = "authorization";
    /// The caller's cluster (ztunnel.md X-06, control-plane.md §2.6).
    pub const CLUSTER_ID: &str = "clusterid";
    /// In the metadata of a certificate request: for whom it is (ztunnel.md A-04, control-plane.md §3.1).
    pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";
    /// In the metadata of a certificate request: which signer is to be used (control-plane.md §3.1).
    pub const CERT_SIGNER: &str = "CertSigner";
    /// The audience of tokens for the control plane (control-plane.md §3.2).
    pub const TOKEN_AUDIENCE: &str = "istio-ca";
}

/// Keys of the node metadata a discovery client introduces itself with (ztunnel.md X-04, control-plane.md §2.7).
pub mod node_metadata {
    /// The pod's name.
    pub const NAME: &str = "NAME";
    /// Its namespace.
    pub const NAMESPACE: &str = "NAMESPACE";
    /// Its service account.
    pub const SERVICE_ACCOUNT: &str = "SERVICE_ACCOUNT";
    /// Its addresses.
    pub const INSTANCE_IPS: &str = "INSTANCE_IPS";
    /// Its node.
    pub const NODE_NAME: &str = "NODE_NAME";
    /// Its cluster.
    pub const CLUSTER_ID: &str = "CLUSTER_ID";
    /// Its network.
    pub const NETWORK: &str = "NETWORK";
    /// What version it stands for.
    pub const ISTIO_VERSION: &str = "ISTIO_VERSION";
    /// Its labels, a structure.
    pub const LABELS: &str = "LABELS";
    /// Of a waypoint: its Gateway, where its labels do not tell. Ours.
    pub const GATEWAY_NAME: &str = "GATEWAY_NAME";
    /// Of a waypoint whose certificate stands in a file, our own launcher's: the file of the secret [`CERTIFICATE`](super::secret::CERTIFICATE). Istio's
    /// agent says none and serves secrets on a socket.
    pub const CERTIFICATE_FILE: &str = "LATEEN_CERTIFICATE_FILE";
    /// The file of the secret [`ROOTS`](super::secret::ROOTS).
    pub const ROOTS_FILE: &str = "LATEEN_ROOTS_FILE";
}

/// The secrets an Envoy asks whoever stands beside it for (control-plane.md §5.1.1).
pub mod secret {
    /// Its own certificate with the key.
    pub const CERTIFICATE: &str = "default";
    /// The roots of the mesh.
    pub const ROOTS: &str = "ROOTCA";
}

/// Values an absent or empty field stands for.
pub mod default {
    /// Trust domain (ztunnel.md §4.6, control-plane.md §1.0).
    pub const TRUST_DOMAIN: &str = "cluster.local";
    /// Service account (ztunnel.md §4.6, control-plane.md §1.0).
    pub const SERVICE_ACCOUNT: &str = "default";
    /// Cluster id (ztunnel.md §4.6).
    pub const CLUSTER_ID: &str = "Kubernetes";
    /// DNS suffix of the cluster (ztunnel.md §1.6).
    pub const CLUSTER_DOMAIN: &str = "cluster.local";
    /// Namespace of the mesh's own programs, and of policies for the whole mesh (control-plane.md §1.8; ztunnel.md §0 in the control plane's host name).
    pub const SYSTEM_NAMESPACE: &str = "istio-system";
    /// Where the control plane is found in Kubernetes (ztunnel.md §0).
    pub const CONTROL_PLANE: &str = "https://istiod.istio-system.svc:15012";
    /// Where it is found elsewhere (ztunnel.md §0).
    pub const CONTROL_PLANE_LOCAL: &str = "https://localhost:15012";
}

/// Labels on Kubernetes objects.
pub mod label {
    /// On a namespace or pod: whether it is in the mesh (cni-agent.md E-01, E-03).
    pub const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
    /// Its value for: in the mesh (cni-agent.md E-01).
    pub const DATAPLANE_MODE_AMBIENT: &str = "ambient";
    /// Its value for: stay out (cni-agent.md E-03).
    pub const DATAPLANE_MODE_NONE: &str = "none";
    /// On a namespace, service or pod: which waypoint to go through (control-plane.md §1.6).
    pub const USE_WAYPOINT: &str = "istio.io/use-waypoint";
    /// The namespace of that waypoint (control-plane.md §1.6).
    pub const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
    /// Ingress traffic goes through it as well (control-plane.md §1.6).
    pub const INGRESS_USE_WAYPOINT: &str = "istio.io/ingress-use-waypoint";
    /// On a Gateway: what kind of traffic it takes (control-plane.md §1.6).
    pub const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
    /// On pods of a managed Gateway: its name (control-plane.md §1.6).
    pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
    /// On what was deployed for a Gateway: by which controller (control-plane.md §4.3).
    pub const MANAGED: &str = "gateway.istio.io/managed";
    /// Canonical name of a workload (control-plane.md §1.2).
    pub const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
    /// Canonical revision of a workload (control-plane.md §1.2).
    pub const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
    /// Name of the controller a workload belongs to, where it cannot be told from its owner (control-plane.md §1.2).
    pub const WORKLOAD_NAME: &str = "service.istio.io/workload-name";
    /// On a pod: a comma list; `http` means that it terminates HBONE by itself (control-plane.md §1.2).
    pub const TUNNEL: &str = "networking.istio.io/tunnel";
    /// On the system namespace: the network of the cluster (control-plane.md §1.2).
    pub const NETWORK: &str = "topology.istio.io/network";
    /// On a node: the part of the zone it is in (control-plane.md §1.2).
    pub const SUBZONE: &str = "topology.istio.io/subzone";
}

/// Annotations on Kubernetes objects.
pub mod annotation {
    /// On a pod: what was observed about its capture (cni-agent.md §0, E-08, E-23).
    pub const REDIRECTION: &str = "ambient.istio.io/redirection";
    /// Its value for: captured (cni-agent.md §0).
    pub const REDIRECTION_ENABLED: &str = "enabled";
    /// Its value for: rules are in place, no proxy serves it yet (cni-agent.md §0, E-21).
    pub const REDIRECTION_PENDING: &str = "pending";
    /// On a pod: inbound traffic is not captured (cni-agent.md E-09).
    pub const BYPASS_INBOUND_CAPTURE: &str = "ambient.istio.io/bypass-inbound-capture";
    /// On a pod: whether its DNS is captured (cni-agent.md E-09).
    pub const DNS_CAPTURE: &str = "ambient.istio.io/dns-capture";
    /// On a pod: interfaces behind which others live whose traffic is outbound (cni-agent.md E-09).
    pub const REROUTE_VIRTUAL_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";
    /// On a pod: it has a sidecar and is never enrolled (cni-agent.md E-02).
    pub const SIDECAR_STATUS: &str = "sidecar.istio.io/status";
    /// On a service or namespace: which endpoints are preferred (control-plane.md §1.4).
    pub const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
    /// On a policy: only report what it would do (control-plane.md §1.8).
    pub const DRY_RUN: &str = "istio.io/dry-run";
    /// On a Gateway: how its waypoint wants inbound traffic (control-plane.md §1.6).
    pub const WAYPOINT_INBOUND_BINDING: &str = "ambient.istio.io/waypoint-inbound-binding";
}

/// Policies the control plane makes by itself.
pub mod policy {
    /// In the system namespace: deny whoever has no identity (control-plane.md §1.9).
    pub const STATIC_STRICT: &str = "istio_converted_static_strict";
    /// Begins the name of a policy made from a PeerAuthentication with modes of its own for ports (control-plane.md §1.9).
    pub const PEER_AUTHENTICATION_PREFIX: &str = "converted_peer_authentication_";
}
